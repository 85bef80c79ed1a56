//! What the tasks of sockets, chats and the lobby ask of each other. Answers come as [`crate::mailbox::Event`].

use switchboard_contract::lobby::{At, ChannelId, Role};
use switchboard_contract::names::{ChatId, UserId};

use crate::payload::{HistoryParams, Message};

/// What sockets and chats tell the lobby's task.
#[derive(Debug, PartialEq)]
pub enum LobbyCommand {
    /// A row of the table is now so; with a `serial`, [`crate::mailbox::Event::Done`] follows once it is committed.
    Set {
        /// Which row.
        chan: ChannelId,
        /// What it is now.
        at: At,
        /// Which request of the channel waits for it.
        serial: Option<u32>,
    },
    /// The longest-waiting student for this teacher's channel; [`crate::mailbox::Event::Done`] follows.
    Claim {
        /// A teacher's row.
        chan: ChannelId,
        /// Which request.
        serial: u32,
    },
    /// End a chat; [`crate::mailbox::Event::Done`] follows.
    Terminate {
        /// Who is told.
        chan: ChannelId,
        /// Which request.
        serial: u32,
        /// Which chat.
        chat: ChatId,
    },
}

/// What a socket tells the task of a chat's topic.
#[derive(Debug, PartialEq)]
pub enum ChatCommand {
    /// Join; [`crate::mailbox::Event::Done`] follows.
    Join {
        /// The new member.
        chan: ChannelId,
        /// Which request.
        serial: u32,
        /// As which side.
        role: Role,
        /// As whom.
        user: UserId,
        /// What the client has already.
        last_seq: Option<u64>,
    },
    /// The member is gone.
    Leave {
        /// Which.
        chan: ChannelId,
        /// With its socket, and not by itself.
        lost: bool,
    },
    /// A push of a member; [`crate::mailbox::Event::Done`] follows.
    Push {
        /// Which member.
        chan: ChannelId,
        /// Which request.
        serial: u32,
        /// What.
        push: ChatPush,
    },
}

/// What a member of a chat can push.
#[derive(Debug, PartialEq)]
pub enum ChatPush {
    /// `teacher:joined`, `student:joined`.
    Enter,
    /// `teacher:send`, `student:send`.
    Send(Message),
    /// `history`.
    History(HistoryParams),
    /// `chat:terminate`.
    Terminate,
}
