//! The lobby: what gateways and matcher say to each other, and the records of KV `lobby`.
//!
//! **The table.** A gateway's lobby sockets are a table and not commands: one row per channel, which says what *is*,
//! with a number that grows with each change of the row. Rows are sent as changes, several in one request, one
//! request at a time; and whole when a new epoch shows up. An older row is ignored, so a repeated one does no harm.

mod records;

use serde::{Deserialize, Serialize};

use crate::names::{ChatId, Incarnation, RoomId, UserId};
use crate::reason::Reason;
use crate::wire::V1;

pub use records::{
    ChatEnd, ChatEvent, ChatRecord, ChatStatus, EpochRecord, GatewayRecord, LeaseRecord, QueueRecord, StudentRecord,
    StudentState, TeacherRecord,
};

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
    /// A random number, the same each time that it is asked: a claim brings one student, however often it is asked, and
    /// of whomever. 0: it is asked once.
    #[serde(default)]
    pub id: u64,
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

    /// The counts as JSON, as clients see them.
    pub fn counts(&self) -> String {
        format!(
            r#"{{"teachers":{{"total":{}}},"students":{{"total":{},"waiting":{},"chatting":{},"finished":{}}}}}"#,
            self.teachers,
            self.students(),
            self.waiting,
            self.chatting,
            self.finished
        )
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
    /// Since when the first of the queue waits, as the record of its place says; `None`: nobody waits, or an older
    /// matcher answers. RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<Box<str>>,
}
