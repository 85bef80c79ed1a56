//! A set of keys in a file or behind a URL, read again now and then: the task that does so, and what it read last.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use switchboard_contract::limits::{JWKS_BYTES_MAX, JWKS_INTERVAL_MIN, JWKS_TIMEOUT, START_TIMEOUT};
use switchboard_contract::process::UsageError;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::keys::Key;

/// How often a set is read.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// After a reading that succeeded.
    pub refresh: Duration,
    /// After one that failed, and at most as often for keys that are not known.
    pub least: Duration,
}

impl Pace {
    /// With this time between readings, or the shortest that is allowed.
    pub fn new(refresh: Duration) -> Pace {
        Pace { refresh: refresh.max(JWKS_INTERVAL_MIN), least: JWKS_INTERVAL_MIN }
    }
}

/// What was read, and when.
#[derive(Clone, Debug)]
struct Reading {
    keys: Arc<[Key]>,
    at: Instant,
}

/// A set of keys that is kept up to date.
#[derive(Clone, Debug)]
pub struct Jwks {
    last: watch::Receiver<Reading>,
    wanted: Arc<Notify>,
    pace: Pace,
}

impl Jwks {
    /// Reads a set for the first time, and keeps it up to date for as long as somebody has it.
    ///
    /// # Errors
    /// If it is no place of a set, a file that is none, or a URL that gives none within [`START_TIMEOUT`].
    pub async fn start(place: &str, pace: Pace) -> anyhow::Result<Jwks> {
        let source = Source::new(place)?;
        let deadline = Instant::now() + START_TIMEOUT;
        let keys = loop {
            match source.read().await {
                Ok(keys) => break keys,
                // A file is there or not; an issuer may be about to start.
                Err(error) if matches!(source, Source::File(_)) => {
                    return Err(UsageError(format!("--jwt-jwks: {error:#}")).into());
                }
                Err(error) if Instant::now() >= deadline => return Err(error.context("cannot read --jwt-jwks")),
                Err(error) => tracing::warn!("cannot read --jwt-jwks yet: {error:#}"),
            }
            sleep(Duration::from_secs(1)).await;
        };
        tracing::info!(keys = keys.len(), "JWKS read");
        let (told, last) = watch::channel(Reading { keys: keys.into(), at: Instant::now() });
        let wanted = Arc::new(Notify::new());
        tokio::spawn(keep(source, pace, told, wanted.clone()));
        Ok(Jwks { last, wanted, pace })
    }

    /// The keys.
    pub fn keys(&self) -> Arc<[Key]> {
        self.last.borrow().keys.clone()
    }

    /// Reads the set once more, for a key that it did not hold, unless that was done a moment ago; `true` if there was
    /// another reading. Whoever asks meanwhile shares it.
    pub async fn read_again(&self) -> bool {
        let mut last = self.last.clone();
        let before = last.borrow_and_update().at;
        if before.elapsed() < self.pace.least {
            return false;
        }
        self.wanted.notify_one();
        matches!(timeout(JWKS_TIMEOUT, last.changed()).await, Ok(Ok(())))
    }
}

/// Reads the set in time, and when it is wanted. What cannot be read leaves the keys as they are.
async fn keep(source: Source, pace: Pace, told: watch::Sender<Reading>, wanted: Arc<Notify>) {
    let mut wait = pace.refresh;
    loop {
        let since = told.borrow().at;
        tokio::select! {
            () = sleep_until(since + wait) => {}
            () = wanted.notified() => if since.elapsed() < pace.least { continue },
            () = told.closed() => return,
        }
        let read = source.read().await;
        let outcome = if read.is_ok() { "ok" } else { "failed" };
        metrics::counter!("switchboard_gateway_jwks_reads_total", "outcome" => outcome).increment(1);
        wait = if read.is_ok() { pace.refresh } else { pace.least };
        let fresh = read.map_err(|error| tracing::warn!("the JWKS is kept as it was: {error:#}")).ok();
        told.send_modify(|last| {
            last.at = Instant::now();
            if let Some(keys) = fresh {
                last.keys = keys.into();
            }
        });
    }
}

type Http<C> = Client<C, Empty<Bytes>>;

/// Where the set is.
enum Source {
    File(PathBuf),
    Http(Http<HttpConnector>, hyper::Uri),
    Https(Http<HttpsConnector<HttpConnector>>, hyper::Uri),
}

impl Source {
    fn new(place: &str) -> anyhow::Result<Source> {
        if !place.starts_with("http://") && !place.starts_with("https://") {
            return Ok(Source::File(place.into()));
        }
        // The URL may hold a password: it is not shown.
        let uri: hyper::Uri = place.parse().context("--jwt-jwks is no URL")?;
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).to_owned();
        if uri.scheme_str() == Some("http") {
            return Ok(Source::Http(client.build_http(), uri));
        }
        let roots = HttpsConnectorBuilder::new().with_native_roots().context("no root certificates are installed")?;
        Ok(Source::Https(client.build(roots.https_only().enable_http1().build()), uri))
    }

    async fn read(&self) -> anyhow::Result<Vec<Key>> {
        let deadline = Instant::now() + JWKS_TIMEOUT;
        let read = async {
            match self {
                Source::File(path) => read_file(path).await,
                Source::Http(client, uri) => get(client, uri).await,
                Source::Https(client, uri) => get(client, uri).await,
            }
        };
        let json = timeout_at(deadline, read).await.context("no answer in time")??;
        Ok(Key::set(&json)?)
    }
}

async fn read_file(path: &PathBuf) -> anyhow::Result<Bytes> {
    let cannot = || format!("cannot read {}", path.display());
    let file = tokio::fs::File::open(path).await.with_context(cannot)?;
    let mut json = Vec::new();
    let read = file.take(JWKS_BYTES_MAX as u64 + 1).read_to_end(&mut json).await.with_context(cannot)?;
    if read > JWKS_BYTES_MAX {
        bail!("{} has more than {JWKS_BYTES_MAX} bytes", path.display());
    }
    Ok(json.into())
}

/// Redirects are not followed: who may say where keys are is decided by the configuration alone.
async fn get<C: Connect + Clone + Send + Sync + 'static>(client: &Http<C>, uri: &hyper::Uri) -> anyhow::Result<Bytes> {
    let response = client.get(uri.clone()).await.context("no answer")?;
    if !response.status().is_success() {
        bail!("answered with HTTP status {}", response.status().as_u16());
    }
    let body = Limited::new(response.into_body(), JWKS_BYTES_MAX).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("not received: {error}"))?;
    Ok(body.to_bytes())
}

#[cfg(test)]
#[path = "jwks_tests.rs"]
mod tests;
