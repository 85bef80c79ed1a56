//! Who is in a room, on whichever gateway: lists agree, whatever dies. Direct messages find their sockets.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use switchboard::client::{Client, Message, Vsn};
use switchboard_contract::testing::DEADLINE;

use crate::harness::{A_WHILE, SOON, Shape, System};

const ROOM: &str = "room:r";

/// A member of the room that keeps its list from what it is told, and takes offence at what does not fit.
struct Member {
    client: Client,
    stated: bool,
    /// phx_ref → key.
    list: BTreeMap<String, String>,
    /// Each meta that it was ever told to have come.
    told: Vec<String>,
    count: Option<u64>,
}

fn metas(lists: &Value) -> Vec<(String, String)> {
    let keys = lists.as_object().expect("an object").iter();
    keys.flat_map(|(key, presence)| {
        presence["metas"].as_array().expect("metas").iter().map(move |meta| {
            let online_at = meta["online_at"].as_str().and_then(|at| at.parse::<u64>().ok());
            assert!(online_at.is_some_and(|at| at > 1_600_000_000), "{meta}");
            (meta["phx_ref"].as_str().expect("a ref").to_owned(), key.clone())
        })
    })
    .collect()
}

impl Member {
    async fn join(system: &System, gateway: usize, vsn: Vsn, user: &str, session: &str) -> Member {
        let mut client = system.client(gateway, vsn).await;
        let payload = json!({"userId": user, "session_id": session});
        let deadline = Instant::now() + DEADLINE;
        loop {
            let reply = client.join(ROOM, &payload).await.expect("a reply");
            if reply.ok {
                break;
            }
            assert_eq!(reply.reason(), Some("unavailable"));
            assert!(Instant::now() < deadline, "always unavailable");
        }
        Member { client, stated: false, list: BTreeMap::new(), told: Vec::new(), count: None }
    }

    fn take(&mut self, message: &Message) {
        match message.event.as_str() {
            "presence_state" => {
                self.stated = true;
                self.count = None;
                self.list = metas(&message.payload).into_iter().collect();
                self.told.extend(self.list.keys().cloned());
            }
            "presence_diff" => {
                assert!(self.stated, "a diff before the state");
                for (phx_ref, key) in metas(&message.payload["joins"]) {
                    assert!(self.list.insert(phx_ref.clone(), key).is_none(), "{phx_ref} was there");
                    self.told.push(phx_ref);
                }
                for (phx_ref, _) in metas(&message.payload["leaves"]) {
                    assert!(self.list.remove(&phx_ref).is_some(), "{phx_ref} was not there");
                }
            }
            "presence_count" => self.count = message.payload["count"].as_u64(),
            _ => {}
        }
    }

    /// Takes what has come.
    async fn update(&mut self) {
        while self.hear(Duration::from_millis(1)).await {}
    }

    /// Takes the next word of presence, if there is one.
    async fn hear(&mut self, within: Duration) -> bool {
        let presence = |message: &Message| message.event.starts_with("presence_");
        let message = self.client.expect_where(presence, "presence", within).await;
        message.is_ok_and(|message| {
            self.take(&message);
            true
        })
    }

    fn keys(&self) -> Vec<&str> {
        let mut keys: Vec<&str> = self.list.values().map(String::as_str).collect();
        keys.sort_unstable();
        keys
    }

    /// Waits until the list is this; gives how long it took.
    async fn sees(&mut self, keys: &[&str]) -> Duration {
        let start = Instant::now();
        loop {
            self.update().await;
            if self.stated && self.keys() == keys {
                return start.elapsed();
            }
            assert!(start.elapsed() < DEADLINE, "{:?} instead of {keys:?}", self.keys());
        }
    }

    async fn sends(&mut self, to: Value) -> Value {
        let reply = self.client.push(ROOM, "new_msg", json!({"to": to, "text": "hi"})).await.expect("a reply");
        assert!(reply.ok, "{reply:?}");
        reply.response
    }

    async fn gets_direct(&mut self, from: &str) {
        let message = self.client.expect_on(ROOM, "new_msg", SOON).await.expect("a message");
        assert_eq!((&message.payload["text"], &message.payload["from"]["session"]), (&json!("hi"), &json!(from)));
        assert!(message.payload.get("seq").is_none(), "{:?}", message.payload);
    }
}

#[tokio::test]
async fn lists_agree_on_both_gateways() {
    let Some(system) = System::start().await else { return };
    let mut a = Member::join(&system, 0, Vsn::V2, "a", "1").await;
    a.sees(&["a:1"]).await;
    let mut b = Member::join(&system, 1, Vsn::V1, "b", "1").await;
    b.update().await;
    let waited = b.sees(&["a:1", "b:1"]).await;
    eprintln!("the state of a gateway's first member came after {} ms", waited.as_millis());
    assert_eq!(b.told.len(), 2, "both were in its state");
    a.sees(&["a:1", "b:1"]).await;
    let mut again = Member::join(&system, 1, Vsn::V2, "a", "1").await;
    for member in [&mut a, &mut b, &mut again] {
        member.sees(&["a:1", "a:1", "b:1"]).await;
    }
    drop(again);
    a.sees(&["a:1", "b:1"]).await;
    // Another join on the same socket is another meta.
    let before = a.list.clone();
    b.sees(&["a:1", "b:1"]).await;
    b.stated = false;
    assert!(b.client.join(ROOM, json!({"userId": "b", "session_id": 2})).await.expect("a reply").ok);
    a.sees(&["a:1", "b:2"]).await;
    b.sees(&["a:1", "b:2"]).await;
    assert_ne!(a.list, before);
    assert!(b.client.leave(ROOM).await.expect("a reply").ok);
    a.sees(&["a:1"]).await;
}

