//! What one user may do on a gateway, and that nobody else notices who does more.

use std::time::Duration;

use serde_json::{Value, json};
use switchboard::client::{Client, Reply, Vsn};
use switchboard_contract::testing::eventually;
use tokio::time::sleep;

use crate::harness::{SOON, Shape, System, chat};

const ROOM: &str = "room:r";

/// A member of the room, on the first gateway.
async fn member(system: &System, user: &str, session: &str, rank: i64) -> Client {
    let mut client = system.client(0, Vsn::V2).await;
    let reply = client.join(ROOM, who(user, session, rank)).await.expect("a reply");
    assert!(reply.ok, "{reply:?}");
    client
}

fn who(user: &str, session: &str, rank: i64) -> Value {
    json!({"userId": user, "session_id": session, "rank": rank})
}

fn broadcast(text: &str) -> Value {
    json!({"broadcast": true, "text": text})
}

/// Sends all of these without waiting for one; then their replies.
async fn at_once(client: &mut Client, topic: &str, event: &str, payloads: impl Iterator<Item = Value>) -> Vec<Reply> {
    let mut refs = Vec::new();
    for payload in payloads {
        refs.push(client.send(topic, event, payload).await.expect("sent"));
    }
    let mut replies = Vec::new();
    for reference in refs {
        replies.push(client.reply(reference).await.expect("a reply"));
    }
    replies
}

/// When to try again; `None` for an `ok`.
fn wait_of(reply: &Reply) -> Option<Duration> {
    let reason = reply.reason()?;
    assert_eq!(reason, "rate_limited", "{reply:?}");
    let ms = reply.response["retry_after_ms"].as_u64().expect("when to try again");
    assert!(ms > 0, "{reply:?}");
    Some(Duration::from_millis(ms))
}

#[tokio::test]
async fn a_user_has_one_rate_over_all_its_sockets() {
    let Some(system) = System::of(Shape::gateway(&["--broadcast-rate", "1"])).await else { return };
    let mut one = member(&system, "ada", "one", 10).await;
    let mut other = member(&system, "ada", "other", 10).await;
    let mut bob = member(&system, "bob", "s", 10).await;
    let replies = at_once(&mut one, ROOM, "new_msg", (0..60).map(|n| broadcast(&n.to_string()))).await;
    let ok = replies.iter().filter(|reply| wait_of(reply).is_none()).count();
    assert!((30..50).contains(&ok), "30 at once and one a second: {ok}");
    let waits: Vec<_> = replies.iter().filter_map(wait_of).collect();
    assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(1)), "{waits:?}");
    // A slow machine may take so long for the way from one socket to the other that there is one again.
    let replies = at_once(&mut other, ROOM, "new_msg", (100..110).map(|n| broadcast(&n.to_string()))).await;
    let wait = replies.iter().rev().find_map(wait_of).expect("the other socket has no more than the first");
    for n in 0..10 {
        assert!(bob.push(ROOM, "new_msg", broadcast(&n.to_string())).await.expect("a reply").ok, "another user");
    }
    sleep(wait).await;
    let reply = other.push(ROOM, "new_msg", broadcast("again")).await.expect("a reply");
    assert!(reply.ok, "after so long as was said: {reply:?}");
    let metrics = system.gateway_metrics(0).await;
    assert!(metrics.contains("switchboard_gateway_refusals_total{reason=\"rate_limited\"}"), "{metrics}");
    let both = "switchboard_gateway_limited_users 2";
    eventually("both users are counted", async || system.gateway_metrics(0).await.contains(both)).await;
}

#[tokio::test]
async fn moderators_have_no_rate_and_may_repeat_themselves() {
    let Some(system) = System::start().await else { return };
    let mut moderator = member(&system, "mod", "s", 100).await;
    let replies = at_once(&mut moderator, ROOM, "new_msg", (0..200).map(|_| broadcast("order"))).await;
    assert!(replies.iter().all(|reply| reply.ok), "{replies:?}");
}

