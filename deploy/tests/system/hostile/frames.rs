//! Frames of every wrong kind, and those that look wrong and are right: each is answered, or closes its socket with the
//! code that the protocol has for it.

use futures_util::StreamExt as _;
use serde_json::Value;
use switchboard::client::Vsn;

use crate::harness::System;
use crate::raw::{Raw, masked};

/// What becomes of a socket that sends something.
#[derive(Clone, Debug, PartialEq)]
enum Becomes {
    /// It is closed with this code.
    Closed(u16),
    /// It is answered: the JSON of the reply's ref, and the reason; `None` for an `ok`.
    Answered(String, Option<String>),
}

struct Case {
    vsn: Vsn,
    bytes: Vec<u8>,
    expected: Becomes,
}

/// Sends each on a socket of its own, and looks what becomes of it.
pub(super) async fn of_every_wrong_kind(system: &System) {
    let cases: Vec<Case> = texts().into_iter().chain(binaries()).chain(below_messages()).collect();
    let checked =
        futures_util::stream::iter(cases.into_iter().enumerate()).for_each_concurrent(16, async |(n, case)| {
            let shown = String::from_utf8_lossy(&case.bytes[..case.bytes.len().min(120)]).into_owned();
            let mut raw = Raw::upgraded(&system.gateway(n % 2), case.vsn).await;
            raw.send(&case.bytes).await;
            let became = match case.expected {
                Becomes::Closed(_) => Becomes::Closed(raw.closed().await.unwrap_or(u16::MAX)),
                Becomes::Answered(..) => answered(&mut raw, case.vsn, &shown).await,
            };
            assert_eq!(became, case.expected, "{:?} {shown}", case.vsn);
        });
    checked.await;
}

/// The first reply; a heartbeat behind it is answered too.
async fn answered(raw: &mut Raw, vsn: Vsn, shown: &str) -> Becomes {
    let beat = match vsn {
        Vsn::V1 => r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"beat"}"#,
        Vsn::V2 => r#"[null,"beat","phoenix","heartbeat",{}]"#,
    };
    raw.text(beat).await;
    let mut replies = Vec::new();
    while replies.len() < 2 {
        let (first, data) = raw.next().await.unwrap_or_else(|| panic!("closed behind {shown}"));
        assert_ne!(first, 0x88, "closed with {data:?} behind {shown}");
        if first != 0x81 {
            continue;
        }
        let frame: Value = serde_json::from_slice(&data).expect("JSON");
        let (reference, event, payload) = match vsn {
            Vsn::V1 => (&frame["ref"], &frame["event"], &frame["payload"]),
            Vsn::V2 => (&frame[1], &frame[3], &frame[4]),
        };
        if event == "phx_reply" {
            let reason = payload["response"]["reason"].as_str().map(str::to_owned);
            replies.push(Becomes::Answered(reference.to_string(), reason));
        }
    }
    assert!(replies.contains(&Becomes::Answered("\"beat\"".into(), None)), "{replies:?} behind {shown}");
    replies.swap_remove(0)
}

fn text(vsn: Vsn, text: &str, expected: Becomes) -> Case {
    Case { vsn, bytes: masked(0x81, text.as_bytes()), expected }
}

fn is(reference: &str, reason: Option<&str>) -> Becomes {
    Becomes::Answered(reference.to_owned(), reason.map(str::to_owned))
}

