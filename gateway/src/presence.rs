//! Presence: who is in the rooms that have members on this gateway, on whichever gateway they are. Pure.
//!
//! The gateway that holds a socket is the only authority on it: it tells the others what changes, in numbered versions,
//! and all of it to who asks. Heartbeats say which versions there are, so what was lost on the way is asked for. Who is
//! silent for too long is gone with all its sockets.

mod digest;
mod look;
mod parts;
mod room;
mod shown;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use serde_json::value::RawValue;
use switchboard_contract::alive::Alive;
use switchboard_contract::limits::{
    DEAD_AFTER, DIRECT_CHANNELS_MAX, GONE_GATEWAYS_MAX, PRESENCE_GRACE, PRESENCE_LOOK, PRESENCE_MEMBERS_MAX,
};
use switchboard_contract::lobby::{ChannelId, Heartbeat};
use switchboard_contract::names::{Incarnation, RoomId};
use switchboard_contract::presence::{Delta, Direct, Member, Part, Peer};

use crate::commands::Recipient;
use crate::mailbox::Event;

pub use digest::Digest;
pub use parts::{Change, Fit, Meta, Parts};
use room::{Context, Room, Step, nobody};

/// What presence wants done. `M` is where a member is reached.
#[derive(Debug)]
pub enum Effect<M> {
    /// Something for a member.
    Send(M, Arc<Event>),
    /// For every gateway with members in the room; and the heartbeat's digest has it from now on.
    Publish(RoomId, Delta),
    /// For one gateway.
    Tell(Incarnation, Peer),
    /// A gateway is gone; why.
    Gone(Incarnation, &'static str),
    /// The answer to [`Presence::look`]: the payload of `presence_state`.
    Seen(u64, String),
}

/// The presence of all rooms with members here.
pub struct Presence<M> {
    own: Incarnation,
    list_max: usize,
    start: Instant,
    rooms: HashMap<RoomId, Room<M>>,
    /// Rooms that somebody only asks about, until the answer is there.
    looks: BTreeMap<u64, (RoomId, Room<M>)>,
    /// When each room wants to be looked at.
    timers: BTreeSet<(Instant, RoomId)>,
    scheduled: HashMap<RoomId, Instant>,
    version: u64,
    shown: u64,
    alive: Alive,
    beats: BTreeMap<Incarnation, u64>,
    said_goodbye: VecDeque<Incarnation>,
    look: Instant,
    /// When everything is asked for again.
    resync: Option<Instant>,
    /// What is about to be told to gateways.
    asks: BTreeMap<Incarnation, Vec<(RoomId, u64)>>,
    answers: BTreeMap<Incarnation, Vec<Part>>,
}

impl<M: Clone> Presence<M> {
    /// Of a gateway without members. Above `list_max` metas a room's clients get counts.
    pub fn new(own: Incarnation, list_max: usize, now: Instant) -> Self {
        Presence {
            own,
            list_max,
            start: now,
            rooms: HashMap::new(),
            looks: BTreeMap::new(),
            timers: BTreeSet::new(),
            scheduled: HashMap::new(),
            version: 0,
            // 0 is what a channel has that was shown nothing.
            shown: 1,
            alive: Alive::default(),
            beats: BTreeMap::new(),
            said_goodbye: VecDeque::new(),
            look: now + PRESENCE_LOOK,
            resync: None,
            asks: BTreeMap::new(),
            answers: BTreeMap::new(),
        }
    }

    /// When [`Presence::tick`] wants to be called.
    pub fn wake(&self) -> Instant {
        let room = self.timers.first().map(|(at, _)| *at);
        let looks = self.looks.values().filter_map(|(_, room)| room.wake());
        room.into_iter().chain(self.resync).chain(looks).fold(self.look, Instant::min)
    }

