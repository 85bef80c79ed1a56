//! The topic of a chat on one gateway: what its two sides may push, and what they see. Pure.

mod member;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use switchboard_contract::lobby::{At, ChannelId, ChatEnd, ChatEvent, ChatRecord, ChatStatus, Role};
use switchboard_contract::log::{self, Entry, ReadReply, Sender};
use switchboard_contract::names::{self, ChatId, UserId};
use switchboard_contract::reason::Reason;
use switchboard_contract::wire::{self, V1};

use crate::commands::{ChatPush, LobbyCommand};
use crate::mailbox::{Broadcast, Event, Outcome};
use crate::payload::{Message, Refusal, with_seq};
use crate::session::chat_json;
use crate::topic::{Effect, Kind, Member, Request, Reviewed, Stamp, To, Topic};

use member::receive_event;
pub use member::{ChatMember, Fact, Live};

/// A chat's topic.
pub type Chat<M> = Topic<M, ChatKind>;

/// What is known of a chat.
pub struct ChatKind {
    id: ChatId,
    topic: String,
    ready: bool,
    said: bool,
    end: Option<(u64, ChatEnd)>,
}

/// What a member's join needs.
#[derive(Debug)]
pub struct Loaded {
    /// The chat's record; `None`: there is no such chat.
    pub record: Option<ChatRecord>,
    /// Its log.
    pub log: ReadReply,
    /// What the log has behind the joiner's `last_seq`, if it gave one: sequence, who said it, payload.
    pub replay: Vec<(u64, Role, Box<RawValue>)>,
}

impl<M: Clone> Chat<M> {
    /// A topic without members.
    pub fn new(id: ChatId) -> Self {
        Topic::of(ChatKind { topic: format!("chats:{id}"), id, ready: false, said: false, end: None })
    }
}

impl Kind for ChatKind {
    type Member = ChatMember;
    type Fact = Fact;
    type Live = Live;
    type Push = ChatPush;
    type Loaded = Loaded;

    fn of_entry(seq: u64, entry: &Entry<'_>) -> Fact {
        Fact::of(seq, entry)
    }

    fn of_message(message: &log::Message<'_>) -> Fact {
        Fact::said(message.seq, message.from.as_ref(), message.payload)
    }

    fn beside(reply: &ReadReply, after: u64, entries: &mut Vec<(u64, Fact)>) {
        let ready = reply.ready.map(|seq| (seq, Fact::Ready));
        let end = reply.end.map(|(seq, end)| (seq, Fact::End(end)));
        entries.extend(ready.into_iter().chain(end).filter(|(seq, _)| *seq > after));
        entries.sort_unstable_by_key(|(seq, _)| *seq);
    }

    fn last_seq(loaded: &Loaded) -> u64 {
        loaded.log.last_seq
    }

    fn admit<M: Clone>(
        &mut self,
        who: &mut ChatMember,
        Loaded { record, log, replay }: Loaded,
        last_seq: Option<u64>,
        _: bool,
        to: &mut To<'_, M>,
    ) -> Result<(), Refusal> {
        let record = record.ok_or(Reason::NotFound)?;
        if *record.user(who.role) != who.user {
            return Err(Reason::Unauthorized.into());
        }
        self.ready |= log.ready.is_some();
        self.said |= log.said > log.ready.unwrap_or(0);
        self.end = self.end.or(log.end);

        // What was dropped behind the log's end while it was read follows live.
        let dropped_to = log.dropped_to.min(log.last_seq);
        // A log that ends before what the client has seen is one of which nothing was kept.
        let gap = last_seq.filter(|last_seq| *last_seq < dropped_to || *last_seq > log.last_seq);
        let response = format!(
            "{{\"chat\":{},\"last_seq\":{},\"recovered\":{}}}",
            chat_json(&record, log.messages.get()),
            log.last_seq,
            gap.is_none()
        );
        to.done(Outcome::Ok(response.into()));
        let mut lost_to = 0;
        if let Some(last_seq) = gap {
            let from = last_seq.saturating_add(1);
            lost_to = dropped_to.max(from);
            to.push("gap", format!("{{\"from\":{from},\"to\":{lost_to}}}"));
        }
        let missed = |seq: u64| lost_to < seq && seq <= log.last_seq;
        for (seq, _, payload) in replay.iter().filter(|(seq, from, _)| *from != who.role && missed(*seq)) {
            to.push(receive_event(who.role), with_seq(payload.get(), *seq));
        }
        // The record may know of the end before the log has brought it here; then it follows live.
        let told = log.end.or_else(|| {
            let ended = record.status == ChatStatus::Finished && record.owes.is_empty();
            record.end.filter(|_| ended).map(|end| (log.last_seq, end))
        });
        if let Some((seq, end)) = told {
            self.end.get_or_insert((seq, end));
            to.push(end.event().as_str(), "{}");
            who.end_shown = true;
        }
        let at = At::Chat { chat: self.id.clone(), role: who.role, entered: false };
        to.out.push(Effect::Lobby(to.mailbox.clone(), LobbyCommand::Set { chan: to.chan, at, serial: None }));
        Ok(())
    }

