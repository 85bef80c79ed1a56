//! A member of a chat's topic, and what it is shown.

use std::sync::Arc;

use switchboard_contract::lobby::{ChannelId, ChatEnd, ChatEvent, Role};
use switchboard_contract::log::Entry;
use switchboard_contract::names::UserId;

use super::Effect;
use crate::mailbox::Event;
use crate::payload::with_seq;

pub(super) struct Member<M> {
    pub(super) chan: ChannelId,
    pub(super) mailbox: M,
    pub(super) role: Role,
    pub(super) user: UserId,
    pub(super) state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The join is not answered yet.
    Loading {
        serial: u32,
        last_seq: Option<u64>,
        /// What was loaded is too old, live messages have been dropped since.
        again: bool,
        /// It was loaded again because it ended before the topic's first place.
        repeated: bool,
    },
    /// It sees what is behind the sequence of its join.
    Live { since: u64, ready_shown: bool, end_shown: bool },
}

/// What an entry of the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A side said this; the payload, with its sequence.
    Said(Role, Box<str>),
    /// `chat:ready`.
    Ready,
    /// The chat is over.
    End(ChatEnd),
    /// Nothing that members see.
    Nothing,
}

impl Fact {
    /// What the entry with this sequence says.
    pub fn of(seq: u64, entry: &Entry<'_>) -> Fact {
        match ChatEvent::parse(&entry.event) {
            Some(ChatEvent::Tombstone) => Fact::Nothing,
            Some(ChatEvent::Ready) => Fact::Ready,
            Some(end @ (ChatEvent::Terminated | ChatEvent::Requeued)) => end.end().map_or(Fact::Nothing, Fact::End),
            None => match entry.from.as_ref().and_then(|from| from.role) {
                Some(role) => Fact::Said(role, with_seq(entry.payload.get(), seq).into()),
                None => Fact::Nothing,
            },
        }
    }
}

/// What the log brought.
#[derive(Clone)]
pub(super) enum Live {
    Said(Role, Arc<Event>),
    Ready(Arc<Event>),
    End(Arc<Event>),
}

/// Shows an entry to a member that is to see it, and has not.
pub(super) fn show<M: Clone>(member: &mut Member<M>, seq: u64, live: &Live, out: &mut Vec<Effect<M>>) {
    let State::Live { since, ready_shown, end_shown } = &mut member.state else { return };
    if seq <= *since {
        return;
    }
    let event = match live {
        Live::Said(from, event) if from.other() == member.role => event,
        Live::Said(..) => return,
        Live::Ready(event) => {
            if std::mem::replace(ready_shown, true) {
                return;
            }
            event
        }
        Live::End(event) => {
            if std::mem::replace(end_shown, true) {
                return;
            }
            event
        }
    };
    out.push(Effect::Send(member.mailbox.clone(), event.clone()));
}

/// Under which event a side receives what the other said.
pub(super) fn receive_event(role: Role) -> &'static str {
    match role {
        Role::Teacher => "teacher:receive",
        Role::Student => "student:receive",
    }
}
