//! The two serializers of Phoenix Channels, V1 (JSON objects) and V2 (JSON arrays and binary). Pure.
//!
//! Decoding borrows from the frame; encoding makes text that every subscriber of the same serializer can share.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use switchboard_contract::limits;

/// Which serializer a socket speaks: its `vsn` parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vsn {
    /// JSON objects.
    V1,
    /// JSON arrays, and binary.
    V2,
}

impl Vsn {
    /// Reads the `vsn` parameter; `None` for a version that is not spoken.
    pub fn parse(vsn: Option<&str>) -> Option<Vsn> {
        match vsn.map(|v| v.split_once('.').map_or(v, |(major, _)| major)) {
            None | Some("1") => Some(Vsn::V1),
            Some("2") => Some(Vsn::V2),
            Some(_) => None,
        }
    }
}

/// A `ref` or `join_ref`: a string or an integer, kept as the JSON text in which it came, so that it goes back the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ref(Box<str>);

impl Ref {
    fn from_json(raw: Option<&RawValue>) -> Result<Option<Ref>, Malformed> {
        let Some(raw) = raw else { return Ok(None) };
        let json = raw.get();
        if json.len() > limits::REF_BYTES_MAX {
            return Err(Malformed("a ref is too long"));
        }
        let integer = || json.bytes().enumerate().all(|(i, b)| b.is_ascii_digit() || (i == 0 && b == b'-'));
        if json.starts_with('"') || integer() {
            Ok(Some(Ref(json.into())))
        } else {
            Err(Malformed("a ref must be a string, an integer or null"))
        }
    }

    fn from_bytes(bytes: &[u8]) -> Result<Option<Ref>, Malformed> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Malformed("a ref is not UTF-8"))?;
        let mut json = String::with_capacity(text.len() + 2);
        push_json_string(&mut json, text);
        Ok(Some(Ref(json.into())))
    }

    /// Whether both are the same ref. In binary frames all are strings, also those that text frames have as integers.
    pub fn is_same(&self, other: &Ref) -> bool {
        self == other || self.to_bytes() == other.to_bytes()
    }

    /// The ref as JSON.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// The ref as it stands in a binary frame: a string without its quotes.
    fn to_bytes(&self) -> Vec<u8> {
        match serde_json::from_str::<String>(&self.0) {
            Ok(text) => text.into_bytes(),
            Err(_) => self.0.as_bytes().to_vec(),
        }
    }
}

/// What a client sent.
#[derive(Debug, PartialEq)]
pub struct Frame<'a> {
    /// Of the join that this belongs to, if the client says so.
    pub join_ref: Option<Ref>,
    /// For the reply.
    pub reference: Option<Ref>,
    /// The topic.
    pub topic: Cow<'a, str>,
    /// The event.
    pub event: Cow<'a, str>,
    /// The payload.
    pub payload: Payload<'a>,
}

/// A client's payload, still as it came.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// JSON text.
    Json(&'a RawValue),
    /// The data of a V2 binary frame.
    Binary(&'a [u8]),
}

impl PartialEq for Payload<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Payload::Json(a), Payload::Json(b)) => a.get() == b.get(),
            (Payload::Binary(a), Payload::Binary(b)) => a == b,
            (Payload::Json(_), Payload::Binary(_)) | (Payload::Binary(_), Payload::Json(_)) => false,
        }
    }
}

/// A frame that is none of Phoenix's: the socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(&'static str);

#[derive(Deserialize)]
struct V1<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(borrow, default, rename = "ref")]
    reference: Option<&'a RawValue>,
    #[serde(borrow, default)]
    join_ref: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct V2<'a>(
    #[serde(borrow)] Option<&'a RawValue>,
    #[serde(borrow)] Option<&'a RawValue>,
    #[serde(borrow)] Cow<'a, str>,
    #[serde(borrow)] Cow<'a, str>,
    #[serde(borrow)] &'a RawValue,
);

