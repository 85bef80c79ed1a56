//! What a room's log is known to hold: everything that any member received, or had acknowledged. Pure.

use std::collections::VecDeque;

/// How a message was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::load) enum Event {
    /// `new_msg`, which the socket that sent it is not shown.
    Broadcast,
    /// `new_message`, which everybody is shown.
    Say,
}

/// Which message: the `n`th of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::load) struct Said {
    /// Who, counted from 0.
    pub(in crate::load) by: u16,
    /// Which of its messages.
    pub(in crate::load) n: u32,
    /// How.
    pub(in crate::load) event: Event,
}

/// An entry: 24 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) said: Said,
    /// Of the whole payload; 0: it was acknowledged, and nobody has seen it yet.
    pub(super) digest: u32,
}

/// The log of a room, in order; of a long one, the end.
#[derive(Debug)]
pub(super) struct Log {
    entries: VecDeque<Entry>,
    keep: usize,
    /// What stands up to here is forgotten.
    floor: u64,
}

impl Log {
    /// One that remembers its last `keep` entries.
    pub(super) fn new(keep: usize) -> Log {
        Log { entries: VecDeque::new(), keep, floor: 0 }
    }

    /// The last sequence that is known; 0: none.
    pub(super) fn last(&self) -> u64 {
        self.entries.back().map_or(self.floor, |entry| entry.seq)
    }

    /// What stands up to here is forgotten, and judged no more.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// Where this sequence stands, or would.
    fn place(&self, seq: u64) -> Result<usize, usize> {
        // Nearly always it is the newest, or a new one.
        if seq > self.last() {
            return Err(self.entries.len());
        }
        self.entries.binary_search_by_key(&seq, |entry| entry.seq)
    }

    /// The entry of this sequence.
    pub(super) fn get_mut(&mut self, seq: u64) -> Option<&mut Entry> {
        let at = self.place(seq).ok()?;
        self.entries.get_mut(at)
    }

    /// Adds one; whether it stands before others.
    pub(super) fn insert(&mut self, entry: Entry) -> bool {
        let Err(at) = self.place(entry.seq) else { return false };
        let inside = at < self.entries.len();
        self.entries.insert(at, entry);
        if self.entries.len() > self.keep
            && let Some(oldest) = self.entries.pop_front()
        {
            self.floor = oldest.seq;
        }
        inside
    }

    /// What stands between these two, without them.
    pub(super) fn between(&self, after: u64, before: u64) -> impl Iterator<Item = &Entry> {
        let from = self.place(after).map_or_else(|at| at, |at| at + 1);
        self.entries.range(from..).take_while(move |entry| entry.seq < before)
    }

    /// What stands from this one on.
    pub(super) fn from(&self, seq: u64) -> impl Iterator<Item = &Entry> {
        self.entries.range(self.place(seq).unwrap_or_else(|at| at)..)
    }
}
