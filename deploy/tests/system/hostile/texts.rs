//! Ids, topics and payloads of any text and any JSON: ids stay apart, and what is taken comes out as it went in.

use futures_util::future::join_all;
use serde_json::{Value, json};
use switchboard::client::{Client, Vsn};

use crate::harness::{A_WHILE, SOON, Student, System, Teacher, meet, say};
use crate::raw;

/// Ids that are legal, and mean something to somebody on the way; some are what others become when they are escaped.
fn ids() -> Vec<String> {
    let mut ids: Vec<String> = [
        ".",
        "..",
        "a.b",
        "a.",
        ".a",
        "*",
        ">",
        "a.*",
        "a.>",
        "a b",
        " ",
        "\n",
        "\r\n",
        "\t",
        "\0",
        "a\0b",
        "=",
        "=2E",
        "a=2Eb",
        "a=2eb",
        "%2E",
        "a%20b",
        "\u{1f98a}",
        "\u{e9}",
        "e\u{301}",
        "\u{feff}",
        "\u{202e}",
        "A",
        "a",
        "$KV",
        "_INBOX",
        "\"",
        "\\",
        "'",
        "{}",
        "null",
        "__proto__",
        "constructor",
        "/",
        "../..",
        "<script>",
    ]
    .map(str::to_owned)
    .into();
    ids.push("=".repeat(128));
    ids.push("\u{1f98a}".repeat(32));
    ids.push("\0".repeat(128));
    ids
}

/// Each room hears what is said there and nothing else; each student is a student of its own, and can chat.
pub(super) async fn ids_of_any_kind_stay_apart(system: &System) {
    let mut speaks = raw::client(&system.gateway(0), Vsn::V2).await;
    let mut hears = raw::client(&system.gateway(1), Vsn::V1).await;
    for client in [&mut speaks, &mut hears] {
        for id in ids() {
            let reply = client.join(&format!("room:{id}"), json!({"userId": id, "session_id": "s"})).await;
            assert!(reply.expect("a reply").ok, "{id:?}");
        }
    }
    for id in ids() {
        let reply = speaks.push(&format!("room:{id}"), "new_msg", json!({"broadcast": true, "text": id})).await;
        assert!(reply.expect("a reply").ok, "{id:?}");
    }
    for id in ids() {
        let heard = hears.expect_on(&format!("room:{id}"), "new_msg", SOON).await.expect("a message").payload;
        assert_eq!((&heard["text"], &heard["from"]["user_id"]), (&json!(id), &json!(id)));
    }
    hears.expect_none("new_msg", A_WHILE).await.expect("each once, in its own room");

    // Students of all these names wait, and a teacher of such a name gets each of them.
    let before = system.lobby_keys().await;
    let mut teacher = Teacher::on(raw::client(&system.gateway(1), Vsn::V2).await, json!("*.>")).await;
    let students = join_all(ids().into_iter().enumerate().map(async |(n, id)| {
        let client = raw::client(&system.gateway(n % 2), Vsn::V2).await;
        let mut student = Student::on(client, json!(id)).await;
        student.ready().await;
        student
    }))
    .await;
    let keys = system.lobby_keys().await;
    assert_eq!(keys.difference(&before).count(), 1 + 2 * students.len(), "a teacher, and students that wait");
    for _ in 0..students.len() {
        let chat = teacher.claim().await;
        let student = &chat["student_id"];
        let topic = format!("chats:{}", chat["id"].as_str().expect("an id"));
        assert!(students.iter().any(|known| known.id == *student), "{student}");
        teacher.join(&chat).await;
        assert!(teacher.client.push(&topic, "chat:terminate", json!({})).await.expect("a reply").ok);
    }
    for mut student in students {
        assert_eq!(student.new_chat().await["student_id"], student.id);
        student.client.expect_none("new:chat", std::time::Duration::ZERO).await.expect("one chat each");
    }
}

