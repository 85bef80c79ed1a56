//! The lobby: what gateways and matcher say to each other, and the records of KV `lobby`.
//!
//! **The table.** A gateway's lobby sockets are a table and not commands: one row per channel, which says what *is*,
//! with a number that grows with each change of the row. Rows are sent as changes, several in one request, one
//! request at a time; and whole when a new epoch shows up. An older row is ignored, so a repeated one does no harm.

use serde::{Deserialize, Serialize};

use crate::names::{ChatId, Incarnation, RoomId, UserId};
use crate::reason::Reason;
use crate::wire::V1;

/// A channel of a gateway: unique in one incarnation, and growing.
pub type ChannelId = u64;

/// Which of the two sides of a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Picks students up.
    Teacher,
    /// Waits in the queue.
    Student,
}

impl Role {
    /// The one that this one talks to.
    pub const fn other(self) -> Role {
        match self {
            Role::Teacher => Role::Student,
            Role::Student => Role::Teacher,
        }
    }
}

// ---- from a gateway to the matcher -------------------------------------------------------------------------------

/// Rows of a gateway's table: `sb.matcher.table`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table {
    /// Always 1.
    pub v: V1,
    /// Whose rows.
    pub gateway: Incarnation,
    /// Set where the whole table is being sent; `None` for changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<Whole>,
    /// At most [`crate::limits::TABLE_ROWS_MAX`].
    pub rows: Vec<Row>,
}

/// A part of a whole table. Parts are sent one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whole {
    /// The first part: from here on, rows are collected afresh.
    pub first: bool,
    /// The last part: a row that was in none of the parts has been lost.
    pub last: bool,
}

/// One channel, as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Which channel of the gateway.
    pub chan: ChannelId,
    /// Grows with each change of this row, from 1.
    pub n: u64,
    /// What it is.
    pub at: At,
}

/// What a channel of the lobby is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// Joined `presence:teachers`.
    Teacher {
        /// As its owner wrote it.
        id: UserId,
        /// What this channel says now: an edge, as `ready` is.
        #[serde(flatten)]
        says: TeacherSettings,
        /// What this channel has said, and what was acknowledged. It holds only for a teacher who is not on the roster
        /// any more: the roster knows which of several channels spoke last.
        #[serde(default, skip_serializing_if = "TeacherSettings::is_empty")]
        said: TeacherSettings,
    },
    /// Joined `presence:student:<id>`.
    Student {
        /// As its owner wrote it.
        id: UserId,
        /// `student:ready` came and is not acknowledged yet: an edge, seen once per `n`.
        #[serde(default)]
        ready: bool,
    },
    /// Joined `chats:<id>`, as one of its own two.
    Chat {
        /// Which.
        chat: ChatId,
        /// As which of the two.
        role: Role,
        /// `teacher:joined` or `student:joined` came.
        #[serde(default)]
        entered: bool,
    },
    /// Gone. The gateway forgets the row once this is acknowledged.
    Left {
        /// The socket was lost, so the user's place is kept for the grace time. Else it left by itself.
        lost: bool,
    },
}

/// What a teacher may set, in its join and with `teacher:update`. `None`: as the roster has it, and for a new teacher
/// [`crate::limits::CAPACITY_DEFAULT`], no and no.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TeacherSettings {
    /// Chats at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
    /// Students are assigned without asking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto: Option<bool>,
    /// No new students.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub away: Option<bool>,
}

impl TeacherSettings {
    /// These, and where they say nothing, the earlier ones.
    pub fn over(self, earlier: Self) -> Self {
        TeacherSettings {
            capacity: self.capacity.or(earlier.capacity),
            auto: self.auto.or(earlier.auto),
            away: self.away.or(earlier.away),
        }
    }

    /// Whether they say nothing.
    pub fn is_empty(&self) -> bool {
        *self == TeacherSettings::default()
    }
}

/// The answer to a [`Table`], once everything in it is committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableReply {
    /// Always 1.
    pub v: V1,
    /// The leader's.
    pub epoch: u64,
    /// The matcher does not know this gateway: nothing was applied, send the whole table.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resend: bool,
    /// Rows that were refused, with why. All others hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<(ChannelId, Reason)>,
    /// The lobby after the commit.
    pub status: Status,
}

