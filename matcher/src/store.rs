//! KV `lobby`: whose epoch it is, what is in it, and how a batch gets into it.
//!
//! Every write carries a guard: it is refused once another leader has written `epoch`. And it carries
//! `Nats-Rollup: sub`, which drops what was stored under its key. The bucket's limit of one message per key would do
//! that too, but nats-server (2.15.1, filestore) writes nothing to disk about a message that a limit drops: once the
//! marker of a purge has expired, `kill -9` and a restart bring the record back that it stood for. A rollup leaves a
//! tombstone. It must be the only message of its subject in the batch, which it is: one record per key. A crash
//! between a message and its rollup leaves two, which the next leader finds while it loads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use async_nats::jetstream;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::push::OrderedConfig;
use async_nats::jetstream::stream::Stream;
use async_nats::{HeaderMap, HeaderValue};
use bytes::Bytes;
use futures_util::StreamExt as _;
use switchboard_contract::ack::{Ack, Outcome, is_marker};
use switchboard_contract::limits::{COMMIT_TIMEOUT, EPOCH_REQUEST_TIMEOUT, PURGE_TTL, START_TIMEOUT};
use switchboard_contract::lobby::EpochRecord;
use switchboard_contract::names::{self, Incarnation, LobbyKey};
use switchboard_contract::nats::{Nats, RequestError};
use switchboard_contract::wire::{V1, decode, encode, timestamp};

use crate::core::{Batch, Loaded, Record};

/// What a write to `epoch` gets as well while a guarded write of the earlier leader is in process.
const IN_PROCESS: u64 = 10164;

/// How often a new epoch is tried for.
const ACQUIRE_RETRY: Duration = Duration::from_millis(50);

/// An epoch that this process has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Counts leaders.
    pub number: u64,
    /// Its record's sequence in the bucket's stream: what guards every write.
    pub revision: u64,
    /// When it began.
    pub since: SystemTime,
}

/// Who leads, as the bucket has it: the record and its sequence.
///
/// # Errors
/// If NATS does not answer, or the record is not understood.
pub async fn leader(nats: &Nats) -> anyhow::Result<Option<(EpochRecord, u64)>> {
    let stored = nats
        .leader_get(&names::bucket_stream(names::LOBBY_BUCKET), &LobbyKey::Epoch.subject(), EPOCH_REQUEST_TIMEOUT)
        .await
        .context("cannot read the epoch")?;
    let Some(stored) = stored else { return Ok(None) };
    let Some(body) = stored.body else { bail!("the epoch was deleted: the lobby cannot be led without it") };
    Ok(Some((decode("epoch", &body)?, stored.seq)))
}

/// Begins a new epoch: from here on no earlier leader writes anything. It is tried for as long as `may` says so:
/// `None` once it does not.
///
/// # Errors
/// If NATS refuses the epoch for another reason than that somebody else was first.
pub async fn acquire(nats: &Nats, me: &Incarnation, may: impl Fn() -> bool) -> anyhow::Result<Option<Epoch>> {
    while may() {
        match leader(nats).await {
            Ok(before) => {
                if let Some(epoch) = try_acquire(nats, me, before).await? {
                    return Ok(Some(epoch));
                }
            }
            Err(error) if error.is::<RequestError>() => tracing::debug!(%error, "the epoch cannot be read yet"),
            // Whoever wrote it knows more. Waiting here would keep the lease from a matcher that understands it.
            Err(error) => return Err(error),
        }
        tokio::time::sleep(ACQUIRE_RETRY).await;
    }
    Ok(None)
}

