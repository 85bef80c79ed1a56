//! History: follows the room stream, keeps the last messages of each log in memory, and answers reads of them.
//!
//! [`log`] decides what is kept and what a read answers, [`room`] what a room's log means, [`waiters`] who waits for
//! what; they are pure. One task owns them (`serve`); a second one (`follow`) feeds it the stream. The replica that
//! holds the lease (`lead`) looks after the lives of rooms ([`keeper`]) and tells their [`keywords`] ([`herald`]).
//! Beside that, [`feeds`]: sources that are polled once for everybody; three of these are this system (`system`,
//! `inside`).

mod chat;
mod errands;
pub mod feeds;
mod follow;
mod gather;
pub mod herald;
mod inside;
pub mod keeper;
pub mod keywords;
mod lead;
pub mod log;
mod metrics;
mod records;
pub mod room;
mod serve;
mod system;
mod tail;
pub mod waiters;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::service::ServiceExt as _;
use clap::Parser;
use switchboard_contract::admin::{self, Readiness};
use switchboard_contract::carried;
use switchboard_contract::limits;
use switchboard_contract::names::{
    HISTORY_BEHIND, HISTORY_FEED, HISTORY_GATEWAYS, HISTORY_LOBBY, HISTORY_OPERATOR, HISTORY_READ, HISTORY_READ_ALL,
    Incarnation, RoomId,
};
use switchboard_contract::nats::Nats;
use switchboard_contract::process::{CommonArgs, millis, number};
use switchboard_contract::room::RoomRecord;
use switchboard_contract::streams::{self, Asset};
use switchboard_contract::trace::HELP;
use switchboard_contract::version::version;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::feeds::Feeds;
use crate::follow::{What, follow};
use crate::lead::Lead;
use crate::serve::Server;

/// The service's name, and its queue group: each request goes to one replica.
const SERVICE: &str = "history";

/// The largest age that may be configured: a year, far below what NATS can count.
const LOG_AGE_LIMIT_MS: u64 = 365 * 86_400_000;

/// Keeps the last messages of every log, in memory, and answers joins and `history`.
#[derive(Clone, Debug, Parser)]
#[command(name = "switchboard-history", version = version(), after_help = HELP)]
pub struct Args {
    /// Flags of every service.
    #[command(flatten)]
    pub common: CommonArgs,
    /// The memory of all logs together. Beyond it the oldest messages of all are dropped first. Bytes.
    #[arg(long, env = "SWITCHBOARD_MEMORY_BYTES", default_value_t = limits::HISTORY_BYTES_MAX,
        value_parser = number(1024 * 1024))]
    pub memory_bytes: usize,
    /// How long a room in which nobody is lives on before it is wiped, in milliseconds.
    #[arg(long, env = "SWITCHBOARD_ROOM_LINGER_MS", value_name = "MS", default_value_t = ms(limits::ROOM_LINGER),
        value_parser = millis(0))]
    pub room_linger_ms: u64,
    /// The age at which the log drops a message, in milliseconds; a log that exists is changed to it. Below two minutes,
    /// a message sent again with the same id is stored once only within this time: NATS knows ids no longer.
    #[arg(long, env = "SWITCHBOARD_LOG_MAX_AGE_MS", value_name = "MS", default_value_t = ms(limits::LOG_AGE_MAX),
        value_parser = clap::value_parser!(u64).range(ms(limits::LOG_AGE_MIN)..=LOG_AGE_LIMIT_MS))]
    pub log_max_age_ms: u64,
    /// How long a word counts for a room's keywords after it was used, in milliseconds.
    #[arg(long, env = "SWITCHBOARD_KEYWORD_WINDOW_MS", value_name = "MS", default_value_t = ms(limits::KEYWORD_WINDOW),
        value_parser = millis(1_000))]
    pub keyword_window_ms: u64,
    /// The configuration of feeds (TOML). Without one there are none.
    #[arg(long, env = "SWITCHBOARD_FEEDS", value_name = "FILE")]
    pub feeds: Option<PathBuf>,
    /// Only read the configuration of feeds, and say what is wrong with it.
    #[arg(long, requires = "feeds")]
    pub check_feeds: bool,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Runs the service until `stop`.
