//! The streams and buckets, made by matcher and history; gateways wait for them.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Republish, StorageType};
use async_nats::jetstream::{self, ErrorCode};

use crate::limits;
use crate::names;
use crate::nats::Nats;

/// A stream or bucket that the system needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asset {
    /// Stream `ROOMS`: all logged messages, republished to the gateways.
    Rooms,
    /// KV `lobby`: rosters, queue and chats.
    Lobby,
    /// KV `gateways`: live gateways, for operators.
    Gateways,
    /// KV `leases`: who leads.
    Leases,
    /// KV `rooms`: each room's life, and a snapshot of its state.
    RoomRecords,
    /// KV `feeds`: owner, epoch and last value of each feed that somebody listens to.
    Feeds,
}

impl Asset {
    /// The stream's name; a bucket is one too.
    pub fn stream(self) -> String {
        match self {
            Asset::Rooms => names::ROOMS_STREAM.to_owned(),
            Asset::Lobby => names::bucket_stream(names::LOBBY_BUCKET),
            Asset::Gateways => names::bucket_stream(names::GATEWAYS_BUCKET),
            Asset::Leases => names::bucket_stream(names::LEASES_BUCKET),
            Asset::RoomRecords => names::bucket_stream(names::ROOMS_BUCKET),
            Asset::Feeds => names::bucket_stream(names::FEEDS_BUCKET),
        }
    }

    fn config(self, replicas: usize) -> Config {
        match self {
            Asset::Rooms => Config {
                name: self.stream(),
                subjects: vec![names::LOG_SUBJECTS.into()],
                republish: Some(Republish {
                    source: names::LOG_SUBJECTS.into(),
                    destination: names::OUT_SUBJECTS.into(),
                    headers_only: false,
                }),
                max_age: limits::LOG_AGE_MAX,
                max_bytes: limits::LOG_BYTES_MAX,
                max_message_size: i32::try_from(limits::MESSAGE_BYTES_MAX).unwrap_or(i32::MAX),
                duplicate_window: limits::DUPLICATE_WINDOW,
                discard: DiscardPolicy::Old,
                storage: StorageType::File,
                allow_direct: true,
                num_replicas: replicas,
                first_sequence: Some(first_sequence(SystemTime::now())),
                ..Config::default()
            },
            Asset::Lobby => Config {
                allow_atomic_publish: true,
                max_messages_per_subject: limits::RECORD_VERSIONS_MAX,
                ..bucket(names::LOBBY_BUCKET, replicas)
            },
            Asset::Gateways => {
                Config { max_age: limits::GATEWAY_RECORD_TTL, ..bucket(names::GATEWAYS_BUCKET, replicas) }
            }
            // A lease has its time to live in its own header.
            Asset::Leases => bucket(names::LEASES_BUCKET, replicas),
            // Each write is a rollup, as in KV `lobby`: what a limit drops, a crash of NATS would bring back.
            Asset::RoomRecords => Config {
                max_messages_per_subject: limits::RECORD_VERSIONS_MAX,
                ..bucket(names::ROOMS_BUCKET, replicas)
            },
            Asset::Feeds => Config {
                max_messages_per_subject: limits::RECORD_VERSIONS_MAX,
                // Epochs come from its sequences, and must grow over a bucket that is made anew.
                first_sequence: Some(first_sequence(SystemTime::now())),
                ..bucket(names::FEEDS_BUCKET, replicas)
            },
        }
    }
}

/// A bucket is a stream of a certain form: one message per subject, deletes as markers.
fn bucket(name: &str, replicas: usize) -> Config {
    Config {
        name: names::bucket_stream(name),
        subjects: vec![names::bucket_subjects(name)],
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        allow_direct: true,
        allow_rollup: true,
        deny_delete: true,
        allow_message_ttl: true,
        subject_delete_marker_ttl: Some(limits::MARKER_TTL),
        num_replicas: replicas,
        ..Config::default()
    }
}

/// A stream that is made anew starts behind any sequence that an earlier one can have reached (below a million
/// messages a second), so that an old `last_seq` never fits into it.
fn first_sequence(now: SystemTime) -> u64 {
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() * 1_000_000
}

/// Makes a stream or bucket if it does not exist, within [`limits::START_TIMEOUT`]. One that exists stays as it is.
///
/// # Errors
/// If NATS refuses it, or does not answer in time.
pub async fn ensure(nats: &Nats, asset: Asset, replicas: u8) -> anyhow::Result<()> {
    ensure_as(nats, asset.config(usize::from(replicas)), false).await
}

/// As [`ensure`], for stream `ROOMS`, which drops what is older than `max_age`; one that exists is changed to it. NATS
/// wants its window for repeated message ids to be no longer, so that shrinks with it.
///
/// # Errors
/// If NATS refuses it, or does not answer in time.
pub async fn ensure_log(nats: &Nats, replicas: u8, max_age: Duration) -> anyhow::Result<()> {
    let duplicate_window = max_age.min(limits::DUPLICATE_WINDOW);
    let config = Config { max_age, duplicate_window, ..Asset::Rooms.config(usize::from(replicas)) };
    ensure_as(nats, config, true).await
}

async fn ensure_as(nats: &Nats, config: Config, change_age: bool) -> anyhow::Result<()> {
    let context = jetstream::new(nats.client.clone());
    let deadline = tokio::time::Instant::now() + limits::START_TIMEOUT;
    loop {
        let Err(error) = try_ensure(&context, &config, change_age).await else { return Ok(()) };
        if tokio::time::Instant::now() > deadline {
            return Err(error).with_context(|| format!("cannot make {}", config.name));
        }
        // A server that has just started, or a cluster without a leader yet, refuses for a moment.
        tracing::debug!(%error, stream = config.name, "not made yet");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn try_ensure(context: &jetstream::Context, wanted: &Config, change_age: bool) -> anyhow::Result<()> {
    let stream = context.get_or_create_stream(wanted.clone()).await?;
    let now = &stream.cached_info().config;
    let Config { max_age, duplicate_window, .. } = *wanted;
    if change_age && (now.max_age, now.duplicate_window) != (max_age, duplicate_window) {
        context.update_stream(Config { max_age, duplicate_window, ..now.clone() }).await?;
        tracing::info!(seconds = max_age.as_secs(), stream = wanted.name, "what is older is dropped from now on");
    }
    Ok(())
}

/// Waits until a stream or bucket that another service makes is there, at most [`limits::START_TIMEOUT`].
///
/// # Errors
/// If it is not there in time.
pub async fn wait_for(nats: &Nats, asset: Asset) -> anyhow::Result<()> {
    let context = jetstream::new(nats.client.clone());
    let deadline = tokio::time::Instant::now() + limits::START_TIMEOUT;
    loop {
        match context.get_stream(asset.stream()).await {
            Ok(_) => return Ok(()),
            Err(error) if tokio::time::Instant::now() > deadline => {
                let hint = match asset {
                    Asset::Rooms | Asset::RoomRecords | Asset::Feeds => "history",
                    Asset::Lobby | Asset::Gateways | Asset::Leases => "matcher",
                };
                bail!("{} is not there ({error}): is a {hint} running?", asset.stream());
            }
            Err(error) => {
                tracing::debug!(%error, code = ?ErrorCode::STREAM_NOT_FOUND, stream = asset.stream(), "waiting");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