    /// How many rooms have members here.
    pub fn len(&self) -> usize {
        self.rooms.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// A socket's join was answered; its state follows.
    pub fn join(&mut self, id: &RoomId, member: Member, mailbox: M, now: Instant, out: &mut Vec<Effect<M>>) {
        if !self.rooms.contains_key(id) {
            let others = self.others();
            self.rooms.insert(id.clone(), Room::new(id, others, now));
        }
        self.with_room(id, now, out, |room, context, _| room.join(member, mailbox, context));
    }

    /// A member is gone.
    pub fn leave(&mut self, id: &RoomId, chan: ChannelId, now: Instant, out: &mut Vec<Effect<M>>) {
        self.with_room(id, now, out, |room, context, steps| {
            room.leave(chan, context);
            if room.is_empty() {
                room.publish(context, steps);
            }
        });
        if self.rooms.get(id).is_some_and(Room::is_empty) {
            self.rooms.remove(id);
            self.schedule(id, None);
        }
    }

    /// A gateway said on the room's subject what has changed.
    pub fn delta(&mut self, id: &RoomId, delta: &Delta, now: Instant, out: &mut Vec<Effect<M>>) {
        if delta.gateway != self.own && self.heard(&delta.gateway, now) {
            self.with_room(id, now, out, |room, _, _| room.take_delta(delta, now));
        }
    }

    /// A gateway said something to this one.
    pub fn peer(&mut self, peer: Peer, now: Instant, out: &mut Vec<Effect<M>>) {
        if peer.gateway == self.own || !self.heard(&peer.gateway, now) {
            return;
        }
        for (id, have) in peer.asks {
            // Nobody is here, as of any version that was used so far.
            let mut answer = vec![nobody(&id, self.version)];
            self.with_room(&id, now, out, |room, context, steps| answer = room.answer(&id, have, context, steps));
            self.answers.entry(peer.gateway.clone()).or_default().append(&mut answer);
        }
        for part in peer.parts {
            let id = part.room.clone();
            self.take_looked_for(&peer.gateway, &part, now);
            self.with_room(&id, now, out, |room, _, _| room.take_part(&peer.gateway, part, now));
        }
        if let Some(direct) = peer.direct {
            self.deliver(&direct, out);
        }
        self.flush(out);
    }

    /// A gateway lives, or says goodbye.
    pub fn heartbeat(&mut self, beat: &Heartbeat, now: Instant, out: &mut Vec<Effect<M>>) {
        let gateway = &beat.gateway;
        if *gateway == self.own {
            self.alive.heard(now - self.start, gateway);
            return;
        }
        if beat.bye {
            if self.said_goodbye.len() >= GONE_GATEWAYS_MAX {
                self.said_goodbye.pop_front();
            }
            self.said_goodbye.push_back(gateway.clone());
            return self.gone(gateway, "said goodbye", now, out);
        }
        if !self.heard(gateway, now) {
            return;
        }
        let before = self.beats.insert(gateway.clone(), beat.n);
        if before.is_none_or(|before| before + 1 != beat.n) {
            // A new one; or what it changed since the last one that was heard is not known.
            return self.each_room(now, out, |room| room.want(gateway, 0, now));
        }
        for (id, version) in &beat.rooms {
            self.with_room(id, now, out, |room, _, _| room.want(gateway, *version, now + PRESENCE_GRACE));
        }
    }

    /// Notes that a gateway was heard; `false`: it is not to be listened to.
    fn heard(&mut self, gateway: &Incarnation, now: Instant) -> bool {
        if self.said_goodbye.contains(gateway) {
            return false;
        }
        let known = self.alive.heard(now - self.start, gateway);
        if !known {
            metrics::counter!("switchboard_gateway_presence_strangers_total").increment(1);
        }
        known
    }

    /// What came from others may have been lost: NATS was away, or a subscription overflowed. All is asked for in a
    /// moment, once: an overflow goes on for a while, and says so with each message.
    pub fn resync(&mut self, now: Instant) {
        self.alive.forgive(now - self.start);
        self.resync.get_or_insert(now + PRESENCE_GRACE);
    }

    /// The other gateways that are known to live.
    fn others(&self) -> BTreeSet<Incarnation> {
        self.alive.gateways().filter(|gateway| **gateway != self.own).cloned().collect()
    }

    fn ask_all(&mut self, now: Instant, out: &mut Vec<Effect<M>>) {
        let others = self.others();
        self.each_room(now, out, |room| others.iter().for_each(|gateway| room.want(gateway, 0, now)));
    }

    /// Sends a direct message. Answers how many sockets it goes to; never the `sender`'s.
    pub fn direct(
        &mut self,
        id: &RoomId,
        sender: ChannelId,
        to: &[Recipient],
        payload: &RawValue,
        out: &mut Vec<Effect<M>>,
    ) -> usize {
        let Some(room) = self.rooms.get(id) else { return 0 };
        let mut places: BTreeMap<Incarnation, BTreeSet<ChannelId>> = BTreeMap::new();
        let mut note = |(gateway, chan): (&Incarnation, ChannelId)| match places.get_mut(gateway) {
            Some(chans) => drop(chans.insert(chan)),
            None => drop(places.insert(gateway.clone(), BTreeSet::from([chan]))),
        };
        for recipient in to {
            match recipient {
                Recipient::Session(key) => room.parts().of_session(key.as_str()).for_each(&mut note),
                Recipient::User(user) => room.parts().of_user(user).for_each(&mut note),
            }
        }
        if let Some(chans) = places.get_mut(&self.own) {
            chans.remove(&sender);
        }
        let recipients = places.values().map(BTreeSet::len).sum();
        for (gateway, chans) in places {
            let chans: Vec<ChannelId> = chans.into_iter().collect();
            for chans in chans.chunks(DIRECT_CHANNELS_MAX) {
                let direct = Direct { room: id.clone(), chans: chans.to_vec(), payload: payload.to_owned() };
                if gateway == self.own {
                    self.deliver(&direct, out);
                } else {
                    let peer = Peer { direct: Some(direct), ..Peer::new(self.own.clone()) };
                    out.push(Effect::Tell(gateway.clone(), peer));
                }
            }
        }
        recipients
    }

    fn deliver(&self, direct: &Direct, out: &mut Vec<Effect<M>>) {
        let Some(room) = self.rooms.get(&direct.room) else { return };
        for chan in &direct.chans {
            if let Some(mailbox) = room.mailbox(*chan) {
                let payload = direct.payload.get().into();
                let event = Event::Push { chan: *chan, event: "new_msg".into(), payload };
                out.push(Effect::Send(mailbox.clone(), Arc::new(event)));
            }
        }
    }

    /// Something is due, perhaps.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<Effect<M>>) {
        if self.resync.is_some_and(|at| at <= now) {
            self.resync = None;
            self.ask_all(now, out);
        }
        if self.look <= now {
            self.look = now + PRESENCE_LOOK;
            self.bury_silent(now, out);
        }
        while let Some((_, id)) = self.timers.first().filter(|(at, _)| *at <= now).cloned() {
            self.schedule(&id, None);
            self.with_room(&id, now, out, Room::tick);
        }
        self.tick_looks(now, out);
        self.flush(out);
    }

