//! Ids: of users, their sessions, chats, rooms and processes. Checked where they are made.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{ID_BYTES_MAX, SESSION_BYTES_MAX};

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

#[cfg(test)]
mod tests {
    use super::*;

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
