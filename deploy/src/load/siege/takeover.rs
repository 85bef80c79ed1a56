//! How long clients waited after a kill. Pure.

use std::time::Duration;

use super::killer::Kill;

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
    what: Kill,
    kills: u32,
    open: Option<Duration>,
    times: Vec<Duration>,
}

impl Takeovers {
    pub(super) fn new(what: Kill) -> Takeovers {
        Takeovers { what, kills: 0, open: None, times: Vec::new() }
    }

    /// A process is about to be killed. A kill before it after which nothing was seen has no time.
    pub(super) fn killed(&mut self, at: Duration) {
        self.kills += 1;
        self.open = Some(at);
    }

    /// Takes what a client saw: chats talk on without a matcher, and clients of other gateways without the killed one,
    /// so only that counts which needed what was killed.
    pub(super) fn saw(&mut self, sight: Sight) {
        let Some(killed) = self.open else { return };
        let shows = match self.what {
            Kill::Matcher => sight.said.is_none(),
            Kill::Gateway => sight.connected > killed,
            Kill::History | Kill::Nats => sight.said.is_none_or(|said| said > killed),
        };
        if shows {
            self.times.push(sight.at.saturating_sub(killed));
            self.open = None;
        }
    }

    /// Kills so far.
    pub(super) fn kills(&self) -> u32 {
        self.kills
    }

    /// Of how many kills there is a time; their median and the worst, in seconds.
    pub(super) fn times(&self) -> (usize, f64, f64) {
        let mut sorted = self.times.clone();
        sorted.sort_unstable();
        let at = |index: usize| sorted.get(index).map_or(0.0, Duration::as_secs_f64);
        let last = sorted.len().saturating_sub(1);
        // Of an even number, the mean of the two in the middle.
        (sorted.len(), f64::midpoint(at(last / 2), at(last.div_ceil(2))), at(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(what: Kill, said: Option<u64>, connected: u64) -> usize {
        let mut all = Takeovers::new(what);
        all.killed(Duration::from_secs(10));
        let secs = Duration::from_secs;
        all.saw(Sight { at: secs(12), said: said.map(secs), connected: secs(connected) });
        all.times().0
    }

    #[test]
    fn only_what_needed_the_killed_process_counts() {
        assert_eq!((took(Kill::Matcher, None, 1), took(Kill::Matcher, Some(11), 11)), (1, 0));
        assert_eq!((took(Kill::Gateway, Some(11), 11), took(Kill::Gateway, Some(11), 1)), (1, 0));
        for kill in [Kill::Nats, Kill::History] {
            assert_eq!((took(kill, Some(11), 1), took(kill, Some(9), 1), took(kill, None, 1)), (1, 0, 1));
        }
    }

    #[test]
    fn median_and_worst() {
        let mut all = Takeovers::new(Kill::Matcher);
        assert_eq!(all.times(), (0, 0.0, 0.0));
        for (killed, seen) in [(0, 1), (10, 15), (20, 22)] {
            all.killed(Duration::from_secs(killed));
            for at in [seen, seen + 1] {
                all.saw(Sight { at: Duration::from_secs(at), said: None, connected: Duration::ZERO });
            }
        }
        all.killed(Duration::from_secs(30));
        assert_eq!((all.kills(), all.times()), (4, (3, 2.0, 5.0)));
        all.saw(Sight { at: Duration::from_secs(33), said: None, connected: Duration::ZERO });
        assert_eq!(all.times(), (4, 2.5, 5.0));
    }
}
