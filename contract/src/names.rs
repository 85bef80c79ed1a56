//! The names of everything in NATS: subjects, streams, buckets, keys. Made here from typed ids, and nowhere else.
//!
//! An id from a client becomes one subject token by escaping: `[A-Za-z0-9_-]` stay, any other byte is `=XX`.
//! That is injective, legal in subjects and KV keys, and readable.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{ID_BYTES_MAX, SESSION_BYTES_MAX};

/// The stream of all logged messages.
pub const ROOMS_STREAM: &str = "ROOMS";
/// What [`ROOMS_STREAM`] takes.
pub const LOG_SUBJECTS: &str = "sb.log.>";
/// Where [`ROOMS_STREAM`] is republished to.
pub const OUT_SUBJECTS: &str = "sb.out.>";
/// The lobby's status, from the matcher to every gateway.
pub const LOBBY_STATUS: &str = "sb.out.lobby.status";
/// The bucket of rosters, queue and chats.
pub const LOBBY_BUCKET: &str = "lobby";
/// The bucket of live gateways, for operators.
pub const GATEWAYS_BUCKET: &str = "gateways";
/// The bucket of rooms: each one's life, and a snapshot of its state: [`crate::room::RoomRecord`].
pub const ROOMS_BUCKET: &str = "rooms";
/// The bucket of leases: who is the one.
pub const LEASES_BUCKET: &str = "leases";
/// Where the matcher's lease is written, a key of [`LEASES_BUCKET`]: [`crate::lobby::LeaseRecord`].
pub const MATCHER_LEASE: &str = "$KV.leases.matcher";
/// Where the lease of the history replicas is written: [`crate::lobby::LeaseRecord`].
pub const HISTORY_LEASE: &str = "$KV.leases.history";
/// Nobody listens here: a request to it is answered by the server itself.
pub const NOBODY: &str = "sb.nobody";
/// Heartbeats of all gateways.
pub const ALIVE_GATEWAYS: &str = "sb.alive.gateway.*";

/// Why a text is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// An id has at least one byte.
    #[error("an id must not be empty")]
    Empty,
    /// An id has at most [`ID_BYTES_MAX`] bytes.
    #[error("an id must not be longer than 128 bytes")]
    TooLong,
    /// In rooms ids contain no colon, which parts user and session.
    #[error("an id must not contain a colon here")]
    Colon,
    /// Only strings and integers are ids.
    #[error("an id must be a string or an integer")]
    Type,
}

fn check(text: &str) -> Result<(), IdError> {
    match text.len() {
        0 => Err(IdError::Empty),
        n if n > ID_BYTES_MAX => Err(IdError::TooLong),
        _ => Ok(()),
    }
}

fn no_colon(text: &str) -> Result<(), IdError> {
    if text.contains(':') { Err(IdError::Colon) } else { Ok(()) }
}

/// A user's id. `5` and `"5"` are the same user; it is written as its owner wrote it.
#[derive(Clone, Debug)]
pub struct UserId {
    text: Box<str>,
    number: bool,
}

impl UserId {
    /// The id of a user that writes it as a string.
    pub fn text(text: &str) -> Result<Self, IdError> {
        check(text)?;
        Ok(UserId { text: text.into(), number: false })
    }

