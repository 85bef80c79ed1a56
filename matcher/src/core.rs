//! The lobby's decisions. Knows no NATS, no clock and no randomness: an input and the time go in, effects come out.
//!
//! **Group commit, then tell.** Inputs change the state in memory at once and mark the records they touch. While one
//! batch is being written, they collect for the next: one record per key, the last state wins. What an input leads to
//! (replies, pushes, log entries, the status) leaves when the batch that holds its records is acknowledged, and at
//! once if there is nothing to write. If a batch fails, the core is dropped and another one loaded: nobody was told
//! anything that is not in the records.
//!
//! **Room.** What one decision touches must be in one batch. So inputs wait in a bounded inbox, are cut into steps of
//! one row each, and none is taken while the batch has less room than the largest step needs: a teacher leaving with
//! all its chats.

mod board;
mod chats;
mod load;
mod look;
mod places;
mod roster;
mod steps;
mod table;
mod timers;
mod types;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use switchboard_contract::limits::{BATCH_RECORDS_MAX, CAPACITY_LIMIT};
use switchboard_contract::lobby::{ChannelId, Done, NewChat, Positions, Push, Status, TableReply};
use switchboard_contract::names::{ChatId, Incarnation, LobbyKey, UserId};
use switchboard_contract::reason::Reason;
use switchboard_contract::wire::V1;

pub use types::{Batch, Config, Counters, Effect, Held, Input, Loaded, Now, Record, Token, View};

use board::Board;
use chats::Chat;
use look::Looks;
use places::Places;
use roster::{Student, Teacher};
use steps::Job;
use table::{GatewayNo, Gateways};
use timers::Timers;

/// `new:chat`s in one push: keeps it below the largest message, however long the ids are.
const NEW_CHATS_PER_PUSH: usize = 150;

/// The lobby of one epoch.
#[derive(Debug)]
pub struct Core {
    config: Config,
    epoch: u64,
    gateways: Gateways,
    teachers: BTreeMap<UserId, Teacher>,
    students: BTreeMap<UserId, Student>,
    /// Who waits, by ticket.
    queue: BTreeMap<u64, UserId>,
    chats: BTreeMap<ChatId, Chat>,
    /// The claims that these chats answer.
    claims: HashSet<u64>,
    /// Teachers that take students without asking and have a place: (chats, id), and back.
    open: BTreeSet<(usize, UserId)>,
    open_at: BTreeMap<UserId, usize>,
    chatting: u64,
    finished: u64,
    next_ticket: u64,
    next_chat: ChatIds,
    inbox: VecDeque<Job>,
    /// Rows in the inbox, other inputs counting as one each.
    inbox_rows: usize,
    timers: Timers,
    /// The records that the largest step can touch.
    step_records_max: usize,
    /// Keys that the bucket has, the batch in flight included.
    stored: BTreeSet<LobbyKey>,
    /// Keys whose state differs from what the bucket has.
    dirty: BTreeSet<LobbyKey>,
    pending: Pending,
    in_flight: Option<Sealed>,
    board: Board,
    /// Since when the first of the queue waits, as it is committed.
    waiting_since: Option<Box<str>>,
    places: Places,
    counters: Counters,
}

/// What leaves with the batch that is being collected.
#[derive(Debug, Default)]
struct Pending {
    replies: Vec<Reply>,
    looks: Vec<Token>,
    tells: BTreeSet<ChatId>,
    logs: BTreeSet<ChatId>,
}

/// An answer that waits for its commit.
#[derive(Debug)]
enum Reply {
    Table { token: Token, resend: bool, refused: Vec<(ChannelId, Reason)> },
    Done { token: Token, refused: Option<Reason> },
}

/// What leaves when a batch is acknowledged: made of the state that the batch holds.
#[derive(Debug)]
struct Sealed {
    /// Of the lobby; the version is that before the batch.
    status: Status,
    /// How many records the batch has behind its last student's, if it has one. The sequences of a batch are without
    /// gaps, so this gives that record's: the version that a later leader finds.
    behind_students: Option<usize>,
    waiting_since: Option<Box<str>>,
    replies: Vec<Reply>,
    looks: Option<Looks>,
    tells: BTreeMap<GatewayNo, Vec<NewChat>>,
    logs: Vec<(ChatId, switchboard_contract::lobby::ChatEvent)>,
    positions: Vec<(GatewayNo, Positions)>,
}

/// Makes the ids of one leader's chats.
#[derive(Debug)]
struct ChatIds {
    prefix: String,
    last: u64,
}

impl ChatIds {
    fn next(&mut self) -> ChatId {
        self.last += 1;
        match ChatId::new(&format!("{}-{}", self.prefix, self.last)) {
            Ok(id) => id,
            Err(error) => unreachable!("a short prefix and a number: {error}"),
        }
    }
}

