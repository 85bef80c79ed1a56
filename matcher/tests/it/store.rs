//! Ring 3: what a real bucket makes of batches, purges and old epochs. On one server and on three.

use async_nats::jetstream;
use switchboard_contract::ack::Outcome;
use switchboard_contract::lobby::{QueueRecord, StudentRecord, StudentState};
use switchboard_contract::names::{Incarnation, LobbyKey, UserId};
use switchboard_contract::nats::Nats;
use switchboard_contract::wire::V1;
use switchboard_matcher::core::{Batch, Record};
use switchboard_matcher::store::{self, Epoch};

use crate::nats_server::{DEADLINE, Servers, until};

fn queue(ticket: u64) -> (LobbyKey, Option<Record>) {
    let record = QueueRecord { v: V1, student: UserId::from(ticket), since: "now".into() };
    (LobbyKey::Queue(ticket), Some(Record::Queue(record)))
}

fn student(ticket: u64) -> (LobbyKey, Option<Record>) {
    let id = UserId::from(ticket);
    let state = StudentState::Waiting;
    let record = StudentRecord { v: V1, id: id.clone(), state, ticket, chat: None, since: "now".into() };
    (LobbyKey::Student(id), Some(Record::Student(record)))
}

fn purge(ticket: u64) -> (LobbyKey, Option<Record>) {
    (LobbyKey::Queue(ticket), None)
}

fn batch(records: impl IntoIterator<Item = (LobbyKey, Option<Record>)>) -> Batch {
    Batch { records: records.into_iter().collect() }
}

async fn begin(nats: &Nats, name: &str) -> Epoch {
    let me = Incarnation::named(name).expect("a name");
    store::acquire(nats, &me, || true).await.expect("an answer").expect("an epoch")
}

/// Messages in the bucket's stream, markers included.
async fn messages(nats: &Nats) -> u64 {
    let context = jetstream::new(nats.client.clone());
    let stream = context.get_stream("KV_lobby").await.expect("the stream");
    stream.get_info().await.expect("its state").state.messages
}

async fn loaded(nats: &Nats, epoch: Epoch) -> Vec<String> {
    let records = store::load(nats, epoch).await.expect("the records");
    records.iter().map(|loaded| format!("{}@{}", loaded.key, loaded.revision)).collect()
}

fn committed(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Committed { seq } => seq,
        other @ (Outcome::Fenced | Outcome::Unknown) => panic!("{other:?}"),
    }
}

async fn batches_are_whole_and_leave_nothing_behind(servers: usize) {
    let Some(servers) = Servers::start(servers).await else { return };
    let nats = servers.connect().await;
    let epoch = begin(&nats, "one").await;
    assert_eq!(epoch.number, 1);

    let single = committed(store::commit(&nats, epoch, batch([queue(1)])).await);
    assert_eq!(single, epoch.revision + 1);
    let many = committed(store::commit(&nats, epoch, batch((2..=1_000).map(queue))).await);
    assert_eq!(many, single + 999, "the sequences of a batch have no gaps");
    assert_eq!(messages(&nats).await, 1_001);

    let mixed = batch((1..=500).map(purge).chain([student(7)]));
    committed(store::commit(&nats, epoch, mixed).await);
    let epoch = begin(&nats, "two").await;
    let records = loaded(&nats, epoch).await;
    assert_eq!((epoch.number, records.len()), (2, 501));
    assert!(records.contains(&format!("student.7@{}", many + 501)), "{records:?}");
    assert!(!records.iter().any(|record| record.starts_with("queue.000000000500")), "purged");

    committed(store::commit(&nats, epoch, batch((501..=1_000).map(purge))).await);
    committed(store::commit(&nats, epoch, batch([(student(7).0, None)])).await);
    until("only the epoch is left", || async { messages(&nats).await == 1 }).await;
    assert_eq!(loaded(&nats, epoch).await, [""; 0]);

    committed(store::commit(&nats, epoch, batch((8..=10).map(queue))).await);
    committed(store::commit(&nats, epoch, batch((8..=10).map(purge))).await);
    committed(store::commit(&nats, epoch, batch([queue(9), queue(10)])).await);
    until("the marker is gone", || async { messages(&nats).await <= 3 }).await;
    let epoch = begin(&nats, "three").await;
    assert_eq!(loaded(&nats, epoch).await.len(), 2, "a key written again outlives its marker");
}

async fn what_is_purged_stays_purged_when_nats_crashes(servers: usize) {
    let Some(mut servers) = Servers::start(servers).await else { return };
    {
        let nats = servers.connect().await;
        let epoch = begin(&nats, "one").await;
        for round in 0..3 {
            let keys = || (1..=100).map(|n| round * 100 + n);
            for _ in 0..3 {
                committed(store::commit(&nats, epoch, batch(keys().flat_map(|n| [queue(n), student(n)]))).await);
            }
            let left = |n: &u64| !n.is_multiple_of(50);
            let purges = keys().filter(left).flat_map(|n| [purge(n), (student(n).0, None)]);
            committed(store::commit(&nats, epoch, batch(purges)).await);
        }
        until("the markers are gone", || async { messages(&nats).await == 13 }).await;
    }
    for crash in 0..2 {
        servers.crash().await;
        let nats = servers.connect().await;
        let epoch = begin(&nats, "two").await;
        let records = loaded(&nats, epoch).await;
        assert_eq!(records.len(), 12, "crash {crash}: {records:?}");
        until("nothing else is there", || async { messages(&nats).await == 13 }).await;
    }
}

