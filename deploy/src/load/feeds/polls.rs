//! What polls left in the source's table. Pure; times are counted from the start of the run.

use std::time::Duration;

use super::super::guest::Broken;
use super::judge::INTERVAL;

/// However polls and take-overs fall, no second sees more of them.
const IN_A_SECOND_MAX: usize = 2;

/// One poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The value that it gave.
    pub(super) n: i64,
    pub(super) at: Duration,
}

/// The polls of a time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Polls {
    pub(super) count: usize,
    /// From the one before the first to the last.
    pub(super) seconds: f64,
    /// The most within a second, wherever it begins.
    pub(super) in_a_second: usize,
    /// Intervals in which there was none.
    pub(super) skipped: u64,
}

/// Polls behind the one that gave the first of these values, up to the one that gave the last; `rows` in their order.
///
/// # Errors
/// If a value was not polled, or where nothing was struck, there is not one poll for each interval, or there are too
/// many in any second at all.
pub(super) fn judge(rows: &[Row], (first, last): (i64, i64), struck: bool) -> Result<Polls, Broken> {
    let place = |n: i64| {
        let found = rows.iter().position(|row| row.n == n);
        found.ok_or_else(|| Broken(format!("value {n} is in no row: the feed does not poll this database")))
    };
    let (first, last) = (place(first)?, place(last)?);
    let polls = of(rows.get(first..=last).unwrap_or_default());
    let most = in_a_second(rows);
    if most > IN_A_SECOND_MAX {
        return Err(Broken(format!("{most} polls within a second")));
    }
    // Fewer than a float holds.
    let count = f64::from(u32::try_from(polls.count).unwrap_or(u32::MAX));
    if !struck && (count - polls.seconds / INTERVAL.as_secs_f64()).abs() > 1.0 {
        return Err(Broken(format!("{count} polls in {:.2} s", polls.seconds)));
    }
    Ok(polls)
}

/// Polls from this time on, up to that one.
pub(super) fn within(rows: &[Row], from: Duration, to: Duration) -> Polls {
    let begin = rows.partition_point(|row| row.at < from).saturating_sub(1);
    let end = rows.partition_point(|row| row.at < to);
    of(rows.get(begin..end).unwrap_or_default())
}

/// Of all but the first row, whose time is where they begin.
fn of(rows: &[Row]) -> Polls {
    let gaps = rows.windows(2).map(|pair| pair[1].at.saturating_sub(pair[0].at));
    // To the nearest number of intervals: polls come a little early or late.
    let intervals = |gap: Duration| (gap + INTERVAL / 2).as_nanos() / INTERVAL.as_nanos();
    let skipped = gaps.map(|gap| u64::try_from(intervals(gap).saturating_sub(1)).unwrap_or(u64::MAX)).sum();
    let seconds = match rows {
        [first, .., last] => last.at.saturating_sub(first.at).as_secs_f64(),
        [] | [_] => 0.0,
    };
    Polls { count: rows.len().saturating_sub(1), seconds, in_a_second: in_a_second(rows), skipped }
}

fn in_a_second(rows: &[Row]) -> usize {
    let from = |at: usize| {
        let end = rows[at].at + Duration::from_secs(1);
        rows[at..].iter().take_while(|row| row.at < end).count()
    };
    (0..rows.len()).map(from).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(at_ms: &[u64]) -> Vec<Row> {
        (1..).zip(at_ms).map(|(n, at)| Row { n, at: Duration::from_millis(*at) }).collect()
    }

    fn words(outcome: Result<Polls, Broken>) -> String {
        outcome.expect_err("a violation").to_string()
    }

    #[test]
    fn there_is_one_poll_for_each_interval() {
        let even: Vec<u64> = (0..=60).map(|n| n * 1000 + n % 3).collect();
        let polls = judge(&rows(&even), (1, 61), false).expect("all is well");
        assert_eq!((polls.count, polls.in_a_second, polls.skipped), (60, 2, 0));
        assert!((polls.seconds - 60.0).abs() < 1e-9);
        let all = rows(&[0, 1000, 4000, 5000, 6000]);
        assert!(words(judge(&all, (1, 5), false)).contains("4 polls in 6.00 s"));
        assert_eq!(judge(&all, (1, 5), true).expect("something was struck").skipped, 2);
        assert!(judge(&all, (3, 5), false).is_ok());
        let more = rows(&[0, 500, 1100, 1600, 2200, 2700, 3300]);
        assert!(words(judge(&more, (1, 7), false)).contains("6 polls in 3.30 s"));
    }

    #[test]
    fn no_second_has_more_than_two_whether_struck_or_not() {
        let all = rows(&[0, 1000, 1998, 1999]);
        assert!(words(judge(&all, (1, 4), true)).contains("3 polls within a second"));
        assert!(
            words(judge(&all, (1, 2), true)).contains("3 polls within a second"),
            "also outside of what is counted"
        );
        assert_eq!(judge(&rows(&[0, 1000, 1001, 2000]), (1, 4), true).expect("two").in_a_second, 2);
    }

    #[test]
    fn a_value_was_polled() {
        assert!(words(judge(&rows(&[0, 1000]), (1, 3), false)).contains("value 3 is in no row"));
    }

    #[test]
    fn polls_around_a_strike_begin_with_the_one_before_it() {
        let all = rows(&[0, 1000, 6000, 7000, 8000]);
        let polls = within(&all, Duration::from_millis(1500), Duration::from_millis(7500));
        assert_eq!((polls.count, polls.skipped, polls.in_a_second), (2, 4, 1));
        assert_eq!(within(&all, Duration::from_secs(9), Duration::from_secs(9)).count, 0);
    }
}