impl Core {
    /// An empty lobby. `chat_prefix` begins the ids of its chats, so it must be short, and another one for each epoch.
    ///
    /// # Panics
    /// If `config.max_capacity` is above [`CAPACITY_LIMIT`] or zero.
    pub fn new(epoch: u64, chat_prefix: &str, config: Config) -> Self {
        assert!((1..=CAPACITY_LIMIT).contains(&config.max_capacity), "a capacity that fits into a batch");
        let step_records_max = step_records_max(config.max_capacity as usize);
        Core {
            config,
            epoch,
            gateways: Gateways::default(),
            teachers: BTreeMap::new(),
            students: BTreeMap::new(),
            queue: BTreeMap::new(),
            chats: BTreeMap::new(),
            claims: HashSet::new(),
            open: BTreeSet::new(),
            open_at: BTreeMap::new(),
            chatting: 0,
            finished: 0,
            next_ticket: 1,
            next_chat: ChatIds { prefix: chat_prefix.to_owned(), last: 0 },
            inbox: VecDeque::new(),
            inbox_rows: 0,
            timers: Timers::default(),
            step_records_max,
            stored: BTreeSet::new(),
            dirty: BTreeSet::new(),
            pending: Pending::default(),
            in_flight: None,
            board: Board::new(Status { epoch, ..Status::default() }),
            waiting_since: None,
            places: Places::default(),
            counters: Counters::default(),
        }
    }

