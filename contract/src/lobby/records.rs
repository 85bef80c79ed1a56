//! Records, which operators read too: of KV `lobby`, and beside it of KV `leases` and KV `gateways`.

use serde::{Deserialize, Serialize};

use super::Role;
use crate::names::{ChatId, Incarnation, UserId};
use crate::wire::{self, V1};

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
    /// The id of the [`Claim`](super::Claim) that it answers; 0: of none.
    #[serde(default, skip_serializing_if = "wire::is_zero")]
    pub claim: u64,
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