/// JSON that is legal, and that many a parser stumbles over.
fn values() -> Vec<String> {
    let mut values: Vec<String> = [
        "null",
        "-0",
        "0.10",
        "1E5",
        "1e-400",
        "1180591620717411303424",
        "9007199254740993",
        r#""\u0000""#,
        r#""\u2028\/""#,
        "\"\u{1f98a}\"",
        "\"\u{7f}\u{feff}\u{ffff}\"",
        r#"{"a":1,"a":2}"#,
        r#"{"__proto__":{"a":1},"constructor":null}"#,
        "{ \"a\" :\t[ ] }",
        r#"{"seq":1,"from":2,"id":[]}"#,
        r#"".*> \n""#,
    ]
    .map(str::to_owned)
    .into();
    for part in [".", "*", ">", " ", "\\n", "\\u0000", "\u{1f98a}", "\u{e9}"] {
        values.push(format!("\"{}\"", part.repeat(10_000 / part.len())));
    }
    values.push(format!("{}{}", "[".repeat(63), "]".repeat(63)));
    values.push(format!("{}1{}", r#"{"a":"#.repeat(63), "}".repeat(63)));
    values
}

/// Sends a push as it stands; gives its reply.
async fn push(client: &mut Client, topic: &str, event: &str, payload: &str) -> (bool, Value) {
    let reference = client.socket().next_ref();
    let topic = json!(topic);
    let frame = match client.socket().vsn() {
        Vsn::V1 => format!(r#"{{"topic":{topic},"event":"{event}","payload":{payload},"ref":"{reference}"}}"#),
        Vsn::V2 => format!(r#"[null,"{reference}",{topic},"{event}",{payload}]"#),
    };
    client.socket().send_text(frame).expect("sent");
    client.socket().flush().await.expect("sent");
    let reply = client.reply(reference).await.unwrap_or_else(|error| panic!("{error} behind {event} {payload}"));
    (reply.ok, reply.response)
}

/// The beginning of a text.
fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

/// The text of the next frame with this event.
async fn heard(client: &mut Client, event: &str) -> String {
    let wanted = format!("\"{event}\"");
    loop {
        let incoming = tokio::time::timeout(SOON, client.socket().next()).await.expect("in time").expect("a frame");
        if let Some(text) = incoming.text().filter(|text| text.contains(&wanted)) {
            return text.to_owned();
        }
    }
}

/// In rooms and in chats, from either serializer to the other, live and in the history.
pub(super) async fn what_is_taken_comes_out_unchanged(system: &System) {
    for (speaks, hears) in [(Vsn::V1, Vsn::V2), (Vsn::V2, Vsn::V1)] {
        let topic = format!("room:values-{}", speaks.as_str());
        let mut ada = raw::client(&system.gateway(0), speaks).await;
        let mut bob = raw::client(&system.gateway(1), hears).await;
        for (client, user) in [(&mut ada, "ada"), (&mut bob, "bob")] {
            assert!(client.join(&topic, json!({"userId": user, "session_id": "s"})).await.expect("a reply").ok);
        }
        let name = |what: &str| format!("{what}-{}", speaks.as_str());
        let mut teacher = Teacher::on(raw::client(&system.gateway(0), speaks).await, json!(name("values-t"))).await;
        let mut student = Student::on(raw::client(&system.gateway(1), hears).await, json!(name("values-s"))).await;
        student.ready().await;
        let chat = meet(&mut teacher, &mut student).await;
        for value in values() {
            let shown = shown(&value);
            // Under a name of its own, and under the names that the server reads, or might.
            for (event, payload) in [
                ("new_msg", format!(r#"{{"broadcast":true,"x":{value}}}"#)),
                ("new_msg", format!(r#"{{"broadcast":true,"text":{value}}}"#)),
                ("new_msg", format!(r#"{{"to":[{{"userId":"bob"}}],"text":{value}}}"#)),
                ("new_message", format!(r#"{{"body":{value}}}"#)),
                ("typing", format!(r#"{{"broadcast":{value}}}"#)),
            ] {
                let (ok, response) = push(&mut ada, &topic, event, &payload).await;
                assert!(ok, "{event} {shown}: {response}");
                let text = heard(&mut bob, event).await;
                assert!(text.contains(&value), "{event} {shown} came as {text}");
            }
            let (ok, response) =
                push(&mut teacher.client, &chat, "teacher:send", &format!(r#"{{"message":{value}}}"#)).await;
            assert!(ok, "{shown}: {response}");
            let text = heard(&mut student.client, "student:receive").await;
            assert!(text.contains(&value), "{shown} came as {text}");
            for (client, topic) in [(&mut bob, &topic), (&mut student.client, &chat)] {
                let topic = json!(topic);
                let frame = match hears {
                    Vsn::V1 => format!(r#"{{"topic":{topic},"event":"history","payload":{{"limit":1}},"ref":"h"}}"#),
                    Vsn::V2 => format!(r#"[null,"h",{topic},"history",{{"limit":1}}]"#),
                };
                client.socket().send_text(frame).expect("sent");
                client.socket().flush().await.expect("sent");
                let text = heard(client, "phx_reply").await;
                assert!(text.contains(&value) && text.contains("\"ok\""), "{shown} came as {text}");
            }
        }
        say(&mut teacher.client, &mut student.client, &chat, "teacher", "still here").await;
        assert!(student.client.leave(&student.topic).await.expect("a reply").ok);
        assert!(teacher.client.leave("presence:teachers").await.expect("a reply").ok);
    }
}

/// What cannot be understood, or is too much, where the server has to understand it.
pub(super) async fn what_is_refused_says_why(system: &System) {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_objects = format!("{}1{}", r#"{"a":"#.repeat(5_000), "}".repeat(5_000));
    let too_deep = format!("{}{}", "[".repeat(64), "]".repeat(64));
    let large = format!("\"{}\"", "x".repeat(40_000));
    let no_ids = [
        "1e400",
        "1.5",
        "1180591620717411303424",
        "\"\\ud800\"",
        "null",
        "[]",
        "{}",
        "true",
        "\"\"",
        "\"a:b\"",
        &*deep,
        &*too_deep,
    ];
    let long = format!("\"{}\"", "x".repeat(129));
    let mut joins: Vec<(&str, String)> = Vec::new();
    for id in no_ids.iter().copied().chain([&*long]) {
        // In a room nobody in particular may be anybody.
        if id != "null" {
            joins.push(("room:refused", format!(r#"{{"userId":{id}}}"#)));
        }
        if id != "\"a:b\"" {
            joins.push(("presence:teachers", format!(r#"{{"userId":{id},"role":"teacher"}}"#)));
            joins.push(("presence:student:x", format!(r#"{{"userId":{id},"role":"student"}}"#)));
            joins.push(("chats:x", format!(r#"{{"userId":{id},"role":"student"}}"#)));
        }
    }
    for key in ["userId", "role", "capacity", "auto", "away", "last_seq"] {
        joins.push(("presence:teachers", format!(r#"{{"userId":1,"role":"teacher","{key}":[],"{key}":[]}}"#)));
    }
    for (key, value) in [("rank", "1e400"), ("rank", "1180591620717411303424"), ("rank", "\"10\""), ("last_seq", "-1")]
    {
        joins.push(("room:refused", format!(r#"{{"{key}":{value}}}"#)));
    }
    joins.push(("room:refused", format!(r#"{{"x":{deep_objects}}}"#)));
    joins.push(("room:refused", r#"{"userId":"a","userId":"b"}"#.to_owned()));
    joins.push(("feed:lobby", format!(r#"{{"x":{deep}}}"#)));
    let mut pushes: Vec<(&str, String)> = Vec::new();
    for id in ["1e400", "1.5", "1180591620717411303424", "\"\\ud800\"", "null", "[]", "\"\"", &*long, &*deep] {
        pushes.push(("new_msg", format!(r#"{{"broadcast":true,"id":{id}}}"#)));
        pushes.push(("new_message", format!(r#"{{"body":1,"id":{id}}}"#)));
        pushes.push(("new_msg", format!(r#"{{"to":[{{"userId":{id}}}]}}"#)));
    }
    for payload in [
        "null",
        "[]",
        "1",
        "\"x\"",
        &deep,
        &deep_objects,
        r#"{"broadcast":true,"broadcast":true}"#,
        r#"{"broadcast":1}"#,
        r#"{"to":{}}"#,
        r#"{"to":[1]}"#,
        r#"{"to":[{"session":"\ud800:s"}]}"#,
        &format!(r#"{{"broadcast":true,"x":{too_deep}}}"#),
        r#"{"broadcast":true,"\ud800":1}"#,
        r#"{"broadcast":true,"text":"\ud800"}"#,
        r#"{"broadcast":true,"x":[1e400]}"#,
    ] {
        pushes.push(("new_msg", payload.to_owned()));
    }
    for (event, payload) in [
        ("typing", &*deep),
        ("history", r#"{"limit":0}"#),
        ("history", r#"{"limit":101}"#),
        ("history", r#"{"before":-1}"#),
        ("history", r#"{"before":1e400}"#),
        ("history", r#"{"after":1180591620717411303424}"#),
        ("room:update", r#"{"title":"\ud800"}"#),
        ("room:update", r#"{"title":[]}"#),
        ("room:update", r#"{"quiet":"yes"}"#),
        ("room:update", r#"{"quiet":true,"for_seconds":4294967296}"#),
        ("room:grant", r#"{"user_id":"\ud800","rank":1}"#),
        ("room:grant", r#"{"user_id":1,"rank":1e400}"#),
        ("access_token", "[]"),
    ] {
        pushes.push((event, payload.to_owned()));
    }
    for vsn in [Vsn::V1, Vsn::V2] {
        let mut client = raw::client(&system.gateway(0), vsn).await;
        let refused = async |client: &mut Client, topic: &str, event: &str, payload: &str| {
            let (ok, response) = push(client, topic, event, payload).await;
            let shown = shown(payload);
            assert!(!ok, "{vsn:?} {event} on {topic} {shown}: {response}");
            response["reason"].as_str().expect("a reason").to_owned()
        };
        for (topic, payload) in &joins {
            let reason = refused(&mut client, topic, "phx_join", payload).await;
            assert_eq!(reason, "invalid_payload", "{topic} {}", shown(payload));
        }
        let topic = format!("room:refused-{}", vsn.as_str());
        assert!(client.join(&topic, json!({"rank": 100})).await.expect("a reply").ok);
        for (event, payload) in &pushes {
            let reason = refused(&mut client, &topic, event, payload).await;
            assert_eq!(reason, "invalid_payload", "{event} {}", shown(payload));
        }
        for event in ["new_msg", "typing", "history"] {
            let payload = format!(r#"{{"broadcast":true,"x":{large}}}"#);
            assert_eq!(refused(&mut client, &topic, event, &payload).await, "payload_too_large");
        }
        // What would be the largest of all sequences is one.
        let (ok, response) = push(&mut client, &topic, "history", r#"{"before":18446744073709551615,"after":0}"#).await;
        assert!(ok, "{response}");
        let ahead = json!({"rank": 100, "last_seq": u64::MAX});
        assert!(client.join(&topic, ahead).await.expect("a reply").ok);
        assert!(client.push(&topic, "new_msg", json!({"broadcast": true})).await.expect("a reply").ok);
    }
}
