//! What sockets send: frames of which each part is plausible or not, and bytes that are nothing in particular.

use proptest::prelude::*;
use serde_json::json;
use switchboard::client::Vsn;

use crate::raw::masked;

/// One thing that a socket sends.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A frame with a ref of its own, and everything in its place.
    Good { join_ref: Option<String>, topic: String, event: String, payload: String, binary: bool },
    /// A text message that is perhaps a frame.
    Text(String),
    /// A message of these bytes, with this opcode.
    Message(u8, Vec<u8>),
    /// Bytes behind the upgrade.
    Bytes(Vec<u8>),
}

/// The ref of the step with this number.
pub(super) fn reference(at: usize) -> String {
    format!("step-{at}")
}

impl Step {
    /// What goes over the wire.
    pub(super) fn bytes(&self, vsn: Vsn, at: usize) -> Vec<u8> {
        match self {
            Step::Good { join_ref, topic, event, payload, binary } => {
                let own = reference(at);
                let fits = [topic, event].iter().all(|part| part.len() < 256);
                if *binary && fits && vsn == Vsn::V2 {
                    let parts = [join_ref.as_deref().unwrap_or_default(), &own, topic, event];
                    let mut frame = vec![0];
                    frame.extend(parts.map(|part| u8::try_from(part.len()).expect("a short part")));
                    frame.extend(parts.concat().bytes());
                    frame.extend(payload.bytes());
                    return masked(0x82, &frame);
                }
                let (join_ref, own, topic, event) = (json!(join_ref), json!(own), json!(topic), json!(event));
                let text = match vsn {
                    Vsn::V1 => format!(
                        r#"{{"topic":{topic},"event":{event},"payload":{payload},"ref":{own},"join_ref":{join_ref}}}"#
                    ),
                    Vsn::V2 => format!("[{join_ref},{own},{topic},{event},{payload}]"),
                };
                masked(0x81, text.as_bytes())
            }
            Step::Text(text) => masked(0x81, text.as_bytes()),
            Step::Message(first, bytes) => masked(*first, bytes),
            Step::Bytes(bytes) => bytes.clone(),
        }
    }

    /// Nothing is wrong with it: nobody is closed for it.
    pub(super) fn is_good(&self) -> bool {
        matches!(self, Step::Good { .. })
    }

    /// It may be a close frame.
    pub(super) fn may_close(&self) -> bool {
        match self {
            Step::Good { .. } | Step::Text(_) => false,
            Step::Message(first, _) => first & 0x0f == 8,
            Step::Bytes(_) => true,
        }
    }
}

/// The steps that are answered in any case. Stale ones are not, and what a later join of the topic replaces.
pub(super) fn answered(steps: &[Step]) -> impl Iterator<Item = usize> + '_ {
    let joins = |topic: &str, from: usize| {
        steps[from..].iter().any(|step| match step {
            Step::Good { topic: joined, event, .. } => event == "phx_join" && joined == topic,
            // It may be a join of anything.
            Step::Text(_) | Step::Message(..) | Step::Bytes(_) => true,
        })
    };
    steps.iter().enumerate().filter_map(move |(at, step)| match step {
        Step::Good { event, .. } if event == "phx_join" && at + 1 == steps.len() => Some(at),
        Step::Good { join_ref: Some(_), topic, event, .. } if event != "phx_join" && joins(topic, 0) => None,
        Step::Good { topic, .. } => (!joins(topic, at + 1)).then_some(at),
        Step::Text(_) | Step::Message(..) | Step::Bytes(_) => None,
    })
}

fn topic() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "phoenix",
        "presence:teachers",
        "presence:student:1",
        "presence:student:a.*",
        "chats:none",
        "room:f",
        "room:g\u{e9}",
        "feed:lobby",
        "feed:none:x",
        "room:",
        "",
    ]);
    prop_oneof![12 => known.prop_map(str::to_owned), 1 => ".{0,40}", 1 => "(room|chats|feed|presence):\\PC{1,200}"]
}

fn event() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "phx_leave",
        "phx_close",
        "phx_reply",
        "phx_error",
        "heartbeat",
        "access_token",
        "claim:student",
        "teacher:update",
        "student:ready",
        "student:joined",
        "teacher:send",
        "student:send",
        "chat:terminate",
        "history",
        "new_msg",
        "new_message",
        "typing",
        "room:update",
        "room:grant",
        "ink",
        "presence_diff",
    ]);
    prop_oneof![8 => Just("phx_join".to_owned()), 12 => known.prop_map(str::to_owned), 1 => ".{0,300}"]
}

const USUAL: &[&str] =
    &["null", "true", "false", "0", "10", "100", "\"1\"", "\"a.*\"", "\"teacher\"", "\"student\"", "{}", "[]"];
