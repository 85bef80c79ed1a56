//! The topic of a chat on one gateway: its members here, what they see, and in which order. Pure.
//!
//! The chat's log is its one order. A member's join is answered with the log up to a sequence; what the log brings
//! behind it is live. `ok` to a message waits until the log has brought it, so everything below it was sent before.
//! `order` notices what is missing; until that is there, nothing newer is shown.

mod effect;
mod member;
mod order;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use switchboard_contract::limits::JOIN_BUFFER_MAX;
use switchboard_contract::lobby::{At, ChannelId, ChatEnd, ChatEvent, ChatStatus, Role};
use switchboard_contract::log::{Entry, Sender};
use switchboard_contract::names::{self, ChatId, UserId};
use switchboard_contract::reason::Reason;
use switchboard_contract::wire::{self, V1};

use crate::commands::{ChatPush, LobbyCommand};
use crate::mailbox::{Broadcast, Event, Outcome};
use crate::payload::{Message, Refusal, with_seq};
use crate::session::chat_json;

pub use effect::{Effect, How, Loaded, Stamp};
pub use member::Fact;
use member::{Live, Member, State, receive_event, show};
pub use order::Part;
use order::{Order, Step};

/// A message that is stored, and whose reply waits until the log has brought it here.
struct Awaited {
    chan: ChannelId,
    serial: u32,
    seq: u64,
}

/// A chat's topic.
pub struct Chat<M> {
    id: ChatId,
    topic: String,
    members: Vec<Member<M>>,
    order: Order<Fact>,
    /// Empty between calls.
    steps: Vec<Step<Fact>>,
    /// The order began behind this.
    placed: u64,
    ready: bool,
    said: bool,
    end: Option<(u64, ChatEnd)>,
    awaited: Vec<Awaited>,
    recent: VecDeque<(u64, Live)>,
}

impl<M: Clone> Chat<M> {
    /// A topic without members.
    pub fn new(id: ChatId) -> Self {
        Chat {
            topic: format!("chats:{id}"),
            id,
            members: Vec::new(),
            order: Order::new(),
            steps: Vec::new(),
            placed: 0,
            ready: false,
            said: false,
            end: None,
            awaited: Vec::new(),
            recent: VecDeque::new(),
        }
    }

    /// Whether nobody is here.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Who is here, or about to be.
    pub fn members(&self) -> impl Iterator<Item = (&M, ChannelId)> {
        self.members.iter().map(|member| (&member.mailbox, member.chan))
    }

    /// A socket wants to join.
    #[allow(clippy::too_many_arguments)]
    pub fn join(
        &mut self,
        mailbox: M,
        chan: ChannelId,
        serial: u32,
        role: Role,
        user: UserId,
        last_seq: Option<u64>,
        out: &mut Vec<Effect<M>>,
    ) {
        let state = State::Loading { serial, last_seq, again: false, repeated: false };
        self.members.push(Member { chan, mailbox, role, user, state });
        out.push(Effect::Load { chan, last_seq });
    }

    /// A member left, or its socket is gone.
    pub fn leave(&mut self, chan: ChannelId, lost: bool, out: &mut Vec<Effect<M>>) {
        let Some(at) = self.members.iter().position(|m| m.chan == chan) else { return };
        let member = self.members.remove(at);
        self.awaited.retain(|a| a.chan != chan);
        self.forget_recent();
        if matches!(member.state, State::Live { .. }) {
            out.push(Effect::Lobby(member.mailbox, LobbyCommand::Set { chan, at: At::Left { lost }, serial: None }));
        }
    }

