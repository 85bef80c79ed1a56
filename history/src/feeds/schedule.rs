//! When a feed is polled: at phases of the wall clock that its name decides. So polls of many feeds are spread, and
//! every owner keeps the same times: a take-over neither doubles a poll nor moves the later ones.
//!
//! Times are unix milliseconds.

use std::time::Duration;

use switchboard_contract::limits::{FEED_BACKOFF_MAX, FEED_POLLED_REPEAT};
use switchboard_contract::names::FeedId;
use xxhash_rust::xxh3::xxh3_64;

/// The times of one feed.
#[derive(Clone, Debug)]
pub struct Schedule {
    interval: u64,
    hash: u64,
    /// The next phase comes behind this.
    behind: u64,
    failures: u32,
    not_before: u64,
    /// In which of the times of [`FEED_POLLED_REPEAT`], counted from the feed's own phase, the record was written last.
    written: u64,
}

impl Schedule {
    /// Of a feed with this interval.
    pub fn new(feed: &FeedId, interval: Duration) -> Schedule {
        let hash = xxh3_64(feed.as_str().as_bytes());
        Schedule { interval: ms(interval).max(1), hash, behind: 0, failures: 0, not_before: 0, written: 0 }
    }

    /// The next phase. Each is named once, though a timer may fire early by the wall clock.
    pub fn next(&mut self, now: u64) -> u64 {
        // After the clock was set back, what was said before does not count.
        let from = if self.behind <= now + self.interval { now.max(self.behind) } else { now };
        let since = (from + self.interval - self.hash % self.interval) % self.interval;
        self.behind = from + self.interval - since;
        self.behind
    }

    /// There is a poll now, outside of the phases: one that is nearer than half an interval is left out.
    pub fn poll_now(&mut self, now: u64) {
        self.behind = now + self.interval / 2;
    }

    /// Whether the source is to be asked at all, or still left alone because it failed.
    pub fn may_poll(&self, now: u64) -> bool {
        // What is further away than any wait was said before the clock was set back.
        now >= self.not_before || self.not_before > now + self.longest() + self.interval
    }

    /// The source failed: it is left alone for twice as long as after the failure before. `jitter` from 0 to 1 keeps
    /// feeds of one source that failed together from asking together.
    pub fn failed(&mut self, now: u64, jitter: f64) {
        self.failures = self.failures.saturating_add(1);
        let wait = self.interval.saturating_mul(1 << self.failures.min(16)).min(self.longest());
        // The phase that comes next anyway is as near as an interval: so the wait is counted to just before a phase.
        let jitter = (self.interval.min(wait / 4) as f64 * jitter.clamp(0.0, 1.0)) as u64;
        self.not_before = now + wait - self.interval / 2 + jitter;
    }

    /// The source answered.
    pub fn succeeded(&mut self) {
        (self.failures, self.not_before) = (0, 0);
    }

    /// The feed's record was written, whatever for.
    pub fn wrote(&mut self, now: u64) {
        self.written = self.repeats(now);
    }

    /// Whether the record is to be written only to say when there was a poll: once in [`FEED_POLLED_REPEAT`], for each
    /// feed at another moment; or with each poll, if the interval is longer.
    pub fn is_to_be_written(&self, now: u64) -> bool {
        self.interval >= ms(FEED_POLLED_REPEAT) || self.repeats(now) != self.written
    }

    fn repeats(&self, now: u64) -> u64 {
        let repeat = ms(FEED_POLLED_REPEAT);
        (now + repeat - self.hash % repeat) / repeat
    }

