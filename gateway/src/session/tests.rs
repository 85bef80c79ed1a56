//! The rules of a session as tables: frames in, effects out.

use super::*;
use switchboard_contract::lobby::{ChatRecord, ChatStatus, Status};
use switchboard_contract::names::UserId;
use switchboard_contract::wire::V1;

use crate::limiter::Rates;
use crate::mailbox::{Broadcast, Event};

pub(super) struct Client {
    pub(super) session: Session,
    pub(super) now: Instant,
    nobody_waits: bool,
}

impl Client {
    fn new(vsn: Vsn) -> Self {
        Self::who_is(vsn, Identity::Open(None))
    }

    pub(super) fn who_is(vsn: Vsn, identity: Identity) -> Self {
        Self::limited(vsn, identity, Rates::default())
    }

    pub(super) fn limited(vsn: Vsn, identity: Identity, rates: Rates) -> Self {
        let now = Instant::now();
        let users = Arc::new(Limiter::new(rates, now));
        let secret = Some("s3cret".to_owned().into());
        let limits = SessionLimits { channels: 3, capacity: 5, idle: Duration::from_secs(60), users, secret };
        let session = Session::new(vsn, identity, Arc::new(limits), Arc::default(), now);
        Client { session, now, nobody_waits: false }
    }

    /// Sends a frame; what comes of it, frames as text.
    pub(super) fn send(&mut self, text: &str) -> Vec<String> {
        let mut out = Vec::new();
        self.session.text(text.to_owned().into(), self.nobody_waits, self.now, &mut out);
        shown(out)
    }

    pub(super) fn event(&mut self, event: Event) -> Vec<String> {
        let mut out = Vec::new();
        self.session.event(&event, self.now, &mut out);
        shown(out)
    }

    fn done(&mut self, chan: u64, serial: u32, outcome: Outcome) -> Vec<String> {
        self.event(Event::Done { chan, serial, outcome })
    }

    pub(super) fn ok(&mut self, chan: u64, serial: u32) -> Vec<String> {
        self.done(chan, serial, Outcome::Ok("{}".into()))
    }

    pub(super) fn after(&mut self, time: Duration) -> Vec<String> {
        self.now += time;
        let mut out = Vec::new();
        self.session.tick(self.now, &mut out);
        shown(out)
    }

    /// A student's channel on topic `presence:student:5`: chan 1.
    fn student(vsn: Vsn) -> Self {
        let mut client = Client::new(vsn);
        let frames = client.send(match vsn {
            Vsn::V1 => {
                r#"{"topic":"presence:student:5","event":"phx_join","payload":{"userId":5,"role":"student"},"ref":"1"}"#
            }
            Vsn::V2 => r#"["1","1","presence:student:5","phx_join",{"userId":5,"role":"student"}]"#,
        });
        assert_eq!(frames.len(), 1, "{frames:?}");
        client.ok(1, 1);
        client
    }

