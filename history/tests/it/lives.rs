//! How rooms are wiped, and how they are not.

use std::time::Duration;

use switchboard_contract::limits::{DUPLICATE_WINDOW, KEYWORD_WINDOW, LOG_AGE_MAX, LOG_AGE_MIN};
use switchboard_contract::names::{ROOMS_BUCKET, ROOMS_STREAM, bucket_stream};
use switchboard_contract::room::{Phase, RANK_MEMBER, RoomRecord};
use switchboard_contract::testing::{NatsServer, eventually};

use crate::rooms::Room;
use crate::service::{Service, args};

const LINGER: Duration = Duration::from_millis(300);

async fn start(server: &NatsServer) -> Service {
    Service::start_with(server, LINGER, KEYWORD_WINDOW).await
}

/// It has no record, and history knows nothing of it.
async fn gone(room: &Room) -> bool {
    room.record().await.is_none() && room.read().await.room.is_none()
}

async fn closes(room: &Room) -> (u64, RoomRecord) {
    eventually("it closes", async || room.record().await.is_some_and(|record| record.phase == Phase::Closing)).await;
    let (revision, record) = room.stored().await;
    (revision, record.expect("a record"))
}

#[tokio::test]
async fn an_empty_room_is_wiped_and_one_with_somebody_is_not() {
    let Some(server) = NatsServer::start().await else { return };
    let service = start(&server).await;
    let (somebody, since) = Room::begun(&server, "somebody").await;
    let member = somebody.nats.client.subscribe(somebody.log.out_subject()).await.expect("a subscription");
    somebody.nats.round_trip(LINGER).await.expect("it is live");
    // Several lives of another one, one after the other: time enough to wipe both.
    let (empty, first) = Room::begun(&server, "empty").await;
    empty.say("something", 1, RANK_MEMBER).await;
    eventually("it is wiped", async || gone(&empty).await).await;
    let reply = empty.read().await;
    let last = reply.last_seq;
    assert_eq!(reply.dropped_to, last, "what it had is gone");
    assert!(last > first, "who begins a new life has to know the tombstone");
    assert_eq!(empty.begin(0).await, None, "it is there");
    let second = empty.begin(last).await.expect("nobody else is there");
    assert_eq!(empty.read().await.room.map(|room| room.since), Some(second));
    eventually("it is wiped again", async || gone(&empty).await).await;

    assert_eq!(somebody.read().await.room.map(|room| room.since), Some(since));
    assert_eq!(somebody.record().await.map(|record| record.phase), Some(Phase::Open));
    drop(member);
    eventually("it is wiped once nobody is there", async || gone(&somebody).await).await;
    service.stop().await;
}

#[tokio::test]
async fn who_comes_while_it_closes_saves_it() {
    let Some(server) = NatsServer::start().await else { return };
    let service = start(&server).await;
    let (room, since) = Room::begun(&server, "saved").await;
    let said = room.say("kept", 1, RANK_MEMBER).await;
    let (revision, record) = closes(&room).await;
    // Without a subscription: the log alone has to save it, until the linger time is over once more.
    assert!(room.put(revision, &RoomRecord { phase: Phase::Open, ..record }).await);
    let saved = room.state_after(room.read().await.last_seq).await.expect("nothing was logged meanwhile");
    assert!(saved > said);
    let (_, again) = closes(&room).await;
    assert_eq!(again.since, since, "the same life, which closes a second time");
    let reply = room.read().await;
    assert_eq!((reply.room.map(|room| room.since), reply.said), (Some(since), said));
    eventually("it is wiped", async || gone(&room).await).await;
    service.stop().await;
}

#[tokio::test]
async fn who_comes_too_late_begins_a_new_life() {
    let Some(server) = NatsServer::start().await else { return };
    let service = start(&server).await;
    let (room, since) = Room::begun(&server, "late").await;
    closes(&room).await;
    let before = room.read().await.last_seq;
    assert_eq!(before, since);
    eventually("there is a tombstone", async || room.read().await.room.is_none()).await;
    assert_eq!(room.state_after(before).await, None, "refused by the tombstone");
    let tombstone = room.read().await.last_seq;
    let begun = room.begin(tombstone).await.expect("a new life");
    let member = room.nats.client.subscribe(room.log.out_subject()).await.expect("a subscription");
    eventually("its record is of the new life", async || {
        room.record().await.is_some_and(|record| (record.since, record.phase) == (begun, Phase::Open))
    })
    .await;
    assert_eq!(room.read().await.room.map(|room| room.since), Some(begun));
    drop(member);
    service.stop().await;
}

