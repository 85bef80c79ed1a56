//! Both serializers of Phoenix, from the client's side. Pure.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// Which serializer a socket speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vsn {
    /// JSON objects.
    V1,
    /// JSON arrays, and binary frames.
    V2,
}

impl Vsn {
    /// The value of the `vsn` parameter.
    pub const fn as_str(self) -> &'static str {
        match self {
            Vsn::V1 => "1.0.0",
            Vsn::V2 => "2.0.0",
        }
    }
}

impl std::str::FromStr for Vsn {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "1" | "1.0.0" => Ok(Vsn::V1),
            "2" | "2.0.0" => Ok(Vsn::V2),
            _ => Err("the serializers are 1 and 2"),
        }
    }
}

/// What a client sends. Refs are numbers here and strings on the wire, as phoenix.js has them.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a, P> {
    /// The ref of the join that the topic's channel began with.
    pub join_ref: Option<u64>,
    /// What the reply will carry.
    pub reference: Option<u64>,
    /// Where to.
    pub topic: &'a str,
    /// What.
    pub event: &'a str,
    /// With what: anything that is JSON.
    pub payload: P,
}

/// A frame from the server, borrowed from the message it came in.
#[derive(Debug)]
pub struct Frame<'a> {
    /// Null in broadcasts, and never there in V1.
    pub join_ref: Option<Cow<'a, str>>,
    /// Of a reply: the ref of the push.
    pub reference: Option<Cow<'a, str>>,
    /// Where.
    pub topic: Cow<'a, str>,
    /// What; `phx_reply` for replies.
    pub event: Cow<'a, str>,
    /// With what.
    pub payload: Payload<'a>,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// JSON as it came.
    Json(&'a RawValue),
    /// The bytes of a binary push or broadcast.
    Binary(&'a [u8]),
    /// The bytes of a binary reply, with its status.
    BinaryReply {
        /// `ok` or `error`.
        status: &'a str,
        /// The response.
        data: &'a [u8],
    },
}

impl<'a> Payload<'a> {
    /// The payload's JSON text.
    pub fn json(&self) -> Option<&'a str> {
        match self {
            Payload::Json(raw) => Some(raw.get()),
            Payload::Binary(_) | Payload::BinaryReply { .. } => None,
        }
    }
}

/// Why a message from the server is no frame.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the JSON of this serializer.
    #[error("no frame of this serializer: {0}")]
    Json(#[from] serde_json::Error),
    /// Not the binary form of V2.
    #[error("no binary frame: {0}")]
    Binary(&'static str),
}

/// A string or an integer on the wire, a text here.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an integer")
            }
            fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
            fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(n.to_string())))
            }
            fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(n.to_string())))
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

/// A ref that is written as a string without being made one first.
struct Ref(u64);

impl Serialize for Ref {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// V1 both ways; the server sends exactly the four fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ObjectIn<'a> {
    #[serde(borrow)]
    topic: Text<'a>,
    #[serde(borrow)]
    event: Text<'a>,
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(borrow, rename = "ref", deserialize_with = "present")]
    reference: Option<Text<'a>>,
}

/// An `Option` that may be null but not missing.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Text<'a>>, D::Error> {
    Option::deserialize(deserializer)
}

#[derive(Serialize)]
struct ObjectOut<'a, P> {
    topic: &'a str,
    event: &'a str,
    payload: &'a P,
    #[serde(rename = "ref")]
    reference: Option<Ref>,
    #[serde(skip_serializing_if = "Option::is_none")]
    join_ref: Option<Ref>,
}

type ArrayIn<'a> = (Option<Text<'a>>, Option<Text<'a>>, Text<'a>, Text<'a>, &'a RawValue);

/// Writes a frame as the text of one message.
///
/// # Errors
/// If the payload is not JSON.
pub(super) fn encode<P: Serialize>(vsn: Vsn, push: &Outgoing<'_, P>) -> Result<String, serde_json::Error> {
    let (reference, join_ref) = (push.reference.map(Ref), push.join_ref.map(Ref));
    let Outgoing { topic, event, payload, .. } = push;
    match vsn {
        Vsn::V1 => serde_json::to_string(&ObjectOut { topic, event, payload, reference, join_ref }),
        Vsn::V2 => serde_json::to_string(&(join_ref, reference, topic, event, payload)),
    }
}

