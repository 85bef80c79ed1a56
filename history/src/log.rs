//! The logs: what is kept of each chat and room, and what a read of it answers. Pure: entries in, replies out.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use switchboard_contract::limits::KEYWORD_WINDOW;
use switchboard_contract::lobby::ChatEvent;
use switchboard_contract::log::{Entry, Position, Read, ReadReply};
use switchboard_contract::names::{LogName, RoomId};
use switchboard_contract::room::{RoomEvent, RoomRecord};
use switchboard_contract::wire::V1;

use crate::chat::Chat;
use crate::room::{Room, Verdict};
use crate::tail::{Tail, raw_json};

/// What a log costs beyond its name, facts and messages. Bytes.
const LOG_OVERHEAD: usize = 320;
/// Below this length the order of all is not worth compacting. Items.
const ORDER_SLACK: usize = 1024;

/// All logs of a replica, within a bound on their memory.
#[derive(Debug)]
pub struct Logs {
    logs: HashMap<Arc<LogName>, Log>,
    /// Every entry that a log still stands on, the oldest first; and some that none does any more, until compacted.
    order: VecDeque<(u64, Arc<LogName>)>,
    /// Rooms that something has happened to since [`Logs::take_touched`].
    touched: HashSet<Arc<LogName>>,
    /// Kept entries.
    kept: usize,
    bytes: usize,
    bytes_max: usize,
    window: Duration,
    applied: u64,
    /// The stream's first entry.
    first: u64,
    evicted: u64,
    /// The last entry of any log that was forgotten for want of memory.
    forgotten_to: u64,
}

#[derive(Debug)]
struct Log {
    name: Arc<LogName>,
    last_seq: u64,
    said: u64,
    tail: Tail,
    facts: Facts,
    /// What the facts and the kept entries cost.
    bytes: usize,
}

#[derive(Debug)]
enum Facts {
    Chat(Chat),
    Room(Box<Room>),
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// A client's message, kept.
    Message,
    /// A change of state.
    State,
    /// It stands behind the end of its chat, or its author may not.
    Void,
    /// Larger than a reply may be, so that no reader could get past it: dropped, with all before it, as a gap.
    TooLarge,
    /// It was applied before.
    Known,
}

impl Logs {
    /// No logs; at most `bytes_max` bytes of them later.
    pub fn new(bytes_max: usize) -> Self {
        Logs {
            logs: HashMap::new(),
            order: VecDeque::new(),
            touched: HashSet::new(),
            kept: 0,
            bytes: 0,
            bytes_max,
            window: KEYWORD_WINDOW,
            applied: 0,
            first: 0,
            evicted: 0,
            forgotten_to: 0,
        }
    }

