//! A room's topic as tables: what comes in, and what its members get.

use std::time::Instant;

use switchboard_contract::names::LogName;
use switchboard_contract::room::{Change, Grant, Keyword, RANK_MEMBER, RANK_MODERATOR};

use super::*;
use crate::commands::Recipient;
use crate::frame::Vsn;
use crate::limiter::Rates;
use crate::payload::{HistoryParams, Message};
use crate::topic::{How, Part};

pub(super) const ADA: u64 = 1;
pub(super) const BOB: u64 = 2;

pub(super) struct Topic {
    pub(super) room: Room<&'static str>,
    pub(super) out: Vec<Effect<&'static str>>,
    pub(super) now: Instant,
    previous: u64,
}

pub(super) fn user(name: &str) -> UserId {
    UserId::text(name).expect("an id")
}

fn session(name: &str) -> SessionKey {
    SessionKey::new(&user(name), "s").expect("a key")
}

fn sender(name: &str) -> Sender {
    Sender { role: None, user_id: user(name), session: Some(session(name)) }
}

pub(super) fn quiet(quiet: bool) -> Change<'static> {
    Change { quiet: Some(quiet), ..Change::default() }
}

pub(super) fn view(since: u64, change: Option<Change<'static>>) -> RoomView {
    let mut state = RoomState::default();
    if let Some(change) = change {
        state.apply(None, &change);
    }
    RoomView { since, state, keywords: Vec::new() }
}

/// The log up to `last_seq`, of a room that began at 1.
pub(super) fn loaded(last_seq: u64) -> Loaded {
    Loaded { last_seq, dropped_to: 0, view: view(1, None), replay: Some(Vec::new()) }
}

/// An entry as its JSON, by `name` with `rank`, or by the system.
pub(super) fn entry(event: &str, payload: &str, id: &str, author: Option<(&str, Rank)>) -> String {
    let payload: serde_json::Value = serde_json::from_str(payload).expect("JSON");
    let mut entry = serde_json::json!({"v": 1, "event": event, "payload": payload, "id": id, "at": "now"});
    if let Some((name, rank)) = author {
        entry["from"] = serde_json::json!(sender(name));
        entry["rank"] = rank.into();
    }
    entry.to_string()
}

pub(super) fn change(change: &Change<'_>, author: Option<(&str, Rank)>) -> String {
    entry("room:state", &serde_json::to_string(change).expect("JSON"), "c", author)
}

pub(super) fn fact(seq: u64, json: &str) -> Fact {
    Fact::of(seq, &serde_json::from_str(json).expect("an entry"))
}

impl Topic {
    pub(super) fn new() -> Self {
        Self::limited(Rates::default())
    }

    pub(super) fn limited(rates: Rates) -> Self {
        let now = Instant::now();
        let limiter = Arc::new(Limiter::new(rates, now));
        Topic { room: Room::new(RoomId::new("r").expect("an id"), limiter), now, out: Vec::new(), previous: 1 }
    }

    /// Two members, and a log that ends at 1.
    pub(super) fn joined() -> Self {
        Self::joined_with(Rates::default())
    }

    pub(super) fn joined_with(rates: Rates) -> Self {
        let mut topic = Topic::limited(rates);
        topic.join("ada", ADA, RANK_MEMBER, None);
        topic.join("bob", BOB, RANK_MODERATOR, None);
        topic.room.loaded(ADA, Ok(loaded(1)), &mut topic.out);
        topic.room.loaded(BOB, Ok(loaded(1)), &mut topic.out);
        topic.shown();
        topic
    }

    pub(super) fn join(&mut self, name: &'static str, chan: u64, rank: Rank, last_seq: Option<u64>) {
        let join = RoomJoin { user: user(name), session: session(name), rank };
        self.room.join(name, chan, 1, RoomMember::new(join), last_seq, &mut self.out);
    }

    pub(super) fn push(&mut self, chan: u64, serial: u32, push: RoomPush) -> Vec<String> {
        let stamp = || Stamp { at: "now".into(), now: 1_000, id: format!("id-{serial}"), gateway: "g".into() };
        self.room.push(chan, Request { serial, push, now: self.now }, stamp, &mut self.out);
        self.shown()
    }