    /// The longest wait after a failure.
    fn longest(&self) -> u64 {
        (10 * self.interval).min(ms(FEED_BACKOFF_MAX)).max(self.interval)
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 1_700_000_000_000;

    fn schedule(name: &str, interval: u64) -> Schedule {
        Schedule::new(&FeedId::new(name).expect("a feed"), Duration::from_millis(interval))
    }

    #[test]
    fn sixty_seconds_have_sixty_polls_over_any_number_of_owners() {
        for name in ["a", "b", "news:x"] {
            let mut polls = Vec::new();
            let mut owner = schedule(name, 1_000);
            let mut now = T;
            loop {
                let at = owner.next(now);
                if at >= T + 60_000 {
                    break;
                }
                polls.push(at);
                // Woken early by the wall clock, or late; and now and then by another owner.
                now = if at % 3_000 < 1_000 { at - 1 } else { at + 30 };
                if at % 7_000 < 1_000 {
                    owner = schedule(name, 1_000);
                    now = at + 30;
                }
            }
            assert_eq!(polls.len(), 60, "{name}");
            assert!(polls.windows(2).all(|pair| pair[1] - pair[0] == 1_000), "{name}");
        }
    }

    #[test]
    fn feeds_are_spread_over_their_interval() {
        let mut tenths = [0; 10];
        for n in 0..1_000 {
            tenths[((schedule(&format!("n:{n}"), 1_000).next(T) - T - 1) / 100) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (60..=140).contains(count)), "{tenths:?}");
    }

    #[test]
    fn behind_a_poll_out_of_turn_a_near_phase_is_left_out() {
        let phase = schedule("a", 1_000).next(T);
        for (before, next) in [(1, 1_000), (499, 1_000), (501, 0), (999, 0)] {
            let mut schedule = schedule("a", 1_000);
            schedule.poll_now(phase - before);
            assert_eq!(schedule.next(phase - before), phase + next, "{before} ms before");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_stop_the_polls() {
        let mut schedule = schedule("a", 1_000);
        schedule.next(T);
        assert!(schedule.next(T - 3_600_000) <= T - 3_600_000 + 1_000);
        schedule.failed(T, 1.0);
        assert!(!schedule.may_poll(T - 1_000), "set back a little");
        assert!(schedule.may_poll(T - 3_600_000));
    }

    #[test]
    fn that_a_feed_was_polled_is_written_once_in_ten_seconds_and_not_by_all_at_once() {
        let mut tenths = [0; 10];
        for n in 0..1_000 {
            let mut schedule = schedule(&format!("n:{n}"), 1_000);
            let mut now = schedule.next(T);
            schedule.wrote(now);
            let mut writes = Vec::new();
            for _ in 0..60 {
                now = schedule.next(now);
                if schedule.is_to_be_written(now) {
                    schedule.wrote(now);
                    writes.push(now);
                }
            }
            assert_eq!(writes.len(), 6, "{n}");
            assert!(writes.windows(2).all(|pair| pair[1] - pair[0] == 10_000), "{n}");
            tenths[(writes[0] / 1_000 % 10) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (60..=140).contains(count)), "{tenths:?}");
    }

    #[test]
    fn a_feed_of_long_intervals_says_each_poll_and_so_does_a_clock_that_was_set_back() {
        for (interval, at_once) in [(10_000, true), (3_600_000, true), (9_999, false), (1_000, false)] {
            let mut schedule = schedule("a", interval);
            schedule.wrote(T);
            assert_eq!(schedule.is_to_be_written(T), at_once, "{interval}");
            assert!(schedule.is_to_be_written(T - 3_600_000), "{interval}");
        }
    }

    #[test]
    fn a_source_that_fails_is_asked_ever_more_seldom() {
        for (interval, waits) in [
            (1_000, &[2_000, 4_000, 8_000, 10_000, 10_000][..]),
            (10_000, &[20_000, 30_000, 30_000]),
            (3_600_000, &[3_600_000, 3_600_000]),
        ] {
            let mut schedule = schedule("a", interval);
            let mut now = schedule.next(T);
            for wait in waits {
                schedule.failed(now, 0.0);
                let failed = now;
                now = schedule.next(now);
                while !schedule.may_poll(now) {
                    now = schedule.next(now);
                }
                assert_eq!(now - failed, *wait, "{interval}");
            }
            schedule.succeeded();
            assert!(schedule.may_poll(now));
        }
        let mut schedule = schedule("a", 1_000);
        schedule.failed(T, 1.0);
        assert!(!schedule.may_poll(T + 1_999) && schedule.may_poll(T + 2_000), "500 ms more at most");
    }
}
