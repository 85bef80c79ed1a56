//! One feed that this replica polls: its record, the gateways that listen, its source.
//!
//! Before each poll the record is read, so that a deposed owner stops, and the gateways are asked whether anybody
//! listens, so that a feed without listeners ends. Both cost a request, and go at the same time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use switchboard_contract::ack::Outcome;
use switchboard_contract::feed::{FeedRecord, Stale, Told, Value};
use switchboard_contract::limits::{
    FEED_BACKOFF_MAX, FEED_BEGINS_MAX, FEED_POLL_AT_ONCE, FEED_PROBE_TIMEOUT, FEED_RELEASE_GRACE, FEED_WRITES_MAX,
};
use switchboard_contract::names::{FeedId, Incarnation};
use switchboard_contract::nats::{Nats, RequestError};
use switchboard_contract::wire::{V1, encode, timestamp};
use tokio::sync::Semaphore;

use super::board::Ended;
use super::config::{Catalogue, Feed};
use super::schedule::Schedule;
use super::source::{Answer, Failure, Memory, Sources};
use super::{metrics, store};
use crate::lead::unix_ms;

/// What all pollers of a replica share.
pub(crate) struct Shared {
    pub(crate) nats: Nats,
    pub(crate) me: Incarnation,
    pub(crate) catalogue: Catalogue,
    pub(crate) sources: Sources,
    begins: Semaphore,
    /// When each feed of the configuration was last warned of.
    warned: Mutex<BTreeMap<Box<str>, Instant>>,
}

impl Shared {
    pub(crate) fn new(nats: Nats, me: Incarnation, catalogue: Catalogue, sources: Sources) -> Shared {
        Shared { nats, me, catalogue, sources, begins: Semaphore::new(FEED_BEGINS_MAX), warned: Mutex::default() }
    }

    /// Whether a failure of this feed goes to the log: a source may fail for thousands of arguments at once.
    fn warns(&self, feed: &Feed) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = warned.get(&feed.name).is_some_and(|at| at.elapsed() < FEED_BACKOFF_MAX);
        if !lately {
            warned.insert(feed.name.clone(), Instant::now());
        }
        !lately
    }
}

/// Polls a feed until it ends, or another replica has it. `seen` is the sequence of its record's last known write.
pub(crate) async fn poll(shared: Arc<Shared>, id: FeedId, seen: u64) -> Ended {
    let Some(feed) = shared.catalogue.find(&id) else {
        // Its name is known and its argument is not: another replica's configuration has another pattern.
        return Ended::NotTaken;
    };
    match Poller::begin(&shared, feed, id, seen).await {
        Ok(mut poller) => loop {
            if let Err(ended) = poller.turn().await {
                tracing::info!(feed = %poller.id, ?ended, "a feed is not polled here any more");
                return ended;
            }
        },
        Err(ended) => ended,
    }
}

/// Deletes the record of a feed that no replica knows.
pub(crate) async fn bury(shared: Arc<Shared>, id: FeedId, seen: u64) -> Ended {
    match store::get(&shared.nats, &id).await {
        Ok((revision, None)) => Ended::Gone { seq: revision.max(seen) + 1 },
        Ok((revision, Some(_))) => match store::put(&shared.nats, &id, revision, None).await {
            Outcome::Committed { seq } => {
                tracing::info!(feed = %id, "no replica knows this feed any more: its record is deleted");
                Ended::Gone { seq }
            }
            Outcome::Fenced | Outcome::Unknown => Ended::NotTaken,
        },
        Err(_) => Ended::NotTaken,
    }
}

struct Poller<'a> {
    shared: &'a Shared,
    feed: &'a Feed,
    id: FeedId,
    epoch: u64,
    revision: u64,
    record: FeedRecord,
    schedule: Schedule,
    memory: Memory,
    wait: Wait,
    /// Nobody was there when it was asked last.
    nobody: bool,
}

/// What comes before the next poll.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Phase,
    Grace,
    Nothing,
}

/// What was found before a poll.
enum Checked {
    Listened,
    Nobody,
    /// NATS does not carry us, or the gateways are slow.
    Unknown,
}

