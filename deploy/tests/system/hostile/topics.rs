//! Topics that are not there, that are joined already, and that are somebody else's.

use serde_json::{Value, json};
use switchboard::client::{Client, Vsn};
use switchboard_contract::testing::eventually;

use crate::harness::{A_WHILE, SOON, Student, System, Teacher, chat, meet, say};
use crate::raw;

const TOPICS: &str = "switchboard_gateway_topics";

/// A hundred joins, each with a message behind it, on one socket and on twenty.
pub(super) async fn joins_of_chats_that_are_not(system: &System) {
    let gateway = &system.gateways[0].1;
    let before = gateway.metric(TOPICS).await;
    let round = async |who: usize| {
        let mut client = raw::client(&system.gateway(0), Vsn::V2).await;
        for n in 0..100 {
            let topic = format!("chats:none-{}", n % 7);
            let payload = json!({"userId": format!("nobody-{who}"), "role": "student"});
            let reply = client.join(&topic, payload).await.expect("a reply");
            assert_eq!(reply.reason(), Some("not_found"));
            let reply = client.push(&topic, "student:send", json!({"message": n})).await.expect("a reply");
            assert_eq!(reply.reason(), Some("unmatched topic"));
        }
        client
    };
    let one = round(0).await;
    let twenty = futures_util::future::join_all((1..=20).map(round)).await;
    eventually("no topic is left of it", async || gateway.metric(TOPICS).await <= before).await;
    drop((one, twenty));
}

/// What a topic is joined with, and an event that comes to its members.
struct Joined {
    topic: String,
    payload: Value,
    event: &'static str,
}

/// Rooms, chats, the lobby and a feed, with both serializers: the second join takes the place of the first.
pub(super) async fn the_same_topic_twice(system: &System) {
    for vsn in [Vsn::V1, Vsn::V2] {
        let name = |what: &str| format!("twice-{what}-{}", vsn.as_str());
        let (mut teacher, mut student, chat) = chat(system, name("t"), name("s")).await;
        let joined = |topic: &str, payload: Value, event| Joined { topic: topic.to_owned(), payload, event };
        let (extra, idle) = (name("extra"), name("idle"));
        let room = format!("room:{}", name("room"));
        let all = [
            joined(&chat, json!({"userId": name("s"), "role": "student"}), "student:receive"),
            joined(&room, json!({"userId": "twice", "session_id": "s"}), "typing"),
            joined("presence:teachers", json!({"userId": idle, "role": "teacher", "away": true}), "user:status"),
            joined("feed:lobby", json!({}), "update"),
        ];
        let mut client = raw::client(&system.gateway(0), vsn).await;
        for Joined { topic, payload, .. } in &all {
            let mut first = 0;
            for _ in 0..2 {
                let reply = client.send_join(topic, payload).await.expect("sent");
                first = if first == 0 { reply } else { first };
                let reply = client.reply(reply).await.expect("a reply");
                assert!(reply.ok, "{topic}: {reply:?}");
            }
            if vsn == Vsn::V2 {
                let closed = client.expect_on(topic, "phx_close", SOON).await.expect("phx_close");
                let first = Some(first.to_string());
                assert_eq!((&closed.join_ref, &closed.reference), (&first, &first), "{topic}");
            }
        }
        client.expect_none("phx_close", A_WHILE).await.expect("the second joins live on");
        while client.expect("user:status", A_WHILE).await.is_ok() {}
        while client.expect("update", A_WHILE).await.is_ok() {}

        say(&mut teacher.client, &mut client, &chat, "teacher", "once").await;
        let mut loud = system.client(1, Vsn::V2).await;
        assert!(loud.join(&room, json!({})).await.expect("a reply").ok);
        assert!(loud.push(&room, "typing", json!({})).await.expect("a reply").ok);
        client.expect_on(&room, "typing", SOON).await.expect("an event");
        // A change of the lobby, which the feed tells too.
        let mut ready = system.student(extra).await;
        client.expect_on("presence:teachers", "user:status", SOON).await.expect("an event");
        client.expect_on("feed:lobby", "update", SOON).await.expect("an event");
        for Joined { topic, event, .. } in &all {
            let again = client.expect_none(event, A_WHILE).await;
            assert!(again.is_ok(), "{event} on {topic} came twice: {again:?}");
        }
        assert!(ready.client.leave(&ready.topic).await.expect("a reply").ok);
        assert!(teacher.client.push(&chat, "chat:terminate", json!({})).await.expect("a reply").ok);
        assert!(student.client.leave(&student.topic).await.expect("a reply").ok);
        assert!(teacher.client.leave("presence:teachers").await.expect("a reply").ok);
        assert!(client.leave("presence:teachers").await.expect("a reply").ok);
    }
}