/// Reads a text frame.
///
/// # Errors
/// If it is no frame of that serializer: close 1007.
pub fn decode_text(vsn: Vsn, text: &str) -> Result<Frame<'_>, Malformed> {
    // Serde would read an array as the fields of V1's object, and the other way round.
    let first = text.trim_start().as_bytes().first().copied();
    let (join_ref, reference, topic, event, payload) = match (vsn, first) {
        (Vsn::V1, Some(b'{')) => {
            let v1: V1<'_> = serde_json::from_str(text).map_err(|_| Malformed("not an object of V1"))?;
            (v1.join_ref, v1.reference, v1.topic, v1.event, v1.payload)
        }
        (Vsn::V2, Some(b'[')) => {
            let v2: V2<'_> = serde_json::from_str(text).map_err(|_| Malformed("not an array of V2"))?;
            (v2.0, v2.1, v2.2, v2.3, v2.4)
        }
        (Vsn::V1, _) => return Err(Malformed("V1 speaks JSON objects")),
        (Vsn::V2, _) => return Err(Malformed("V2 speaks JSON arrays")),
    };
    Ok(Frame {
        join_ref: Ref::from_json(join_ref)?,
        reference: Ref::from_json(reference)?,
        topic,
        event,
        payload: Payload::Json(payload),
    })
}

/// Reads a binary frame: `0, join_ref_size, ref_size, topic_size, event_size, join_ref, ref, topic, event, data`.
///
/// # Errors
/// If it is truncated, of another kind, or not V2: close 1003.
pub fn decode_binary(vsn: Vsn, bytes: &[u8]) -> Result<Frame<'_>, Malformed> {
    if vsn == Vsn::V1 {
        return Err(Malformed("V1 has no binary frames"));
    }
    let [0, join_ref_size, ref_size, topic_size, event_size, rest @ ..] = bytes else {
        return Err(Malformed("not a binary push"));
    };
    let mut rest = rest;
    let mut take = |size: u8| {
        let (head, tail) = rest.split_at_checked(usize::from(size)).ok_or(Malformed("truncated"))?;
        rest = tail;
        Ok::<_, Malformed>(head)
    };
    let (join_ref, reference) = (take(*join_ref_size)?, take(*ref_size)?);
    let (topic, event) = (take(*topic_size)?, take(*event_size)?);
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Malformed("a name is not UTF-8"));
    Ok(Frame {
        join_ref: Ref::from_bytes(join_ref)?,
        reference: Ref::from_bytes(reference)?,
        topic: text(topic)?.into(),
        event: text(event)?.into(),
        payload: Payload::Binary(rest),
    })
}

/// Writes a text frame; `payload` is JSON.
pub fn encode_text(
    vsn: Vsn,
    join_ref: Option<&Ref>,
    reference: Option<&Ref>,
    topic: &str,
    event: &str,
    payload: &str,
) -> String {
    let json = |r: Option<&Ref>| r.map_or("null", Ref::as_json).to_owned();
    let mut text = String::with_capacity(64 + topic.len() + event.len() + payload.len());
    match vsn {
        Vsn::V1 => {
            text.push_str("{\"topic\":");
            push_json_string(&mut text, topic);
            text.push_str(",\"event\":");
            push_json_string(&mut text, event);
            text.push_str(",\"payload\":");
            text.push_str(payload);
            text.push_str(",\"ref\":");
            text.push_str(&json(reference));
            text.push('}');
        }
        Vsn::V2 => {
            text.push('[');
            text.push_str(&json(join_ref));
            text.push(',');
            text.push_str(&json(reference));
            text.push(',');
            push_json_string(&mut text, topic);
            text.push(',');
            push_json_string(&mut text, event);
            text.push(',');
            text.push_str(payload);
            text.push(']');
        }
    }
    text
}

/// Writes the text frame of a reply; `response` is JSON.
pub fn encode_reply(
    vsn: Vsn,
    join_ref: Option<&Ref>,
    reference: Option<&Ref>,
    topic: &str,
    ok: bool,
    response: &str,
) -> String {
    let status = if ok { "ok" } else { "error" };
    let payload = format!("{{\"status\":\"{status}\",\"response\":{response}}}");
    encode_text(vsn, join_ref, reference, topic, "phx_reply", &payload)
}

/// A binary frame to a client, V2 only.
#[derive(Clone, Copy, Debug)]
pub enum Binary<'a> {
    /// To one socket: `0, join_ref_size, topic_size, event_size, join_ref, topic, event, data`.
    Push(Option<&'a Ref>),
    /// A reply: `1, join_ref_size, ref_size, topic_size, status_size, join_ref, ref, topic, status, data`.
    Reply(Option<&'a Ref>, Option<&'a Ref>),
    /// To all: `2, topic_size, event_size, topic, event, data`.
    Broadcast,
}

