//! Each message and record beside newer ones: further fields are ignored, another `v` is refused.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::api::Disconnect;
use crate::feed::{FeedRecord, HistoryBeat, Told, Want, Wanted};
use crate::inside::{GatewayInside, LobbyInside};
use crate::lobby::{
    ChatRecord, Claim, Done, EpochRecord, GatewayRecord, Heartbeat, Leader, LeaseRecord, Push, Pushed, QueueRecord,
    Status, StudentRecord, Table, TableReply, TeacherRecord, Terminate,
};
use crate::log::{Behind, Entry, Read, ReadReply, Seen};
use crate::presence::{Delta, Peer};
use crate::room::{Live, RoomRecord};
use crate::unlogged::{Head, UnloggedEvent};

/// Adds a field to each object of the contract's own: not to what clients say, nor where a key is somebody's name.
fn extend(value: &mut Value, key: &str) {
    match value {
        Value::Object(_) if key == "payload" || key == "value" => {}
        Value::Object(fields) => {
            fields.iter_mut().for_each(|(key, value)| extend(value, key));
            // What is one of several has one key, which says which.
            let variant = ["at", "log", "logs"].contains(&key) && fields.len() == 1;
            if key != "grants" && !variant {
                fields.insert("later".into(), json!({"x": [1]}));
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| extend(value, key)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Reads a sample of each type as it is, extended, and as another version. Gives the types' names.
macro_rules! each {
    ($($name:ident: $sample:expr,)*) => {{
        let mut names = BTreeSet::new();
        $({
            let mut sample = $sample;
            sample["v"] = json!(1);
            let plain = sample.to_string();
            let first: $name = decode("sample", plain.as_bytes()).expect(stringify!($name));
            extend(&mut sample, "");
            let longer = sample.to_string();
            assert!(longer.len() > plain.len());
            let second: $name = decode("sample", longer.as_bytes()).expect(stringify!($name));
            assert_eq!(encode(&first), encode(&second), "{}", stringify!($name));
            for v in [json!(2), json!(0), json!("1"), Value::Null] {
                sample["v"] = v;
                let other = sample.to_string();
                assert!(decode::<$name>("sample", other.as_bytes()).is_err(), "{other}");
            }
            sample.as_object_mut().expect("an object").remove("v");
            assert!(decode::<$name>("sample", sample.to_string().as_bytes()).is_err(), "{sample}");
            names.insert(stringify!($name).to_owned());
        })*
        names
    }};
}

fn status() -> Value {
    json!({"v": 1, "epoch": 1, "version": 2, "teachers": 3, "waiting": 4, "chatting": 5, "finished": 6})
}

fn chat() -> Value {
    json!({"v": 1, "id": "c-1", "status": "finished", "teacher_id": 7, "student_id": "ada", "teacher_entered": true,
        "student_entered": false, "end": "requeued", "owes": ["terminated"], "since": "t"})
}

fn table() -> Value {
    let rows = json!([
        {"chan": 1, "n": 1, "at": {"teacher": {"id": 7, "capacity": 2, "said": {"auto": true}}}},
        {"chan": 2, "n": 1, "at": {"student": {"id": "ada", "ready": true}}},
        {"chan": 3, "n": 1, "at": {"chat": {"chat": "c-1", "role": "teacher", "entered": true}}},
        {"chan": 4, "n": 2, "at": {"left": {"lost": true}}},
    ]);
    json!({"gateway": "g", "whole": {"first": true, "last": true}, "rows": rows})
}

fn room_state() -> Value {
    json!({"title": {"value": "t"}, "quiet": {"value": true, "back": [5, false]}, "quiet_rank": {"value": 50},
        "grants": {"ada": {"value": 100}}})
}

fn feed_record() -> Value {
    let last = json!({"value": {"n": 1}, "version": [4, 1], "at": "t"});
    json!({"feed": "n:1", "owner": "h", "epoch": 4, "asked": 1, "last": last,
        "stale": {"since": "t", "reason": "r"}, "polled": {"at": "t", "polls": 3, "failed": 1}})
}

fn peer() -> Value {
    let members = json!([{"key": "ada:s", "chan": 1, "online_at": 5}]);
    json!({"gateway": "g", "asks": [["r", 3]],
        "parts": [{"room": "r", "version": 2, "piece": 0, "of": 1, "members": members}],
        "direct": {"room": "r", "chans": [1], "payload": {"a": 1}}})
}

fn entry() -> Value {
    let from = json!({"role": "student", "user_id": "ada", "session": "ada:s"});
    json!({"event": "new_msg", "payload": {"a": 1}, "from": from, "rank": 10, "id": "k", "at": "t"})
}

fn read_reply() -> Value {
    let room = json!({"since": 3, "state": room_state(), "keywords": [{"keyword": "tram", "expires_at": "t"}]});
    json!({"last_seq": 9, "dropped_to": 1, "complete": true, "ready": 2, "end": [8, "terminated"], "room": room,
        "void": false, "said": 7, "messages": []})
}

fn unlogged() -> Value {
    json!({"kind": "event", "event": "typing", "payload": {"a": 1}, "from": {"user_id": "ada", "session": "ada:s"},
        "gateway": "g", "chan": 4})
}

/// The types with a `v` in the source of this crate.
fn types_with_a_version() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(folder).expect("a folder") {
            let path = file.expect("a file").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = std::fs::read_to_string(&path).expect("text");
            let mut name = None;
            for line in source.split("#[cfg(test)]").next().unwrap_or_default().lines() {
                if let Some(rest) = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum ")) {
                    name = rest.split(|c: char| !c.is_alphanumeric()).next();
                } else if line.trim_start().trim_start_matches("pub ") == "v: V1," {
                    names.extend(name.map(str::to_owned));
                }
            }
        }
    }
    assert!(names.len() > 20, "{names:?}");
    names
}

#[test]
fn each_message_and_record_is_read_with_more_fields_and_refused_with_another_version() {
    let tested = each! {
        EpochRecord: json!({"epoch": 4, "leader": "m", "since": "t"}),
        LeaseRecord: json!({"holder": "m"}),
        TeacherRecord: json!({"id": 7, "capacity": 5, "auto": false, "away": true, "chats": ["c-1"], "since": "t"}),
        StudentRecord: json!({"id": "ada", "state": "chatting", "ticket": 3, "chat": "c-1", "since": "t"}),
        QueueRecord: json!({"student": "ada", "since": "t"}),
        ChatRecord: chat(),
        GatewayRecord: json!({"gateway": "g", "address": "a", "version": "0", "connections": 4, "since": "t"}),
        Table: table(),
        TableReply: json!({"epoch": 1, "resend": true, "refused": [[4, "queue_full"]], "status": status()}),
        Claim: json!({"gateway": "g", "chan": 1}),
        Terminate: json!({"chat": "c-1"}),
        Done: json!({"epoch": 1, "refused": "forbidden"}),
        Heartbeat: json!({"gateway": "g", "n": 3, "bye": true, "rooms": [["r", 4]]}),
        Status: status(),
        Push: json!({"epoch": 1, "new_chats": [{"chans": [1], "chat": chat(), "hold": true}],
            "positions": {"of": 3, "pace_ms": 10, "list": [[1, 1]]}, "resend": true}),
        Pushed: json!({"gone": [4]}),
        Leader: json!({"leader": "m", "status": status(), "waiting_since": "t"}),
        LobbyInside: json!({"leader": "m", "since": "t", "status": status(), "queue": [{"student": 7, "since": "t"}],
            "chats": [{"id": "c-1", "teacher": 7, "student": "ada", "since": "t"}]}),
        GatewayInside: json!({"gateway": "g", "connections": 1, "draining": true, "joins": 2, "messages": 3}),
        FeedRecord: feed_record(),
        Want: json!({"feed": "n:1", "keeps_secrets": true}),
        Wanted: json!({"feed": {"interval_ms": 100, "token": false, "secret": true}, "refused": "not_found"}),
        Told: json!({"version": [4, 1], "stale": {"since": "t", "reason": "r"}}),
        HistoryBeat: json!({"replica": "h", "feeds": ["n"], "leaving": true}),
        Entry: entry(),
        Read: json!({"log": {"chat": "c-1"}, "fresh": true, "after": 1, "before": 9, "limit": 5, "judge": 4}),
        ReadReply: read_reply(),
        Seen: json!({"logs": [[{"room": "r"}, 4]]}),
        Behind: json!({"logs": [[{"chat": "c-1"}, 4]]}),
        Delta: json!({"kind": "presence", "gateway": "g", "from": 1, "to": 2,
            "joins": [{"key": "ada:s", "chan": 1, "online_at": 5}], "leaves": [["bob:s", 2]]}),
        Peer: peer(),
        Head: json!({"kind": "event"}),
        UnloggedEvent: unlogged(),
        RoomRecord: json!({"since": 3, "phase": "closing", "seq": 5, "state": room_state()}),
        Live: json!({"kind": "keywords", "keywords": [{"keyword": "tram", "expires_at": "t"}]}),
        Disconnect: json!({"user": "ada"}),
    };
    assert_eq!(types_with_a_version(), tested, "a type without a sample, or one that is gone");
}

#[test]
fn who_rewrites_a_record_drops_the_fields_that_it_does_not_know() {
    let newer = json!({"v": 1, "since": 3, "phase": "open", "seq": 5, "state": room_state(), "later": true});
    let record: RoomRecord = decode("room_record", newer.to_string().as_bytes()).expect("a newer field");
    let older: Value = serde_json::from_slice(&encode(&record)).expect("JSON");
    assert_eq!(older.get("later"), None);
}