/// Writes a push with binary data as V2 has it.
///
/// # Errors
/// If a name is longer than its one-byte size can say.
pub(super) fn encode_binary(push: &Outgoing<'_, &[u8]>) -> Result<Vec<u8>, DecodeError> {
    let text = |number: Option<u64>| number.map(|n| n.to_string()).unwrap_or_default();
    let parts = [&text(push.join_ref), &text(push.reference), push.topic, push.event];
    let mut bytes = vec![0];
    for part in parts {
        bytes.push(u8::try_from(part.len()).map_err(|_| DecodeError::Binary("a name is longer than 255 bytes"))?);
    }
    parts.iter().for_each(|part| bytes.extend_from_slice(part.as_bytes()));
    bytes.extend_from_slice(push.payload);
    Ok(bytes)
}

/// Reads a text message.
pub(super) fn decode(vsn: Vsn, text: &str) -> Result<Frame<'_>, DecodeError> {
    match vsn {
        Vsn::V1 => {
            let ObjectIn { topic, event, payload, reference } = serde_json::from_str(text)?;
            Ok(Frame {
                join_ref: None,
                reference: reference.map(|r| r.0),
                topic: topic.0,
                event: event.0,
                payload: Payload::Json(payload),
            })
        }
        Vsn::V2 => {
            let (join_ref, reference, topic, event, payload): ArrayIn<'_> = serde_json::from_str(text)?;
            Ok(Frame {
                join_ref: join_ref.map(|r| r.0),
                reference: reference.map(|r| r.0),
                topic: topic.0,
                event: event.0,
                payload: Payload::Json(payload),
            })
        }
    }
}

/// Reads a binary message: a server's push, a reply or a broadcast.
pub(super) fn decode_binary(bytes: &[u8]) -> Result<Frame<'_>, DecodeError> {
    let (kind, rest) = bytes.split_first().ok_or(DecodeError::Binary("empty"))?;
    match kind {
        0 => {
            let ([join_ref, topic, event], data) = texts(rest)?;
            let payload = Payload::Binary(data);
            Ok(Frame { join_ref: some(join_ref), reference: None, topic: topic.into(), event: event.into(), payload })
        }
        1 => {
            let ([join_ref, reference, topic, status], data) = texts(rest)?;
            Ok(Frame {
                join_ref: some(join_ref),
                reference: some(reference),
                topic: topic.into(),
                event: "phx_reply".into(),
                payload: Payload::BinaryReply { status, data },
            })
        }
        2 => {
            let ([topic, event], data) = texts(rest)?;
            let payload = Payload::Binary(data);
            Ok(Frame { join_ref: None, reference: None, topic: topic.into(), event: event.into(), payload })
        }
        _ => Err(DecodeError::Binary("an unknown kind")),
    }
}

fn some(text: &str) -> Option<Cow<'_, str>> {
    (!text.is_empty()).then_some(Cow::Borrowed(text))
}

/// `N` sizes, then as many texts, then the data.
fn texts<const N: usize>(bytes: &[u8]) -> Result<([&str; N], &[u8]), DecodeError> {
    let (sizes, mut rest) = bytes.split_at_checked(N).ok_or(DecodeError::Binary("truncated"))?;
    let mut texts = [""; N];
    for (text, size) in texts.iter_mut().zip(sizes) {
        let (part, tail) = rest.split_at_checked(usize::from(*size)).ok_or(DecodeError::Binary("truncated"))?;
        *text = std::str::from_utf8(part).map_err(|_| DecodeError::Binary("a name that is not UTF-8"))?;
        rest = tail;
    }
    Ok((texts, rest))
}

/// A reply's payload, borrowed.
#[derive(Deserialize)]
pub(crate) struct ReplyIn<'a> {
    #[serde(borrow)]
    status: Text<'a>,
    #[serde(borrow)]
    response: &'a RawValue,
}

