//! The task of feeds: hears replicas and records, begins to poll what is its own, answers gateways.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_nats::jetstream::Message;
use async_nats::service::Request;
use async_nats::service::endpoint::Endpoint;
use async_nats::{Client, Subscriber};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use switchboard_contract::ack::is_marker;
use switchboard_contract::feed::{HistoryBeat, Want};
use switchboard_contract::limits::{
    FEED_LAST_POLL, FEED_LISTEN, FEED_QUESTIONS_MAX, FEED_WANTS_MAX, HEARTBEAT, HISTORY_CHUNKS_MAX, OPERATOR_FEEDS_MAX,
    PRESENCE_LOOK, REQUEST_TIMEOUT,
};
use switchboard_contract::names::{ALIVE_HISTORY, FeedId, Incarnation, alive_history};
use switchboard_contract::nats::Nats;
use switchboard_contract::reason::Reason;
use switchboard_contract::wire::{V1, decode, encode};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::board::{Board, Duty, Ended};
use super::owner::Replicas;
use super::poller::{Shared, bury, poll};
use super::want::{Heir, answer, refused};
use super::{Configured, metrics};
use crate::follow::{Fed, What, follow};
use crate::serve::{malformed, respond};

/// How often silence is looked for.
const LOOK: Duration = PRESENCE_LOOK;
/// After so many looks all records are looked at, beside when something has changed.
const SWEEP: u32 = 4;

/// What a replica knows of replicas and feeds, for operators.
#[derive(Debug)]
pub(crate) struct Known {
    /// The replicas that live.
    pub(crate) histories: Vec<Incarnation>,
    /// The first [`OPERATOR_FEEDS_MAX`] feeds that somebody listens to.
    pub(crate) feeds: Vec<FeedId>,
    /// How many there are.
    pub(crate) count: usize,
}

/// Asks the task of feeds what it knows. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Questions(mpsc::Sender<oneshot::Sender<Known>>);

impl Questions {
    /// The answer; `None`: the task has ended.
    pub(crate) async fn ask(&self) -> Option<Known> {
        let (answer, known) = oneshot::channel();
        self.0.send(answer).await.ok()?;
        known.await.ok()
    }
}

/// A replica's part in feeds.
pub(crate) struct Feeds {
    shared: Arc<Shared>,
    names: Vec<Box<str>>,
    began: Instant,
    replicas: Replicas,
    board: Board,
    beats: Subscriber,
    fed: mpsc::Receiver<Fed>,
    polling: JoinSet<(FeedId, Ended)>,
    /// Tells those tasks of writes to their records: one each.
    writes: BTreeMap<FeedId, watch::Sender<u64>>,
    /// At most [`FEED_WANTS_MAX`].
    wants: FuturesUnordered<BoxFuture<'static, ()>>,
    questions: mpsc::Receiver<oneshot::Sender<Known>>,
}

impl Feeds {
    /// Begins to listen, and to follow the records.
    ///
    /// # Errors
    /// If the connection does not take a subscription.
    pub(crate) async fn start(
        nats: &Nats,
        nats_replicas: u8,
        me: &Incarnation,
        configured: Configured,
    ) -> anyhow::Result<(Feeds, Questions)> {
        let beats = nats.client.subscribe(ALIVE_HISTORY).await.context("heartbeats cannot be heard")?;
        let (feed, fed) = mpsc::channel(HISTORY_CHUNKS_MAX);
        tokio::spawn(follow(nats.clone(), nats_replicas, What::FeedKeys, feed));
        let Configured { catalogue, sources } = configured;
        let (asking, questions) = mpsc::channel(FEED_QUESTIONS_MAX);
        let feeds = Feeds {
            names: catalogue.names(),
            shared: Arc::new(Shared::new(nats.clone(), me.clone(), catalogue, sources)),
            began: Instant::now(),
            replicas: Replicas::default(),
            board: Board::default(),
            beats,
            fed,
            polling: JoinSet::new(),
            writes: BTreeMap::new(),
            wants: FuturesUnordered::new(),
            questions,
        };
        Ok((feeds, Questions(asking)))
    }

