//! Rooms: what is void, what survives, what ends by itself; and what the other tests of rooms say and ask.

use std::time::{Duration, SystemTime};

use async_nats::jetstream;
use serde_json::value::RawValue;
use switchboard_contract::ack::Outcome;
use switchboard_contract::limits::{KEYWORD_WINDOW, REQUEST_TIMEOUT};
use switchboard_contract::log::{Entry, Read, ReadReply, Sender};
use switchboard_contract::names::{
    self, Incarnation, LogName, ROOMS_BUCKET, ROOMS_STREAM, RoomId, UserId, room_record_subject,
};
use switchboard_contract::nats::Nats;
use switchboard_contract::room::{Phase, RANK_MEMBER, RANK_MODERATOR, RANK_VIP, Rank, RoomRecord, RoomState};
use switchboard_contract::testing::{NatsServer, eventually};
use switchboard_contract::wire::{self, V1};

use crate::service::{Service, cpu, fresh, read, seqs};

const LINGER: Duration = Duration::from_secs(60);

/// A room, as a gateway sees it.
pub(crate) struct Room {
    pub(crate) nats: Nats,
    pub(crate) id: RoomId,
    pub(crate) log: LogName,
}

impl Room {
    pub(crate) async fn new(server: &NatsServer, id: &str) -> Room {
        let nats = Nats::connect(&server.common_args(), "test", &Incarnation::new()).await.expect("a connection");
        let id = RoomId::new(id).expect("an id");
        Room { nats, log: LogName::Room(id.clone()), id }
    }

    /// As [`Room::new`], with a life and a record.
    pub(crate) async fn begun(server: &NatsServer, id: &str) -> (Room, u64) {
        let room = Room::new(server, id).await;
        let since = room.begin(0).await.expect("nobody else is there");
        (room, since)
    }

    /// The first entry of a life, as a joiner's gateway logs it: its sequence, or `None` if another one was first.
    pub(crate) async fn begin(&self, last_seq: u64) -> Option<u64> {
        let since = self.state_after(last_seq).await?;
        let record = RoomRecord { v: V1, since, phase: Phase::Open, seq: since, state: RoomState::default() };
        let (revision, _) = self.stored().await;
        self.put(revision, &record).await;
        Some(since)
    }

    /// An empty change, if the log's last entry is this one.
    pub(crate) async fn state_after(&self, last_seq: u64) -> Option<u64> {
        let body = entry("room:state", "{}", None);
        match self.nats.write(self.log.log_subject(), last_seq, Default::default(), body, REQUEST_TIMEOUT).await {
            Outcome::Committed { seq } => Some(seq),
            Outcome::Fenced => None,
            Outcome::Unknown => panic!("no answer"),
        }
    }

    pub(crate) async fn put(&self, expected: u64, record: &RoomRecord) -> bool {
        let headers = switchboard_contract::nats::header("Nats-Rollup", "sub");
        let subject = room_record_subject(&self.id);
        let outcome = self.nats.write(subject, expected, headers, wire::encode(record), REQUEST_TIMEOUT).await;
        assert_ne!(outcome, Outcome::Unknown);
        matches!(outcome, Outcome::Committed { .. })
    }

    pub(crate) async fn stored(&self) -> (u64, Option<RoomRecord>) {
        let stream = names::bucket_stream(ROOMS_BUCKET);
        let stored = self.nats.leader_get(&stream, &room_record_subject(&self.id), REQUEST_TIMEOUT).await;
        let Some(stored) = stored.expect("an answer") else { return (0, None) };
        (stored.seq, stored.body.map(|body| wire::decode("record", &body).expect("a record")))
    }

    pub(crate) async fn record(&self) -> Option<RoomRecord> {
        self.stored().await.1
    }

    pub(crate) async fn publish(&self, event: &str, payload: &str, from: Option<(u64, Rank)>) -> u64 {
        let context = jetstream::new(self.nats.client.clone());
        let ack = context.publish(self.log.log_subject(), entry(event, payload, from)).await.expect("sent");
        ack.await.expect("stored").sequence
    }

    pub(crate) async fn say(&self, text: &str, user: u64, rank: Rank) -> u64 {
        self.publish("new_message", &serde_json::json!({ "body": text }).to_string(), Some((user, rank))).await
    }

    pub(crate) async fn change(&self, change: &str) -> u64 {
        self.publish("room:state", change, Some((100, RANK_MODERATOR))).await
    }

    pub(crate) async fn read(&self) -> ReadReply {
        self.ask(&fresh(&self.log)).await
    }

    /// Asks again where a replica that stops was asked, as gateways do.
    async fn ask(&self, asked: &Read) -> ReadReply {
        for _ in 0..20 {
            if let Some(reply) = read(&self.nats.client, asked).await {
                return reply;
            }
        }
        panic!("history does not answer")
    }

    pub(crate) async fn read_states(&self) -> ReadReply {
        let asked = Read { states: true, ..fresh(&self.log) };
        self.ask(&asked).await
    }
}

fn entry(event: &str, payload: &str, from: Option<(u64, Rank)>) -> bytes::Bytes {
    let payload = RawValue::from_string(payload.to_owned()).expect("JSON");
    wire::encode(&Entry {
        v: V1,
        event: event.into(),
        payload: &payload,
        from: from.map(|(user, _)| Sender { role: None, user_id: UserId::from(user), session: None }),
        rank: from.map(|(_, rank)| rank),
        id: "id".into(),
        at: wire::timestamp(SystemTime::now()).into(),
    })
}