impl<'a> ReplyIn<'a> {
    /// Reads it: `Ok` with the response of an `ok`, `Err` with the response of an `error`.
    ///
    /// # Errors
    /// If the payload is none of the two.
    pub(crate) fn read(payload: &'a str) -> Result<Result<&'a str, &'a str>, serde_json::Error> {
        let reply: ReplyIn<'a> = serde_json::from_str(payload)?;
        match &*reply.status.0 {
            "ok" => Ok(Ok(reply.response.get())),
            "error" => Ok(Err(reply.response.get())),
            other => Err(serde_json::Error::custom(format_args!("a reply's status {other:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join<'a>() -> Outgoing<'a, serde_json::Value> {
        Outgoing {
            join_ref: Some(3),
            reference: Some(3),
            topic: "chats:a\"b",
            event: "phx_join",
            payload: serde_json::json!({}),
        }
    }

    #[test]
    fn frames_are_written_literally() {
        assert_eq!(encode(Vsn::V2, &join()).unwrap(), r#"["3","3","chats:a\"b","phx_join",{}]"#);
        assert_eq!(
            encode(Vsn::V1, &join()).unwrap(),
            r#"{"topic":"chats:a\"b","event":"phx_join","payload":{},"ref":"3","join_ref":"3"}"#
        );
        let heartbeat = Outgoing { join_ref: None, topic: "phoenix", event: "heartbeat", ..join() };
        assert_eq!(encode(Vsn::V2, &heartbeat).unwrap(), r#"[null,"3","phoenix","heartbeat",{}]"#);
        assert_eq!(
            encode(Vsn::V1, &heartbeat).unwrap(),
            r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"3"}"#
        );
        let binary = Outgoing { join_ref: Some(1), reference: Some(12), topic: "t", event: "e", payload: &b"\xff"[..] };
        assert_eq!(encode_binary(&binary).unwrap(), b"\x00\x01\x02\x01\x01112te\xff");
    }

    #[test]
    fn frames_are_read_literally() {
        let frame = decode(Vsn::V2, r#"[null,7,"room:\u00e4","new_msg",{"a": 1}]"#).unwrap();
        assert_eq!((frame.join_ref.as_deref(), frame.reference.as_deref()), (None, Some("7")));
        assert_eq!((&*frame.topic, &*frame.event, frame.payload.json()), ("room:ä", "new_msg", Some(r#"{"a": 1}"#)));
        let frame =
            decode(Vsn::V1, r#"{"topic":"t","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"1"}"#)
                .unwrap();
        assert_eq!(frame.reference.as_deref(), Some("1"));
        assert_eq!(ReplyIn::read(frame.payload.json().unwrap()).unwrap(), Ok("{}"));
        assert!(matches!(frame.topic, Cow::Borrowed("t")));
    }

    #[test]
    fn binary_frames_are_read_literally() {
        let push = decode_binary(b"\x00\x01\x01\x031tnew\x01\x02").unwrap();
        assert_eq!((push.join_ref.as_deref(), &*push.topic, &*push.event), (Some("1"), "t", "new"));
        assert!(matches!(push.payload, Payload::Binary(b"\x01\x02")));
        let reply = decode_binary(b"\x01\x01\x02\x01\x02112tokdata").unwrap();
        assert_eq!((reply.reference.as_deref(), &*reply.event), (Some("12"), "phx_reply"));
        assert!(matches!(reply.payload, Payload::BinaryReply { status: "ok", data: b"data" }));
        let broadcast = decode_binary(b"\x02\x01\x01te").unwrap();
        assert_eq!((broadcast.join_ref, &*broadcast.topic, &*broadcast.event), (None, "t", "e"));
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        for text in ["", "{}", "[1,2]", r#"[null,null,"t","e",{},1]"#, r#"[null,null,5.5,"e",{}]"#] {
            assert!(decode(Vsn::V2, text).is_err(), "{text}");
        }
        for text in
            [r#"{"topic":"t","event":"e","payload":{}}"#, r#"{"topic":"t","event":"e","payload":{},"ref":null,"x":1}"#]
        {
            assert!(decode(Vsn::V1, text).is_err(), "{text}");
        }
        for bytes in [&b""[..], b"\x03", b"\x02\x01", b"\x02\x05\x01te", b"\x02\x01\x01\xffe"] {
            assert!(decode_binary(bytes).is_err(), "{bytes:?}");
        }
        assert!(ReplyIn::read(r#"{"status":"late","response":{}}"#).is_err());
    }
}