/// Writes a binary frame; `event` is the status of a reply. `None` if a part is longer than 255 bytes.
pub fn encode_binary(kind: Binary<'_>, topic: &str, event: &str, data: &[u8]) -> Option<Vec<u8>> {
    let bytes = |r: Option<&Ref>| r.map(Ref::to_bytes).unwrap_or_default();
    let (tag, refs) = match kind {
        Binary::Push(join_ref) => (0, vec![bytes(join_ref)]),
        Binary::Reply(join_ref, reference) => (1, vec![bytes(join_ref), bytes(reference)]),
        Binary::Broadcast => (2, vec![]),
    };
    let parts = || refs.iter().map(Vec::as_slice).chain([topic.as_bytes(), event.as_bytes()]);
    let mut frame = vec![tag];
    for part in parts() {
        frame.push(u8::try_from(part.len()).ok()?);
    }
    frame.extend(parts().flatten());
    frame.extend_from_slice(data);
    Some(frame)
}

/// Appends a text as a JSON string.
pub fn push_json_string(json: &mut String, text: &str) {
    let plain = text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\');
    if plain {
        json.push('"');
        json.push_str(text);
        json.push('"');
    } else if let Ok(quoted) = serde_json::to_string(text) {
        json.push_str(&quoted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reference(json: &str) -> Option<Ref> {
        Some(Ref(json.into()))
    }

    #[test]
    fn versions() {
        for (vsn, expected) in [
            (None, Some(Vsn::V1)),
            (Some("1.0.0"), Some(Vsn::V1)),
            (Some("1"), Some(Vsn::V1)),
            (Some("2.0.0"), Some(Vsn::V2)),
            (Some("3.0.0"), None),
            (Some(""), None),
            (Some("20.0"), None),
        ] {
            assert_eq!(Vsn::parse(vsn), expected, "{vsn:?}");
        }
    }

    #[test]
    fn a_client_of_2015_joins() {
        let text =
            r#"{"topic":"presence:student:5","event":"phx_join","payload":{"userId":5,"role":"student"},"ref":"1"}"#;
        let frame = decode_text(Vsn::V1, text).expect("a frame");
        assert_eq!((frame.topic.as_ref(), frame.event.as_ref()), ("presence:student:5", "phx_join"));
        assert_eq!((&frame.join_ref, &frame.reference), (&None, &reference("\"1\"")));
        assert_eq!(
            encode_reply(Vsn::V1, None, frame.reference.as_ref(), &frame.topic, true, "{}"),
            r#"{"topic":"presence:student:5","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"1"}"#
        );
    }

    #[test]
    fn phoenix_js_joins() {
        let text = r#"["3","3","chats:ab-1","phx_join",{"userId":"u","role":"student"}]"#;
        let frame = decode_text(Vsn::V2, text).expect("a frame");
        assert_eq!(frame.topic, "chats:ab-1");
        assert_eq!(
            encode_reply(
                Vsn::V2,
                frame.join_ref.as_ref(),
                frame.reference.as_ref(),
                &frame.topic,
                false,
                r#"{"reason":"not_found"}"#
            ),
            r#"["3","3","chats:ab-1","phx_reply",{"status":"error","response":{"reason":"not_found"}}]"#
        );
    }

    #[test]
    fn refs_are_echoed_as_they_came() {
        for json in ["\"7\"", "7", "-1", "null", "\"a\\n\\u00e9\""] {
            let text = format!(r#"[{json},{json},"t","e",{{}}]"#);
            let frame = decode_text(Vsn::V2, &text).expect("a frame");
            assert_eq!(
                encode_text(Vsn::V2, frame.join_ref.as_ref(), frame.reference.as_ref(), "t", "e", "{}"),
                text,
                "{json}"
            );
        }
    }

    #[test]
    fn malformed_text() {
        let long = format!(r#"[null,"{}","t","e",{{}}]"#, "r".repeat(300));
        for (vsn, text) in [
            (Vsn::V2, ""),
            (Vsn::V2, "{"),
            (Vsn::V2, "[]"),
            (Vsn::V2, r#"[null,null,"t","e"]"#),
            (Vsn::V2, r#"[null,null,"t","e",{},1]"#),
            (Vsn::V2, r#"[null,1.5,"t","e",{}]"#),
            (Vsn::V2, r#"[null,true,"t","e",{}]"#),
            (Vsn::V2, r#"[null,{},"t","e",{}]"#),
            (Vsn::V2, r#"[null,null,1,"e",{}]"#),
            (Vsn::V2, r#"[null,null,"t","e",{}] x"#),
            (Vsn::V2, r#"{"topic":"t","event":"e","payload":{},"ref":"1"}"#),
            (Vsn::V2, &long),
            (Vsn::V1, r#"[null,null,"t","e",{}]"#),
            (Vsn::V1, r#"["t","e",{},null,null]"#),
            (Vsn::V1, r#"{"topic":"t","event":"e","ref":"1"}"#),
            (Vsn::V1, r#"{"topic":null,"event":"e","payload":{},"ref":"1"}"#),
            (Vsn::V1, "null"),
        ] {
            assert!(decode_text(vsn, text).is_err(), "{vsn:?} {text}");
        }
    }

    #[test]
    fn deep_nesting_does_not_overflow_the_stack() {
        let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
        assert!(decode_text(Vsn::V2, &format!(r#"[null,null,"t","e",{deep}]"#)).is_ok());
        assert!(decode_text(Vsn::V2, &deep).is_err());
        let v1 = format!(r#"{{"x":{deep},"topic":"t","event":"e","payload":{{}},"ref":null}}"#);
        assert!(decode_text(Vsn::V1, &v1).is_ok());
    }

    #[test]
    fn binary_push_of_phoenix_js() {
        // From phoenix.js's own serializer tests: join_ref 0, ref 1, topic t, event e, data 01.
        let bytes = b"\x00\x01\x01\x01\x0101te\x01";
        let frame = decode_binary(Vsn::V2, bytes).expect("a frame");
        assert_eq!((frame.join_ref, frame.reference), (reference("\"0\""), reference("\"1\"")));
        assert_eq!((frame.topic.as_ref(), frame.event.as_ref()), ("t", "e"));
        assert_eq!(frame.payload, Payload::Binary(&[1]));
    }

    #[test]
    fn binary_frames_to_clients() {
        let (join_ref, other) = (reference("\"123\""), reference("456"));
        // Vectors of phoenix.js: push, reply, broadcast.
        assert_eq!(
            encode_binary(Binary::Push(join_ref.as_ref()), "top", "some-event", &[1, 1]).as_deref(),
            Some(&b"\x00\x03\x03\x0a123topsome-event\x01\x01"[..])
        );
        assert_eq!(
            encode_binary(Binary::Reply(join_ref.as_ref(), other.as_ref()), "top", "ok", &[1, 1]).as_deref(),
            Some(&b"\x01\x03\x03\x03\x02123456topok\x01\x01"[..])
        );
        assert_eq!(
            encode_binary(Binary::Broadcast, "top", "some-event", &[1, 1]).as_deref(),
            Some(&b"\x02\x03\x0atopsome-event\x01\x01"[..])
        );
        assert_eq!(encode_binary(Binary::Broadcast, &"t".repeat(256), "e", &[]), None);
    }

    #[test]
    fn malformed_binary() {
        for bytes in [
            &b""[..],
            b"\x00",
            b"\x00\x01\x01\x01",
            b"\x00\x01\x01\x01\x0101t",
            b"\x01\x00\x00\x01\x01te",
            b"\x00\x00\x00\x01\x01\xffe",
        ] {
            assert!(decode_binary(Vsn::V2, bytes).is_err(), "{bytes:?}");
        }
        assert!(decode_binary(Vsn::V1, b"\x00\x01\x01\x01\x0101te\x01").is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), first in 0u8..3) {
            let mut bytes = bytes;
            if let Some(b) = bytes.first_mut() { *b = first; }
            let _ = decode_binary(Vsn::V2, &bytes);
        }

        #[test]
        fn mutated_text_never_panics(cut in 0usize..60, insert in ".{0,4}") {
            for (vsn, text) in [
                (Vsn::V2, r#"["1","2","chats:é","teacher:send",{"message":"\u00e9"}]"#),
                (Vsn::V1, r#"{"topic":"t","event":"e","payload":{},"ref":"1"}"#),
            ] {
                let at = (0..=cut.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap();
                let _ = decode_text(vsn, &format!("{}{insert}{}", &text[..at], &text[at..]));
                let _ = decode_text(vsn, &text[..at]);
            }
        }

        #[test]
        fn what_is_written_is_read(topic in ".{0,20}", event in ".{0,20}", data in proptest::collection::vec(any::<u8>(), 0..40)) {
            let payload = serde_json::to_string(&data).unwrap();
            for vsn in [Vsn::V1, Vsn::V2] {
                let text = encode_text(vsn, None, reference("\"9\"").as_ref(), &topic, &event, &payload);
                let frame = decode_text(vsn, &text).unwrap();
                prop_assert_eq!((frame.topic.as_ref(), frame.event.as_ref()), (topic.as_str(), event.as_str()));
                prop_assert_eq!(frame.reference, reference("\"9\""));
            }
        }
    }
}