pub(crate) fn is_quiet(reply: &ReadReply) -> bool {
    let room = reply.room.as_ref().expect("a room");
    room.state.silences(Some((&UserId::from(1), RANK_MEMBER)))
}

#[tokio::test]
async fn quiet_voids_exactly_what_stands_behind_it() {
    let Some(server) = NatsServer::start().await else { return };
    let service = Service::start(&server).await;
    let (room, since) = Room::begun(&server, "r.1").await;
    let mut heard = Vec::new();
    for n in 0..40 {
        let seq = room.say("x", n, RANK_MEMBER).await;
        if n % 10 < 5 {
            heard.push(seq);
        }
        heard.push(room.say("x", n, RANK_VIP).await);
        if n % 5 == 4 {
            room.change(&format!(r#"{{"quiet":{}}}"#, n % 10 == 4)).await;
            // A member may not change it back.
            room.publish("room:state", r#"{"quiet":false}"#, Some((1, RANK_VIP))).await;
        }
    }
    let reply = room.read().await;
    assert_eq!((seqs(&reply), reply.room.map(|room| room.since)), (heard, Some(since)));
    let states = seqs(&room.read_states().await).len() - seqs(&room.read().await).len();
    assert_eq!(states, 9, "the first, and eight of the moderator");
    service.stop().await;
}

#[tokio::test]
async fn a_rooms_state_survives_a_restart_and_the_end_of_its_log() {
    let Some(server) = NatsServer::start().await else { return };
    let service = Service::start(&server).await;
    let (room, since) = Room::begun(&server, "r").await;
    room.say("before", 1, RANK_MEMBER).await;
    let changed = room.change(r#"{"quiet":true,"title":"Tea"}"#).await;
    eventually("the snapshot is written", async || {
        room.record().await.is_some_and(|record| (record.since, record.seq) == (since, changed))
    })
    .await;
    let record = room.record().await.expect("a record");
    assert_eq!(record.phase, Phase::Open);
    let last = room.say("void", 1, RANK_MEMBER).await;
    let context = jetstream::new(room.nats.client.clone());
    let stream = context.get_stream(ROOMS_STREAM).await.expect("the stream");
    stream.purge().sequence(last + 1).await.expect("dropped");
    service.stop().await;
    let service = Service::start(&server).await;
    let reply = room.read().await;
    let view = reply.room.as_ref().expect("a room");
    assert_eq!((view.since, &view.state, reply.last_seq), (since, &record.state, 0));
    assert!(is_quiet(&reply) && reply.dropped_to == last, "{}", reply.dropped_to);
    room.say("void too", 1, RANK_MEMBER).await;
    let heard = room.say("heard", 1, RANK_VIP).await;
    assert_eq!(seqs(&room.read().await), [heard]);
    service.stop().await;
}

#[tokio::test]
async fn what_has_a_time_ends_by_itself_and_once() {
    let Some(server) = NatsServer::start().await else { return };
    let service = Service::start(&server).await;
    let (room, _) = Room::begun(&server, "r").await;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis();
    room.change(&format!(r#"{{"quiet":true,"until":{}}}"#, now + 700)).await;
    assert!(is_quiet(&room.read().await));
    eventually("it is over", async || !is_quiet(&room.read().await)).await;
    let over = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis();
    assert!(over >= now + 700);
    let seq = room.read().await.last_seq;
    eventually("the snapshot has it", async || room.record().await.is_some_and(|record| record.seq == seq)).await;
    assert_eq!(seqs(&room.read_states().await).len(), 3, "said once");
    service.stop().await;
}

#[tokio::test]
async fn the_lease_holder_dies_and_another_goes_on() {
    let Some(server) = NatsServer::start().await else { return };
    let first = Service::start_with(&server, LINGER, KEYWORD_WINDOW).await;
    let leads = async |service: &Service| service.status("/health/ready").await.0 == 200;
    let (room, since) = Room::begun(&server, "r").await;
    let changed = room.change(r#"{"quiet":true}"#).await;
    eventually("the first one writes", async || room.record().await.is_some_and(|r| r.seq == changed)).await;
    let second = Service::start_with(&server, LINGER, KEYWORD_WINDOW).await;
    first.kill().await;
    assert!(leads(&second).await);
    let changed = room.change(r#"{"quiet":false}"#).await;
    eventually("the second one writes", async || room.record().await.is_some_and(|r| r.seq == changed)).await;
    assert_eq!(room.record().await.expect("a record").since, since);
    second.stop().await;
}

/// `cargo test -p switchboard-history -- --ignored --nocapture`: what rooms cost in which nothing happens.
#[tokio::test]
#[ignore = "a measurement"]
async fn four_thousand_open_rooms() {
    let Some(server) = NatsServer::start().await else { return };
    let service = Service::start(&server).await;
    let room = Room::new(&server, "r").await;
    // In another process they would be received by gateways.
    let _members = room.nats.client.subscribe("sb.out.room.>").await.expect("a subscription");
    for n in 0..4_000 {
        let id = RoomId::new(&n.to_string()).expect("an id");
        let room = Room { nats: room.nats.clone(), log: LogName::Room(id.clone()), id };
        room.begin(0).await.expect("nobody else is there");
    }
    let nats = server.pids()[0].to_string();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = (cpu("self"), cpu(&nats));
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (own, of_nats) = (cpu("self") - before.0, cpu(&nats) - before.1);
    eprintln!("4,000 rooms with members, 20 s: {own:.2} CPU s here, {of_nats:.2} of NATS");
    service.stop().await;
}
