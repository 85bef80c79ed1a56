//! The most that happened within a second. Pure.

use std::collections::VecDeque;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Counts what happens.
#[derive(Debug, Default)]
pub(super) struct Peak {
    /// When, within the last second.
    recent: VecDeque<Duration>,
    most: usize,
}

impl Peak {
    /// It happened; times do not go back.
    pub(super) fn note(&mut self, at: Duration) {
        while self.recent.front().is_some_and(|first| *first + SECOND <= at) {
            self.recent.pop_front();
        }
        self.recent.push_back(at);
        self.most = self.most.max(self.recent.len());
    }

    /// How often within the fullest second.
    pub(super) fn most(&self) -> usize {
        self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_second_counts_wherever_it_begins() {
        let mut peak = Peak::default();
        for ms in [0, 600, 900, 1_500, 1_599, 5_000] {
            peak.note(Duration::from_millis(ms));
        }
        assert_eq!(peak.most(), 4, "from 600 to 1599");
    }
}
