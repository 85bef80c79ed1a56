//! A gateway with members of a feed, as history sees it; and a source that tests hold in their hands.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use switchboard_contract::ack::Outcome;
use switchboard_contract::feed::{Fed, FeedRecord, Told, Version, Want, Wanted};
use switchboard_contract::limits::REQUEST_TIMEOUT;
use switchboard_contract::names::{FEEDS_BUCKET, FeedId, HISTORY_FEED, Incarnation, bucket_stream};
use switchboard_contract::nats::Nats;
use switchboard_contract::reason::Reason;
use switchboard_contract::testing::{NatsServer, eventually};
use switchboard_contract::wire::{self, V1};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A file with a configuration; it goes with this.
pub(crate) fn configuration(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("feeds.toml");
    std::fs::write(&file, text).expect("a file");
    (folder, file)
}

pub(crate) async fn connect(server: &NatsServer) -> Nats {
    Nats::connect(&server.common_args(), "test", &Incarnation::new()).await.expect("a connection")
}

/// A request as gateways send it, once; `None`: no answer.
pub(crate) async fn want(nats: &Nats, feed: &FeedId) -> Option<Wanted> {
    want_as(nats, feed, true).await
}

/// As a gateway that keeps who has not shown a secret out of a feed, or as an older one.
pub(crate) async fn want_as(nats: &Nats, feed: &FeedId, keeps_secrets: bool) -> Option<Wanted> {
    let body = wire::encode(&Want { v: V1, feed: feed.clone(), keeps_secrets });
    let answer = nats.request(HISTORY_FEED.to_owned(), body, REQUEST_TIMEOUT).await.ok()?;
    Some(wire::decode("wanted", &answer.payload).expect("an answer"))
}

pub(crate) async fn record(nats: &Nats, feed: &FeedId) -> Option<(u64, FeedRecord)> {
    let stream = bucket_stream(FEEDS_BUCKET);
    let stored = nats.leader_get(&stream, &feed.record_subject(), REQUEST_TIMEOUT).await.expect("an answer")?;
    Some((stored.seq, wire::decode("record", &stored.body?).expect("a record")))
}

/// Writes a record by hand: another owner, or the end of it. `false`: somebody else was faster.
pub(crate) async fn overwrite(nats: &Nats, feed: &FeedId, revision: u64, record: Option<&FeedRecord>) -> bool {
    let mut headers = switchboard_contract::nats::header("Nats-Rollup", "sub");
    if record.is_none() {
        headers.insert("KV-Operation", "PURGE");
    }
    let body = record.map(wire::encode).unwrap_or_default();
    let written = nats.write(feed.record_subject(), revision, headers, body, REQUEST_TIMEOUT).await;
    matches!(written, Outcome::Committed { .. })
}

/// Subscribed to a feed. Dropped: no longer.
pub(crate) struct Listener {
    pub(crate) nats: Nats,
    pub(crate) feed: FeedId,
    told: Arc<Mutex<Vec<Told>>>,
    task: JoinHandle<()>,
}

impl Listener {
    /// Subscribes, as a gateway does for its first member.
    pub(crate) async fn new(nats: &Nats, feed: &str) -> Listener {
        let feed = FeedId::new(feed).expect("a feed");
        let mut heard = nats.client.subscribe(feed.out_subject()).await.expect("a subscription");
        nats.round_trip(REQUEST_TIMEOUT).await.expect("it is live");
        let told = Arc::new(Mutex::new(Vec::new()));
        let (all, client) = (told.clone(), nats.client.clone());
        let task = tokio::spawn(async move {
            while let Some(message) = heard.next().await {
                if let Some(reply) = message.reply {
                    client.publish(reply, "".into()).await.expect("answered");
                }
                all.lock().expect("no panic").push(wire::decode("told", &message.payload).expect("it is told"));
            }
        });
        Listener { nats: nats.clone(), feed, told, task }
    }

    /// Subscribes, and asks until it is polled.
    pub(crate) async fn joined(nats: &Nats, feed: &str) -> (Listener, Fed) {
        let listener = Listener::new(nats, feed).await;
        let fed = Mutex::new(None);
        eventually("the feed is polled", async || {
            let answer = want(nats, &listener.feed).await;
            assert_ne!(answer.as_ref().and_then(|answer| answer.refused), Some(Reason::NotFound));
            let answer = answer.and_then(|answer| answer.feed);
            let there = answer.is_some();
            *fed.lock().expect("no panic") = answer;
            there
        })
        .await;
        let fed = fed.into_inner().expect("no panic").expect("it is there");
        (listener, fed)
    }

    pub(crate) fn told(&self) -> Vec<Told> {
        self.told.lock().expect("no panic").clone()
    }

    /// The values, each with its version.
    pub(crate) fn values(&self) -> Vec<(Version, String)> {
        let values = self.told().into_iter().filter_map(|told| told.last);
        values.map(|last| (last.version, last.value.get().to_owned())).collect()
    }

    pub(crate) async fn value(&self, what: &str, fits: impl Fn(&str) -> bool) -> Version {
        eventually(what, async || self.values().iter().any(|(_, value)| fits(value))).await;
        self.values().into_iter().rfind(|(_, value)| fits(value)).expect("one").0
    }

    pub(crate) async fn record(&self) -> Option<(u64, FeedRecord)> {
        record(&self.nats, &self.feed).await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers each poll on a subject with how many there were, or holds the answers back.
pub(crate) struct Counter {
    polls: Arc<AtomicU64>,
    pub(crate) held: Arc<AtomicBool>,
    began: Instant,
    task: JoinHandle<()>,
}

impl Counter {
    pub(crate) async fn new(nats: &Nats, subject: &'static str) -> Counter {
        let mut asked = nats.client.subscribe(subject).await.expect("a subscription");
        nats.round_trip(REQUEST_TIMEOUT).await.expect("it is live");
        let (polls, held) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, holds, client) = (polls.clone(), held.clone(), nats.client.clone());
        let task = tokio::spawn(async move {
            while let Some(message) = asked.next().await {
                let poll = 1 + counted.fetch_add(1, Ordering::SeqCst);
                while holds.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let asked: serde_json::Value = serde_json::from_slice(&message.payload).expect("JSON");
                let answer = serde_json::json!({ "poll": poll, "argument": asked["argument"] });
                client.publish(message.reply.expect("a request"), answer.to_string().into()).await.expect("answered");
            }
        });
        Counter { polls, held, began: Instant::now(), task }
    }

    pub(crate) fn polls(&self) -> u64 {
        self.polls.load(Ordering::SeqCst)
    }

    pub(crate) async fn reaches(&self, polls: u64) {
        eventually("polls", async || self.polls() >= polls).await;
    }

    /// Each phase of an interval has one poll at most, and there may be one beside them for `extra` reasons.
    pub(crate) fn assert_not_more_often_than(&self, interval: Duration, extra: u64) {
        let phases = u64::try_from(self.began.elapsed().as_millis() / interval.as_millis()).expect("few") + 1;
        assert!(self.polls() <= phases + extra, "{} polls in {phases} phases", self.polls());
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.task.abort();
    }
}
