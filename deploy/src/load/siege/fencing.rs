//! What the matchers' metrics say over a whole run: epochs, and late writes that were refused. Pure.

use std::collections::BTreeMap;

use crate::matchers::Matcher;
use crate::runfile::ProcessId;

/// Counts over all matchers, and over those that took a dead one's name.
#[derive(Debug, Default)]
pub(super) struct Fencing {
    /// By name: the process that was seen last, and its count.
    last: BTreeMap<String, (ProcessId, u64)>,
    refused: u64,
    /// The newest epoch at the beginning, and now.
    epochs: Option<(u64, u64)>,
}

impl Fencing {
    /// Takes what they say now. What was counted before the first time is not of this run.
    pub(super) fn note(&mut self, matchers: &[Matcher]) {
        let first = self.epochs.is_none();
        for matcher in matchers {
            let before = match self.last.get(&matcher.name) {
                Some((id, count)) if *id == matcher.id => *count,
                Some(_) => 0,
                None if first => matcher.fenced,
                None => 0,
            };
            self.refused += matcher.fenced.saturating_sub(before);
            self.last.insert(matcher.name.clone(), (matcher.id, matcher.fenced));
        }
        let newest = matchers.iter().map(|matcher| matcher.epoch).max().unwrap_or(0);
        let (began, seen) = self.epochs.unwrap_or((newest, newest));
        self.epochs = Some((began, seen.max(newest)));
    }

    /// Late writes that were refused. Those of a process that was killed before it was asked are not among them.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Epochs that have begun.
    pub(super) fn epochs(&self) -> u64 {
        self.epochs.map_or(0, |(began, now)| now - began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_before_is_not_counted_and_a_restart_begins_at_nothing() {
        let matcher = |name: &str, pid, epoch, fenced| Matcher {
            name: name.into(),
            id: ProcessId { pid, started: 1 },
            leads: true,
            epoch,
            fenced,
        };
        let mut fencing = Fencing::default();
        fencing.note(&[matcher("matcher-1", 1, 4, 7), matcher("matcher-2", 2, 3, 1)]);
        assert_eq!((fencing.refused(), fencing.epochs()), (0, 0));
        fencing.note(&[matcher("matcher-2", 2, 5, 2)]);
        fencing.note(&[matcher("matcher-1", 9, 0, 3), matcher("matcher-2", 2, 5, 2)]);
        assert_eq!((fencing.refused(), fencing.epochs()), (4, 1));
        fencing.note(&[]);
        assert_eq!((fencing.refused(), fencing.epochs()), (4, 1));
    }
}
