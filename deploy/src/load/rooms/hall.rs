//! What all members of a run share: the rooms, their judges, and what has been counted.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Map, json};
use tokio::sync::watch;

use super::super::Speaks;
use super::super::progress;
use super::super::siege::{Kill, Strikes};
use super::super::world::{Times, histogram};
use super::judge::{Broken, Room, Violation};
use super::voice::Plan;
use crate::client::{ConnectError, Socket, Vsn};
use crate::token::Key;

/// Longer than any run.
const TOKEN_TTL: Duration = Duration::from_secs(7 * 86_400);
/// Nobody could be asked for so long after something serves again: until clients' requests that were lost have ended.
const EXCUSED_AFTER: Duration = Duration::from_secs(5);

/// What members do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::load) enum Phase {
    /// They come, and wait.
    Arriving,
    /// They talk, come and go.
    Talking,
    /// They are there, and say no more than what is not answered yet.
    Settling,
    /// They leave.
    Leaving,
}

/// What has been counted.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(in crate::load) struct Tally {
    /// Messages that were sent, each counted once however often it was.
    pub(in crate::load) said: u64,
    /// Messages that were answered with `ok` and a `seq`.
    pub(in crate::load) messages: u64,
    /// Events of messages that members received, those of replays among them.
    pub(in crate::load) deliveries: u64,
    /// Direct messages that were answered, and that were received.
    pub(in crate::load) directs: u64,
    pub(in crate::load) directs_received: u64,
    /// The same of `typing`.
    pub(in crate::load) typings: u64,
    pub(in crate::load) typings_received: u64,
    /// Sockets that were opened again.
    pub(in crate::load) reconnects: u64,
    /// Joins after a leave.
    pub(in crate::load) rejoins: u64,
    /// Messages that were sent again with the same id.
    pub(in crate::load) resends: u64,
    /// Gaps that members were shown, and those of them that came while nobody could be asked.
    pub(in crate::load) gaps: u64,
    pub(in crate::load) gaps_excused: u64,
    /// Answers that were `unavailable`, and `rate_limited`.
    pub(in crate::load) unavailable: u64,
    pub(in crate::load) rate_limited: u64,
    /// Presence events, and lists that were compared with all others of a quiet room.
    pub(in crate::load) presence_events: u64,
    pub(in crate::load) lists_compared: u64,
}

/// What is counted over all halls of a run.
pub(in crate::load) struct Counted {
    tally: RefCell<Tally>,
    side: RefCell<Histogram<u64>>,
    acks: RefCell<Histogram<u64>>,
}

impl Counted {
    /// Nothing yet.
    ///
    /// # Errors
    /// Never: the bounds of the times are right.
    pub(in crate::load) fn new() -> anyhow::Result<Rc<Counted>> {
        let (side, acks) = (RefCell::new(histogram()?), RefCell::new(histogram()?));
        Ok(Rc::new(Counted { tally: RefCell::default(), side, acks }))
    }

    /// What has been counted.
    pub(in crate::load) fn tally(&self) -> Tally {
        *self.tally.borrow()
    }

    /// From side to side, and to the `ok`.
    pub(in crate::load) fn times(&self) -> (Times, Times) {
        (Times::of(&self.side.borrow()), Times::of(&self.acks.borrow()))
    }
}

/// What all members of a run share.
pub(in crate::load) struct Hall {
    pub(super) plan: Plan,
    pub(super) speaks: Speaks,
    pub(super) seed: u64,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) strikes: Option<Rc<Strikes>>,
    /// Members that have joined for the first time.
    pub(super) arrived: Cell<u32>,
    ids: Vec<Box<str>>,
    /// Of a room's members, each `<user>:<session>`.
    keys: Vec<Box<str>>,
    key: Option<Key>,
    started: Instant,
    /// Whether there are several history services.
    histories: bool,
    /// When something was last seen to be down, if ever.
    trouble: Cell<Option<Duration>>,
    rooms: RefCell<Vec<Room>>,
    counted: Rc<Counted>,
}

/// What a hall is made of.
pub(in crate::load) struct Parts {
    pub(in crate::load) plan: Plan,
    pub(in crate::load) speaks: Speaks,
    pub(in crate::load) seed: u64,
    pub(in crate::load) rooms: u32,
    pub(in crate::load) members: u16,
    /// Entries of a room's log that its judge remembers.
    pub(in crate::load) keep: usize,
    /// Of the rooms' ids: tells them from those of other halls and runs.
    pub(in crate::load) prefix: String,
    /// Of the users' ids: who has the same in several halls has one user's limits for all of them.
    pub(in crate::load) users: String,
    pub(in crate::load) key: Option<Key>,
    pub(in crate::load) started: Instant,
    pub(in crate::load) strikes: Option<Rc<Strikes>>,
    /// Whether there are several history services.
    pub(in crate::load) histories: bool,
    pub(in crate::load) counted: Rc<Counted>,
}

