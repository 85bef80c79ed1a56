//! Feeds among several replicas: other configurations, servers of NATS that die, gateways that do.

use std::time::{Duration, Instant};

use switchboard_contract::feed::{FeedRecord, HistoryBeat};
use switchboard_contract::names::{FeedId, Incarnation};
use switchboard_contract::nats::Nats;
use switchboard_contract::testing::{NatsServer, eventually};
use switchboard_contract::wire::V1;
use switchboard_history::Args;
use switchboard_history::feeds::owner::Replicas;

use crate::listener::{Counter, Listener, configuration, connect, record, want};
use crate::service::{Service, args};

fn feeds(argument: &str, interval: &str) -> String {
    format!(
        "[[feed]]\nname = \"n\"\ninterval = \"{interval}\"\nargument = \"{argument}\"\nnats = \"counter\"\n\
         [[feed]]\nname = \"old\"\ninterval = \"200ms\"\nnats = \"counter\"\n"
    )
}

/// Subscribes and asks, also those who do not know the feed.
async fn joined(nats: &Nats, feed: &str) -> Listener {
    let listener = Listener::new(nats, feed).await;
    let asked = async || want(nats, &listener.feed).await.is_some_and(|wanted| wanted.feed.is_some());
    eventually("somebody knows the feed", asked).await;
    listener
}

async fn there(listener: &Listener) -> FeedRecord {
    listener.record().await.expect("a record").1
}

/// Whether the first of these is to poll it.
fn wins(feed: &FeedId, one: &Incarnation, other: &Incarnation) -> bool {
    let mut replicas = Replicas::default();
    for replica in [one, other] {
        let feeds = vec![feed.name().into()];
        replicas.heard(Duration::ZERO, HistoryBeat { v: V1, replica: replica.clone(), feeds, leaving: false });
    }
    replicas.winner(feed) == Some(one)
}

#[tokio::test]
async fn while_a_configuration_changes_a_feed_is_polled_by_who_knows_it_and_then_buried() {
    let Some(server) = NatsServer::start().await else { return };
    let nats = connect(&server).await;
    let _counter = Counter::new(&nats, "counter").await;
    let (_old_folder, old) = configuration(&feeds("[0-9]{1,2}", "200ms"));
    let (_new_folder, new) = configuration(&feeds("1?[0-9]", "200ms").replace("\"old\"", "\"new\""));
    let before = Service::start_with_feeds(&server, &old).await;
    let mut listeners = Vec::new();
    for n in 0..40 {
        listeners.push(joined(&nats, &format!("n:{n}")).await);
    }
    let dropped = joined(&nats, "old").await;
    let first = there(&dropped).await.owner;
    let after = Service::start_with_feeds(&server, &new).await;
    let added = joined(&nats, "new").await;
    let second = there(&added).await.owner;
    assert_ne!(first, second);
    added.value("a value", |_| true).await;

    for (n, listener) in listeners.iter().enumerate() {
        let moves = n < 20 && wins(&listener.feed, &second, &first);
        let owner = if moves { &second } else { &first };
        eventually("who knows it polls it", async || there(listener).await.owner == *owner).await;
    }
    let epochs = |listeners: &[Listener]| {
        let all: Vec<_> = listeners.iter().map(|listener| (listener.nats.clone(), listener.feed.clone())).collect();
        async move {
            let mut epochs = Vec::new();
            for (nats, feed) in all {
                epochs.push(record(&nats, &feed).await.map(|(_, record)| record.epoch));
            }
            epochs
        }
    };
    let known = epochs(&listeners).await;
    for listener in listeners.iter().chain([&dropped, &added]) {
        let told = listener.values().len();
        // Several times FEED_TAKE_RETRY in all: nobody fights.
        eventually("it is polled on", async || listener.values().len() > told + 1).await;
    }
    assert_eq!(epochs(&listeners).await, known);
    assert_eq!((there(&dropped).await.owner, there(&added).await.owner), (first, second.clone()));

    before.stop().await;
    eventually("what nobody knows is buried", async || dropped.record().await.is_none()).await;
    for (n, listener) in listeners.iter().enumerate() {
        let right = async || match listener.record().await {
            Some((_, record)) => n < 20 && record.owner == second,
            None => n >= 20,
        };
        eventually("taken over, or buried", right).await;
    }
    after.stop().await;
}

