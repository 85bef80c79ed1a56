//! A member of a chat's topic, and what it is shown.

use std::sync::Arc;

use serde_json::value::RawValue;
use switchboard_contract::lobby::{ChatEnd, ChatEvent, Role};
use switchboard_contract::log::{Entry, Sender};
use switchboard_contract::names::UserId;

use crate::mailbox::Event;
use crate::payload::with_seq;

/// A side of a chat.
#[derive(Debug)]
pub struct ChatMember {
    pub(super) role: Role,
    pub(super) user: UserId,
    pub(super) ready_shown: bool,
    pub(super) end_shown: bool,
}

impl ChatMember {
    /// One that was shown nothing yet.
    pub fn new(role: Role, user: UserId) -> Self {
        ChatMember { role, user, ready_shown: false, end_shown: false }
    }

    /// What it sees, if it is to see it and has not.
    pub(super) fn show(&mut self, live: &Live) -> Option<Arc<Event>> {
        let (event, seen) = match live {
            Live::Said(from, event) => (event, from.other() != self.role),
            Live::Ready(event) => (event, std::mem::replace(&mut self.ready_shown, true)),
            Live::End(event) => (event, std::mem::replace(&mut self.end_shown, true)),
        };
        (!seen).then(|| event.clone())
    }
}

/// What an entry of the log says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fact {
    /// A side said this; the payload, with its sequence.
    Said(Role, Box<str>),
    /// `chat:ready`.
    Ready,
    /// The chat is over.
    End(ChatEnd),
    /// Nothing that members see.
    #[default]
    Nothing,
}

impl Fact {
    /// What the entry with this sequence says.
    pub fn of(seq: u64, entry: &Entry<'_>) -> Fact {
        match ChatEvent::parse(&entry.event) {
            Some(ChatEvent::Tombstone) => Fact::Nothing,
            Some(ChatEvent::Ready) => Fact::Ready,
            Some(end @ (ChatEvent::Terminated | ChatEvent::Requeued)) => end.end().map_or(Fact::Nothing, Fact::End),
            None => Fact::said(seq, entry.from.as_ref(), entry.payload),
        }
    }

    pub(super) fn said(seq: u64, from: Option<&Sender>, payload: &RawValue) -> Fact {
        match from.and_then(|from| from.role) {
            Some(role) => Fact::Said(role, with_seq(payload.get(), seq).into()),
            None => Fact::Nothing,
        }
    }
}

/// What the log brought.
#[derive(Clone)]
pub enum Live {
    /// A side's message.
    Said(Role, Arc<Event>),
    /// `chat:ready`.
    Ready(Arc<Event>),
    /// The end.
    End(Arc<Event>),
}

/// Under which event a side receives what the other said.
pub(super) fn receive_event(role: Role) -> &'static str {
    match role {
        Role::Teacher => "teacher:receive",
        Role::Student => "student:receive",
    }
}
