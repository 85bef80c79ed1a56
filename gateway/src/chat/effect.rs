//! What a chat's topic wants done, and what it is given for it.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use switchboard_contract::lobby::{ChannelId, ChatRecord, Role};
use switchboard_contract::log::ReadReply;

use crate::commands::LobbyCommand;
use crate::mailbox::Event;
use crate::payload::HistoryParams;

/// What a chat's topic wants done. `M` is where a member is reached.
#[derive(Debug)]
pub enum Effect<M> {
    /// Something for a member.
    Send(M, Arc<Event>),
    /// Read the chat's record and its log; [`super::Chat::loaded`] follows.
    Load {
        /// For whose join.
        chan: ChannelId,
        /// Replay what the log has behind this.
        last_seq: Option<u64>,
    },
    /// Write to the chat's log; [`super::Chat::acked`] follows.
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
    /// Fetch what the log has behind `after`, up to `to` at least; [`super::Chat::repaired`] follows.
    Repair {
        /// What was seen last.
        after: u64,
        /// What is missing reaches to here at most.
        to: u64,
    },
    /// A gap has come to its end.
    Repaired(How),
    /// Tell the lobby; it answers this member itself.
    Lobby(M, LobbyCommand),
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

/// When and under which id a message is stored.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// As clients see it.
    pub at: String,
    /// Used where the client gave none.
    pub id: String,
}
