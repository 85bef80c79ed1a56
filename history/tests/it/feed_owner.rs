//! A feed's owner: when it ends a feed, when it leaves a source alone, and what it does where another one has its feed.

use std::path::PathBuf;
use std::time::Duration;

use switchboard_contract::feed::{FeedRecord, HistoryBeat};
use switchboard_contract::limits::HEARTBEAT;
use switchboard_contract::names::{FeedId, Incarnation, alive_history};
use switchboard_contract::nats::Nats;
use switchboard_contract::testing::{NatsServer, eventually};
use switchboard_contract::wire::{V1, encode};
use switchboard_history::feeds::owner::Replicas;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::listener::{Counter, Listener, configuration, connect, overwrite, record, want};
use crate::puppet::Puppet;
use crate::service::{Process, Service};

/// A feed with this interval, and one that others are measured by.
fn feeds(interval: &str) -> String {
    format!(
        "[[feed]]\nname = \"n\"\ninterval = \"{interval}\"\nargument = \"[0-9]\"\nnats = \"counter\"\n\
         [[feed]]\nname = \"clock\"\ninterval = \"1s\"\nnats = \"clock\"\n"
    )
}

/// What a feed of this file needs, but for who polls it.
struct Bench {
    server: NatsServer,
    nats: Nats,
    /// What the feed `n` asks.
    counter: Counter,
    file: PathBuf,
    _folder: TempDir,
}

impl Bench {
    /// As [`NatsServer::start`], where `n` has this interval.
    async fn of(interval: &str) -> Option<Bench> {
        let server = NatsServer::start().await?;
        let (_folder, file) = configuration(&feeds(interval));
        let nats = connect(&server).await;
        let counter = Counter::new(&nats, "counter").await;
        Some(Bench { server, nats, counter, file, _folder })
    }

    async fn service(&self) -> Service {
        Service::start_with_feeds(&self.server, &self.file).await
    }

    async fn process(&self) -> Process {
        Process::start_with_feeds(&self.server, &self.file).await
    }

    /// A gateway with a member of `n:1`.
    async fn gateway(&self) -> Puppet {
        Puppet::joined(&self.server, &self.nats, "n:1").await
    }
}

async fn there(nats: &Nats, feed: &FeedId) -> FeedRecord {
    record(nats, feed).await.expect("a record").1
}

#[tokio::test]
async fn who_is_back_when_it_is_asked_again_keeps_the_feed_and_who_is_not_ends_it() {
    let Some(bench) = Bench::of("200ms").await else { return };
    let (service, Bench { nats, counter, .. }) = (bench.service().await, &bench);
    let mut gateway = bench.gateway().await;
    gateway.polled(counter, 2).await;
    let before = there(nats, &gateway.feed).await;
    let asked = gateway.asked().await;
    gateway.nobody(asked).await;
    let asked = gateway.asked().await;
    let polls = counter.polls();
    gateway.here(asked).await;
    gateway.polled(counter, polls + 2).await;
    let after = there(nats, &gateway.feed).await;
    assert_eq!((after.epoch, after.asked), (before.epoch, before.asked), "nothing of it was deleted");

    for _ in 0..2 {
        let asked = gateway.asked().await;
        gateway.nobody(asked).await;
    }
    eventually("the record is gone", async || record(nats, &gateway.feed).await.is_none()).await;
    service.stop().await;
}

#[tokio::test]
async fn who_asks_for_a_feed_that_is_about_to_end_keeps_it() {
    let Some(bench) = Bench::of("200ms").await else { return };
    let (service, Bench { nats, counter, .. }) = (bench.service().await, &bench);
    let mut gateway = bench.gateway().await;
    gateway.polled(counter, 1).await;
    let before = there(nats, &gateway.feed).await;

    // Behind the second question, whose answer is on its way while the record is known already.
    let asked = gateway.asked().await;
    gateway.nobody(asked).await;
    let asked = gateway.asked().await;
    want(nats, &gateway.feed).await.expect("an answer");
    gateway.nobody(asked).await;
    let asked = gateway.asked().await;
    let after = there(nats, &gateway.feed).await;
    assert_eq!((after.epoch, after.asked), (before.epoch, before.asked + 1), "the deletion was refused");
    let polls = counter.polls();
    gateway.here(asked).await;
    gateway.polled(counter, polls + 1).await;

    // Before the second question: what was said at the first one counts no more.
    let asked = gateway.asked().await;
    gateway.nobody(asked).await;
    want(nats, &gateway.feed).await.expect("an answer");
    let asked = gateway.asked().await;
    gateway.nobody(asked).await;
    let asked = gateway.asked().await;
    assert_eq!(there(nats, &gateway.feed).await.epoch, before.epoch);
    gateway.nobody(asked).await;
    eventually("the record is gone", async || record(nats, &gateway.feed).await.is_none()).await;
    service.stop().await;
}

#[tokio::test]
async fn while_gateways_are_silent_there_is_no_poll() {
    let Some(bench) = Bench::of("200ms").await else { return };
    let (service, Bench { nats, counter, .. }) = (bench.process().await, &bench);
    let mut gateway = bench.gateway().await;
    gateway.polled(counter, 2).await;
    gateway.asked().await;
    let polls = counter.polls();
    let skipped = service.metric("_polls_skipped_total{reason=\"unheard\"}").await;
    for _ in 0..3 {
        gateway.asked().await;
    }
    assert_eq!(counter.polls(), polls);
    assert!(service.metric("_polls_skipped_total{reason=\"unheard\"}").await >= skipped + 2.0);
    gateway.polled(counter, polls + 2).await;
    assert!(record(nats, &gateway.feed).await.is_some(), "silence is no absence");
}

