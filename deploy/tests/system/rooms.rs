//! Rooms as their members meet them: on two gateways, with both serializers.

use serde_json::{Value, json};
use switchboard::client::{Client, Reply, Vsn};
use switchboard_contract::testing::eventually;

use crate::harness::{A_WHILE, SOON, Shape, System};

/// A member of room `r`.
pub(crate) struct Member {
    pub(crate) client: Client,
    name: &'static str,
    rank: i64,
    pub(crate) last_seq: u64,
}

pub(crate) const ROOM: &str = "room:r";

impl Member {
    /// One that has joined, and was told who is there.
    pub(crate) async fn on(system: &System, gateway: usize, vsn: Vsn, name: &'static str, rank: i64) -> Member {
        let mut client = system.client(gateway, vsn).await;
        let payload = json!({"userId": name, "session_id": "s", "rank": rank});
        let reply = client.join(ROOM, payload).await.expect("a reply");
        assert!(reply.ok, "{reply:?}");
        assert_eq!((&reply.response["rank"], &reply.response["recovered"]), (&json!(rank), &json!(true)));
        client.expect_on(ROOM, "presence_state", SOON).await.expect("who is there");
        Member { client, name, rank, last_seq: reply.response["last_seq"].as_u64().expect("a sequence") }
    }

    /// On another gateway, with what it has already.
    async fn move_to(&mut self, system: &System, gateway: usize) -> Reply {
        self.client = system.client(gateway, Vsn::V2).await;
        self.rejoin().await
    }

    /// On its new socket, with what it has already.
    pub(crate) async fn rejoin(&mut self) -> Reply {
        let payload = json!({"userId": self.name, "session_id": "s", "rank": self.rank, "last_seq": self.last_seq});
        self.client.join(ROOM, payload).await.expect("a reply")
    }

    pub(crate) async fn push(&mut self, event: &str, payload: Value) -> Reply {
        self.client.push(ROOM, event, payload).await.expect("a reply")
    }

    /// Says something that counts; gives its sequence.
    pub(crate) async fn say(&mut self, text: &str) -> u64 {
        let reply = self.push("new_msg", json!({"broadcast": true, "text": text})).await;
        assert!(reply.ok, "{reply:?}");
        reply.response["seq"].as_u64().expect("a sequence")
    }

    /// The next event of this name.
    pub(crate) async fn event(&mut self, event: &str) -> Value {
        let payload = self.client.expect_on(ROOM, event, SOON).await.expect("an event").payload;
        self.last_seq = payload["seq"].as_u64().unwrap_or(self.last_seq);
        payload
    }

    pub(crate) async fn none(&mut self, event: &str) {
        self.client.expect_none(event, A_WHILE).await.expect("nothing");
    }
}

