//! Events of the HTTP API: what members of a room see of them, what is stored, and what is refused.

use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use switchboard::client::{Client, Message, Vsn};
use switchboard_contract::limits;
use switchboard_contract::testing::eventually;

use crate::harness::{A_WHILE, SOON, Shape, System};
use crate::http::SECRET;
use crate::rooms::{eventually_recorded, record};

pub(crate) const ROOM: &str = "room:r";
pub(crate) const PUSH: &str = "/api/v1/push_room_event";

/// A client that is in room `r`.
pub(crate) async fn member(system: &System, gateway: usize, vsn: Vsn, user: &str, rank: i64) -> Client {
    let mut client = system.client(gateway, vsn).await;
    let reply = client.join(ROOM, json!({"userId": user, "session_id": "s", "rank": rank})).await.expect("a reply");
    assert!(reply.ok, "{reply:?}");
    client
}

pub(crate) async fn says(client: &mut Client, text: &str) -> u64 {
    let reply = client.push(ROOM, "new_msg", json!({"broadcast": true, "text": text})).await.expect("a reply");
    assert!(reply.ok, "{reply:?}");
    reply.response["seq"].as_u64().expect("a sequence")
}

/// The next message of the room, of whatever name.
async fn next(client: &mut Client) -> (String, Value) {
    let logged = |message: &Message| message.topic == ROOM && message.payload.get("seq").is_some();
    let message = client.expect_where(logged, "a message", SOON).await.expect("a message");
    (message.event, message.payload)
}

fn event(name: &str, text: &str) -> Value {
    json!({"room_id": "r", "event": name, "payload": {"text": text}})
}

#[tokio::test]
async fn an_event_of_the_api_takes_its_place_in_the_rooms_order() {
    let Some(system) = System::start_api(&[]).await else { return };
    let mut ada = member(&system, 0, Vsn::V2, "ada", 10).await;
    let mut members = [member(&system, 0, Vsn::V2, "bob", 10).await, member(&system, 1, Vsn::V1, "cleo", 10).await];
    let first = says(&mut ada, "one").await;
    let payload = json!({"text": "two", "from": "me", "seq": 1, "at": 1, "n": 1.50});
    system.push_event(1, None, &json!({"room_id": "r", "event": "announcement", "payload": payload})).await;
    let third = says(&mut ada, "three").await;
    let own = json!({"room_id": "r", "event": "new_message", "payload": {"body": "four", "id": 7}});
    system.push_event(0, None, &own).await;
    for member in &mut members {
        assert_eq!(next(member).await.1["seq"], first);
        let (name, told) = next(member).await;
        assert_eq!((name.as_str(), &told["text"], &told["n"]), ("announcement", &json!("two"), &json!(1.5)));
        let seq = told["seq"].as_u64().expect("a sequence");
        assert!(first < seq && seq < third && told["id"].is_string() && told["at"].is_string(), "{told}");
        assert!(told.get("from").is_none(), "it has no sender: {told}");
        assert_eq!(next(member).await.1["seq"], third);
        let (name, told) = next(member).await;
        assert_eq!((name.as_str(), &told["body"], &told["id"]), ("new_message", &json!("four"), &json!(7)));
    }
    let (name, _) = next(&mut ada).await;
    assert_eq!(name, "announcement", "who talks hears it too");
    let history = ada.push(ROOM, "history", json!({})).await.expect("a reply").response;
    let events: Vec<&Value> = history["messages"].as_array().expect("messages").iter().map(|m| &m["event"]).collect();
    assert_eq!(events, ["new_msg", "announcement", "new_msg", "new_message"]);
    assert!(history["messages"][1].get("from").is_none(), "{history}");

    // Quiet is for members.
    let mut moderator = member(&system, 1, Vsn::V2, "mia", 100).await;
    assert!(moderator.push(ROOM, "room:update", json!({"quiet": true})).await.expect("a reply").ok);
    ada.expect_on(ROOM, "room:state", SOON).await.expect("the state");
    let reply = ada.push(ROOM, "new_msg", json!({"broadcast": true})).await.expect("a reply");
    assert_eq!(reply.reason(), Some("quiet"));
    system.push_event(0, None, &event("announcement", "quiet, please")).await;
    ada.expect_where(|message| message.payload["text"] == "quiet, please", "it", SOON).await.expect("an event");
}

