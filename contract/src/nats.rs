//! The connection to NATS: connecting, knowing whether it is up, and requests with a deadline.

mod events;

use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use async_nats::{
    Client, ConnectError, ConnectOptions, HeaderMap, HeaderValue, Message, ReconnectToServer, ServerAddr, Subscriber,
};
use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use self::events::Teller;
use crate::ack::{Outcome, Refusals};
use crate::credentials::Files;
use crate::limits::{CARRIED_PATIENCE, START_TIMEOUT};
use crate::names::{self, Incarnation};
use crate::process::{CommonArgs, UsageError, without_password};
use crate::requests::{self, Requests};
use crate::trace::Span;

/// Versions of nats-server below this one silently ignore headers that fencing needs.
const SERVER_MIN: (i64, i64, i64) = (2, 12, 0);

const MOVES: &str = "switchboard_nats_moves_total";
const TIMEOUTS: &str = "switchboard_nats_request_timeouts_total";

/// A connection to NATS. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Nats {
    /// The connection itself, for subscriptions.
    pub client: Client,
    /// Counts (re)connections: odd while up, even while down.
    link: watch::Receiver<u64>,
    /// Counts subscriptions that overflowed.
    overflows: watch::Receiver<u64>,
    /// When something was sent that is known to have been stored; `None`: nobody looks ([`crate::carried`]).
    pub(crate) stored: watch::Sender<Option<Instant>>,
    pub(crate) requests: Arc<Requests>,
    /// Whether streams refuse what is written.
    pub refusals: Arc<Refusals>,
    /// How another connection is made.
    options: Arc<ConnectOptions>,
    /// Where the next attempt to connect goes.
    goal: Arc<Mutex<Option<ServerAddr>>>,
    /// Looks for other credentials while anybody has this connection.
    _watching: Arc<AbortOnDropHandle<()>>,
}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Nobody listens there: it was not received.
    #[error("nobody listens")]
    NoResponders,
    /// The connection is down: it was not sent.
    #[error("NATS is away")]
    Down,
    /// Unknown whether it was received.
    #[error("no answer in time")]
    Timeout,
}

impl Nats {
    /// Connects as `<service>-<incarnation>`, within [`START_TIMEOUT`], and checks the server's version.
    ///
    /// # Errors
    /// If there is no server in that time, the credentials are refused, or the server is too old.
    pub async fn connect(args: &CommonArgs, service: &str, incarnation: &Incarnation) -> anyhow::Result<Nats> {
        let (servers, url) = (servers(&args.nats_url)?, without_password(&args.nats_url));
        let (teller, link, overflows) = Teller::new();
        let files = Files::open(args.nats_creds.as_deref(), args.nats_ca.as_deref())?;
        let options = files
            .options()
            .name(format!("{service}-{incarnation}"))
            .custom_inbox_prefix(format!("_INBOX.{service}"))
            .ping_interval(Duration::from_secs(5))
            .connection_timeout(Duration::from_secs(3))
            .request_timeout(Some(crate::limits::REQUEST_TIMEOUT));
        let scouting = Arc::new(options.clone());
        let goal = Arc::new(Mutex::new(None));
        let next = goal.clone();
        let options = options
            .retry_on_initial_connect()
            .reconnect_to_server_callback(move |_, _| {
                let goal = next.lock().unwrap_or_else(PoisonError::into_inner).take();
                ready(goal.map(|addr| ReconnectToServer { addr, delay: Some(Duration::ZERO) }))
            })
            .reconnect_delay_callback(|attempts| {
                let base = 50 * (1u64 << attempts.clamp(1, 6));
                Duration::from_millis(base / 2 + rand::random_range(0..=base / 2))
            })
            .event_callback(move |event| {
                teller.note(&event);
                ready(())
            });
        let client = options.connect(&servers[..]).await.with_context(|| format!("cannot connect to {url}"))?;
        let mut first = link.clone();
        let connecting = tokio::time::timeout(START_TIMEOUT, first.wait_for(|n| n % 2 == 1));
        let connected = matches!(connecting.await, Ok(Ok(_)));
        if !connected {
            bail!("no NATS server at {url} for {} s", START_TIMEOUT.as_secs());
        }
        let info = client.server_info();
        if !client.is_server_compatible(SERVER_MIN.0, SERVER_MIN.1, SERVER_MIN.2) {
            bail!(
                "nats-server at {url} is {}; at least {}.{} is needed, an older one ignores what keeps the lobby safe",
                info.version,
                SERVER_MIN.0,
                SERVER_MIN.1
            );
        }
        tracing::info!(server = %info.server_name, version = %info.version, "connected to NATS");
        let requests = Arc::new(Requests::over(&client).await.context("the connection to NATS has ended")?);
        let (stored, refusals) = (watch::Sender::new(None), Arc::default());
        let watching = files.watch(client.clone(), scouting.clone());
        let watching = Arc::new(AbortOnDropHandle::new(tokio::spawn(watching)));
        Ok(Nats { client, link, overflows, stored, refusals, requests, options: scouting, goal, _watching: watching })
    }