/// Another replica, of which only heartbeats are there.
struct Rival {
    nats: Nats,
    name: Incarnation,
    task: JoinHandle<()>,
}

impl Rival {
    /// One that `n:1` belongs to, rather than to its owner.
    async fn of(nats: &Nats, feed: &FeedId, owner: &Incarnation) -> Rival {
        let wins = |name: &Incarnation| {
            let mut replicas = Replicas::default();
            for replica in [owner, name] {
                replicas.heard(Duration::ZERO, beat(replica, false));
            }
            replicas.winner(feed) == Some(name)
        };
        let name = std::iter::repeat_with(Incarnation::new).find(wins).expect("there are many");
        let (client, said) = (nats.client.clone(), encode(&beat(&name, false)));
        let subject = alive_history(&name);
        let task = tokio::spawn(async move {
            loop {
                client.publish(subject.clone(), said.clone()).await.expect("sent");
                tokio::time::sleep(HEARTBEAT / 4).await;
            }
        });
        // What is sent from here later comes later.
        nats.round_trip(HEARTBEAT).await.expect("NATS");
        Rival { nats: nats.clone(), name, task }
    }

    async fn leave(self) {
        self.task.abort();
        self.nats.publish(alive_history(&self.name), encode(&beat(&self.name, true))).await;
    }

    /// Takes a feed over, as a replica does.
    async fn takes(&self, feed: &FeedId) -> FeedRecord {
        loop {
            let (revision, now) = record(&self.nats, feed).await.expect("a record");
            let mine = FeedRecord { owner: self.name.clone(), epoch: now.epoch + 1, polled: None, ..now };
            if overwrite(&self.nats, feed, revision, Some(&mine)).await {
                return mine;
            }
        }
    }
}

fn beat(name: &Incarnation, leaving: bool) -> HistoryBeat {
    HistoryBeat { v: V1, replica: name.clone(), feeds: vec!["n".into()], leaving }
}

#[tokio::test]
async fn a_deposed_owner_polls_no_more_and_does_not_fight() {
    let Some(bench) = Bench::of("1s").await else { return };
    let (service, Bench { nats, counter, .. }) = (bench.process().await, &bench);
    let clock = Counter::new(nats, "clock").await;
    let (listener, _) = Listener::joined(nats, "n:1").await;
    let (_clock, _) = Listener::joined(nats, "clock").await;
    listener.value("a value", |_| true).await;
    clock.reaches(1).await;
    let (_, record) = listener.record().await.expect("a record");
    let rival = Rival::of(nats, &listener.feed, &record.owner).await;
    // Well before the next poll.
    counter.reaches(counter.polls() + 1).await;
    let (polls, told) = (counter.polls(), listener.told().len());
    let mine = rival.takes(&listener.feed).await;
    assert!(listener.told().len() <= told + 1, "nothing but the value of that poll");
    eventually("the feed is let go", async || service.metric("s_owned").await == 1.0).await;
    // Longer than FEED_TAKE_RETRY and what comes behind it.
    clock.reaches(clock.polls() + 5).await;
    let (_, now) = listener.record().await.expect("a record");
    assert_eq!((now.owner, now.epoch, counter.polls()), (rival.name.clone(), mine.epoch, polls));
    rival.leave().await;
    counter.reaches(polls + 1).await;
    let (_, now) = listener.record().await.expect("a record");
    assert_eq!((now.owner, now.epoch), (record.owner, mine.epoch + 1));
}

#[tokio::test]
async fn the_owner_of_a_feed_that_is_polled_once_an_hour_notices_what_becomes_of_its_record() {
    let Some(bench) = Bench::of("1h").await else { return };
    let (service, Bench { nats, counter, .. }) = (bench.process().await, &bench);
    let (listener, _) = Listener::joined(nats, "n:1").await;
    let first = listener.value("a value", |_| true).await;
    eventually("it is polled here", async || service.metric("s_owned").await == 1.0).await;
    let (_, before) = listener.record().await.expect("a record");
    assert_eq!(before.polled.expect("it was").polls, 1);

    let rival = Rival::of(nats, &listener.feed, &before.owner).await;
    let mine = rival.takes(&listener.feed).await;
    eventually("another owner", async || service.metric("s_owned").await == 0.0).await;
    rival.leave().await;
    listener.value("a poll at once", |value| value.contains(r#""poll":2}"#)).await;

    let (revision, now) = listener.record().await.expect("a record");
    assert_eq!((&now.owner, now.epoch), (&before.owner, mine.epoch + 1));
    assert!(overwrite(nats, &listener.feed, revision, None).await);
    eventually("a new life", async || want(nats, &listener.feed).await.is_some_and(|wanted| wanted.feed.is_some()))
        .await;
    let last = listener.value("its first poll", |value| value.contains(r#""poll":3}"#)).await;
    assert!(last.0 > now.epoch && now.epoch > first.0, "{last:?}");
    assert_eq!(counter.polls(), 3);
}