impl Hall {
    pub(in crate::load) fn new(parts: Parts) -> Hall {
        let Parts { plan, speaks, seed, rooms, members, keep, prefix, users, .. } = parts;
        let Parts { key, started, strikes, histories, counted, .. } = parts;
        let ids: Vec<Box<str>> = (0..rooms).map(|room| format!("{prefix}-{room}").into()).collect();
        // Of more than a few, the last two are sockets of one user and session.
        let of = |member: u16| if members >= 4 && member == members - 1 { member - 1 } else { member };
        let keys: Vec<Box<str>> =
            (0..members).map(of).map(|member| format!("{users}u{member}:s{member}").into()).collect();
        let rooms = ids.iter().map(|id| Room::new(id, &keys, keep)).collect();
        Hall {
            plan,
            speaks,
            seed,
            phase: watch::Sender::new(Phase::Arriving),
            strikes,
            arrived: Cell::new(0),
            ids,
            keys,
            key,
            started,
            histories,
            trouble: Cell::new(None),
            rooms: RefCell::new(rooms),
            counted,
        }
    }

    /// The time since the run began.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The id of a room.
    pub(super) fn id(&self, room: usize) -> &str {
        &self.ids[room]
    }

    /// A member's `<user>:<session>`, in every room.
    pub(super) fn key(&self, member: u16) -> Option<&str> {
        self.keys.get(usize::from(member)).map(|key| &**key)
    }

    /// How many rooms there are.
    pub(super) fn rooms(&self) -> usize {
        self.ids.len()
    }

    /// How many members a room has.
    pub(super) fn members(&self) -> u16 {
        u16::try_from(self.keys.len()).unwrap_or(u16::MAX)
    }

    fn token(&self, claims: Map<String, serde_json::Value>) -> Option<String> {
        self.key.as_ref().and_then(|key| key.mint(claims, TOKEN_TTL).ok())
    }

    /// Connects a member, with a token where the system wants one.
    pub(super) async fn connect(&self, user: &str, vsn: Vsn, url: &str) -> Result<Socket, ConnectError> {
        let token = self.token(Map::from_iter([("sub".to_owned(), json!(user))]));
        Socket::connect_as(url, vsn, token.as_deref()).await
    }

    /// What a join of a room needs where tokens are verified.
    pub(super) fn room_token(&self, room: usize, user: &str) -> Option<String> {
        self.token(Map::from_iter([("room".to_owned(), json!(self.id(room))), ("sub".to_owned(), json!(user))]))
    }

    /// Asks or tells the judge of a room.
    pub(super) fn room<T>(&self, room: usize, tell: impl FnOnce(&mut Room) -> T) -> T {
        tell(&mut self.rooms.borrow_mut()[room])
    }

    /// A violation that a member saw.
    pub(super) fn broken(&self, room: usize, member: u16, what: Broken) -> Violation {
        self.room(room, |room| room.broken(member, what))
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.counted.tally.borrow_mut());
    }

    /// Something was answered with `unavailable`.
    pub(super) fn unavailable(&self, now: Duration, what: impl Display) {
        self.count(|tally| tally.unavailable += 1);
        progress::unavailable(self.tally().unavailable, now, what);
    }

    pub(super) fn tally(&self) -> Tally {
        self.counted.tally()
    }

    /// From saying a message to its `ok`.
    pub(super) fn acked(&self, took: Duration) {
        self.counted.acks.borrow_mut().saturating_record(us(took));
    }

    /// A member, connected since then, heard what was said so long ago.
    pub(super) fn heard(&self, took: Duration, connected: Duration) {
        self.counted.side.borrow_mut().saturating_record(us(took));
        if let Some(strikes) = &self.strikes
            && !strikes.strikes(Kill::History)
        {
            strikes.saw(Some(self.now().saturating_sub(took)), connected);
        }
    }

    /// A member, connected since then, came back and has missed nothing: so history serves, and the rest.
    pub(super) fn resumed(&self, connected: Duration) {
        if let Some(strikes) = &self.strikes {
            strikes.saw(None, connected);
        }
    }

    /// From side to side, and to the `ok`.
    pub(super) fn times(&self) -> (Times, Times) {
        self.counted.times()
    }

    /// Whether anything is killed: then `unavailable` is an answer.
    pub(super) fn is_besieged(&self) -> bool {
        self.strikes.is_some()
    }

    /// Whether sockets may be lost.
    pub(super) fn may_lose_sockets(&self) -> bool {
        self.strikes.as_ref().is_some_and(|strikes| strikes.strikes(Kill::Gateway))
    }

    /// Whether a gap may be shown now because nobody could be asked.
    pub(super) fn excuses_gaps(&self) -> bool {
        self.trouble.get().is_some_and(|last| self.now() < last + EXCUSED_AFTER)
    }

    /// Judges what is due in all rooms; whether all lists of quiet rooms were compared.
    pub(super) fn look(&self) -> Result<bool, Violation> {
        let now = self.now();
        let down = self.strikes.as_ref().and_then(|strikes| strikes.down());
        // Where one of several history services is killed, the others can be asked.
        let nobody = matches!(down, Some(Kill::Nats | Kill::All)) || down == Some(Kill::History) && !self.histories;
        if nobody {
            self.trouble.set(Some(now));
        }
        let mut all = true;
        for room in self.rooms.borrow_mut().iter_mut() {
            if down.is_some() {
                room.change(now);
            }
            let compared = room.look(now)?;
            self.count(|tally| tally.lists_compared += u64::try_from(compared).unwrap_or(0));
            all = all && room.is_compared();
        }
        Ok(all)
    }

    /// The first member that is not where it should be in the end.
    pub(super) fn behind(&self) -> Option<Violation> {
        self.rooms.borrow().iter().find_map(Room::behind)
    }
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