    /// Polls and answers until `stop`. Then says goodbye, so that others take its feeds at once.
    ///
    /// # Errors
    /// If a part of it ends.
    pub(crate) async fn run(mut self, mut asked: Endpoint, stop: CancellationToken) -> anyhow::Result<()> {
        // Who began at once would take everything, because it has not heard of anybody else.
        let first = tokio::time::Instant::from_std(self.began + FEED_LISTEN);
        let mut beat = tokio::time::interval_at(first, HEARTBEAT);
        let mut look = tokio::time::interval(LOOK);
        for interval in [&mut beat, &mut look] {
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        }
        let mut link = self.shared.nats.link();
        let mut looks = 0u32;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = beat.tick() => self.beat(false).await,
                _ = look.tick() => {
                    looks = looks.wrapping_add(1);
                    let changed = self.replicas.look(self.now());
                    if changed {
                        self.board.changed();
                    }
                    if changed || looks.is_multiple_of(SWEEP) {
                        self.begin_all();
                    }
                    metrics::observe_feeds(self.board.busy(), self.board.len());
                }
                Ok(()) = link.changed() => self.replicas.forgive(self.now()),
                heard = self.beats.next() => {
                    let heard = heard.context("the subscription to heartbeats ended")?;
                    if let Ok(beat) = decode::<HistoryBeat>("history_beat", &heard.payload)
                        && self.replicas.heard(self.now(), beat)
                    {
                        self.board.changed();
                        self.begin_all();
                    }
                }
                fed = self.fed.recv() => self.take(fed.context("the task that follows the records ended")?),
                Some(ended) = self.polling.join_next() => {
                    let (feed, how) = ended.context("the task of a feed failed")?;
                    self.writes.remove(&feed);
                    self.board.ended(&feed, &how, &self.replicas, self.now());
                    self.begin(feed);
                }
                Some(()) = self.wants.next() => {}
                // Whoever asked may be gone.
                Some(answer) = self.questions.recv() => drop(answer.send(self.known())),
                request = asked.next() => self.asked(request.context("the endpoint of feeds ended")?).await,
            }
        }
        // A value that was asked for is told: else its members would wait for it until the next owner's second poll.
        self.shared.stopping.cancel();
        let last = async { while self.polling.join_next().await.is_some() {} };
        let finished = tokio::time::timeout(FEED_LAST_POLL, last).await;
        tracing::debug!(?finished, "no more polls");
        self.polling.shutdown().await;
        self.beat(true).await;
        let stopped = tokio::time::timeout(REQUEST_TIMEOUT, asked.stop()).await;
        tracing::debug!(?stopped, "no more requests for feeds");
        let answered = tokio::time::timeout(REQUEST_TIMEOUT, self.wants.collect::<()>()).await;
        let flushed = tokio::time::timeout(REQUEST_TIMEOUT, flush(&self.shared.nats.client)).await;
        tracing::debug!(?answered, ?flushed, "feeds are let go");
        Ok(())
    }

    fn known(&self) -> Known {
        let histories = self.replicas.names().cloned().collect();
        let feeds = self.board.feeds().take(OPERATOR_FEEDS_MAX).cloned().collect();
        Known { histories, feeds, count: self.board.len() }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    async fn beat(&mut self, leaving: bool) {
        let replica = self.shared.me.clone();
        let beat = encode(&HistoryBeat { v: V1, feeds: self.names.clone(), leaving, replica: replica.clone() });
        // A connection that takes nothing for long loses it.
        let sent = self.shared.nats.publish(alive_history(&replica), beat);
        let _ = tokio::time::timeout(HEARTBEAT, sent).await;
    }

    fn take(&mut self, fed: Fed) {
        match fed {
            Fed::Anew => self.board.anew(),
            Fed::First(_) => {}
            Fed::CaughtUp => self.begin_all(),
            Fed::Entries(entries) => entries.iter().for_each(|entry| self.note(entry)),
        }
    }

    fn note(&mut self, entry: &Message) {
        let (Some(feed), Ok(info)) = (FeedId::of_record(&entry.subject), entry.info()) else {
            return tracing::debug!(subject = %entry.subject, "no record of a feed");
        };
        if let Some(writes) = self.writes.get(&feed) {
            writes.send_replace(info.stream_sequence);
        }
        if is_marker(entry.headers.as_ref()) {
            self.board.deleted(&feed);
        } else if self.board.written(&feed, info.stream_sequence) {
            self.begin(feed);
        }
    }

    fn begin(&mut self, feed: FeedId) {
        if let Some(duty) = self.board.due(&feed, &self.shared.me, &self.replicas, self.now()) {
            self.spawn(feed, duty);
        }
    }

    fn begin_all(&mut self) {
        for (feed, duty) in self.board.all_due(&self.shared.me, &self.replicas, self.now()) {
            self.spawn(feed, duty);
        }
    }

    fn spawn(&mut self, feed: FeedId, duty: Duty) {
        let (shared, seen, id) = (self.shared.clone(), self.board.seq(&feed), feed.clone());
        let known = self.shared.catalogue.find(&feed).is_some();
        let duty: BoxFuture<'static, Ended> = match duty {
            Duty::Poll if known => {
                let (wrote, writes) = watch::channel(seen);
                self.writes.insert(feed.clone(), wrote);
                Box::pin(poll(shared, id, writes))
            }
            // A name that is known with an argument that is not: another replica's configuration may have taken it.
            Duty::Poll | Duty::Bury => {
                let able = self.replicas.able(&feed).filter(|replica| **replica != shared.me).cloned().collect();
                Box::pin(bury(shared, id, seen, able))
            }
        };
        self.polling.spawn(survived(feed, duty));
    }

    async fn asked(&mut self, request: Request) {
        let want = match decode::<Want>("want", &request.message.payload) {
            Ok(want) => want,
            Err(error) => return malformed(&request, &error).await,
        };
        if self.wants.len() >= FEED_WANTS_MAX {
            metrics::observe_want("busy");
            respond(&request, encode(&refused(Reason::Unavailable))).await;
            return;
        }
        let heir = match self.replicas.winner(&want.feed) {
            None => Heir::Unknown,
            Some(_) if self.board.is_full() => Heir::Full,
            Some(winner) => Heir::Known(winner.clone()),
        };
        let shared = self.shared.clone();
        self.wants.push(Box::pin(async move {
            let wanted = answer(shared.clone(), want, heir).await;
            metrics::observe_want(wanted.refused.map_or("ok", Reason::as_str));
            if shared.nats.is_up() {
                respond(&request, encode(&wanted)).await;
            }
        }));
    }
}

