//! What a run of a feed found, as a table and as JSON.

use std::time::Duration;

use serde::Serialize;

use super::super::Speaks;
use super::super::end::End;
use super::super::measure::Costs;
use super::super::report::{line, print_costs, print_end};
use super::super::siege::median_and_worst;
use super::FeedsArgs;
use super::judge::{Judge, Strike, Struck};
use super::polls::{Polls, Row, within};

/// What a run of a feed found.
#[derive(Debug, Serialize)]
pub(super) struct FeedsReport {
    command: &'static str,
    vsn: Speaks,
    members: u32,
    gateways: usize,
    /// How long polls were counted.
    seconds: f64,
    /// Rows in the source's table.
    polls: usize,
    /// The most within any second.
    polls_in_a_second: usize,
    /// Intervals in which there was no poll.
    polls_skipped: u64,
    /// Values that anybody was shown.
    values: usize,
    /// Values that members were shown.
    deliveries: u64,
    /// Values that a member was not shown because a newer one came right after: one for each member.
    left_out: u64,
    /// Events `stale`, one for each member.
    stale: u64,
    /// The longest that a member was without a fresh value.
    silence_seconds: f64,
    /// How often a feed had another owner: epochs that began.
    take_overs: u32,
    /// What came of strikes, kind by kind.
    kinds: Vec<OfKind>,
    /// CPU of all processes for each poll, and of history alone. Microseconds.
    us_per_poll: f64,
    history_us_per_poll: f64,
    /// CPU of the gateways for each value that a member was shown. Microseconds.
    gateway_us_per_delivery: f64,
    #[serde(flatten)]
    costs: Costs,
    /// The first broken rule.
    violation: Option<String>,
    /// The run was ended before its time.
    interrupted: bool,
}

/// What came of strikes of one kind; each lasts until the next one.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct OfKind {
    strike: Strike,
    strikes: usize,
    /// The longest that any member was without a fresh value.
    silence_median_seconds: f64,
    silence_worst_seconds: f64,
    /// The most polls within a second.
    polls_in_a_second: usize,
    /// Epochs that began, those of who came back among them.
    take_overs: u32,
    /// Intervals without a poll.
    polls_skipped: u64,
}

/// What a report is made of, beside the costs.
pub(super) struct Seen<'a> {
    pub(super) gateways: usize,
    pub(super) judge: &'a Judge,
    pub(super) polls: Polls,
    pub(super) kinds: Vec<OfKind>,
}

/// Of these strikes, in the order in which their kinds came.
pub(super) fn kinds(strikes: &[Struck], rows: &[Row], ended: Duration) -> Vec<OfKind> {
    let ends = strikes.iter().skip(1).map(|next| next.at).chain([ended]);
    let strikes: Vec<(Struck, Polls)> =
        strikes.iter().zip(ends).map(|(struck, end)| (*struck, within(rows, struck.at, end))).collect();
    let mut kinds: Vec<Strike> = Vec::new();
    for (struck, _) in &strikes {
        if !kinds.contains(&struck.strike) {
            kinds.push(struck.strike);
        }
    }
    let of = |strike: Strike| {
        let those: Vec<&(Struck, Polls)> = strikes.iter().filter(|(struck, _)| struck.strike == strike).collect();
        let silences: Vec<Duration> = those.iter().map(|(struck, _)| struck.silence).collect();
        let (silence_median_seconds, silence_worst_seconds) = median_and_worst(&silences);
        OfKind {
            strike,
            strikes: those.len(),
            silence_median_seconds,
            silence_worst_seconds,
            polls_in_a_second: those.iter().map(|(_, polls)| polls.in_a_second).max().unwrap_or(0),
            take_overs: those.iter().map(|(struck, _)| struck.take_overs).sum(),
            polls_skipped: those.iter().map(|(_, polls)| polls.skipped).sum(),
        }
    };
    kinds.into_iter().map(of).collect()
}

