//! What goes into the core and what comes out of it.

use std::time::{Duration, SystemTime};

use switchboard_contract::inside::{Talk, Waiting};
use switchboard_contract::limits;
use switchboard_contract::lobby::{
    ChannelId, ChatEvent, ChatRecord, Claim, Done, Push, QueueRecord, Status, StudentRecord, Table, TableReply,
    TeacherRecord, Terminate,
};
use switchboard_contract::names::{ChatId, Incarnation, LobbyKey};

/// Names a request until its reply leaves. Unique among those that are not answered.
pub type Token = u64;

/// What is configurable.
#[derive(Clone, Debug)]
pub struct Config {
    /// A lost user's place is kept this long.
    pub grace: Duration,
    /// The largest capacity of a teacher; a larger one is lowered to it. Chats, at most [`limits::CAPACITY_LIMIT`].
    pub max_capacity: u32,
    /// A chat that one side has not entered for this long ends.
    pub enter_timeout: Duration,
    /// A finished chat's record stays this long after its last member left.
    pub chat_linger: Duration,
    /// Students waiting at once.
    pub max_waiting: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            grace: limits::GRACE,
            max_capacity: limits::CAPACITY_MAX,
            enter_timeout: limits::ENTER_TIMEOUT,
            chat_linger: limits::CHAT_LINGER,
            max_waiting: limits::QUEUE_MAX,
        }
    }
}

/// The time of an input.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Since some start, never going back: what deadlines are counted in.
    pub at: Duration,
    /// What records show to people.
    pub wall: SystemTime,
}

/// What the core is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// Rows of a gateway's table. Answered by [`Effect::TableReply`].
    Table(Token, Table),
    /// A claim. Answered by [`Effect::Done`].
    Claim(Token, Claim),
    /// A side ends a chat. Answered by [`Effect::Done`], once the chat's log has the end.
    Terminate(Token, Terminate),
    /// A gateway is dead or said goodbye: all its rows are lost.
    GatewayGone(Incarnation),
    /// A gateway has acknowledged `new:chat` for these channels.
    Told(Incarnation, Vec<(ChatId, ChannelId)>),
    /// An entry of a chat's log is stored.
    Logged(ChatId, ChatEvent),
    /// Somebody looks at the lobby. Answered by [`Effect::Looked`].
    Look(Token),
    /// Time has passed: [`super::Core::next_deadline`].
    Tick,
}

/// What somebody sees who looks at the lobby, all of it committed.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The counts.
    pub status: Status,
    /// The first of the queue, at most [`limits::OPERATOR_QUEUE_MAX`].
    pub queue: Vec<Waiting>,
    /// The newest active chats, at most [`limits::OPERATOR_CHATS_MAX`].
    pub chats: Vec<Talk>,
}

/// What the core wants done. In the order in which it wants it.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// The answer to [`Input::Table`].
    TableReply(Token, TableReply),
    /// The answer to [`Input::Claim`] or [`Input::Terminate`].
    Done(Token, Done),
    /// A push to a gateway. One with `new_chats` is a request whose answer comes back as [`Input::Told`].
    Push(Incarnation, Push),
    /// An entry for a chat's log. Its acknowledgement comes back as [`Input::Logged`].
    Log(ChatId, ChatEvent),
    /// The answer to each of these [`Input::Look`]s.
    Looked(Vec<Token>, View),
    /// A request is forgotten without an answer: there was no room for it.
    Forget(Token),
    /// To every gateway.
    Status(Status),
}

/// A record of KV `lobby`.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A teacher on the roster.
    Teacher(TeacherRecord),
    /// A student on the roster.
    Student(StudentRecord),
    /// A place in the queue.
    Queue(QueueRecord),
    /// A chat.
    Chat(ChatRecord),
}

/// What is to be written at once, all or nothing: at most [`limits::BATCH_RECORDS_MAX`], one per key. `None`: the key
/// is purged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// In the order of the keys.
    pub records: Vec<(LobbyKey, Option<Record>)>,
}

/// A record as it was found in KV `lobby`.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Under which key.
    pub key: LobbyKey,
    /// What it holds.
    pub record: Record,
    /// Its sequence in the bucket's stream.
    pub revision: u64,
}

/// What the core has in memory, for metrics: bounded by what the gateways hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Gateways whose table is known.
    pub gateways: usize,
    /// Rows of all of them.
    pub rows: usize,
    /// Chats, ended ones included until their record is purged.
    pub chats: usize,
}

/// What has happened so far, for metrics: each only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Students assigned to a teacher.
    pub matched: u64,
    /// Chats that were terminated.
    pub terminated: u64,
    /// Chats whose student was put back into the queue.
    pub requeued: u64,
    /// Users removed at the end of their grace time.
    pub expired: u64,
    /// Students refused because the queue was full.
    pub refused: u64,
    /// `new:chat` told again, because it was not acknowledged.
    pub retold: u64,
    /// Records that did not fit together when they were loaded.
    pub repaired: u64,
    /// Requests that found no room in the inbox.
    pub full: u64,
}