#[tokio::test]
async fn what_a_crash_left_under_a_marker_is_dropped_while_loading() {
    let Some(servers) = Servers::start(1).await else { return };
    let nats = servers.connect().await;
    let context = jetstream::new(nats.client.clone());
    let epoch = begin(&nats, "one").await;
    committed(store::commit(&nats, epoch, batch([queue(1), student(2)])).await);
    let mut marker = async_nats::HeaderMap::new();
    marker.insert("KV-Operation", "PURGE");
    marker.insert("Nats-TTL", "1s");
    let stored = context.publish_with_headers(queue(1).0.subject(), marker, "".into()).await;
    stored.expect("sent").await.expect("stored");
    let epoch = begin(&nats, "two").await;
    assert_eq!(loaded(&nats, epoch).await.len(), 1);
    until("record and marker are gone", || async { messages(&nats).await == 2 }).await;
    let epoch = begin(&nats, "three").await;
    assert_eq!(loaded(&nats, epoch).await.len(), 1, "it does not come back");
}

async fn an_old_epoch_writes_nothing(servers: usize) {
    let Some(servers) = Servers::start(servers).await else { return };
    let nats = servers.connect().await;
    let old = begin(&nats, "old").await;
    committed(store::commit(&nats, old, batch([queue(1), student(1)])).await);
    let new = begin(&nats, "new").await;
    assert_eq!(new.number, old.number + 1);
    assert_eq!(store::commit(&nats, old, batch([queue(2)])).await, Outcome::Fenced);
    assert_eq!(store::commit(&nats, old, batch([purge(1)])).await, Outcome::Fenced);
    assert_eq!(store::commit(&nats, old, batch([queue(2), queue(3), purge(1)])).await, Outcome::Fenced);
    assert_eq!(store::commit(&nats, old, batch((2..=1_000).map(queue))).await, Outcome::Fenced);
    let records = loaded(&nats, new).await;
    assert_eq!(records.len(), 2, "{records:?}");
    committed(store::commit(&nats, new, batch([queue(2), purge(1)])).await);
    let (record, revision) = store::leader(&nats).await.expect("an answer").expect("an epoch");
    assert_eq!((record.leader.as_str(), revision), ("new", new.revision));
}

#[tokio::test]
async fn batches_on_one_server() {
    batches_are_whole_and_leave_nothing_behind(1).await;
}

#[tokio::test]
async fn batches_on_three_servers() {
    batches_are_whole_and_leave_nothing_behind(3).await;
}

#[tokio::test]
async fn a_crash_of_one_server_brings_nothing_back() {
    what_is_purged_stays_purged_when_nats_crashes(1).await;
}

#[tokio::test]
async fn a_crash_of_three_servers_brings_nothing_back() {
    what_is_purged_stays_purged_when_nats_crashes(3).await;
}

#[tokio::test]
async fn fencing_on_one_server() {
    an_old_epoch_writes_nothing(1).await;
}

#[tokio::test]
async fn fencing_on_three_servers() {
    an_old_epoch_writes_nothing(3).await;
}

#[tokio::test]
async fn an_epoch_is_refused_to_who_may_not() {
    let Some(servers) = Servers::start(1).await else { return };
    let nats = servers.connect().await;
    begin(&nats, "one").await;
    let me = Incarnation::named("two").expect("a name");
    assert_eq!(store::acquire(&nats, &me, || false).await.expect("an answer"), None);
    let (record, _) = store::leader(&nats).await.expect("an answer").expect("an epoch");
    assert_eq!(record.leader.as_str(), "one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_version_has_written_stays_and_an_epoch_of_it_is_led_by_nobody_here() {
    let Some(servers) = Servers::start(1).await else { return };
    let nats = servers.connect().await;
    let epoch = begin(&nats, "one").await;
    committed(store::commit(&nats, epoch, batch([queue(1), student(1), student(2)])).await);
    let write = async |key: LobbyKey, body: &'static str| {
        nats.request(key.subject(), body.into(), DEADLINE).await.expect("it is stored");
    };
    // One that is new, and one that was written by this version first.
    write(student(3).0, r#"{"v":2}"#).await;
    write(student(2).0, r#"{"v":2}"#).await;
    write(queue(3).0, "no JSON").await;
    let epoch = begin(&nats, "two").await;
    let records = store::load(&nats, epoch).await.expect("the records");
    let keys: Vec<String> = records.iter().map(|loaded| loaded.key.to_string()).collect();
    assert_eq!(keys, [student(1).0.to_string(), queue(1).0.to_string()]);
    let stream = jetstream::new(nats.client.clone()).get_stream("KV_lobby").await.expect("the stream");
    for n in [2, 3] {
        let last = stream.get_last_raw_message_by_subject(&student(n).0.subject()).await.expect("it stays");
        assert_eq!(&last.payload[..], br#"{"v":2}"#);
    }

    write(LobbyKey::Epoch, r#"{"v":2,"epoch":9,"leader":"newer","since":"now"}"#).await;
    let me = Incarnation::named("three").expect("a name");
    let acquired = tokio::time::timeout(DEADLINE, store::acquire(&nats, &me, || true)).await;
    acquired.expect("it does not wait with the lease in its hand").expect_err("a newer one has it");
}