impl FeedsReport {
    pub(super) fn new(args: &FeedsArgs, seen: Seen<'_>, costs: Costs, end: End) -> FeedsReport {
        let Seen { gateways, judge, polls, kinds } = seen;
        let tally = judge.tally();
        // Less than a float holds.
        let each = |seconds: f64, n: u64| 1e6 * seconds / f64::from(u32::try_from(n.max(1)).unwrap_or(u32::MAX));
        let count = u64::try_from(polls.count).unwrap_or(u64::MAX);
        FeedsReport {
            command: "feeds",
            vsn: args.vsn,
            members: args.members,
            gateways,
            seconds: polls.seconds,
            polls: polls.count,
            polls_in_a_second: polls.in_a_second,
            polls_skipped: polls.skipped,
            values: judge.values(),
            deliveries: tally.deliveries,
            left_out: tally.left_out,
            stale: tally.stale,
            silence_seconds: tally.silence.as_secs_f64(),
            take_overs: tally.take_overs,
            kinds,
            us_per_poll: each(costs.cpu_seconds, count),
            history_us_per_poll: each(costs.of("history"), count),
            gateway_us_per_delivery: each(costs.of("gateway"), tally.deliveries),
            costs,
            violation: end.violation,
            interrupted: end.interrupted,
        }
    }

    /// Says it.
    pub(super) fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        line("members", format_args!("{} on {} gateways", self.members, self.gateways));
        let (seconds, most, skipped) = (self.seconds, self.polls_in_a_second, self.polls_skipped);
        line("polls", format_args!("{} in {seconds:.2} s, {most} in a second at most, {skipped} skipped", self.polls));
        let (deliveries, left_out, stale) = (self.deliveries, self.left_out, self.stale);
        let values =
            format_args!("{}; shown {deliveries} times, {left_out} times left out, {stale} times stale", self.values);
        line("values", values);
        let (silence, take_overs) = (self.silence_seconds, self.take_overs);
        line("silence s", format_args!("{silence:.2} at most; {take_overs} take-overs"));
        for kind in &self.kinds {
            let OfKind { strikes, silence_median_seconds: median, silence_worst_seconds: worst, .. } = kind;
            let (most, take_overs, skipped) = (kind.polls_in_a_second, kind.take_overs, kind.polls_skipped);
            let what = format_args!(
                "{strikes} times; silence s: median {median:.2}  worst {worst:.2}; {take_overs} take-overs, \
                 {skipped} polls skipped, {most} in a second at most"
            );
            line(kind.strike.as_str(), what);
        }
        let (poll, history, delivery) = (self.us_per_poll, self.history_us_per_poll, self.gateway_us_per_delivery);
        line("CPU us", format_args!("{poll:.0} of all per poll ({history:.0} of history)"));
        line("", format_args!("{delivery:.2} of gateways per value shown"));
        print_costs(&self.costs);
        print_end(self.violation.as_deref(), self.interrupted);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_what_came_until_the_next_strike() {
        let s = Duration::from_secs;
        let struck = |strike, at, silence, take_overs| Struck { strike, at: s(at), silence: s(silence), take_overs };
        let strikes = [
            struck(Strike::Drain, 2, 1, 2),
            struck(Strike::Kill, 10, 6, 1),
            struck(Strike::Drain, 20, 4, 1),
            struck(Strike::Kill, 30, 5, 0),
        ];
        // 6, and 12 to 15, are missing; 25 comes twice.
        let times = (0..=5).chain(7..=11).chain(16..=25).chain(25..=40);
        let rows: Vec<Row> = (1..).zip(times).map(|(n, at)| Row { n, at: s(at) }).collect();
        let of = |kind: &OfKind| {
            let silence = (kind.silence_median_seconds, kind.silence_worst_seconds);
            (kind.strike, kind.strikes, silence, kind.take_overs, kind.polls_skipped, kind.polls_in_a_second)
        };
        let kinds: Vec<_> = kinds(&strikes, &rows, s(41)).iter().map(of).collect();
        assert_eq!(kinds, [(Strike::Drain, 2, (2.5, 4.0), 3, 1, 2), (Strike::Kill, 2, (5.5, 6.0), 1, 4, 1)]);
    }
}
