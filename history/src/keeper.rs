//! The lives of rooms, on the replica that holds the lease: what is to be done for which room, and when. Pure: what the
//! log says, what became of a request, and the time go in; [`Act`]s come out, one at a time for each room.
//!
//! A room is wiped in steps, each of which may be refused; then it lives. Nobody in it for the linger time: its record
//! becomes `closing`. A while later still nobody, and nothing logged since: a tombstone, which is refused if something
//! was logged meanwhile. With the tombstone in the log, the record is deleted.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchboard_contract::limits::{
    ROOM_CLOSING, ROOM_ORPHAN_DELAY, ROOM_PROBE_INTERVAL, ROOM_REQUESTS_MAX, ROOM_RETRY, ROOM_SNAPSHOT_DELAY,
};
use switchboard_contract::names::LogName;

/// Rooms are looked at in so many groups, so that not all are at once after a take-over.
const GROUPS: u32 = 64;

/// What the log says of a room that lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Its first entry.
    pub since: u64,
    /// The entry that its state comes from.
    pub state_seq: u64,
    /// The last entry that the stream has; 0: none.
    pub last_seq: u64,
    /// The last message of a user: somebody was there.
    pub said_by_user: u64,
    /// When a part of its state ends by itself: unix milliseconds.
    pub next_end: Option<u64>,
}

/// What is to be done for a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Write its record as its log has it.
    Snapshot,
    /// Log that what had a time until `at` (unix milliseconds) has ended.
    Expire {
        /// So the entry is the same, whoever writes it.
        at: u64,
    },
    /// Ask whether somebody is there.
    Probe,
    /// Make its record `closing`.
    Close,
    /// Log a tombstone, if the last entry is still this one.
    Wipe {
        /// 0: there is none.
        last_seq: u64,
    },
    /// Delete its record, if it has no life.
    Delete,
}

/// What became of an [`Act`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// It is done.
    Done,
    /// Of a probe: somebody is there.
    Somebody,
    /// Somebody else was first.
    Refused,
    /// Nobody knows.
    Failed,
}

/// The rooms, and what is to be done for them.
#[derive(Debug)]
pub struct Keeper {
    rooms: HashMap<Arc<LogName>, Room>,
    timers: BTreeSet<(Instant, Arc<LogName>)>,
    linger: Duration,
    busy: usize,
    seen: u32,
}

#[derive(Debug)]
struct Room {
    life: Option<Life>,
    /// The state that its record has, as far as is known.
    stored: Option<u64>,
    /// What is asked for next, whatever else there is to do.
    next: Option<Act>,
    busy: bool,
    timer: Option<Instant>,
    snapshot_at: Instant,
    expire_at: Instant,
    probe_at: Instant,
    delete_at: Instant,
    /// Since when nobody has been there.
    empty_since: Option<Instant>,
    closing: Option<Closing>,
}

/// A record that was made `closing`.
#[derive(Clone, Copy, Debug)]
struct Closing {
    until: Instant,
    last_seq: u64,
}

impl Keeper {
    /// No rooms yet. Those in which nobody is for `linger` will be wiped.
    pub fn new(linger: Duration) -> Keeper {
        Keeper { rooms: HashMap::new(), timers: BTreeSet::new(), linger, busy: 0, seen: 0 }
    }

    /// How many rooms there are.
    pub fn len(&self) -> usize {
        self.rooms.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// When there is something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let (first, _) = self.timers.first()?;
        (self.busy < ROOM_REQUESTS_MAX).then_some(*first)
    }

    /// Notes that a room's record has this state, which it had before this began.
    pub fn recorded(&mut self, name: &Arc<LogName>, since: u64, seq: u64, now: Instant, unix: u64) {
        let room = self.room(name, now);
        let same = room.life.is_none_or(|life| life.since == since);
        room.stored = same.then_some(seq);
        room.delete_at = now + ROOM_ORPHAN_DELAY;
        self.schedule(name, now, unix);
    }

    /// Notes what the log says of a room; `None`: it has no life.
    pub fn note(&mut self, name: &Arc<LogName>, life: Option<Life>, now: Instant, unix: u64) {
        if life.is_none() && !self.rooms.contains_key(name) {
            return;
        }
        let interval = self.interval();
        let room = self.room(name, now);
        let before = std::mem::replace(&mut room.life, life);
        match (before, life) {
            (Some(_), None) => {
                room.delete_at = now;
                (room.next, room.closing, room.empty_since) = (None, None, None);
            }
            (before, Some(life)) => {
                if before.is_some_and(|before| before.since != life.since) {
                    room.stored = None;
                }
                if before.is_none_or(|before| before.state_seq != life.state_seq) {
                    room.snapshot_at = room.snapshot_at.max(now + ROOM_SNAPSHOT_DELAY);
                    room.expire_at = now;
                }
                if before.is_some_and(|before| before.said_by_user != life.said_by_user) {
                    room.empty_since = None;
                    room.probe_at = now + interval;
                }
            }
            (None, None) => {}
        }
        self.schedule(name, now, unix);
    }

    /// What is to be done now. Each is to be answered with [`Keeper::done`].
    pub fn due(&mut self, now: Instant, unix: u64) -> Vec<(Arc<LogName>, Act)> {
        let mut acts = Vec::new();
        while self.busy < ROOM_REQUESTS_MAX {
            let Some((at, name)) = self.timers.first().cloned() else { break };
            if at > now {
                break;
            }
            self.timers.pop_first();
            let Some(room) = self.rooms.get_mut(&name) else { continue };
            room.timer = None;
            match room.decide(now, unix) {
                Ok(act) => {
                    room.busy = true;
                    self.busy += 1;
                    acts.push((name, act));
                }
                Err(_) => self.schedule(&name, now, unix),
            }
        }
        acts
    }