/// `sb.matcher.claim`: the longest-waiting student for the teacher of a channel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claim {
    /// Always 1.
    pub v: V1,
    /// Who asks.
    pub gateway: Incarnation,
    /// Its row: a teacher's.
    pub chan: ChannelId,
}

/// `sb.matcher.terminate`: one side ends a chat. The gateway has checked that it is one of the two.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Terminate {
    /// Always 1.
    pub v: V1,
    /// Which.
    pub chat: ChatId,
}

/// The answer to a [`Claim`] or a [`Terminate`], once what it led to is committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Always 1.
    pub v: V1,
    /// The leader's.
    pub epoch: u64,
    /// Why not; `None`: done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Reason>,
}

/// A gateway lives: `sb.alive.gateway.<incarnation>`, each [`crate::limits::HEARTBEAT`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Always 1.
    pub v: V1,
    /// Who.
    pub gateway: Incarnation,
    /// Counts heartbeats, from 1.
    pub n: u64,
    /// It says goodbye: every socket of it is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bye: bool,
    /// The rooms whose members here have changed, each with the version that they have now. What changed since the
    /// heartbeat before is in this one, or a number is left out. At most [`crate::limits::DIGEST_ROOMS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rooms: Vec<(RoomId, u64)>,
}

// ---- from the matcher to gateways --------------------------------------------------------------------------------

/// The lobby's counts: `sb.out.lobby.status` and in [`TableReply`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Always 1.
    pub v: V1,
    /// The leader's.
    pub epoch: u64,
    /// Raised by a change of the student roster and by nothing else: the KV stream's sequence of the batch that
    /// committed it, so it grows over restarts. A channel gets each version at most once.
    pub version: u64,
    /// Teachers on the roster: current, also where the version has not changed.
    pub teachers: u64,
    /// Students waiting.
    pub waiting: u64,
    /// Students in a chat.
    pub chatting: u64,
    /// Students whose chat ended, still there.
    pub finished: u64,
}

impl Status {
    /// All students.
    pub const fn students(&self) -> u64 {
        self.waiting + self.chatting + self.finished
    }
}

/// What the matcher has for sockets of one gateway: a request to `sb.gateway.<incarnation>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// Always 1.
    pub v: V1,
    /// The leader's. A gateway ignores what comes from an older one than it has seen.
    pub epoch: u64,
    /// `new:chat` for channels. Told again until acknowledged; a channel shows a chat once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub new_chats: Vec<NewChat>,
    /// `queue:position` for channels of waiting students.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positions: Option<Positions>,
    /// The leader does not have this gateway's table, though it hears it: send the whole table.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resend: bool,
}

/// `new:chat` to channels of one of its two users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewChat {
    /// To these rows of the gateway.
    pub chans: Vec<ChannelId>,
    /// The chat.
    pub chat: ChatRecord,
    /// The chat is older than the channel: held back for [`crate::limits::NEW_CHAT_HOLD`], and not shown if the same
    /// socket has the chat's topic by then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
}

/// Places in the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions {
    /// How many wait.
    pub of: u64,
    /// Expected time from one assignment to the next, from the recent ones; `None` when unknown. Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace_ms: Option<u64>,
    /// (channel, place from 1), at most [`crate::limits::POSITIONS_MAX`].
    pub list: Vec<(ChannelId, u64)>,
}

/// The answer to a [`Push`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Pushed {
    /// Always 1.
    pub v: V1,
    /// Channels of `new_chats` that the gateway does not have (any more).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<ChannelId>,
}

/// Who leads: the answer of `sb.matcher.status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Leader {
    /// Always 1.
    pub v: V1,
    /// Its name.
    pub leader: Incarnation,
    /// The lobby now.
    pub status: Status,
}

// ---- records of KV `lobby`, which operators read -----------------------------------------------------------------

/// `epoch`: who leads. Its revision guards every other write.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Always 1.
    pub v: V1,
    /// Grows by one with each leader.
    pub epoch: u64,
    /// Its name.
    pub leader: Incarnation,
    /// Since when.
    pub since: String,
}

/// KV `leases`, key `matcher`: who may lead. It expires where its holder does not renew it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// Always 1.
    pub v: V1,
    /// Its name.
    pub holder: Incarnation,
}

/// `teacher.<id>`: a teacher on the roster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TeacherRecord {
    /// Always 1.
    pub v: V1,
    /// As its owner wrote it.
    pub id: UserId,
    /// Chats at once.
    pub capacity: u32,
    /// Students are assigned without asking.
    pub auto: bool,
    /// No new students.
    pub away: bool,
    /// Its active chats.
    pub chats: Vec<ChatId>,
    /// On the roster since.
    pub since: String,
}

