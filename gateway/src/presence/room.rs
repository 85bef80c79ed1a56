//! One room's presence on a gateway: its members here, what others say of theirs, and what the members here are shown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use switchboard_contract::limits::{
    PRESENCE_ASK_RETRY, PRESENCE_COALESCE, PRESENCE_COUNT_INTERVAL, PRESENCE_MEMBERS_MAX, PRESENCE_PARTS_MAX,
    PRESENCE_WAIT,
};
use switchboard_contract::lobby::ChannelId;
use switchboard_contract::names::{Incarnation, RoomId, SessionKey};
use switchboard_contract::presence::{Delta, Member, Part};

use super::parts::{Change, Fit, Parts};
use super::shown::{Diff, count_json, state_json};
use crate::mailbox::{Broadcast, Event};
use crate::observe;

/// A member here.
struct Local<M> {
    mailbox: M,
    key: SessionKey,
    /// It has got its state, and gets what changes.
    told: bool,
}

/// What clients get.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Lists,
    /// The count that all were told last, unless somebody new was told another; and when that was.
    Count(Option<usize>, Instant),
}

/// Something that a gateway was asked for, or will be.
#[derive(Clone, Copy)]
struct Want {
    /// Its part of this version or a larger one.
    version: u64,
    /// When it is asked (again).
    due: Instant,
}

/// A part of which not all pieces are here yet.
struct Gathering {
    version: u64,
    next: u32,
    members: Vec<Member>,
}

/// What a room needs of the gateway that it is on.
pub(super) struct Context<'a> {
    pub(super) own: &'a Incarnation,
    /// The last version that this gateway used in any room.
    pub(super) version: &'a mut u64,
    /// The last version of what clients were shown in any room.
    pub(super) shown: &'a mut u64,
    pub(super) list_max: usize,
    pub(super) now: Instant,
}

/// The part of a gateway that has no members in a room.
pub(super) fn nobody(room: &RoomId, version: u64) -> Part {
    Part { room: room.clone(), version, piece: 0, of: 1, members: Some(Vec::new()) }
}

/// What a room wants done.
pub(super) enum Step<M> {
    Send(M, Arc<Event>),
    Publish(Delta),
    Ask(Incarnation, u64),
}

pub(super) struct Room<M> {
    topic: String,
    parts: Parts,
    members: BTreeMap<ChannelId, Local<M>>,
    /// What has changed here and no other gateway knows.
    untold: BTreeMap<ChannelId, (Member, bool)>,
    diff: Diff,
    mode: Mode,
    /// Until when nobody is shown anything, and whose answers would end that.
    waits: Option<(Instant, BTreeSet<Incarnation>)>,
    wants: BTreeMap<Incarnation, Want>,
    gathering: BTreeMap<Incarnation, Gathering>,
    /// When something is to be told to clients or gateways.
    due: Option<Instant>,
    told_at: Option<Instant>,
    changes: Vec<Change>,
}

