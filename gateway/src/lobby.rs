//! This gateway's part of the lobby: the table of its channels, and how it is told to the matcher. Pure.
//!
//! At most one table request is on its way; what changes meanwhile goes with the next. A request that fails is sent
//! again: rows say what is, so nothing is doubled. Another leader's epoch makes the table go out whole.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchboard_contract::limits::{SHOWN_CHATS_MAX, TABLE_ROWS_MAX};
use switchboard_contract::lobby::{At, ChannelId, ChatRecord, Push, Pushed, Row, Status, Table, TableReply, Whole};
use switchboard_contract::names::Incarnation;
use switchboard_contract::reason::Reason;
use switchboard_contract::wire::V1;

use crate::mailbox::Outcome;

/// After a failed request.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How long a change that nobody waits for may wait for others to go with.
const LAZY_FOR: Duration = Duration::from_millis(50);

/// What the lobby wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// A request of a channel has come to its end.
    Done(ChannelId, u32, Outcome),
    /// `user:status` for these channels.
    Status(Vec<ChannelId>, Status),
    /// `new:chat` for a channel; held back or not.
    NewChat(ChannelId, Arc<ChatRecord>, bool),
    /// `queue:position` for a channel: payload.
    Position(ChannelId, String),
    /// The channel is gone for good.
    Forget(ChannelId),
}

struct RowState {
    n: u64,
    at: At,
    dirty: bool,
    /// The first version of the row is committed: a join is done.
    known: bool,
    /// Which request waits for the commit of the newest version.
    waiter: Option<u32>,
    /// What came for the channel before its join was answered: pushes overtake answers. It follows the answer.
    early: Vec<Effect>,
}

impl RowState {
    /// Lets an effect out, behind the answer to the join.
    fn tell(&mut self, effect: Effect, out: &mut Vec<Effect>) {
        if self.known {
            out.push(effect);
        } else if self.early.len() < SHOWN_CHATS_MAX {
            self.early.push(effect);
        }
    }
}

struct InFlight {
    rows: Vec<(ChannelId, u64)>,
    whole: Option<Whole>,
    era: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sync {
    /// The whole table has to be sent; nothing of it was.
    Whole,
    /// Some of it was.
    Parts,
    /// Changes are enough.
    Changes,
}

/// The table.
pub struct Lobby {
    gateway: Incarnation,
    rows: HashMap<ChannelId, RowState>,
    teachers: BTreeSet<ChannelId>,
    dirty: VecDeque<ChannelId>,
    sync: Sync,
    in_flight: Option<InFlight>,
    /// When to send what is dirty; `None`: nothing is.
    send_at: Option<Instant>,
    status: Option<Status>,
    epoch: u64,
    era: u64,
}

impl Lobby {
    /// An empty table, which the matcher does not know yet.
    pub fn new(gateway: Incarnation, now: Instant) -> Self {
        Lobby {
            gateway,
            rows: HashMap::new(),
            teachers: BTreeSet::new(),
            dirty: VecDeque::new(),
            sync: Sync::Whole,
            in_flight: None,
            send_at: Some(now),
            status: None,
            epoch: 0,
            era: 0,
        }
    }

    /// The last status, if there was one.
    pub fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    /// Whether the matcher knows everything.
    pub fn is_settled(&self) -> bool {
        self.sync == Sync::Changes && self.in_flight.is_none() && self.dirty.is_empty()
    }

    /// Counts the leaders and connections that there were: what was asked in an earlier era may never be answered.
    pub fn era(&self) -> u64 {
        self.era
    }

    /// Rows in the table.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the table has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// When [`Lobby::next_request`] wants to be called.
    pub fn wake(&self) -> Option<Instant> {
        self.send_at.filter(|_| self.in_flight.is_none())
    }

    /// A row is now so. A request that waited for an earlier version of it goes on waiting in this one's place.
    pub fn set(&mut self, chan: ChannelId, at: At, serial: Option<u32>, now: Instant) {
        let lazy = serial.is_none() && matches!(at, At::Chat { .. });
        let gone = matches!(at, At::Left { .. });
        match self.rows.get_mut(&chan) {
            None if gone => return,
            None => {
                if matches!(at, At::Teacher { .. }) {
                    self.teachers.insert(chan);
                }
                let row = RowState { n: 1, at, dirty: false, known: false, waiter: serial, early: Vec::new() };
                self.rows.insert(chan, row);
            }
            Some(row) => {
                row.n += 1;
                row.at = added(&row.at, at);
                row.waiter = serial.or(row.waiter).filter(|_| !gone);
                if gone {
                    self.teachers.remove(&chan);
                }
            }
        }
        self.mark(chan);
        let due = if lazy { now + LAZY_FOR } else { now };
        self.send_at = Some(self.send_at.map_or(due, |at| at.min(due)));
    }

