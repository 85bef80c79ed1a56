//! What is inside a client's payload: checks of size and depth, ids, and the object that becomes a message. Pure.

use serde::Deserialize;
use serde_json::value::RawValue;
use switchboard_contract::limits;
use switchboard_contract::lobby::{Role, TeacherSettings};
use switchboard_contract::names::UserId;
use switchboard_contract::reason::Reason;
use utoipa::IntoParams;

use crate::api::secret::Secret;
use crate::auth::token::Token;
use crate::frame::{Payload, push_json_string};
use crate::object::{self, Object};

/// A number of no more characters is within the range of a double, unless it has an exponent.
const DOUBLE_DIGITS: usize = 308;

/// Why a join or a push was refused, as the `response` of an `error` reply has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// What exactly is wrong, with [`Reason::InvalidPayload`].
    pub detail: Option<Box<str>>,
    /// When to try again, with [`Reason::RateLimited`]. Milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Refusal { reason, detail: None, retry_after_ms: None }
    }
}

impl Refusal {
    /// `invalid_payload`, with what is wrong.
    pub fn invalid(detail: impl Into<Box<str>>) -> Self {
        Refusal { reason: Reason::InvalidPayload, detail: Some(detail.into()), retry_after_ms: None }
    }

    /// `rate_limited`, with when to try again.
    pub fn rate_limited(retry_after_ms: u64) -> Self {
        Refusal { reason: Reason::RateLimited, detail: None, retry_after_ms: Some(retry_after_ms) }
    }

    /// The response, as JSON.
    pub fn to_json(&self) -> String {
        let mut json = String::from("{\"reason\":");
        push_json_string(&mut json, self.reason.as_str());
        if let Some(detail) = &self.detail {
            json.push_str(",\"detail\":");
            push_json_string(&mut json, detail);
        }
        if let Some(ms) = self.retry_after_ms {
            json.push_str(&format!(",\"retry_after_ms\":{ms}"));
        }
        json.push('}');
        json
    }
}

/// The JSON of a payload, within the limits of size and depth, that every parser takes.
///
/// # Errors
/// A binary payload, or one that is too large, too deep, or what some parsers refuse.
pub fn checked(payload: Payload<'_>) -> Result<&str, Refusal> {
    let Payload::Json(raw) = payload else {
        return Err(Refusal::invalid("this event takes no binary payload"));
    };
    let json = raw.get();
    if json.len() > limits::PAYLOAD_BYTES_MAX {
        return Err(Reason::PayloadTooLarge.into());
    }
    sound(json).map_err(Refusal::invalid)?;
    Ok(json)
}

