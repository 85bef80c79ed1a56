//! `POST /api/v1/push_room_event`: an event for everybody in a room, stored in the room's order.

use std::borrow::Cow;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::time::SystemTime;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use http_body_util::LengthLimitError;
use serde::Deserialize;
use serde_json::value::RawValue;
use switchboard_contract::limits;
use switchboard_contract::log::Entry;
use switchboard_contract::names::{self, RoomId};
use switchboard_contract::reason::Reason;
use switchboard_contract::trace::Span;
use switchboard_contract::wire::{self, V1};
use tokio::sync::Mutex;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::answer::{Away, Problem, Refused, Secured, in_time};
use super::cors::IDEMPOTENCY_KEY;
use super::{Api, TAG};
use crate::frame::Payload;
use crate::hub::TOPIC;
use crate::session::{RESERVED, is_servers};
use crate::{life, observe, payload};

/// An event for a room.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct RoomEvent<'a> {
    /// 1 to 128 bytes without `:`.
    #[schema(value_type = String, example = "physics")]
    room_id: RoomId,
    /// 1 to 255 bytes, and none of the names under which only the server sends: `phx_…`, `presence_…`, `room:state`,
    /// `gap`, `keywords`.
    #[serde(borrow)]
    #[schema(value_type = String, example = "announcement")]
    event: Cow<'a, str>,
    /// An object of at most 32 KiB, as it stands in the request. Members get it with `seq`, `id` and `at` added; its
    /// own `from`, `seq` and `at` are dropped. An `id` of its own, a string of 1 to 128 bytes or an integer, stays.
    #[serde(borrow)]
    #[schema(value_type = Object)]
    payload: &'a RawValue,
}

/// An event that may be stored.
#[derive(Debug)]
struct Checked<'a> {
    room: RoomId,
    event: Cow<'a, str>,
    /// Without reserved keys.
    payload: Box<RawValue>,
    /// The payload's own.
    id: Option<Box<str>>,
}

fn check(body: &[u8]) -> Result<Checked<'_>, Refused> {
    let invalid = |error: serde_json::Error| Refused::invalid(error.to_string());
    let RoomEvent { room_id, event, payload } = serde_json::from_slice(body).map_err(invalid)?;
    if event.is_empty() || event.len() > limits::NAME_BYTES_MAX {
        return Err(Refused::invalid(format!("an event has 1 to {} bytes", limits::NAME_BYTES_MAX)));
    }
    if is_servers(&event) {
        return Err(Refused::invalid(format!("only the server sends {event}")));
    }
    let object = payload::object(Payload::Json(payload))?;
    let id = payload::own_id(&object)?;
    let payload = RawValue::from_string(object.without(&RESERVED).into()).map_err(invalid)?;
    Ok(Checked { room: room_id, event, payload, id })
}

/// The caller's own name for the event, under which it is stored once.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Refused> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    match std::str::from_utf8(key.as_bytes()) {
        Ok(key) if (1..=limits::API_KEY_BYTES_MAX).contains(&key.len()) => Ok(Some(key)),
        Ok(_) => Err(Refused::invalid(format!("Idempotency-Key has 1 to {} bytes", limits::API_KEY_BYTES_MAX))),
        Err(_) => Err(Refused::invalid("Idempotency-Key is no UTF-8")),
    }
}

/// Events of one room are written one after the other: each write expects the one before it, so that side by side all
/// but one of them would be in vain.
#[derive(Debug)]
pub(super) struct Turns([Mutex<()>; limits::API_TURNS]);

impl Turns {
    pub(super) fn new() -> Self {
        Turns(std::array::from_fn(|_| Mutex::new(())))
    }

    fn of(&self, room: &RoomId) -> &Mutex<()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(room);
        // There is at least one, and the remainder fits.
        &self.0[usize::try_from(hash % limits::API_TURNS as u64).unwrap_or(0)]
    }
}

async fn read(body: Body) -> Result<Bytes, Refused> {
    match timeout(limits::API_TIMEOUT, to_bytes(body, limits::API_BODY_BYTES_MAX)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if std::error::Error::source(&error).is_some_and(|cause| cause.is::<LengthLimitError>()) => {
            Err(Reason::PayloadTooLarge.into())
        }
        Ok(Err(_)) => Err(Refused::incomplete("the body broke off")),
        Err(_) => Err(Refused::incomplete("the body did not come in time")),
    }
}

