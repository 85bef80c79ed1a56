//! Logs of chats, and what holds for any log.

use std::time::Instant;

use async_nats::jetstream;
use serde_json::value::RawValue;
use switchboard_contract::limits::READ_TIMEOUT;
use switchboard_contract::lobby::{ChatEnd, ChatEvent, Role};
use switchboard_contract::log::{Behind, Entry, Read, ReadReply, Seen, Sender};
use switchboard_contract::names::{ChatId, HISTORY_BEHIND, HISTORY_READ, LOG_SUBJECTS, LogName, ROOMS_STREAM, UserId};
use switchboard_contract::testing::{NatsServer, eventually};
use switchboard_contract::wire::{self, V1};

use crate::service::{Service, fresh, read, seqs};

fn chat(id: &str) -> LogName {
    LogName::Chat(ChatId::new(id).expect("an id"))
}

async fn publish(context: &jetstream::Context, log: &LogName, event: &str, text: &str) -> u64 {
    let payload = RawValue::from_string(serde_json::json!({ "message": text }).to_string()).expect("JSON");
    let entry = Entry {
        v: V1,
        event: event.into(),
        payload: &payload,
        from: Some(Sender { role: Some(Role::Student), user_id: UserId::from(7), session: None }),
        rank: None,
        id: "id".into(),
        at: "2023-11-14T22:13:20.050Z".into(),
    };
    let ack = context.publish(log.log_subject(), wire::encode(&entry)).await.expect("sent");
    ack.await.expect("stored").sequence
}

#[tokio::test]
async fn what_was_acknowledged_before_a_fresh_read_is_in_its_answer() {
    let Some(server) = NatsServer::start().await else { return };
    let service = Service::start(&server).await;
    let client = server.client().await;
    let context = jetstream::new(client.clone());
    let log = chat("a.b");
    assert_eq!(read(&client, &fresh(&log)).await.expect("an answer").last_seq, 0);
    for n in 0..200 {
        let seq = publish(&context, &log, "student:send", &n.to_string()).await;
        let reply = read(&client, &fresh(&log)).await.expect("an answer");
        assert_eq!((reply.last_seq, reply.said, seqs(&reply).last().copied()), (seq, seq, Some(seq)));
    }
    let metrics = service.status("/metrics").await.1;
    // The tests of this file share one recorder.
    for (name, least) in [("messages_applied_total", 200), ("reads_total", 201), ("logs_kept", 0), ("kept_bytes", 0)] {
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("switchboard_history_{name} ")));
        assert!(line.is_some_and(|n| n.parse::<f64>().unwrap() >= f64::from(least)), "{name}: {line:?}");
    }
    service.stop().await;
}

/// What one replica has answered, another one has as well before it answers the next page: the stream's leader, which
/// tells either how far to wait, may have applied less than the first one had.
#[tokio::test]
async fn a_read_that_goes_on_from_another_reaches_as_far() {
    let Some(server) = NatsServer::start().await else { return };
    let service = Service::start(&server).await;
    let client = server.client().await;
    let context = jetstream::new(client.clone());
    let log = chat("a.b");
    let seq = publish(&context, &log, "student:send", "1").await;
    let reading = tokio::spawn({
        let (client, on) = (client.clone(), Read { reach: seq + 1, ..fresh(&log) });
        async move { read(&client, &on).await }
    });
    for _ in 0..20 {
        assert_eq!(read(&client, &fresh(&log)).await.expect("an answer").last_seq, seq);
    }
    assert!(!reading.is_finished(), "it was answered without what it has to reach");
    assert_eq!(publish(&context, &log, "student:send", "2").await, seq + 1);
    let reply = reading.await.expect("no panic").expect("an answer");
    assert_eq!((reply.last_seq, seqs(&reply)), (seq + 1, vec![seq, seq + 1]));
    service.stop().await;
}

#[tokio::test]
async fn a_new_replica_answers_as_the_one_before() {
    let Some(server) = NatsServer::start().await else { return };
    let service = Service::start(&server).await;
    let client = server.client().await;
    let context = jetstream::new(client.clone());
    let (long, ended, gone) = (chat("long"), chat("ended"), chat("gone"));
    for n in 0..120 {
        publish(&context, &long, "student:send", &n.to_string()).await;
    }
    publish(&context, &ended, ChatEvent::Ready.as_str(), "").await;
    let said = publish(&context, &ended, "student:send", "said").await;
    let end = publish(&context, &ended, ChatEvent::Requeued.as_str(), "").await;
    let void = publish(&context, &ended, "student:send", "void").await;
    publish(&context, &gone, "student:send", "forgotten").await;
    publish(&context, &gone, ChatEvent::Tombstone.as_str(), "").await;
    context.publish(long.log_subject(), "no entry".into()).await.expect("sent").await.expect("stored");

    let mut answers = Vec::new();
    for log in [&long, &ended, &gone] {
        answers.push(serde_json::to_string(&read(&client, &fresh(log)).await.expect("an answer")).unwrap());
    }
    let of_ended: ReadReply = serde_json::from_str(&answers[1]).unwrap();
    assert_eq!((seqs(&of_ended), of_ended.last_seq), (vec![said], void));
    assert_eq!(of_ended.end, Some((end, ChatEnd::Requeued)));
    let of_gone: ReadReply = serde_json::from_str(&answers[2]).unwrap();
    assert_eq!((seqs(&of_gone), of_gone.last_seq), (vec![], 0));

    service.stop().await;
    let service = Service::start(&server).await;
    for (log, before) in [&long, &ended, &gone].into_iter().zip(answers) {
        let now = serde_json::to_string(&read(&client, &fresh(log)).await.expect("an answer")).unwrap();
        assert_eq!(now, before);
    }
    service.stop().await;
}