    /// A teacher's channel: chan 1, joined with version 10 of the status.
    fn teacher() -> Self {
        let mut client = Client::new(Vsn::V2);
        client.send(r#"["1","1","presence:teachers","phx_join",{"userId":7,"role":"teacher"}]"#);
        let status = Status { version: 10, teachers: 1, ..Status::default() };
        assert_eq!(
            client.done(1, 1, Outcome::Status(status)),
            [
                r#"["1","1","presence:teachers","phx_reply",{"status":"ok","response":{"teachers":{"total":1},"students":{"total":0,"waiting":0,"chatting":0,"finished":0}}}]"#
            ]
        );
        client
    }

    /// A student's side of chat `c`: chan 1, joined.
    fn chat(vsn: Vsn) -> Self {
        let mut client = Client::new(vsn);
        client.send(match vsn {
            Vsn::V1 => r#"{"topic":"chats:c","event":"phx_join","payload":{"userId":5,"role":"student"},"ref":"1"}"#,
            Vsn::V2 => r#"["1","1","chats:c","phx_join",{"userId":5,"role":"student"}]"#,
        });
        client.ok(1, 1);
        client
    }
}

fn shown(effects: Vec<Effect>) -> Vec<String> {
    let show = |effect| match effect {
        Effect::Send(text) => text.to_string(),
        Effect::Close(code) => format!("close {}", code.code()),
        Effect::Lobby(command) => format!("lobby {command:?}"),
        Effect::Chat(id, command) => format!("chat {id} {command:?}"),
        Effect::Verify { chan, serial, room: None, .. } => format!("verify {chan} {serial}"),
        Effect::Verify { chan, serial, room: Some(room), .. } => format!("verify {chan} {serial} of {room}"),
        Effect::JoinRoom(id, joining) => format!("join room {id} {joining:?}"),
        Effect::Feed(id, command) => format!("feed {id} {command:?}"),
        Effect::Failed(room, chan) => format!("failed {room} {chan}"),
        Effect::Room(id, command) => format!("room {id} {command:?}"),
        Effect::SendBinary(bytes) => format!("{bytes:?}"),
    };
    effects.into_iter().map(show).collect()
}

pub(super) fn reply(join_ref: &str, reference: &str, topic: &str, response: &str) -> String {
    format!(r#"[{join_ref},{reference},"{topic}","phx_reply",{{"status":"ok","response":{response}}}]"#)
}

pub(super) fn error(join_ref: &str, reference: &str, topic: &str, reason: &str) -> String {
    format!(r#"[{join_ref},{reference},"{topic}","phx_reply",{{"status":"error","response":{{"reason":"{reason}"}}}}]"#)
}

fn record(id: &str) -> Arc<ChatRecord> {
    Arc::new(ChatRecord {
        v: V1,
        id: ChatId::new(id).expect("an id"),
        status: ChatStatus::Active,
        teacher_id: UserId::from(7),
        student_id: UserId::text("s").expect("an id"),
        teacher_entered: false,
        student_entered: false,
        end: None,
        owes: Vec::new(),
        claim: 0,
        since: String::new(),
    })
}

#[test]
fn a_heartbeat_is_answered_whatever_waits() {
    let mut client = Client::new(Vsn::V2);
    assert_eq!(client.send(r#"[null,"9","phoenix","heartbeat",{}]"#), [reply("null", "\"9\"", "phoenix", "{}")]);
    client.send(r#"["1","1","chats:c","phx_join",{"userId":5,"role":"student"}]"#);
    assert_eq!(client.send(r#"[null,10,"phoenix","heartbeat",{}]"#), [reply("null", "10", "phoenix", "{}")]);
}

#[test]
fn topics_that_are_not_joined() {
    let mut client = Client::new(Vsn::V2);
    for (frame, answer) in [
        (r#"[null,"1","chats:c","student:send",{}]"#, error("null", "\"1\"", "chats:c", "unmatched topic")),
        (r#"["1","1","lobby","phx_join",{}]"#, error("\"1\"", "\"1\"", "lobby", "unmatched topic")),
        (r#"["1","1","chats:","phx_join",{}]"#, error("\"1\"", "\"1\"", "chats:", "unmatched topic")),
        (r#"["1","1","phoenix","phx_join",{}]"#, error("\"1\"", "\"1\"", "phoenix", "unmatched topic")),
        (r#"[null,"2","phoenix","other",{}]"#, error("null", "\"2\"", "phoenix", "unmatched topic")),
        (r#"["1","2","chats:c","phx_leave",{}]"#, reply("\"1\"", "\"2\"", "chats:c", "{}")),
        (r#"[null,"3",". * > 🦊","x",{}]"#, error("null", "\"3\"", ". * > 🦊", "unmatched topic")),
    ] {
        assert_eq!(client.send(frame), [answer], "{frame}");
    }
}

#[test]
fn names_that_are_too_long() {
    let mut client = Client::new(Vsn::V2);
    let frames = client.send(&format!(r#"[null,"1","{}","phx_join",{{}}]"#, "t".repeat(256)));
    assert!(frames[0].contains("invalid_payload"), "{frames:?}");
    let frames = client.send(&format!(r#"[null,"1","{}","phx_join",{{}}]"#, "t".repeat(255)));
    assert!(frames[0].contains("unmatched topic"), "{frames:?}");
}

#[test]
fn malformed_frames_close() {
    for vsn in [Vsn::V1, Vsn::V2] {
        let mut client = Client::new(vsn);
        assert_eq!(client.send("{"), ["close 1007"]);
        let mut out = Vec::new();
        client.session.binary(Bytes::from_static(b"\x00\x01"), false, client.now, &mut out);
        assert_eq!(shown(out), ["close 1003"]);
    }
}

#[test]
fn a_student_joins_and_is_ready() {
    let mut client = Client::new(Vsn::V1);
    assert_eq!(
        client.send(
            r#"{"topic":"presence:student:5","event":"phx_join","payload":{"userId":"5","role":"student"},"ref":"1"}"#
        ),
        [
            "lobby Set { chan: 1, at: Student { id: UserId { text: \"5\", number: false }, ready: false }, serial: Some(1) }"
        ],
        "not answered before the matcher knows: another socket of the same student may leave in that moment"
    );
    assert_eq!(
        client.ok(1, 1),
        [r#"{"topic":"presence:student:5","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"1"}"#]
    );
    let frames =
        client.send(r#"{"topic":"presence:student:5","event":"student:ready","payload":{"userId":5},"ref":"2"}"#);
    assert_eq!(
        frames,
        [
            "lobby Set { chan: 1, at: Student { id: UserId { text: \"5\", number: false }, ready: true }, serial: Some(2) }"
        ]
    );
    assert_eq!(
        client.ok(1, 2),
        [r#"{"topic":"presence:student:5","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"2"}"#]
    );
}

#[test]
fn joins_that_are_refused() {
    let mut client = Client::new(Vsn::V2);
    for (topic, payload, reason) in [
        ("presence:student:5", r#"{"userId":6,"role":"student"}"#, "forbidden"),
        ("presence:student:5", r#"{"userId":5,"role":"teacher"}"#, "forbidden"),
        ("presence:student:5", r#"{"role":"student"}"#, "invalid_payload"),
        ("presence:student:5", r#"{"userId":5}"#, "invalid_payload"),
        ("presence:student:5", r#"{"userId":5.5,"role":"student"}"#, "invalid_payload"),
        ("presence:student:5", "[]", "invalid_payload"),
        ("presence:teachers", r#"{"userId":7,"role":"student"}"#, "forbidden"),
        ("presence:teachers", r#"{"userId":7,"role":"teacher","capacity":0}"#, "invalid_payload"),
        ("presence:teachers", r#"{"userId":7,"role":"teacher","capacity":6}"#, "invalid_payload"),
        ("presence:teachers", r#"{"userId":7,"role":"pupil"}"#, "invalid_payload"),
        ("chats:c", r#"{"userId":7}"#, "invalid_payload"),
        ("chats:c", r#"{"userId":7,"role":"teacher","last_seq":-1}"#, "invalid_payload"),
    ] {
        let frames = client.send(&format!(r#"["1","1","{topic}","phx_join",{payload}]"#));
        assert_eq!(frames.len(), 1, "{topic} {payload} {frames:?}");
        assert!(frames[0].contains(&format!("\"reason\":\"{reason}\"")), "{topic} {payload} {frames:?}");
    }
    let long = format!(r#"["1","1","chats:{}","phx_join",{{"userId":7,"role":"teacher"}}]"#, "c".repeat(200));
    assert!(client.send(&long)[0].contains("not_found"));
}

#[test]
fn a_hundred_channels_and_one_more() {
    let mut client = Client::new(Vsn::V2);
    for n in 1..=3 {
        let frames = client
            .send(&format!(r#"["{n}","{n}","presence:student:{n}","phx_join",{{"userId":{n},"role":"student"}}]"#));
        assert_eq!(frames.len(), 1, "{frames:?}");
        assert_eq!(client.ok(n.into(), n).len(), 1);
    }
    let frames = client.send(r#"["4","4","presence:student:4","phx_join",{"userId":4,"role":"student"}]"#);
    assert_eq!(frames, [error("\"4\"", "\"4\"", "presence:student:4", "too many channels joined")]);
    client.send(r#"["5","5","presence:student:3","phx_join",{"userId":3,"role":"student"}]"#);
    let frames = client.ok(4, 4);
    assert_eq!(frames, [reply("\"5\"", "\"5\"", "presence:student:3", "{}")], "a rejoin is no more");
}

#[test]
fn a_rejoin_closes_the_old_channel_for_v2_alone_and_nobody_sees_a_leave() {
    let mut client = Client::student(Vsn::V2);
    assert_eq!(
        client.send(r#"["2","2","presence:student:5","phx_join",{"userId":5,"role":"student"}]"#),
        [
            r#"["1","1","presence:student:5","phx_close",{}]"#.to_owned(),
            "lobby Set { chan: 2, at: Student { id: UserId { text: \"5\", number: true }, ready: false }, serial: Some(2) }".into(),
            "lobby Set { chan: 1, at: Left { lost: true }, serial: None }".into(),
        ]
    );
    let mut client = Client::student(Vsn::V1);
    let frames = client
        .send(r#"{"topic":"presence:student:5","event":"phx_join","payload":{"userId":5,"role":"student"},"ref":"2"}"#);
    assert!(frames.iter().all(|frame| !frame.contains("phx_close")), "{frames:?}");
    assert!(frames.iter().any(|frame| frame.contains("lost: true")), "{frames:?}");
}

#[test]
fn a_rejoin_does_not_wait_and_what_waited_is_stale() {
    let mut client = Client::chat(Vsn::V2);
    client.send(r#"["1","2","chats:c","student:send",{"message":1}]"#);
    assert!(client.send(r#"["1","3","chats:c","student:send",{"message":2}]"#).is_empty());
    let frames = client.send(r#"["4","4","chats:c","phx_join",{"userId":5,"role":"student"}]"#);
    assert_eq!(frames[0], r#"["1","1","chats:c","phx_close",{}]"#);
    assert!(frames[1].contains("Join { chan: 2"), "{frames:?}");
    assert!(frames[2].contains("Leave { chan: 1, lost: true }"), "{frames:?}");
    assert_eq!(client.ok(1, 2), Vec::<String>::new(), "the old channel's answer is stale");
    client.ok(2, 4);
    assert!(client.send(r#"["1","5","chats:c","student:send",{"message":3}]"#).is_empty(), "a stale join_ref");
}

#[test]
fn v1_is_answered_for_what_waited_when_it_rejoins() {
    let mut client = Client::chat(Vsn::V1);
    let send =
        |n: u32| format!(r#"{{"topic":"chats:c","event":"student:send","payload":{{"message":1}},"ref":"{n}"}}"#);
    client.send(&send(2));
    client.send(&send(3));
    let frames =
        client.send(r#"{"topic":"chats:c","event":"phx_join","payload":{"userId":5,"role":"student"},"ref":"4"}"#);
    let refused: Vec<&String> = frames.iter().filter(|frame| frame.contains("unavailable")).collect();
    assert_eq!(refused.len(), 2, "{frames:?}");
}

#[test]
fn a_join_that_another_one_replaces_is_answered() {
    let mut client = Client::new(Vsn::V2);
    client.send(r#"["1","1","chats:c","phx_join",{"userId":5,"role":"student"}]"#);
    client.send(r#"[null,"2","chats:c","history",{}]"#);
    client.send(r#"["1","3","chats:c","history",{}]"#);
    let frames = client.send(r#"["4","4","chats:c","phx_join",{"userId":5,"role":"student"}]"#);
    assert_eq!(frames[0], error("\"1\"", "\"1\"", "chats:c", "unavailable"));
    assert_eq!(frames[1], error("\"1\"", "\"2\"", "chats:c", "unavailable"), "it names no join, so it is not stale");
    assert_eq!(frames[2], r#"["1","1","chats:c","phx_close",{}]"#);
    assert_eq!(frames.len(), 5, "{frames:?}");

    let mut client = Client::new(Vsn::V1);
    let send = |event: &str, n: u32| {
        let payload = r#"{"userId":5,"role":"student"}"#;
        format!(r#"{{"topic":"chats:c","event":"{event}","payload":{payload},"ref":"{n}"}}"#)
    };
    client.send(&send("phx_join", 1));
    client.send(&send("phx_leave", 2));
    let frames = client.send(&send("phx_join", 3));
    assert!(frames[0].contains("unavailable") && frames[0].ends_with(r#""ref":"1"}"#), "{frames:?}");
    assert!(frames[1].contains(r#""status":"ok""#) && frames[1].ends_with(r#""ref":"2"}"#), "{frames:?}");
}

#[test]
fn a_claim_on_its_way_is_answered_when_its_teacher_leaves() {
    let mut client = Client::teacher();
    client.send(r#"["1","2","presence:teachers","claim:student",{"teacherId":7}]"#);
    let frames = client.send(r#"["1","3","presence:teachers","phx_leave",{}]"#);
    assert_eq!(frames[0], error("\"1\"", "\"2\"", "presence:teachers", "unavailable"));
    assert_eq!(frames[1], reply("\"1\"", "\"3\"", "presence:teachers", "{}"));
    assert!(client.ok(1, 2).is_empty());
}

#[test]
fn a_join_ref_is_the_same_in_binary_frames() {
    let mut client = Client::new(Vsn::V2);
    client.send(r#"[7,7,"chats:c","phx_join",{"userId":5,"role":"student"}]"#);
    client.ok(1, 1);
    let mut binary = |join_ref: u8| {
        let mut out = Vec::new();
        let frame = [&[0, 1, 1, 7, 1, join_ref], &b"8chats:cx"[..]].concat();
        client.session.binary(frame.into(), false, client.now, &mut out);
        shown(out)
    };
    assert_eq!(binary(b'7').len(), 1);
    assert!(binary(b'6').is_empty(), "a stale one");
}

#[test]
fn leaving() {
    let mut client = Client::student(Vsn::V2);
    assert_eq!(
        client.send(r#"["1","2","presence:student:5","phx_leave",{}]"#),
        [
            reply("\"1\"", "\"2\"", "presence:student:5", "{}"),
            r#"["1","1","presence:student:5","phx_close",{}]"#.into(),
            "lobby Set { chan: 1, at: Left { lost: false }, serial: None }".into(),
        ]
    );
    let frames = client.send(r#"["1","3","presence:student:5","student:ready",{}]"#);
    assert_eq!(frames, [error("\"1\"", "\"3\"", "presence:student:5", "unmatched topic")]);
}

#[test]
fn a_stale_join_ref_leads_to_nothing_and_null_is_valid() {
    let mut client = Client::student(Vsn::V2);
    for event in ["student:ready", "phx_leave", "whatever"] {
        assert!(client.send(&format!(r#"["0","2","presence:student:5","{event}",{{}}]"#)).is_empty(), "{event}");
    }
    let frames = client.send(r#"[null,"3","presence:student:5","whatever",{}]"#);
    assert_eq!(frames, [error("\"1\"", "\"3\"", "presence:student:5", "unmatched event")]);
}

#[test]
fn frames_of_a_topic_keep_their_order_and_topics_do_not_wait_for_each_other() {
    let mut client = Client::chat(Vsn::V2);
    assert_eq!(client.send(r#"["1","2","chats:c","student:send",{"message":1}]"#).len(), 1);
    assert!(client.send(r#"["1","3","chats:c","student:send",{"message":2}]"#).is_empty());
    assert!(client.send(r#"["1","4","chats:c","nonsense",{}]"#).is_empty());
    assert!(client.send(r#"["1","5","chats:c","phx_leave",{}]"#).is_empty());
    let other = client.send(r#"["9","9","presence:student:5","phx_join",{"userId":5,"role":"student"}]"#);
    assert_eq!(other.len(), 1, "{other:?}");
    assert_eq!(client.ok(2, 3), [reply("\"9\"", "\"9\"", "presence:student:5", "{}")]);
    let frames = client.ok(1, 2);
    assert_eq!(frames[0], reply("\"1\"", "\"2\"", "chats:c", "{}"));
    assert!(frames[1].contains("serial: 4, push: Send"), "{frames:?}");
    assert_eq!(frames.len(), 2);
    let frames = client.done(1, 4, Outcome::Refused(Reason::ChatFinished.into()));
    assert_eq!(frames[0], error("\"1\"", "\"3\"", "chats:c", "chat_finished"));
    assert_eq!(frames[1], error("\"1\"", "\"4\"", "chats:c", "unmatched event"));
    assert_eq!(frames[2], reply("\"1\"", "\"5\"", "chats:c", "{}"));
    assert!(frames[4].contains("Leave { chan: 1, lost: false }"), "{frames:?}");
}

#[test]
fn sixty_four_frames_wait_and_the_next_is_refused() {
    let mut client = Client::chat(Vsn::V2);
    for n in 0..=limits::WAITING_FRAMES_MAX {
        let frames = client.send(&format!(r#"["1","{}","chats:c","student:send",{{"message":1}}]"#, n + 2));
        assert_eq!(frames.len(), usize::from(n == 0), "{frames:?}");
    }
    let frames = client.send(r#"["1","99","chats:c","student:send",{"message":1}]"#);
    assert!(frames[0].contains(r#""reason":"rate_limited","retry_after_ms""#), "{frames:?}");
    let mut answered = 0;
    for serial in 2.. {
        let frames = client.ok(1, serial);
        if frames.is_empty() {
            break;
        }
        answered += 1;
    }
    assert_eq!(answered, limits::WAITING_FRAMES_MAX + 1);
    assert_eq!(client.session.waiting_bytes, 0);
}

#[test]
fn what_waits_behind_a_refused_join_is_on_no_topic() {
    let mut client = Client::new(Vsn::V2);
    client.send(r#"["1","1","chats:x","phx_join",{"userId":5,"role":"student"}]"#);
    assert!(client.send(r#"["1","2","chats:x","student:send",{"message":1}]"#).is_empty());
    assert_eq!(
        client.done(1, 1, Outcome::Refused(Reason::NotFound.into())),
        [error("\"1\"", "\"1\"", "chats:x", "not_found"), error("\"1\"", "\"2\"", "chats:x", "unmatched topic")]
    );
}

#[test]
fn only_one_claim_is_on_its_way() {
    let mut client = Client::teacher();
    let claim = |n: u32| format!(r#"["1","{n}","presence:teachers","claim:student",{{"teacherId":7}}]"#);
    assert_eq!(client.send(&claim(2)), ["lobby Claim { chan: 1, serial: 2 }"]);
    assert_eq!(client.send(&claim(3)), [reply("\"1\"", "\"3\"", "presence:teachers", "{}")]);
    let update = client.send(r#"["1","4","presence:teachers","teacher:update",{"away":true}]"#);
    assert!(update[0].contains("away: Some(true)") && update[0].contains("serial: Some(3)"), "{update:?}");
    assert_eq!(client.send(&claim(5)), [reply("\"1\"", "\"5\"", "presence:teachers", "{}")], "claims do not wait");
    assert_eq!(client.ok(1, 2), [reply("\"1\"", "\"2\"", "presence:teachers", "{}")]);
    assert_eq!(client.send(&claim(6)), ["lobby Claim { chan: 1, serial: 4 }"]);
    let other = client.send(r#"["1","7","presence:teachers","claim:student",{"teacherId":8}]"#);
    assert_eq!(other, [error("\"1\"", "\"7\"", "presence:teachers", "forbidden")]);
}

#[test]
fn claims_are_answered_here_while_nobody_waits_but_one_now_and_then() {
    let mut client = Client::teacher();
    client.nobody_waits = true;
    let claim = |n: u32| format!(r#"["1","{n}","presence:teachers","claim:student",{{"teacherId":7}}]"#);
    assert_eq!(client.send(&claim(2)), ["lobby Claim { chan: 1, serial: 2 }"], "the status may be a moment old");
    client.ok(1, 2);
    client.now += limits::CLAIM_INTERVAL - Duration::from_millis(1);
    assert_eq!(client.send(&claim(3)), [reply("\"1\"", "\"3\"", "presence:teachers", "{}")]);
    client.now += Duration::from_millis(1);
    assert_eq!(client.send(&claim(4)), ["lobby Claim { chan: 1, serial: 3 }"]);
    client.ok(1, 3);
    client.event(Event::NewChat { chan: 1, chat: record("c"), hold: false });
    assert_eq!(client.send(&claim(5)), ["lobby Claim { chan: 1, serial: 4 }"], "the next one after a success, too");
}

#[test]
fn a_student_cannot_claim() {
    let mut client = Client::student(Vsn::V2);
    let frames = client.send(r#"["1","2","presence:student:5","claim:student",{}]"#);
    assert_eq!(frames, [error("\"1\"", "\"2\"", "presence:student:5", "unmatched event")]);
}

#[test]
fn a_channel_gets_each_version_of_the_status_once() {
    let mut client = Client::teacher();
    let mut status = |version| {
        let broadcast = Broadcast::new("presence:teachers", "user:status", "{}");
        client.event(Event::Once { version, broadcast }).len()
    };
    assert_eq!([10, 9, 11, 11, 12].map(&mut status), [0, 0, 1, 0, 1]);
}

/// What an earlier join of the same topic on the same socket still gets is not shown before the state, nor twice.
#[test]
fn no_diff_comes_before_the_state_and_none_twice() {
    let mut client = Client::new(Vsn::V2);
    let joins = [("1", 1, 1), ("2", 2, 2)].map(|(join_ref, chan, serial)| {
        client.send(&format!(r#"["{join_ref}","{join_ref}","room:r","phx_join",{{"userId":1,"session_id":"s"}}]"#));
        client.ok(chan, serial);
        let mut diff = |version| {
            let broadcast = Broadcast::new("room:r", "presence_diff", "{}");
            client.event(Event::Presence { version, broadcast }).len()
        };
        assert_eq!(diff(4), 0, "before the state");
        let state = client.event(Event::PresenceState { chan, version: 5, payload: "{}".into() });
        assert_eq!(state, [format!(r#"["{join_ref}",null,"room:r","presence_state",{{}}]"#)]);
        let mut diff = |version| {
            let broadcast = Broadcast::new("room:r", "presence_diff", "{}");
            client.event(Event::Presence { version, broadcast }).len()
        };
        [5, 6, 6, 7].map(&mut diff)
    });
    assert_eq!(joins, [[0, 1, 0, 1]; 2]);
    assert!(client.event(Event::PresenceState { chan: 1, version: 8, payload: "{}".into() }).is_empty());
}

#[test]
fn presence_is_told_of_a_room_that_has_failed() {
    let mut client = Client::new(Vsn::V2);
    client.send(r#"["1","1","room:r","phx_join",{"userId":1}]"#);
    client.ok(1, 1);
    let shown = client.event(Event::Failed { chan: 1 });
    assert_eq!(shown, [r#"["1","1","room:r","phx_error",{}]"#, "failed r 1"]);
}

#[test]
fn a_chat_is_shown_once_per_channel() {
    let mut client = Client::teacher();
    let shown = client.event(Event::NewChat { chan: 1, chat: record("c"), hold: false });
    assert_eq!(
        shown,
        [
            r#"["1",null,"presence:teachers","new:chat:7",{"id":"c","status":"active","student_entered":false,"student_id":"s","teacher_entered":false,"teacher_id":7,"messages":[]}]"#
        ]
    );
    assert!(client.event(Event::NewChat { chan: 1, chat: record("c"), hold: false }).is_empty());
    assert!(client.event(Event::NewChat { chan: 1, chat: record("c"), hold: true }).is_empty());
    assert!(client.after(Duration::from_secs(1)).is_empty());
    assert_eq!(client.event(Event::NewChat { chan: 1, chat: record("d"), hold: false }).len(), 1);
    client.send(r#"["2","2","presence:teachers","phx_join",{"userId":7,"role":"teacher"}]"#);
    client.done(2, 2, Outcome::Status(Status::default()));
    assert_eq!(client.event(Event::NewChat { chan: 2, chat: record("d"), hold: false }).len(), 1, "another join");
}

#[test]
fn an_older_chat_is_held_back_for_the_client_to_rejoin_it() {
    let mut client = Client::student(Vsn::V2);
    assert!(client.event(Event::NewChat { chan: 1, chat: record("c"), hold: true }).is_empty());
    assert!(client.after(Duration::from_millis(499)).is_empty());
    let frames = client.after(Duration::from_millis(2));
    assert!(frames[0].contains("\"new:chat\""), "{frames:?}");

    assert!(client.event(Event::NewChat { chan: 1, chat: record("d"), hold: true }).is_empty());
    client.send(r#"["2","2","chats:d","phx_join",{"userId":5,"role":"student"}]"#);
    client.ok(2, 1);
    assert!(client.after(Duration::from_secs(1)).is_empty(), "it has rejoined the chat by itself");
}

#[test]
fn no_answer_becomes_unavailable_and_a_late_one_nothing() {
    let mut client = Client::chat(Vsn::V2);
    client.send(r#"["1","2","chats:c","student:send",{"message":1}]"#);
    client.send(r#"["1","3","chats:c","student:send",{"message":2}]"#);
    client.now += Duration::from_millis(1_000);
    client.send(r#"["1","4","chats:c","student:send",{"message":3}]"#);
    assert!(client.after(limits::ANSWER_TIMEOUT - Duration::from_millis(1_001)).is_empty());
    let frames = client.after(Duration::from_millis(1));
    assert_eq!(frames[0], error("\"1\"", "\"2\"", "chats:c", "unavailable"));
    assert_eq!(frames[1], error("\"1\"", "\"3\"", "chats:c", "unavailable"), "its time is over as well");
    assert!(frames[2].contains("Send"), "the next one goes on: {frames:?}");
    assert!(client.ok(1, 2).is_empty());
    assert!(client.after(Duration::from_millis(999)).is_empty());
    let frames = client.after(Duration::from_millis(1));
    assert_eq!(frames, [error("\"1\"", "\"4\"", "chats:c", "unavailable")], "its own time after it came");

    let mut client = Client::new(Vsn::V2);
    client.send(r#"["1","1","chats:c","phx_join",{"userId":5,"role":"student"}]"#);
    let frames = client.after(limits::ANSWER_TIMEOUT);
    assert_eq!(frames[0], error("\"1\"", "\"1\"", "chats:c", "unavailable"));
    assert!(frames[1].contains("Leave { chan: 1, lost: true }"), "{frames:?}");
}

#[test]
fn silence_closes_and_any_frame_counts() {
    let mut client = Client::new(Vsn::V2);
    client.now += Duration::from_secs(59);
    client.session.heard(client.now);
    assert!(client.after(Duration::from_secs(59)).is_empty());
    assert_eq!(client.after(Duration::from_secs(2)), ["close 1001"]);
}

#[test]
fn each_side_has_its_own_events() {
    let mut client = Client::chat(Vsn::V2);
    for event in ["teacher:joined", "teacher:send"] {
        let frames = client.send(&format!(r#"["1","2","chats:c","{event}",{{"message":1}}]"#));
        assert_eq!(frames, [error("\"1\"", "\"2\"", "chats:c", "forbidden")], "{event}");
    }
    let large = format!(r#"["1","2","chats:c","student:send",{{"message":"{}"}}]"#, "x".repeat(33 * 1024));
    assert_eq!(client.send(&large), [error("\"1\"", "\"2\"", "chats:c", "payload_too_large")]);
    let frames = client.send(r#"["1","2","chats:c","history",{"limit":101}]"#);
    assert!(frames[0].contains("invalid_payload"), "{frames:?}");
}

#[test]
fn a_lost_socket_tells_of_each_channel() {
    let mut client = Client::chat(Vsn::V2);
    client.send(r#"["2","2","presence:student:5","phx_join",{"userId":5,"role":"student"}]"#);
    let mut out = Vec::new();
    client.session.gone(&mut out);
    assert_eq!(
        shown(out),
        ["chat c Leave { chan: 1, lost: true }", "lobby Set { chan: 2, at: Left { lost: true }, serial: None }"]
    );
}

#[test]
fn broadcasts_reach_joined_topics_alone() {
    let mut client = Client::chat(Vsn::V2);
    assert_eq!(client.event(Event::Broadcast(Broadcast::new("chats:c", "e", "1"))), [r#"[null,null,"chats:c","e",1]"#]);
    assert!(client.event(Event::Broadcast(Broadcast::new("chats:d", "e", "1"))).is_empty());
    client.send(r#"["1","2","chats:c","phx_leave",{}]"#);
    assert!(client.event(Event::Broadcast(Broadcast::new("chats:c", "e", "1"))).is_empty());
}

#[test]
fn a_channel_that_fails_inside_is_told_and_the_socket_lives_on() {
    for vsn in [Vsn::V1, Vsn::V2] {
        let mut client = Client::chat(vsn);
        let send = |n: u32| match vsn {
            Vsn::V1 => format!(r#"{{"topic":"chats:c","event":"student:send","payload":{{"message":1}},"ref":"{n}"}}"#),
            Vsn::V2 => format!(r#"["1","{n}","chats:c","student:send",{{"message":1}}]"#),
        };
        client.send(&send(2));
        client.send(&send(3));
        let frames = client.event(Event::Failed { chan: 1 });
        assert!(frames[0].contains("unavailable") && frames[1].contains("unavailable"), "{frames:?}");
        let expected = match vsn {
            Vsn::V1 => r#"{"topic":"chats:c","event":"phx_error","payload":{},"ref":"1"}"#,
            Vsn::V2 => r#"["1","1","chats:c","phx_error",{}]"#,
        };
        assert_eq!(frames[2..], [expected, "lobby Set { chan: 1, at: Left { lost: true }, serial: None }"]);
        assert!(client.event(Event::Failed { chan: 1 }).is_empty());
    }
}

#[test]
fn a_disconnect_closes_the_sockets_of_its_user_and_no_other() {
    let disconnect = |client: &mut Client, user: &str| {
        client.event(Event::Disconnect(UserId::text(user).expect("an id"))).first().cloned()
    };
    let closed = Some("close 1001".to_owned());
    let mut room = Client::new(Vsn::V2);
    room.send(r#"["1","1","room:r","phx_join",{"userId":5}]"#);
    room.session.admitted(1, &UserId::from(5), None, room.now).expect("no limit");
    for mut client in [Client::student(Vsn::V2), Client::chat(Vsn::V1), room] {
        assert_eq!((disconnect(&mut client, "6"), disconnect(&mut client, "5")), (None, closed.clone()));
    }
    let mut teacher = Client::teacher();
    assert_eq!((disconnect(&mut teacher, "5"), disconnect(&mut teacher, "7")), (None, closed));
    let mut left = Client::student(Vsn::V2);
    left.send(r#"["1","2","presence:student:5","phx_leave",{}]"#);
    assert_eq!(disconnect(&mut left, "5"), None, "nobody in particular any more");
}
