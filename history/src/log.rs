//! The logs: what is kept of each chat, and what a read of it answers. Pure: entries in, replies out.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde_json::value::{RawValue, to_raw_value};
use switchboard_contract::limits::{HISTORY_REPLY_BYTES_MAX, LOG_MESSAGES_MAX};
use switchboard_contract::lobby::{ChatEnd, ChatEvent};
use switchboard_contract::log::{Entry, Message, Position, Read, ReadReply};
use switchboard_contract::names::LogName;
use switchboard_contract::wire::V1;

/// What a kept message costs beyond its JSON: its places in the log and in the order of all, and the allocation. Bytes.
const MESSAGE_OVERHEAD: usize = 96;
/// What a log costs beyond its name and messages. Bytes.
const LOG_OVERHEAD: usize = 320;
/// Below this length the order of all is not worth compacting. Items.
const ORDER_SLACK: usize = 1024;

/// All logs of a replica, within a bound on their memory.
#[derive(Debug)]
pub struct Logs {
    logs: HashMap<Arc<LogName>, Log>,
    /// Every entry that a log still stands on, the oldest first; and some that none does any more, until compacted.
    order: VecDeque<(u64, Arc<LogName>)>,
    messages: usize,
    bytes: usize,
    bytes_max: usize,
    applied: u64,
    evicted: u64,
}

#[derive(Debug)]
struct Log {
    name: Arc<LogName>,
    last_seq: u64,
    dropped_to: u64,
    ready: Option<u64>,
    end: Option<(u64, ChatEnd)>,
    said: u64,
    kept: VecDeque<Kept>,
    /// What the kept messages cost.
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    seq: u64,
    /// A [`Message`], as readers get it.
    json: Box<RawValue>,
}

impl Kept {
    fn cost(&self) -> usize {
        self.json.get().len() + MESSAGE_OVERHEAD
    }
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// A client's message, kept.
    Message,
    /// A change of state.
    State,
    /// It stands behind the end of its chat.
    Void,
    /// Larger than a reply may be, so that no reader could get past it: dropped, with all before it, as a gap.
    TooLarge,
    /// It was applied before.
    Known,
}

impl Logs {
    /// No logs; at most `bytes_max` bytes of them later.
    pub fn new(bytes_max: usize) -> Self {
        Logs { logs: HashMap::new(), order: VecDeque::new(), messages: 0, bytes: 0, bytes_max, applied: 0, evicted: 0 }
    }

    /// The stream's sequence up to which everything has been applied.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The memory of all logs, estimated. Bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many logs there are.
    pub fn count(&self) -> usize {
        self.logs.len()
    }

    /// How many messages were dropped for want of memory, ever.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Applies an entry. Entries come in the stream's order; one that came before does nothing.
    pub fn apply(&mut self, name: LogName, seq: u64, entry: &Entry<'_>) -> Applied {
        if seq <= self.applied {
            return Applied::Known;
        }
        let event = ChatEvent::parse(&entry.event);
        if event == Some(ChatEvent::Tombstone) {
            self.applied = seq;
            self.forget(&name);
            return Applied::State;
        }
        let name = self.touch(name, seq);
        let applied = self.change(&name, |log| log.apply(seq, event, entry));
        self.make_room();
        applied.unwrap_or(Applied::Known)
    }

    /// Passes over an entry that was not understood. It has its place in the log's order, if the log is known.
    pub fn pass(&mut self, name: Option<LogName>, seq: u64) {
        if seq <= self.applied {
            return;
        }
        self.applied = seq;
        if let Some(name) = name {
            self.touch(name, seq);
            self.make_room();
        }
    }

    /// Drops what stands before `first_seq`, as the stream has. A log of which nothing is left is forgotten.
    pub fn drop_before(&mut self, first_seq: u64) {
        while self.order.front().is_some_and(|(seq, _)| *seq < first_seq) {
            self.drop_oldest();
        }
        self.applied = self.applied.max(first_seq.saturating_sub(1));
    }

    /// Answers a read from what is kept.
    pub fn read(&self, read: &Read) -> ReadReply {
        let Some(log) = self.logs.get(&read.log) else {
            return ReadReply {
                v: V1,
                last_seq: 0,
                dropped_to: 0,
                complete: true,
                ready: None,
                end: None,
                said: 0,
                room: None,
                messages: raw_json(&[(); 0]),
            };
        };
        let from = read.after.map_or(0, |after| log.kept.partition_point(|kept| kept.seq <= after));
        let to = read.before.map_or(log.kept.len(), |before| log.kept.partition_point(|kept| kept.seq < before));
        let asked = from..to.max(from);
        let limit = read.limit.unwrap_or(LOG_MESSAGES_MAX).min(LOG_MESSAGES_MAX);
        let fits = if read.oldest_first {
            let count = how_many_fit(log.kept.range(asked.clone()), limit);
            asked.start..asked.start + count
        } else {
            let count = how_many_fit(log.kept.range(asked.clone()).rev(), limit);
            asked.end - count..asked.end
        };
        let complete = fits.len() == asked.len();
        let messages: Vec<&RawValue> = log.kept.range(fits).map(|kept| &*kept.json).collect();
        ReadReply {
            v: V1,
            last_seq: log.last_seq,
            dropped_to: log.dropped_to,
            complete,
            ready: log.ready,
            end: log.end,
            said: log.said,
            room: None,
            messages: raw_json(&messages),
        }
    }

