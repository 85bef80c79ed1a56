//! The names of everything in NATS: subjects, streams, buckets, keys. Made here from typed ids, and nowhere else.
//!
//! An id from a client becomes one subject token by escaping: `[A-Za-z0-9_-]` stay, any other byte is `=XX`.
//! That is injective, legal in subjects and KV keys, and readable.

mod feed;
mod ids;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use feed::FeedId;
pub use ids::{ChatId, IdError, Incarnation, RoomId, SessionKey, UserId, random_token};

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
/// The bucket of feeds that somebody listens to: [`crate::feed::FeedRecord`].
pub const FEEDS_BUCKET: &str = "feeds";
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
/// Heartbeats of all history replicas.
pub const ALIVE_HISTORY: &str = "sb.alive.history.*";

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

    /// The chat, if it is one's: `chat` in logs, as everywhere.
    pub fn chat(&self) -> Option<&ChatId> {
        match self {
            LogName::Chat(id) => Some(id),
            LogName::Room(_) => None,
        }
    }

    /// The room, if it is one's: `room` in logs, as everywhere.
    pub fn room(&self) -> Option<&RoomId> {
        match self {
            LogName::Chat(_) => None,
            LogName::Room(id) => Some(id),
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
    bucket_key(ROOMS_BUCKET, room.as_str())
}

/// The room whose record has this subject.
pub fn room_of_record(subject: &str) -> Option<RoomId> {
    RoomId::new(&id_of_key(ROOMS_BUCKET, subject)?).ok()
}

/// The subject of a bucket's key that is an id.
fn bucket_key(bucket: &str, id: &str) -> String {
    format!("$KV.{bucket}.{}", escape(id))
}

/// The id in the subject of a bucket's key.
fn id_of_key(bucket: &str, subject: &str) -> Option<String> {
    unescape(subject.strip_prefix("$KV.")?.strip_prefix(bucket)?.strip_prefix('.')?)
}

/// Where gateways with members of a feed hear of it.
fn feed_out(feed: &str) -> String {
    format!("sb.out.feed.{}", escape(feed))
}

/// Whether a subject is one of this system, or of NATS itself: whoever is asked there is not a source of feeds, but for
/// [`FEED_SOURCES`].
pub fn is_reserved(subject: &str) -> bool {
    subject.starts_with("sb.") || subject.starts_with('$') || subject.starts_with("_INBOX.")
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
    /// Anything → [`crate::inside::LobbyInside`].
    Look,
}

impl MatcherVerb {
    /// Every verb.
    pub const ALL: [MatcherVerb; 5] =
        [MatcherVerb::Table, MatcherVerb::Claim, MatcherVerb::Terminate, MatcherVerb::Status, MatcherVerb::Look];

    /// The endpoint's name below `sb.matcher`.
    pub const fn as_str(self) -> &'static str {
        match self {
            MatcherVerb::Table => "table",
            MatcherVerb::Claim => "claim",
            MatcherVerb::Terminate => "terminate",
            MatcherVerb::Status => "status",
            MatcherVerb::Look => "look",
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
/// The same, of all replicas: the first answer counts.
pub const HISTORY_READ_ALL: &str = "sb.history.read-all";
/// Which logs have grown beyond what somebody has seen: [`crate::log::Seen`] → [`crate::log::Behind`].
pub const HISTORY_BEHIND: &str = "sb.history.behind";

/// A gateway has members of a feed: [`crate::feed::Want`] → [`crate::feed::Wanted`].
pub const HISTORY_FEED: &str = "sb.history.feed";

/// Anything → the lobby's counts, for everybody to see: [`crate::lobby::Status::counts`], and who waits longest.
pub const HISTORY_LOBBY: &str = "sb.history.lobby";
/// Anything → the live gateways with their connections.
pub const HISTORY_GATEWAYS: &str = "sb.history.gateways";
/// Anything → the whole system, for operators.
pub const HISTORY_OPERATOR: &str = "sb.history.operator";
/// The subjects of this system that a feed may ask, see [`is_reserved`]. They change nothing, and their answers are
/// made to be seen by clients, those of the last one by operators alone; others answer with what is said in rooms and
/// chats, or do something.
pub const FEED_SOURCES: [&str; 3] = [HISTORY_LOBBY, HISTORY_GATEWAYS, HISTORY_OPERATOR];

/// The micro-service as which a matcher that stands by is found.
pub const MATCHER_STANDBY: &str = "matcher-standby";
/// What the metadata of a [`MATCHER_STANDBY`] has its name under.
pub const MATCHER_STANDBY_NAME: &str = "matcher";
/// Asks each [`MATCHER_STANDBY`] who it is, as NATS's own tool does.
pub const MATCHER_STANDBY_PING: &str = "$SRV.PING.matcher-standby";

/// What a request to this subject asks for, in a word: what metrics say of it.
pub fn asked_for(subject: &str) -> &'static str {
    if let Some(verb) = subject.strip_prefix("sb.matcher.") {
        return MatcherVerb::ALL.map(MatcherVerb::as_str).into_iter().find(|known| *known == verb).unwrap_or("source");
    }
    match subject {
        HISTORY_READ | HISTORY_READ_ALL => "read",
        HISTORY_BEHIND => "behind",
        HISTORY_FEED => "feed",
        NOBODY => "round_trip",
        _ if subject.starts_with("sb.log.") => "log",
        _ if subject.starts_with("sb.gateway.") => "push",
        // No answer means that somebody is there.
        _ if subject.starts_with("sb.out.") => "probe",
        _ if subject.starts_with("$KV.") => "record",
        _ if subject.starts_with("$JS.") => "stream",
        _ => "source",
    }
}

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

/// Asks each gateway how it is: anything → [`crate::inside::GatewayInside`].
pub const GATEWAYS_LOOK: &str = "sb.gateways.look";

/// What operators ask one of the gateways: who is in the room whose id stands at the end. The answer is a
/// `presence_state`.
pub const GATEWAYS_PRESENCE: &str = "sb.gateways.presence.*";

/// The room in such a request's subject.
pub fn room_of_presence(subject: &str) -> Option<RoomId> {
    let token = subject.strip_prefix(GATEWAYS_PRESENCE.trim_end_matches('*'))?;
    RoomId::new(&unescape(token)?).ok()
}

/// The heartbeat of a gateway: [`crate::lobby::Heartbeat`].
pub fn alive_gateway(gateway: &Incarnation) -> String {
    format!("sb.alive.gateway.{}", escape(gateway.as_str()))
}

/// The heartbeat of a history replica: [`crate::feed::HistoryBeat`].
pub fn alive_history(replica: &Incarnation) -> String {
    format!("sb.alive.history.{}", escape(replica.as_str()))
}

/// Where the processes of a service write, to know whether NATS stores anything: [`crate::lobby::LeaseRecord`].
pub fn carried_subject(service: &str) -> String {
    bucket_key(LEASES_BUCKET, &format!("carried-{service}"))
}

/// Where a gateway's record in KV [`GATEWAYS_BUCKET`] is written.
pub fn gateway_record_subject(gateway: &Incarnation) -> String {
    bucket_key(GATEWAYS_BUCKET, gateway.as_str())
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

/// Reads the last messages of several subjects of a stream at once, from any of the stream's replicas, so that they may
/// be a moment old.
pub fn direct_get_subject(stream: &str) -> String {
    format!("$JS.API.DIRECT.GET.{stream}")
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
    fn who_is_asked_for_is_read() {
        let room = |subject: &str| room_of_presence(subject).map(|room| room.as_str().to_owned());
        assert_eq!(room("sb.gateways.presence.a=2Eb"), Some("a.b".to_owned()));
        assert_eq!(
            ["sb.gateways.presence.a=2", "sb.gateways.presence.", "sb.gateways.disconnect"].map(room),
            [const { None }; 3]
        );
    }

    #[test]
    fn logs_come_back() {
        let log = LogName::Chat(ChatId::new("a.*>é").expect("an id"));
        assert_eq!(log.log_subject(), "sb.log.chat.a=2E=2A=3E=C3=A9");
        assert_eq!(LogName::from_subject(&log.out_subject()), Some(log));
        assert_eq!(LogName::from_subject("sb.out.lobby.status"), None);
    }

    #[test]
    fn what_a_request_asks_for_is_one_of_few_words() {
        let (gateway, chat) = (Incarnation::new(), ChatId::new("a-1").expect("an id"));
        for (subject, word) in [
            (MatcherVerb::Claim.subject(), "claim"),
            (MatcherVerb::Look.subject(), "look"),
            (HISTORY_READ_ALL.to_owned(), "read"),
            (gateway_subject(&gateway), "push"),
            (LogName::Chat(chat.clone()).log_subject(), "log"),
            (LogName::Chat(chat).out_subject(), "probe"),
            (MATCHER_LEASE.to_owned(), "record"),
            (leader_get_subject(ROOMS_STREAM), "stream"),
            (NOBODY.to_owned(), "round_trip"),
            ("weather.get".to_owned(), "source"),
        ] {
            assert_eq!(asked_for(&subject), word, "{subject}");
        }
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
}