/// Push an event to a room
///
/// The event goes to everybody in the room, on every gateway, at one place of the room's order, with `seq`, `id` and
/// `at` added to the payload, and it is in the room's history. It has no sender, so a quiet room gets it too. It is
/// stored when the answer is there. Where there is no such room nothing is stored, and the answer is the same.
#[utoipa::path(
    post,
    path = "/api/v1/push_room_event",
    tag = TAG,
    params((
        "Idempotency-Key" = Option<String>,
        Header,
        description = "1 to 255 bytes. An event that is sent again with the same key to the same room within 2 minutes \
                       is stored once.",
        example = "order-4711"
    )),
    request_body(
        content = RoomEvent,
        description = "JSON, whatever Content-Type says.",
        example = json!({
            "room_id": "physics",
            "event": "announcement",
            "payload": {"text": "The lab opens at nine."}
        })
    ),
    responses(
        (status = 200, description = "It is stored, or was before, or there is no such room. The body is empty."),
        (status = 408, description = "The request did not come in time.", body = Problem),
        (status = 413, description = "The payload has more than 32 KiB, or the body more than 64.", body = Problem),
        (status = 422, description = "The body is not JSON, or not this; `detail` says what is wrong.", body = Problem),
        Secured,
        Away
    )
)]
pub(super) async fn push_room_event(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Refused> {
    let key = idempotency_key(&headers)?;
    let body = read(body).await?;
    let Checked { room, event, payload, id } = check(&body)?;
    let made = names::random_token(12);
    let entry = wire::encode(&Entry {
        v: V1,
        event: event.as_ref().into(),
        payload: &payload,
        // Nobody in the room: so no rank is too low for a quiet one.
        from: None,
        rank: None,
        id: id.as_deref().unwrap_or(&made).into(),
        at: wire::timestamp(SystemTime::now()).into(),
    });
    let message_id = |since| names::api_message_id(&room, since, key.unwrap_or(&made));
    let lives = in_time(async {
        let _turn = api.turns.of(&room).lock().await;
        Ok(life::add(&api.nats, &room, &entry, message_id).await?)
    });
    let lives = Span::pushed("push_room_event").with(TOPIC, &room).around(lives).await?;
    if lives {
        observe::MESSAGES.increment(1);
    }
    tracing::debug!(%room, %event, lives, "an event of the API");
    Ok(StatusCode::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str) -> (u16, String) {
        let Refused { status, refusal } = check(body.as_bytes()).expect_err(body);
        (status.as_u16(), refusal.detail.unwrap_or_default().into())
    }

    #[test]
    fn an_event_keeps_its_payload_but_for_reserved_keys() {
        let body = r#"{"room_id":"r","event":"x","payload":{"a": 1.50,"from":1,"seq":2,"at":3,"id":7},"more":1}"#;
        let event = check(body.as_bytes()).expect("an event");
        assert_eq!((event.room.as_str(), &*event.event), ("r", "x"));
        assert_eq!(event.payload.get(), r#"{"a":1.50,"id":7}"#);
        assert_eq!(event.id.as_deref(), Some("7"));
        let event = check(br#"{"room_id":"r","event":"\u0078\ny","payload":{ "b":[ ]}}"#).expect("an event");
        assert_eq!((&*event.event, event.payload.get(), event.id), ("x\ny", r#"{ "b":[ ]}"#, None));
    }

    #[test]
    fn bodies_that_are_refused() {
        let with = |room: &str, event: &str, payload: &str| {
            format!(r#"{{"room_id":{room},"event":"{event}","payload":{payload}}}"#)
        };
        for (body, detail) in [
            ("".to_owned(), "EOF"),
            ("room_id=r".to_owned(), "expected value"),
            ("[1]".to_owned(), ""),
            ("{}".to_owned(), "room_id"),
            (r#"{"room_id":"r","event":"x"}"#.to_owned(), "payload"),
            (with("5", "x", "{}"), "string"),
            (with(r#""""#, "x", "{}"), "empty"),
            (with(r#""a:b""#, "x", "{}"), "colon"),
            (with(&format!("\"{}\"", "x".repeat(129)), "x", "{}"), "128"),
            (with(r#""r""#, "", "{}"), "1 to 255"),
            (with(r#""r""#, &"e".repeat(256), "{}"), "1 to 255"),
            (with(r#""r""#, "x", "[]"), "object"),
            (with(r#""r""#, "x", "null"), "object"),
            (with(r#""r""#, "x", r#"{"id":""}"#), "id"),
            (with(r#""r""#, "x", &format!(r#"{{"a":{}}}"#, "[".repeat(65) + &"]".repeat(65))), "deep"),
        ] {
            let (status, said) = refused(&body);
            assert!(status == 422 && said.contains(detail), "{body}: {status} {said}");
        }
        for event in ["phx_reply", "phx_", "presence_diff", "presence_state", "room:state", "gap", "keywords"] {
            let (status, said) = refused(&with(r#""r""#, event, "{}"));
            assert!(status == 422 && said.contains(event), "{event}: {status} {said}");
        }
        assert!(check(with(r#""r""#, "gaps", "{}").as_bytes()).is_ok());
    }

    #[test]
    fn a_payload_counts_as_it_came() {
        let of = |payload: String| format!(r#"{{"room_id":"r","event":"x","payload":{payload}}}"#);
        let text = |length: usize| of(format!(r#"{{"t":"{}"}}"#, "x".repeat(length - 8)));
        assert!(check(text(limits::PAYLOAD_BYTES_MAX).as_bytes()).is_ok());
        assert_eq!(refused(&text(limits::PAYLOAD_BYTES_MAX + 1)).0, 413);
        assert_eq!(refused(&of(format!("{{{}}}", " ".repeat(limits::PAYLOAD_BYTES_MAX)))).0, 413);
    }

    #[test]
    fn keys_have_a_length() {
        let key = |key: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(IDEMPOTENCY_KEY, axum::http::HeaderValue::from_bytes(key).unwrap());
            idempotency_key(&headers).map(|key| key.map(str::to_owned)).map_err(|refused| refused.status.as_u16())
        };
        assert_eq!(idempotency_key(&HeaderMap::new()), Ok(None));
        assert_eq!(key(b"k 1"), Ok(Some("k 1".into())));
        assert_eq!(key("\u{e9}".as_bytes()), Ok(Some("\u{e9}".into())));
        assert_eq!(key(&[b'k'; 255]), Ok(Some("k".repeat(255))));
        assert_eq!((key(b""), key(&[b'k'; 256]), key(b"\xff")), (Err(422), Err(422), Err(422)));
    }
}