    /// Notes what became of an act.
    pub fn done(&mut self, name: &Arc<LogName>, act: Act, came: Came, now: Instant, unix: u64) {
        self.busy = self.busy.saturating_sub(1);
        let (interval, linger) = (self.interval(), self.linger);
        let Some(room) = self.rooms.get_mut(name) else { return };
        room.busy = false;
        room.took(act, came, now, interval, linger);
        if act == Act::Delete && came == Came::Done && room.life.is_none() {
            if let Some(timer) = room.timer {
                self.timers.remove(&(timer, name.clone()));
            }
            self.rooms.remove(name);
            return;
        }
        self.schedule(name, now, unix);
    }

    /// A snapshot of this state was written.
    pub fn stored(&mut self, name: &LogName, since: u64, seq: u64) {
        if let Some(room) = self.rooms.get_mut(name)
            && room.life.is_some_and(|life| life.since == since)
        {
            room.stored = Some(seq);
        }
    }

    fn interval(&self) -> Duration {
        (self.linger / 4).min(ROOM_PROBE_INTERVAL)
    }

    fn room(&mut self, name: &Arc<LogName>, now: Instant) -> &mut Room {
        let interval = self.interval();
        let seen = &mut self.seen;
        self.rooms.entry(name.clone()).or_insert_with(|| {
            *seen = (*seen + 1) % GROUPS;
            Room {
                life: None,
                stored: None,
                next: None,
                busy: false,
                timer: None,
                snapshot_at: now + ROOM_SNAPSHOT_DELAY,
                expire_at: now,
                probe_at: now + interval + interval * *seen / GROUPS,
                delete_at: now + ROOM_ORPHAN_DELAY,
                empty_since: None,
                closing: None,
            }
        })
    }

    fn schedule(&mut self, name: &Arc<LogName>, now: Instant, unix: u64) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let timer = (!room.busy).then(|| room.decide(now, unix).map_or_else(|at| at, |_| now));
        let before = std::mem::replace(&mut room.timer, timer);
        if before == timer {
            return;
        }
        if let Some(before) = before {
            self.timers.remove(&(before, name.clone()));
        }
        if let Some(timer) = timer {
            self.timers.insert((timer, name.clone()));
        }
    }
}

impl Room {
    /// What is to be done now, or when to look again.
    fn decide(&self, now: Instant, unix: u64) -> Result<Act, Instant> {
        let Some(life) = &self.life else {
            return if now >= self.delete_at { Ok(Act::Delete) } else { Err(self.delete_at) };
        };
        let mut later = self.probe_at;
        if self.stored.is_none_or(|stored| stored < life.state_seq) {
            if now >= self.snapshot_at {
                return Ok(Act::Snapshot);
            }
            later = later.min(self.snapshot_at);
        }
        if let Some(at) = life.next_end {
            let ends = (now + Duration::from_millis(at.saturating_sub(unix))).max(self.expire_at);
            if now >= ends {
                return Ok(Act::Expire { at });
            }
            later = later.min(ends);
        }
        if let Some(next) = self.next {
            return Ok(next);
        }
        if now >= self.probe_at { Ok(Act::Probe) } else { Err(later) }
    }

    fn took(&mut self, act: Act, came: Came, now: Instant, interval: Duration, linger: Duration) {
        match act {
            Act::Snapshot => {
                if came != Came::Done {
                    self.snapshot_at = now + ROOM_RETRY;
                }
            }
            // The log says when it has ended.
            Act::Expire { .. } => self.expire_at = now + ROOM_RETRY,
            Act::Probe => {
                self.probe_at = now + interval;
                let Some(life) = self.life.filter(|_| came == Came::Done) else {
                    self.lives_on(came == Came::Somebody);
                    return;
                };
                match self.closing {
                    Some(closing) if closing.last_seq != life.last_seq => self.lives_on(true),
                    Some(closing) if now < closing.until => self.probe_at = closing.until,
                    Some(closing) => self.next = Some(Act::Wipe { last_seq: closing.last_seq }),
                    None => {
                        let since = *self.empty_since.get_or_insert(now);
                        if now >= since + linger {
                            self.closing = Some(Closing { until: now, last_seq: life.last_seq });
                            self.next = Some(Act::Close);
                        } else {
                            self.probe_at = self.probe_at.min(since + linger);
                        }
                    }
                }
            }
            Act::Close => {
                self.next = None;
                match (&mut self.closing, came) {
                    (Some(closing), Came::Done) => {
                        closing.until = now + ROOM_CLOSING;
                        self.probe_at = closing.until;
                    }
                    (_, Came::Done | Came::Somebody | Came::Failed) => self.lives_on(false),
                    (_, Came::Refused) => {
                        // Its record is not as it was thought to be.
                        self.stored = None;
                        self.lives_on(true);
                    }
                }
            }
            Act::Wipe { .. } => {
                // If it is done, the log says so.
                self.lives_on(came == Came::Refused);
            }
            Act::Delete => self.delete_at = now + ROOM_ORPHAN_DELAY,
        }
    }

    /// It is not wiped now; where `somebody` was there, not before the linger time has passed once more.
    fn lives_on(&mut self, somebody: bool) {
        (self.next, self.closing) = (None, None);
        if somebody {
            self.empty_since = None;
        }
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