impl<M: Clone> Room<M> {
    /// A room that gets its first member here. These other gateways are known to live: each is asked.
    pub(super) fn new(id: &RoomId, others: BTreeSet<Incarnation>, now: Instant) -> Self {
        Room {
            topic: format!("room:{id}"),
            parts: Parts::default(),
            members: BTreeMap::new(),
            untold: BTreeMap::new(),
            diff: Diff::default(),
            mode: Mode::Lists,
            wants: others.iter().map(|gateway| (gateway.clone(), Want { version: 0, due: now })).collect(),
            waits: (!others.is_empty()).then_some((now + PRESENCE_WAIT, others)),
            gathering: BTreeMap::new(),
            due: None,
            told_at: None,
            changes: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.parts
    }

    pub(super) fn mailbox(&self, chan: ChannelId) -> Option<&M> {
        self.members.get(&chan).map(|local| &local.mailbox)
    }

    /// Whether it is known who is here, as far as the other gateways have answered in time.
    pub(super) fn is_settled(&self) -> bool {
        self.waits.is_none()
    }

    /// When [`Room::tick`] wants to be called.
    pub(super) fn wake(&self) -> Option<Instant> {
        let waits = self.waits.as_ref().map(|(until, _)| *until);
        let wants = self.wants.values().map(|want| want.due).min();
        [self.due, waits, wants].into_iter().flatten().min()
    }

    pub(super) fn join(&mut self, member: Member, mailbox: M, context: &Context<'_>) {
        let local = Local { mailbox, key: member.key.clone(), told: false };
        if self.members.insert(member.chan, local).is_none() {
            self.change_own(&member, true, context);
        }
    }

    pub(super) fn leave(&mut self, chan: ChannelId, context: &Context<'_>) {
        if let Some(local) = self.members.remove(&chan) {
            self.change_own(&Member { key: local.key, chan, online_at: 0 }, false, context);
        }
    }

    fn change_own(&mut self, member: &Member, joined: bool, context: &Context<'_>) {
        if joined {
            self.parts.add(context.own, member.clone(), &mut self.changes);
        } else {
            self.parts.remove(context.own, &member.key, member.chan, &mut self.changes);
        }
        // A channel that came and went before anybody was told has never been there.
        if self.untold.remove(&member.chan).is_none() {
            self.untold.insert(member.chan, (member.clone(), joined));
        }
        self.changed(context.now);
    }

    /// What was noted in `changes` is told, soon.
    fn changed(&mut self, now: Instant) {
        for change in self.changes.drain(..) {
            if self.mode == Mode::Lists {
                self.diff.note(&change);
            }
        }
        let soonest = self.told_at.map_or(now, |at| at + PRESENCE_COALESCE);
        self.due = self.due.or(Some(soonest.max(now)));
    }

    /// Another gateway says what has changed.
    pub(super) fn take_delta(&mut self, delta: &Delta, now: Instant) {
        match self.parts.take_delta(delta, &mut self.changes) {
            Fit::Old => {}
            Fit::Misses => self.want(&delta.gateway, delta.to, now),
            Fit::Taken => self.came(&delta.gateway, delta.from == 0, now),
        }
    }

    /// Another gateway's part is here, `whole` or as a change of what was here.
    fn came(&mut self, gateway: &Incarnation, whole: bool, now: Instant) {
        let have = self.parts.version(gateway);
        if let Some(want) = self.wants.get_mut(gateway) {
            if want.version > have {
                want.due = want.due.min(now + PRESENCE_COALESCE);
            } else if whole || want.version > 0 {
                self.wants.remove(gateway);
            }
        }
        if let (true, Some((until, others))) = (whole, &mut self.waits) {
            others.remove(gateway);
            if others.is_empty() {
                *until = now;
            }
        }
        self.changed(now);
    }

    /// Another gateway answers.
    pub(super) fn take_part(&mut self, gateway: &Incarnation, part: Part, now: Instant) {
        let Some(members) = part.members else { return self.came(gateway, true, now) };
        if part.of > PRESENCE_PARTS_MAX {
            observe::full("parts");
            return;
        }
        if part.piece == 0 {
            let gathering = Gathering { version: part.version, next: 0, members: Vec::new() };
            self.gathering.insert(gateway.clone(), gathering);
        }
        let Some(gathering) = self.gathering.get_mut(gateway) else { return };
        if gathering.version != part.version || gathering.next != part.piece {
            self.gathering.remove(gateway);
            return;
        }
        gathering.members.extend(members);
        gathering.next += 1;
        if gathering.next >= part.of {
            let members = self.gathering.remove(gateway).map(|all| all.members).unwrap_or_default();
            self.parts.take_part(gateway, part.version, members, &mut self.changes);
            self.came(gateway, true, now);
        }
    }

    /// A gateway has a part of this version at least; if it is not here by `due`, it is asked for it. Version 0: it is
    /// asked in any case.
    pub(super) fn want(&mut self, gateway: &Incarnation, version: u64, due: Instant) {
        if version > 0 && self.parts.version(gateway) >= version {
            return;
        }
        let want = self.wants.entry(gateway.clone()).or_insert(Want { version, due });
        want.version = want.version.max(version);
        if version == 0 {
            want.due = want.due.min(due);
        }
    }

    pub(super) fn drop_gateway(&mut self, gateway: &Incarnation, now: Instant) {
        self.parts.drop_gateway(gateway, &mut self.changes);
        self.wants.remove(gateway);
        self.gathering.remove(gateway);
        self.came(gateway, true, now);
    }

    /// What this gateway says of the room to another one, which has it as of version `have`.
    pub(super) fn answer(
        &mut self,
        id: &RoomId,
        have: u64,
        context: &mut Context<'_>,
        out: &mut Vec<Step<M>>,
    ) -> Vec<Part> {
        self.publish(context, out);
        let version = self.parts.version(context.own);
        if have == version {
            return vec![Part { room: id.clone(), version, piece: 0, of: 1, members: None }];
        }
        let all: Vec<Member> = self.parts.members(context.own).collect();
        if all.is_empty() {
            return vec![nobody(id, version)];
        }
        let pieces = all.chunks(PRESENCE_MEMBERS_MAX);
        if pieces.len() > PRESENCE_PARTS_MAX as usize {
            observe::full("parts");
        }
        let pieces = pieces.take(PRESENCE_PARTS_MAX as usize);
        let of = u32::try_from(pieces.len()).unwrap_or(PRESENCE_PARTS_MAX);
        let part = |(piece, members): (u32, &[Member])| Part {
            room: id.clone(),
            version,
            piece,
            of,
            members: Some(members.to_vec()),
        };
        (0..).zip(pieces).map(part).collect()
    }

    /// Tells the other gateways what has changed here.
    pub(super) fn publish(&mut self, context: &mut Context<'_>, out: &mut Vec<Step<M>>) {
        while !self.untold.is_empty() {
            let from = self.parts.version(context.own);
            *context.version += 1;
            let to = *context.version;
            let mut delta = Delta::new(context.own.clone(), from, to);
            for _ in 0..PRESENCE_MEMBERS_MAX {
                let Some((chan, (member, joined))) = self.untold.pop_first() else { break };
                if joined {
                    delta.joins.push(member);
                } else {
                    delta.leaves.push((member.key, chan));
                }
            }
            self.parts.set_version(context.own, to);
            out.push(Step::Publish(delta));
        }
    }

    /// Something is due, perhaps.
    pub(super) fn tick(&mut self, context: &mut Context<'_>, out: &mut Vec<Step<M>>) {
        let now = context.now;
        for (gateway, want) in &mut self.wants {
            if want.due <= now {
                want.due = now + PRESENCE_ASK_RETRY;
                out.push(Step::Ask(gateway.clone(), self.parts.version(gateway)));
            }
        }
        if self.waits.as_ref().is_some_and(|(until, _)| *until <= now) {
            self.waits = None;
            self.due = Some(now);
        }
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            self.told_at = Some(now);
            self.publish(context, out);
            if self.waits.is_none() {
                self.show(context, out);
            }
        }
    }