/// A source that makes its feed panic takes no other feed with it: it is tried again as if it could not be taken.
async fn survived(feed: FeedId, duty: impl Future<Output = Ended>) -> (FeedId, Ended) {
    let ended = AssertUnwindSafe(duty).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(%feed, "the task of a feed panicked");
        metrics::observe_panic();
        Ended::NotTaken
    });
    (feed, ended)
}

async fn flush(client: &Client) {
    let _ = client.flush().await;
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use switchboard_contract::admin::{self, Readiness};

    use super::*;

    #[tokio::test]
    async fn a_feed_that_panics_is_tried_again_and_counted() {
        let stop = CancellationToken::new();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let admin = admin::serve(any, Readiness::new("history"), stop.clone()).await.expect("a port");
        let feed = FeedId::new("n").expect("a feed");
        assert_eq!(survived(feed.clone(), async { panic!("on purpose") }).await, (feed.clone(), Ended::NotTaken));
        let gone = || Ended::Gone { seq: 1 };
        assert_eq!(survived(feed.clone(), async { gone() }).await, (feed, gone()));
        let (_, counted) = admin::ask(admin, "/metrics", REQUEST_TIMEOUT).await.expect("metrics");
        assert!(counted.contains("switchboard_history_feed_panics_total 1\n"), "{counted}");
        stop.cancel();
    }
}