    /// The id as text, the same for `5` and `"5"`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<u64> for UserId {
    fn from(number: u64) -> Self {
        UserId { text: number.to_string().into(), number: true }
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for UserId {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
impl Eq for UserId {}
impl PartialOrd for UserId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for UserId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}
impl std::hash::Hash for UserId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Serialize for UserId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.number {
            if let Ok(n) = self.text.parse::<u64>() {
                return serializer.serialize_u64(n);
            }
            if let Ok(n) = self.text.parse::<i64>() {
                return serializer.serialize_i64(n);
            }
        }
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = UserId;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string of 1 to 128 bytes or an integer")
            }
            fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<UserId, E> {
                Ok(UserId::from(n))
            }
            fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<UserId, E> {
                Ok(UserId { text: n.to_string().into(), number: true })
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<UserId, E> {
                UserId::text(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A chat's id, made by the matcher; what clients send as one is only looked up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ChatId(Box<str>);

impl ChatId {
    /// A chat id from text.
    pub fn new(text: &str) -> Result<Self, IdError> {
        check(text)?;
        Ok(ChatId(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for ChatId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        ChatId::new(&text).map_err(D::Error::custom)
    }
}

impl fmt::Display for ChatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A room's id, as clients name it: 1 to 128 bytes without `:`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RoomId(Box<str>);

impl RoomId {
    /// A room id from text.
    pub fn new(text: &str) -> Result<Self, IdError> {
        check(text)?;
        no_colon(text)?;
        Ok(RoomId(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for RoomId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        RoomId::new(&text).map_err(D::Error::custom)
    }
}

impl fmt::Display for RoomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A user with one of its sessions: `<user>:<session>`. The key of a presence, and where a direct message goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct SessionKey(Box<str>);

impl SessionKey {
    /// Of a user and a session of it, 1 to 64 bytes; neither contains a `:`.
    pub fn new(user: &UserId, session: &str) -> Result<Self, IdError> {
        no_colon(user.as_str())?;
        no_colon(session)?;
        match session.len() {
            0 => Err(IdError::Empty),
            n if n > SESSION_BYTES_MAX => Err(IdError::TooLong),
            _ => Ok(SessionKey(format!("{user}:{session}").into())),
        }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The user's part.
    pub fn user(&self) -> &str {
        self.0.split_once(':').map_or(&self.0, |(user, _)| user)
    }
}

/// As text, whose order is that of the keys: the sessions of a user stand side by side.
impl std::borrow::Borrow<str> for SessionKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for SessionKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let (user, session) = text.split_once(':').ok_or_else(|| D::Error::custom(IdError::Colon))?;
        let user = UserId::text(user).map_err(D::Error::custom)?;
        SessionKey::new(&user, session).map_err(D::Error::custom)
    }
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One life of a process: `<host>-<6 random>`. A process declared dead while alive takes a new one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(Box<str>);

impl Incarnation {
    /// A new one, for this host.
    pub fn new() -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(48).collect();
        Incarnation(format!("{host}-{}", random_token(6)).into())
    }

    /// An incarnation of a given name, as it came in a message or from a test.
    pub fn named(name: &str) -> Result<Self, IdError> {
        check(name)?;
        Ok(Incarnation(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Incarnation {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lower-case letters and digits, from the system's randomness.
pub fn random_token(length: usize) -> String {
    use rand::Rng as _;
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut rng = rand::rng();
    (0..length).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
}

/// Which log of [`ROOMS_STREAM`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogName {
    /// A chat's.
    Chat(ChatId),
    /// A room's.
    Room(RoomId),
}

impl LogName {
    /// Where messages are published to be logged.
    pub fn log_subject(&self) -> String {
        self.subject("log")
    }

    /// Where the stream republishes what it has stored, for the gateways of the members.
    pub fn out_subject(&self) -> String {
        self.subject("out")
    }

    fn subject(&self, tree: &str) -> String {
        match self {
            LogName::Chat(id) => format!("sb.{tree}.chat.{}", escape(id.as_str())),
            LogName::Room(id) => format!("sb.{tree}.room.{}", escape(id.as_str())),
        }
    }

    /// Reads a subject below `sb.log` or `sb.out`; `None` for one of another kind.
    pub fn from_subject(subject: &str) -> Option<Self> {
        let rest = subject.strip_prefix("sb.log.").or_else(|| subject.strip_prefix("sb.out."))?;
        let (kind, id) = rest.split_once('.')?;
        match kind {
            "chat" => Some(LogName::Chat(ChatId::new(&unescape(id)?).ok()?)),
            "room" => Some(LogName::Room(RoomId::new(&unescape(id)?).ok()?)),
            _ => None,
        }
    }
}

/// Where a room's record is written, a key of [`ROOMS_BUCKET`].
pub fn room_record_subject(room: &RoomId) -> String {
    format!("$KV.{ROOMS_BUCKET}.{}", escape(room.as_str()))
}

/// The room whose record has this subject.
pub fn room_of_record(subject: &str) -> Option<RoomId> {
    let key = subject.strip_prefix("$KV.")?.strip_prefix(ROOMS_BUCKET)?.strip_prefix('.')?;
    RoomId::new(&unescape(key)?).ok()
}

/// A key of KV `lobby`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LobbyKey {
    /// Who leads, and the guard of every write: [`crate::lobby::EpochRecord`].
    Epoch,
    /// [`crate::lobby::TeacherRecord`].
    Teacher(UserId),
    /// [`crate::lobby::StudentRecord`].
    Student(UserId),
    /// [`crate::lobby::QueueRecord`]. Tickets are zero-padded: the listing is the queue.
    Queue(u64),
    /// [`crate::lobby::ChatRecord`].
    Chat(ChatId),
}

impl LobbyKey {
    /// The subject of the bucket's stream under which the key is stored.
    pub fn subject(&self) -> String {
        format!("$KV.{LOBBY_BUCKET}.{self}")
    }

    /// Reads a key; `None` for one that no version of this program writes.
    pub fn parse(key: &str) -> Option<Self> {
        if key == "epoch" {
            return Some(LobbyKey::Epoch);
        }
        let (kind, id) = key.split_once('.')?;
        match kind {
            "teacher" => Some(LobbyKey::Teacher(UserId::text(&unescape(id)?).ok()?)),
            "student" => Some(LobbyKey::Student(UserId::text(&unescape(id)?).ok()?)),
            "queue" => Some(LobbyKey::Queue(id.parse().ok()?)),
            "chat" => Some(LobbyKey::Chat(ChatId::new(&unescape(id)?).ok()?)),
            _ => None,
        }
    }

    /// Reads a subject of the bucket's stream.
    pub fn from_subject(subject: &str) -> Option<Self> {
        Self::parse(subject.strip_prefix("$KV.")?.strip_prefix(LOBBY_BUCKET)?.strip_prefix('.')?)
    }
}

impl fmt::Display for LobbyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LobbyKey::Epoch => f.write_str("epoch"),
            LobbyKey::Teacher(id) => write!(f, "teacher.{}", escape(id.as_str())),
            LobbyKey::Student(id) => write!(f, "student.{}", escape(id.as_str())),
            LobbyKey::Queue(ticket) => write!(f, "queue.{ticket:012}"),
            LobbyKey::Chat(id) => write!(f, "chat.{}", escape(id.as_str())),
        }
    }
}

/// What the matcher can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatcherVerb {
    /// [`crate::lobby::Table`] → [`crate::lobby::TableReply`].
    Table,
    /// [`crate::lobby::Claim`] → [`crate::lobby::Done`].
    Claim,
    /// [`crate::lobby::Terminate`] → [`crate::lobby::Done`].
    Terminate,
    /// Anything → [`crate::lobby::Leader`].
    Status,
}

impl MatcherVerb {
    /// Every verb.
    pub const ALL: [MatcherVerb; 4] =
        [MatcherVerb::Table, MatcherVerb::Claim, MatcherVerb::Terminate, MatcherVerb::Status];

    /// The endpoint's name below `sb.matcher`.
    pub const fn as_str(self) -> &'static str {
        match self {
            MatcherVerb::Table => "table",
            MatcherVerb::Claim => "claim",
            MatcherVerb::Terminate => "terminate",
            MatcherVerb::Status => "status",
        }
    }

    /// The request's subject.
    pub fn subject(self) -> String {
        format!("sb.matcher.{}", self.as_str())
    }
}

/// The id under which a stream stores a chat's message once: the chat, who said it, and the client's own id.
pub fn chat_message_id(chat: &ChatId, role: crate::lobby::Role, user: &UserId, id: &str) -> String {
    let role = match role {
        crate::lobby::Role::Teacher => "teacher",
        crate::lobby::Role::Student => "student",
    };
    format!("chat.{}.{role}.{}.{}", escape(chat.as_str()), escape(user.as_str()), escape(id))
}

/// The id under which a stream stores a room's message once: the room and its life, who said it, the client's own id.
pub fn room_message_id(room: &RoomId, since: u64, session: &SessionKey, id: &str) -> String {
    format!("room.{}.{since}.{}.{}", escape(room.as_str()), escape(session.as_str()), escape(id))
}

/// The id under which a stream stores once that what had a time until `at` (unix milliseconds) has ended in a room. No
/// client's id is equal to it: a session's token is never a bare word.
pub fn room_expiry_id(room: &RoomId, since: u64, at: u64) -> String {
    format!("room.{}.{since}.expired.{at}", escape(room.as_str()))
}

/// The id under which a stream stores an event of the HTTP API once: the room and its life, and the caller's own key.
/// As with [`room_expiry_id`], no client's id is equal to it.
pub fn api_message_id(room: &RoomId, since: u64, key: &str) -> String {
    format!("room.{}.{since}.api.{}", escape(room.as_str()), escape(key))
}

/// The request that reads a log: [`crate::log::Read`] → [`crate::log::ReadReply`].
pub const HISTORY_READ: &str = "sb.history.read";
/// Which logs have grown beyond what somebody has seen: [`crate::log::Seen`] → [`crate::log::Behind`].
pub const HISTORY_BEHIND: &str = "sb.history.behind";

/// Pushes to single sockets of a gateway: [`crate::lobby::Push`] → [`crate::lobby::Pushed`].
pub fn gateway_subject(gateway: &Incarnation) -> String {
    format!("sb.gateway.{}", escape(gateway.as_str()))
}

/// What gateways tell each other about rooms: [`crate::presence::Peer`]. Beside [`gateway_subject`], so that a burst
/// of it delays nothing of the lobby.
pub fn gateway_rooms(gateway: &Incarnation) -> String {
    format!("sb.gateway.{}.rooms", escape(gateway.as_str()))
}

/// To every gateway: [`crate::api::Disconnect`]. No gateway's own subject begins like this.
pub const GATEWAYS_DISCONNECT: &str = "sb.gateways.disconnect";

/// The heartbeat of a gateway: [`crate::lobby::Heartbeat`].
pub fn alive_gateway(gateway: &Incarnation) -> String {
    format!("sb.alive.gateway.{}", escape(gateway.as_str()))
}

/// Where a gateway's record in KV [`GATEWAYS_BUCKET`] is written.
pub fn gateway_record_subject(gateway: &Incarnation) -> String {
    format!("$KV.{GATEWAYS_BUCKET}.{}", escape(gateway.as_str()))
}

/// The stream behind a bucket.
pub fn bucket_stream(bucket: &str) -> String {
    format!("KV_{bucket}")
}

/// The subjects of a bucket.
pub fn bucket_subjects(bucket: &str) -> String {
    format!("$KV.{bucket}.>")
}

/// Reads a stream's message of a subject, the last one or the next one from a sequence on, through the stream's leader,
/// so that it is never old.
pub fn leader_get_subject(stream: &str) -> String {
    format!("$JS.API.STREAM.MSG.GET.{stream}")
}

/// One subject token from any text.
fn escape(id: &str) -> String {
    let mut token = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            token.push(char::from(byte));
        } else {
            token.push_str(&format!("={byte:02X}"));
        }
    }
    token
}

/// The text a token was made from; `None` if none could have been.
fn unescape(token: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'=' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return None };
        let digit = |c: u8| char::from(c).to_digit(16).filter(|_| !c.is_ascii_lowercase());
        bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        rest = tail;
    }
    let text = String::from_utf8(bytes).ok()?;
    (escape(&text) == token).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_id_is_one_legal_token_and_comes_back(id in "\\PC{1,40}|[.*> \n=a-z]{1,20}") {
            let token = escape(&id);
            prop_assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-=".contains(&b)), "{token}");
            prop_assert_eq!(unescape(&token), Some(id));
        }

        #[test]
        fn reading_a_token_never_panics_and_is_injective(token in ".{0,20}") {
            if let Some(id) = unescape(&token) {
                prop_assert_eq!(escape(&id), token);
            }
        }
    }

