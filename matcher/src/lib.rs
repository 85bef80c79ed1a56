//! The matcher: rosters, queue and chats. Students wait, teachers pick them up; what is decided is committed to KV
//! `lobby` before anybody is told.
//!
//! [`core`] decides and knows no I/O; [`store`] writes what it decides; the service between them asks and tells. Any
//! number of matchers run; the one that has the [lease](switchboard_contract::lease) leads, the others stand by.

pub mod alive;
pub mod core;
mod endpoints;
mod observe;
mod outbox;
mod service;
mod standby;
pub mod store;
mod tell;

use std::time::Duration;

use switchboard_contract::admin::{self, Readiness};
use switchboard_contract::carried;
use switchboard_contract::limits;
use switchboard_contract::names::Incarnation;
use switchboard_contract::nats::Nats;
use switchboard_contract::process::{CommonArgs, UsageError, millis};
use switchboard_contract::streams::{self, Asset};
use switchboard_contract::trace::HELP;
use switchboard_contract::version::version;
use tokio_util::sync::CancellationToken;

use crate::core::Config;
use crate::service::{End, Term};
use crate::standby::Standby;

/// The service's name.
const SERVICE: &str = "matcher";

/// The matcher keeps the lobby of Switchboard: rosters, queue and chats.
#[derive(clap::Parser, Clone, Debug)]
#[command(name = "switchboard-matcher", version = version(), after_help = HELP)]
pub struct Args {
    /// What every service has.
    #[command(flatten)]
    pub common: CommonArgs,
    /// How long the place of a lost user is kept, in milliseconds.
    #[arg(long, env = "SWITCHBOARD_GRACE_MS", value_name = "MS", default_value_t = ms(limits::GRACE),
        value_parser = millis(0))]
    pub grace_ms: u64,
    /// The largest capacity that a teacher may have, in chats; at most 300.
    #[arg(long, env = "SWITCHBOARD_MAX_CAPACITY", value_name = "CHATS", default_value_t = limits::CAPACITY_MAX,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::CAPACITY_LIMIT)))]
    pub max_capacity: u32,
    /// A chat that one side has not entered for this long ends, in milliseconds.
    #[arg(long, env = "SWITCHBOARD_ENTER_TIMEOUT_MS", value_name = "MS", default_value_t = ms(limits::ENTER_TIMEOUT),
        value_parser = millis(1))]
    pub enter_timeout_ms: u64,
    /// How long a finished chat is kept after its last member left, in milliseconds.
    #[arg(long, env = "SWITCHBOARD_CHAT_LINGER_MS", value_name = "MS", default_value_t = ms(limits::CHAT_LINGER),
        value_parser = millis(0))]
    pub chat_linger_ms: u64,
    /// How many students may wait at once; the next one is refused.
    #[arg(long, env = "SWITCHBOARD_MAX_WAITING", value_name = "STUDENTS", default_value_t = limits::QUEUE_MAX)]
    pub max_waiting: usize,
}

impl Args {
    fn config(&self) -> Result<Config, UsageError> {
        if !(1..=limits::QUEUE_MAX).contains(&self.max_waiting) {
            let max = limits::QUEUE_MAX;
            return Err(UsageError(format!("--max-waiting {}: it is between 1 and {max}", self.max_waiting)));
        }
        Ok(Config {
            grace: Duration::from_millis(self.grace_ms),
            max_capacity: self.max_capacity,
            enter_timeout: Duration::from_millis(self.enter_timeout_ms),
            chat_linger: Duration::from_millis(self.chat_linger_ms),
            max_waiting: self.max_waiting,
        })
    }
}

/// Runs until `stop`: the admin port, and the lobby.
///
/// # Errors
/// If the flags cannot be, or something that is needed is not there in time.
pub async fn run(args: Args, stop: CancellationToken) -> anyhow::Result<()> {
    args.config()?;
    let readiness = Readiness::new("matcher");
    let admin_stop = CancellationToken::new();
    admin::serve(args.common.admin_addr, readiness.clone(), admin_stop.clone()).await?;
    observe::describe();
    let outcome = lead(args, &readiness, stop).await;
    admin_stop.cancel();
    outcome
}

/// Stands by and leads, in turns, until `stop`. Who loses the lease, or whose batch fails, stands by again; whoever
/// leads next begins a new epoch with what the bucket holds.
///
/// # Errors
/// If something that is needed is not there in time, or the connection has ended.
pub async fn lead(args: Args, readiness: &Readiness, stop: CancellationToken) -> anyhow::Result<()> {
    let config = args.config()?;
    let me = Incarnation::new();
    let Some(nats) = stop.run_until_cancelled(prepare(&args, &me)).await else { return Ok(()) };
    let nats = nats?;
    tokio::spawn(stop.clone().run_until_cancelled_owned(carried::keep_any(nats.clone(), SERVICE, me.clone())));
    let mut standby = Standby::new(&nats, &me);
    loop {
        let Some(lease) = stop.run_until_cancelled(standby.wait(readiness)).await else { return Ok(()) };
        let lease = lease?;
        let begin = Term::begin(&nats, &me, config.clone(), standby.heard(), &lease);
        let ended = match stop.run_until_cancelled(begin).await {
            Some(Ok(Some(term))) => Some(term.serve(readiness, &stop).await?),
            Some(Ok(None)) => None,
            Some(Err(error)) => {
                readiness.set(Err("cannot lead"));
                tracing::error!("cannot lead: {error:#}");
                None
            }
            None => Some(End::Stopped),
        };
        lease.release().await;
        observe::stands_by();
        match ended {
            Some(End::Stopped) => return Ok(()),
            Some(End::SteppedDown(status)) => standby.hear(status),
            // Another one may have more luck.
            None => tokio::time::sleep(2 * limits::LEASE_POLL).await,
        }
    }
}

/// Everything that must be there before the lobby can be led.
async fn prepare(args: &Args, me: &Incarnation) -> anyhow::Result<Nats> {
    let nats = Nats::connect(&args.common, SERVICE, me).await?;
    streams::ensure(&nats, Asset::Lobby, args.common.nats_replicas).await?;
    streams::ensure(&nats, Asset::Gateways, args.common.nats_replicas).await?;
    streams::ensure(&nats, Asset::Leases, args.common.nats_replicas).await?;
    streams::wait_for(&nats, Asset::Rooms).await?;
    Ok(nats)
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn a_capacity_has_to_fit_into_a_batch() {
        for (chats, fits) in
            [(0, false), (1, true), (limits::CAPACITY_LIMIT, true), (limits::CAPACITY_LIMIT + 1, false)]
        {
            let args = Args::try_parse_from(["switchboard-matcher", "--max-capacity", &chats.to_string()]);
            assert_eq!(args.is_ok(), fits, "{chats}");
        }
    }
}