    /// Brings all members here to the same knowledge: who has it already gets what has changed, who is new gets all.
    fn show(&mut self, context: &mut Context<'_>, out: &mut Vec<Step<M>>) {
        let (count, now) = (self.parts.count(), context.now);
        let counts = match self.mode {
            Mode::Lists => count > context.list_max,
            // Back at four fifths, so that somebody who comes and goes does not turn it each time.
            Mode::Count(..) => count * 5 > context.list_max * 4,
        };
        match (self.mode, counts) {
            (Mode::Lists, false) if self.diff.is_empty() => {}
            (Mode::Lists, false) => self.broadcast("presence_diff", || self.diff.to_json(), context, out),
            (Mode::Lists, true) => {
                self.broadcast("presence_state", || "{}".to_owned(), context, out);
                self.broadcast("presence_count", || count_json(count), context, out);
                self.mode = Mode::Count(Some(count), now);
            }
            (Mode::Count(told, _), true) if told == Some(count) => {}
            (Mode::Count(_, at), true) if at + PRESENCE_COUNT_INTERVAL > now => {
                self.due = Some(at + PRESENCE_COUNT_INTERVAL);
            }
            (Mode::Count(..), true) => {
                self.broadcast("presence_count", || count_json(count), context, out);
                self.mode = Mode::Count(Some(count), now);
            }
            (Mode::Count(..), false) => {
                self.broadcast("presence_state", || state_json(&self.parts), context, out);
                self.mode = Mode::Lists;
            }
        }
        self.diff.clear();
        self.welcome(count, counts, context, out);
    }

    fn broadcast(
        &self,
        event: &'static str,
        payload: impl FnOnce() -> String,
        context: &mut Context<'_>,
        out: &mut Vec<Step<M>>,
    ) {
        if self.members.values().all(|local| !local.told) {
            return;
        }
        *context.shown += 1;
        let broadcast = Broadcast::new(&self.topic, event, payload());
        let event = Arc::new(Event::Presence { version: *context.shown, broadcast });
        let told = self.members.values().filter(|local| local.told);
        out.extend(told.map(|local| Step::Send(local.mailbox.clone(), event.clone())));
    }

    /// Who is new gets its state.
    fn welcome(&mut self, count: usize, counts: bool, context: &mut Context<'_>, out: &mut Vec<Step<M>>) {
        let mut state = None;
        let version = *context.shown;
        for (chan, local) in self.members.iter_mut().filter(|(_, local)| !local.told) {
            local.told = true;
            if let Mode::Count(told, _) = &mut self.mode {
                *told = told.filter(|told| *told == count);
            }
            let payload =
                state.get_or_insert_with(|| if counts { "{}".to_owned() } else { state_json(&self.parts) }).as_str();
            let event = Event::PresenceState { chan: *chan, version, payload: payload.into() };
            out.push(Step::Send(local.mailbox.clone(), Arc::new(event)));
            if counts {
                let (event, payload) = ("presence_count".into(), count_json(count).into());
                let count = Event::Push { chan: *chan, event, payload };
                out.push(Step::Send(local.mailbox.clone(), Arc::new(count)));
            }
        }
    }
}