    /// What a join needs is there, or could not be had.
    pub fn loaded(&mut self, chan: ChannelId, loaded: Result<Loaded, Refusal>, out: &mut Vec<Effect<M>>) {
        let Some(at) = self.members.iter().position(|m| m.chan == chan) else { return };
        let State::Loading { serial, last_seq, again, repeated } = self.members[at].state else { return };
        if again && loaded.is_ok() {
            self.members[at].state = State::Loading { serial, last_seq, again: false, repeated };
            return out.push(Effect::Load { chan, last_seq });
        }
        // Another join has read further, and what stands between was not kept for this one.
        if !repeated && loaded.as_ref().is_ok_and(|loaded| loaded.log.last_seq < self.placed) {
            self.members[at].state = State::Loading { serial, last_seq, again: false, repeated: true };
            return out.push(Effect::Load { chan, last_seq });
        }
        let member = &self.members[at];
        let (record, log, replay) = match loaded {
            Err(refusal) => return self.refuse(at, serial, refusal, out),
            Ok(Loaded { record: None, .. }) => return self.refuse(at, serial, Reason::NotFound.into(), out),
            Ok(Loaded { record: Some(record), .. }) if *record.user(member.role) != member.user => {
                return self.refuse(at, serial, Reason::Unauthorized.into(), out);
            }
            Ok(Loaded { record: Some(record), log, replay }) => (record, log, replay),
        };
        self.ready |= log.ready.is_some();
        self.said |= log.said > log.ready.unwrap_or(0);
        self.end = self.end.or(log.end);

        let (mailbox, role) = (member.mailbox.clone(), member.role);
        // A log that ends before what the client has seen is one of which nothing was kept.
        let gap = last_seq.filter(|last_seq| *last_seq < log.dropped_to || *last_seq > log.last_seq);
        let response = format!(
            "{{\"chat\":{},\"last_seq\":{},\"recovered\":{}}}",
            chat_json(&record, log.messages.get()),
            log.last_seq,
            gap.is_none()
        );
        send(&mailbox, Event::Done { chan, serial, outcome: Outcome::Ok(response.into()) }, out);
        if let Some(last_seq) = gap {
            let from = last_seq.saturating_add(1);
            let payload = format!("{{\"from\":{from},\"to\":{}}}", log.dropped_to.max(from));
            send(&mailbox, Event::Push { chan, event: "gap".into(), payload: payload.into() }, out);
        }
        for (seq, _, payload) in replay.iter().filter(|(seq, from, _)| *from != role && *seq <= log.last_seq) {
            let payload = with_seq(payload.get(), *seq).into();
            send(&mailbox, Event::Push { chan, event: receive_event(role).into(), payload }, out);
        }
        // The record may know of the end before the log has brought it here; then it follows live.
        let told = log.end.or_else(|| {
            let ended = record.status == ChatStatus::Finished && record.owes.is_empty();
            record.end.filter(|_| ended).map(|end| (log.last_seq, end))
        });
        if let Some((seq, end)) = told {
            self.end.get_or_insert((seq, end));
            let event = end.event().as_str().into();
            send(&mailbox, Event::Push { chan, event, payload: "{}".into() }, out);
        }
        self.members[at].state = State::Live { since: log.last_seq, ready_shown: false, end_shown: told.is_some() };
        let row = At::Chat { chat: self.id.clone(), role, entered: false };
        out.push(Effect::Lobby(mailbox, LobbyCommand::Set { chan, at: row, serial: None }));
        for (seq, live) in &self.recent {
            show(&mut self.members[at], *seq, live, out);
        }
        self.forget_recent();
        if self.order.position().is_none() {
            self.placed = log.last_seq;
        }
        self.advance(out, |order, steps| order.place(log.last_seq, steps));
    }

    fn refuse(&mut self, at: usize, serial: u32, refusal: Refusal, out: &mut Vec<Effect<M>>) {
        let member = self.members.remove(at);
        let outcome = Outcome::Refused(refusal);
        send(&member.mailbox, Event::Done { chan: member.chan, serial, outcome }, out);
        self.forget_recent();
    }

