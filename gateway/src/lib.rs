//! The gateway: WebSockets in, NATS out. Stateless: what it holds, others can rebuild.
//!
//! `frame`, `payload`, `session`, `limiter`, `topic`, `chat`, `room`, `feed`, `lobby`, `handshake` and most of `auth`
//! decide, and know neither tokio nor NATS; `socket`, `hub`, `feed_task`, `lobby_task` and `server` are the tasks
//! around them.

pub mod api;
mod asking;
pub mod auth;
mod away;
pub mod chat;
pub mod commands;
pub mod feed;
pub mod feed_task;
pub mod frame;
pub mod handshake;
pub mod hub;
mod inside;
mod life;
pub mod limiter;
pub mod lobby;
pub mod lobby_task;
mod log;
pub mod mailbox;
mod object;
mod observe;
pub mod page;
pub mod payload;
pub mod presence;
pub mod presence_task;
mod repair;
pub mod room;
pub mod server;
pub mod session;
pub mod socket;
pub mod topic;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use axum::http::HeaderValue;
use bytes::Bytes;
use clap::Parser;
use switchboard_contract::admin::{self, Readiness};
use switchboard_contract::carried;
use switchboard_contract::limits;
use switchboard_contract::lobby::{GatewayRecord, Heartbeat};
use switchboard_contract::names::{self, Incarnation};
use switchboard_contract::nats::{Nats, header};
use switchboard_contract::process::{CommonArgs, number, seconds};
use switchboard_contract::streams::{self, Asset};
use switchboard_contract::trace::HELP;
use switchboard_contract::version::version;
use switchboard_contract::wire::{self, V1};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::api::secret::Secret;
use crate::auth::Auth;
use crate::auth::args::AuthArgs;
use crate::hub::Hub;
use crate::limiter::Limiter;
use crate::limiter::args::LimitArgs;
use crate::page::Page;
use crate::presence_task::PresenceHandle;
use crate::server::Gateway;
use crate::session::SessionLimits;

/// The WebSocket gateway of Switchboard: speaks Phoenix Channels with clients, and NATS with matcher and history.
#[derive(Clone, Debug, Parser)]
#[command(name = "switchboard-gateway", version = version(), after_help = HELP)]
pub struct Args {
    /// Flags of every service.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Address for clients. Port 0: any free one.
    #[arg(long, env = "SWITCHBOARD_LISTEN", default_value = "127.0.0.1:4000")]
    pub listen: SocketAddr,
    /// An Origin that may connect although it is another host's: a whole origin, a host name, or "*" for any.
    /// May be given several times, or separated by commas.
    #[arg(long = "allowed-origin", env = "SWITCHBOARD_ALLOWED_ORIGIN", value_delimiter = ',', value_name = "ORIGIN")]
    pub allowed_origins: Vec<String>,
    /// Secret of the HTTP API, and of feeds that ask for it. Without one both refuse everybody.
    #[arg(long, env = "SWITCHBOARD_API_SECRET", hide_env_values = true)]
    pub api_secret: Option<Secret>,
    /// An origin whose pages may use the HTTP API from a browser, such as `https://example.org`, or "*" for any.
    /// May be given several times, or separated by commas.
    #[arg(long = "cors-origin", env = "SWITCHBOARD_CORS_ORIGIN", value_delimiter = ',', value_name = "ORIGIN",
        value_parser = api::cors::origin)]
    pub cors_origins: Vec<HeaderValue>,
    /// Open connections; further ones are refused.
    #[arg(long, env = "SWITCHBOARD_MAX_CONNECTIONS", default_value_t = limits::CONNECTIONS_MAX, value_parser = number(1))]
    pub max_connections: usize,
    /// Channels of one socket.
    #[arg(long, env = "SWITCHBOARD_MAX_CHANNELS", default_value_t = limits::CHANNELS_MAX, value_parser = number(1))]
    pub max_channels: usize,
    /// The largest capacity a teacher may name, in chats; at most 300.
    #[arg(long, env = "SWITCHBOARD_MAX_CAPACITY", default_value_t = limits::CAPACITY_MAX,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::CAPACITY_LIMIT)))]
    pub max_capacity: u32,
    /// Sockets in a room above which its clients get a count of them instead of lists. 0: always.
    #[arg(long, env = "SWITCHBOARD_PRESENCE_LIST_MAX", default_value_t = limits::PRESENCE_LIST_MAX, value_parser = number(0))]
    pub presence_list_max: usize,
    /// Silence after which a socket is closed, in seconds.
    #[arg(long, env = "SWITCHBOARD_IDLE_TIMEOUT", default_value_t = limits::IDLE_TIMEOUT.as_secs(),
        value_parser = seconds(1))]
    pub idle_timeout: u64,
    /// Over how long the sockets are closed after SIGTERM, in milliseconds; at most ten minutes.
    #[arg(long, env = "SWITCHBOARD_DRAIN_MS", default_value_t = 2_000,
        value_parser = clap::value_parser!(u64).range(..=600_000))]
    pub drain_ms: u64,
    /// Flags of tokens.
    #[command(flatten)]
    pub auth: AuthArgs,
    /// Flags of what one user may do.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Runs a gateway until `stop`, and drains it.
