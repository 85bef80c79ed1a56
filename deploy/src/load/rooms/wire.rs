//! What members of a room send and get, as text. Pure.
//!
//! Nearly all of what comes is messages that a judge knows already: their envelope and the few fields that it needs are
//! found in the text, without reading JSON.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde::{Deserialize, Serialize};

use super::judge::{Broken, Event, Said};
use crate::client::Vsn;

/// What members say: as long as people's sentences are, and without anything that could be taken for a field.
pub(super) const WORDS: &str = "Has anybody seen where the second line of the proof comes from?";

/// The payload of any push; what is `None` is not there.
#[derive(Debug, Default, Serialize)]
pub(super) struct Out<'a> {
    /// Who says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) m: Option<u16>,
    /// Which of its messages it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) n: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) broadcast: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<[To<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) body: Option<&'static str>,
    #[serde(rename = "userId", skip_serializing_if = "Option::is_none")]
    pub(super) user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) room_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_seq: Option<u64>,
}

/// A recipient of a direct message.
#[derive(Debug, Serialize)]
pub(super) struct To<'a> {
    pub(super) session: &'a str,
}

/// The reply to a join.
#[derive(Debug, Deserialize)]
pub(super) struct JoinedIn {
    pub(super) last_seq: u64,
    pub(super) recovered: bool,
}

/// `gap`.
#[derive(Debug, Deserialize)]
pub(super) struct GapIn {
    pub(super) from: u64,
    pub(super) to: u64,
}

/// The fields of an `ok` or an `error` that matter.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ReplyIn<'a> {
    pub(super) seq: Option<u64>,
    #[serde(borrow)]
    pub(super) reason: Option<std::borrow::Cow<'a, str>>,
    pub(super) retry_after_ms: Option<u64>,
}

/// How broadcasts of a room begin and end on a socket.
#[derive(Debug)]
pub(super) struct Envelope {
    head: String,
    middle: &'static str,
    tail: &'static str,
}

impl Envelope {
    /// Of a topic that needs no escapes.
    pub(super) fn new(vsn: Vsn, topic: &str) -> Envelope {
        match vsn {
            Vsn::V1 => Envelope {
                head: format!(r#"{{"topic":"{topic}","event":""#),
                middle: r#"","payload":"#,
                tail: r#","ref":null}"#,
            },
            Vsn::V2 => Envelope { head: format!(r#"[null,null,"{topic}",""#), middle: r#"","#, tail: "]" },
        }
    }

    /// Event and payload, if it is a broadcast as the server writes them; else it has to be read.
    pub(super) fn open<'a>(&self, text: &'a str) -> Option<(&'a str, &'a str)> {
        text.strip_prefix(&*self.head)?.strip_suffix(self.tail)?.split_once(self.middle)
    }
}

/// The sequence in a payload, which the server has added at its end; `None`: it has none.
pub(super) fn seq(payload: &str) -> Option<u64> {
    number(payload, payload.rfind(r#""seq":"#)? + 6)
}

fn field(payload: &str, name: &str) -> Option<u64> {
    number(payload, payload.find(name)? + name.len())
}

fn number(payload: &str, at: usize) -> Option<u64> {
    let digits = payload.get(at..)?;
    let end = digits.find(|c: char| !c.is_ascii_digit())?;
    digits[..end].parse().ok()
}

/// What tells payloads apart, never 0.
pub(super) fn digest(event: &str, payload: &str) -> u32 {
    let mut hasher = DefaultHasher::new();
    (event, payload).hash(&mut hasher);
    u32::try_from(hasher.finish() >> 32).unwrap_or(1).max(1)
}

/// The client's own id of a message.
pub(super) fn own_id(by: u16, n: u32) -> String {
    format!("{by}-{n}")
}

/// Which message a payload is, if it is what a member said and no other: `key` gives a member's `<user>:<session>`.
pub(super) fn said<'a>(event: Event, payload: &str, key: impl FnOnce(u16) -> Option<&'a str>) -> Result<Said, Broken> {
    let changed = || Broken::Unexpected(format!("a message was changed on the way: {payload}"));
    let by = field(payload, r#""m":"#).and_then(|m| u16::try_from(m).ok()).ok_or_else(changed)?;
    let n = field(payload, r#""n":"#).and_then(|n| u32::try_from(n).ok()).ok_or_else(changed)?;
    let key = key(by).ok_or_else(changed)?;
    let (words, from) = match event {
        Event::Broadcast => ("text", format!(r#""session":"{key}""#)),
        Event::Say => ("body", format!(r#""user":"{}""#, key.split(':').next().unwrap_or(key))),
    };
    let own = has_id(n).then(|| format!(r#""id":"{}""#, own_id(by, n)));
    let whole = payload.contains(&format!(r#""{words}":"{WORDS}""#))
        && payload.contains(&from)
        && own.map_or_else(|| payload.matches(r#""id":"#).count() == 1, |own| payload.contains(&own));
    if whole { Ok(Said { by, n, event }) } else { Err(changed()) }
}

/// Whether a member gives its `n`th message an id: every other one.
pub(super) fn has_id(n: u32) -> bool {
    n.is_multiple_of(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasts_are_opened_in_both_serializers_and_nothing_else() {
        let payload = r#"{"m":3,"n":12,"broadcast":true,"seq":77,"id":"x","at":"y"}"#;
        let v2 = format!(r#"[null,null,"room:a","new_msg",{payload}]"#);
        let v1 = format!(r#"{{"topic":"room:a","event":"new_msg","payload":{payload},"ref":null}}"#);
        let (one, two) = (Envelope::new(Vsn::V1, "room:a"), Envelope::new(Vsn::V2, "room:a"));
        assert_eq!((one.open(&v1), two.open(&v2)), (Some(("new_msg", payload)), Some(("new_msg", payload))));
        assert_eq!((one.open(&v2), two.open(&v1)), (None, None));
        assert_eq!(two.open(r#"["1",null,"room:a","new_msg",{}]"#), None);
        assert_eq!((seq(payload), seq("{}")), (Some(77), None));
    }

    #[test]
    fn a_message_is_taken_only_as_it_was_said() {
        let of = |payload: &str| super::said(Event::Broadcast, payload, |by| (by == 3).then_some("u3:s3"));
        let said = format!(r#""m":3,"n":12,"id":"3-12","broadcast":true,"text":"{WORDS}""#);
        let whole = format!(r#"{{{said},"from":{{"session":"u3:s3"}},"seq":7,"at":""}}"#);
        assert_eq!(of(&whole), Ok(Said { by: 3, n: 12, event: Event::Broadcast }));
        for (from, to) in [("second", "third"), ("u3:s3", "u4:s4"), ("3-12", "3-14"), ("\"m\":3", "\"m\":4")] {
            assert!(of(&whole.replace(from, to)).is_err(), "{from} became {to}");
        }
        assert_ne!(digest("new_msg", "{}"), digest("new_message", "{}"));
    }
}
