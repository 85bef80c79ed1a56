//! Feeds: one owner each, take-overs, releases.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use switchboard_contract::feed::FeedRecord;
use switchboard_contract::names::{FeedId, Incarnation};
use switchboard_contract::process::UsageError;
use switchboard_contract::reason::Reason;
use switchboard_contract::testing::{NatsServer, eventually};
use tokio_util::sync::CancellationToken;

use crate::listener::{Counter, Listener, configuration, connect, overwrite, record, want, want_as};
use switchboard_history::Args;

use crate::service::{Process, Service, args, cpu};

const FAST: Duration = Duration::from_millis(200);

const COUNTER: &str = r#"
[[feed]]
name = "n"
interval = "200ms"
argument = "[0-9]{1,4}"
nats = "counter"
"#;

/// The owners of the feeds `n:0` to `n:29`.
async fn owners(listeners: &[Listener]) -> Vec<Incarnation> {
    let mut owners = Vec::new();
    for listener in listeners {
        owners.extend(listener.record().await.map(|(_, record)| record.owner));
    }
    owners
}

fn count(owners: &[Incarnation]) -> usize {
    let mut owners = owners.to_vec();
    owners.sort();
    owners.dedup();
    owners.len()
}

#[tokio::test]
async fn a_feed_has_one_owner_and_what_it_polls_all_hear() {
    let Some(server) = NatsServer::start().await else { return };
    let (_folder, file) = configuration(COUNTER);
    let nats = connect(&server).await;
    let first = Service::start_with_feeds(&server, &file).await;
    let (one, _) = Listener::joined(&nats, "n:7").await;
    assert!(one.told().iter().all(|told| told.last.is_none()), "there is no source yet");
    let counter = Counter::new(&nats, "counter").await;
    let version = one.value("a value", |value| value.contains(r#""argument":"7""#)).await;
    let (_, record) = one.record().await.expect("a record");
    assert_eq!((record.epoch, record.feed.as_str()), (version.0, "n:7"));
    want(&nats, &one.feed).await.expect("an answer");
    let (_, touched) = one.record().await.expect("a record");
    assert_eq!(touched.asked, record.asked + 1, "an owner that read it before may not delete it");
    let second = Service::start_with_feeds(&server, &file).await;
    let (two, fed) = Listener::joined(&nats, "n:7").await;
    assert!(fed.last.expect("a value").version >= version && fed.interval_ms == 200 && !fed.token);
    two.value("many polls later", |value| value.contains(r#""poll":25}"#)).await;
    counter.assert_not_more_often_than(FAST, 2);
    for listener in [&one, &two] {
        let values = listener.values();
        assert!(values.windows(2).all(|pair| pair[0].0 < pair[1].0), "versions grow: {values:?}");
    }
    for refused in ["n", "n:x", "n:12345", "none"] {
        let refused = FeedId::new(refused).expect("an id");
        let answer = want(&nats, &refused).await.expect("an answer");
        assert!(answer.refused == Some(Reason::NotFound) && answer.feed.is_none(), "{refused}");
    }
    second.stop().await;
    first.stop().await;
}

#[tokio::test]
async fn feeds_are_spread_and_who_stops_or_dies_loses_its_own_to_the_others() {
    let Some(server) = NatsServer::start().await else { return };
    let (_folder, file) = configuration(COUNTER);
    let nats = connect(&server).await;
    let _counter = Counter::new(&nats, "counter").await;
    let mut services = Vec::new();
    for _ in 0..3 {
        services.push(Service::start_with_feeds(&server, &file).await);
    }
    let mut listeners = Vec::new();
    for n in 0..30 {
        listeners.push(Listener::joined(&nats, &format!("n:{n}")).await.0);
    }
    eventually("three owners", async || count(&owners(&listeners).await) == 3).await;
    let before = owners(&listeners).await;
    services.remove(0).stop().await;
    eventually("two owners", async || count(&owners(&listeners).await) == 2).await;
    let after = owners(&listeners).await;
    for (before, now) in before.iter().zip(&after) {
        assert!(before == now || !after.contains(before), "only those of who stopped have moved");
    }
    services.remove(0).kill().await;
    eventually("one owner", async || count(&owners(&listeners).await) == 1).await;
    for listener in &listeners {
        let told = listener.values().len();
        eventually("it is polled on", async || listener.values().len() > told).await;
        let values = listener.values();
        assert!(values.windows(2).all(|pair| pair[0].0 < pair[1].0), "versions grow: {values:?}");
    }
    for service in services {
        service.stop().await;
    }
}

#[tokio::test]
async fn a_take_over_doubles_no_poll() {
    let Some(server) = NatsServer::start().await else { return };
    let (_folder, file) = configuration(&COUNTER.replace("200ms", "1s"));
    let nats = connect(&server).await;
    let first = Service::start_with_feeds(&server, &file).await;
    let counter = Counter::new(&nats, "counter").await;
    let (listener, _) = Listener::joined(&nats, "n:1").await;
    listener.value("a value", |_| true).await;
    let (_, before) = listener.record().await.expect("a record");
    let second = Service::start_with_feeds(&server, &file).await;
    first.stop().await;
    eventually("another owner", async || {
        listener.record().await.is_some_and(|(_, now)| now.owner != before.owner && now.epoch > before.epoch)
    })
    .await;
    let polls = counter.polls();
    eventually("it goes on", async || counter.polls() > polls + 1).await;
    counter.assert_not_more_often_than(Duration::from_secs(1), 1);
    second.stop().await;
}

#[tokio::test]
async fn the_late_write_of_a_deposed_owner_is_refused() {
    let Some(server) = NatsServer::start().await else { return };
    let (_folder, file) = configuration(&COUNTER.replace("200ms", "2s"));
    let nats = connect(&server).await;
    let service = Service::start_with_feeds(&server, &file).await;
    let counter = Counter::new(&nats, "counter").await;
    let (listener, _) = Listener::joined(&nats, "n:1").await;
    listener.value("a value", |_| true).await;
    counter.held.store(true, Ordering::SeqCst);
    let polls = counter.polls();
    eventually("a poll is on its way", async || counter.polls() > polls).await;
    let (revision, record) = listener.record().await.expect("a record");
    let epoch = record.epoch;
    let other = FeedRecord { owner: Incarnation::new(), epoch: epoch + 1, ..record };
    assert!(overwrite(&nats, &listener.feed, revision, Some(&other)).await);
    let told = listener.values().len();
    counter.held.store(false, Ordering::SeqCst);
    // The one who took it is not heard of, so the service takes it back: as a new owner.
    eventually("it is taken back", async || {
        listener.record().await.is_some_and(|(_, now)| now.epoch == epoch + 2 && now.owner != other.owner)
    })
    .await;
    listener.value("it is polled on", |value| value.contains(&format!(r#""poll":{}}}"#, polls + 2))).await;
    let values = listener.values();
    assert!(values[told..].iter().all(|(version, _)| version.0 == epoch + 2), "nothing of the late poll: {values:?}");
    service.stop().await;
}

#[tokio::test]
async fn a_feed_to_which_nobody_listens_ends_and_a_new_life_has_greater_versions() {
    let Some(server) = NatsServer::start().await else { return };
    let (_folder, file) = configuration(COUNTER);
    let nats = connect(&server).await;
    let services = [Service::start_with_feeds(&server, &file).await, Service::start_with_feeds(&server, &file).await];
    let counter = Counter::new(&nats, "counter").await;
    let mut last = (0, 0);
    for _ in 0..2 {
        let (listener, _) = Listener::joined(&nats, "n:1").await;
        let version = listener.value("a value", |_| true).await;
        assert!(version > last, "{version:?} after {last:?}");
        last = listener.values().last().expect("one").0;
        let feed = listener.feed.clone();
        drop(listener);
        eventually("the record is gone", async || record(&nats, &feed).await.is_none()).await;
    }
    let polls = counter.polls();
    tokio::time::sleep(3 * FAST).await;
    assert_eq!(counter.polls(), polls, "nobody listens");
    for service in services {
        service.stop().await;
    }
}

#[tokio::test]
async fn who_comes_while_a_feed_ends_gets_values() {
    let Some(server) = NatsServer::start().await else { return };
    let (_folder, file) = configuration(&COUNTER.replace("200ms", "100ms"));
    let nats = connect(&server).await;
    let service = Service::start_with_feeds(&server, &file).await;
    let _counter = Counter::new(&nats, "counter").await;
    let mut last = (0, 0);
    for round in 0..25u64 {
        let (listener, _) = Listener::joined(&nats, "n:1").await;
        let version = listener.value("a value", |_| true).await;
        assert!(version > last, "{version:?} after {last:?}");
        last = listener.values().last().expect("one").0;
        drop(listener);
        // Its end comes 500 to 600 ms after the last listener went.
        tokio::time::sleep(Duration::from_millis(480 + 6 * round)).await;
    }
    service.stop().await;
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_with_its_line() {
    let Some(server) = NatsServer::start().await else { return };
    let (_folder, file) = configuration("\n[[feed]]\nname = \"n\"\ninterval = \"1ms\"\nnats = \"s\"\n");
    let args = Args { feeds: Some(file.clone()), ..args(&server, Duration::from_secs(60)) };
    let error = switchboard_history::run(args, CancellationToken::new()).await.expect_err("it is wrong");
    assert!(error.is::<UsageError>(), "exit code 2");
    assert!(error.to_string().starts_with(&format!("{}:4: an interval", file.display())), "{error}");
}

#[tokio::test]
async fn a_feed_that_wants_a_secret_is_shown_to_gateways_that_keep_it() {
    let Some(server) = NatsServer::start().await else { return };
    let (_folder, file) = configuration(&COUNTER.replace("argument", "secret = true\nargument"));
    let nats = connect(&server).await;
    let service = Service::start_with_feeds(&server, &file).await;
    let (listener, fed) = Listener::joined(&nats, "n:7").await;
    assert!(fed.secret && !fed.token);
    let (_, before) = listener.record().await.expect("a record");
    let older = want_as(&nats, &listener.feed, false).await.expect("an answer");
    assert!(older.refused == Some(Reason::NotFound) && older.feed.is_none());
    let (_, record) = listener.record().await.expect("a record");
    assert_eq!(record.asked, before.asked, "it has not asked for anything that there is");
    service.stop().await;
}

/// `cargo test -p switchboard-history --test it -- --ignored --nocapture`: what feeds cost that never change.
#[tokio::test]
#[ignore = "a measurement"]
async fn a_thousand_feeds_of_a_second() {
    let Some(server) = NatsServer::start().await else { return };
    let (_folder, file) = configuration(&COUNTER.replace("200ms", "1s"));
    let nats = connect(&server).await;
    let process = Process::start_with_feeds(&server, &file).await;
    let mut heard = nats.client.subscribe("sb.out.feed.>").await.expect("a subscription");
    let mut asked = nats.client.subscribe("counter").await.expect("a subscription");
    let client = nats.client.clone();
    tokio::spawn(async move {
        loop {
            let (message, answer) = tokio::select! {
                message = heard.next() => (message, ""),
                message = asked.next() => (message, "7"),
            };
            if let Some(reply) = message.and_then(|message| message.reply) {
                client.publish(reply, answer.into()).await.expect("answered");
            }
        }
    });
    for n in 0..1_000 {
        let feed = FeedId::new(&format!("n:{n}")).expect("a feed");
        eventually("", async || want(&nats, &feed).await.is_some_and(|wanted| wanted.feed.is_some())).await;
    }
    let pids = [process.pid(), server.pids()[0].to_string()];
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = pids.each_ref().map(|pid| cpu(pid));
    tokio::time::sleep(Duration::from_secs(20)).await;
    let took = [cpu(&pids[0]) - before[0], cpu(&pids[1]) - before[1]];
    eprintln!("1,000 feeds of 1 s, 20 s: {:.2} CPU s of history, {:.2} of NATS", took[0], took[1]);
}