const UNUSUAL: &[&str] =
    &["-0", "1e400", "1180591620717411303424", "18446744073709551615", "-1", "1.5", r#""\ud800""#, r#""\u0000""#];

/// Any JSON, as text.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => prop::sample::select(USUAL).prop_map(str::to_owned),
        1 => prop::sample::select(UNUSUAL).prop_map(str::to_owned),
        1 => ".{0,40}".prop_map(|text| json!(text).to_string()),
        1 => any::<i64>().prop_map(|n| n.to_string()),
        1 => (1..80_usize).prop_map(|deep| format!("{}{}", "[".repeat(deep), "]".repeat(deep))),
        1 => (0..40_000_usize).prop_map(|long| format!("\"{}\"", "x".repeat(long))),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let members = prop::collection::vec((key(), inner.clone()), 0..4).prop_map(|members| object(&members));
        prop_oneof![members, prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(",")))]
    })
}

fn key() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "userId",
        "user_id",
        "role",
        "rank",
        "capacity",
        "auto",
        "away",
        "session_id",
        "last_seq",
        "teacherId",
        "message",
        "id",
        "seq",
        "from",
        "at",
        "broadcast",
        "to",
        "text",
        "body",
        "session",
        "before",
        "after",
        "limit",
        "title",
        "quiet",
        "quiet_rank",
        "for_seconds",
        "token",
        "room_token",
        "__proto__",
    ]);
    prop_oneof![8 => known.prop_map(str::to_owned), 1 => ".{0,10}"]
}

fn object(members: &[(String, String)]) -> String {
    let members: Vec<String> = members.iter().map(|(key, value)| format!("{}:{value}", json!(key))).collect();
    format!("{{{}}}", members.join(","))
}

fn payload() -> impl Strategy<Value = String> {
    let usual = prop::sample::select(vec![
        "{}",
        r#"{"userId":1,"role":"teacher"}"#,
        r#"{"userId":1,"role":"student"}"#,
        r#"{"userId":"a.*","role":"student"}"#,
        r#"{"userId":"eve","session_id":"s","rank":100}"#,
        r#"{"broadcast":true,"text":"x"}"#,
        r#"{"to":[{"userId":"eve"}]}"#,
        r#"{"body":"x","id":"same"}"#,
        r#"{"message":1}"#,
        r#"{"limit":3}"#,
        r#"{"quiet":true}"#,
        r#"{"user_id":"eve","rank":0}"#,
    ]);
    let members = prop::collection::vec((key(), value()), 0..6).prop_map(|members| object(&members));
    prop_oneof![4 => usual.prop_map(str::to_owned), 3 => members, 1 => value()]
}

fn good() -> impl Strategy<Value = Step> {
    let join_ref = prop_oneof![4 => Just(None), 1 => Just(Some("1".to_owned())), 1 => "\\PC{0,20}".prop_map(Some)];
    (join_ref, topic(), event(), payload(), prop::bool::weighted(0.1))
        .prop_map(|(join_ref, topic, event, payload, binary)| Step::Good { join_ref, topic, event, payload, binary })
}

/// Arrays of parts of which some are in the wrong place, and objects of V1 likewise.
fn odd() -> impl Strategy<Value = Step> {
    let part = prop_oneof![
        topic().prop_map(|text| json!(text).to_string()),
        event().prop_map(|text| json!(text).to_string()),
        payload(),
        value(),
    ];
    let array = prop::collection::vec(part.clone(), 0..8).prop_map(|parts| format!("[{}]", parts.join(",")));
    let names = prop::sample::select(vec!["topic", "event", "payload", "ref", "join_ref", "x"]).prop_map(str::to_owned);
    let v1 = prop::collection::vec((names, part), 0..7).prop_map(|members| object(&members));
    prop_oneof![array, v1, ".{0,60}"].prop_map(Step::Text)
}

/// Frames, most of them good.
pub(super) fn frames() -> impl Strategy<Value = Step> {
    prop_oneof![40 => good(), 1 => odd()]
}

/// Anything at all.
pub(super) fn anything() -> impl Strategy<Value = Step> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..200);
    prop_oneof![
        2 => good(),
        2 => odd(),
        2 => bytes().prop_map(Step::Bytes),
        2 => (any::<u8>(), bytes()).prop_map(|(first, bytes)| Step::Message(first, bytes)),
        1 => bytes().prop_map(|bytes| Step::Message(0x82, bytes)),
        1 => (any::<[u8; 4]>(), bytes()).prop_map(|(sizes, parts)| {
            let sizes = sizes.map(|size| size % 32);
            Step::Message(0x82, [&[0], &sizes[..], &parts].concat())
        }),
    ]
}