    #[test]
    fn the_lease_is_a_key_of_its_bucket() {
        assert_eq!(bucket_subjects(LEASES_BUCKET).replace('>', "matcher"), MATCHER_LEASE);
        assert_eq!(bucket_subjects(LEASES_BUCKET).replace('>', "history"), HISTORY_LEASE);
    }

    #[test]
    fn keys_come_back() {
        let keys = [
            (LobbyKey::Epoch, "epoch"),
            (LobbyKey::Teacher(UserId::from(7)), "teacher.7"),
            (LobbyKey::Student(UserId::text("ä.b").expect("an id")), "student.=C3=A4=2Eb"),
            (LobbyKey::Queue(42), "queue.000000000042"),
            (LobbyKey::Chat(ChatId::new("ab12-3").expect("an id")), "chat.ab12-3"),
        ];
        for (key, text) in keys {
            assert_eq!(key.to_string(), text);
            assert_eq!(LobbyKey::from_subject(&key.subject()), Some(key));
        }
        assert_eq!(LobbyKey::parse("teacher"), None);
        assert_eq!(LobbyKey::parse("student.a b"), None);
    }

    #[test]
    fn logs_come_back() {
        let log = LogName::Chat(ChatId::new("a.*>é").expect("an id"));
        assert_eq!(log.log_subject(), "sb.log.chat.a=2E=2A=3E=C3=A9");
        assert_eq!(LogName::from_subject(&log.out_subject()), Some(log));
        assert_eq!(LogName::from_subject("sb.out.lobby.status"), None);
    }

