//! A service of another version beside these: what it says is refused and counted, and all else goes on.

use std::cell::Cell;

use async_nats::Client;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use switchboard::client::Vsn;
use switchboard_contract::names::{
    self, ChatId, FeedId, GATEWAYS_DISCONNECT, HISTORY_BEHIND, HISTORY_FEED, HISTORY_GATEWAYS, HISTORY_READ,
    Incarnation, LOBBY_STATUS, LobbyKey, LogName, MatcherVerb, RoomId, UserId, room_record_subject,
};
use switchboard_contract::testing::eventually;

use crate::feed_member::{Member as FeedMember, WITH_FEEDS};
use crate::harness::{Shape, System, chat, say};
use crate::process::Process;
use crate::rooms::Member;

/// As a newer version might say it: beside the `v`, everything that this one looks for.
fn newer(fields: &Value) -> Vec<u8> {
    let mut message = fields.clone();
    message["v"] = json!(2);
    message.to_string().into_bytes()
}

/// What a newer service says to these.
async fn says(nats: &Client, subject: &str, fields: &Value) {
    nats.publish(subject.to_owned(), newer(fields).into()).await.expect("a connection");
}

/// A request that is answered with a refusal.
async fn is_refused(nats: &Client, subject: &str, fields: &Value) {
    let answer = nats.request(subject.to_owned(), newer(fields).into()).await.expect("an answer");
    let headers = answer.headers.expect("an error");
    assert_eq!(headers.get("Nats-Service-Error-Code").map(|code| code.as_str()), Some("400"), "{subject}: {headers:?}");
}

/// Waits until this process has refused something of each of these kinds.
async fn has_refused(process: &Process, kinds: &[&str]) {
    for kind in kinds {
        let name = format!("switchboard_messages_refused_total{{kind=\"{kind}\"}}");
        eventually(&format!("{kind} is refused, and counted"), async || process.metric(&name).await.is_some()).await;
    }
}

/// The name of gateway 0, as its record has it.
async fn name_of_gateway(system: &System, nats: &Client) -> Incarnation {
    let address = format!("127.0.0.1:{}", system.gateways[0].0);
    let records = async_nats::jetstream::new(nats.clone()).get_key_value("gateways").await.expect("the bucket");
    let name = Cell::new(None);
    eventually("a gateway's record", async || {
        let mut keys = records.keys().await.expect("keys");
        while let Some(Ok(key)) = keys.next().await {
            let record = records.get(&key).await.expect("an answer").unwrap_or_default();
            let record: Value = serde_json::from_slice(&record).unwrap_or_default();
            if record["address"] == address {
                name.set(record["gateway"].as_str().map(str::to_owned));
            }
        }
        let found = name.take();
        name.set(found.clone());
        found.is_some()
    })
    .await;
    Incarnation::named(&name.take().expect("just found")).expect("a name")
}

