//! What users notice when NATS has no room on disk for what they say.

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream::Config};
use serde_json::json;
use switchboard_contract::names::ROOMS_STREAM;

use crate::harness::{Shape, System};
use crate::side::{agree, sides, talk};
use crate::survival::{in_place, queue, served};
use crate::talker::{self, talkers};

/// Room for streams.
const ROOM: &str = "16MB";
/// Writes of a service that were refused because there is none.
const REFUSED: &str = "switchboard_nats_writes_refused_total{code=\"10023\"}";

/// Takes all the room that is left.
async fn fill(context: &jetstream::Context) {
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
}

#[tokio::test]
async fn while_nats_has_no_room_on_disk_pushes_are_refused_and_sockets_wait() {
    let Some(mut system) = System::of(Shape { matchers: 2, ..Shape::default() }).await else { return };
    // The stream's reservation would not fit into so little.
    let context = jetstream::new(system.nats.client().await);
    let config = context.get_stream(ROOMS_STREAM).await.expect("the stream").cached_info().config.clone();
    context.update_stream(Config { max_bytes: 1_000_000, ..config }).await.expect("changed");
    system.nats.restart_with_room(ROOM).await;
    for service in system.services() {
        service.ready().await;
    }
    let (mut teacher, mut student) = sides(&system).await;
    let mut waiting = queue(&system, 0..3).await;
    let mut other = system.teacher("other").await;
    let mut talkers = talkers(&system).await;
    let [ada, bob] = &mut talkers;
    tokio::join!(talk(&mut teacher, &mut student, 3), ada.talk(3), bob.talk(3));

    let context = jetstream::new(system.nats.client().await);
    fill(&context).await;
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
    context.delete_stream("FILL").await.expect("deleted");
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