    /// The next entry of the log, nothing being lost before it.
    pub(super) fn stored(&mut self, seq: u64, json: &str) -> Vec<String> {
        let previous = std::mem::replace(&mut self.previous, seq);
        self.stored_behind(seq, previous, json);
        self.shown()
    }

    pub(super) fn stored_behind(&mut self, seq: u64, previous: u64, json: &str) {
        let entry = serde_json::from_str(json).expect("an entry");
        self.room.stored(seq, previous, Some(&entry), &mut self.out);
    }

    pub(super) fn acked(&mut self, chan: u64, serial: u32, seq: u64) -> Vec<String> {
        self.room.acked(chan, serial, Ok((seq, false)), &mut self.out);
        self.shown()
    }

    fn told(&mut self, body: &[u8]) -> Vec<String> {
        self.room.told(&bytes::Bytes::copy_from_slice(body), "g", &mut self.out);
        self.shown()
    }

    pub(super) fn shown(&mut self) -> Vec<String> {
        let show = |effect| match effect {
            Effect::Send(to, event) => match &*event {
                Event::Done { serial, outcome: Outcome::Ok(response), .. } => format!("{to}: {serial} ok {response}"),
                Event::Done { serial, outcome: Outcome::Refused(refusal), .. } => {
                    format!("{to}: {serial} {}", refusal.reason)
                }
                Event::Broadcast(b) => format!("{to}: {}", b.frame(Vsn::V2)),
                Event::Push { event, payload, .. } => format!("{to}: {event} {payload}"),
                Event::Failed { .. } => format!("{to}: failed"),
                Event::Binary { frame, .. } => format!("{to}: binary {}", frame.len()),
                other @ (Event::Done { .. }
                | Event::PresenceState { .. }
                | Event::Presence { .. }
                | Event::Renewed { .. }
                | Event::Once { .. }
                | Event::NewChat { .. }
                | Event::Close(_)
                | Event::Disconnect(_)) => format!("{to}: {other:?}"),
            },
            Effect::Load { chan, last_seq } => format!("load {chan} {last_seq:?}"),
            Effect::Publish { entry, message_id, .. } => {
                format!("publish {} {message_id:?}", String::from_utf8_lossy(&entry))
            }
            Effect::Tell { body, .. } => format!("tell {}", String::from_utf8_lossy(&body)),
            Effect::Judge { to, serial, seq, void, .. } => format!("judge {to} {serial} {seq} {void}"),
            Effect::History { to, params, .. } => format!("history for {to} {params:?}"),
            Effect::Repair { after, to } => format!("repair {after} {to}"),
            Effect::Repaired(how) => format!("repaired {how:?}"),
            Effect::Review => "review".to_owned(),
            Effect::Lobby(..) => panic!("a room has nothing to do with the lobby"),
            Effect::Presence(room, command) => match command {
                PresenceCommand::Join { chan, key, mailbox } => format!("{mailbox}: in {room} as {key} on {chan}"),
                PresenceCommand::Leave { chan } => format!("{chan} has left"),
                PresenceCommand::Direct { chan, serial, to, payload, mailbox } => {
                    format!("{mailbox}: {chan} {serial} to {} {payload}", to.len())
                }
                PresenceCommand::Delta(delta) => format!("{} says {}", delta.gateway, delta.to),
            },
        };
        self.out.drain(..).map(show).collect()
    }
}

fn message(payload: &str, id: Option<&str>) -> Message {
    Message { payload: payload.into(), id: id.map(Into::into) }
}

fn broadcast(payload: &str, id: Option<&str>) -> RoomPush {
    RoomPush::Broadcast(message(payload, id))
}