#[tokio::test]
async fn what_a_newer_version_says_is_refused_and_counted_and_all_goes_on() {
    let Some(mut system) = System::of(Shape { matchers: 2, ..Shape::history(&WITH_FEEDS) }).await else { return };
    let nats = system.nats.client().await;
    let (mut teacher, mut student, topic) = chat(&system, "t", "s").await;
    let mut waiting = [system.student("one").await, system.student("two").await];
    let (mut ada, mut bob) =
        (Member::on(&system, 0, Vsn::V2, "ada", 100).await, Member::on(&system, 1, Vsn::V1, "bob", 10).await);
    let feed = FeedMember::join(&system, 0, Vsn::V2, "feed:lobby").await;
    let first = name_of_gateway(&system, &nats).await;

    // Logs, and what comes beside them.
    let chat_id = ChatId::new(topic.strip_prefix("chats:").expect("a chat")).expect("an id");
    let room = RoomId::new("r").expect("an id");
    let logs = [LogName::Chat(chat_id.clone()), LogName::Room(room.clone())];
    let entry = json!({"event": "new_msg", "payload": {"text": "later"}, "id": "k", "at": "t"});
    for log in &logs {
        let stored = nats.request(log.log_subject(), newer(&entry).into()).await.expect("an answer");
        assert!(serde_json::from_slice::<Value>(&stored.payload).expect("JSON")["seq"].is_u64());
    }
    let out = logs[1].out_subject();
    says(&nats, &out, &json!({"kind": "presence", "gateway": "newer", "from": 0, "to": 1})).await;
    let typing = json!({"user_id": "x", "session": "x:y"});
    says(&nats, &out, &json!({"kind": "event", "event": "typing", "payload": {}, "from": typing})).await;
    // Gateways, matchers and history to each other.
    says(&nats, &names::gateway_rooms(&first), &json!({"gateway": "newer", "asks": [["r", 0]]})).await;
    let newer_gateway = Incarnation::named("newer").expect("a name");
    says(&nats, &names::alive_gateway(&newer_gateway), &json!({"gateway": "newer", "n": 1})).await;
    says(&nats, &names::alive_history(&newer_gateway), &json!({"replica": "newer", "feeds": ["lobby"]})).await;
    says(&nats, GATEWAYS_DISCONNECT, &json!({"user": "ada"})).await;
    says(&nats, &names::gateway_subject(&first), &json!({"epoch": 99, "resend": true})).await;
    let counts =
        json!({"epoch": 99, "version": 1_u64 << 50, "teachers": 0, "waiting": 0, "chatting": 0, "finished": 0});
    says(&nats, LOBBY_STATUS, &counts).await;
    let lobby = FeedId::new("lobby").expect("a feed");
    says(&nats, &lobby.out_subject(), &json!({"version": [1_u64 << 50, 1]})).await;
    is_refused(&nats, &MatcherVerb::Table.subject(), &json!({"gateway": "newer", "rows": []})).await;
    is_refused(&nats, &MatcherVerb::Claim.subject(), &json!({"gateway": first, "chan": 1})).await;
    is_refused(&nats, &MatcherVerb::Terminate.subject(), &json!({"chat": chat_id})).await;
    is_refused(&nats, HISTORY_READ, &json!({"log": {"room": "r"}})).await;
    is_refused(&nats, HISTORY_BEHIND, &json!({"logs": []})).await;
    is_refused(&nats, HISTORY_FEED, &json!({"feed": "lobby"})).await;
    // Records.
    let closed = RoomId::new("newer").expect("an id");
    let user = |id: &str| UserId::text(id).expect("an id");
    let newer_chat = ChatId::new("newer-1").expect("an id");
    let gateways_feed = FeedId::new("gateways").expect("a feed");
    let records = [
        (room_record_subject(&closed), json!({"since": 1, "phase": "open", "seq": 1, "later": true})),
        (gateways_feed.record_subject(), json!({"feed": "gateways", "owner": "newer", "epoch": 1, "asked": 1})),
        (LobbyKey::Student(user("later")).subject(), json!({"id": "later", "state": "waiting", "ticket": 1})),
        (LobbyKey::Teacher(user("later")).subject(), json!({"id": "later", "capacity": 5})),
        (LobbyKey::Queue(1 << 40).subject(), json!({"student": "later"})),
        (LobbyKey::Chat(newer_chat.clone()).subject(), json!({"id": newer_chat, "status": "active"})),
        (names::gateway_record_subject(&newer_gateway), json!({"gateway": "newer"})),
    ];
    for (subject, record) in &records {
        nats.request(subject.clone(), newer(record).into()).await.expect("it is stored");
    }

    // What only a newer version can read is not available, and is left as it is.
    let mut visitor = system.client(0, Vsn::V2).await;
    let reply = visitor.join("room:newer", json!({"userId": "v"})).await.expect("a reply");
    assert_eq!(reply.reason(), Some("unavailable"));
    let reply = visitor.join("chats:newer-1", json!({"userId": "later", "role": "student"})).await.expect("a reply");
    assert_eq!(reply.reason(), Some("unavailable"));
    has_refused(&system.gateways[0].1, &["entry", "unlogged", "peer", "heartbeat", "disconnect"]).await;
    has_refused(&system.gateways[0].1, &["push", "status", "told", "room_record", "chat"]).await;
    has_refused(&system.histories[0], &["entry", "history_beat", "history_read", "history_behind", "want"]).await;
    let answer = nats.request(HISTORY_GATEWAYS, "{}".into()).await.expect("an answer");
    assert_eq!(serde_json::from_slice::<Value>(&answer.payload).expect("JSON")["total"]["gateways"], 2);
    has_refused(&system.histories[0], &["feed_record", "gateway_record"]).await;
    let leader = system.leader().await;
    has_refused(&system.matchers[leader], &["table", "claim", "terminate", "heartbeat"]).await;

    // All goes on, also with a leader that begins with these records.
    for round in ["before", "after"] {
        say(&mut teacher.client, &mut student.client, &topic, "teacher", round).await;
        say(&mut student.client, &mut teacher.client, &topic, "student", round).await;
        ada.say(round).await;
        assert_eq!(bob.event("new_msg").await["text"], round);
        let mark = feed.mark();
        let [student, rest @ ..] = &mut waiting;
        let claimed = if round == "before" { student } else { &mut rest[0] };
        assert_eq!(teacher.claim_in_trouble().await["student_id"], claimed.id);
        claimed.new_chat().await;
        feed.hears(mark, "update", |update| !update["value"].is_null()).await;
        if round == "before" {
            let killed = system.kill_leader().await;
            let next = system.leader().await;
            assert_ne!(next, killed);
            has_refused(&system.matchers[next], &["student", "teacher", "queue", "chat"]).await;
        }
    }
    for client in [&teacher.client, &student.client, &ada.client, &bob.client] {
        assert!(client.unread().iter().all(|message| message.event != "gap"), "{:?}", client.unread());
    }
    let context = async_nats::jetstream::new(nats.clone());
    for (subject, record) in &records[..6] {
        let bucket = subject.split('.').nth(1).expect("a bucket");
        let stream = context.get_stream(format!("KV_{bucket}")).await.expect("the stream");
        let last = stream.get_last_raw_message_by_subject(subject).await.expect("it stays");
        assert_eq!(last.payload[..], newer(record)[..], "{subject}");
    }
    let said = ada.push("history", json!({})).await.response["messages"].take();
    let said: Vec<&Value> =
        said.as_array().expect("messages").iter().map(|message| &message["payload"]["text"]).collect();
    assert_eq!(said, ["before", "after"]);
}
