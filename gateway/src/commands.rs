//! What the tasks of sockets, topics and the lobby ask of each other. Answers come as [`crate::mailbox::Event`].

use bytes::Bytes;
use switchboard_contract::lobby::{At, ChannelId, Role};
use switchboard_contract::names::{ChatId, SessionKey, UserId};
use switchboard_contract::presence::Delta;
use switchboard_contract::room::{Change, Rank};

use crate::auth::Pass;
use crate::payload::{HistoryParams, Message};

/// What a socket tells a feed.
#[derive(Debug, PartialEq)]
pub enum FeedCommand {
    /// Join; [`crate::mailbox::Event::Done`] follows.
    Join {
        /// The new member.
        chan: ChannelId,
        /// Which request.
        serial: u32,
        /// What it has to show.
        pass: Pass,
    },
    /// The member is gone.
    Leave {
        /// Which.
        chan: ChannelId,
    },
}

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

/// What a socket tells the task of a topic; `J` and `P` are what its kind of topic needs for a join, and what can be
/// pushed to it.
#[derive(Debug, PartialEq)]
pub enum TopicCommand<J, P> {
    /// Join; [`crate::mailbox::Event::Done`] follows.
    Join {
        /// The new member.
        chan: ChannelId,
        /// Which request.
        serial: u32,
        /// As whom.
        who: J,
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
        push: P,
    },
}

/// What a socket tells the task of a chat's topic.
pub type ChatCommand = TopicCommand<ChatJoin, ChatPush>;
/// What a socket tells the task of a room's topic.
pub type RoomCommand = TopicCommand<RoomJoin, RoomPush>;

/// Who joins a chat.
#[derive(Debug, PartialEq)]
pub struct ChatJoin {
    /// As which side.
    pub role: Role,
    /// As whom.
    pub user: UserId,
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

/// A join of a room, of which it is not known yet who joins.
#[derive(Debug, PartialEq)]
pub struct RoomJoining {
    /// The new member.
    pub chan: ChannelId,
    /// Which request.
    pub serial: u32,
    /// What it says of itself.
    pub says: crate::auth::room::RoomJoin,
    /// Its session.
    pub session: Box<str>,
    /// What it has already.
    pub last_seq: Option<u64>,
}

/// Who joins a room.
#[derive(Debug, PartialEq)]
pub struct RoomJoin {
    /// As whom.
    pub user: UserId,
    /// The user with its session.
    pub session: SessionKey,
    /// As its token has it; the room may have granted another.
    pub rank: Rank,
}

/// What a member of a room can push.
#[derive(Debug, PartialEq)]
pub enum RoomPush {
    /// `new_msg` to all.
    Broadcast(Message),
    /// `new_msg` to some.
    Direct(Vec<Recipient>, Box<str>),
    /// `new_message`.
    Say(Message),
    /// `typing`, with its payload.
    Typing(Box<str>),
    /// Binary data.
    Binary {
        /// Under this name,
        event: Box<str>,
        /// this.
        data: Bytes,
    },
    /// `room:update`, `room:grant`.
    Change {
        /// What is to be different.
        change: Change<'static>,
        /// It ends after this time, in seconds.
        for_seconds: Option<u32>,
    },
    /// `history`.
    History(HistoryParams),
}

/// To whom a direct message goes.
#[derive(Debug, PartialEq)]
pub enum Recipient {
    /// To one session of a user.
    Session(SessionKey),
    /// To all of a user's.
    User(UserId),
}

/// What a room's topic tells presence. `M` is where a member is reached.
#[derive(Debug, PartialEq)]
pub enum PresenceCommand<M> {
    /// A join was answered; `presence_state` follows.
    Join {
        /// The new member.
        chan: ChannelId,
        /// As whom.
        key: SessionKey,
        /// Where it is reached.
        mailbox: M,
    },
    /// A member is gone.
    Leave {
        /// Which.
        chan: ChannelId,
    },
    /// A direct message; [`crate::mailbox::Event::Done`] follows.
    Direct {
        /// Who sends it.
        chan: ChannelId,
        /// Which request.
        serial: u32,
        /// To whom.
        to: Vec<Recipient>,
        /// As they get it, JSON.
        payload: Box<str>,
        /// Who is answered.
        mailbox: M,
    },
    /// A gateway said on the room's subject what has changed.
    Delta(Box<Delta>),
}
