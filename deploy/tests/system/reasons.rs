//! Each reason of a refusal and each close code, provoked by clients: on both gateways, with both serializers.
//!
//! The contract's lists are walked through, and each item is mapped to what provokes it; so one that is new does not
//! compile here until somebody has said how it comes about.

use std::time::Duration;

use serde_json::{Value, json};
use switchboard::client::{Client, Reply, Vsn};
use switchboard_contract::reason::{CloseCode, Reason};

use crate::harness::{SOON, Shape, System, chat};
use crate::raw::closed_by_bytes;
use crate::session::{closed_by_data, closed_by_text};
use crate::tokens::Issuer;

/// A gateway, and what is spoken there.
type Place = (usize, Vsn);

const PLACES: [Place; 2] = [(0, Vsn::V1), (1, Vsn::V2)];

#[tokio::test]
async fn each_reason_is_given_to_some_client() {
    let Some(issuer) = Issuer::start().await else { return };
    let shape = Shape { matcher: &["--max-waiting", "1"], ..Shape::gateway(&["--max-channels", "2"]) };
    let Some(mut system) = System::of(shape).await else { return };
    for reason in Reason::ALL {
        for place in PLACES {
            let reply = Box::pin(refusal(reason, &mut system, &issuer, place)).await;
            assert_eq!(reply.reason(), Some(reason.as_str()), "{place:?}");
            let says = |key| reply.response.get(key).is_some();
            assert_eq!(says("detail"), reason == Reason::InvalidPayload, "{place:?} {reply:?}");
            assert_eq!(says("retry_after_ms"), reason == Reason::RateLimited, "{place:?} {reply:?}");
        }
    }
}

async fn refusal(reason: Reason, system: &mut System, issuer: &Issuer, place: Place) -> Reply {
    let mut client = system.client(place.0, place.1).await;
    match reason {
        Reason::UnmatchedTopic => join(&mut client, "nonsense:x", json!({})).await,
        Reason::UnmatchedEvent => in_room(&mut client, "nonsense", json!({})).await,
        Reason::TooManyChannels => too_many_channels(&mut client).await,
        Reason::Unauthorized => a_strangers_chat(&mut client, system, place).await,
        Reason::TokenExpired => issuer.expired_in_a_room(place.0, place.1).await,
        Reason::InvalidPayload => in_room(&mut client, "new_msg", json!({})).await,
        Reason::PayloadTooLarge => in_room(&mut client, "typing", json!({"x": "x".repeat(33 * 1024)})).await,
        Reason::RateLimited => the_same_again_and_again(&mut client).await,
        Reason::Quiet => quiet_for_moderators_too(&mut client).await,
        Reason::Forbidden => in_room(&mut client, "room:update", json!({"title": "x"})).await,
        Reason::NotFound => join(&mut client, "chats:none", json!({"userId": "x", "role": "student"})).await,
        Reason::ChatFinished => behind_the_end(system, place).await,
        Reason::QueueFull => a_queue_of_one(&mut client, system, place).await,
        Reason::Unavailable => {
            system.nats.kill();
            join(&mut client, "room:unavailable", json!({})).await
        }
    }
}

async fn join(client: &mut Client, topic: &str, payload: Value) -> Reply {
    client.join(topic, payload).await.expect("a reply")
}

/// Pushes something as a member.
async fn in_room(client: &mut Client, event: &str, payload: Value) -> Reply {
    let joined = join(client, "room:r", json!({"rank": 10})).await;
    assert!(joined.ok, "{joined:?}");
    client.push("room:r", event, payload).await.expect("a reply")
}

async fn too_many_channels(client: &mut Client) -> Reply {
    for topic in ["room:a", "room:b"] {
        let joined = join(client, topic, json!({})).await;
        assert!(joined.ok, "{joined:?}");
    }
    join(client, "room:c", json!({})).await
}

async fn a_strangers_chat(client: &mut Client, system: &System, (gateway, _): Place) -> Reply {
    let (mut teacher, mut student, topic) = chat(system, format!("t{gateway}"), format!("s{gateway}")).await;
    let refused = join(client, &topic, json!({"userId": "stranger", "role": "student"})).await;
    // Nobody is left who would wait again once this teacher is missed.
    assert!(teacher.client.push(&topic, "chat:terminate", json!({})).await.expect("a reply").ok);
    assert!(student.client.leave(&student.topic).await.expect("a reply").ok);
    refused
}

