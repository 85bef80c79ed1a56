//! A gateway asks for a feed: its record is made, or touched, so that an owner that is about to end it is refused.

use std::sync::Arc;
use std::time::Duration;

use switchboard_contract::ack::Outcome;
use switchboard_contract::feed::{Fed, FeedRecord, Want, Wanted};
use switchboard_contract::limits::{FEED_WRITES_MAX, READ_TIMEOUT};
use switchboard_contract::names::{FeedId, Incarnation};
use switchboard_contract::reason::Reason;
use switchboard_contract::wire::V1;

use super::poller::Shared;
use super::store;

/// Who would own a feed that has no record yet.
#[derive(Clone, Debug)]
pub(crate) enum Heir {
    Known(Incarnation),
    /// This replica has not heard who lives yet, or nobody can poll the feed.
    Unknown,
    /// There are too many feeds.
    Full,
}

pub(crate) fn refused(reason: Reason) -> Wanted {
    Wanted { v: V1, feed: None, refused: Some(reason) }
}

/// The answer, within [`READ_TIMEOUT`]. Nobody hears of a feed that wants a secret where anybody could join it.
pub(crate) async fn answer(shared: Arc<Shared>, want: Want, heir: Heir) -> Wanted {
    let Want { feed: id, keeps_secrets, .. } = want;
    let found = shared.catalogue.find(&id).filter(|feed| keeps_secrets || !feed.secret);
    let Some(feed) = found else { return refused(Reason::NotFound) };
    let touched = tokio::time::timeout(READ_TIMEOUT, touch(&shared, &id, &heir));
    match touched.await {
        Ok(Ok(record)) => {
            let interval_ms = u64::try_from(feed.interval.as_millis()).unwrap_or(u64::MAX);
            let (token, secret) = (feed.token, feed.secret);
            let fed = Fed { interval_ms, token, secret, last: record.last, stale: record.stale };
            Wanted { v: V1, feed: Some(fed), refused: None }
        }
        Ok(Err(error)) => {
            tracing::debug!(feed = %id, "a feed cannot be asked for: {error:#}");
            refused(Reason::Unavailable)
        }
        Err(_) => refused(Reason::Unavailable),
    }
}

async fn touch(shared: &Shared, id: &FeedId, heir: &Heir) -> anyhow::Result<FeedRecord> {
    for attempt in 0..FEED_WRITES_MAX as u64 {
        let (revision, record) = store::get(&shared.nats, id).await?;
        let record = match record {
            Some(record) => FeedRecord { asked: record.asked + 1, ..record },
            None => {
                let owner = match heir {
                    Heir::Known(owner) => owner.clone(),
                    Heir::Unknown => anyhow::bail!("nobody is known that could poll it"),
                    Heir::Full => anyhow::bail!("there are too many feeds"),
                };
                let epoch = store::new_epoch(&shared.nats).await?;
                FeedRecord { v: V1, feed: id.clone(), owner, epoch, asked: 1, last: None, stale: None, polled: None }
            }
        };
        match store::put(&shared.nats, id, revision, Some(&record)).await {
            Outcome::Committed { .. } => return Ok(record),
            // Many gateways may ask at once: they part.
            Outcome::Fenced => {
                tokio::time::sleep(Duration::from_millis(rand::random_range(0..=2 * attempt))).await;
            }
            Outcome::Unknown => anyhow::bail!("no answer"),
        }
    }
    anyhow::bail!("others write the record all the time")
}
