//! What users notice when NATS has no room on disk for what they say.

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream::Config};
use serde_json::json;
use switchboard_contract::names::ROOMS_STREAM;

use crate::harness::{Shape, System};
use crate::side::{agree, sides, talk};
use crate::survival::{in_place, queue, served};
use crate::talker::{self, talkers};

/// Room for streams, and how much of it the log may take: its usual share would not fit into so little.
const ROOM: &str = "16MB";
const LOG_ROOM: i64 = 6_000_000;

/// Gives NATS so little room on disk that a test can fill it.
pub(crate) async fn little_room(system: &mut System) {
    let context = jetstream::new(system.nats.client().await);
    let config = context.get_stream(ROOMS_STREAM).await.expect("the stream").cached_info().config.clone();
    context.update_stream(Config { max_bytes: LOG_ROOM, ..config }).await.expect("changed");
    system.nats.restart_with_room(ROOM).await;
    for service in system.services() {
        service.ready().await;
    }
}
/// Writes of a service that were refused because there is none.
const REFUSED: &str = "switchboard_nats_writes_refused_total{code=\"10023\"}";

/// Takes all the room that is left.
pub(crate) async fn fill(system: &System) -> jetstream::Context {
    let context = jetstream::new(system.nats.client().await);
    let stream = Config { name: "FILL".into(), subjects: vec!["fill".into()], ..Config::default() };
    context.create_stream(stream).await.expect("a stream");
    for size in [500_000, 10_000, 100] {
        for _ in 0..1_000 {
            let ack = context.publish("fill", vec![0; size].into()).await.expect("sent");
            if let Err(error) = ack.await {
                eprintln!("full: {error}");
                break;
            }
        }
    }
    context
}

/// There is room again.
pub(crate) async fn empty(context: &jetstream::Context) {
    context.delete_stream("FILL").await.expect("deleted");
}

#[tokio::test]
async fn while_nats_has_no_room_on_disk_pushes_are_refused_and_sockets_wait() {
    let Some(mut system) = System::of(Shape { matchers: 2, ..Shape::default() }).await else { return };
    little_room(&mut system).await;
    let (mut teacher, mut student) = sides(&system).await;
    let mut waiting = queue(&system, 0..3).await;
    let mut other = system.teacher("other").await;
    let mut talkers = talkers(&system).await;
    let [ada, bob] = &mut talkers;
    tokio::join!(talk(&mut teacher, &mut student, 3), ada.talk(3), bob.talk(3));

    let context = fill(&system).await;
    let before: Vec<Duration> = system.services().map(|service| service.cpu()).collect();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(8) {
        let reply = teacher.send().await.expect("an open socket");
        assert_eq!(reply.reason(), Some("unavailable"), "{reply:?}");
        let claim = other.client.push("presence:teachers", "claim:student", json!({"teacherId": "other"}));
        let claim = claim.await.expect("an open socket");
        assert!(claim.ok || claim.reason() == Some("unavailable"), "{claim:?}");
    }
    for (service, before) in system.services().zip(before) {
        let used = service.cpu() - before;
        eprintln!("a service used {} ms of a processor in {} ms", used.as_millis(), start.elapsed().as_millis());
        assert!(used < start.elapsed() / 2, "a service is busy with nothing");
    }
    for matcher in &system.matchers {
        assert!(matcher.metric(REFUSED).await > Some(0), "it is counted, where the log only has the beginning");
    }
    in_place(&mut waiting).await;

    let start = Instant::now();
    empty(&context).await;
    let [ada, bob] = &mut talkers;
    tokio::join!(talk(&mut teacher, &mut student, 5), ada.talk(5), bob.talk(5));
    eprintln!("all was said {} ms after there was room again", start.elapsed().as_millis());
    agree(&mut teacher, &mut student).await;
    talker::agree(&mut talkers).await;
    served(&mut other, 0..3).await;
    for student in &mut waiting {
        student.new_chat().await;
    }
    for service in system.services_mut() {
        service.ready().await;
    }
}