/// Somebody else's chat, and the names that the server uses inside.
pub(super) async fn what_is_somebody_elses(system: &System) {
    let mut teacher = Teacher::on(system.client(1, Vsn::V2).await, json!("owner-t")).await;
    let mut student: Student = system.student("owner-s").await;
    let chat = meet(&mut teacher, &mut student).await;
    let id = chat.strip_prefix("chats:").expect("a chat");
    for vsn in [Vsn::V1, Vsn::V2] {
        let mut eve = raw::client(&system.gateway(0), vsn).await;
        for (user, role) in [("eve", "student"), ("eve", "teacher"), ("owner-t", "student"), ("owner-s", "teacher")] {
            let reply = eve.join(&chat, json!({"userId": user, "role": role})).await.expect("a reply");
            assert_eq!(reply.reason(), Some("unauthorized"), "{user} as {role}");
        }
        for event in ["student:send", "teacher:send", "history", "chat:terminate", "student:joined"] {
            let reply = eve.push(&chat, event, json!({"message": "x"})).await.expect("a reply");
            assert_eq!(reply.reason(), Some("unmatched topic"), "{event}");
        }
        let who = json!({"userId": "eve", "role": "student"});
        for topic in ["chats:*", "chats:>", "chats:*.>", "chats:out.chat.>", &format!("chats:{id}.>")] {
            assert_eq!(eve.join(topic, &who).await.expect("a reply").reason(), Some("not_found"), "{topic}");
        }
        let inside = format!("sb.out.chat.{id}");
        let others =
            ["sb.gateway.>", "sb.out.>", "sb.log.>", "$KV.lobby.epoch", "$JS.API.STREAM.PURGE.ROOMS", "_INBOX.>"];
        for topic in others.into_iter().chain([&*inside, "*", ">", "phoenix", "", "chats", "chats:", "presence:>"]) {
            for event in ["phx_join", "teacher:send"] {
                let reply = eve.push(topic, event, &who).await.expect("a reply");
                assert_eq!(reply.reason(), Some("unmatched topic"), "{event} on {topic}");
            }
        }
        // Rooms may be called so. They are rooms like others.
        for room in others.into_iter().chain([&*inside, "*", ">", id]) {
            let reply = eve.join(&format!("room:{room}"), json!({"userId": "eve"})).await.expect("a reply");
            assert!(reply.ok, "{room}: {reply:?}");
            let reply = eve.push(&format!("room:{room}"), "new_msg", json!({"broadcast": true, "text": room})).await;
            assert!(reply.expect("a reply").ok, "{room}");
        }
        say(&mut teacher.client, &mut student.client, &chat, "teacher", "between us").await;
        say(&mut student.client, &mut teacher.client, &chat, "student", "only").await;
        nothing_leaked(&mut eve).await;
    }
    assert!(student.client.leave(&student.topic).await.expect("a reply").ok);
    assert!(teacher.client.leave("presence:teachers").await.expect("a reply").ok);
}

/// It saw replies, and who is in its own rooms, and nothing else.
async fn nothing_leaked(eve: &mut Client) {
    eve.expect_none("student:receive", A_WHILE).await.expect("nothing");
    let seen = |event: &str| matches!(event, "presence_state" | "presence_diff" | "keywords" | "phx_close");
    let unread = eve.unread();
    assert!(unread.iter().all(|message| seen(&message.event)), "{unread:?}");
    assert!(unread.iter().all(|message| !message.payload.to_string().contains("owner-")), "{unread:?}");
}