#[tokio::test]
async fn the_same_text_a_fifth_time_is_refused() {
    let Some(system) = System::of(Shape::gateway(&["--repeat-window-ms", "60000"])).await else { return };
    let mut ada = member(&system, "ada", "s", 10).await;
    let same = |id: &str| json!({"body": "buy", "id": id});
    let replies = at_once(&mut ada, ROOM, "new_message", (0..8).map(|_| same("k"))).await;
    assert!(replies.iter().all(|reply| *reply == replies[0] && reply.ok), "one message: {replies:?}");
    for n in 0..3 {
        assert!(ada.push(ROOM, "new_message", same(&n.to_string())).await.expect("a reply").ok);
    }
    let reply = ada.push(ROOM, "new_msg", broadcast("buy")).await.expect("a reply");
    let wait = wait_of(&reply).expect("the fifth");
    assert!(wait > Duration::from_secs(10) && wait <= Duration::from_secs(60), "{wait:?}");
    assert!(ada.push(ROOM, "new_msg", broadcast("something else")).await.expect("a reply").ok);
}

#[tokio::test]
async fn who_goes_on_is_closed_and_waits_and_others_notice_nothing() {
    let flags = ["--broadcast-rate", "1", "--broadcast-burst", "1", "--refusal-window-ms", "60000", "--ban-ms", "4000"];
    let Some(system) = System::of(Shape::gateway(&flags)).await else { return };
    let mut bob = member(&system, "bob", "s", 10).await;
    let mut eve = member(&system, "eve", "s", 10).await;
    for n in 0..200 {
        // The socket may be closed meanwhile.
        let _ = eve.send(ROOM, "new_msg", broadcast(&n.to_string())).await;
    }
    assert_eq!(eve.expect_close(SOON).await.expect("a close"), Some(1008));
    let refused = eve.unread().iter().filter(|message| message.payload["status"] == "error").count();
    assert!((1..=100).contains(&refused), "{refused}");

    let mut eve = system.client(0, Vsn::V2).await;
    let lobby = json!({"userId": "eve", "role": "student"});
    for (topic, payload) in [(ROOM, who("eve", "s", 10)), ("presence:student:eve", lobby), (ROOM, who("eve", "s", 100))]
    {
        let reply = eve.join(topic, payload).await.expect("a reply");
        let wait = wait_of(&reply).expect("it has to wait");
        assert!(wait <= Duration::from_secs(4), "{wait:?}");
    }
    assert!(bob.push(ROOM, "new_msg", broadcast("hello")).await.expect("a reply").ok, "another user");
    let reply = eve.join(ROOM, who("eve", "s", 10)).await.expect("a reply");
    sleep(wait_of(&reply).expect("it still has to wait")).await;
    assert!(eve.join(ROOM, who("eve", "s", 10)).await.expect("a reply").ok, "after so long as was said");
    assert!(system.gateway_metrics(0).await.contains("switchboard_gateway_bans_total 1"));
}

#[tokio::test]
async fn a_burst_waits_with_its_client_and_is_not_refused() {
    let Some(system) = System::start().await else { return };
    let mut ada = member(&system, "ada", "s", 10).await;
    let mut bob = member(&system, "bob", "s", 10).await;
    let direct = |n: u64| json!({"to": [{"userId": "bob"}], "n": n});
    let replies = at_once(&mut ada, ROOM, "new_msg", (0..1_000).map(direct)).await;
    assert!(replies.iter().all(|reply| reply.ok && reply.response["recipients"] == 1), "{replies:?}");
    for n in 0..1_000 {
        assert_eq!(bob.expect_on(ROOM, "new_msg", SOON).await.expect("a message").payload["n"], n);
    }
    let (_teacher, mut student, topic) = chat(&system, "t", "s").await;
    let messages = (0..200).map(|n| json!({"message": n}));
    let replies = at_once(&mut student.client, &topic, "student:send", messages).await;
    assert!(replies.iter().all(|reply| reply.ok), "{replies:?}");
    assert!(student.client.push("phoenix", "heartbeat", json!({})).await.expect("a reply").ok);
}