#[tokio::test]
async fn members_of_a_killed_gateway_are_off_the_lists() {
    let Some(mut system) = System::start().await else { return };
    let mut a = Member::join(&system, 0, Vsn::V2, "a", "1").await;
    let _b = Member::join(&system, 1, Vsn::V2, "b", "1").await;
    a.sees(&["a:1", "b:1"]).await;
    system.kill_gateway(1);
    let gone = a.sees(&["a:1"]).await;
    eprintln!("they were off the list after {} ms", gone.as_millis());
    system.start_gateway(1).await;
    let mut b = Member::join(&system, 1, Vsn::V2, "b", "1").await;
    b.sees(&["a:1", "b:1"]).await;
    a.sees(&["a:1", "b:1"]).await;
    // One that is stopped says goodbye.
    let ended = system.gateways[1].1.terminate();
    a.sees(&["a:1"]).await;
    assert!(ended.await.expect("its status").success());
}

#[tokio::test]
async fn nats_restarted_under_members() {
    let Some(mut system) = System::start().await else { return };
    let mut a = Member::join(&system, 0, Vsn::V2, "a", "1").await;
    let mut b = Member::join(&system, 1, Vsn::V2, "b", "1").await;
    let c = Member::join(&system, 1, Vsn::V2, "c", "1").await;
    for member in [&mut a, &mut b] {
        member.sees(&["a:1", "b:1", "c:1"]).await;
    }
    system.nats.kill();
    drop(c);
    b.sees(&["a:1", "b:1"]).await;
    system.nats.restart().await;
    let told = a.sees(&["a:1", "b:1"]).await;
    eprintln!("who left while NATS was away was off the other gateway's list after {} ms", told.as_millis());
    let mut d = Member::join(&system, 0, Vsn::V2, "d", "1").await;
    for member in [&mut a, &mut b, &mut d] {
        member.sees(&["a:1", "b:1", "d:1"]).await;
    }
    assert_eq!(a.told.len(), 4, "nobody was told twice: {:?}", a.told);
}

#[tokio::test]
async fn direct_messages_find_sessions_and_users_across_gateways() {
    let Some(system) = System::start().await else { return };
    let mut a = Member::join(&system, 0, Vsn::V2, "a", "1").await;
    let mut same = Member::join(&system, 0, Vsn::V2, "a", "2").await;
    let mut b = Member::join(&system, 1, Vsn::V1, "b", "1").await;
    let mut other = Member::join(&system, 1, Vsn::V2, "b", "2").await;
    let all = ["a:1", "a:2", "b:1", "b:2"];
    for member in [&mut a, &mut same, &mut b, &mut other] {
        member.sees(&all).await;
    }
    assert_eq!(a.sends(json!([{"session": "b:1"}])).await, json!({"recipients": 1}));
    b.gets_direct("a:1").await;
    assert_eq!(a.sends(json!([{"userId": "b"}, {"session": "b:1"}])).await, json!({"recipients": 2}));
    b.gets_direct("a:1").await;
    other.gets_direct("a:1").await;
    assert_eq!(a.sends(json!([{"userId": "a"}])).await, json!({"recipients": 1}), "not to itself");
    same.gets_direct("a:1").await;
    assert_eq!(a.sends(json!([{"session": "b:2", "userId": "a"}])).await, json!({"recipients": 1}), "by session");
    other.gets_direct("a:1").await;
    assert_eq!(a.sends(json!([{"session": "x:1"}])).await, json!({"recipients": 0}));
    for member in [&mut a, &mut same, &mut b, &mut other] {
        member.client.expect_none("new_msg", A_WHILE).await.expect("nothing more");
    }
    let many: Vec<Value> = (0..101).map(|n| json!({"userId": n})).collect();
    let reply = a.client.push(ROOM, "new_msg", json!({"to": many})).await.expect("a reply");
    assert_eq!(reply.reason(), Some("invalid_payload"));
}

#[tokio::test]
async fn a_crowd_is_counted_instead_of_listed() {
    let Some(system) = System::of(Shape::gateway(&["--presence-list-max", "2"])).await else { return };
    let mut a = Member::join(&system, 0, Vsn::V2, "a", "1").await;
    let _b = Member::join(&system, 1, Vsn::V2, "b", "1").await;
    a.sees(&["a:1", "b:1"]).await;
    let mut c = Member::join(&system, 1, Vsn::V2, "c", "1").await;
    for member in [&mut a, &mut c] {
        member.sees(&[]).await;
        while member.count != Some(3) {
            assert!(member.hear(SOON).await, "no count");
        }
    }
    drop(c);
    // Two are more than four fifths of two.
    let count = a.client.expect("presence_count", SOON).await.expect("a count");
    assert_eq!(count.payload, json!({"count": 2}));
    drop(_b);
    a.sees(&["a:1"]).await;
}
