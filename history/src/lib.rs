//! History: follows the room stream, keeps the last messages of each log in memory, and answers reads of them.
//!
//! [`log`] decides what is kept and what a read answers, [`waiters`] who waits for what; both are pure. One task owns
//! them (`serve`); a second one (`follow`) feeds it the stream.

pub mod log;
pub mod waiters;

mod follow;
mod metrics;
mod serve;

use anyhow::Context as _;
use async_nats::service::ServiceExt as _;
use clap::Parser;
use switchboard_contract::admin::{self, Readiness};
use switchboard_contract::limits;
use switchboard_contract::names::{HISTORY_BEHIND, HISTORY_READ, Incarnation};
use switchboard_contract::nats::Nats;
use switchboard_contract::process::CommonArgs;
use switchboard_contract::streams::{self, Asset};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::follow::follow;
use crate::serve::Server;

/// The service's name, and its queue group: each request goes to one replica.
const SERVICE: &str = "history";

/// Keeps the last messages of every log, in memory, and answers joins and `history`.
#[derive(Clone, Debug, Parser)]
#[command(name = "switchboard-history", version)]
pub struct Args {
    /// Flags of every service.
    #[command(flatten)]
    pub common: CommonArgs,
    /// The memory of all logs together. Beyond it the oldest messages of all are dropped first. Bytes.
    #[arg(long, env = "SWITCHBOARD_MEMORY_BYTES", default_value_t = limits::HISTORY_BYTES_MAX)]
    pub memory_bytes: usize,
}

/// Runs the service until `stop`.
///
/// # Errors
/// If the admin port or NATS cannot be had at the start, or a part of the service ends. Later losses of NATS are
/// waited out.
pub async fn run(args: Args, stop: CancellationToken) -> anyhow::Result<()> {
    let readiness = Readiness::new();
    admin::serve(args.common.admin_addr, readiness.clone(), stop.clone()).await?;
    metrics::describe();
    let incarnation = Incarnation::new();
    let Some(nats) = stop.run_until_cancelled(Nats::connect(&args.common, SERVICE, &incarnation)).await else {
        return Ok(());
    };
    let nats = nats?;
    let replicas = args.common.nats_replicas;
    let Some(made) = stop.run_until_cancelled(streams::ensure(&nats, Asset::Rooms, replicas)).await else {
        return Ok(());
    };
    made?;

    let (feed, fed) = mpsc::channel(limits::HISTORY_CHUNKS_MAX);
    tokio::spawn(follow(nats.clone(), replicas, feed));
    let mut server = Server::new(nats.clone(), args.memory_bytes, fed);
    readiness.set(Err("catching up"));
    let Some(caught_up) = stop.run_until_cancelled(server.catch_up()).await else { return Ok(()) };
    caught_up?;

    let service = nats
        .client
        .service_builder()
        .description("The last messages of every room and chat")
        .queue_group(SERVICE)
        .start(SERVICE, env!("CARGO_PKG_VERSION"))
        .await
        .map_err(|error| anyhow::anyhow!(error))
        .context("cannot start the micro-service")?;
    let serve = async |name: &str, subject: &str| {
        let endpoint = service.endpoint_builder().name(name).add(subject).await;
        endpoint.map_err(|error| anyhow::anyhow!(error)).with_context(|| format!("cannot serve {subject}"))
    };
    let reads = serve("read", HISTORY_READ).await?;
    let behinds = serve("behind", HISTORY_BEHIND).await?;
    nats.round_trip(limits::START_TIMEOUT).await.context("NATS went away at the start")?;
    tracing::info!(%incarnation, "caught up");
    server.serve(reads, behinds, &readiness, &stop).await
}