///
/// # Errors
/// If the configuration of feeds is wrong, the admin port or NATS cannot be had at the start, or a part of the service
/// ends. Later losses of NATS are waited out.
pub async fn run(args: Args, stop: CancellationToken) -> anyhow::Result<()> {
    let configured = feeds::read(args.feeds.as_deref())?;
    if args.check_feeds {
        tracing::info!("the configuration of feeds is right");
        return Ok(());
    }
    let readiness = Readiness::new(SERVICE);
    admin::serve(args.common.admin_addr, readiness.clone(), stop.clone()).await?;
    metrics::describe();
    metrics::observe_limit(args.memory_bytes);
    feeds::describe();
    let incarnation = Incarnation::new();
    let Some(nats) = stop.run_until_cancelled(Nats::connect(&args.common, SERVICE, &incarnation)).await else {
        return Ok(());
    };
    let nats = nats?;
    let replicas = args.common.nats_replicas;
    let log_age = Duration::from_millis(args.log_max_age_ms);
    let Some(records) = stop.run_until_cancelled(prepare(&nats, replicas, log_age)).await else { return Ok(()) };
    let records = records?;

    tokio::spawn(stop.clone().run_until_cancelled_owned(carried::keep_any(nats.clone(), SERVICE, incarnation.clone())));
    let (feed, fed) = mpsc::channel(limits::HISTORY_CHUNKS_MAX);
    tokio::spawn(follow(nats.clone(), replicas, What::Log(log_age), feed));
    let (feeds, questions) = Feeds::start(&nats, replicas, &incarnation, configured).await?;
    let window = Duration::from_millis(args.keyword_window_ms);
    let mut server = Server::new(nats.clone(), args.memory_bytes, window, records, fed);
    readiness.set(Err("catching up"));
    let Some(caught_up) = stop.run_until_cancelled(server.catch_up()).await else { return Ok(()) };
    caught_up?;

    let service = nats
        .client
        .service_builder()
        .description("The last messages of every room and chat")
        .queue_group(SERVICE)
        .start(SERVICE, version())
        .await
        .map_err(|error| anyhow::anyhow!(error))
        .context("cannot start the micro-service")?;
    let serve = async |name: &str, group: &str, subject: &str| {
        let endpoint = service.endpoint_builder().name(name).queue_group(group).add(subject).await;
        endpoint.map_err(|error| anyhow::anyhow!(error)).with_context(|| format!("cannot serve {subject}"))
    };
    let reads = serve("read", SERVICE, HISTORY_READ).await?;
    // A group of its own: each replica gets it.
    let read_alls = serve("read-all", incarnation.as_str(), HISTORY_READ_ALL).await?;
    let behinds = serve("behind", SERVICE, HISTORY_BEHIND).await?;
    let wants = serve("feed", SERVICE, HISTORY_FEED).await?;
    // And these: who asks takes the first answer, and one that is paused keeps none from it.
    let lobby = serve("lobby", incarnation.as_str(), HISTORY_LOBBY).await?;
    let gateways = serve("gateways", incarnation.as_str(), HISTORY_GATEWAYS).await?;
    let operator = serve("operator", incarnation.as_str(), HISTORY_OPERATOR).await?;
    nats.round_trip(limits::START_TIMEOUT).await.context("NATS went away at the start")?;
    tracing::info!(history = %incarnation, "caught up");
    let lead = Lead::new(&nats, &incarnation, Duration::from_millis(args.room_linger_ms), window);
    let feeds = AbortOnDropHandle::new(tokio::spawn(feeds.run(wants, stop.clone())));
    let fed = async { feeds.await.context("the task of feeds failed")? };
    // In a task of its own, so that it does not wait for logs, nor they for it.
    let system =
        AbortOnDropHandle::new(tokio::spawn(system::serve(nats, questions, [lobby, gateways, operator], stop.clone())));
    let asked = async { system.await.context("the task that answers about the system failed")? };
    tokio::try_join!(server.serve([reads, read_alls, behinds], lead, &readiness, &stop), fed, asked).map(|_| ())
}

/// Everything that must be there before the stream can be followed, and the records of rooms.
async fn prepare(nats: &Nats, replicas: u8, log_age: Duration) -> anyhow::Result<Vec<(RoomId, RoomRecord)>> {
    streams::ensure_log(nats, replicas, log_age).await?;
    for asset in [Asset::RoomRecords, Asset::Feeds, Asset::Leases] {
        streams::ensure(nats, asset, replicas).await?;
    }
    // What the stream drops from now on is in a record that is read now, or still in the stream when it is followed.
    records::load(nats).await
}