    /// Which of these logs have an entry behind what was seen of them, and their last.
    pub fn behind(&self, seen: &[Position]) -> Vec<Position> {
        let newer = |(name, seq): &Position| {
            let log = self.logs.get(name).filter(|log| log.last_seq > *seq)?;
            Some((name.clone(), log.last_seq))
        };
        seen.iter().filter_map(newer).collect()
    }

    /// The name of a log, made if need be, that now has `seq` as its newest entry.
    fn touch(&mut self, name: LogName, seq: u64) -> Arc<LogName> {
        self.applied = seq;
        let name = match self.logs.get(&name) {
            Some(log) => log.name.clone(),
            None => {
                self.bytes += log_cost(&name);
                Arc::new(name)
            }
        };
        self.order.push_back((seq, name.clone()));
        self.logs.entry(name.clone()).or_insert_with(|| Log::new(name.clone())).last_seq = seq;
        name
    }

    /// Changes a log, and the sums with it.
    fn change<R>(&mut self, name: &LogName, change: impl FnOnce(&mut Log) -> R) -> Option<R> {
        let log = self.logs.get_mut(name)?;
        self.messages -= log.kept.len();
        self.bytes -= log.bytes;
        let result = change(log);
        self.messages += log.kept.len();
        self.bytes += log.bytes;
        Some(result)
    }

    fn forget(&mut self, name: &LogName) {
        if let Some(log) = self.logs.remove(name) {
            self.messages -= log.kept.len();
            self.bytes -= log_cost(name) + log.bytes;
        }
    }

    fn make_room(&mut self) {
        let before = self.messages;
        while self.bytes > self.bytes_max && !self.order.is_empty() {
            self.drop_oldest();
        }
        self.evicted += (before - self.messages) as u64;
        let live = self.messages + self.logs.len();
        if self.order.len() > 2 * live + ORDER_SLACK {
            let logs = &self.logs;
            self.order.retain(|(seq, name)| logs.get(name).is_some_and(|log| log.stands_on(*seq)));
        }
    }

    /// Drops the oldest entry of all; with it its log, if it was the log's last.
    fn drop_oldest(&mut self) {
        let Some((seq, name)) = self.order.pop_front() else { return };
        let emptied = self.change(&name, |log| {
            if log.kept.front().is_some_and(|kept| kept.seq == seq) {
                log.drop_oldest();
            }
            log.last_seq == seq
        });
        if emptied == Some(true) {
            self.forget(&name);
        }
    }
}

impl Log {
    fn new(name: Arc<LogName>) -> Self {
        Log { name, last_seq: 0, dropped_to: 0, ready: None, end: None, said: 0, kept: VecDeque::new(), bytes: 0 }
    }

    fn apply(&mut self, seq: u64, event: Option<ChatEvent>, entry: &Entry<'_>) -> Applied {
        if self.end.is_some() {
            return Applied::Void;
        }
        match event {
            Some(ChatEvent::Ready) => self.ready = self.ready.or(Some(seq)),
            Some(event) => self.end = event.end().map(|end| (seq, end)),
            None => return self.keep(seq, entry),
        }
        Applied::State
    }

    fn keep(&mut self, seq: u64, entry: &Entry<'_>) -> Applied {
        let json = raw_json(&Message {
            seq,
            id: (&*entry.id).into(),
            at: (&*entry.at).into(),
            event: (&*entry.event).into(),
            payload: entry.payload,
            from: entry.from.clone(),
        });
        self.said = seq;
        // The brackets of the array are part of a reply.
        if json.get().len() + 2 > HISTORY_REPLY_BYTES_MAX {
            while self.drop_oldest() {}
            self.dropped_to = seq;
            return Applied::TooLarge;
        }
        let kept = Kept { seq, json };
        self.bytes += kept.cost();
        self.kept.push_back(kept);
        if self.kept.len() > LOG_MESSAGES_MAX {
            self.drop_oldest();
        }
        Applied::Message
    }

    fn drop_oldest(&mut self) -> bool {
        let Some(dropped) = self.kept.pop_front() else { return false };
        self.dropped_to = dropped.seq;
        self.bytes -= dropped.cost();
        true
    }

    fn stands_on(&self, seq: u64) -> bool {
        self.last_seq == seq || self.kept.binary_search_by_key(&seq, |kept| kept.seq).is_ok()
    }
}

fn log_cost(name: &LogName) -> usize {
    let id = match name {
        LogName::Chat(id) => id.as_str(),
        LogName::Room(id) => id.as_str(),
    };
    LOG_OVERHEAD + id.len()
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

fn raw_json<T: serde::Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    match to_raw_value(value) {
        Ok(json) => json,
        Err(error) => unreachable!("a message of the contract is always JSON: {error}"),
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
