//! What a topic wants done.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use switchboard_contract::lobby::ChannelId;
use switchboard_contract::names::RoomId;
use switchboard_contract::reason::Reason;

use crate::commands::{LobbyCommand, PresenceCommand};
use crate::mailbox::{Event, Outcome};
use crate::payload::HistoryParams;

/// What a topic wants done. `M` is where a member is reached.
#[derive(Debug)]
pub enum Effect<M> {
    /// Something for a member.
    Send(M, Arc<Event>),
    /// Read what a join needs; [`super::Topic::loaded`] follows.
    Load {
        /// For whose join.
        chan: ChannelId,
        /// Replay what the log has behind this.
        last_seq: Option<u64>,
    },
    /// Write to the topic's log; [`super::Topic::acked`] follows.
    Publish {
        /// Whose message.
        chan: ChannelId,
        /// Which request.
        serial: u32,
        /// An [`switchboard_contract::log::Entry`].
        entry: Bytes,
        /// Under which id it is stored once.
        message_id: Option<String>,
    },
    /// Send to the topic's gateways what is not logged, and answer the member.
    Tell {
        /// Who is answered.
        to: M,
        /// Its channel.
        chan: ChannelId,
        /// Which request.
        serial: u32,
        /// As [`switchboard_contract::unlogged::UnloggedEvent`] has it, or a binary frame.
        body: Bytes,
    },
    /// Ask history whether the entry of this sequence counts, and answer the member: a topic that has not seen it itself
    /// does not know.
    Judge {
        /// Who is answered.
        to: M,
        /// Its channel.
        chan: ChannelId,
        /// Which request.
        serial: u32,
        /// Of its entry.
        seq: u64,
        /// Why it does not count, if it does not.
        void: Reason,
    },
    /// Read the log for a member's `history`, and answer it.
    History {
        /// Who is answered.
        to: M,
        /// Its channel.
        chan: ChannelId,
        /// Which request.
        serial: u32,
        /// Which part.
        params: HistoryParams,
    },
    /// Fetch what the log has behind `after`, up to `to` at least; [`super::Topic::repaired`] follows.
    Repair {
        /// What was seen last.
        after: u64,
        /// What is missing reaches to here at most.
        to: u64,
    },
    /// Ask history how the topic is now; [`super::Topic::reviewed`] follows, however long that takes.
    Review,
    /// A gap has come to its end.
    Repaired(How),
    /// Tell the lobby; it answers this member itself.
    Lobby(M, LobbyCommand),
    /// Tell presence; it answers the member itself.
    Presence(RoomId, PresenceCommand<M>),
}

/// How a gap ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// History had what was missing.
    History,
    /// The stream had it.
    Stream,
    /// Members were shown a `gap`.
    Shown,
}

/// When and under which id a message is stored.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// As clients see it.
    pub at: String,
    /// The same time, in unix milliseconds.
    pub now: u64,
    /// Used where the client gave none.
    pub id: String,
    /// This gateway, as it marks what is not logged.
    pub gateway: Arc<str>,
}

/// What a member pushes.
#[derive(Debug)]
pub struct Request<P> {
    /// Which request.
    pub serial: u32,
    /// What.
    pub push: P,
    /// When.
    pub now: Instant,
}

/// A request of a member, and where its answer goes.
pub struct To<'a, M> {
    /// The member.
    pub mailbox: &'a M,
    /// Its channel.
    pub chan: ChannelId,
    /// Which request.
    pub serial: u32,
    /// What is to be done.
    pub out: &'a mut Vec<Effect<M>>,
}

impl<M: Clone> To<'_, M> {
    /// Answers the request.
    pub fn done(&mut self, outcome: Outcome) {
        let event = Event::Done { chan: self.chan, serial: self.serial, outcome };
        self.send(Arc::new(event));
    }

    /// Refuses the request.
    pub fn refuse(&mut self, reason: Reason) {
        self.done(Outcome::Refused(reason.into()));
    }

    /// An event for this member's channel alone.
    pub fn push(&mut self, event: impl Into<std::borrow::Cow<'static, str>>, payload: impl Into<Box<str>>) {
        self.send(Arc::new(Event::Push { chan: self.chan, event: event.into(), payload: payload.into() }));
    }

    /// An event for this member.
    pub fn send(&mut self, event: Arc<Event>) {
        self.out.push(Effect::Send(self.mailbox.clone(), event));
    }
}