    /// Another window for keywords.
    pub fn with_window(self, window: Duration) -> Self {
        Logs { window, ..self }
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

    /// How many entries were dropped for want of memory, ever.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Begins a room's log with its record, before any entry, where the stream has dropped the beginning of its life:
    /// its first entry there is `first`. What stands up to the snapshot is not kept then: nobody can say whether it
    /// was void.
    pub fn seed(&mut self, room: RoomId, record: RoomRecord, first: u64) {
        let name = LogName::Room(room);
        if record.since >= first || self.logs.contains_key(&name) {
            return;
        }
        let log = self.new_log(Arc::new(name), Facts::Room(Box::new(Room::from_record(record))));
        log.tail.miss(first.saturating_sub(1));
        self.make_room();
    }

    /// Applies an entry. Entries come in the stream's order; one that came before does nothing.
    pub fn apply(&mut self, name: LogName, seq: u64, entry: &Entry<'_>) -> Applied {
        if seq <= self.applied {
            return Applied::Known;
        }
        let tombstone = match &name {
            LogName::Chat(_) => ChatEvent::parse(&entry.event) == Some(ChatEvent::Tombstone),
            LogName::Room(_) => RoomEvent::parse(&entry.event) == Some(RoomEvent::Tombstone),
        };
        if tombstone {
            self.applied = seq;
            self.forget(&name);
            if matches!(name, LogName::Room(_)) {
                self.touched.insert(Arc::new(name));
            }
            return Applied::State;
        }
        let name = self.touch(name, seq);
        let applied = self.change(&name, |log| log.apply(seq, entry));
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

    /// Drops what stands before `first_seq`, as the stream has. A log of which nothing is left is forgotten; a room
    /// that lives is not.
    pub fn drop_before(&mut self, first_seq: u64) {
        while self.order.front().is_some_and(|(seq, _)| *seq < first_seq) {
            self.drop_oldest();
        }
        self.first = self.first.max(first_seq);
        self.applied = self.applied.max(first_seq.saturating_sub(1));
    }

    /// Answers a read from what is kept, with the keywords of the time `now`: unix milliseconds.
    pub fn read(&mut self, read: &Read, now: u64) -> ReadReply {
        let room = matches!(read.log, LogName::Room(_)).then(|| {
            self.listen(&read.log, now);
            self.room(&read.log).map(Room::view)
        });
        let Some(log) = self.logs.get(&read.log) else {
            return ReadReply::default();
        };
        let (messages, complete) = log.tail.page(read);
        let (ready, end) = match &log.facts {
            Facts::Chat(chat) => (chat.ready, chat.end),
            Facts::Room(_) => (None, None),
        };
        ReadReply {
            v: V1,
            last_seq: self.last_seq(log),
            dropped_to: log.tail.dropped_to(),
            complete,
            ready,
            end,
            said: log.said,
            room: room.flatten(),
            void: read
                .judge
                .filter(|seq| *seq <= self.last_seq(log))
                .and_then(|seq| self.room(&read.log)?.is_void(seq)),
            messages: raw_json(&messages),
        }
    }

    /// Which of these logs have an entry behind what was seen of them, and their last.
    pub fn behind(&self, seen: &[Position]) -> Vec<Position> {
        let newer = |(name, seq): &Position| {
            let last = self.last_seq(self.logs.get(name)?);
            (last > *seq).then(|| (name.clone(), last))
        };
        seen.iter().filter_map(newer).collect()
    }

    /// The rooms that have one of these facts: a life, a state, messages.
    pub fn rooms(&self) -> impl Iterator<Item = Arc<LogName>> {
        self.logs.values().filter(|log| matches!(log.facts, Facts::Room(_))).map(|log| log.name.clone())
    }

    /// The rooms that something has happened to since it was asked last, tombstones too.
    pub fn take_touched(&mut self) -> HashSet<Arc<LogName>> {
        std::mem::take(&mut self.touched)
    }

    /// What is known of a room.
    pub fn room(&self, name: &LogName) -> Option<&Room> {
        match &self.logs.get(name)?.facts {
            Facts::Room(room) => Some(room),
            Facts::Chat(_) => None,
        }
    }

    /// The last entry of a log that the stream still has; 0: none.
    pub fn last_of(&self, name: &LogName) -> u64 {
        self.logs.get(name).map_or(0, |log| self.last_seq(log))
    }

    /// Brings a room's keywords up to date.
    pub fn listen(&mut self, name: &LogName, now: u64) {
        let window = self.window;
        self.change(name, |log| {
            if let Facts::Room(room) = &mut log.facts {
                room.listen(&mut log.tail, now, window);
            }
        });
        self.make_room();
    }

    /// A room that lives may be known for longer than the stream has entries of it.
    fn last_seq(&self, log: &Log) -> u64 {
        if log.last_seq < self.first { 0 } else { log.last_seq }
    }

    /// The name of a log, made if need be, that now has `seq` as its newest entry.
    fn touch(&mut self, name: LogName, seq: u64) -> Arc<LogName> {
        self.applied = seq;
        let name = match self.logs.get(&name) {
            Some(log) => log.name.clone(),
            None => Arc::new(name),
        };
        if !self.logs.contains_key(&name) {
            let (facts, missed) = match &*name {
                // Entries of it may have been forgotten for want of memory: nobody knows of which chats.
                LogName::Chat(_) => (Facts::Chat(Chat::default()), self.forgotten_to),
                // Taken back if this begins its life.
                LogName::Room(_) => (Facts::Room(Box::default()), seq - 1),
            };
            self.new_log(name.clone(), facts).tail.miss(missed);
        }
        if let Some(log) = self.logs.get_mut(&name) {
            log.last_seq = seq;
        }
        if matches!(*name, LogName::Room(_)) {
            self.touched.insert(name.clone());
        }
        self.order.push_back((seq, name.clone()));
        name
    }

    fn new_log(&mut self, name: Arc<LogName>, facts: Facts) -> &mut Log {
        let mut log = Log { name: name.clone(), last_seq: 0, said: 0, tail: Tail::default(), facts, bytes: 0 };
        log.bytes = log.cost();
        self.bytes += log_cost(&name) + log.bytes;
        self.logs.entry(name).or_insert(log)
    }

    /// Changes a log, and the sums with it.
    fn change<R>(&mut self, name: &LogName, change: impl FnOnce(&mut Log) -> R) -> Option<R> {
        let log = self.logs.get_mut(name)?;
        self.kept -= log.tail.len();
        self.bytes -= log.bytes;
        let result = change(log);
        log.bytes = log.cost();
        self.kept += log.tail.len();
        self.bytes += log.bytes;
        Some(result)
    }

    fn forget(&mut self, name: &LogName) {
        if let Some(log) = self.logs.remove(name) {
            self.kept -= log.tail.len();
            self.bytes -= log_cost(name) + log.bytes;
        }
    }

    /// Messages go before the facts of rooms that live: who is quiet there matters more than what was said.
    fn make_room(&mut self) {
        let before = self.kept;
        while self.bytes > self.bytes_max {
            let forgotten = if self.order.is_empty() {
                let Some(name) = self.logs.keys().next().cloned() else { break };
                let last_seq = self.logs.get(&name).map(|log| log.last_seq);
                self.forget(&name);
                last_seq
            } else {
                self.drop_oldest()
            };
            self.forgotten_to = self.forgotten_to.max(forgotten.unwrap_or(0));
        }
        self.evicted += (before - self.kept) as u64;
        let live = self.kept + self.logs.len();
        if self.order.len() > 2 * live + ORDER_SLACK {
            let logs = &self.logs;
            self.order.retain(|(seq, name)| logs.get(name).is_some_and(|log| log.stands_on(*seq)));
        }
    }

    /// Drops the oldest entry of all; with it its log, if it was the log's last and no room lives there: then this is
    /// that last entry.
    fn drop_oldest(&mut self) -> Option<u64> {
        let (seq, name) = self.order.pop_front()?;
        let emptied = self.change(&name, |log| {
            while log.tail.front().is_some_and(|front| front <= seq) {
                log.tail.drop_oldest();
            }
            (log.last_seq == seq).then_some(log.lives())
        });
        match emptied.flatten() {
            Some(false) => {}
            Some(true) => {
                // Whoever wipes it has to know that the stream has nothing of it any more.
                self.touched.insert(name);
                return None;
            }
            None => return None,
        }
        self.forget(&name);
        Some(seq)
    }
}

impl Log {
    fn apply(&mut self, seq: u64, entry: &Entry<'_>) -> Applied {
        match &mut self.facts {
            Facts::Chat(chat) if chat.end.is_some() => Applied::Void,
            Facts::Chat(chat) => match ChatEvent::parse(&entry.event) {
                Some(event) => {
                    chat.note(seq, event);
                    Applied::State
                }
                None => self.keep(seq, entry),
            },
            Facts::Room(room) => match room.apply(seq, entry) {
                Verdict::Message => self.keep(seq, entry),
                Verdict::State(shown) => {
                    self.tail.keep(seq, entry, &shown, true);
                    Applied::State
                }
                Verdict::Begins(shown) => {
                    self.tail = Tail::default();
                    self.said = 0;
                    self.tail.keep(seq, entry, &shown, true);
                    Applied::State
                }
                Verdict::Void => Applied::Void,
                Verdict::Unknown => {
                    self.tail.miss(seq);
                    Applied::Void
                }
            },
        }
    }

    fn keep(&mut self, seq: u64, entry: &Entry<'_>) -> Applied {
        self.said = seq;
        if self.tail.keep(seq, entry, entry.payload, false) { Applied::Message } else { Applied::TooLarge }
    }

    /// Whether it is a room that has begun to live.
    fn lives(&self) -> bool {
        matches!(&self.facts, Facts::Room(room) if room.since > 0)
    }

    fn stands_on(&self, seq: u64) -> bool {
        self.last_seq == seq || self.tail.has(seq)
    }

    fn cost(&self) -> usize {
        let facts = match &self.facts {
            Facts::Chat(_) => 0,
            Facts::Room(room) => room.cost(),
        };
        facts + self.tail.bytes()
    }
}

fn log_cost(name: &LogName) -> usize {
    let id = match name {
        LogName::Chat(id) => id.as_str(),
        LogName::Room(id) => id.as_str(),
    };
    LOG_OVERHEAD + id.len()
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