/// Text messages: shapes, types in each place, refs, events out of turn.
fn texts() -> Vec<Case> {
    let mut cases = Vec::new();
    for malformed in [
        "",
        " ",
        "[",
        "[]",
        "null",
        "1",
        "\"x\"",
        "[null]",
        r#"[null,"1","t","e"]"#,
        r#"[null,"1","t","e",{},1]"#,
        r#"[null,"1","t","e",{}],"#,
        r#"[null,"1","t","e",{},]"#,
        r#"[null,"1","t","e",{}]x"#,
        "\u{feff}[null,\"1\",\"t\",\"e\",{}]",
        r#"[[],"1","t","e",{}]"#,
        r#"[{},"1","t","e",{}]"#,
        r#"[1.5,"1","t","e",{}]"#,
        r#"[true,"1","t","e",{}]"#,
        r#"[null,[],"t","e",{}]"#,
        r#"[null,{},"t","e",{}]"#,
        r#"[null,1.0,"t","e",{}]"#,
        r#"[null,1e3,"t","e",{}]"#,
        r#"[null,false,"t","e",{}]"#,
        r#"[null,01,"t","e",{}]"#,
        r#"[null,"1",null,"e",{}]"#,
        r#"[null,"1",1,"e",{}]"#,
        r#"[null,"1",["t"],"e",{}]"#,
        r#"[null,"1","t",null,{}]"#,
        r#"[null,"1","t",1,{}]"#,
        r#"[null,"1","t",{},{}]"#,
        r#"[null,"1","t","e",nonsense]"#,
        r#"[null,"1","t","e",{"a":}]"#,
        r#"[null,"1","t","e",NaN]"#,
        r#"[null,"1","t\ud800","e",{}]"#,
        r#"[null,"1","t","\udc00",{}]"#,
        "[null,\"1\",\"t\n\",\"e\",{}]",
        r#"{"topic":"t","event":"e","payload":{},"ref":"1"}"#,
        &format!(r#"[null,"{}","t","e",{{}}]"#, "r".repeat(254)),
        &format!(r#"[null,{},"t","e",{{}}]"#, "9".repeat(256)),
        &"[".repeat(10_000),
    ] {
        cases.push(text(Vsn::V2, malformed, Becomes::Closed(1007)));
    }
    for malformed in [
        "{}",
        "[]",
        r#"[null,"1","t","e",{}]"#,
        r#"["t","e",{},"1"]"#,
        r#"{"topic":"t","event":"e","payload":{},"ref":{}}"#,
        r#"{"topic":"t","event":"e","payload":{},"ref":1.5}"#,
        r#"{"topic":"t","event":"e","ref":"1"}"#,
        r#"{"topic":"t","payload":{},"ref":"1"}"#,
        r#"{"event":"e","payload":{},"ref":"1"}"#,
        r#"{"topic":null,"event":"e","payload":{},"ref":"1"}"#,
        r#"{"topic":"t","topic":"t","event":"e","payload":{},"ref":"1"}"#,
    ] {
        cases.push(text(Vsn::V1, malformed, Becomes::Closed(1007)));
    }
    for reference in
        ["null", "1", "-1", "-0", "\"\"", "\"a\\u0000\"", &"9".repeat(255), &format!("\"{}\"", "r".repeat(253))]
    {
        let frame = format!(r#"[null,{reference},"phoenix","heartbeat",{{}}]"#);
        let shown = serde_json::from_str::<Value>(reference).expect("JSON").to_string();
        cases.push(text(Vsn::V2, &frame, is(&shown, None)));
    }
    let unmatched = Some("unmatched topic");
    for (topic, event, reason) in [
        ("phoenix", "heartbeat", None),
        ("phoenix", "phx_join", unmatched),
        ("phoenix", "nonsense", unmatched),
        ("room:x", "heartbeat", unmatched),
        ("room:x", "nonsense", unmatched),
        ("room:x", "phx_reply", unmatched),
        ("room:x", "phx_error", unmatched),
        ("room:x", "phx_close", unmatched),
        ("room:x", "phx_leave", None),
        ("presence:teachers", "claim:student", unmatched),
        ("", "", unmatched),
        ("", "phx_join", unmatched),
        ("room:x", "", unmatched),
    ] {
        for payload in ["{}", "null", "0", "\"\"", "[]", "true"] {
            let frame = format!(r#" [ null , "1" , "{topic}" , "{event}" , {payload} ] "#);
            cases.push(text(Vsn::V2, &frame, is("\"1\"", reason)));
            let frame = format!(r#"{{"ref":"1","x":[1],"payload":{payload},"event":"{event}","topic":"{topic}"}}"#);
            cases.push(text(Vsn::V1, &frame, is("\"1\"", reason)));
        }
    }
    for payload in ["null", "0", "\"\"", "[]", "true", "[{\"userId\":1}]"] {
        for topic in ["room:x", "presence:teachers", "presence:student:x", "chats:x", "feed:lobby"] {
            let frame = format!(r#"["1","1","{topic}","phx_join",{payload}]"#);
            cases.push(text(Vsn::V2, &frame, is("\"1\"", Some("invalid_payload"))));
        }
    }
    let long = "x".repeat(256);
    for (topic, event) in [(&*long, "e"), ("t", &*long), (&*long, "phx_join"), ("phoenix", &*long)] {
        let frame = format!(r#"[null,"1","{topic}","{event}",{{}}]"#);
        cases.push(text(Vsn::V2, &frame, is("\"1\"", Some("invalid_payload"))));
    }
    cases
}

/// Binary messages.
fn binaries() -> Vec<Case> {
    let mut cases = Vec::new();
    for malformed in [
        &b""[..],
        b"\x00",
        b"\x00\x00\x00\x00",
        b"\x00\x00\x00\x01\x01t",
        b"\x00\xff\xff\xff\xffx",
        b"\x00\x00\x00\x01\x01\xffe",
        b"\x00\x00\x01\x01\x01\xffte",
        b"\x01\x00\x00\x01\x01te",
        b"\x02\x01\x01te",
        b"\x03\x00\x00\x00\x00",
        b"\xff\xfe\xfd\xfc",
        b"[null,\"1\",\"t\",\"e\",{}]",
    ] {
        let bytes = masked(0x82, malformed);
        cases.push(Case { vsn: Vsn::V2, bytes: bytes.clone(), expected: Becomes::Closed(1003) });
        cases.push(Case { vsn: Vsn::V1, bytes, expected: Becomes::Closed(1003) });
    }
    let beat = b"\x00\x00\x01\x07\x091phoenixheartbeat";
    cases.push(Case { vsn: Vsn::V2, bytes: masked(0x82, beat), expected: is("\"1\"", None) });
    cases.push(Case { vsn: Vsn::V1, bytes: masked(0x82, beat), expected: Becomes::Closed(1003) });
    let join = b"\x00\x01\x01\x06\x0811room:xphx_join{}";
    cases.push(Case { vsn: Vsn::V2, bytes: masked(0x82, join), expected: is("\"1\"", Some("invalid_payload")) });
    cases
}

/// A message in so many fragments.
fn fragments(message: &[u8], count: usize, between: &[u8]) -> Vec<u8> {
    let mut bytes = masked(0x01, &[]);
    for n in 0..count {
        let part = &message[message.len() * n / count..message.len() * (n + 1) / count];
        bytes.extend(masked(0x00, part));
        bytes.extend(between);
    }
    bytes.extend(masked(0x80, &[]));
    bytes
}

/// What RFC 6455 says of frames.
fn below_messages() -> Vec<Case> {
    let beat = r#"[null,"1","phoenix","heartbeat",{}]"#.as_bytes();
    let mut cases = Vec::new();
    let mut case = |bytes: Vec<u8>, expected| cases.push(Case { vsn: Vsn::V2, bytes, expected });
    let announced = |length: u64| [&[0x81, 0xff][..], &length.to_be_bytes(), b"mask[]"].concat();
    // Not UTF-8, in one frame and in a later fragment.
    case(masked(0x81, b"[null,\"1\",\"\xc3\x28\",\"e\",{}]"), Becomes::Closed(1007));
    case(masked(0x81, b"[null,\"1\",\"\xed\xa0\x80\",\"e\",{}]"), Becomes::Closed(1007));
    case([masked(0x01, b"["), masked(0x80, b"\xff]")].concat(), Becomes::Closed(1007));
    // Reserved bits, one of which would say that it is compressed, and reserved opcodes.
    for first in [0xc1, 0xa1, 0x91, 0xc9, 0x83, 0x87, 0x8b, 0x8f, 0x03] {
        case(masked(first, b"[]"), Becomes::Closed(1002));
    }
    case(b"\x81\x02[]".to_vec(), Becomes::Closed(1002));
    // Control frames in fragments, and too long ones.
    for first in [0x09, 0x0a, 0x08] {
        case(masked(first, b""), Becomes::Closed(1002));
    }
    for first in [0x89, 0x8a, 0x88] {
        case(masked(first, &[b'x'; 126]), Becomes::Closed(1002));
    }
    // Continuations of nothing, and a message within a message.
    case(masked(0x80, beat), Becomes::Closed(1002));
    case(masked(0x00, beat), Becomes::Closed(1002));
    case([masked(0x01, b"["), masked(0x81, beat)].concat(), Becomes::Closed(1002));
    case([masked(0x01, b"["), masked(0x82, beat)].concat(), Becomes::Closed(1002));
    // Sizes.
    let sized = |bytes: usize| format!("[null,\"1\",\"t\",\"e\",\"{}\"]", "x".repeat(bytes - 21)).into_bytes();
    case(masked(0x81, &sized(64 * 1024)), is("\"1\"", Some("unmatched topic")));
    case(masked(0x81, &sized(64 * 1024 + 1)), Becomes::Closed(1009));
    case(fragments(&sized(64 * 1024), 7, b""), is("\"1\"", Some("unmatched topic")));
    case(fragments(&sized(64 * 1024 + 1), 7, b""), Becomes::Closed(1009));
    for length in [64 * 1024 + 1, 1 << 31, 1 << 32, 1 << 63, u64::MAX] {
        case(announced(length), Becomes::Closed(1009));
    }
    // Fragments, also empty ones, with pings between them, and cut in the middle of a character.
    case(fragments(beat, 1_000, b""), is("\"1\"", None));
    case(fragments(beat, 20, &masked(0x89, b"there?")), is("\"1\"", None));
    let wide = "[null,\"1\",\"\u{e9}\u{1f98a}\",\"e\",{}]".as_bytes();
    case(fragments(wide, wide.len(), b""), is("\"1\"", Some("unmatched topic")));
    // Close frames.
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        case(masked(0x88, &code.to_be_bytes()), Becomes::Closed(1002));
    }
    case(masked(0x88, b"\x03"), Becomes::Closed(1002));
    case(masked(0x88, b"\x03\xe8\xff"), Becomes::Closed(1007));
    for code in [1000_u16, 1001, 3000, 4999] {
        case(masked(0x88, &[&code.to_be_bytes()[..], b"bye"].concat()), Becomes::Closed(code));
    }
    case(masked(0x88, b""), Becomes::Closed(0));
    cases
}