fn says(name: &str, text: &str, id: &str) -> String {
    entry("new_msg", &format!(r#"{{"text":"{text}"}}"#), id, Some((name, RANK_MEMBER)))
}

fn sees(to: &str, event: &str, payload: &str) -> String {
    format!(r#"{to}: [null,null,"room:r","{event}",{payload}]"#)
}

#[test]
fn a_join_of_a_room_is_answered_with_its_state_and_who_is_there() {
    let mut topic = Topic::new();
    topic.join("ada", ADA, RANK_MEMBER, None);
    assert_eq!(topic.shown(), ["load 1 None"]);
    let granted = Change { grant: Some(Grant { user_id: user("ada"), rank: 50 }), ..quiet(true) };
    let mut view = view(1, Some(granted));
    view.keywords = vec![Keyword { keyword: "tea".into(), expires_at: "t".into() }];
    topic.room.loaded(ADA, Ok(Loaded { view, ..loaded(9) }), &mut topic.out);
    assert_eq!(
        topic.shown(),
        [
            r#"ada: 1 ok {"room":{"quiet":true,"quiet_rank":50,"title":null},"rank":50,"last_seq":9,"recovered":true,"keywords":[{"expires_at":"t","keyword":"tea"}]}"#,
            "ada: in r as ada:s on 1",
        ]
    );
}

#[test]
fn what_a_member_missed_follows_its_join_and_what_came_meanwhile_follows_that() {
    let mut topic = Topic::new();
    topic.join("ada", ADA, RANK_MEMBER, Some(3));
    topic.stored(7, &says("bob", "live", "b7"));
    let replay = vec![
        (4, fact(4, &says("bob", "a", "b4"))),
        (5, Fact { what: What::State("{\"quiet\":false}".into()), view: None }),
    ];
    topic.room.loaded(ADA, Ok(Loaded { replay: Some(replay), ..loaded(5) }), &mut topic.out);
    let shown = topic.shown();
    assert!(shown[0].contains(r#""last_seq":5,"recovered":true"#), "{shown:?}");
    assert!(shown[1].starts_with(r#"ada: new_msg {"text":"a","from":"#), "{shown:?}");
    assert_eq!(shown[2..4], ["ada: room:state {\"quiet\":false,\"seq\":5}", "ada: in r as ada:s on 1"]);
    assert!(shown[4].contains("live") && shown.len() == 5, "{shown:?}");
}

#[test]
fn what_is_gone_is_a_gap_also_what_was_before_this_life() {
    for (asked, dropped_to, since, gap) in [
        (3, 8, 1, Some(r#"{"from":4,"to":8}"#)),
        (3, 0, 8, Some(r#"{"from":4,"to":7}"#)),
        (7, 0, 8, Some(r#"{"from":8,"to":8}"#)),
        (30, 0, 1, Some(r#"{"from":31,"to":31}"#)),
        (8, 8, 8, None),
        (20, 0, 1, None),
    ] {
        let mut topic = Topic::new();
        topic.join("ada", ADA, RANK_MEMBER, Some(asked));
        let loaded = Loaded { dropped_to, view: view(since, None), ..loaded(20) };
        topic.room.loaded(ADA, Ok(loaded), &mut topic.out);
        let shown = topic.shown();
        assert!(shown[1].contains(&format!(r#""recovered":{}"#, gap.is_none())), "{shown:?}");
        assert_eq!(shown[2].strip_prefix("ada: gap "), gap, "{asked} {dropped_to} {since}");
    }
    let mut topic = Topic::new();
    topic.join("ada", ADA, RANK_MEMBER, Some(3));
    // Dropped while it was being read.
    let replay = [4, 9].map(|seq| (seq, fact(seq, &says("bob", "x", "b")))).into();
    topic.room.loaded(ADA, Ok(Loaded { dropped_to: 8, replay: Some(replay), ..loaded(20) }), &mut topic.out);
    let shown = topic.shown();
    assert!(shown[3].contains("\"seq\":9") && shown.len() == 5, "what is in the gap is not shown behind it: {shown:?}");
    let mut topic = Topic::new();
    topic.join("ada", ADA, RANK_MEMBER, Some(3));
    // So much was said while it was being read that more is dropped than had been said before: that follows live.
    topic.room.loaded(ADA, Ok(Loaded { dropped_to: 25, ..loaded(20) }), &mut topic.out);
    assert_eq!(topic.shown()[2], r#"ada: gap {"from":4,"to":20}"#);
    let mut topic = Topic::new();
    topic.join("ada", ADA, RANK_MEMBER, Some(3));
    topic.room.loaded(ADA, Ok(Loaded { replay: None, ..loaded(20) }), &mut topic.out);
    assert_eq!(topic.shown()[2], r#"ada: gap {"from":4,"to":20}"#, "nobody could be asked");
}

#[test]
fn a_broadcast_reaches_every_other_socket_and_is_answered_once_the_log_has_brought_it() {
    let mut topic = Topic::joined();
    // A second socket of the same user and session.
    topic.join("ada", 3, RANK_MEMBER, None);
    topic.room.loaded(3, Ok(loaded(1)), &mut topic.out);
    topic.shown();
    assert_eq!(
        topic.push(ADA, 2, broadcast(r#"{"broadcast":true,"text":"hi"}"#, None)),
        [
            r#"publish {"v":1,"event":"new_msg","payload":{"broadcast":true,"text":"hi"},"from":{"user_id":"ada","session":"ada:s"},"rank":10,"id":"id-2","at":"now"} None"#
        ]
    );
    assert!(topic.acked(ADA, 2, 5).is_empty(), "stored, but what is below it is not here yet");
    let payload = r#"{"text":"hi","from":{"session":"ada:s","user_id":"ada"},"seq":5,"id":"id-2","at":"now"}"#;
    assert_eq!(
        topic.stored(5, &says("ada", "hi", "id-2")),
        [sees("bob", "new_msg", payload), sees("ada", "new_msg", payload), r#"ada: 2 ok {"seq":5}"#.to_owned()]
    );
    assert!(topic.stored(5, &says("ada", "hi", "id-2")).is_empty(), "once");
}

#[test]
fn an_answer_takes_its_place_in_the_rooms_order() {
    let mut topic = Topic::joined();
    topic.push(ADA, 2, broadcast("{}", None));
    topic.acked(ADA, 2, 6);
    let shown = topic.stored(5, &says("bob", "before", "b5"));
    assert_eq!(shown.len(), 2, "no answer yet: {shown:?}");
    let shown = topic.stored(6, &says("ada", "x", "id-2"));
    assert_eq!(shown.last().map(String::as_str), Some(r#"ada: 2 ok {"seq":6}"#));
}

#[test]
fn a_new_message_reaches_the_sender_too_in_its_classic_form() {
    let mut topic = Topic::joined();
    topic.push(ADA, 2, RoomPush::Say(message(r#"{"body":"hi","id":7}"#, Some("7"))));
    let json = entry("new_message", r#"{"body":"hi","id":7}"#, "7", Some(("ada", RANK_MEMBER)));
    let shown = topic.stored(5, &json);
    let payload = r#"{"body":"hi","id":7,"user":"ada","timestamp":"now","seq":5}"#;
    assert_eq!(shown, [sees("ada", "new_message", payload), sees("bob", "new_message", payload)]);
}

#[test]
fn a_repeated_id_in_a_room_is_answered_with_the_first_sequence() {
    let mut topic = Topic::joined();
    let shown = topic.push(ADA, 2, broadcast(r#"{"id":"k"}"#, Some("k")));
    assert!(shown[0].ends_with(r#"Some("room.r.1.ada=3As.k")"#), "{shown:?}");
    topic.stored(5, &says("ada", "x", "k"));
    topic.room.acked(ADA, 2, Ok((5, true)), &mut topic.out);
    assert_eq!(topic.shown(), [r#"ada: 2 ok {"seq":5}"#]);
    // This gateway has not seen what is older than its first join: history knows whether it was void.
    topic.room.acked(ADA, 3, Ok((1, true)), &mut topic.out);
    assert_eq!(topic.shown(), ["judge ada 3 1 quiet"]);
    topic.room.acked(ADA, 4, Err(()), &mut topic.out);
    assert_eq!(topic.shown(), ["ada: 4 unavailable"]);
}

#[test]
fn quiet_is_decided_by_the_log_and_what_is_void_is_shown_to_nobody() {
    let mut topic = Topic::joined();
    topic.push(ADA, 2, broadcast("{}", None));
    topic.push(BOB, 2, broadcast("{}", None));
    let state = r#"{"quiet":true,"quiet_rank":50,"title":null,"seq":5}"#;
    assert_eq!(
        topic.stored(5, &change(&quiet(true), Some(("bob", RANK_MODERATOR)))),
        [sees("ada", "room:state", state), sees("bob", "room:state", state)]
    );
    assert!(topic.acked(ADA, 2, 6).is_empty());
    assert_eq!(topic.stored(6, &says("ada", "void", "id-2")), ["ada: 2 quiet"]);
    let json = entry("new_msg", "{}", "id-2", Some(("bob", RANK_MODERATOR)));
    assert_eq!(topic.stored(7, &json).len(), 1, "ada sees it");
    // The log may be faster than the acknowledgement.
    topic.push(ADA, 3, broadcast("{}", None));
    assert!(topic.stored(8, &says("ada", "void", "id-3")).is_empty());
    assert_eq!(topic.acked(ADA, 3, 8), ["ada: 3 quiet"]);
    assert_eq!(topic.acked(BOB, 2, 7), [r#"bob: 2 ok {"seq":7}"#]);
    topic.stored(9, &change(&quiet(false), None));
    assert_eq!(topic.stored(10, &says("eve", "again", "e")).len(), 2);
}

#[test]
fn only_moderators_change_a_room_and_the_log_has_the_last_word() {
    let mut topic = Topic::joined();
    let quieten = || RoomPush::Change { change: quiet(true), for_seconds: Some(5) };
    assert_eq!(topic.push(ADA, 2, quieten()), ["ada: 2 forbidden"]);
    let shown = topic.push(BOB, 2, quieten());
    assert!(shown[0].contains(r#""event":"room:state","payload":{"quiet":true,"until":6000}"#), "{shown:?}");
    // Before it, another moderator has taken its rank.
    let grant = Change { grant: Some(Grant { user_id: user("bob"), rank: 10 }), ..Change::default() };
    let shown = topic.stored(5, &change(&grant, Some(("eve", RANK_MODERATOR))));
    assert!(shown[0].contains(r#""granted":{"rank":10,"user_id":"bob"}"#), "{shown:?}");
    topic.acked(BOB, 2, 6);
    assert_eq!(topic.stored(6, &change(&quiet(true), Some(("bob", RANK_MODERATOR)))), ["bob: 2 forbidden"]);
    assert_eq!(topic.push(BOB, 3, quieten()), ["bob: 3 forbidden"]);
}

#[test]
fn typing_and_data_are_for_the_others_and_not_logged_and_quiet_as_seen_here() {
    let mut topic = Topic::joined();
    let shown = topic.push(ADA, 2, RoomPush::Typing(r#"{"on":true}"#.into()));
    let body = shown[0].strip_prefix("tell ").expect("an unlogged message").to_owned();
    let payload = r#"{"on":true,"from":{"session":"ada:s","user_id":"ada"}}"#;
    assert_eq!(topic.told(body.as_bytes()), [sees("bob", "typing", payload)]);
    let elsewhere = body.replace(r#""gateway":"g""#, r#""gateway":"h""#);
    assert_eq!(topic.told(elsewhere.as_bytes()).len(), 2, "the same channel of another gateway is another one");

    let data = || RoomPush::Binary { event: "ink".into(), data: bytes::Bytes::from_static(b"\xff\x00") };
    let shown = topic.push(ADA, 3, data());
    assert!(shown[0].starts_with("tell \u{2}"), "{shown:?}");
    assert_eq!(topic.told(b"\x02\x06\x03room:rink\xff\x00"), ["ada: binary 14", "bob: binary 14"]);

    topic.stored(5, &change(&quiet(true), None));
    assert_eq!(topic.push(ADA, 4, RoomPush::Typing("{}".into())), ["ada: 4 quiet"]);
    assert_eq!(topic.push(ADA, 5, data()), ["ada: 5 quiet"]);
    assert!(topic.push(BOB, 4, data())[0].starts_with("tell"));
}

#[test]
fn what_is_not_understood_beside_the_log_is_passed_over() {
    let mut topic = Topic::joined();
    for body in
        ["{}", "x", "{\"v\":2,\"kind\":\"event\"}", "{\"v\":1,\"kind\":\"event\"}", "{\"v\":1,\"kind\":\"new\"}"]
    {
        assert!(topic.told(body.as_bytes()).is_empty(), "{body}");
    }
    let body = r#"{"kind":"keywords","v":1,"keywords":[{"keyword":"tea","expires_at":"t"}]}"#;
    let payload = r#"{"keywords":[{"expires_at":"t","keyword":"tea"}]}"#;
    assert_eq!(topic.told(body.as_bytes()), [sees("ada", "keywords", payload), sees("bob", "keywords", payload)]);
}

/// Also while the room is quiet.
#[test]
fn presence_is_told_who_comes_and_goes_and_to_whom_a_direct_message_is() {
    let mut topic = Topic::joined();
    topic.stored(5, &change(&quiet(true), None));
    let to = vec![Recipient::User(user("bob")), Recipient::Session(session("bob"))];
    assert_eq!(
        topic.push(ADA, 2, RoomPush::Direct(to, r#"{"to":[],"x":1}"#.into())),
        [r#"ada: 1 2 to 2 {"to":[],"x":1,"from":{"session":"ada:s","user_id":"ada"}}"#]
    );
    let delta = r#"{"v":1,"kind":"presence","gateway":"g-2","from":0,"to":7}"#;
    assert_eq!(topic.told(delta.as_bytes()), ["g-2 says 7"]);
    topic.room.leave(BOB, true, &mut topic.out);
    assert_eq!(topic.shown(), ["2 has left"]);
    topic.join("bob", 3, RANK_MEMBER, None);
    topic.room.leave(3, true, &mut topic.out);
    assert_eq!(topic.shown(), ["load 3 None"], "who was never in has not left");
}

#[test]
fn events_of_the_http_api_come_without_a_sender_and_are_never_quiet() {
    let mut topic = Topic::joined();
    topic.stored(5, &change(&quiet(true), None));
    let shown = topic.stored(6, &entry("lesson:over", r#"{"n":1}"#, "h", None));
    let payload = r#"{"n":1,"seq":6,"id":"h","at":"now"}"#;
    assert_eq!(shown, [sees("ada", "lesson:over", payload), sees("bob", "lesson:over", payload)]);
}

#[test]
fn a_tombstone_fails_the_channels_and_a_join_on_its_way_reads_again() {
    let mut topic = Topic::joined();
    topic.join("late", 3, RANK_MEMBER, None);
    topic.push(ADA, 2, broadcast("{}", None));
    topic.shown();
    assert_eq!(topic.stored(5, &entry("phx_tombstone", "{}", "t", None)), ["ada: failed", "bob: failed"]);
    assert!(topic.acked(ADA, 2, 6).is_empty(), "its channel is gone");
    topic.room.loaded(3, Ok(loaded(1)), &mut topic.out);
    assert_eq!(topic.shown(), ["load 3 None"]);
    // Somebody begins a new life.
    topic.stored(7, &change(&Change::default(), None));
    topic.room.loaded(3, Ok(Loaded { view: view(7, None), ..loaded(7) }), &mut topic.out);
    assert_eq!(topic.shown().len(), 2);
    let shown = topic.push(3, 2, broadcast("{}", Some("k")));
    assert!(shown[0].ends_with(r#"Some("room.r.7.late=3As.k")"#), "another life, another message: {shown:?}");
}

#[test]
fn what_history_repairs_is_shown_as_it_has_it_and_the_state_goes_on_from_there() {
    let mut topic = Topic::joined();
    topic.push(ADA, 2, broadcast("{}", None));
    topic.acked(ADA, 2, 6);
    topic.stored_behind(9, 8, &says("ada", "void", "x"));
    assert_eq!(topic.shown(), ["repair 1 8"]);
    // At 5 the room became quiet, 6 is void, 8 is by somebody who may.
    let reply = ReadReply { last_seq: 8, said: 8, room: Some(view(1, Some(quiet(true)))), ..ReadReply::default() };
    let state = Fact { what: What::State("{\"quiet\":true}".into()), view: None };
    let mut entries = vec![(5, state), (8, fact(8, &entry("lesson", "{}", "h", None)))];
    RoomKind::beside(&reply, 1, &mut entries);
    topic.room.repaired(1, How::History, Some(Part { entries, to: 8 }), &mut topic.out);
    let shown = topic.shown();
    assert_eq!(shown.iter().filter(|line| line.starts_with("bob")).count(), 2, "not what is void at 9: {shown:?}");
    assert!(shown.contains(&"judge ada 2 6 quiet".to_owned()), "{shown:?}");
    let mut entries = Vec::new();
    RoomKind::beside(&reply, 7, &mut entries);
    assert_eq!(entries.len(), 1, "the state has a place also where nothing was said");
}

#[test]
fn a_rooms_history_is_read_from_its_log() {
    let mut topic = Topic::joined();
    let params = HistoryParams { limit: Some(3), ..HistoryParams::default() };
    assert!(topic.push(ADA, 2, RoomPush::History(params))[0].starts_with("history for ada"));
    let log = LogName::Room(RoomId::new("r").expect("an id"));
    assert_eq!(LogName::from_subject(&log.out_subject()), Some(log));
}