#[tokio::test]
async fn it_goes_on_where_it_was_after_nats_was_away() {
    let Some(mut server) = NatsServer::start().await else { return };
    let service = Service::start(&server).await;
    let log = chat("c");
    let before = publish(&jetstream::new(server.client().await), &log, "student:send", "before").await;
    server.kill();
    eventually("history is unready", async || service.status("/health/ready").await.0 == 503).await;
    server.restart().await;
    eventually("history is ready again", async || service.status("/health/ready").await.0 == 200).await;
    let client = server.client().await;
    let after = publish(&jetstream::new(client.clone()), &log, "student:send", "after").await;
    eventually("a fresh read has both", async || {
        read(&client, &fresh(&log)).await.is_some_and(|reply| seqs(&reply) == [before, after])
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn another_stream_under_the_same_name_is_followed_from_its_start() {
    let Some(server) = NatsServer::start().await else { return };
    let service = Service::start(&server).await;
    let client = server.client().await;
    let context = jetstream::new(client.clone());
    let log = chat("c");
    publish(&context, &log, "student:send", "of the first stream").await;
    assert!(read(&client, &fresh(&log)).await.is_some_and(|reply| reply.said > 1_000_000));
    // As if it had been put back from an old backup: its sequences are lower.
    context.delete_stream(ROOMS_STREAM).await.expect("deleted");
    let old = jetstream::stream::Config {
        name: ROOMS_STREAM.into(),
        subjects: vec![LOG_SUBJECTS.into()],
        allow_direct: true,
        ..Default::default()
    };
    eventually("the stream is made", async || context.create_stream(old.clone()).await.is_ok()).await;
    let said = publish(&context, &log, "student:send", "of the second stream").await;
    assert_eq!(said, 1);
    eventually("history has the second stream and nothing else", async || {
        read(&client, &fresh(&log)).await.is_some_and(|reply| seqs(&reply) == [said])
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn it_says_which_logs_have_more_than_was_seen() {
    let Some(server) = NatsServer::start().await else { return };
    let service = Service::start(&server).await;
    let client = server.client().await;
    let context = jetstream::new(client.clone());
    let (behind, at_its_end, unknown) = (chat("a.b"), chat("c"), chat("d"));
    let first = publish(&context, &behind, "student:send", "1").await;
    let last = publish(&context, &behind, ChatEvent::Terminated.as_str(), "").await;
    let seen = publish(&context, &at_its_end, "student:send", "1").await;
    assert!(read(&client, &fresh(&at_its_end)).await.is_some(), "all is applied");
    let logs = vec![(behind.clone(), first), (at_its_end, seen), (unknown, 0), (behind.clone(), 0)];
    let reply = client.request(HISTORY_BEHIND, wire::encode(&Seen { v: V1, logs })).await.expect("an answer");
    let reply: Behind = wire::decode("behind", &reply.payload).expect("an answer");
    assert_eq!(reply.logs, [(behind.clone(), last), (behind, last)]);
    let refused = client.request(HISTORY_BEHIND, "{}".into()).await.expect("an answer");
    assert!(refused.headers.is_some_and(|headers| headers.get("Nats-Service-Error-Code").is_some()));
    service.stop().await;
}

#[tokio::test]
async fn a_malformed_read_is_refused_and_the_next_is_answered() {
    let Some(server) = NatsServer::start().await else { return };
    let service = Service::start(&server).await;
    let client = server.client().await;
    let refused = client.request(HISTORY_READ, "{}".into()).await.expect("an answer");
    assert!(refused.headers.is_some_and(|headers| headers.get("Nats-Service-Error-Code").is_some()));
    assert!(read(&client, &fresh(&chat("c"))).await.is_some());
    service.stop().await;
}

#[tokio::test]
async fn a_read_that_cannot_be_fresh_gets_no_answer_and_does_not_stay() {
    let Some(mut server) = NatsServer::start_cluster(3).await else { return };
    let service = Service::start(&server).await;
    let client = server.client().await;
    let log = chat("c");
    publish(&jetstream::new(client.clone()), &log, "student:send", "kept").await;
    // Without a majority the stream has no leader; the two that are left still carry requests or lose them.
    server.kill_node(0);
    server.kill_node(1);
    let start = Instant::now();
    while start.elapsed() < READ_TIMEOUT {
        assert!(read(&client, &fresh(&log)).await.is_none_or(|reply| reply.said > 0));
    }
    server.restart().await;
    let client = server.client().await;
    eventually("a fresh read is answered again", async || {
        read(&client, &fresh(&log)).await.is_some_and(|reply| reply.said > 0)
    })
    .await;
    service.stop().await;
}

/// `cargo test -p switchboard-history -- --ignored --nocapture`: what catching up costs.
#[tokio::test]
#[ignore = "a measurement"]
async fn catching_up_with_100_000_messages() {
    let Some(server) = NatsServer::start().await else { return };
    Service::start(&server).await.stop().await;
    let context = jetstream::new(server.client().await);
    let text = "x".repeat(100);
    for n in 0..1000 {
        let logs: Vec<LogName> = (0..100).map(|k| chat(&format!("c{}", (n + k) % 500))).collect();
        let publishes = logs.iter().map(|log| publish(&context, log, "student:send", &text));
        futures_util::future::join_all(publishes).await;
    }
    let cpu = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let ticks: Vec<i64> = stat.rsplit(") ").next().unwrap().split(' ').filter_map(|n| n.parse().ok()).collect();
        (ticks[10] + ticks[11]) as f64 / 100.0
    };
    let (before, start) = (cpu(), Instant::now());
    let service = Service::start(&server).await;
    eprintln!("100,000 messages: {:.2} CPU s, {:?}", cpu() - before, start.elapsed());
    service.stop().await;
}
