//! Ring 3: the whole service against a real nats-server, and a gateway made of raw messages.

use std::time::Duration;

use async_nats::jetstream;
use switchboard_contract::inside::LobbyInside;
use switchboard_contract::lobby::{
    At, ChatEvent, ChatStatus, Claim, Done, EpochRecord, Role, Row, Status, Table, TeacherRecord,
};
use switchboard_contract::names::{self, MatcherVerb};
use switchboard_contract::nats::Nats;
use switchboard_contract::reason::Reason;
use switchboard_contract::wire::{V1, decode, encode};

use crate::nats_server::{DEADLINE, Servers, until};
use crate::peers::{Gateway, Matcher, counts, leader, log, student, teacher};

async fn messages(nats: &Nats) -> u64 {
    let context = jetstream::new(nats.client.clone());
    let stream = context.get_stream("KV_lobby").await.expect("the stream");
    stream.get_info().await.expect("its state").state.messages
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_student_meets_a_teacher_and_nothing_is_left() {
    let Some(servers) = Servers::start(1).await else { return };
    let nats = servers.connect().await;
    let mut statuses = nats.client.subscribe(names::LOBBY_STATUS).await.expect("a subscription");
    let matcher = Matcher::lead(&servers, &nats, &["--chat-linger-ms", "300"]).await;
    let (mut a, mut b) = (Gateway::start(&nats, "a").await, Gateway::start(&nats, "b").await);
    assert!(a.row(1, 1, teacher(1)).await.resend, "it does not know us");
    assert_eq!(a.whole(vec![(1, 1, teacher(1))]).await.status.teachers, 1);
    b.whole(Vec::new()).await;
    assert_eq!(a.claim(1).await, None);
    assert_eq!(counts(&b.row(2, 1, student(2, false)).await.status), [1, 0, 0, 0]);
    let waiting = b.row(2, 2, student(2, true)).await;
    assert_eq!((counts(&waiting.status), waiting.epoch), ([1, 1, 0, 0], 1));
    assert!(waiting.status.version > 0);
    assert_eq!(b.claim(2).await, Some(Reason::Forbidden));

    assert_eq!(a.claim(1).await, None);
    let first = a.new_chat(false).await;
    let chat = first.new_chats[0].chat.id.clone();
    assert_eq!((first.new_chats.len(), &first.new_chats[0].chans), (1, &vec![1]));
    assert_eq!(b.new_chat(true).await.new_chats[0].chans, [2]);
    assert_eq!(a.new_chat(true).await.new_chats[0].chat.id, chat, "told again");

    a.row(10, 1, At::Chat { chat: chat.clone(), role: Role::Teacher, entered: true }).await;
    b.row(20, 1, At::Chat { chat: chat.clone(), role: Role::Student, entered: true }).await;
    let ready = format!("chat:ready {{}} {chat}-ready");
    until("the chat is ready", || async { log(&nats, &chat).await == [ready.clone()] }).await;
    assert_eq!(a.terminate(&chat).await, None);
    assert_eq!(a.terminate(&chat).await, None);
    let terminated = format!("chat:terminated {{}} {chat}-terminated");
    until("the chat ended", || async { log(&nats, &chat).await == [ready.clone(), terminated.clone()] }).await;
    assert_eq!(counts(&a.leader().await.status), [1, 0, 0, 1]);

    let gone = b.send(vec![(20, 2, At::Left { lost: false }), (2, 3, At::Left { lost: true })], None).await;
    assert_eq!(counts(&gone.status), [1, 0, 0, 0]);
    a.send(vec![(10, 2, At::Left { lost: false }), (1, 2, At::Left { lost: false })], None).await;
    let tombstone = format!("tombstone {{}} {chat}-tombstone");
    until("the log is closed", || async { log(&nats, &chat).await.last() == Some(&tombstone) }).await;
    until("only the epoch is left", || async { messages(&nats).await == 1 }).await;
    until("an unknown chat", || async { a.terminate(&chat).await == Some(Reason::NotFound) }).await;
    assert_eq!(log(&nats, &chat).await, [ready, terminated, tombstone], "each once");

    let mut seen: Vec<[u64; 4]> = Vec::new();
    while let Some(Some(message)) = futures_util::FutureExt::now_or_never(futures_util::StreamExt::next(&mut statuses))
    {
        let status: Status = decode("status", &message.payload).expect("a status");
        assert_eq!(status.epoch, 1);
        if seen.last() != Some(&counts(&status)) {
            seen.push(counts(&status));
        }
    }
    assert!(seen.contains(&[1, 1, 0, 0]), "the first to wait is published at once: {seen:?}");
    assert_eq!(seen.last(), Some(&[0, 0, 0, 0]), "{seen:?}");
    matcher.stop().await;
    assert_eq!(ChatEvent::parse("tombstone"), Some(ChatEvent::Tombstone));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_goes_on_where_the_old_one_stopped() {
    let Some(servers) = Servers::start(1).await else { return };
    let nats = servers.connect().await;
    let matcher = Matcher::lead(&servers, &nats, &[]).await;
    let mut a = Gateway::start(&nats, "a").await;
    a.whole(vec![(1, 1, teacher(1)), (2, 1, student(2, true)), (3, 1, student(3, true))]).await;
    a.claim(1).await;
    let chat = a.new_chat(true).await.new_chats[0].chat.clone();
    assert_eq!((chat.status, chat.student_id.as_str()), (ChatStatus::Active, "2"));
    let before = a.leader().await;
    matcher.stop().await;

    let matcher = Matcher::lead(&servers, &nats, &["--grace-ms", "1000"]).await;
    let after = a.leader().await;
    assert_eq!((after.status.epoch, counts(&after.status)), (2, counts(&before.status)));
    assert_eq!(after.status.version, before.status.version, "the students are the same");
    assert_eq!(a.claim(1).await, Some(Reason::Unavailable), "it does not know the table");
    assert!(a.row(1, 1, teacher(1)).await.resend);
    a.whole(vec![(1, 1, teacher(1)), (2, 1, student(2, true))]).await;
    let again = a.new_chat(true).await;
    assert!(again.new_chats.iter().all(|new| new.hold && new.chat.id == chat.id), "{again:?}");
    until("student 3 is gone", || async { counts(&a.leader().await.status) == [1, 0, 1, 0] }).await;
    matcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_looks_is_shown_who_leads_who_waits_and_who_talks() {
    let Some(servers) = Servers::start(1).await else { return };
    let nats = servers.connect().await;
    let matcher = Matcher::lead(&servers, &nats, &[]).await;
    let mut a = Gateway::start(&nats, "a").await;
    let text = At::Student { id: names::UserId::text("3").expect("an id"), ready: true };
    assert_eq!(a.leader().await.waiting_since, None);
    a.whole(vec![(1, 1, teacher(1)), (2, 1, student(2, true)), (3, 1, text), (4, 1, student(4, true))]).await;
    a.claim(1).await;
    let chat = a.new_chat(true).await.new_chats[0].chat.clone();
    let seen: LobbyInside = a.ask(MatcherVerb::Look, &()).await;
    let leader = a.leader().await;
    assert_eq!((&seen.leader, seen.status), (&leader.leader, leader.status));
    let context = jetstream::new(nats.client.clone());
    let bucket = context.get_key_value(names::LOBBY_BUCKET).await.expect("the bucket");
    let epoch: EpochRecord =
        decode("epoch", &bucket.get("epoch").await.expect("an answer").expect("a record")).expect("a record");
    assert_eq!((&*seen.since, seen.status.epoch), (epoch.since.as_str(), epoch.epoch));
    let json = serde_json::to_value(&seen).expect("JSON");
    let students: Vec<&serde_json::Value> =
        seen.queue.iter().enumerate().map(|(n, _)| &json["queue"][n]["student"]).collect();
    assert_eq!(students, [&serde_json::json!("3"), &serde_json::json!(4)], "as they came");
    assert_eq!(Some(&seen.queue[0].since), leader.waiting_since.as_ref());
    let talk = serde_json::json!([{"id": chat.id, "teacher": 1, "student": 2, "since": chat.since}]);
    assert_eq!(json["chats"], talk);
    matcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_falls_silent_or_says_goodbye_loses_its_rows() {
    let Some(servers) = Servers::start(1).await else { return };
    let nats = servers.connect().await;
    let matcher = Matcher::lead(&servers, &nats, &["--grace-ms", "100"]).await;
    let (mut a, mut b, mut c) =
        (Gateway::start(&nats, "a").await, Gateway::start(&nats, "b").await, Gateway::start(&nats, "c").await);
    for (gateway, id) in [(&a, 1), (&b, 2), (&c, 3)] {
        gateway.whole(vec![(1, 1, student(id, true))]).await;
    }
    b.beat(true).await;
    until("b has said goodbye", || async { counts(&a.leader().await.status) == [0, 2, 0, 0] }).await;
    let begin = std::time::Instant::now();
    while counts(&a.leader().await.status) != [0, 1, 0, 0] {
        assert!(begin.elapsed() < DEADLINE, "c is silent");
        a.beat(false).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(begin.elapsed() > Duration::from_secs(4), "not before its time");
    assert!(c.row(1, 1, student(3, true)).await.resend);

    // It lives after all: all that it says is that it does, and it is asked for its table.
    let begin = std::time::Instant::now();
    while !c.is_asked_for_its_table().await {
        assert!(begin.elapsed() < DEADLINE, "c is asked");
        a.beat(false).await;
        c.beat(false).await;
    }
    eprintln!("c is asked for its table: after {} ms", begin.elapsed().as_millis());
    assert_eq!(counts(&c.whole(vec![(1, 2, student(3, true))]).await.status), [0, 2, 0, 0]);
    assert!(!a.row(9, 1, student(9, false)).await.resend);
    matcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_understood_is_refused_with_an_error() {
    let Some(servers) = Servers::start(1).await else { return };
    let nats = servers.connect().await;
    let matcher = Matcher::lead(&servers, &nats, &[]).await;
    for body in [&b"{\"v\":2}"[..], b"", b"[]"] {
        let answer =
            nats.request(MatcherVerb::Table.subject(), body.to_vec().into(), DEADLINE).await.expect("an answer");
        let headers = answer.headers.expect("headers");
        assert_eq!(headers.get("Nats-Service-Error-Code").map(|code| code.as_str()), Some("400"));
    }
    matcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_without_an_answer_begins_a_new_epoch_with_what_is_stored() {
    let Some(servers) = Servers::start(1).await else { return };
    let nats = servers.connect().await;
    let matcher = Matcher::lead(&servers, &nats, &["--grace-ms", "60000"]).await;
    let a = Gateway::start(&nats, "a").await;
    a.whole(vec![(1, 1, student(1, true))]).await;
    let begin = std::time::Instant::now();
    // The matcher gets the request, and then the server stops before or after the batch: nobody knows which.
    let rows = vec![Row { chan: 2, n: 1, at: student(2, true) }];
    let table = Table { v: V1, gateway: a.name.clone(), whole: None, rows };
    a.nats.publish(MatcherVerb::Table.subject(), encode(&table)).await;
    let rows = vec![Row { chan: 3, n: 1, at: student(3, true) }];
    let table = Table { v: V1, gateway: a.name.clone(), whole: None, rows };
    a.nats.publish(MatcherVerb::Table.subject(), encode(&table)).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    servers.signal("STOP");
    tokio::time::sleep(Duration::from_secs(4)).await;
    servers.signal("CONT");
    until("the matcher leads again", || async { leader(&nats).await.is_some_and(|l| l.status.epoch > 1) }).await;
    let now = a.leader().await;
    let stored = counts(&now.status)[1];
    eprintln!("epoch {} with {stored} waiting, after {} ms", now.status.epoch, begin.elapsed().as_millis());
    assert!((1..=3).contains(&stored));
    let reply = a.whole((1..=3).map(|id| (id, 1, student(id, true))).collect()).await;
    assert_eq!((counts(&reply.status), reply.epoch), ([0, 3, 0, 0], now.status.epoch));
    matcher.stop().await;
}

/// A leader is stopped while claims of many teachers wait for its next batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stops_refuses_what_it_has_not_written_and_the_next_one_does_it_once() {
    let Some(servers) = Servers::start(1).await else { return };
    let nats = servers.connect().await;
    let context = jetstream::new(nats.client.clone());
    let mut refused = 0;
    for round in 0..20 {
        let matcher = Matcher::lead(&servers, &nats, &[]).await;
        let a = Gateway::start(&nats, &format!("a{round}")).await;
        let teachers = round * 100 + 1..round * 100 + 31;
        let of = |id| {
            [(id, 1, teacher(id)), (id + 10_000, 1, student(id, true)), (id + 20_000, 1, student(id + 100_000, true))]
        };
        let rows: Vec<_> = teachers.clone().flat_map(of).collect();
        a.whole(rows.clone()).await;
        // The next batch does not begin for a while after this one.
        assert_eq!(a.claim(teachers.start).await, None);
        let claim = async |chan| {
            let claim = encode(&Claim { v: V1, gateway: a.name.clone(), chan, id: chan });
            let answer = nats.request(MatcherVerb::Claim.subject(), claim, Duration::from_secs(1)).await;
            (chan, answer.ok().map(|answer| decode::<Done>("done", &answer.payload).expect("an answer").refused))
        };
        let claims = futures_util::future::join_all(teachers.clone().skip(1).map(claim));
        let stop = async {
            a.leader().await;
            matcher.stop().await;
        };
        let (answers, ()) = tokio::join!(claims, stop);
        let bucket = context.get_key_value(names::LOBBY_BUCKET).await.expect("the bucket");
        let chats = async |id| {
            let record = bucket.get(format!("teacher.{id}")).await.expect("an answer").expect("a record");
            decode::<TeacherRecord>("teacher", &record).expect("a record").chats.len()
        };
        for (id, answer) in answers {
            match answer {
                Some(None) => assert_eq!(chats(id).await, 1, "done"),
                Some(Some(reason)) => {
                    assert_eq!((reason, chats(id).await), (Reason::Unavailable, 0), "not done");
                    refused += 1;
                }
                // It came too late to be read.
                None => {}
            }
        }
        let next = Matcher::lead(&servers, &nats, &[]).await;
        a.whole(rows).await;
        let again = || futures_util::future::join_all(teachers.clone().skip(1).map(claim));
        for (id, answer) in again().await.into_iter().chain(again().await) {
            assert_eq!((answer, chats(id).await), (Some(None), 1), "asked again");
        }
        next.stop().await;
        if refused > 0 {
            eprintln!("{refused} claims were refused in round {round}");
            return;
        }
    }
    panic!("no claim was refused");
}