    /// Takes an input, and does what is due. What can be told at once comes back; the rest leaves with
    /// [`Core::committed`].
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.accept(input, &mut effects);
        self.settle(now, &mut effects);
        effects
    }

    /// The next batch, unless one is in flight or there is nothing to write. The caller writes it and then calls
    /// [`Core::committed`]; if it cannot know that it was written, it drops the core.
    pub fn take_batch(&mut self, now: Now) -> Option<Batch> {
        if self.in_flight.is_some() || self.dirty.is_empty() {
            return None;
        }
        let batch = self.collect();
        let behind_students = batch.records.iter().rev().position(|(key, _)| matches!(key, LobbyKey::Student(_)));
        self.in_flight = Some(self.seal(now.at, behind_students));
        // What found no room in this batch goes into the next.
        self.work(now);
        Some(batch)
    }

    /// The batch in flight is stored; `seq` is the last sequence that it has in the bucket's stream.
    ///
    /// # Panics
    /// If no batch is in flight.
    pub fn committed(&mut self, now: Now, seq: u64) -> Vec<Effect> {
        let Some(mut sealed) = self.in_flight.take() else { unreachable!("a batch is in flight") };
        sealed.status.version = match sealed.behind_students {
            Some(behind) => seq.saturating_sub(behind as u64),
            None => self.board.committed().version,
        };
        let mut effects = Vec::new();
        self.emit(now.at, sealed, &mut effects);
        self.settle(now, &mut effects);
        effects
    }

    /// When [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Duration {
        let mut next = self.board.due();
        // What cannot be done before the batch in flight is acknowledged is done then.
        if self.has_room() {
            next = self.timers.next().map_or(next, |at| at.min(next));
        }
        if self.is_idle() {
            next = self.places.due().map_or(next, |at| at.min(next));
        }
        next
    }

    /// Whether this gateway's table is here.
    pub fn knows(&self, gateway: &Incarnation) -> bool {
        self.gateways.no(gateway).is_some()
    }

    /// The lobby as it is committed.
    pub fn status(&self) -> Status {
        self.board.committed()
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The gateways whose tables are known.
    pub fn gateways(&self) -> impl Iterator<Item = &Incarnation> {
        self.gateways.names()
    }

    /// What is in memory.
    pub fn held(&self) -> Held {
        Held { gateways: self.gateways.names().count(), rows: self.gateways.rows(), chats: self.chats.len() }
    }

    /// Since when the first of the queue waits, as its record says; like [`Core::status`], as it is committed.
    pub fn waiting_since(&self) -> Option<&str> {
        self.waiting_since.as_deref()
    }

    /// Rows and other inputs that wait for room in a batch.
    pub fn inbox_len(&self) -> usize {
        self.inbox_rows
    }

    /// Whether there is nothing that is not written, or that waits for a deadline of its own: all are gone, and
    /// nothing is left behind.
    pub fn is_empty(&self) -> bool {
        let people = self.teachers.is_empty() && self.students.is_empty() && self.queue.is_empty();
        let chats = self.chats.is_empty() && self.claims.is_empty();
        people && chats && self.stored.is_empty() && self.is_idle() && self.timers.len() == 0
    }

    /// Marks a record as changed. To be called when the change is done: what was never stored needs no purge.
    fn touch(&mut self, key: LobbyKey) {
        if self.stored.contains(&key) || self.exists(&key) {
            self.dirty.insert(key);
        } else {
            self.dirty.remove(&key);
        }
    }

    fn exists(&self, key: &LobbyKey) -> bool {
        match key {
            LobbyKey::Epoch => false,
            LobbyKey::Teacher(id) => self.teachers.contains_key(id),
            LobbyKey::Student(id) => self.students.get(id).is_some_and(|s| s.record.is_some()),
            LobbyKey::Queue(ticket) => self.queue.contains_key(ticket),
            LobbyKey::Chat(id) => self.chats.contains_key(id),
        }
    }

    fn has_room(&self) -> bool {
        self.dirty.len() + self.step_records_max <= BATCH_RECORDS_MAX
    }

    fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.dirty.is_empty()
    }

    /// Does all there is room for, and lets out what depends on no write.
    fn settle(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.work(now);
        if self.is_idle() {
            let sealed = self.seal(now.at, None);
            self.emit(now.at, sealed, effects);
        }
        effects.extend(self.board.publish(now.at).map(Effect::Status));
    }

    /// The records of the batch that is being collected.
    fn collect(&mut self) -> Batch {
        // More than fit are dirty only after records were repaired, which needs no single batch.
        let keys = match self.dirty.iter().nth(BATCH_RECORDS_MAX).cloned() {
            Some(first_of_rest) => {
                let rest = self.dirty.split_off(&first_of_rest);
                std::mem::replace(&mut self.dirty, rest)
            }
            None => std::mem::take(&mut self.dirty),
        };
        let mut records = Vec::with_capacity(keys.len());
        for key in keys {
            let record = self.record(&key);
            if record.is_some() {
                self.stored.insert(key.clone());
            } else {
                self.stored.remove(&key);
            }
            if let LobbyKey::Chat(id) = &key {
                self.timers.cancel(&timers::Timer::Clear(id.clone()));
            }
            records.push((key, record));
        }
        assert!(records.len() <= BATCH_RECORDS_MAX, "what NATS allows");
        Batch { records }
    }

    fn record(&self, key: &LobbyKey) -> Option<Record> {
        match key {
            LobbyKey::Epoch => None,
            LobbyKey::Teacher(id) => Some(Record::Teacher(self.teachers.get(id)?.record.clone())),
            LobbyKey::Student(id) => Some(Record::Student(self.students.get(id)?.record.clone()?)),
            LobbyKey::Queue(ticket) => {
                let student = self.waiting(self.queue.get(ticket)?)?;
                Some(Record::Queue(switchboard_contract::lobby::QueueRecord {
                    v: V1,
                    student: student.id.clone(),
                    since: student.since.clone(),
                }))
            }
            LobbyKey::Chat(id) => Some(Record::Chat(self.chats.get(id)?.record.clone())),
        }
    }

    /// Closes what has been collected: from here on it does not change.
    fn seal(&mut self, now: Duration, behind_students: Option<usize>) -> Sealed {
        let first = self.queue.first_key_value().and_then(|(_, id)| self.waiting(id));
        Sealed {
            status: Status {
                v: V1,
                epoch: self.epoch,
                version: self.board.committed().version,
                teachers: self.teachers.len() as u64,
                waiting: self.queue.len() as u64,
                chatting: self.chatting,
                finished: self.finished,
            },
            behind_students,
            waiting_since: first.map(|first| first.since.as_str().into()),
            replies: std::mem::take(&mut self.pending.replies),
            looks: self.take_looks(),
            tells: self.take_tells(now),
            logs: self.take_logs(now),
            positions: self.positions(now),
        }
    }

    /// Lets out what is committed. The status first: who is told that it waits is counted by then.
    fn emit(&mut self, now: Duration, sealed: Sealed, effects: &mut Vec<Effect>) {
        self.board.commit(sealed.status);
        self.waiting_since = sealed.waiting_since;
        effects.extend(self.board.publish(now).map(Effect::Status));
        for reply in sealed.replies {
            effects.push(match reply {
                Reply::Table { token, resend, refused } => Effect::TableReply(
                    token,
                    TableReply { v: V1, epoch: self.epoch, resend, refused, status: sealed.status },
                ),
                Reply::Done { token, refused } => Effect::Done(token, Done { v: V1, epoch: self.epoch, refused }),
            });
        }
        effects.extend(sealed.looks.map(|looks| looks.seen(sealed.status)));
        let pushes = (sealed.tells.iter())
            .flat_map(|(no, chats)| chats.chunks(NEW_CHATS_PER_PUSH).map(|part| (*no, part.to_vec(), None)))
            .chain(sealed.positions.into_iter().map(|(no, positions)| (no, Vec::new(), Some(positions))));
        for (no, new_chats, positions) in pushes {
            let Some(gateway) = self.gateways.get(no) else { continue };
            let push = Push { v: V1, epoch: self.epoch, new_chats, positions, resend: false };
            effects.push(Effect::Push(gateway.name.clone(), push));
        }
        effects.extend(sealed.logs.into_iter().map(|(chat, event)| Effect::Log(chat, event)));
    }
}

/// The records that one step can touch, with so many chats of one teacher: each chat, its student and the place in
/// the queue; the teacher; and a little for what touches fewer, but others.
fn step_records_max(chats: usize) -> usize {
    3 * chats + 4
}