    /// A member pushed something.
    pub fn push(
        &mut self,
        chan: ChannelId,
        serial: u32,
        push: ChatPush,
        stamp: impl FnOnce() -> Stamp,
        out: &mut Vec<Effect<M>>,
    ) {
        let Some(member) = self.members.iter_mut().find(|m| m.chan == chan) else { return };
        let mailbox = member.mailbox.clone();
        let done = |outcome| Event::Done { chan, serial, outcome };
        let ok = || done(Outcome::Ok("{}".into()));
        match push {
            ChatPush::Enter if self.end.is_some() => send(&mailbox, ok(), out),
            ChatPush::Enter => {
                let at = At::Chat { chat: self.id.clone(), role: member.role, entered: true };
                out.push(Effect::Lobby(mailbox.clone(), LobbyCommand::Set { chan, at, serial: Some(serial) }));
                if let (true, false, State::Live { ready_shown: ready_shown @ false, .. }) =
                    (self.ready, self.said, &mut member.state)
                {
                    *ready_shown = true;
                    let event = ChatEvent::Ready.as_str().into();
                    send(&mailbox, Event::Push { chan, event, payload: "{}".into() }, out);
                }
            }
            ChatPush::Send(_) if self.end.is_some() => {
                send(&mailbox, done(Outcome::Refused(Reason::ChatFinished.into())), out);
            }
            ChatPush::Send(message) => {
                let (entry, message_id) = entry(&self.id, member.role, &member.user, &message, stamp());
                out.push(Effect::Publish { chan, serial, entry, message_id });
            }
            ChatPush::History(params) => out.push(Effect::History { to: mailbox, chan, serial, params }),
            ChatPush::Terminate if self.end.is_some() => send(&mailbox, ok(), out),
            ChatPush::Terminate => {
                let terminate = LobbyCommand::Terminate { chan, serial, chat: self.id.clone() };
                out.push(Effect::Lobby(mailbox, terminate));
            }
        }
    }

    /// A member's message is stored under a sequence, as a `duplicate` of an earlier one or not; or nobody knows.
    pub fn acked(&mut self, chan: ChannelId, serial: u32, result: Result<(u64, bool), ()>, out: &mut Vec<Effect<M>>) {
        match result {
            Ok((seq, duplicate)) if self.order.position().is_none_or(|at| seq > at) => {
                self.awaited.push(Awaited { chan, serial, seq });
                // The log does not bring it a second time, and the first time was perhaps lost.
                if duplicate {
                    self.behind(seq, out);
                }
            }
            Ok((seq, _)) => self.answer(&Awaited { chan, serial, seq }, out),
            Err(()) => {
                let Some(member) = self.members.iter().find(|m| m.chan == chan) else { return };
                let outcome = Outcome::Refused(Reason::Unavailable.into());
                send(&member.mailbox, Event::Done { chan, serial, outcome }, out);
            }
        }
    }

    fn answer(&self, awaited: &Awaited, out: &mut Vec<Effect<M>>) {
        let Some(member) = self.members.iter().find(|m| m.chan == awaited.chan) else { return };
        let outcome = match self.end {
            Some((end, _)) if awaited.seq > end => Outcome::Refused(Reason::ChatFinished.into()),
            Some(_) | None => Outcome::Ok(format!("{{\"seq\":{}}}", awaited.seq).into()),
        };
        send(&member.mailbox, Event::Done { chan: awaited.chan, serial: awaited.serial, outcome }, out);
    }

    /// The log brought an entry, or one that was not understood; `previous` is the one before it, or 0.
    pub fn stored(&mut self, seq: u64, previous: u64, entry: Option<&Entry<'_>>, out: &mut Vec<Effect<M>>) {
        let fact = entry.map_or(Fact::Nothing, |entry| Fact::of(seq, entry));
        self.advance(out, |order, steps| order.live(seq, previous, fact, steps));
    }

    /// The log reaches to `to`, and what it had to bring has had its time.
    pub fn behind(&mut self, to: u64, out: &mut Vec<Effect<M>>) {
        if !self.is_empty() {
            self.advance(out, |order, steps| order.behind(to, steps));
        }
    }

    /// What stands behind `after`; `None` if nobody has it.
    pub fn repaired(&mut self, after: u64, how: How, part: Option<Part<Fact>>, out: &mut Vec<Effect<M>>) {
        let mut closed = false;
        self.advance(out, |order, steps| closed = order.repaired(after, part, steps));
        if closed {
            out.push(Effect::Repaired(how));
        }
    }

    /// The sequence up to which all has been shown; `None` before the first join.
    pub fn position(&self) -> Option<u64> {
        self.order.position()
    }

    fn advance(&mut self, out: &mut Vec<Effect<M>>, change: impl FnOnce(&mut Order<Fact>, &mut Vec<Step<Fact>>)) {
        let mut steps = std::mem::take(&mut self.steps);
        change(&mut self.order, &mut steps);
        for step in steps.drain(..) {
            match step {
                Step::Take(seq, fact) => {
                    self.take(seq, fact, out);
                    self.answer_up_to(seq, out);
                }
                Step::GiveUp(from, to) => self.give_up(from, to, out),
                Step::Repair { after, to } => out.push(Effect::Repair { after, to }),
            }
        }
        self.steps = steps;
        if let Some(at) = self.order.position() {
            self.answer_up_to(at, out);
        }
    }