    #[test]
    fn the_message_ids_of_a_room_are_told_apart() {
        let (room, user) = (RoomId::new("r.1").expect("an id"), UserId::text("api").expect("an id"));
        let api = api_message_id(&room, 5, "k.é");
        assert_eq!(api, "room.r=2E1.5.api.k=2E=C3=A9");
        let session = SessionKey::new(&user, "k").expect("a key");
        let others = [
            api_message_id(&room, 6, "k.é"),
            api_message_id(&room, 5, "k"),
            room_message_id(&room, 5, &session, "k.é"),
            room_expiry_id(&room, 5, 1),
        ];
        assert!(!others.contains(&api), "{others:?}");
    }

    #[test]
    fn ids_keep_the_type_of_their_owner() {
        let number: UserId = serde_json::from_str("5").expect("a number");
        let text: UserId = serde_json::from_str("\"5\"").expect("a string");
        assert_eq!(number, text);
        assert_eq!(serde_json::to_string(&number).expect("JSON"), "5");
        assert_eq!(serde_json::to_string(&text).expect("JSON"), "\"5\"");
        let negative: UserId = serde_json::from_str("-5").expect("a number");
        assert_eq!(serde_json::to_string(&negative).expect("JSON"), "-5");
        for bad in ["5.5", "true", "null", "\"\"", "{}", "[1]"] {
            assert!(serde_json::from_str::<UserId>(bad).is_err(), "{bad}");
        }
    }
}
