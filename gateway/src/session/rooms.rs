//! What a room's topic takes: the payloads of its join and of its events. Pure.

use bytes::Bytes;
use serde::Deserialize;
use switchboard_contract::limits;
use switchboard_contract::lobby::ChannelId;
use switchboard_contract::names::{IdError, SessionKey, UserId, random_token};
use switchboard_contract::reason::Reason;
use switchboard_contract::room::{Change, Grant, Rank};

use crate::auth::room::RoomJoin as RoomSays;
use crate::auth::token::Token;
use crate::commands::{Recipient, RoomJoin, RoomJoining, RoomPush};
use crate::frame::{Frame, Payload};
use crate::payload::{self, HistoryParams, Message, Refusal};

/// The payload of a join.
#[derive(Debug, Deserialize)]
struct Join {
    #[serde(rename = "userId")]
    user_id: Option<UserId>,
    #[serde(rename = "user_id")]
    user: Option<UserId>,
    rank: Option<Rank>,
    room_token: Option<Token>,
    token: Option<Token>,
    session_id: Option<SessionId>,
    last_seq: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum SessionId {
    Number(i64),
    Text(String),
}

/// What a join asks for. Who it is, is found out next.
pub(super) fn join(payload: Payload<'_>, chan: ChannelId, serial: u32) -> Result<RoomJoining, Refusal> {
    let Join { user_id, user, rank, room_token, token, session_id, last_seq } = payload::read(payload)?;
    let session = match session_id {
        Some(SessionId::Text(text)) => text,
        Some(SessionId::Number(number)) => number.to_string(),
        None => random_token(12),
    };
    let says = RoomSays { user: user_id.or(user), rank, token: room_token.or(token) };
    Ok(RoomJoining { chan, serial, says, session: session.into(), last_seq })
}

/// Who joins, once the user is known.
///
/// # Errors
/// If user and session make no key.
pub(crate) fn joiner(user: UserId, rank: Rank, session: &str) -> Result<RoomJoin, Refusal> {
    let session = SessionKey::new(&user, session).map_err(|error| Refusal::invalid(id_error(error)))?;
    Ok(RoomJoin { user, session, rank })
}

fn id_error(error: IdError) -> String {
    let limit = limits::SESSION_BYTES_MAX;
    format!("userId and session_id must not contain a colon, and session_id has 1 to {limit} bytes: {error}")
}

/// What an event asks for.
pub(super) fn push(frame: &Frame<'_>) -> Result<RoomPush, Refusal> {
    match (frame.event.as_ref(), frame.payload) {
        ("new_msg", payload) => new_msg(payload),
        ("new_message", payload) => {
            let object = payload::object(payload)?;
            if object.get("body").is_none() {
                return Err(Refusal::invalid("missing field `body`"));
            }
            let payload = object.without(&["from", "seq", "at", "user", "timestamp"]);
            Ok(RoomPush::Say(Message { payload, id: payload::own_id(&object)? }))
        }
        ("typing", payload) => Ok(RoomPush::Typing(payload::object(payload)?.without(&RESERVED))),
        ("history", payload) => {
            let params: HistoryParams = payload::read(payload)?;
            params.check().map(RoomPush::History)
        }
        ("room:update", payload) => update(payload),
        ("room:grant", payload) => grant(payload),
        (event, Payload::Binary(_)) if is_servers(event) => {
            Err(Refusal::invalid(format!("only the server sends {event}")))
        }
        (_, Payload::Binary(data)) if data.len() > limits::PAYLOAD_BYTES_MAX => Err(Reason::PayloadTooLarge.into()),
        (event, Payload::Binary(data)) => {
            Ok(RoomPush::Binary { event: event.into(), data: Bytes::copy_from_slice(data) })
        }
        (_, Payload::Json(_)) => Err(Reason::UnmatchedEvent.into()),
    }
}

/// Keys of a payload that are the server's.
pub(crate) const RESERVED: [&str; 3] = ["from", "seq", "at"];

/// Whether the server itself sends under this name.
pub(crate) fn is_servers(event: &str) -> bool {
    event.starts_with("phx_") || event.starts_with("presence_") || matches!(event, "room:state" | "gap" | "keywords")
}

fn new_msg(payload: Payload<'_>) -> Result<RoomPush, Refusal> {
    #[derive(Deserialize)]
    struct Whom {
        #[serde(default)]
        broadcast: bool,
        to: Option<Vec<Named>>,
    }
    #[derive(Deserialize)]
    struct Named {
        session: Option<SessionKey>,
        #[serde(rename = "userId")]
        user_id: Option<UserId>,
        #[serde(rename = "user_id")]
        user: Option<UserId>,
    }
    let whom: Whom = payload::read(payload)?;
    let object = payload::object(payload)?;
    let payload = object.without(&RESERVED);
    match (whom.broadcast, whom.to) {
        (true, None) => Ok(RoomPush::Broadcast(Message { payload, id: payload::own_id(&object)? })),
        (false, Some(named)) if named.len() > limits::DIRECT_RECIPIENTS_MAX => {
            Err(Refusal::invalid(format!("`to` has at most {} entries", limits::DIRECT_RECIPIENTS_MAX)))
        }
        (false, Some(named)) => {
            let recipient = |Named { session, user_id, user }| match (session, user_id.or(user)) {
                (Some(session), _) => Ok(Recipient::Session(session)),
                (None, Some(user)) => Ok(Recipient::User(user)),
                (None, None) => Err(Refusal::invalid("each of `to` has `session` or `userId`")),
            };
            Ok(RoomPush::Direct(named.into_iter().map(recipient).collect::<Result<_, _>>()?, payload))
        }
        (true, Some(_)) | (false, None) => Err(Refusal::invalid("one of `broadcast` and `to` is needed, and not both")),
    }
}

fn update(payload: Payload<'_>) -> Result<RoomPush, Refusal> {
    #[derive(Deserialize)]
    struct Update {
        title: Option<String>,
        quiet: Option<bool>,
        quiet_rank: Option<Rank>,
        for_seconds: Option<u32>,
    }
    let Update { title, quiet, quiet_rank, for_seconds } = payload::read(payload)?;
    if title.is_none() && quiet.is_none() && quiet_rank.is_none() {
        return Err(Refusal::invalid("one of `title`, `quiet` and `quiet_rank` is needed"));
    }
    if title.as_ref().is_some_and(|title| title.len() > limits::TITLE_BYTES_MAX) {
        return Err(Refusal::invalid(format!("a title has at most {} bytes", limits::TITLE_BYTES_MAX)));
    }
    let change = Change { title: title.map(Into::into), quiet, quiet_rank, ..Change::default() };
    timed(change, for_seconds)
}

fn grant(payload: Payload<'_>) -> Result<RoomPush, Refusal> {
    #[derive(Deserialize)]
    struct Granting {
        user_id: UserId,
        rank: Rank,
        for_seconds: Option<u32>,
    }
    let Granting { user_id, rank, for_seconds } = payload::read(payload)?;
    timed(Change { grant: Some(Grant { user_id, rank }), ..Change::default() }, for_seconds)
}

fn timed(change: Change<'static>, for_seconds: Option<u32>) -> Result<RoomPush, Refusal> {
    match for_seconds {
        Some(0) => Err(Refusal::invalid("for_seconds must be at least 1")),
        for_seconds => Ok(RoomPush::Change { change, for_seconds }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::auth::claims::ClaimNames;
    use crate::auth::room::believed;

    fn pushed(event: &str, json: &str) -> Result<RoomPush, Refusal> {
        let raw = RawValue::from_string(json.to_owned()).expect("JSON");
        let frame = Frame {
            join_ref: None,
            reference: None,
            topic: "room:r".into(),
            event: event.into(),
            payload: Payload::Json(&raw),
        };
        push(&frame)
    }

    fn data(event: &str, data: &[u8]) -> Result<RoomPush, Refusal> {
        let payload = Payload::Binary(data);
        push(&Frame { join_ref: None, reference: None, topic: "room:r".into(), event: event.into(), payload })
    }

    fn joined(json: &str, token: Option<&str>) -> Result<(RoomJoin, Option<u64>), Refusal> {
        let raw = RawValue::from_string(json.to_owned()).expect("JSON");
        let joining = join(Payload::Json(&raw), 1, 1)?;
        let token = token.and_then(Token::new);
        let who = believed(token.as_ref(), &joining.says, &ClaimNames::default(), "x");
        joiner(who.user, who.rank, &joining.session).map(|join| (join, joining.last_seq))
    }

    #[test]
    fn reserved_keys_of_a_room_are_dropped_and_the_rest_stays() {
        let json = r#"{"broadcast":true,"from":1,"text":"x","seq":2,"at":3,"id":7}"#;
        let Ok(RoomPush::Broadcast(message)) = pushed("new_msg", json) else { panic!("no broadcast") };
        assert_eq!(&*message.payload, r#"{"broadcast":true,"text":"x","id":7}"#);
        assert_eq!(message.id.as_deref(), Some("7"));
        let Ok(RoomPush::Say(message)) = pushed("new_message", r#"{"body":"x","user":"me","timestamp":1}"#) else {
            panic!("no message")
        };
        assert_eq!(&*message.payload, r#"{"body":"x"}"#, "nobody can say something as another one");
        assert_eq!(pushed("typing", r#"{"from":1}"#), Ok(RoomPush::Typing("{}".into())));
    }

    #[test]
    fn who_gets_a_new_msg_has_to_be_said_and_only_once() {
        for json in [
            r#"{"text":"x"}"#,
            r#"{"broadcast":false}"#,
            r#"{"broadcast":true,"to":[]}"#,
            r#"{"to":[{}]}"#,
            r#"{"to":[{"session":"no-colon"}]}"#,
            r#"{"broadcast":true,"id":""}"#,
        ] {
            assert_eq!(pushed("new_msg", json).expect_err(json).reason, Reason::InvalidPayload, "{json}");
        }
        let Ok(RoomPush::Direct(to, _)) = pushed("new_msg", r#"{"to":[{"userId":5},{"session":"5:s","userId":6}]}"#)
        else {
            panic!("no direct message")
        };
        let five = UserId::from(5);
        let session = SessionKey::new(&five, "s").expect("a key");
        assert_eq!(to, [Recipient::User(five), Recipient::Session(session)]);
    }

    #[test]
    fn changes_of_a_room_have_something_to_change() {
        for (event, json) in [
            ("room:update", "{}"),
            ("room:update", r#"{"quiet":true,"for_seconds":0}"#),
            ("room:update", r#"{"quiet":1}"#),
            ("room:grant", r#"{"user_id":5}"#),
            ("room:grant", r#"{"user_id":5,"rank":"high"}"#),
        ] {
            assert_eq!(pushed(event, json).expect_err(json).reason, Reason::InvalidPayload, "{json}");
        }
        let change = Change { quiet: Some(true), ..Change::default() };
        let quiet = RoomPush::Change { change, for_seconds: Some(5) };
        assert_eq!(pushed("room:update", r#"{"quiet":true,"for_seconds":5}"#), Ok(quiet));
    }

    #[test]
    fn binary_data_has_any_name_but_the_servers() {
        assert_eq!(data("ink", b"x"), Ok(RoomPush::Binary { event: "ink".into(), data: Bytes::from_static(b"x") }));
        for event in ["phx_reply", "presence_diff", "room:state", "gap", "keywords", "new_msg", "typing", "history"] {
            assert_eq!(data(event, b"x").expect_err(event).reason, Reason::InvalidPayload, "{event}");
        }
        let large = vec![0; limits::PAYLOAD_BYTES_MAX + 1];
        assert_eq!(data("ink", &large), Err(Reason::PayloadTooLarge.into()));
        assert_eq!(pushed("ink", "{}"), Err(Reason::UnmatchedEvent.into()));
    }

    #[test]
    fn who_joins_a_room() {
        let who =
            |json: &str, token| joined(json, token).map(|(join, _)| (join.session.as_str().to_owned(), join.rank));
        assert_eq!(who(r#"{"userId":5,"session_id":7,"rank":50}"#, Some("ada")), Ok(("5:7".to_owned(), 50)));
        assert_eq!(who(r#"{"user_id":"b","session_id":"s"}"#, None), Ok(("b:s".to_owned(), 10)));
        assert_eq!(who(r#"{"session_id":"s"}"#, Some("ada")), Ok(("ada:s".to_owned(), 10)));
        let (made, _) = who("{}", None).expect("somebody");
        assert!(made.starts_with("anon-") && made.contains(':'), "{made}");
        for bad in [
            r#"{"session_id":""}"#.to_owned(),
            r#"{"session_id":"a:b"}"#.to_owned(),
            r#"{"userId":"a:b"}"#.to_owned(),
            format!(r#"{{"session_id":"{}"}}"#, "x".repeat(65)),
            r#"{"session_id":1.5}"#.to_owned(),
        ] {
            assert_eq!(joined(&bad, None).expect_err(&bad).reason, Reason::InvalidPayload, "{bad}");
        }
    }
}
