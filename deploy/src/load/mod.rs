//! `switchboard load`: puts load on a running system, and judges what comes back.
//!
//! Who is who: `lobby` and `idle` are the two runs; `student` and `teacher` play one user each on a `link`, both
//! through their side of a `chat`; what they send and see goes through the `world` to the `checker`, which judges it;
//! `siege` is the lobby's run while processes are killed, with users that come back and a judge of their own; `rooms`
//! is a run of rooms, with members and a judge of its own, and the killer of `siege`. `fanout` and `churn` load rooms,
//! with members (`guest`) that do not look at what they are sent more than they must. `feeds` is a run of one feed,
//! with a judge of its own, that strikes the feed's owner. `soak` plays lobby, rooms and feeds at once, and looks for
//! what grows.
//! `measure` reads the cost of the system's processes, `report` says it. Everything runs on one thread: that is the
//! cheapest way to play a thousand users beside the system they load, and it puts all events in one order.
#![allow(clippy::print_stdout, reason = "a tool whose output is for people and pipes")]

mod chat;
pub mod checker;
mod churn;
mod end;
mod fanout;
mod feeds;
mod guest;
mod idle;
mod link;
mod lobby;
mod measure;
mod progress;
mod report;
mod rooms;
mod siege;
mod soak;
mod student;
mod target;
mod teacher;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;
use switchboard_contract::limits;
use switchboard_contract::process::raise_open_files;
use tokio::signal::unix::{SignalKind, signal};

use crate::client::Vsn;
use crate::runfile;

/// Exit code: a violation was found.
pub const EXIT_VIOLATION: u8 = 3;

/// Arguments of `switchboard load`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Students wait, teachers claim them, and they talk; everything is checked.
    Lobby(LobbyArgs),
    /// Members of many rooms talk, leave, are cut off and come back; everything that each receives is checked.
    Rooms(rooms::RoomsArgs),
    /// One feed of many members, whose owner is killed, paused or drained; its polls and what members see are checked.
    ///
    /// Start the system with the same database, and with feeds that poll it and that nothing else uses:
    /// `LOAD_DATABASE=postgres://… FEEDS=deploy/load-feeds.toml HISTORIES=3 GATEWAYS=3 DEATHS=1000 make run`
    Feeds(feeds::FeedsArgs),
    /// Students wait in the queue and nothing happens: what an idle socket costs. The figure is true on freshly
    /// started gateways; memory that an earlier run left free is used again.
    Idle(IdleArgs),
    /// One room of many members: what it costs to deliver a message to each of them.
    Fanout(FanoutArgs),
    /// Rooms are born, used once and left, in rounds; after each, everything must be as it was. Start the system with
    /// SWITCHBOARD_LOG_MAX_AGE_MS=60000 and SWITCHBOARD_ROOM_LINGER_MS=5000, so that it can be within --settle.
    Churn(ChurnArgs),
    /// Lobby, rooms and feeds at once for an hour, each with its judge; memory, files, sockets, and what NATS and the
    /// services hold are sampled, drawn, and must not grow.
    ///
    /// Start the system so that its log is soon as large as it will be:
    /// `SWITCHBOARD_LOG_MAX_AGE_MS=60000 SWITCHBOARD_ROOM_LINGER_MS=5000 make run`
    Soak(soak::SoakArgs),
}

/// Where the system is, and how the outcome is said.
#[derive(Debug, clap::Args)]
struct TargetArgs {
    /// A gateway, http://host:port or ws://host:port; several times for several. Default: those that run here.
    #[arg(long = "gateway", value_name = "URL")]
    gateways: Vec<String>,
    /// The folder of run.json, which says what runs here.
    #[arg(long, default_value = runfile::FOLDER)]
    folder: PathBuf,
    /// One JSON object on standard output instead of a table.
    #[arg(long)]
    json: bool,
}

/// Which serializers members speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Speaks {
    /// Every other one V1, the others V2.
    Mix,
    /// V1.
    #[value(name = "1")]
    #[serde(rename = "1")]
    V1,
    /// V2.
    #[value(name = "2")]
    #[serde(rename = "2")]
    V2,
}

impl Speaks {
    /// Of a member.
    fn vsn(self, member: u32) -> Vsn {
        match self {
            Speaks::V1 => Vsn::V1,
            Speaks::V2 => Vsn::V2,
            Speaks::Mix if member % 2 == 1 => Vsn::V1,
            Speaks::Mix => Vsn::V2,
        }
    }
}

/// What is killed, and when.
#[derive(Clone, Debug, clap::Args)]
struct KillArgs {
    /// Kill processes of run.json while the run goes on; clients reconnect and resume. Of several kinds, separated by
    /// commas, each has its turn. The runner must bear it: `switchboard up --deaths 1000`.
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    kill: Vec<siege::Kill>,
    /// 5s: from one kill to the next, which also waits until the victim is up again. 0s..2s: at random, from when the
    /// system serves again, which is for a matcher when another one leads.
    #[arg(long, default_value = "5s", value_parser = every, requires = "kill")]
    every: siege::Every,
    /// Pause them for so long instead (SIGSTOP, then SIGCONT). Not for gateways.
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "kill")]
    pause: Option<Duration>,
    /// Stop them with SIGTERM instead, as a rolling restart does; the runner starts them again. Clients may use any
    /// gateway then, as behind a load balancer.
    #[arg(long, requires = "kill", conflicts_with = "pause")]
    drain: bool,
    /// So many kills; without it, kills go on until the run's work is done.
    #[arg(long, requires = "kill", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    kills: Option<u32>,
}