/// `student.<id>`: a student on the roster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StudentRecord {
    /// Always 1.
    pub v: V1,
    /// As its owner wrote it.
    pub id: UserId,
    /// Waiting, chatting or finished.
    pub state: StudentState,
    /// Its place in the queue's order; kept while it chats, in case it is requeued.
    pub ticket: u64,
    /// The chat it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<ChatId>,
    /// In this state since.
    pub since: String,
}

/// What a student does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StudentState {
    /// In the queue.
    Waiting,
    /// In an active chat.
    Chatting,
    /// Its chat is over; it has not left yet.
    Finished,
}

/// `queue.<ticket>`: a place in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecord {
    /// Always 1.
    pub v: V1,
    /// Whose.
    pub student: UserId,
    /// Since when.
    pub since: String,
}

/// `chat.<id>`: a chat, until a while after its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatRecord {
    /// Always 1.
    pub v: V1,
    /// Its id.
    pub id: ChatId,
    /// Active or finished.
    pub status: ChatStatus,
    /// As its owner wrote it.
    pub teacher_id: UserId,
    /// As its owner wrote it.
    pub student_id: UserId,
    /// The teacher has said `teacher:joined`.
    pub teacher_entered: bool,
    /// The student has said `student:joined`.
    pub student_entered: bool,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<ChatEnd>,
    /// Entries of the chat's log that are not acknowledged yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owes: Vec<ChatEvent>,
    /// Since when.
    pub since: String,
}

impl ChatRecord {
    /// Whose id the user of this role must have.
    pub fn user(&self, role: Role) -> &UserId {
        match role {
            Role::Teacher => &self.teacher_id,
            Role::Student => &self.student_id,
        }
    }

    /// Whether that side has entered.
    pub fn entered(&self, role: Role) -> bool {
        match role {
            Role::Teacher => self.teacher_entered,
            Role::Student => self.student_entered,
        }
    }
}

/// Whether a chat goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChatStatus {
    /// It does.
    Active,
    /// It does not.
    Finished,
}

/// How a chat ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChatEnd {
    /// A side ended it, or the student went.
    Terminated,
    /// The teacher went: the student is at the front of the queue again.
    Requeued,
}

impl ChatEnd {
    /// The entry of the log that says so.
    pub const fn event(self) -> ChatEvent {
        match self {
            ChatEnd::Terminated => ChatEvent::Terminated,
            ChatEnd::Requeued => ChatEvent::Requeued,
        }
    }
}

/// What the matcher writes into a chat's log, each at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChatEvent {
    /// Both sides have entered.
    Ready,
    /// It ended.
    Terminated,
    /// It ended, and the student waits again.
    Requeued,
    /// The record is gone: everybody forgets the log. Clients never see it.
    Tombstone,
}

impl ChatEvent {
    /// The event's name in the log, and for clients.
    pub const fn as_str(self) -> &'static str {
        match self {
            ChatEvent::Ready => "chat:ready",
            ChatEvent::Terminated => "chat:terminated",
            ChatEvent::Requeued => "chat:requeued",
            ChatEvent::Tombstone => "tombstone",
        }
    }

    /// Reads an event's name; `None` for one that is not the matcher's.
    pub fn parse(event: &str) -> Option<Self> {
        [ChatEvent::Ready, ChatEvent::Terminated, ChatEvent::Requeued, ChatEvent::Tombstone]
            .into_iter()
            .find(|e| e.as_str() == event)
    }

    /// How the chat ended, if this is its end.
    pub const fn end(self) -> Option<ChatEnd> {
        match self {
            ChatEvent::Terminated => Some(ChatEnd::Terminated),
            ChatEvent::Requeued => Some(ChatEnd::Requeued),
            ChatEvent::Ready | ChatEvent::Tombstone => None,
        }
    }
}

/// A gateway's record in KV `gateways`, for operators.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GatewayRecord {
    /// Always 1.
    pub v: V1,
    /// Its incarnation.
    pub gateway: Incarnation,
    /// Where it listens.
    pub address: String,
    /// Its program's version.
    pub version: String,
    /// Open sockets.
    pub connections: u64,
    /// Since when.
    pub since: String,
}