/// One try: compare and set. `None`: lost, or not known; read again.
async fn try_acquire(
    nats: &Nats,
    me: &Incarnation,
    before: Option<(EpochRecord, u64)>,
) -> anyhow::Result<Option<Epoch>> {
    let (number, expected) = before.map_or((1, 0), |(record, seq)| (record.epoch + 1, seq));
    let since = SystemTime::now();
    let record = EpochRecord { v: V1, epoch: number, leader: me.clone(), since: timestamp(since) };
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Last-Subject-Sequence", HeaderValue::from(expected));
    headers.insert("Nats-Rollup", "sub");
    let answer = nats
        .request_with(LobbyKey::Epoch.subject(), Some(headers), encode(&record), EPOCH_REQUEST_TIMEOUT)
        .await
        .map(|message| serde_json::from_slice::<Ack>(&message.payload));
    match answer {
        Ok(Ok(Ack { error: None, seq })) => Ok(Some(Epoch { number, revision: seq, since })),
        Ok(Ok(Ack { error: Some(error), .. })) if error.err_code == IN_PROCESS => Ok(None),
        Ok(Ok(Ack { error: Some(error), .. })) if error.is_wrong_last_sequence() => {
            tracing::info!("another matcher began an epoch at the same time");
            Ok(None)
        }
        Ok(Ok(Ack { error: Some(error), .. })) => bail!("the epoch was refused: {error:?}"),
        Ok(Err(error)) => Err(error).context("the answer to the epoch is not understood"),
        Err(error) => {
            tracing::debug!(%error, "the epoch was not written");
            Ok(None)
        }
    }
}

/// Reads all records, in one pass that is complete when the own epoch's record has come by: nothing that an earlier
/// leader wrote can come after it.
///
/// # Errors
/// If NATS does not deliver all of it within [`START_TIMEOUT`], or a record is not understood.
pub async fn load(nats: &Nats, epoch: Epoch) -> anyhow::Result<Vec<Loaded>> {
    tokio::time::timeout(START_TIMEOUT, read_all(nats, epoch)).await.context("the lobby was not delivered in time")?
}

async fn read_all(nats: &Nats, epoch: Epoch) -> anyhow::Result<Vec<Loaded>> {
    let mut context = jetstream::new(nats.client.clone());
    context.set_timeout(EPOCH_REQUEST_TIMEOUT);
    let stream = context.get_stream_no_info(names::bucket_stream(names::LOBBY_BUCKET)).await?;
    let config = OrderedConfig {
        deliver_subject: nats.client.new_inbox(),
        filter_subject: names::bucket_subjects(names::LOBBY_BUCKET),
        deliver_policy: DeliverPolicy::All,
        ..OrderedConfig::default()
    };
    let consumer = loop {
        match stream.create_consumer(config.clone()).await {
            Ok(consumer) => break consumer,
            Err(error) => tracing::debug!(%error, "the lobby cannot be read yet"),
        }
        tokio::time::sleep(ACQUIRE_RETRY).await;
    };
    let mut messages = consumer.messages().await.context("cannot read the lobby")?;
    // A key may come more than once: a replica that lags has not dropped the older message yet, or a crash left it.
    let mut records = BTreeMap::new();
    let (mut seen, mut twice) = (BTreeSet::new(), BTreeSet::new());
    while let Some(message) = messages.next().await {
        let message = message.context("reading the lobby was interrupted")?;
        let revision = message.info().map_err(anyhow::Error::from_boxed)?.stream_sequence;
        let Some(key) = LobbyKey::from_subject(&message.subject) else {
            tracing::warn!(subject = %message.subject, "a key that nobody here writes");
            continue;
        };
        if !seen.insert(key.clone()) {
            twice.insert(key.clone());
        }
        if key == LobbyKey::Epoch {
            if revision >= epoch.revision {
                drop_older(&stream, twice).await?;
                return Ok(records.into_values().collect());
            }
        } else if is_marker(message.headers.as_ref()) {
            records.remove(&key);
        } else {
            match parse(&key, &message.payload) {
                Ok(record) => drop(records.insert(key.clone(), Loaded { key, record, revision })),
                // Of another version, or by hand. It stays in the bucket, and its user is as one that is not here.
                Err(error) => {
                    tracing::warn!(%key, "a record is left out: {error:#}");
                    records.remove(&key);
                }
            }
        }
    }
    bail!("reading the lobby ended early")
}