#[tokio::test]
async fn a_room_on_two_gateways_with_both_serializers() {
    let Some(system) = System::start().await else { return };
    let mut ada = Member::on(&system, 0, Vsn::V2, "ada", 10).await;
    let mut bob = Member::on(&system, 1, Vsn::V1, "bob", 10).await;
    let seq = ada.say("hello").await;
    let heard = bob.event("new_msg").await;
    assert_eq!((&heard["text"], &heard["seq"]), (&json!("hello"), &json!(seq)));
    assert_eq!(heard["from"], json!({"user_id": "ada", "session": "ada:s"}));
    assert!(heard["id"].is_string() && heard["at"].is_string(), "{heard}");
    ada.none("new_msg").await;

    // Reserved keys are the server's, on both forms of a message.
    let payload = json!({"body": "x", "from": 1, "seq": 1, "at": 1, "user": "eve"});
    let reply = bob.push("new_message", payload).await;
    for member in [&mut ada, &mut bob] {
        let said = member.event("new_message").await;
        assert_eq!((&said["user"], &said["seq"], &said["body"]), (&json!("bob"), &reply.response["seq"], &json!("x")));
        assert!(said["timestamp"].is_string() && said.get("from").is_none(), "{said}");
    }
    bob.push("new_msg", json!({"broadcast": true, "from": 1, "seq": 1, "at": 1})).await;
    let heard = ada.event("new_msg").await;
    assert_eq!(heard["from"]["user_id"], "bob");
    for neither in [json!({}), json!({"broadcast": true, "to": []})] {
        assert_eq!(ada.push("new_msg", neither).await.reason(), Some("invalid_payload"));
    }

    // Typing, for the others, and not logged.
    assert!(ada.push("typing", json!({"on": true})).await.ok);
    assert_eq!(bob.event("typing").await, json!({"on": true, "from": {"user_id": "ada", "session": "ada:s"}}));
    ada.none("typing").await;

    let history = bob.push("history", json!({"limit": 2})).await.response;
    assert_eq!(history["messages"].as_array().map(Vec::len), Some(2));
    assert_eq!((&history["complete"], &history["messages"][0]["event"]), (&json!(false), &json!("new_message")));
    let after = json!({"after": history["messages"][0]["seq"]});
    let newer = bob.push("history", after).await.response;
    assert_eq!(newer["messages"][0]["from"], json!({"user_id": "bob", "session": "bob:s"}));
    assert_eq!(newer["messages"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_message_of_a_room_that_is_sent_again_is_stored_once() {
    let Some(system) = System::start().await else { return };
    let mut ada = Member::on(&system, 0, Vsn::V2, "ada", 10).await;
    let mut bob = Member::on(&system, 1, Vsn::V2, "bob", 10).await;
    let payload = json!({"broadcast": true, "text": "once", "id": "k"});
    let first = ada.push("new_msg", payload.clone()).await;
    assert!(first.ok, "{first:?}");
    assert_eq!(ada.push("new_msg", payload.clone()).await, first);
    assert_eq!(bob.event("new_msg").await["id"], "k");
    // On another gateway, which has not seen the first one, too.
    ada.last_seq = first.response["seq"].as_u64().expect("a sequence");
    assert!(ada.move_to(&system, 1).await.ok);
    assert_eq!(ada.push("new_msg", payload).await, first);
    bob.none("new_msg").await;
    // The same id of somebody else is another message.
    let other = bob.push("new_msg", json!({"broadcast": true, "id": "k"})).await;
    assert_ne!(other.response["seq"], first.response["seq"]);
}

#[tokio::test]
async fn who_comes_back_to_a_room_gets_exactly_what_it_missed() {
    let Some(system) = System::start().await else { return };
    let mut ada = Member::on(&system, 0, Vsn::V2, "ada", 10).await;
    let mut bob = Member::on(&system, 1, Vsn::V2, "bob", 100).await;
    ada.say("before").await;
    bob.event("new_msg").await;
    let mut missed = Vec::new();
    for n in 0..3 {
        missed.push(ada.say(&format!("missed {n}")).await);
    }
    let last_seq = bob.last_seq;
    assert!(bob.push("room:update", json!({"title": "Tea"})).await.ok);
    ada.event("room:state").await;
    bob.last_seq = last_seq;
    // What came meanwhile was for its old socket.
    let reply = bob.move_to(&system, 0).await;
    assert_eq!((&reply.response["recovered"], &reply.response["room"]["title"]), (&json!(true), &json!("Tea")));
    for seq in missed {
        let message = bob.client.expect_on(ROOM, "new_msg", SOON).await.expect("a message");
        assert_eq!(message.payload["seq"], seq);
        assert!(message.join_ref.is_some(), "a replayed message is for this socket alone");
    }
    assert_eq!(bob.event("room:state").await["title"], "Tea");
    bob.none("new_msg").await;
    let live = ada.say("live").await;
    assert_eq!(bob.event("new_msg").await["seq"], live);
    // A sequence of an earlier life, or of none.
    bob.last_seq = 5;
    let reply = bob.move_to(&system, 1).await;
    assert_eq!(reply.response["recovered"], false);
    assert_eq!(bob.client.expect_on(ROOM, "gap", SOON).await.expect("a gap").payload["from"], 6);
    assert_eq!(bob.event("room:state").await["quiet"], false, "its beginning");
    assert_eq!(bob.event("new_msg").await["text"], "before");
}

#[tokio::test]
async fn a_change_with_a_time_ends_by_itself() {
    let Some(system) = System::start().await else { return };
    let mut bob = Member::on(&system, 0, Vsn::V2, "bob", 100).await;
    let mut ada = Member::on(&system, 1, Vsn::V2, "ada", 10).await;
    assert!(bob.push("room:update", json!({"quiet": true, "for_seconds": 1})).await.ok);
    assert_eq!(ada.event("room:state").await["quiet"], true);
    assert_eq!(ada.event("room:state").await["quiet"], false);
    ada.say("again").await;
}

#[tokio::test]
async fn binary_data_reaches_who_speaks_v2_as_it_is() {
    let Some(system) = System::start().await else { return };
    let mut ada = Member::on(&system, 0, Vsn::V2, "ada", 10).await;
    let mut bob = Member::on(&system, 1, Vsn::V2, "bob", 10).await;
    let mut old = Member::on(&system, 1, Vsn::V1, "old", 10).await;
    let data: Vec<u8> = (0..=255).collect();
    assert!(ada.client.push_data(ROOM, "ink", &data).await.expect("a reply").ok);
    let message = bob.client.expect_on(ROOM, "ink", SOON).await.expect("data");
    assert_eq!(message.data.as_deref(), Some(&data[..]));
    old.none("ink").await;
    let refused = ada.client.push_data(ROOM, "presence_diff", &data).await.expect("a reply");
    assert_eq!(refused.reason(), Some("invalid_payload"));
    let history = bob.push("history", json!({})).await.response;
    assert_eq!(history["messages"], json!([]));
}

#[tokio::test]
async fn without_history_a_room_is_joined_and_talked_in() {
    let Some(mut system) = System::start().await else { return };
    let mut ada = Member::on(&system, 0, Vsn::V2, "ada", 100).await;
    assert!(ada.push("room:update", json!({"title": "Tea"})).await.ok);
    let seq = ada.say("kept").await;
    eventually_recorded(&system, "Tea").await;
    system.kill_history();
    let mut bob = system.client(1, Vsn::V1).await;
    let payload = json!({"userId": "bob", "session_id": "s", "last_seq": seq - 1});
    let reply = bob.join(ROOM, payload).await.expect("a reply");
    assert!(reply.ok, "{reply:?}");
    assert_eq!((&reply.response["room"]["title"], &reply.response["recovered"]), (&json!("Tea"), &json!(false)));
    assert_eq!(bob.expect_on(ROOM, "gap", SOON).await.expect("a gap").payload, json!({"from": seq, "to": seq}));
    ada.say("live").await;
    assert_eq!(bob.expect_on(ROOM, "new_msg", SOON).await.expect("a message").payload["text"], "live");
    assert_eq!(ada.push("history", json!({})).await.reason(), Some("unavailable"));
    // A room that nobody has been in begins, too.
    let reply = ada.client.join("room:new", json!({"userId": "ada"})).await.expect("a reply");
    assert!(reply.ok, "{reply:?}");
}

#[tokio::test]
async fn a_room_in_which_nobody_is_goes_unless_somebody_comes_back() {
    let Some(system) = System::of(Shape::history(&["--room-linger-ms", "300"])).await else { return };
    let mut ada = Member::on(&system, 0, Vsn::V2, "ada", 100).await;
    assert!(ada.push("room:update", json!({"title": "Tea"})).await.ok);
    let first = ada.say("first").await;
    assert!(ada.client.leave(ROOM).await.expect("a reply").ok);
    eventually_recorded(&system, "closing").await;
    // Just in time, on the other gateway: nothing is lost.
    ada.last_seq = first - 1;
    let reply = ada.move_to(&system, 1).await;
    assert_eq!((&reply.response["recovered"], &reply.response["room"]["title"]), (&json!(true), &json!("Tea")));
    assert_eq!(ada.event("new_msg").await["text"], "first");
    eventually_recorded(&system, "open").await;
    let second = ada.say("second").await;
    assert!(ada.client.leave(ROOM).await.expect("a reply").ok);
    eventually("the room is wiped", async || record(&system).await.is_empty()).await;
    // Too late: another life.
    ada.last_seq = second;
    let reply = ada.move_to(&system, 0).await;
    assert_eq!((&reply.response["recovered"], &reply.response["room"]["title"]), (&json!(false), &Value::Null));
    let gap = ada.client.expect_on(ROOM, "gap", SOON).await.expect("a gap").payload;
    assert_eq!(gap["from"], second + 1);
    let mut bob = Member::on(&system, 1, Vsn::V1, "bob", 10).await;
    let third = ada.say("third").await;
    assert_eq!(bob.event("new_msg").await["seq"], third);
    let history = bob.push("history", json!({})).await.response;
    assert_eq!(history["messages"].as_array().map(Vec::len), Some(1), "{history}");
}

/// Waits until the room's record has this in it.
pub(crate) async fn eventually_recorded(system: &System, what: &str) {
    eventually("the room's record is written", async || record(system).await.contains(what)).await;
}

/// The room's record; empty if there is none.
pub(crate) async fn record(system: &System) -> String {
    let context = async_nats::jetstream::new(system.nats.client().await);
    let bucket = context.get_key_value("rooms").await.expect("the bucket");
    let record = bucket.get("r").await.expect("an answer").unwrap_or_default();
    String::from_utf8_lossy(&record).into_owned()
}
