//! KV `rooms`, reading all of it; and single records of it and of KV `feeds`, by compare and set.
//!
//! And what is shown of KV `gateways`, whose writers are the gateways, and of KV `feeds`: many records at once.
//!
//! Each write is a rollup, as those of KV `lobby` are: what the bucket's limit drops, a crash of NATS would bring back.

use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::HeaderMap;
use async_nats::jetstream;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::push::OrderedConfig;
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use switchboard_contract::ack::{Outcome, is_marker};
use switchboard_contract::feed::FeedRecord;
use switchboard_contract::limits::{PURGE_TTL, REQUEST_TIMEOUT, START_TIMEOUT};
use switchboard_contract::lobby::GatewayRecord;
use switchboard_contract::names::{self, FeedId, GATEWAYS_BUCKET, ROOMS_BUCKET, RoomId};
use switchboard_contract::nats::Nats;
use switchboard_contract::room::RoomRecord;
use switchboard_contract::streams::Asset;
use switchboard_contract::wire::{decode, encode};
use tracing::field::display;

/// Between attempts to read all records.
const RETRY: Duration = Duration::from_millis(200);

/// The status of the empty message behind the last one of a batched read.
const END_OF_BATCH: u16 = 204;
/// The status of the answer where there is nothing to read.
const NO_MESSAGES: u16 = 404;