#[tokio::test]
async fn over_the_death_of_the_owners_nats_server_a_feed_goes_on_in_one_order() {
    let Some(mut servers) = NatsServer::start_cluster(3).await else { return };
    let urls: Vec<String> = servers.url().split(',').map(str::to_owned).collect();
    let (_folder, file) = configuration(&feeds("[0-9]{1,2}", "200ms"));
    let with = |url: String| {
        let mut args = Args { feeds: Some(file.clone()), ..args(&servers, Duration::from_secs(60)) };
        args.common.nats_url = url;
        args
    };
    let cut_off = Service::start_as(with(urls[0].clone())).await;
    let mut common = servers.common_args();
    common.nats_url = urls[1..].join(",");
    let nats = Nats::connect(&common, "test", &Incarnation::new()).await.expect("a connection");
    let counter = Counter::new(&nats, "counter").await;
    let mut listeners = Vec::new();
    for n in 0..10 {
        listeners.push(joined(&nats, &format!("n:{n}")).await);
    }
    let first = there(&listeners[0]).await.owner;
    for listener in &listeners {
        listener.value("a value", |_| true).await;
    }
    let stays = Service::start_as(with(urls[1..].join(","))).await;
    servers.kill_node(0);
    let begun = Instant::now();
    // While the cluster has no leader there is no answer.
    let record = async |listener: &Listener| {
        let body = want(&nats, &listener.feed).await.and_then(|wanted| wanted.feed);
        if body.is_some() { listener.record().await.map(|(_, record)| record) } else { None }
    };
    for listener in &listeners {
        eventually("the other one has it", async || record(listener).await.is_some_and(|record| record.owner != first))
            .await;
    }
    eprintln!("all feeds have another owner after {:?}", begun.elapsed());
    let mut epochs = Vec::new();
    for listener in &listeners {
        let told = listener.values().len();
        eventually("it is polled on", async || listener.values().len() > told + 2).await;
        epochs.push(there(listener).await.epoch);
    }
    servers.restart_node(0).await;
    for (listener, epoch) in listeners.iter().zip(&epochs) {
        let back = async || {
            let now = there(listener).await;
            let is_its_own = wins(&listener.feed, &first, &now.owner);
            now.owner == first && now.epoch > *epoch || now.owner != first && !is_its_own
        };
        eventually("each has its own again", back).await;
    }
    for listener in &listeners {
        let told = listener.values().len();
        eventually("it is polled on", async || listener.values().len() > told + 2).await;
        let values = listener.values();
        assert!(values.windows(2).all(|pair| pair[0].0 < pair[1].0), "versions grow: {values:?}");
        assert!(values.windows(2).all(|pair| pair[0].1 != pair[1].1), "each value once: {values:?}");
    }
    assert!(counter.polls() > 0);
    cut_off.stop().await;
    stays.stop().await;
}

#[tokio::test]
async fn a_gateway_that_dies_is_noticed_within_two_intervals() {
    let Some(server) = NatsServer::start().await else { return };
    let (_folder, file) = configuration(&feeds("[0-9]", "2s"));
    let nats = connect(&server).await;
    let service = Service::start_with_feeds(&server, &file).await;
    let counter = Counter::new(&nats, "counter").await;
    // Its connection goes with it: nothing is unsubscribed.
    let gateway = joined(&connect(&server).await, "n:1").await;
    counter.reaches(2).await;
    let feed = gateway.feed.clone();
    let (begun, polls) = (Instant::now(), counter.polls());
    drop(gateway);
    eventually("the record is gone", async || record(&nats, &feed).await.is_none()).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert!(counter.polls() <= polls + 1, "one that had begun");
    service.stop().await;
}
