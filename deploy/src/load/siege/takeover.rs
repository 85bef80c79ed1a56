//! How long the system did not serve after a kill. Pure.

use std::time::Duration;

use serde::Serialize;

use super::orders::Kill;

/// Something that a client saw which may show that the system serves again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    /// When.
    pub(super) at: Duration,
    /// A message was said at this time; `None`: it is a chat that nobody was shown before.
    pub(super) said: Option<Duration>,
    /// When the client that saw it had opened its socket.
    pub(super) connected: Duration,
}

/// All kills of a run.
#[derive(Debug)]
pub(super) struct Takeovers {
    kinds: Vec<(Kill, u32, Vec<Duration>)>,
    /// What was killed last, and when.
    open: Option<(Kill, Duration)>,
}

/// What the report says of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in crate::load) struct OfKind {
    /// What was killed, or paused.
    pub(in crate::load) kind: Kill,
    /// How often.
    pub(in crate::load) kills: u32,
    /// Kills after which the system was seen to serve again before the next.
    pub(in crate::load) takeovers: usize,
    /// From the kill to that.
    pub(in crate::load) takeover_median_seconds: f64,
    /// The longest of them.
    pub(in crate::load) takeover_worst_seconds: f64,
}

impl Takeovers {
    /// Of these kinds; a kind that is there twice counts as one.
    pub(super) fn new(kinds: &[Kill]) -> Takeovers {
        let mut all = Takeovers { kinds: Vec::new(), open: None };
        for kind in kinds {
            if all.of(*kind).is_none() {
                all.kinds.push((*kind, 0, Vec::new()));
            }
        }
        all
    }

    fn of(&mut self, kind: Kill) -> Option<&mut (Kill, u32, Vec<Duration>)> {
        self.kinds.iter_mut().find(|(other, ..)| *other == kind)
    }

    /// Something is about to be killed. A kill before it after which nothing was seen has no time.
    pub(super) fn struck(&mut self, kind: Kill, at: Duration) {
        if let Some((_, kills, _)) = self.of(kind) {
            *kills += 1;
        }
        self.open = Some((kind, at));
    }

    /// Takes what a client saw: chats talk on without a matcher, and clients of other gateways without the killed one,
    /// so only that counts which needed what was killed.
    pub(super) fn saw(&mut self, sight: Sight) {
        let Some((kind, struck)) = self.open else { return };
        let shows = match kind {
            // A new chat needs a free place too: that another one leads says more.
            Kill::Matcher => false,
            Kill::Gateway | Kill::All => sight.connected > struck,
            Kill::History | Kill::Nats => sight.said.is_none_or(|said| said > struck),
        };
        if shows {
            self.serves(kind, sight.at.saturating_sub(struck));
        }
    }

    /// Another matcher leads.
    pub(super) fn led(&mut self, at: Duration) {
        if let Some((kind @ Kill::Matcher, struck)) = self.open {
            self.serves(kind, at.saturating_sub(struck));
        }
    }

    fn serves(&mut self, kind: Kill, after: Duration) {
        self.open = None;
        if let Some((.., times)) = self.of(kind) {
            times.push(after);
        }
    }

    /// Kind by kind, in the order in which they were named.
    pub(super) fn report(&self) -> Vec<OfKind> {
        let of = |(kind, kills, times): &(Kill, u32, Vec<Duration>)| {
            let (takeover_median_seconds, takeover_worst_seconds) = median_and_worst(times);
            OfKind {
                kind: *kind,
                kills: *kills,
                takeovers: times.len(),
                takeover_median_seconds,
                takeover_worst_seconds,
            }
        };
        self.kinds.iter().map(of).collect()
    }
}

/// The median and the longest of these times, in seconds; of an even number, the mean of the two in the middle.
pub(in crate::load) fn median_and_worst(times: &[Duration]) -> (f64, f64) {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = |index: usize| sorted.get(index).map_or(0.0, Duration::as_secs_f64);
    let last = sorted.len().saturating_sub(1);
    (f64::midpoint(at(last / 2), at(last.div_ceil(2))), at(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(what: Kill, said: Option<u64>, connected: u64) -> usize {
        let mut all = Takeovers::new(&[what]);
        all.struck(what, Duration::from_secs(10));
        let secs = Duration::from_secs;
        all.saw(Sight { at: secs(12), said: said.map(secs), connected: secs(connected) });
        all.report()[0].takeovers
    }

    #[test]
    fn only_what_needed_the_killed_process_counts() {
        assert_eq!((took(Kill::Matcher, None, 11), took(Kill::Matcher, Some(11), 11)), (0, 0));
        for kill in [Kill::Gateway, Kill::All] {
            assert_eq!((took(kill, Some(11), 11), took(kill, Some(11), 1)), (1, 0));
        }
        for kill in [Kill::Nats, Kill::History] {
            assert_eq!((took(kill, Some(11), 1), took(kill, Some(9), 1), took(kill, None, 1)), (1, 0, 1));
        }
    }

    #[test]
    fn median_and_worst_of_each_kind() {
        let mut all = Takeovers::new(&[Kill::Matcher, Kill::Nats, Kill::Matcher]);
        let report = |all: &Takeovers| -> Vec<_> {
            let of = |k: &OfKind| (k.kind, k.kills, k.takeovers, k.takeover_median_seconds, k.takeover_worst_seconds);
            all.report().iter().map(of).collect()
        };
        assert_eq!(report(&all), [(Kill::Matcher, 0, 0, 0.0, 0.0), (Kill::Nats, 0, 0, 0.0, 0.0)]);
        for (struck, seen) in [(0, 1), (10, 15), (20, 22)] {
            all.struck(Kill::Matcher, Duration::from_secs(struck));
            for at in [seen, seen + 1] {
                all.led(Duration::from_secs(at));
            }
        }
        all.struck(Kill::Matcher, Duration::from_secs(30));
        assert_eq!(report(&all)[0], (Kill::Matcher, 4, 3, 2.0, 5.0));
        all.led(Duration::from_secs(33));
        all.struck(Kill::Nats, Duration::from_secs(40));
        all.led(Duration::from_secs(40));
        all.saw(Sight { at: Duration::from_secs(41), said: None, connected: Duration::ZERO });
        assert_eq!(report(&all), [(Kill::Matcher, 4, 4, 2.5, 5.0), (Kill::Nats, 1, 1, 1.0, 1.0)]);
    }
}
