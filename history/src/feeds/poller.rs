//! One feed that this replica polls: its record, the gateways that listen, its source.
//!
//! Before each poll the record is read, so that a deposed owner stops, and the gateways are asked whether anybody
//! listens, so that a feed without listeners ends. Both cost a request, and go at the same time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use switchboard_contract::ack::Outcome;
use switchboard_contract::feed::{FeedRecord, Polled, Stale, Told, Value};
use switchboard_contract::limits::{
    FEED_BACKOFF_MAX, FEED_BEGINS_MAX, FEED_POLL_AT_ONCE, FEED_PROBE_TIMEOUT, FEED_RELEASE_GRACE, FEED_WRITES_MAX,
};
use switchboard_contract::names::{FeedId, Incarnation};
use switchboard_contract::nats::{Nats, RequestError};
use switchboard_contract::wire::{V1, encode, timestamp};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

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
    /// This replica stops: what is being polled is finished, and nothing begun.
    pub(crate) stopping: CancellationToken,
    begins: Semaphore,
    /// When each feed of the configuration was last warned of.
    warned: Mutex<BTreeMap<Box<str>, Instant>>,
}

impl Shared {
    pub(crate) fn new(nats: Nats, me: Incarnation, catalogue: Catalogue, sources: Sources) -> Shared {
        let (stopping, begins) = (CancellationToken::new(), Semaphore::new(FEED_BEGINS_MAX));
        Shared { nats, me, catalogue, sources, stopping, begins, warned: Mutex::default() }
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

/// Polls a feed until it ends, or another replica has it. `writes` has the sequence of its record's last known write.
pub(crate) async fn poll(shared: Arc<Shared>, id: FeedId, writes: watch::Receiver<u64>) -> Ended {
    let Some(feed) = shared.catalogue.find(&id) else { return Ended::NotTaken };
    match Poller::begin(&shared, feed, id, writes).await {
        Ok(mut poller) => loop {
            if let Err(ended) = poller.turn().await {
                tracing::info!(feed = %poller.id, ?ended, "a feed is not polled here any more");
                return ended;
            }
        },
        Err(ended) => ended,
    }
}

/// Deletes the record of a feed that no replica is to poll. One of `able` may still do so, by another configuration.
pub(crate) async fn bury(shared: Arc<Shared>, id: FeedId, seen: u64, able: Vec<Incarnation>) -> Ended {
    match store::get(&shared.nats, &id).await {
        Ok((revision, None)) => Ended::Gone { seq: revision.max(seen) + 1 },
        Ok((_, Some(record))) if able.contains(&record.owner) => Ended::NotTaken,
        Ok((revision, Some(_))) => match store::put(&shared.nats, &id, revision, None).await {
            Outcome::Committed { seq } => {
                tracing::info!(feed = %id, "nobody is to poll this feed any more: its record is deleted");
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
    /// Nobody was there when it was asked last, and so often somebody had asked for the feed by then.
    nobody: Option<u64>,
    /// In this epoch.
    polled: Option<Polled>,
    /// The sequence of the record's last write, as far as it has been heard of.
    writes: watch::Receiver<u64>,
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
    async fn begin(
        shared: &'a Shared,
        feed: &'a Feed,
        id: FeedId,
        mut writes: watch::Receiver<u64>,
    ) -> Result<Poller<'a>, Ended> {
        let seen = *writes.borrow_and_update();
        let _turn = shared.begins.acquire().await;
        if shared.stopping.is_cancelled() {
            return Err(Ended::NotTaken);
        }
        let (revision, record) = store::get(&shared.nats, &id).await.map_err(|_| Ended::NotTaken)?;
        let Some(mut record) = record else { return Err(Ended::Gone { seq: revision.max(seen) + 1 }) };
        let mut revision = revision;
        let taken = record.owner != shared.me;
        if taken {
            let before = std::mem::replace(&mut record.owner, shared.me.clone());
            record.epoch += 1;
            record.polled = None;
            match store::put(&shared.nats, &id, revision, Some(&record)).await {
                Outcome::Committed { seq } => revision = seq,
                Outcome::Fenced | Outcome::Unknown => return Err(Ended::NotTaken),
            }
            metrics::observe_take_over();
            tracing::info!(feed = %id, history = %before, epoch = record.epoch, "a feed is taken over");
        } else {
            tracing::info!(feed = %id, epoch = record.epoch, "a feed is polled");
        }
        let never = record.last.is_none() && record.stale.is_none();
        let at_once = never || (taken && feed.interval >= FEED_POLL_AT_ONCE);
        let mut schedule = Schedule::new(&id, feed.interval);
        schedule.wrote(unix_ms());
        Ok(Poller {
            shared,
            feed,
            epoch: record.epoch,
            revision,
            polled: record.polled.clone(),
            record,
            schedule,
            id,
            memory: Memory::default(),
            wait: if at_once { Wait::Nothing } else { Wait::Phase },
            nobody: None,
            writes,
        })
    }

    /// Waits for the next phase, and polls.
    async fn turn(&mut self) -> Result<(), Ended> {
        match self.wait {
            Wait::Nothing => {}
            Wait::Grace => tokio::select! {
                () = tokio::time::sleep(FEED_RELEASE_GRACE) => {}
                () = self.shared.stopping.cancelled() => return Err(Ended::NotTaken),
            },
            Wait::Phase => {
                let now = unix_ms();
                let at = self.schedule.next(now);
                self.rest(Duration::from_millis(at.saturating_sub(now))).await?;
            }
        }
        match self.check().await? {
            Checked::Listened => {
                if self.wait != Wait::Phase {
                    self.schedule.poll_now(unix_ms());
                }
                (self.nobody, self.wait) = (None, Wait::Phase);
            }
            Checked::Nobody if self.nobody == Some(self.record.asked) => return self.release().await,
            Checked::Nobody => {
                (self.nobody, self.wait) = (Some(self.record.asked), Wait::Grace);
                return Ok(());
            }
            Checked::Unknown => {
                metrics::observe_skipped("unheard");
                self.nobody = None;
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
        let answer = self.shared.sources.ask(&self.shared.nats, self.feed, self.id.argument(), &mut self.memory).await;
        let Some(answer) = answer else {
            metrics::observe_skipped("busy");
            return Ok(());
        };
        metrics::observe_poll(begun.elapsed(), answer.as_ref().err().map(|failure| failure.fault));
        let polled = self.polled.get_or_insert_default();
        polled.at = timestamp(SystemTime::now()).into();
        polled.polls += 1;
        polled.failed += u64::from(answer.is_err());
        let news = match answer {
            Ok(answer) => {
                self.schedule.succeeded();
                self.answered(answer).await?
            }
            Err(failure) => {
                self.schedule.failed(unix_ms(), rand::random());
                self.failed(failure).await?
            }
        };
        if !news && self.schedule.is_to_be_written(unix_ms()) {
            self.write(|_| {}).await?;
        }
        Ok(())
    }

    /// Until the next phase. Where that may be far away, a record that somebody else writes meanwhile is looked at: it
    /// may have another owner now, or be that of a new life, which nobody would poll before that phase.
    async fn rest(&mut self, how_long: Duration) -> Result<(), Ended> {
        let until = tokio::time::Instant::now() + how_long;
        let looks = self.feed.interval >= FEED_POLL_AT_ONCE;
        loop {
            tokio::select! {
                () = self.shared.stopping.cancelled() => return Err(Ended::NotTaken),
                () = tokio::time::sleep_until(until) => return Ok(()),
                Ok(()) = self.writes.changed(), if looks => {}
            }
            let written = *self.writes.borrow_and_update();
            if written > self.revision
                && let Some((revision, record)) = self.read().await?
            {
                (self.revision, self.record) = (revision, record);
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
                Err(Ended::Deposed { by: record.owner })
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

    /// `false`: there was nothing to write.
    async fn answered(&mut self, answer: Answer) -> Result<bool, Ended> {
        let value = match (answer, &self.record.last) {
            (Answer::Value(value), _) => value,
            (Answer::Unchanged, Some(last)) => last.value.clone(),
            (Answer::Unchanged, None) => return Ok(false),
        };
        let same = self.record.last.as_ref().is_some_and(|last| last.value.get() == value.get());
        // After a failure the same value is told again: so clients know that it is fresh.
        if same && self.record.stale.is_none() {
            return Ok(false);
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
        } else {
            // "Unchanged" would be said of a value that the record does not have.
            self.memory = Memory::default();
        }
        Ok(true)
    }

    /// `false`: there was nothing to write.
    async fn failed(&mut self, failure: Failure) -> Result<bool, Ended> {
        let reason = failure.fault.reason();
        let words = failure.words;
        if self.record.stale.as_ref().is_some_and(|stale| &*stale.reason == reason) {
            tracing::debug!(feed = %self.id, reason, words, "the source still fails");
            return Ok(false);
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
        Ok(true)
    }

    /// Changes the record, and says in it when there was a poll. `false` if nobody knows whether it was: the next poll
    /// reads what it says.
    async fn write(&mut self, change: impl Fn(&mut FeedRecord)) -> Result<bool, Ended> {
        for _ in 0..FEED_WRITES_MAX {
            let mut record = self.record.clone();
            change(&mut record);
            record.polled = self.polled.clone();
            match store::put(&self.shared.nats, &self.id, self.revision, Some(&record)).await {
                Outcome::Committed { seq } => {
                    (self.revision, self.record) = (seq, record);
                    self.schedule.wrote(unix_ms());
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