///
/// # Errors
/// If it cannot start: an address is taken, NATS is not there, or the configuration cannot be.
pub async fn run(args: Args, stop: CancellationToken) -> anyhow::Result<()> {
    let Some(auth) = stop.run_until_cancelled(args.auth.read()).await.transpose()? else { return Ok(()) };
    let readiness = Readiness::new("gateway");
    // The admin port outlives the drain: it says what is going on.
    let (background, accepting) = (CancellationToken::new(), CancellationToken::new());
    let _ends_all = background.clone().drop_guard();
    admin::serve(args.common.admin_addr, readiness.clone(), background.clone()).await?;
    observe::describe();
    observe::start(args.max_connections);
    let listener = server::listen(args.listen).with_context(|| format!("cannot bind --listen {}", args.listen))?;
    let address = listener.local_addr()?;

    let incarnation = Incarnation::new();
    let starting = start(&args, auth, &incarnation);
    let Some(started) = stop.run_until_cancelled(starting).await.transpose()? else { return Ok(()) };
    let Started { nats, gateway, presence, mut lobby_task, mut presence_task, mut feed_task, disconnects } = started;
    tracing::info!(%address, gateway = %incarnation, "listening");
    let api = Api::new(nats.clone(), gateway.clone(), presence.clone(), args.api_secret);
    let router = server::router(gateway.clone(), Page::built(&gateway.auth)).merge(api.router(args.cors_origins));
    tokio::spawn(server::accept(listener, router, args.max_connections, accepting.clone()));
    let disconnecting = api::disconnect::listen(disconnects, gateway.clone());
    tokio::spawn(background.clone().run_until_cancelled_owned(disconnecting));
    let beating = beat(nats.clone(), incarnation.clone(), gateway.clone(), presence.clone());
    tokio::spawn(background.clone().run_until_cancelled_owned(beating));
    let answering = inside::serve(
        inside::start(&nats, &incarnation).await?,
        incarnation.clone(),
        gateway.clone(),
        presence.clone(),
    );
    tokio::spawn(background.clone().run_until_cancelled_owned(answering));
    let keeping = carried::keep(nats.clone(), record(incarnation.clone(), gateway.clone(), address));
    tokio::spawn(background.clone().run_until_cancelled_owned(keeping));

    let spread = Duration::from_millis(args.drain_ms);
    let watching = away::watch(&nats, &gateway, &presence, &readiness, spread);
    tokio::select! {
        () = stop.cancelled() => {}
        () = watching => {}
        ended = &mut lobby_task => bail!("the lobby's task has failed: {ended:?}"),
        ended = &mut presence_task => bail!("the task of presence has failed: {ended:?}"),
        ended = &mut feed_task => bail!("the task of feeds has failed: {ended:?}"),
    }

    readiness.set(Err("draining"));
    gateway.set_draining();
    observe::draining();
    tokio::time::sleep(limits::DRAIN_DELAY).await;
    accepting.cancel();
    let drained = tokio::time::timeout(spread + limits::SHUTDOWN_TIMEOUT, async {
        tracing::info!(sockets = gateway.connections(), "draining");
        gateway.drain(spread).await;
        // An upgrade that was on its way became a socket meanwhile.
        while gateway.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            gateway.drain(Duration::ZERO).await;
        }
        // The sockets' last words reach the lobby's task just before they are gone; then it settles, if it can.
        let mut view = gateway.lobby.view();
        let told = tokio::time::timeout(limits::REQUEST_TIMEOUT, async {
            while nats.is_up() && !(gateway.lobby.is_idle() && view.borrow_and_update().settled) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        if told.await.is_err() {
            tracing::warn!("the matcher was not told of all that left; it will notice");
        }
    });
    if drained.await.is_err() {
        tracing::warn!(sockets = gateway.connections(), "the drain took too long");
    }
    goodbye(&nats, &incarnation).await;
    Ok(())
}

struct Started {
    nats: Nats,
    gateway: Arc<Gateway>,
    presence: PresenceHandle,
    lobby_task: JoinHandle<()>,
    presence_task: JoinHandle<()>,
    feed_task: JoinHandle<()>,
    disconnects: async_nats::Subscriber,
}

async fn start(args: &Args, auth: Auth, incarnation: &Incarnation) -> anyhow::Result<Started> {
    let nats = Nats::connect(&args.common, "gateway", incarnation).await?;
    for asset in [Asset::Rooms, Asset::RoomRecords, Asset::Lobby, Asset::Gateways] {
        streams::wait_for(&nats, asset).await?;
    }
    // Live once the others, which come behind it on the same connection, are.
    let disconnects = nats.client.subscribe(names::GATEWAYS_DISCONNECT).await.context("cannot subscribe")?;
    let (lobby, lobby_task) = lobby_task::start(nats.clone(), incarnation.clone()).await?;
    let (presence, presence_task) =
        presence_task::start(nats.clone(), incarnation.clone(), args.presence_list_max).await?;
    let limiter = Arc::new(Limiter::new(args.limits.rates(), Instant::now()));
    let hub = Hub::new(nats.clone(), lobby.clone(), presence.clone(), limiter.clone());
    let limits = SessionLimits {
        channels: args.max_channels,
        capacity: args.max_capacity,
        idle: Duration::from_secs(args.idle_timeout),
        users: limiter,
        secret: args.api_secret.clone().and_then(Secret::configured),
    };
    let (feeds, feed_task) = feed_task::start(nats.clone());
    let gateway = Arc::new(Gateway::new(lobby, hub, feeds, auth, limits, args.allowed_origins.clone()));
    Ok(Started { nats, gateway, presence, lobby_task, presence_task, feed_task, disconnects })
}

/// Says each second that this gateway lives.
async fn beat(nats: Nats, incarnation: Incarnation, gateway: Arc<Gateway>, presence: PresenceHandle) {
    let mut tick = tokio::time::interval(limits::HEARTBEAT);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    for n in 1u64.. {
        tick.tick().await;
        observe::limited_users(gateway.limits.users.sweep(Instant::now()));
        if let Some(rooms) = presence.digest() {
            let beat = Heartbeat { v: V1, gateway: incarnation.clone(), n, bye: false, rooms };
            nats.publish(names::alive_gateway(&incarnation), wire::encode(&beat)).await;
        }
    }
}

/// What this gateway is, for operators; written now and then, and by that also known whether NATS stores anything.
fn record(incarnation: Incarnation, gateway: Arc<Gateway>, address: SocketAddr) -> impl FnMut() -> (String, Bytes) {
    let (subject, since) = (names::gateway_record_subject(&incarnation), wire::timestamp(SystemTime::now()));
    move || {
        let record = GatewayRecord {
            v: V1,
            gateway: incarnation.clone(),
            address: address.to_string(),
            version: version().into(),
            connections: gateway.connections() as u64,
            since: since.clone(),
        };
        (subject.clone(), wire::encode(&record))
    }
}

/// Takes this gateway off the lists at once.
async fn goodbye(nats: &Nats, incarnation: &Incarnation) {
    let beat = Heartbeat { v: V1, gateway: incarnation.clone(), n: u64::MAX, bye: true, rooms: Vec::new() };
    nats.publish(names::alive_gateway(incarnation), wire::encode(&beat)).await;
    let marker = header("KV-Operation", "DEL");
    let subject = names::gateway_record_subject(incarnation);
    let _ = nats.request_with(subject, Some(marker), Bytes::new(), Duration::from_millis(500)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_remembers_all_chats_that_a_teacher_may_have() {
        let most = u32::try_from(limits::SHOWN_CHATS_MAX).expect("a small number");
        for (chats, allowed) in [(0, false), (1, true), (most, true), (most + 1, false)] {
            let args = Args::try_parse_from(["switchboard-gateway", "--max-capacity", &chats.to_string()]);
            assert_eq!(args.is_ok(), allowed, "{chats}");
        }
    }
}
