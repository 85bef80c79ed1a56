//! How messages between services are written: JSON with `"v":1`.
//!
//! Unknown fields are ignored, so that a newer service may add some; an unknown `v` is refused and counted,
//! so that an incompatible one is noticed instead of misread.
//!
//! Services of two versions run side by side while a new one is rolled out. So a field that is added has a default, and
//! may be missing from what an older service writes. That goes for records too, and for those that a newer service has
//! written: who changes a record reads it, and writes it as a whole, so an older service drops the fields that it does
//! not know (KV `rooms`, `feeds` and `lobby`). A field that must not be lost so is a new `v`, and a new `v` takes two
//! releases: the first one reads it, the second one writes it.

use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The version field of every message: writes `1`, and refuses to read anything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct V1;

impl Serialize for V1 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(1)
    }
}

impl<'de> Deserialize<'de> for V1 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            1 => Ok(V1),
            other => Err(D::Error::custom(format_args!("unknown message version {other}"))),
        }
    }
}

const REFUSED: &str = "switchboard_messages_refused_total";

/// Why a message from another service was not understood.
#[derive(Debug, thiserror::Error)]
#[error("{kind} not understood: {source}")]
pub struct DecodeError {
    kind: &'static str,
    source: serde_json::Error,
}

/// Writes a message as JSON.
///
/// # Panics
/// Never for the types of this crate: they hold nothing that JSON cannot say.
pub fn encode<T: Serialize>(message: &T) -> Bytes {
    match serde_json::to_vec(message) {
        Ok(json) => json.into(),
        Err(error) => unreachable!("a message of the contract is always JSON: {error}"),
    }
}

/// Reads a message; `kind` names it in the error and in the metric `switchboard_messages_refused_total`.
///
/// # Errors
/// If it is no such message, or one of another version.
pub fn decode<'a, T: Deserialize<'a>>(kind: &'static str, json: &'a [u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(json).map_err(|source| {
        metrics::counter!(REFUSED, "kind" => kind).increment(1);
        DecodeError { kind, source }
    })
}

/// Whether a number is left out, as serde asks.
pub(crate) fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Says what is counted here.
pub(crate) fn describe() {
    metrics::describe_counter!(REFUSED, "Messages and records of other services that were not understood, by kind.");
}

/// The current time as clients see it: RFC 3339, UTC, milliseconds.
pub fn timestamp(now: std::time::SystemTime) -> String {
    use time::macros::format_description;
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    time::OffsetDateTime::from(now).format(&format).unwrap_or_default()
}

/// The time that [`timestamp`] wrote; `None`: it did not.
pub fn time_of(timestamp: &str) -> Option<std::time::SystemTime> {
    use time::format_description::well_known::Rfc3339;
    Some(time::OffsetDateTime::parse(timestamp, &Rfc3339).ok()?.into())
}

#[cfg(test)]
mod versions;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[derive(Debug, Deserialize, Serialize)]
    struct Ping {
        v: V1,
        n: u32,
    }

    #[test]
    fn unknown_fields_are_ignored_and_unknown_versions_refused() {
        let ping: Ping = decode("ping", br#"{"v":1,"n":7,"later":true}"#).expect("a newer field");
        assert_eq!(ping.n, 7);
        let refused = decode::<Ping>("ping", br#"{"v":2,"n":7}"#).expect_err("a newer version");
        assert!(refused.to_string().contains("unknown message version 2"), "{refused}");
        assert_eq!(&encode(&ping)[..], br#"{"v":1,"n":7}"#);
    }

    #[test]
    fn times_have_milliseconds() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_050);
        assert_eq!(timestamp(at), "2023-11-14T22:13:20.050Z");
        assert_eq!(time_of("2023-11-14T22:13:20.050Z"), Some(at));
        assert_eq!(time_of("yesterday"), None);
    }
}
