//! The kept entries of one log: its last messages, and a room's last states among them. Pure.

use std::collections::VecDeque;

use serde_json::value::{RawValue, to_raw_value};
use switchboard_contract::limits::{HISTORY_REPLY_BYTES_MAX, LOG_MESSAGES_MAX, LOG_STATES_MAX};
use switchboard_contract::log::{Entry, Message, Read};

use crate::keywords::Heard;

/// What a kept entry costs beyond its JSON: its places in the log and in the order of all, and the allocation. Bytes.
const KEPT_OVERHEAD: usize = 112;

/// The entries that a log still has, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    kept: VecDeque<Kept>,
    /// How many of them are states.
    states: usize,
    /// The last message that was dropped. Dropping a state loses nothing: the next one holds the whole state again.
    dropped_to: u64,
    /// What the kept entries cost.
    bytes: usize,
    /// Grows with each change.
    version: u64,
}

#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) seq: u64,
    /// A [`Message`], as readers get it.
    pub(crate) json: Box<RawValue>,
    state: bool,
    /// Its words, once they have been looked at.
    pub(crate) heard: Option<Box<Heard>>,
}

impl Kept {
    pub(crate) fn cost(&self) -> usize {
        self.json.get().len() + KEPT_OVERHEAD + self.heard.as_ref().map_or(0, |heard| heard.cost())
    }
}

impl Tail {
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn dropped_to(&self) -> u64 {
        self.dropped_to
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Kept> {
        self.kept.iter()
    }

    pub(crate) fn front(&self) -> Option<u64> {
        self.kept.front().map(|kept| kept.seq)
    }

    pub(crate) fn has(&self, seq: u64) -> bool {
        self.kept.binary_search_by_key(&seq, |kept| kept.seq).is_ok()
    }

    /// Says that there was a message at `seq` which is not there any more.
    pub(crate) fn miss(&mut self, seq: u64) {
        self.dropped_to = self.dropped_to.max(seq);
    }

    /// Keeps an entry, with this payload. `false`: it is larger than a reply may be, so that no reader could get past
    /// it; it is dropped with all before it, as a gap.
    pub(crate) fn keep(&mut self, seq: u64, entry: &Entry<'_>, payload: &RawValue, state: bool) -> bool {
        let json = raw_json(&Message {
            seq,
            id: (&*entry.id).into(),
            at: (&*entry.at).into(),
            event: (&*entry.event).into(),
            payload,
            from: entry.from.clone(),
        });
        self.version += 1;
        // The brackets of the array are part of a reply.
        if json.get().len() + 2 > HISTORY_REPLY_BYTES_MAX {
            while self.drop_oldest() {}
            self.miss(seq);
            return false;
        }
        let kept = Kept { seq, json, state, heard: None };
        self.bytes += kept.cost();
        self.kept.push_back(kept);
        self.states += usize::from(state);
        let too_many = if state { self.states > LOG_STATES_MAX } else { self.len() - self.states > LOG_MESSAGES_MAX };
        if too_many && let Some(at) = self.kept.iter().position(|kept| kept.state == state) {
            self.drop_at(at);
        }
        true
    }

    pub(crate) fn drop_oldest(&mut self) -> bool {
        self.drop_at(0)
    }

    fn drop_at(&mut self, at: usize) -> bool {
        let Some(dropped) = self.kept.remove(at) else { return false };
        self.version += 1;
        self.bytes -= dropped.cost();
        if dropped.state {
            self.states -= 1;
        } else {
            self.miss(dropped.seq);
        }
        true
    }

    /// Looks at the words of what was said behind `after`.
    pub(crate) fn hear(&mut self, after: u64, mut hear: impl FnMut(&RawValue) -> Option<Heard>) {
        let from = self.kept.partition_point(|kept| kept.seq <= after);
        for kept in self.kept.range_mut(from..).filter(|kept| !kept.state) {
            self.bytes -= kept.cost();
            kept.heard = hear(&kept.json).map(Box::new);
            self.bytes += kept.cost();
        }
    }

    /// What a reader asks for, and whether that is all in its direction.
    pub(crate) fn page(&self, which: &Read) -> (Vec<&RawValue>, bool) {
        let from = which.after.map_or(0, |after| self.kept.partition_point(|kept| kept.seq <= after));
        let to = which.before.map_or(self.kept.len(), |before| self.kept.partition_point(|kept| kept.seq < before));
        let asked: Vec<&Kept> =
            self.kept.range(from..to.max(from)).filter(|kept| which.states || !kept.state).collect();
        let limit = which.limit.unwrap_or(LOG_MESSAGES_MAX).min(LOG_MESSAGES_MAX);
        let fits = if which.oldest_first {
            0..how_many_fit(asked.iter().copied(), limit)
        } else {
            asked.len() - how_many_fit(asked.iter().rev().copied(), limit)..asked.len()
        };
        let page: Vec<&RawValue> = asked[fits].iter().map(|kept| &*kept.json).collect();
        let complete = page.len() == asked.len();
        (page, complete)
    }
}

/// How many of these fit into one reply.
fn how_many_fit<'a>(messages: impl Iterator<Item = &'a Kept>, limit: usize) -> usize {
    // The brackets; then each message with a comma, of which there is one too many.
    let mut bytes = 1;
    messages
        .take(limit)
        .take_while(|kept| {
            bytes += kept.json.get().len() + 1;
            bytes <= HISTORY_REPLY_BYTES_MAX
        })
        .count()
}

/// JSON of something that always is.
pub(crate) fn raw_json<T: serde::Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    match to_raw_value(value) {
        Ok(json) => json,
        Err(error) => unreachable!("a message of the contract is always JSON: {error}"),
    }
}
