//! KV `feeds`: the records of feeds, by compare and set.

use async_nats::jetstream;
use switchboard_contract::ack::Outcome;
use switchboard_contract::feed::FeedRecord;
use switchboard_contract::limits::REQUEST_TIMEOUT;
use switchboard_contract::names::FeedId;
use switchboard_contract::nats::Nats;
use switchboard_contract::streams::Asset;

use crate::records;

/// See [`records::get`].
///
/// # Errors
/// As there.
pub(crate) async fn get(nats: &Nats, feed: &FeedId) -> anyhow::Result<(u64, Option<FeedRecord>)> {
    records::get(nats, Asset::Feeds, &feed.record_subject(), "feed_record").await
}

/// See [`records::put`].
pub(crate) async fn put(nats: &Nats, feed: &FeedId, expected: u64, record: Option<&FeedRecord>) -> Outcome {
    records::put(nats, feed.record_subject(), expected, record).await
}

/// With which epoch a new record begins: one above all that there were. See [`FeedRecord::epoch`].
///
/// # Errors
/// If NATS does not answer.
pub(crate) async fn new_epoch(nats: &Nats) -> anyhow::Result<u64> {
    let mut context = jetstream::new(nats.client.clone());
    context.set_timeout(REQUEST_TIMEOUT);
    Ok(context.get_stream(Asset::Feeds.stream()).await?.cached_info().state.last_sequence + 1)
}