#[tokio::test]
async fn many_events_at_once_are_all_stored() {
    let Some(system) = System::start_api(&[]).await else { return };
    let mut ada = member(&system, 0, Vsn::V2, "ada", 10).await;
    let pushes = (0..40).map(|n| {
        let (system, event) = (&system, event("tick", &n.to_string()));
        async move { system.push_event(n % 2, None, &event).await }
    });
    futures_util::future::join_all(pushes).await;
    let (mut seen, mut last) = (Vec::new(), 0);
    for _ in 0..40 {
        let (_, told) = next(&mut ada).await;
        assert!(told["seq"].as_u64() > Some(last), "in order: {told} behind {last}");
        last = told["seq"].as_u64().expect("a sequence");
        seen.push(told["text"].as_str().expect("text").parse::<usize>().expect("a number"));
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn where_there_is_no_room_nothing_is_stored() {
    let Some(mut system) = System::start_api(&[]).await else { return };
    let before = system.logged().await;
    system.push_event(0, None, &event("x", "nobody")).await;
    assert_eq!(system.logged().await, before);

    // Behind a tombstone, while the record is still there.
    let mut ada = member(&system, 0, Vsn::V2, "ada", 10).await;
    says(&mut ada, "secret").await;
    assert!(ada.leave(ROOM).await.expect("a reply").ok);
    system.kill_history();
    let context = async_nats::jetstream::new(system.nats.client().await);
    let tombstone = json!({"v": 1, "event": "phx_tombstone", "payload": {}, "id": "t", "at": "t"}).to_string();
    let stored = context.publish("sb.log.room.r", tombstone.into()).await.expect("sent").await.expect("stored");
    assert!(record(&system).await.contains("since"));
    system.push_event(1, None, &event("x", "a ghost")).await;
    let stream = context.get_stream("ROOMS").await.expect("the stream");
    assert_eq!(stream.cached_info().state.last_sequence, stored.sequence, "nothing came behind it");
}

#[tokio::test]
async fn a_room_that_is_about_to_be_wiped_still_gets_an_event() {
    let shape = Shape { history: &["--room-linger-ms", "300"], ..Shape::gateway(&["--api-secret", SECRET]) };
    let Some(system) = System::of(shape).await else { return };
    let mut ada = member(&system, 0, Vsn::V2, "ada", 10).await;
    let last_seq = says(&mut ada, "before").await;
    assert!(ada.leave(ROOM).await.expect("a reply").ok);
    eventually_recorded(&system, "closing").await;
    system.push_event(1, None, &event("x", "just in time")).await;
    let mut back = system.client(1, Vsn::V2).await;
    let payload = json!({"userId": "ada", "last_seq": last_seq});
    let reply = back.join(ROOM, payload).await.expect("a reply");
    assert_eq!(reply.response["recovered"], true, "{reply:?}");
    assert_eq!(next(&mut back).await.1["text"], "just in time");
    assert!(back.leave(ROOM).await.expect("a reply").ok);
    eventually("the room is wiped in the end", async || record(&system).await.is_empty()).await;
}

#[tokio::test]
async fn an_event_with_the_same_key_is_stored_once() {
    let Some(system) = System::start_api(&[]).await else { return };
    let mut ada = member(&system, 0, Vsn::V2, "ada", 10).await;
    let mut other = system.client(1, Vsn::V2).await;
    assert!(other.join("room:other", json!({"userId": "bob"})).await.expect("a reply").ok);
    let once = event("order", "once");
    system.push_event(0, Some("k.1"), &once).await;
    system.push_event(0, Some("k.1"), &once).await;
    says(&mut ada, "in between").await;
    system.push_event(1, Some("k.1"), &once).await;
    system.push_event(1, Some("k.2"), &event("order", "another")).await;
    system.push_event(1, Some("k.1"), &json!({"room_id": "other", "event": "order", "payload": {}})).await;
    assert_eq!(next(&mut ada).await.1["text"], "once");
    assert_eq!(next(&mut ada).await.1["text"], "another");
    ada.expect_none("order", A_WHILE).await.expect("nothing more");
    other.expect_on("room:other", "order", SOON).await.expect("a key counts for one room");
}

#[tokio::test]
async fn what_is_refused_and_how() {
    let Some(system) = System::start_api(&[]).await else { return };
    let mut ada = member(&system, 0, Vsn::V2, "ada", 10).await;
    let secret = ("secret", SECRET);
    let good = event("x", "hi").to_string();
    let large =
        format!(r#"{{"room_id":"r","event":"x","payload":{{"t":"{}"}}}}"#, "x".repeat(limits::PAYLOAD_BYTES_MAX));
    let larger = " ".repeat(limits::API_BODY_BYTES_MAX + 1);
    for (headers, body, status, error) in [
        (&[][..], good.as_str(), 401, "unauthorized"),
        (&[("secret", "")], &good, 401, "unauthorized"),
        (&[("secret", "hus")], &good, 401, "unauthorized"),
        (&[("secret", "wrong")], "no JSON", 401, "unauthorized"),
        (&[secret], "no JSON", 422, "invalid_payload"),
        (&[secret], "", 422, "invalid_payload"),
        (&[secret], r#"{"room_id":"r","event":"x"}"#, 422, "invalid_payload"),
        (&[secret], r#"{"room_id":"r","event":"phx_close","payload":{}}"#, 422, "invalid_payload"),
        (&[secret], r#"{"room_id":"r","event":"room:state","payload":{}}"#, 422, "invalid_payload"),
        (&[secret, ("idempotency-key", "")], &good, 422, "invalid_payload"),
        (&[secret], &large, 413, "payload_too_large"),
        (&[secret], &larger, 413, "payload_too_large"),
    ] {
        let answer = system.ask(0, "POST", PUSH, headers, body.to_owned()).await;
        let (said, shown) = (answer.json(), body.get(..80).unwrap_or(body));
        assert_eq!((answer.status, &said["error"]), (status, &json!(error)), "{shown}: {answer:?}");
        assert_eq!(said["detail"].is_string(), status == 422, "{shown}: {answer:?}");
    }
    ada.expect_none("x", A_WHILE).await.expect("nothing");
    for (method, path, status) in [
        ("GET", PUSH, 405),
        ("POST", "/api/v1/health", 405),
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v1/rooms/r", 404),
        ("POST", "/api/v2/push_room_event", 404),
        ("GET", "/api/", 404),
        ("OPTIONS", PUSH, 405),
    ] {
        let answer = system.ask(1, method, path, &[secret], "").await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        if status == 404 {
            assert_eq!(answer.json(), json!({"error": "not_found"}));
        }
    }
    let metrics = system.gateway_metrics(0).await;
    let counted = |route: &str, status: u16| {
        let labels = [format!("route=\"{route}\""), format!("status=\"{status}\"")];
        metrics.lines().any(|line| {
            line.starts_with("switchboard_gateway_api_requests_total")
                && labels.iter().all(|label| line.contains(label))
        })
    };
    assert!(counted(PUSH, 401) && counted(PUSH, 422) && counted(PUSH, 413), "{metrics}");
}

#[tokio::test]
async fn without_a_secret_everybody_is_refused() {
    // As an empty variable has it.
    let Some(system) = System::of(Shape::gateway(&["--api-secret", ""])).await else { return };
    for headers in [&[][..], &[("secret", "")], &[("secret", SECRET)]] {
        assert_eq!(system.ask(0, "GET", "/api/v1/health", headers, "").await.status, 401, "{headers:?}");
    }
    assert_eq!(system.ask(0, "GET", "/api/v1/openapi.json", &[], "").await.status, 200);
}

#[tokio::test]
async fn while_nats_does_not_answer_it_is_unavailable_in_time() {
    let Some(system) = System::start_api(&[]).await else { return };
    let mut ada = member(&system, 0, Vsn::V2, "ada", 10).await;
    let signal = |signal| {
        for pid in system.nats.pids() {
            let pid = Pid::from_raw(pid.try_into().expect("a pid")).expect("a pid");
            kill_process(pid, signal).expect("a signal");
        }
    };
    signal(Signal::STOP);
    // Where the machine is busy, that takes a moment.
    eventually("NATS has stopped", async || {
        system.nats.pids().iter().all(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
            stat.rsplit(") ").next().is_some_and(|fields| fields.starts_with('T'))
        })
    })
    .await;
    let event = event("x", "sent again").to_string();
    let headers = [("secret", SECRET), ("idempotency-key", "k")];
    let begun = Instant::now();
    let push = system.ask(0, "POST", PUSH, &headers, event.clone());
    let (push, history, presence, chat, lobby, disconnect) = tokio::join!(
        push,
        system.get(0, "/api/v1/rooms/r/history"),
        system.get(0, "/api/v1/rooms/r/presence"),
        system.get(0, "/api/v1/chats/c"),
        system.get(0, "/api/v1/lobby"),
        system.ask(0, "POST", "/api/v1/users/ada/disconnect", &headers[..1], ""),
    );
    let took = begun.elapsed();
    signal(Signal::CONT);
    eprintln!("it was unavailable after {} ms", took.as_millis());
    for answer in [push, history, presence, chat, lobby, disconnect] {
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
        assert_eq!(answer.json(), json!({"error": "unavailable"}));
    }
    assert!(took < 2 * limits::API_TIMEOUT, "{took:?}");
    // What was answered so may be stored, or not: with the same key it is there once. Members may have been asked to
    // go.
    eventually("it is stored", async || system.ask(0, "POST", PUSH, &headers, event.clone()).await.status == 200).await;
    drop(ada.expect_close(A_WHILE).await);
    let mut back = member(&system, 1, Vsn::V2, "ada", 10).await;
    let history = back.push(ROOM, "history", json!({})).await.expect("a reply").response;
    assert_eq!(history["messages"].as_array().map(Vec::len), Some(1), "{history}");
}