impl<'a> Poller<'a> {
    /// Makes this replica the owner, if it is not.
    async fn begin(shared: &'a Shared, feed: &'a Feed, id: FeedId, seen: u64) -> Result<Poller<'a>, Ended> {
        let _turn = shared.begins.acquire().await;
        let (revision, record) = store::get(&shared.nats, &id).await.map_err(|_| Ended::NotTaken)?;
        let Some(mut record) = record else { return Err(Ended::Gone { seq: revision.max(seen) + 1 }) };
        let mut revision = revision;
        let taken = record.owner != shared.me;
        if taken {
            let before = std::mem::replace(&mut record.owner, shared.me.clone());
            record.epoch += 1;
            match store::put(&shared.nats, &id, revision, Some(&record)).await {
                Outcome::Committed { seq } => revision = seq,
                Outcome::Fenced | Outcome::Unknown => return Err(Ended::NotTaken),
            }
            metrics::observe_take_over();
            tracing::info!(feed = %id, %before, epoch = record.epoch, "a feed is taken over");
        } else {
            tracing::info!(feed = %id, epoch = record.epoch, "a feed is polled");
        }
        let never = record.last.is_none() && record.stale.is_none();
        let at_once = never || (taken && feed.interval >= FEED_POLL_AT_ONCE);
        Ok(Poller {
            shared,
            feed,
            epoch: record.epoch,
            revision,
            record,
            schedule: Schedule::new(&id, feed.interval),
            id,
            memory: Memory::default(),
            wait: if at_once { Wait::Nothing } else { Wait::Phase },
            nobody: false,
        })
    }

    /// Waits for the next phase, and polls.
    async fn turn(&mut self) -> Result<(), Ended> {
        match self.wait {
            Wait::Nothing => {}
            Wait::Grace => tokio::time::sleep(FEED_RELEASE_GRACE).await,
            Wait::Phase => {
                let now = unix_ms();
                let at = self.schedule.next(now);
                tokio::time::sleep(Duration::from_millis(at.saturating_sub(now))).await;
            }
        }
        match self.check().await? {
            Checked::Listened => {
                if self.wait != Wait::Phase {
                    self.schedule.poll_now(unix_ms());
                }
                (self.nobody, self.wait) = (false, Wait::Phase);
            }
            Checked::Nobody if self.nobody => return self.release().await,
            Checked::Nobody => {
                (self.nobody, self.wait) = (true, Wait::Grace);
                return Ok(());
            }
            Checked::Unknown => {
                metrics::observe_skipped("unheard");
                // The next phase is soon, or it is tried again.
                let soon = self.wait == Wait::Phase && self.feed.interval < FEED_POLL_AT_ONCE;
                self.wait = if soon { Wait::Phase } else { Wait::Grace };
                return Ok(());
            }
        }
        if !self.schedule.may_poll(unix_ms()) {
            return Ok(());
        }
        let begun = Instant::now();
        match self.shared.sources.ask(&self.shared.nats, self.feed, self.id.argument(), &mut self.memory).await {
            None => {
                metrics::observe_skipped("busy");
                Ok(())
            }
            Some(Ok(answer)) => {
                metrics::observe_poll(begun.elapsed(), None);
                self.schedule.succeeded();
                self.answered(answer).await
            }
            Some(Err(failure)) => {
                metrics::observe_poll(begun.elapsed(), Some(failure.fault));
                self.schedule.failed(unix_ms(), rand::random());
                self.failed(failure).await
            }
        }
    }

    /// Reads the record, and asks the gateways.
    async fn check(&mut self) -> Result<Checked, Ended> {
        let told = self.told(false);
        let asked = self.shared.nats.request(self.id.out_subject(), encode(&told), FEED_PROBE_TIMEOUT);
        let (read, heard) = tokio::join!(self.read(), asked);
        match read? {
            None => return Ok(Checked::Unknown),
            Some((revision, record)) => (self.revision, self.record) = (revision, record),
        }
        Ok(match heard {
            Ok(_) => Checked::Listened,
            Err(RequestError::NoResponders) => Checked::Nobody,
            Err(RequestError::Timeout | RequestError::Down) => Checked::Unknown,
        })
    }

    /// The record, if it is still ours; `None`: no answer.
    async fn read(&self) -> Result<Option<(u64, FeedRecord)>, Ended> {
        match store::get(&self.shared.nats, &self.id).await {
            Ok((revision, None)) => Err(Ended::Gone { seq: revision.max(self.revision) + 1 }),
            Ok((_, Some(record))) if (&record.owner, record.epoch) != (&self.shared.me, self.epoch) => {
                Err(Ended::Deposed)
            }
            Ok((revision, Some(record))) => Ok(Some((revision, record))),
            Err(error) => {
                tracing::debug!(feed = %self.id, "the record cannot be read: {error:#}");
                Ok(None)
            }
        }
    }

    /// Ends the feed, unless somebody has asked for it since the record was read.
    async fn release(&mut self) -> Result<(), Ended> {
        match store::put(&self.shared.nats, &self.id, self.revision, None).await {
            Outcome::Committed { seq } => Err(Ended::Gone { seq }),
            Outcome::Fenced | Outcome::Unknown => Ok(()),
        }
    }

    async fn answered(&mut self, answer: Answer) -> Result<(), Ended> {
        let value = match (answer, &self.record.last) {
            (Answer::Value(value), _) => value,
            (Answer::Unchanged, Some(last)) => last.value.clone(),
            (Answer::Unchanged, None) => return Ok(()),
        };
        let same = self.record.last.as_ref().is_some_and(|last| last.value.get() == value.get());
        // After a failure the same value is told again: so clients know that it is fresh.
        if same && self.record.stale.is_none() {
            return Ok(());
        }
        let at: Box<str> = timestamp(SystemTime::now()).into();
        let written = self.write(|record| {
            let version = match &record.last {
                Some(last) if last.version.0 == record.epoch => (record.epoch, last.version.1 + 1),
                Some(_) | None => (record.epoch, 1),
            };
            record.last = Some(Value { value: value.clone(), version, at: at.clone() });
            record.stale = None;
        });
        if written.await? {
            metrics::observe_value();
            self.tell(true).await;
        }
        Ok(())
    }

    async fn failed(&mut self, failure: Failure) -> Result<(), Ended> {
        let reason = failure.fault.reason();
        let words = failure.words;
        if self.record.stale.as_ref().is_some_and(|stale| &*stale.reason == reason) {
            tracing::debug!(feed = %self.id, reason, words, "the source still fails");
            return Ok(());
        }
        if self.shared.warns(self.feed) {
            tracing::warn!(feed = %self.id, reason, words, "the source fails");
        } else {
            tracing::debug!(feed = %self.id, reason, words, "the source fails");
        }
        let now: Box<str> = timestamp(SystemTime::now()).into();
        let written = self.write(|record| {
            let since = record.stale.take().map_or_else(|| now.clone(), |stale| stale.since);
            record.stale = Some(Stale { since, reason: reason.into() });
        });
        if written.await? {
            self.tell(false).await;
        }
        Ok(())
    }

    /// Changes the record; `false` if nobody knows whether it was: the next poll reads what it says.
    async fn write(&mut self, change: impl Fn(&mut FeedRecord)) -> Result<bool, Ended> {
        for _ in 0..FEED_WRITES_MAX {
            let mut record = self.record.clone();
            change(&mut record);
            match store::put(&self.shared.nats, &self.id, self.revision, Some(&record)).await {
                Outcome::Committed { seq } => {
                    (self.revision, self.record) = (seq, record);
                    return Ok(true);
                }
                Outcome::Unknown => return Ok(false),
                // Somebody asked for the feed, or it has another owner.
                Outcome::Fenced => match self.read().await? {
                    Some((revision, record)) => (self.revision, self.record) = (revision, record),
                    None => return Ok(false),
                },
            }
        }
        Ok(false)
    }

    async fn tell(&self, value: bool) {
        let told = encode(&self.told(value));
        // A connection that takes nothing for long loses it: the next request names the version.
        let sent = self.shared.nats.publish(self.id.out_subject(), told);
        let _ = tokio::time::timeout(FEED_PROBE_TIMEOUT, sent).await;
    }

    fn told(&self, value: bool) -> Told {
        let last = self.record.last.as_ref();
        Told {
            v: V1,
            version: last.map_or((0, 0), |last| last.version),
            last: last.filter(|_| value).cloned(),
            stale: self.record.stale.clone(),
        }
    }
}