    fn mark(&mut self, chan: ChannelId) {
        if let Some(row) = self.rows.get_mut(&chan).filter(|row| !row.dirty) {
            row.dirty = true;
            self.dirty.push_back(chan);
        }
    }

    fn send_whole(&mut self, now: Instant) {
        self.sync = Sync::Whole;
        let mut chans: Vec<ChannelId> = self.rows.keys().copied().collect();
        chans.sort_unstable();
        for chan in chans {
            self.mark(chan);
        }
        self.send_at = Some(self.send_at.map_or(now, |at| at.min(now)));
    }

    /// The next table request, if there is something to tell and nothing on its way.
    pub fn next_request(&mut self, now: Instant) -> Option<Table> {
        if self.in_flight.is_some() || self.send_at.is_none_or(|at| at > now) {
            return None;
        }
        let mut rows = Vec::new();
        while rows.len() < TABLE_ROWS_MAX {
            let Some(chan) = self.dirty.pop_front() else { break };
            if let Some(row) = self.rows.get_mut(&chan) {
                row.dirty = false;
                rows.push(Row { chan, n: row.n, at: row.at.clone() });
            }
        }
        // A channel that a rejoin replaced is told behind the new one: else its user would be gone for a moment, and a
        // finished student for good.
        rows.sort_by_key(|row| matches!(row.at, At::Left { lost: true }));
        let whole = match self.sync {
            Sync::Changes if rows.is_empty() => {
                self.send_at = None;
                return None;
            }
            Sync::Changes => None,
            Sync::Whole | Sync::Parts => {
                let whole = Whole { first: self.sync == Sync::Whole, last: self.dirty.is_empty() };
                self.sync = Sync::Parts;
                Some(whole)
            }
        };
        self.send_at = (!self.dirty.is_empty()).then_some(now);
        let sent = rows.iter().map(|row| (row.chan, row.n)).collect();
        self.in_flight = Some(InFlight { rows: sent, whole, era: self.era });
        Some(Table { v: V1, gateway: self.gateway.clone(), whole, rows })
    }

    /// The connection to NATS is back: what was said while it was away may be lost.
    pub fn reconnected(&mut self, now: Instant) {
        self.era += 1;
        self.send_whole(now);
    }

    /// Another leader, where it is a newer one. Whether it is.
    fn take_epoch(&mut self, epoch: u64) -> bool {
        let newer = epoch > self.epoch;
        if newer {
            self.epoch = epoch;
            self.era += 1;
        }
        newer
    }

    /// The request was not answered, or could not be sent. It is sent again after a moment, and at once where another
    /// era has begun meanwhile.
    pub fn failed(&mut self, now: Instant) {
        let Some(in_flight) = self.in_flight.take() else { return };
        for (chan, _) in in_flight.rows {
            self.mark(chan);
        }
        if in_flight.whole.is_some() {
            self.send_whole(now);
        }
        self.send_at = Some(if in_flight.era == self.era { now + RETRY_AFTER } else { now });
    }

    /// The request was answered.
    pub fn answered(&mut self, reply: &TableReply, now: Instant, out: &mut Vec<Effect>) {
        if reply.resend {
            self.failed(now);
            self.take_epoch(reply.epoch);
            self.send_whole(now);
            self.send_at = Some(now);
            return;
        }
        let Some(in_flight) = self.in_flight.take() else { return };
        let at_once = matches!(in_flight.whole, Some(Whole { first: true, last: true }));
        if self.sync == Sync::Parts && in_flight.whole.is_some_and(|whole| whole.last) {
            self.sync = Sync::Changes;
        }
        if self.take_epoch(reply.epoch) && !at_once {
            self.send_whole(now);
        }
        let mut joined = Vec::new();
        for (chan, n) in in_flight.rows {
            let refused = reply.refused.iter().find(|(refused, _)| *refused == chan).map(|(_, reason)| *reason);
            self.acknowledge(chan, n, refused, &reply.status, &mut joined, out);
        }
        self.take_status(reply.status, now, out);
        // What a join was told may be older than what this gateway has seen since.
        let newest = self.status.unwrap_or_default();
        if newest.version > reply.status.version && !joined.is_empty() {
            out.push(Effect::Status(joined, newest));
        }
    }