#[tokio::test]
async fn a_life_that_two_have_begun_is_one_and_ends() {
    let Some(server) = NatsServer::start().await else { return };
    let service = start(&server).await;
    let room = Room::new(&server, "both").await;
    let member = room.nats.client.subscribe(room.log.out_subject()).await.expect("a subscription");
    room.nats.round_trip(LINGER).await.expect("it is live");
    // The second saw the first one's entry, but no record yet, and writes one before the first does.
    let since = room.state_after(0).await.expect("nobody else is there");
    let later = room.begin(since).await.expect("nothing was logged meanwhile");
    assert!(later > since);
    eventually("its record is of the life that its log has", async || {
        room.record().await.is_some_and(|record| (record.since, record.seq) == (since, later))
    })
    .await;
    drop(member);
    eventually("it is wiped", async || gone(&room).await).await;
    service.stop().await;
}

#[tokio::test]
async fn a_life_without_a_record_gets_one_and_a_record_without_a_life_goes() {
    let Some(server) = NatsServer::start().await else { return };
    Service::start(&server).await.stop().await;
    let (orphan, since) = Room::begun(&server, "orphan").await;
    orphan.publish("phx_tombstone", "{}", None).await;
    assert_eq!(orphan.record().await.map(|record| record.since), Some(since));
    let lives = Room::new(&server, "lives").await;
    let begun = lives.state_after(0).await.expect("nobody else is there");
    let service = Service::start(&server).await;
    eventually("the life has a record", async || {
        lives.record().await.is_some_and(|record| (record.since, record.seq) == (begun, begun))
    })
    .await;
    eventually("the record without a life is gone", async || orphan.record().await.is_none()).await;
    service.stop().await;
}

#[tokio::test]
async fn the_logs_age_is_changed_and_nothing_of_a_room_stays() {
    let Some(server) = NatsServer::start().await else { return };
    let nats = server.client().await;
    let context = async_nats::jetstream::new(nats);
    let stream = async |name: &str| context.get_stream(name).await.expect("a stream").cached_info().clone();
    let ages = async || {
        let config = stream(ROOMS_STREAM).await.config;
        (config.max_age, config.duplicate_window)
    };
    Service::start(&server).await.stop().await;
    assert_eq!(ages().await, (LOG_AGE_MAX, DUPLICATE_WINDOW));

    let log_max_age_ms = u64::try_from(LOG_AGE_MIN.as_millis()).expect("short");
    let service = Service::start_as(switchboard_history::Args { log_max_age_ms, ..args(&server, LINGER) }).await;
    assert_eq!(ages().await, (LOG_AGE_MIN, LOG_AGE_MIN), "NATS refuses a longer window for ids");
    let (room, _) = Room::begun(&server, "short").await;
    room.say("something", 1, RANK_MEMBER).await;
    eventually("it is wiped, and its log and the marker of its record are gone", async || {
        let records = stream(&bucket_stream(ROOMS_BUCKET)).await.state.messages;
        gone(&room).await && stream(ROOMS_STREAM).await.state.messages == 0 && records == 0
    })
    .await;
    // A life of which the stream has nothing any more ends, too.
    let (silent, _) = Room::begun(&server, "silent").await;
    let member = silent.nats.client.subscribe(silent.log.out_subject()).await.expect("a subscription");
    eventually("its log is gone", async || stream(ROOMS_STREAM).await.state.messages == 0).await;
    assert!(silent.record().await.is_some(), "somebody is there");
    drop(member);
    eventually("it is wiped", async || gone(&silent).await).await;
    service.stop().await;

    Service::start(&server).await.stop().await;
    assert_eq!(ages().await, (LOG_AGE_MAX, DUPLICATE_WINDOW));
}