    /// Silence counts only if others are heard, or this gateway itself: else it is NATS that carries nothing.
    fn bury_silent(&mut self, now: Instant, out: &mut Vec<Effect<M>>) {
        let at = now - self.start;
        let silent = self.alive.silent(at, DEAD_AFTER);
        if self.alive.hears(at) {
            for gateway in silent.into_iter().filter(|gateway| *gateway != self.own).collect::<Vec<_>>() {
                self.gone(&gateway, "is silent", now, out);
            }
        }
    }

    fn gone(&mut self, gateway: &Incarnation, why: &'static str, now: Instant, out: &mut Vec<Effect<M>>) {
        self.alive.forget(gateway);
        self.beats.remove(gateway);
        self.asks.remove(gateway);
        self.answers.remove(gateway);
        self.each_room(now, out, |room| room.drop_gateway(gateway, now));
        self.looks.values_mut().for_each(|(_, room)| room.drop_gateway(gateway, now));
        out.push(Effect::Gone(gateway.clone(), why));
    }

    fn each_room(&mut self, now: Instant, out: &mut Vec<Effect<M>>, mut change: impl FnMut(&mut Room<M>)) {
        let ids: Vec<RoomId> = self.rooms.keys().cloned().collect();
        for id in ids {
            self.with_room(&id, now, out, |room, _, _| change(room));
        }
    }

    /// Changes a room, if it is here, and notes when it is to be looked at.
    fn with_room(
        &mut self,
        id: &RoomId,
        now: Instant,
        out: &mut Vec<Effect<M>>,
        change: impl FnOnce(&mut Room<M>, &mut Context<'_>, &mut Vec<Step<M>>),
    ) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        let mut context = Context {
            own: &self.own,
            version: &mut self.version,
            shown: &mut self.shown,
            list_max: self.list_max,
            now,
        };
        let mut steps = Vec::new();
        change(room, &mut context, &mut steps);
        let wake = room.wake();
        self.schedule(id, wake);
        for step in steps {
            match step {
                Step::Send(mailbox, event) => out.push(Effect::Send(mailbox, event)),
                Step::Publish(delta) => out.push(Effect::Publish(id.clone(), delta)),
                Step::Ask(gateway, have) => self.asks.entry(gateway).or_default().push((id.clone(), have)),
            }
        }
    }

    fn schedule(&mut self, id: &RoomId, wake: Option<Instant>) {
        if self.scheduled.get(id).copied() == wake {
            return;
        }
        if let Some(at) = self.scheduled.remove(id) {
            self.timers.remove(&(at, id.clone()));
        }
        if let Some(at) = wake {
            self.scheduled.insert(id.clone(), at);
            self.timers.insert((at, id.clone()));
        }
    }

    /// What was collected for other gateways goes out, much of it in one message.
    fn flush(&mut self, out: &mut Vec<Effect<M>>) {
        for (gateway, asks) in std::mem::take(&mut self.asks) {
            for asks in asks.chunks(PRESENCE_MEMBERS_MAX) {
                let peer = Peer { asks: asks.to_vec(), ..Peer::new(self.own.clone()) };
                out.push(Effect::Tell(gateway.clone(), peer));
            }
        }
        for (gateway, parts) in std::mem::take(&mut self.answers) {
            let mut peer = Peer::new(self.own.clone());
            let mut size = 0;
            for part in parts {
                // A room costs as much as a member.
                let more = 1 + part.members.as_ref().map_or(0, Vec::len);
                if size > 0 && size + more > PRESENCE_MEMBERS_MAX {
                    let full = std::mem::replace(&mut peer, Peer::new(self.own.clone()));
                    out.push(Effect::Tell(gateway.clone(), full));
                    size = 0;
                }
                size += more;
                peer.parts.push(part);
            }
            out.push(Effect::Tell(gateway, peer));
        }
    }
}

#[cfg(test)]
mod tests;