    fn left<M: Clone>(&mut self, member: Member<M, Self>, lost: bool, out: &mut Vec<Effect<M>>) {
        let left = LobbyCommand::Set { chan: member.chan, at: At::Left { lost }, serial: None };
        out.push(Effect::Lobby(member.mailbox, left));
    }

    fn push<M: Clone>(
        &mut self,
        members: &mut [Member<M, Self>],
        at: usize,
        Request { serial, push, .. }: Request<ChatPush>,
        stamp: impl FnOnce() -> Stamp,
        out: &mut Vec<Effect<M>>,
    ) {
        let Member { chan, mailbox, who, .. } = &mut members[at];
        let chan = *chan;
        let mut to = To { mailbox: &*mailbox, chan, serial, out };
        match push {
            ChatPush::Enter if self.end.is_some() => to.done(Outcome::Ok("{}".into())),
            ChatPush::Enter => {
                let at = At::Chat { chat: self.id.clone(), role: who.role, entered: true };
                let set = LobbyCommand::Set { chan, at, serial: Some(serial) };
                to.out.push(Effect::Lobby(to.mailbox.clone(), set));
                if self.ready && !self.said && !std::mem::replace(&mut who.ready_shown, true) {
                    to.push(ChatEvent::Ready.as_str(), "{}");
                }
            }
            ChatPush::Send(_) if self.end.is_some() => to.refuse(Reason::ChatFinished),
            ChatPush::Send(message) => {
                let (entry, message_id) = entry(&self.id, who.role, &who.user, &message, stamp());
                to.out.push(Effect::Publish { chan, serial, entry, message_id });
            }
            ChatPush::History(params) => {
                to.out.push(Effect::History { to: to.mailbox.clone(), chan, serial, params });
            }
            ChatPush::Terminate if self.end.is_some() => to.done(Outcome::Ok("{}".into())),
            ChatPush::Terminate => {
                let terminate = LobbyCommand::Terminate { chan, serial, chat: self.id.clone() };
                to.out.push(Effect::Lobby(to.mailbox.clone(), terminate));
            }
        }
    }

    fn answer<M: Clone>(&self, _: &ChatMember, seq: u64, to: &mut To<'_, M>) {
        match self.end {
            Some((end, _)) if seq > end => to.refuse(Reason::ChatFinished),
            Some(_) | None => to.done(Outcome::Ok(format!("{{\"seq\":{seq}}}").into())),
        }
    }

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
                let event = event(ChatEvent::Ready.as_str(), "{}");
                (self.ready, self.said) = (true, false);
                Some(Live::Ready(event))
            }
            Fact::End(end) => {
                let event = event(end.event().as_str(), "{}");
                self.end = Some((seq, end));
                Some(Live::End(event))
            }
            Fact::Said(from, payload) => {
                let event = event(receive_event(from.other()), &payload);
                self.said = true;
                Some(Live::Said(from, event))
            }
        }
    }

    fn show(who: &mut ChatMember, _: ChannelId, live: &Live) -> Option<Arc<Event>> {
        who.show(live)
    }

    fn ends(_: &Live) -> bool {
        false
    }

    fn missed(&mut self, _: u64) -> bool {
        false
    }

    fn reviewed(&mut self, _: u64, _: ReadReply) -> Reviewed<Live> {
        Reviewed::Nothing
    }
}

fn entry(chat: &ChatId, role: Role, user: &UserId, message: &Message, stamp: Stamp) -> (Bytes, Option<String>) {
    let message_id = message.id.as_ref().map(|id| names::chat_message_id(chat, role, user, id));
    let event = match role {
        Role::Teacher => "teacher:send",
        Role::Student => "student:send",
    };
    let entry = Entry {
        v: V1,
        event: event.into(),
        payload: message.raw(),
        from: Some(Sender { role: Some(role), user_id: user.clone(), session: None }),
        rank: None,
        id: message.id.as_deref().unwrap_or(&stamp.id).into(),
        at: stamp.at.as_str().into(),
    };
    (wire::encode(&entry), message_id)
}

#[cfg(test)]
mod gap_tests;
#[cfg(test)]
mod tests;
