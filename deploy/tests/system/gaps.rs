//! What a gateway loses of a chat's log while NATS is away reaches the members all the same, without a rejoin.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use switchboard::client::Client;
use switchboard_contract::lobby::Role;
use switchboard_contract::log::{Entry, Sender};
use switchboard_contract::names::{ChatId, LogName, UserId};
use switchboard_contract::wire::{self, V1};

use crate::harness::{A_WHILE, SOON, System, chat, say};

/// Messages of each side.
const MESSAGES: u64 = 40;

/// Says that many things, each again until it is accepted; gives their sequences.
async fn talk(client: &mut Client, topic: &str, role: &str, messages: u64) -> Vec<u64> {
    let mut seqs = Vec::new();
    for n in 0..messages {
        let payload = json!({"message": n, "id": format!("{role}-{n}")});
        loop {
            let reply = client.push(topic, &format!("{role}:send"), &payload).await.expect("a reply");
            if reply.ok {
                seqs.push(reply.response["seq"].as_u64().expect("a sequence"));
                break;
            }
            assert_eq!(reply.reason(), Some("unavailable"), "{reply:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    seqs
}

/// What comes is exactly this, in this order.
async fn hears(client: &mut Client, topic: &str, role: &str, seqs: &[u64]) {
    let event = format!("{role}:receive");
    for (n, seq) in seqs.iter().enumerate() {
        let message = client.expect_on(topic, &event, SOON).await.expect("a message");
        assert_eq!(
            (message.payload["message"].as_u64(), message.payload["seq"].as_u64()),
            (Some(n as u64), Some(*seq))
        );
    }
    client.expect_none(&event, A_WHILE).await.expect("nothing twice");
    assert!(client.unread().iter().all(|message| message.event != "gap"), "{:?}", client.unread());
}

#[tokio::test]
async fn nats_restarted_in_the_middle_of_a_chat() {
    let Some(mut system) = System::start().await else { return };
    let (mut teacher, mut student, topic) = chat(&system, "t", "s").await;
    let restarts = async {
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            system.nats.restart().await;
        }
    };
    let (of_teacher, of_student, ()) = tokio::join!(
        talk(&mut teacher.client, &topic, "teacher", MESSAGES),
        talk(&mut student.client, &topic, "student", MESSAGES),
        restarts
    );
    hears(&mut teacher.client, &topic, "teacher", &of_student).await;
    hears(&mut student.client, &topic, "student", &of_teacher).await;
    assert_eq!(gaps(&system, "shown").await, 0);
    gaps(&system, "history").await;
}

/// How many gaps the gateways have met, by how they ended.
async fn gaps(system: &System, how: &str) -> u64 {
    let name = format!("switchboard_gateway_gaps_total{{how=\"{how}\"}} ");
    let mut sum = 0;
    for gateway in 0..2 {
        let metrics = system.gateway_metrics(gateway).await;
        sum += metrics.lines().filter_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).sum::<u64>();
    }
    eprintln!("gaps, {how}: {sum}");
    sum
}

/// NATS is restarted, and the student says three things before any gateway is connected again: they are paused.
async fn lose(system: &mut System, topic: &str) -> Vec<u64> {
    let log = LogName::Chat(ChatId::new(&topic["chats:".len()..]).expect("an id"));
    system.signal_gateways(Signal::STOP);
    system.nats.restart().await;
    let context = async_nats::jetstream::new(system.nats.client().await);
    let mut seqs = Vec::new();
    for n in 0..3 {
        let payload = serde_json::value::to_raw_value(&json!({ "message": n })).expect("JSON");
        let entry = Entry {
            v: V1,
            event: "student:send".into(),
            payload: &payload,
            from: Some(Sender { role: Some(Role::Student), user_id: UserId::text("s").expect("an id"), session: None }),
            rank: None,
            id: "id".into(),
            at: "2023-11-14T22:13:20.050Z".into(),
        };
        let ack = context.publish(log.log_subject(), wire::encode(&entry)).await.expect("sent");
        seqs.push(ack.await.expect("stored").sequence);
    }
    system.signal_gateways(Signal::CONT);
    seqs
}

#[tokio::test]
async fn the_last_messages_are_stored_while_the_gateways_are_away() {
    let Some(mut system) = System::start().await else { return };
    let (mut teacher, mut student, topic) = chat(&system, "t", "s").await;
    say(&mut teacher.client, &mut student.client, &topic, "teacher", "before").await;
    let seqs = lose(&mut system, &topic).await;
    let start = Instant::now();
    hears(&mut teacher.client, &topic, "teacher", &seqs).await;
    eprintln!("all was there again after {} ms", start.elapsed().as_millis());
    assert_eq!(gaps(&system, "shown").await, 0);
    assert!(gaps(&system, "history").await + gaps(&system, "stream").await > 0);
    // The chat goes on behind it.
    let seqs = talk(&mut student.client, &topic, "student", 1).await;
    hears(&mut teacher.client, &topic, "teacher", &seqs).await;
}

#[tokio::test]
async fn without_history_the_stream_has_what_is_missing() {
    let Some(mut system) = System::start().await else { return };
    let (mut teacher, _student, topic) = chat(&system, "t", "s").await;
    system.kill_history();
    let seqs = lose(&mut system, &topic).await;
    // Nobody knows of a loss at the end now: the next message that the teacher's gateway gets tells.
    talk(&mut teacher.client, &topic, "teacher", 1).await;
    hears(&mut teacher.client, &topic, "teacher", &seqs).await;
    assert_eq!(gaps(&system, "shown").await, 0);
    assert!(gaps(&system, "stream").await > 0);
}