    /// Whether the connection is up, as far as is known.
    pub fn is_up(&self) -> bool {
        *self.link.borrow() % 2 == 1
    }

    /// Changes at each loss and each return of the connection: odd while it is up.
    pub fn link(&self) -> watch::Receiver<u64> {
        self.link.clone()
    }

    /// Changes whenever a subscription has overflowed, and so lost what came: any of them may have.
    pub fn overflows(&self) -> watch::Receiver<u64> {
        self.overflows.clone()
    }

    /// Changes whenever something was stored that the service had written to know that: when it had been sent. `None`:
    /// the service writes nothing of the kind.
    pub fn stored(&self) -> watch::Receiver<Option<Instant>> {
        self.stored.subscribe()
    }

    /// A server that leads a stream and is cut off from its cluster goes on answering reads for 10 s, while the others
    /// have chosen another leader after 4 s. So where nothing was stored for a while what it says may be old.
    fn is_doubtful(&self) -> bool {
        self.stored.borrow().is_some_and(|stored| stored.elapsed() >= CARRIED_PATIENCE)
    }

    /// A further connection, to this server alone.
    pub(crate) async fn scout(&self, server: &ServerAddr) -> Result<Client, ConnectError> {
        ConnectOptions::clone(&self.options).connect(server.clone()).await
    }

    /// Leaves its server for this one; where that cannot be reached, for any.
    pub(crate) async fn move_to(&self, server: ServerAddr) {
        metrics::counter!(MOVES).increment(1);
        *self.goal.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        if let Err(error) = self.client.force_reconnect().await {
            tracing::warn!(%error, "the connection to NATS has ended");
        }
    }