async fn behind_the_end(system: &System, (gateway, _): Place) -> Reply {
    let (mut teacher, mut student, topic) = chat(system, format!("t{gateway}e"), format!("s{gateway}e")).await;
    assert!(teacher.client.push(&topic, "chat:terminate", json!({})).await.expect("a reply").ok);
    let refused = student.client.push(&topic, "student:send", json!({"message": "late"})).await.expect("a reply");
    assert!(student.client.leave(&student.topic).await.expect("a reply").ok);
    refused
}

/// The fifth time within ten seconds is one too much.
async fn the_same_again_and_again(client: &mut Client) -> Reply {
    let joined = join(client, "room:r", json!({"rank": 10})).await;
    assert!(joined.ok, "{joined:?}");
    let message = json!({"broadcast": true, "text": "again"});
    for _ in 1..5 {
        assert!(client.push("room:r", "new_msg", message.clone()).await.expect("a reply").ok);
    }
    client.push("room:r", "new_msg", message).await.expect("a reply")
}

async fn quiet_for_moderators_too(client: &mut Client) -> Reply {
    let joined = join(client, "room:quiet", json!({"rank": 100})).await;
    assert!(joined.ok, "{joined:?}");
    let change = json!({"quiet": true, "quiet_rank": 101});
    assert!(client.push("room:quiet", "room:update", change).await.expect("a reply").ok);
    client.push("room:quiet", "new_msg", json!({"broadcast": true})).await.expect("a reply")
}

async fn a_queue_of_one(client: &mut Client, system: &System, (gateway, _): Place) -> Reply {
    let mut first = system.student(format!("first{gateway}")).await;
    let topic = "presence:student:second";
    let joined = join(client, topic, json!({"userId": "second", "role": "student"})).await;
    assert!(joined.ok, "{joined:?}");
    let refused = client.push(topic, "student:ready", json!({})).await.expect("a reply");
    assert!(first.client.leave(&first.topic).await.expect("a reply").ok);
    refused
}

#[tokio::test]
async fn each_close_code_is_sent_to_some_client() {
    let flags = ["--idle-timeout", "1", "--drain-ms", "100"];
    let Some(mut system) = System::of(Shape::gateway(&flags)).await else { return };
    for code in CloseCode::ALL {
        for place in PLACES {
            assert_eq!(close(code, &mut system, place).await, Some(code.code()), "{place:?}");
        }
    }
}

async fn close(code: CloseCode, system: &mut System, place: Place) -> Option<u16> {
    let mut client = system.client(place.0, place.1).await;
    match code {
        CloseCode::GoingAway => client.expect_close(SOON).await.expect("a close"),
        // A frame without a mask.
        CloseCode::Protocol => Some(closed_by_bytes(&system.gateway(place.0), place.1, b"\x81\x02[]").await),
        CloseCode::MalformedBinary => closed_by_data(&mut client, b"\x00\x05").await,
        CloseCode::MalformedText => closed_by_text(&mut client, "nonsense".to_owned()).await,
        CloseCode::Policy => too_slow(client, system, place).await,
        CloseCode::TooLarge => closed_by_text(&mut client, "x".repeat(70 * 1024)).await,
        CloseCode::Draining => {
            let ended = system.gateways[place.0].1.terminate();
            let closed = client.expect_close(SOON).await.expect("a close");
            assert!(ended.await.expect("its status").success());
            closed
        }
    }
}

/// A member that does not read is closed; the other one, that talks all the time, does not wait for it.
async fn too_slow(mut client: Client, system: &System, (gateway, _): Place) -> Option<u16> {
    let topic = format!("room:slow{gateway}");
    let mut loud = system.client(1 - gateway, Vsn::V2).await;
    for client in [&mut client, &mut loud] {
        let joined = join(client, &topic, json!({"rank": 100})).await;
        assert!(joined.ok, "{joined:?}");
    }
    let large = json!({"x": "x".repeat(31 * 1024)});
    // As much as its queue and the buffers of both kernels hold, and more.
    for _ in 0..250 {
        let mut last = 0;
        for _ in 0..20 {
            last = loud.send(&topic, "typing", &large).await.expect("sent");
        }
        let reply = loud.reply(last).await.expect("a reply");
        assert!(reply.ok, "{reply:?}");
        if system.gateway_metrics(gateway).await.contains("switchboard_gateway_closes_total{code=\"1008\"}") {
            return client.expect_close(SOON).await.expect("a close");
        }
        // It is not silent, only slow.
        let beat = client.send("phoenix", "heartbeat", json!({}));
        let _ = tokio::time::timeout(Duration::from_millis(1), beat).await;
    }
    panic!("a member that does not read is kept for ever");
}
