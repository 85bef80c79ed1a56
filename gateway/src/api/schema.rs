//! What the answers of the HTTP API look like, for its document. They are written where sockets get them from; a system
//! test compares.

use std::collections::BTreeMap;

use utoipa::{ToSchema, openapi};

/// An empty object.
#[derive(ToSchema)]
#[schema(example = json!({}))]
pub(super) struct Nothing {}

/// A page of a room's messages.
#[derive(ToSchema)]
pub(super) struct History {
    /// Oldest first.
    pub messages: Vec<Message>,
    /// Nothing more of what is kept was asked for.
    pub complete: bool,
}

/// A message of a room, or of a chat.
#[derive(ToSchema)]
pub(super) struct Message {
    /// Its place in the order.
    #[schema(example = 1_795_287_862_002_320_u64)]
    pub seq: u64,
    /// The sender's own id, or one that the server made.
    #[schema(example = "k1")]
    pub id: String,
    /// RFC 3339, UTC, milliseconds.
    #[schema(example = "2026-11-21T19:12:34.185Z")]
    pub at: String,
    /// The event's name: of a chat `teacher:send` or `student:send`.
    #[schema(example = "new_msg")]
    pub event: String,
    /// As it was sent, without reserved keys.
    #[schema(value_type = Object, example = json!({"text": "hello"}))]
    pub payload: openapi::Object,
    /// Who said it; what came by this API has none.
    #[schema(required = false)]
    pub from: Option<Sender>,
}

/// Who said something.
#[derive(ToSchema)]
pub(super) struct Sender {
    /// In a chat: `teacher` or `student`.
    #[schema(required = false)]
    pub role: Option<String>,
    /// Who.
    pub user_id: UserId,
    /// In a room: `<user>:<session>`.
    #[schema(required = false, example = "ada:1")]
    pub session: Option<String>,
}

/// A user's id, in the type in which its owner sent it.
#[derive(ToSchema)]
#[schema(example = "ada")]
#[serde(untagged)]
#[allow(dead_code)]
pub(super) enum UserId {
    /// A string of 1 to 128 bytes.
    Text(String),
    /// An integer.
    Number(i64),
}

/// Who is in a room: `<user>:<session>`, each with its sockets.
#[derive(ToSchema)]
#[schema(example = json!({"ada:1": {"metas": [{"phx_ref": "q2by10-7", "online_at": "1795287862"}]}}))]
pub(super) struct Presence(pub BTreeMap<String, Metas>);

/// The sockets of a session.
#[derive(ToSchema)]
pub(super) struct Metas {
    /// One for each.
    pub metas: Vec<Meta>,
}

/// A socket in a room.
#[derive(ToSchema)]
pub(super) struct Meta {
    /// Tells sockets apart.
    pub phx_ref: String,
    /// Unix seconds.
    pub online_at: String,
}

/// A chat.
#[derive(ToSchema)]
pub(super) struct Chat {
    /// Its id.
    #[schema(example = "077bcf-4")]
    pub id: String,
    /// `active` or `finished`.
    #[schema(example = "active")]
    pub status: String,
    /// Whose it is.
    pub teacher_id: UserId,
    /// With whom.
    pub student_id: UserId,
    /// Whether the teacher has entered.
    pub teacher_entered: bool,
    /// Whether the student has.
    pub student_entered: bool,
    /// The newest ones that fit in 256 KiB, oldest first.
    pub messages: Vec<Message>,
}

/// The lobby's counts.
#[derive(ToSchema)]
pub(super) struct Lobby {
    /// Of the teachers.
    pub teachers: Teachers,
    /// Of the students.
    pub students: Students,
}

/// How many teachers there are.
#[derive(ToSchema)]
pub(super) struct Teachers {
    /// All of them.
    pub total: u64,
}

/// How many students there are.
#[derive(ToSchema)]
pub(super) struct Students {
    /// The sum of the others.
    pub total: u64,
    /// In the queue.
    pub waiting: u64,
    /// In a chat.
    pub chatting: u64,
    /// Whose chat has ended.
    pub finished: u64,
}