    /// A request with a deadline. While the connection is down nothing is handed over: it would be sent later, after
    /// the caller was told that it failed.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn request(&self, subject: String, body: Bytes, timeout: Duration) -> Result<Message, RequestError> {
        self.request_with(subject, None, body, timeout).await
    }

    /// As [`Nats::request`], with headers. Within a [`Span`] it is a part of that, and the headers say so.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn request_with(
        &self,
        subject: String,
        mut headers: Option<HeaderMap>,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Message, RequestError> {
        if !self.is_up() {
            return Err(RequestError::Down);
        }
        let asked_for = names::asked_for(&subject);
        let _span = Span::sending(asked_for, &subject, &mut headers);
        // One deadline around everything: the wait for room in a full command buffer too.
        let asking = self.requests.ask(&self.client, subject, headers, body);
        tokio::time::timeout(timeout, asking).await.unwrap_or_else(|_| {
            metrics::counter!(TIMEOUTS, "verb" => asked_for).increment(1);
            Err(RequestError::Timeout)
        })
    }

    /// Writes to a stream, if the last message of that subject has the sequence `expected` (0: there is none).
    pub async fn write(
        &self,
        subject: String,
        expected: u64,
        mut headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
    ) -> Outcome {
        headers.insert("Nats-Expected-Last-Subject-Sequence", HeaderValue::from(expected));
        match self.request_with(subject, Some(headers), body, timeout).await {
            Ok(answer) => self.refusals.read(&answer.payload),
            Err(error) => {
                tracing::debug!(%error, "a write has no answer");
                Outcome::Unknown
            }
        }
    }

    /// Publishes without an answer, unless the connection is down. Within a [`Span`] it is a part of that.
    pub async fn publish(&self, subject: String, body: Bytes) {
        if !self.is_up() {
            return;
        }
        let mut headers = None;
        let _span = Span::sending("publish", &subject, &mut headers);
        let published = match headers {
            Some(headers) => self.client.publish_with_headers(subject, headers, body).await,
            None => self.client.publish(subject, body).await,
        };
        if let Err(error) = published {
            tracing::warn!(%error, "a publish was refused by the client");
        }
    }

    /// Subscribes. Whatever is published from then on comes: a subscription is live only after a round trip.
    ///
    /// # Errors
    /// If that takes longer than `timeout`, or the connection is down.
    pub async fn subscribe(&self, subject: String, timeout: Duration) -> Result<Subscriber, RequestError> {
        if !self.is_up() {
            return Err(RequestError::Down);
        }
        let subscribing = async {
            let subscription = self.client.subscribe(subject).await.map_err(|_| RequestError::Down)?;
            self.round_trip(timeout).await.map(|()| subscription)
        };
        tokio::time::timeout(timeout, subscribing).await.unwrap_or(Err(RequestError::Timeout))
    }

    /// A round trip to the server: everything sent before, subscriptions among it, has been processed by it.
    /// (`flush` is not one: measured, 8 % of publishes from elsewhere were missed after subscribe and flush.)
    ///
    /// # Errors
    /// If there is no answer within `timeout`.
    pub async fn round_trip(&self, timeout: Duration) -> Result<(), RequestError> {
        match self.request(names::NOBODY.to_owned(), Bytes::new(), timeout).await {
            Ok(_) | Err(RequestError::NoResponders) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The last message of a subject, read through the stream's leader, so that it is never old: its sequence,
    /// and its body where it is a value. `Ok(None)`: there is none.
    ///
    /// # Errors
    /// If there is no answer within `timeout`, or one that is not understood; or if it may be old, because NATS stored
    /// nothing of this service for [`CARRIED_PATIENCE`].
    pub async fn leader_get(
        &self,
        stream: &str,
        subject: &str,
        timeout: Duration,
    ) -> Result<Option<Stored>, RequestError> {
        self.message_get(stream, &serde_json::json!({ "last_by_subj": subject }), timeout).await
    }

    /// The first message of a subject that stands at `from` or behind it; else as [`Nats::leader_get`].
    ///
    /// # Errors
    /// If there is no answer within `timeout`, or one that is not understood.
    pub async fn leader_next(
        &self,
        stream: &str,
        subject: &str,
        from: u64,
        timeout: Duration,
    ) -> Result<Option<Stored>, RequestError> {
        // A sequence of 0 would be none at all.
        let body = serde_json::json!({ "seq": from.max(1), "next_by_subj": subject });
        self.message_get(stream, &body, timeout).await
    }

    async fn message_get(
        &self,
        stream: &str,
        which: &serde_json::Value,
        timeout: Duration,
    ) -> Result<Option<Stored>, RequestError> {
        #[derive(serde::Deserialize)]
        struct Reply {
            message: Option<Raw>,
            error: Option<ApiError>,
        }
        #[derive(serde::Deserialize)]
        struct Raw {
            seq: u64,
            #[serde(default)]
            data: String,
            #[serde(default)]
            hdrs: String,
        }
        #[derive(serde::Deserialize)]
        struct ApiError {
            code: u16,
        }
        let message = self.request(names::leader_get_subject(stream), which.to_string().into(), timeout).await?;
        if self.is_doubtful() {
            return Err(RequestError::Timeout);
        }
        let reply: Reply = serde_json::from_slice(&message.payload).map_err(|_| RequestError::Timeout)?;
        match (reply.message, reply.error) {
            (Some(raw), _) => {
                use base64::Engine as _;
                let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text);
                let body = decode(&raw.data).map_err(|_| RequestError::Timeout)?;
                let headers = decode(&raw.hdrs).map_err(|_| RequestError::Timeout)?;
                let marker = String::from_utf8_lossy(&headers).contains("KV-Operation")
                    || String::from_utf8_lossy(&headers).contains("Nats-Marker-Reason");
                Ok(Some(Stored { seq: raw.seq, body: (!marker).then(|| body.into()) }))
            }
            (None, Some(error)) if error.code == 404 => Ok(None),
            (None, _) => Err(RequestError::Timeout),
        }
    }
}

fn servers(url: &str) -> Result<Vec<ServerAddr>, UsageError> {
    let servers = url.split(',').map(str::trim).filter(|server| !server.is_empty());
    let servers: Result<Vec<ServerAddr>, _> = servers.map(str::parse).collect();
    match servers {
        Ok(servers) if !servers.is_empty() => Ok(servers),
        Ok(_) => Err(UsageError("--nats-url: it names no server".into())),
        // Not the value itself: it may hold a password.
        Err(error) => Err(UsageError(format!("--nats-url: {error}"))),
    }
}

/// One header.
pub fn header(name: &'static str, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(name, value);
    headers
}

/// A message as a stream holds it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its sequence in the stream.
    pub seq: u64,
    /// Its body; `None` for the marker of a deleted key.
    pub body: Option<Bytes>,
}

/// Says what is counted here.
pub(crate) fn describe() {
    requests::describe();
    events::describe();
    metrics::describe_counter!(MOVES, "Moves to another NATS server, where one stored nothing.");
    metrics::describe_counter!(
        TIMEOUTS,
        "Requests to NATS that had no answer in time, by verb; of a probe, that means that somebody is there."
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read() {
        assert_eq!(servers("nats://a:1, tls://b:2,").map(|servers| servers.len()).ok(), Some(2));
        for wrong in ["", " ,", "nats://a:port", "http://a:1"] {
            assert!(servers(wrong).is_err_and(|error| error.0.starts_with("--nats-url: ")), "{wrong:?}");
        }
    }
}
