//! Which entries of a room's log were void, as far as a gateway or a history replica has seen it. Pure.

use std::collections::BTreeSet;

use crate::limits::VOIDS_MAX;

/// What is known of entries that have had their turn.
#[derive(Clone, Debug, Default)]
pub struct Voids {
    /// Nothing is known of what stands up to here.
    unknown: u64,
    seqs: BTreeSet<u64>,
}

impl Voids {
    /// An entry was void.
    pub fn note(&mut self, seq: u64) {
        self.seqs.insert(seq);
        if self.seqs.len() > VOIDS_MAX
            && let Some(oldest) = self.seqs.pop_first()
        {
            self.unknown = self.unknown.max(oldest);
        }
    }

    /// What stands up to here was not seen, or not as the log has it.
    pub fn unknown_to(&mut self, seq: u64) {
        self.unknown = self.unknown.max(seq);
        self.seqs = self.seqs.split_off(&seq.saturating_add(1));
    }

    /// What it takes. Bytes, about.
    pub fn heap_bytes(&self) -> usize {
        2 * size_of::<u64>() * self.seqs.len()
    }

    /// Whether an entry that has had its turn was void; `None`: it is not known.
    pub fn is_void(&self, seq: u64) -> Option<bool> {
        (seq > self.unknown).then(|| self.seqs.contains(&seq))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_known_and_what_was_not_is_not() {
        let mut voids = Voids::default();
        voids.unknown_to(5);
        voids.note(7);
        assert_eq!([5, 6, 7, 8].map(|seq| voids.is_void(seq)), [None, Some(false), Some(true), Some(false)]);
        voids.unknown_to(7);
        assert_eq!([7, 8].map(|seq| voids.is_void(seq)), [None, Some(false)]);
        for seq in 10..=10 + VOIDS_MAX as u64 {
            voids.note(seq);
        }
        assert_eq!(
            [10, 11].map(|seq| voids.is_void(seq)),
            [None, Some(true)],
            "the oldest is forgotten, not taken back"
        );
    }
}
