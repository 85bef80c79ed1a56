//! What is inside a client's payload: checks of size and depth, ids, and the object that becomes a message. Pure.

use serde::Deserialize;
use serde_json::value::RawValue;
use switchboard_contract::limits;
use switchboard_contract::lobby::{Role, TeacherSettings};
use switchboard_contract::names::UserId;
use switchboard_contract::reason::Reason;
use utoipa::IntoParams;

use crate::auth::token::Token;
use crate::frame::{Payload, push_json_string};
use crate::object::{self, Object};

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

/// The JSON of a payload, within the limits of size and depth.
///
/// # Errors
/// A binary payload, or one that is too large or too deep.
pub fn checked(payload: Payload<'_>) -> Result<&str, Refusal> {
    let Payload::Json(raw) = payload else {
        return Err(Refusal::invalid("this event takes no binary payload"));
    };
    let json = raw.get();
    if json.len() > limits::PAYLOAD_BYTES_MAX {
        return Err(Reason::PayloadTooLarge.into());
    }
    if depth(json) > limits::JSON_DEPTH_MAX {
        return Err(Refusal::invalid("nested too deep"));
    }
    Ok(json)
}

/// How deep valid JSON nests.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0usize, false, false);
    for byte in json.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
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
        assert_eq!(depth(r#"{"a":[1,{"b":"[[[[\"{{{"}]}"#), 3);
        let deep = |n: usize| format!(r#"{{"message":{}{}}}"#, "[".repeat(n - 1), "]".repeat(n - 1));
        assert!(parse(&deep(64)).is_ok());
        assert_eq!(parse(&deep(65)), Err(Refusal::invalid("nested too deep")));
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
