//! Reads that wait until the stream has been applied up to a sequence. Pure.

use std::collections::BTreeMap;
use std::time::Instant;

/// What waits, by the sequence that it waits for. Whoever inserts keeps the number of them bounded.
#[derive(Debug)]
pub struct Waiters<T> {
    waiting: BTreeMap<(u64, u64), (Instant, T)>,
    inserted: u64,
}

impl<T> Waiters<T> {
    /// Nobody waits.
    pub fn new() -> Self {
        Waiters { waiting: BTreeMap::new(), inserted: 0 }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Waits for `seq`, until `deadline`.
    pub fn insert(&mut self, seq: u64, deadline: Instant, waiter: T) {
        self.inserted += 1;
        self.waiting.insert((seq, self.inserted), (deadline, waiter));
    }

    /// Takes out those whose sequence has been applied.
    pub fn reached(&mut self, applied: u64) -> Vec<T> {
        let later = self.waiting.split_off(&(applied.saturating_add(1), 0));
        std::mem::replace(&mut self.waiting, later).into_values().map(|(_, waiter)| waiter).collect()
    }

    /// Drops those whose time is over: how many they were.
    pub fn expire(&mut self, now: Instant) -> usize {
        let before = self.waiting.len();
        self.waiting.retain(|_, (deadline, _)| *deadline > now);
        before - self.waiting.len()
    }
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn whoever_waits_is_taken_out_once_reached_or_late() {
        let start = Instant::now();
        let mut waiters = Waiters::new();
        for (seq, name) in [(5, "a"), (3, "b"), (5, "c"), (9, "d")] {
            waiters.insert(seq, start + Duration::from_secs(seq), name);
        }
        assert_eq!(waiters.reached(2), Vec::<&str>::new());
        assert_eq!(waiters.reached(5), ["b", "a", "c"]);
        assert_eq!(waiters.expire(start + Duration::from_secs(8)), 0);
        assert_eq!(waiters.expire(start + Duration::from_secs(9)), 1);
        assert!(waiters.is_empty());
    }
}