/// All records. One that is not understood is left out, and counted.
///
/// # Errors
/// If NATS does not deliver all of them within [`START_TIMEOUT`].
pub(crate) async fn load(nats: &Nats) -> anyhow::Result<Vec<(RoomId, RoomRecord)>> {
    let load = async {
        loop {
            match read_all(nats).await {
                Ok(records) => return records,
                // A cluster without a leader yet, or one that has just lost it.
                Err(error) => tracing::debug!("the records cannot be read yet: {error:#}"),
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::time::timeout(START_TIMEOUT, load).await.context("the records were not delivered in time")
}

async fn read_all(nats: &Nats) -> anyhow::Result<Vec<(RoomId, RoomRecord)>> {
    let mut context = jetstream::new(nats.client.clone());
    context.set_timeout(REQUEST_TIMEOUT);
    let stream = context.get_stream_no_info(names::bucket_stream(ROOMS_BUCKET)).await?;
    let config = OrderedConfig {
        deliver_subject: nats.client.new_inbox(),
        filter_subject: names::bucket_subjects(ROOMS_BUCKET),
        deliver_policy: DeliverPolicy::LastPerSubject,
        ..OrderedConfig::default()
    };
    let consumer = stream.create_consumer(config).await.context("the records cannot be read")?;
    let mut records = Vec::new();
    if consumer.cached_info().num_pending == 0 {
        return Ok(records);
    }
    let mut messages = consumer.messages().await.context("the records cannot be read")?;
    while let Some(message) = messages.next().await {
        let message = message.context("reading the records was interrupted")?;
        let pending = message.info().map_err(anyhow::Error::from_boxed)?.pending;
        if !is_marker(message.headers.as_ref()) {
            match (names::room_of_record(&message.subject), decode("room_record", &message.payload)) {
                (Some(room), Ok(record)) => records.push((room, record)),
                (room, record) => {
                    let (room, error) = (room.as_ref().map(display), record.err().map(display));
                    tracing::warn!(room, error, "a room's record is not understood");
                }
            }
        }
        if pending == 0 {
            return Ok(records);
        }
    }
    bail!("reading the records ended early")
}

/// What the gateways that live say of themselves: at most the 1,024 that NATS allows. The record of one that has said
/// goodbye is gone; that of a dead one stays until it expires,
/// [`GATEWAY_RECORD_TTL`](switchboard_contract::limits::GATEWAY_RECORD_TTL) after its last write.
///
/// # Errors
/// As [`last_of`].
pub(crate) async fn gateways(nats: &Nats) -> anyhow::Result<Vec<GatewayRecord>> {
    last_of(nats, Asset::Gateways, &[names::bucket_subjects(GATEWAYS_BUCKET)], "gateway_record").await
}

/// The records of these feeds, but for those that are gone.
///
/// # Errors
/// As [`last_of`].
pub(crate) async fn feeds(nats: &Nats, feeds: &[FeedId]) -> anyhow::Result<Vec<FeedRecord>> {
    let subjects: Vec<String> = feeds.iter().map(FeedId::record_subject).collect();
    // NATS takes no subjects for all.
    if subjects.is_empty() {
        return Ok(Vec::new());
    }
    last_of(nats, Asset::Feeds, &subjects, "feed_record").await
}

/// All records of a bucket with these subjects. Any replica of the bucket answers, so they may be a moment old. One
/// that is not understood is left out, and counted.
///
/// # Errors
/// If they have not all come within [`REQUEST_TIMEOUT`], or there are more than NATS allows.
async fn last_of<R: DeserializeOwned>(
    nats: &Nats,
    bucket: Asset,
    subjects: &[String],
    kind: &'static str,
) -> anyhow::Result<Vec<R>> {
    let stream = bucket.stream();
    let body = serde_json::json!({ "multi_last": subjects }).to_string();
    let reading = async {
        // Each record is a message of its own, so this is no request with one answer.
        let inbox = nats.client.new_inbox();
        let mut answers = nats.client.subscribe(inbox.clone()).await?;
        nats.client.publish_with_reply(names::direct_get_subject(&stream), inbox, body.into()).await?;
        let mut records = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.status.map(|status| status.as_u16()) {
                None if is_marker(answer.headers.as_ref()) => {}
                None => match decode(kind, &answer.payload) {
                    Ok(record) => records.push(record),
                    Err(error) => tracing::debug!(%error, "a record is not understood"),
                },
                Some(END_OF_BATCH | NO_MESSAGES) => return Ok(records),
                Some(status) => bail!("{stream} cannot be read: status {status}"),
            }
        }
        bail!("the connection ended")
    };
    if !nats.is_up() {
        bail!("NATS is away");
    }
    tokio::time::timeout(REQUEST_TIMEOUT, reading).await.context("no answer in time")?
}

/// Of a bucket: the record with this subject and its revision, which is what a write has to expect. Read through the
/// stream's leader. `kind` names it where it is not understood.
///
/// # Errors
/// If NATS does not answer, or the record is not understood.
pub(crate) async fn get<R: DeserializeOwned>(
    nats: &Nats,
    bucket: Asset,
    subject: &str,
    kind: &'static str,
) -> anyhow::Result<(u64, Option<R>)> {
    let stored = nats.leader_get(&bucket.stream(), subject, REQUEST_TIMEOUT).await?;
    let Some(stored) = stored else { return Ok((0, None)) };
    let record = stored.body.map(|body| decode(kind, &body)).transpose()?;
    Ok((stored.seq, record))
}

/// The record of a room: see [`get`].
///
/// # Errors
/// As [`get`].
pub(crate) async fn get_room(nats: &Nats, room: &RoomId) -> anyhow::Result<(u64, Option<RoomRecord>)> {
    get(nats, Asset::RoomRecords, &names::room_record_subject(room), "room_record").await
}

/// Writes a record, or deletes it, if its revision is still this one.
pub(crate) async fn put<R: Serialize>(nats: &Nats, subject: String, expected: u64, record: Option<&R>) -> Outcome {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Rollup", "sub");
    let body = match record {
        Some(record) => encode(record),
        None => {
            headers.insert("KV-Operation", "PURGE");
            headers.insert("Nats-TTL", format!("{}s", PURGE_TTL.as_secs()));
            Bytes::new()
        }
    };
    nats.write(subject, expected, headers, body, REQUEST_TIMEOUT).await
}

/// Writes the record of a room: see [`put`].
pub(crate) async fn put_room(nats: &Nats, room: &RoomId, expected: u64, record: Option<&RoomRecord>) -> Outcome {
    put(nats, names::room_record_subject(room), expected, record).await
}