/// Of these keys all but the last message goes: else the older one would be back when the newer one, a marker, expires.
async fn drop_older<I>(stream: &Stream<I>, keys: BTreeSet<LobbyKey>) -> anyhow::Result<()> {
    for key in keys {
        let dropped = stream.purge().filter(key.subject()).keep(1).await;
        let dropped = dropped.with_context(|| format!("cannot drop what is older of {key}"))?.purged;
        if dropped > 0 {
            tracing::warn!(%key, dropped, "a crash of NATS had left older messages of this key");
        }
    }
    Ok(())
}

fn parse(key: &LobbyKey, body: &[u8]) -> anyhow::Result<Record> {
    Ok(match key {
        LobbyKey::Epoch => bail!("the epoch is no record of the lobby"),
        LobbyKey::Teacher(_) => Record::Teacher(decode("teacher", body)?),
        LobbyKey::Student(_) => Record::Student(decode("student", body)?),
        LobbyKey::Queue(_) => Record::Queue(decode("queue", body)?),
        LobbyKey::Chat(_) => Record::Chat(decode("chat", body)?),
    })
}

/// Writes a batch, all or nothing, unless there is a newer epoch. Only one may be in flight.
pub async fn commit(nats: &Nats, epoch: Epoch, batch: Batch) -> Outcome {
    let mut records = batch.records;
    let Some((key, record)) = records.pop() else { return Outcome::Unknown };
    let (subject, mut headers, body) = message(epoch, &key, record.as_ref());
    if !records.is_empty() {
        let id = names::random_token(16);
        let size = records.len() as u64 + 1;
        if publish_all(nats, epoch, &id, records).await.is_err() {
            return Outcome::Unknown;
        }
        number(&mut headers, &id, size);
        headers.insert("Nats-Batch-Commit", "1");
    }
    // An error in the middle is answered here as well: the batch it has ended is not complete.
    match nats.request_with(subject, Some(headers), body, COMMIT_TIMEOUT).await {
        Ok(answer) => nats.refusals.read(&answer.payload),
        Err(RequestError::NoResponders | RequestError::Down | RequestError::Timeout) => Outcome::Unknown,
    }
}

async fn publish_all(
    nats: &Nats,
    epoch: Epoch,
    id: &str,
    records: Vec<(LobbyKey, Option<Record>)>,
) -> anyhow::Result<()> {
    let publish = async {
        for (n, (key, record)) in (1..).zip(&records) {
            let (subject, mut headers, body) = message(epoch, key, record.as_ref());
            number(&mut headers, id, n);
            nats.client.publish_with_headers(subject, headers, body).await?;
        }
        Ok(())
    };
    // While the connection is down the client's buffer fills up, and publishing would wait for ever.
    tokio::time::timeout(COMMIT_TIMEOUT, publish).await?
}

fn message(epoch: Epoch, key: &LobbyKey, record: Option<&Record>) -> (String, HeaderMap, Bytes) {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Last-Subject-Sequence", HeaderValue::from(epoch.revision));
    headers.insert("Nats-Expected-Last-Subject-Sequence-Subject", LobbyKey::Epoch.subject());
    headers.insert("Nats-Rollup", "sub");
    let body = match record {
        Some(Record::Teacher(record)) => encode(record),
        Some(Record::Student(record)) => encode(record),
        Some(Record::Queue(record)) => encode(record),
        Some(Record::Chat(record)) => encode(record),
        None => {
            headers.insert("KV-Operation", "PURGE");
            headers.insert("Nats-TTL", format!("{}s", PURGE_TTL.as_secs()));
            Bytes::new()
        }
    };
    (key.subject(), headers, body)
}

fn number(headers: &mut HeaderMap, id: &str, n: u64) {
    headers.insert("Nats-Batch-Id", id);
    headers.insert("Nats-Batch-Sequence", HeaderValue::from(n));
}