    fn take(&mut self, seq: u64, fact: Fact, out: &mut Vec<Effect<M>>) {
        let Some(live) = self.apply(seq, fact) else { return };
        for member in &mut self.members {
            show(member, seq, &live, out);
        }
        self.remember(seq, live);
    }

    fn answer_up_to(&mut self, seq: u64, out: &mut Vec<Effect<M>>) {
        let ready: Vec<Awaited> = self.awaited.extract_if(.., |a| a.seq <= seq).collect();
        for awaited in ready {
            self.answer(&awaited, out);
        }
    }

    /// Members are told what they will not see; a join on its way reads the log once more.
    fn give_up(&mut self, from: u64, to: u64, out: &mut Vec<Effect<M>>) {
        out.push(Effect::Repaired(How::Shown));
        for member in &mut self.members {
            match &mut member.state {
                State::Loading { again, .. } => *again = true,
                State::Live { since, .. } if *since >= to => {}
                State::Live { since, .. } => {
                    let payload = format!("{{\"from\":{},\"to\":{to}}}", from.max(*since + 1)).into();
                    send(&member.mailbox, Event::Push { chan: member.chan, event: "gap".into(), payload }, out);
                }
            }
        }
    }

    /// What an entry means for those who see it; `None`: nothing.
    fn apply(&mut self, seq: u64, fact: Fact) -> Option<Live> {
        // A join may have learned of the end before the log has brought here what stands before it.
        if self.end.is_some_and(|(end, _)| seq > end) {
            return None;
        }
        let event =
            |name: &'static str, payload: &str| Arc::new(Event::Broadcast(Broadcast::new(&self.topic, name, payload)));
        match fact {
            Fact::Nothing => None,
            Fact::Ready => {
                (self.ready, self.said) = (true, false);
                Some(Live::Ready(event(ChatEvent::Ready.as_str(), "{}")))
            }
            Fact::End(end) => {
                self.end = Some((seq, end));
                Some(Live::End(event(end.event().as_str(), "{}")))
            }
            Fact::Said(from, payload) => {
                self.said = true;
                let event = Broadcast::new(&self.topic, receive_event(from.other()), payload);
                Some(Live::Said(from, Arc::new(Event::Broadcast(event))))
            }
        }
    }

    /// Keeps what joins that are not answered yet will have to see.
    fn remember(&mut self, seq: u64, live: Live) {
        let mut loading = false;
        let overflow = self.recent.len() >= JOIN_BUFFER_MAX;
        for member in &mut self.members {
            if let State::Loading { again, .. } = &mut member.state {
                loading = true;
                *again |= overflow;
            }
        }
        if overflow {
            self.recent.clear();
        }
        if loading {
            self.recent.push_back((seq, live));
        }
    }

    fn forget_recent(&mut self) {
        if !self.members.iter().any(|m| matches!(m.state, State::Loading { .. })) {
            self.recent = VecDeque::new();
        }
    }
}

fn send<M: Clone>(to: &M, event: Event, out: &mut Vec<Effect<M>>) {
    out.push(Effect::Send(to.clone(), Arc::new(event)));
}

fn entry(chat: &ChatId, role: Role, user: &UserId, message: &Message, stamp: Stamp) -> (Bytes, Option<String>) {
    let message_id = message.id.as_ref().map(|id| names::chat_message_id(chat, role, user, id));
    let event = match role {
        Role::Teacher => "teacher:send",
        Role::Student => "student:send",
    };
    let payload: &RawValue = match serde_json::from_str(&message.payload) {
        Ok(payload) => payload,
        Err(error) => unreachable!("a checked payload is JSON: {error}"),
    };
    let id = message.id.as_deref().unwrap_or(&stamp.id);
    let entry = Entry {
        v: V1,
        event: event.into(),
        payload,
        from: Some(Sender { role: Some(role), user_id: user.clone(), session: None }),
        rank: None,
        id: id.into(),
        at: stamp.at.as_str().into(),
    };
    (wire::encode(&entry), message_id)
}

#[cfg(test)]
mod gap_tests;
#[cfg(test)]
mod tests;