    fn acknowledge(
        &mut self,
        chan: ChannelId,
        n: u64,
        refused: Option<Reason>,
        status: &Status,
        joined: &mut Vec<ChannelId>,
        out: &mut Vec<Effect>,
    ) {
        let Some(row) = self.rows.get_mut(&chan) else { return };
        if row.n != n {
            return;
        }
        match &mut row.at {
            At::Student { ready, .. } => *ready = false,
            At::Teacher { says, said, .. } => *said = std::mem::take(says).over(*said),
            At::Chat { .. } | At::Left { .. } => {}
        }
        if matches!(row.at, At::Left { .. }) {
            self.rows.remove(&chan);
            return out.push(Effect::Forget(chan));
        }
        let join = !std::mem::replace(&mut row.known, true);
        let early = std::mem::take(&mut row.early);
        let Some(serial) = row.waiter.take() else { return out.extend(early) };
        let outcome = match (refused, &row.at) {
            (Some(reason), _) => Outcome::Refused(reason.into()),
            (None, At::Teacher { .. }) if join => {
                joined.push(chan);
                Outcome::Status(*status)
            }
            (None, At::Teacher { .. } | At::Student { .. } | At::Chat { .. } | At::Left { .. }) => {
                Outcome::Ok("{}".into())
            }
        };
        out.push(Effect::Done(chan, serial, outcome));
        out.extend(early);
    }

    /// The leader says how the lobby is.
    pub fn take_status(&mut self, status: Status, now: Instant, out: &mut Vec<Effect>) {
        if status.epoch < self.epoch {
            return;
        }
        if self.take_epoch(status.epoch) {
            self.send_whole(now);
        }
        let seen = self.status.map_or(0, |status| status.version);
        if status.version < seen {
            return;
        }
        self.status = Some(status);
        let known = |chan: &&ChannelId| self.rows.get(chan).is_some_and(|row| row.known);
        let told: Vec<ChannelId> = self.teachers.iter().filter(known).copied().collect();
        if status.version > seen && !told.is_empty() {
            out.push(Effect::Status(told, status));
        }
    }

    /// The leader has something for channels here; `None`: it is no leader any more.
    pub fn take_push(&mut self, push: Push, now: Instant, out: &mut Vec<Effect>) -> Option<Pushed> {
        if push.epoch < self.epoch {
            return None;
        }
        if push.resend {
            self.send_whole(now);
        }
        let mut gone = Vec::new();
        for new_chat in push.new_chats {
            let chat = Arc::new(new_chat.chat);
            for chan in new_chat.chans {
                match self.rows.get_mut(&chan) {
                    Some(row) if matches!(row.at, At::Teacher { .. } | At::Student { .. }) => {
                        row.tell(Effect::NewChat(chan, chat.clone(), new_chat.hold), out);
                    }
                    Some(_) | None => gone.push(chan),
                }
            }
        }
        if let Some(positions) = push.positions {
            for (chan, position) in positions.list {
                let wait = positions.pace_ms.map(|pace| (position * pace).div_ceil(1000));
                let wait = wait.map_or("null".to_owned(), |seconds| seconds.to_string());
                let payload = format!("{{\"position\":{position},\"of\":{},\"wait_seconds\":{wait}}}", positions.of);
                if let Some(row) = self.rows.get_mut(&chan) {
                    row.tell(Effect::Position(chan, payload), out);
                }
            }
        }
        Some(Pushed { v: V1, gone })
    }
}

/// What a teacher says beside what it said before: that counts still, and may not have reached the matcher.
fn added(before: &At, mut at: At) -> At {
    if let (At::Teacher { says, said, .. }, At::Teacher { says: earlier, said: acknowledged, .. }) = (&mut at, before) {
        *says = says.over(*earlier);
        *said = *acknowledged;
    }
    at
}

#[cfg(test)]
mod tests;