/// Arguments of `switchboard load lobby`.
#[derive(Debug, clap::Args)]
struct LobbyArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// The serializer: 1 or 2. With 1, ids are integers; with 2, strings.
    #[arg(long, default_value = "2")]
    vsn: Vsn,
    /// Students. With 0, teachers claim in vain for --seconds, and the report is what that costs.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    students: u32,
    /// Teachers.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    teachers: u32,
    /// Messages each way in every chat.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    messages: u32,
    /// Chats of a teacher at once.
    #[arg(long, default_value_t = limits::CAPACITY_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    capacity: u32,
    /// How often a teacher with a free place claims a student.
    #[arg(long, default_value = "10ms", value_parser = duration)]
    claim_every: Duration,
    /// How long teachers claim when there are no students.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Everybody must be served within this many seconds.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    #[command(flatten)]
    kill: KillArgs,
    /// Repeats the random times of an earlier run.
    #[arg(long, requires = "kill")]
    seed: Option<u64>,
    /// Each side of a chat waits so many milliseconds before it answers.
    #[arg(long, default_value_t = 0, value_name = "MS", requires = "kill")]
    pace: u64,
}

/// Arguments of `switchboard load idle`.
#[derive(Debug, clap::Args)]
struct IdleArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// The serializer: 1 or 2. With 1, ids are integers; with 2, strings.
    #[arg(long, default_value = "2")]
    vsn: Vsn,
    /// Sockets, each with one student in the queue.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    sockets: u32,
}

/// Arguments of `switchboard load fanout`.
#[derive(Debug, clap::Args)]
struct FanoutArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// The serializer: 1 or 2.
    #[arg(long, default_value = "2")]
    vsn: Vsn,
    /// Members of the room, senders among them.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    members: u32,
    /// Gateways that they are on; all, if it is not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    gateways_used: Option<u16>,
    /// Messages, of all senders together.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    messages: u32,
    /// How often a second something is said; by different senders in turn, each at most 8 times a second.
    #[arg(long, default_value_t = 20.0, value_parser = rate)]
    rate: f64,
    /// So many senders speak in the same moment, each one message.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    burst: u32,
    /// So many members are senders, rounded up to a multiple of --burst.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    senders: Option<u32>,
    /// The length of a message's text. Bytes.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(0..=30_000))]
    bytes: u16,
}

/// Arguments of `switchboard load churn`.
#[derive(Debug, clap::Args)]
struct ChurnArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// The serializer: 1 or 2.
    #[arg(long, default_value = "2")]
    vsn: Vsn,
    /// Rooms a minute.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    per_minute: u32,
    /// Rounds. With three or more, no service's memory may be a tenth larger after the last than after the one before.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// The length of a round, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// After a round, all must be as before the first one within so many seconds.
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    settle: u64,
}

/// Runs the command.
///
/// # Errors
/// If there is nothing to put load on.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    match args.command {
        Command::Lobby(args) => local.block_on(&runtime, lobby::run(&args)),
        Command::Rooms(args) => local.block_on(&runtime, rooms::run(&args)),
        Command::Feeds(args) => local.block_on(&runtime, feeds::run(&args)),
        Command::Idle(args) => local.block_on(&runtime, idle::run(&args)),
        Command::Fanout(args) => local.block_on(&runtime, fanout::run(&args)),
        Command::Churn(args) => local.block_on(&runtime, churn::run(&args)),
        Command::Soak(args) => local.block_on(&runtime, soak::run(&args)),
    }
}

/// A signal that asks the run to end: before it ends, the report is said, and what is paused goes on.
async fn interrupted() -> std::io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut hup = signal(SignalKind::hangup())?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt,
        _ = term.recv() => Ok(()),
        _ = hup.recv() => Ok(()),
    }
}

/// `10ms`, `5s`, or milliseconds as a plain number; not nothing.
fn duration(text: &str) -> Result<Duration, String> {
    time(text).filter(|time| !time.is_zero()).ok_or_else(|| "a duration is 10ms, 5s, or milliseconds".to_owned())
}

/// How often a second: more than nothing, and less than what a timer can do.
fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (0.01..=1_000.0).contains(rate));
    rate.ok_or_else(|| "a rate is between 0.01 and 1000 a second".to_owned())
}

/// A duration, or two of them: `0s..2s`.
fn every(text: &str) -> Result<siege::Every, String> {
    let Some((least, most)) = text.split_once("..") else { return duration(text).map(siege::Every::Fixed) };
    match (time(least), time(most)) {
        (Some(least), Some(most)) if least <= most => Ok(siege::Every::Random(least, most)),
        _ => Err("a range is 0s..2s or 100ms..500ms".to_owned()),
    }
}

fn time(text: &str) -> Option<Duration> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => text.strip_suffix('s').map_or((text, 1), |number| (number, 1000)),
    };
    number.parse::<u64>().ok().map(|number| Duration::from_millis(number.saturating_mul(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        assert_eq!(duration("10ms"), Ok(Duration::from_millis(10)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("250"), Ok(Duration::from_millis(250)));
        for bad in ["", "0ms", "-1s", "1m", "s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        let range = |least, most| siege::Every::Random(Duration::from_millis(least), Duration::from_millis(most));
        assert_eq!(every("5s"), Ok(siege::Every::Fixed(Duration::from_secs(5))));
        assert_eq!((every("0s..2s"), every("100ms..100")), (Ok(range(0, 2000)), Ok(range(100, 100))));
        for bad in ["0s", "..", "2s..1s", "1s..", "0s..2s..3s"] {
            assert!(every(bad).is_err(), "{bad}");
        }
    }
}