/// Whether every parser takes this JSON, which is valid. Most refuse what nests too deep, and many a number beyond the
/// range of a double, or half of a surrogate pair: whoever is sent such a thing would lose what it came in.
///
/// # Errors
/// What is wrong, in words for the client.
fn sound(json: &str) -> Result<(), &'static str> {
    let (bytes, mut at, mut depth) = (json.as_bytes(), 0, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string(bytes, at + 1)?,
            b'-' | b'0'..=b'9' => {
                let rest = &json[at..];
                let length = rest.bytes().take_while(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
                let number = &rest[..length.count()];
                let large = number.len() > DOUBLE_DIGITS || number.bytes().any(|b| matches!(b, b'e' | b'E'));
                if large && !number.parse().is_ok_and(f64::is_finite) {
                    return Err("a number is out of range");
                }
                at += number.len();
                continue;
            }
            b'[' | b'{' => {
                depth += 1;
                if depth > limits::JSON_DEPTH_MAX {
                    return Err("nested too deep");
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// Where a string ends that begins here.
fn string(bytes: &[u8], mut at: usize) -> Result<usize, &'static str> {
    while let Some(byte) = bytes.get(at).filter(|byte| **byte != b'"') {
        at += match (byte, bytes.get(at + 1)) {
            (b'\\', Some(b'u')) => match (unit(bytes, at), unit(bytes, at + 6)) {
                (Some(0xD800..0xDC00), Some(0xDC00..0xE000)) => 12,
                (Some(0xD800..0xE000), _) => return Err("half of a surrogate pair"),
                _ => 6,
            },
            (b'\\', _) => 2,
            _ => 1,
        };
    }
    Ok(at)
}

/// The UTF-16 code unit that is escaped here.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Reads a payload as `T`.
///
/// # Errors
/// See [`checked`]; and `invalid_payload` with what serde says.
pub fn read<'a, T: Deserialize<'a>>(payload: Payload<'a>) -> Result<T, Refusal> {
    let json = checked(payload)?;
    if !json.starts_with('{') {
        return Err(Refusal::invalid("the payload must be an object"));
    }
    serde_json::from_str(json).map_err(|error| Refusal::invalid(error.to_string()))
}

/// The payload of a join in the lobby, or of a chat.
#[derive(Debug, Deserialize)]
pub struct JoinUser {
    /// Who joins.
    #[serde(rename = "userId")]
    pub user_id: UserId,
    /// As what.
    pub role: Option<Role>,
    /// A teacher's: chats at once.
    #[serde(flatten)]
    pub settings: TeacherSettings,
    /// In a chat: the last sequence that the client has.
    pub last_seq: Option<u64>,
}

/// The payload of a join of a feed.
#[derive(Debug, Deserialize)]
pub struct FeedJoin {
    /// The secret of the HTTP API, or what is taken for it.
    pub secret: Option<Secret>,
}

/// Checks a capacity that a teacher names against the server's limit.
///
/// # Errors
/// `invalid_payload`.
pub fn check_capacity(settings: TeacherSettings, capacity_max: u32) -> Result<TeacherSettings, Refusal> {
    match settings.capacity {
        Some(n) if n == 0 || n > capacity_max => Err(Refusal::invalid(format!("capacity must be 1 to {capacity_max}"))),
        _ => Ok(settings),
    }
}

/// The payload of an event in which a user may name itself.
#[derive(Debug, Deserialize)]
pub struct Named {
    /// The user of `student:ready`.
    #[serde(rename = "userId")]
    pub user_id: Option<UserId>,
    /// The teacher of `claim:student`.
    #[serde(rename = "teacherId")]
    pub teacher_id: Option<UserId>,
}

/// The payload of `access_token`.
#[derive(Debug, Deserialize)]
pub struct AccessToken {
    /// The token that takes the place of the one before it.
    pub token: Token,
}

/// The payload of `history`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HistoryParams {
    /// Only older ones: those before this sequence number.
    pub before: Option<u64>,
    /// Only newer ones: those behind this sequence number.
    pub after: Option<u64>,
    /// At most so many, 1 to 100.
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<usize>,
}

impl HistoryParams {
    /// Checks the limit.
    ///
    /// # Errors
    /// `invalid_payload`.
    pub fn check(self) -> Result<Self, Refusal> {
        match self.limit {
            Some(n) if n == 0 || n > limits::LOG_MESSAGES_MAX => {
                Err(Refusal::invalid(format!("limit must be 1 to {}", limits::LOG_MESSAGES_MAX)))
            }
            _ => Ok(self),
        }
    }
}

/// A chat message, ready to be logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The payload without reserved keys: a JSON object.
    pub payload: Box<str>,
    /// The client's own id.
    pub id: Option<Box<str>>,
}

impl Message {
    /// The payload, to be put into an entry of a log.
    pub fn raw(&self) -> &RawValue {
        match serde_json::from_str(&self.payload) {
            Ok(payload) => payload,
            Err(error) => unreachable!("a checked payload is JSON: {error}"),
        }
    }
}

/// Reads the payload of `teacher:send` or `student:send`: an object with `message`, passed on as it is but for
/// `seq`, which is the server's, and with `id` checked.
///
/// # Errors
/// See [`checked`]; and `invalid_payload` if `message` is missing or `id` is none.
pub fn message(payload: Payload<'_>) -> Result<Message, Refusal> {
    let object = object(payload)?;
    if object.get("message").is_none() {
        return Err(Refusal::invalid("missing field `message`"));
    }
    Ok(Message { payload: object.without(&["seq"]), id: own_id(&object)? })
}

/// Reads a payload as an object.
///
/// # Errors
/// See [`checked`]; and `invalid_payload` if it is none.
pub(crate) fn object(payload: Payload<'_>) -> Result<Object<'_>, Refusal> {
    Object::read(checked(payload)?).map_err(|error| Refusal::invalid(error.to_string()))
}

/// The client's own id of a message.
///
/// # Errors
/// `invalid_payload`, if it is no id.
pub(crate) fn own_id(object: &Object<'_>) -> Result<Option<Box<str>>, Refusal> {
    object.get("id").map(message_id).transpose()
}

fn message_id(raw: &RawValue) -> Result<Box<str>, Refusal> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Id {
        Text(String),
        Number(i64),
    }
    let id = match serde_json::from_str(raw.get()) {
        Ok(Id::Text(text)) => text,
        Ok(Id::Number(number)) => number.to_string(),
        Err(_) => return Err(Refusal::invalid("id must be a string or an integer")),
    };
    if id.is_empty() || id.len() > limits::MESSAGE_ID_BYTES_MAX {
        return Err(Refusal::invalid(format!("id must have 1 to {} bytes", limits::MESSAGE_ID_BYTES_MAX)));
    }
    Ok(id.into())
}

/// A message's payload with `seq` added, as receivers see it.
pub fn with_seq(payload: &str, seq: u64) -> String {
    object::with(payload, &format!("\"seq\":{seq}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).expect("JSON")
    }

    fn parse(json: &str) -> Result<Message, Refusal> {
        message(Payload::Json(&raw(json)))
    }

    #[test]
    fn a_message_is_passed_on_to_the_letter() {
        let json = r#"{ "message": "hi", "from":"x","n":1.50 }"#;
        assert_eq!(parse(json), Ok(Message { payload: json.into(), id: None }));
        assert_eq!(with_seq(json, 7), r#"{ "message": "hi", "from":"x","n":1.50 ,"seq":7}"#);
        assert!(serde_json::from_str::<serde_json::Value>(&with_seq(json, 7)).is_ok());
    }

    #[test]
    fn reserved_keys() {
        let got = parse(r#"{"seq":1,"message":"hi","id":"k","s\u0065q":2}"#).expect("a message");
        assert_eq!(got, Message { payload: r#"{"message":"hi","id":"k"}"#.into(), id: Some("k".into()) });
        assert_eq!(parse(r#"{"message":1,"id":7}"#).expect("a message").id.as_deref(), Some("7"));
    }

    #[test]
    fn what_is_no_message() {
        for json in
            ["{}", "[]", "1", "null", r#"{"text":"x"}"#, r#"{"message":1,"id":null}"#, r#"{"message":1,"id":""}"#]
        {
            assert_eq!(parse(json).expect_err(json).reason, Reason::InvalidPayload, "{json}");
        }
        let long = format!(r#"{{"message":"{}"}}"#, "x".repeat(33 * 1024));
        assert_eq!(parse(&long), Err(Reason::PayloadTooLarge.into()));
        assert_eq!(message(Payload::Binary(b"x")).expect_err("binary").reason, Reason::InvalidPayload);
    }

    #[test]
    fn depth_is_counted_outside_strings() {
        let deep = |n: usize| format!(r#"{{"message":{}{}}}"#, "[".repeat(n - 1), "]".repeat(n - 1));
        assert!(parse(&deep(64)).is_ok());
        assert_eq!(parse(&deep(65)), Err(Refusal::invalid("nested too deep")));
        let brackets = "[{".repeat(100);
        assert!(parse(&format!(r#"{{"message":"{brackets}\"{brackets}","b":[[]]}}"#)).is_ok());
        assert!(parse(&format!(r#"{{"message":[{}]}}"#, "[],".repeat(100) + "[]")).is_ok(), "beside each other");
    }

    #[test]
    fn what_strict_parsers_refuse_is_passed_on_to_nobody() {
        for (json, wrong) in [
            ("1e308", None),
            ("-1.5E-999", None),
            ("[1e309]", Some("a number is out of range")),
            ("-1E+999", Some("a number is out of range")),
            (&*"9".repeat(308), None),
            (&*"9".repeat(310), Some("a number is out of range")),
            (r#""1e999""#, None),
            (r#""\ud83d\ude00""#, None),
            (r#""\\ud83d""#, None),
            (r#""\u00e9\"""#, None),
            (r#""\ud83d""#, Some("half of a surrogate pair")),
            (r#""\ud83d\u0041""#, Some("half of a surrogate pair")),
            (r#""\ude00\ud83d""#, Some("half of a surrogate pair")),
            (r#"{"a\uDFFF":1}"#, Some("half of a surrogate pair")),
        ] {
            let strict = serde_json::from_str::<serde_json::Value>(json);
            assert_eq!(strict.is_ok(), wrong.is_none(), "{json}: {strict:?}");
            let sent = parse(&format!(r#"{{"message":{json}}}"#));
            assert_eq!(sent.err(), wrong.map(Refusal::invalid), "{json}");
        }
    }

    #[test]
    fn capacity_has_bounds() {
        let check = |capacity| check_capacity(TeacherSettings { capacity, ..TeacherSettings::default() }, 5);
        assert!(check(Some(0)).is_err());
        assert!(check(Some(6)).is_err());
        assert!(check(Some(5)).is_ok());
        assert!(check(None).is_ok());
    }

    #[test]
    fn refusals_as_json() {
        assert_eq!(Refusal::from(Reason::NotFound).to_json(), r#"{"reason":"not_found"}"#);
        assert_eq!(Refusal::rate_limited(50).to_json(), r#"{"reason":"rate_limited","retry_after_ms":50}"#);
        assert_eq!(Refusal::invalid("a \"b\"").to_json(), r#"{"reason":"invalid_payload","detail":"a \"b\""}"#);
    }
}
