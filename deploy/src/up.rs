//! `switchboard up`: the whole system on this machine, for as long as this process runs.
//!
//! `plan` decides what is started with which flags and ports, `nats` does so for NATS, `feeds` has the file of feeds,
//! `child` keeps one process running, `output` writes lines, `leftovers` cleans up after a runner that was killed. Here:
//! the order of things.

mod child;
mod feeds;
mod leftovers;
mod nats;
mod output;
mod plan;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::builder::FalseyValueParser;
use switchboard_contract::process::{EXIT_FAILURE, LogFormat, UsageError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::runfile::{Auth, FOLDER, NatsFiles, ProcessId, RunFile};
use crate::{token, tools};
use child::{Child, Deaths};
use output::Output;
use plan::{Plan, Stage};

/// A stage that is not ready after this time will not be.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Whether gateways limit what one user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Limits {
    /// As they do by default.
    On,
    /// Not at all.
    Off,
}

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How many gateways.
    #[arg(long, env = "GATEWAYS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=100))]
    gateways: u16,
    /// Port of the first gateway; the others follow it.
    #[arg(long, env = "GATEWAY_PORT", default_value_t = 4000, value_parser = clap::value_parser!(u16).range(1..))]
    gateway_port: u16,
    /// How many history services; one of them leads, all of them answer, and feeds are shared among them.
    #[arg(long, env = "HISTORIES", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=10))]
    histories: u16,
    /// How many nats-servers: 1, or a cluster of 3 with everything on each. By default 1, or 3 with --secure.
    #[arg(long, env = "NATS_SERVERS", value_parser = nats_servers)]
    nats_servers: Option<u8>,
    /// NATS as in production: three servers, TLS, and a user for each service that may do what it has to (SECURE=1).
    /// Keys and certificates are made in .switchboard/nats/users, see `switchboard credentials`.
    #[arg(long, env = "SECURE", value_parser = FalseyValueParser::new())]
    secure: bool,
    /// Port of NATS. In a cluster, the other servers' ports follow it, then those between the servers.
    #[arg(long, env = "NATS_PORT", default_value_t = 4222, value_parser = clap::value_parser!(u16).range(1..))]
    nats_port: u16,
    /// First of the admin ports: NATS's monitoring, then the services in start order.
    #[arg(long, env = "ADMIN_PORT", default_value_t = 4500, value_parser = clap::value_parser!(u16).range(1..))]
    admin_port: u16,
    /// Secret of the gateways' HTTP API.
    #[arg(long, env = "API_SECRET", default_value = "local-secret", hide_env_values = true)]
    api_secret: String,
    /// How the gateways treat tokens: with "jwt" they verify them, with the key that `switchboard token` signs with.
    #[arg(long, env = "AUTH", default_value = "open")]
    auth: Auth,
    /// Whether the gateways limit what one user may do. Load that is all one user's wants "off".
    #[arg(long, env = "LIMITS", default_value = "on")]
    limits: Limits,
    /// The feeds (TOML). Without it: those of the lobby's counts and of the gateways.
    #[arg(long, env = "FEEDS", value_name = "FILE")]
    feeds: Option<PathBuf>,
    /// Begin anew: remove the data of earlier runs first (FRESH=1).
    #[arg(long, env = "FRESH", value_parser = FalseyValueParser::new())]
    fresh: bool,
    /// The folder of everything that this tool keeps: tools, data, run.json.
    #[arg(long, env = "SWITCHBOARD_FOLDER", default_value = FOLDER)]
    folder: PathBuf,
    /// So many deaths of processes within a minute end the run. To be raised where they are killed on purpose
    /// (`switchboard load lobby --kill`).
    #[arg(long, env = "DEATHS", default_value_t = child::DEATHS_MAX,
          value_parser = clap::value_parser!(u16).range(1..=10_000))]
    deaths: u16,
    /// How the services write their logs.
    #[arg(long, env = "SWITCHBOARD_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// Which logs the services write: error, warn, info, debug, trace, or tracing directives.
    #[arg(long, env = "SWITCHBOARD_LOG_LEVEL", default_value = "info")]
    log_level: String,
}

impl Args {
    fn nats_count(&self) -> u8 {
        self.nats_servers.unwrap_or(if self.secure { 3 } else { 1 })
    }
}

/// What flags cannot say of each other by themselves.
fn check(args: &Args) -> anyhow::Result<()> {
    if args.secure && args.nats_count() != 3 {
        bail!(UsageError(
            "--secure (SECURE) is a cluster of 3 servers: leave --nats-servers (NATS_SERVERS) out".into()
        ));
    }
    Ok(())
}

fn nats_servers(text: &str) -> Result<u8, String> {
    text.parse().ok().filter(|count| matches!(count, 1 | 3)).ok_or_else(|| "1 or 3".to_owned())
}

/// Runs the system until a signal.
///
/// # Errors
/// If it cannot be started, or dies too often.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let signals = Signals::listen()?;
        let (output, written) = output::start();
        let outcome = up(&args, &signals, &output).await;
        drop(output);
        written.wait().await;
        outcome
    })
}

/// What signals ask for.
#[derive(Clone, Debug)]
struct Signals {
    /// The first one: stop in order.
    stop: CancellationToken,
    /// The second one: kill all.
    kill: CancellationToken,
}

impl Signals {
    fn listen() -> anyhow::Result<Signals> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let mut hup = signal(SignalKind::hangup())?;
        let signals = Signals { stop: CancellationToken::new(), kill: CancellationToken::new() };
        let asked = signals.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                    _ = hup.recv() => {}
                }
                if asked.stop.is_cancelled() {
                    asked.kill.cancel();
                }
                asked.stop.cancel();
            }
        });
        Ok(signals)
    }
}

async fn up(args: &Args, signals: &Signals, output: &Output) -> anyhow::Result<ExitCode> {
    check(args)?;
    std::fs::create_dir_all(&args.folder).with_context(|| format!("cannot make {}", args.folder.display()))?;
    let folder = std::path::absolute(&args.folder)?;
    leftovers::clean_up(&folder, output).await?;
    let binaries = plan::binaries()?;
    feeds::write(args.feeds.as_deref(), &folder)?;
    feeds::check(&binaries.history, &feeds::path(args.feeds.as_deref(), &folder)).await?;
    let plan = Plan::new(args, &folder, &binaries)?;
    plan.check_ports()?;
    let Some(nats_server) = signals.stop.run_until_cancelled(tools::nats_server(&folder)).await else {
        return Ok(ExitCode::SUCCESS);
    };
    let nats_server = nats_server?;
    prepare_data(args, &plan, &folder)?;
    token::Key::of(&folder)?;

    let run_file = RunFile {
        runner: ProcessId::of(std::process::id()),
        processes: Vec::new(),
        nats_url: plan.nats.url.clone(),
        nats_files: plan
            .nats
            .credentials
            .as_ref()
            .map(|folder| NatsFiles { creds: folder.seed("operator"), ca: folder.ca() }),
        auth: args.auth,
    };
    run_file.write(&folder)?;
    let system = System {
        shared: Arc::new(Shared { folder: folder.clone(), run_file: Mutex::new(run_file), output: output.clone() }),
        signals: signals.clone(),
        stages: Vec::new(),
    };
    let outcome = system.run(&plan, &nats_server, args.deaths).await;
    RunFile::remove(&folder)?;
    outcome
}

fn prepare_data(args: &Args, plan: &Plan, folder: &Path) -> anyhow::Result<()> {
    let data = folder.join("data");
    if args.fresh && data.exists() {
        std::fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
    }
    plan.nats.prepare()
}

/// What the keepers of all processes share.
#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    run_file: Mutex<RunFile>,
    output: Output,
}

/// What has been started, in stages: each is ready before the next is started, and stopped after it.
struct System {
    shared: Arc<Shared>,
    signals: Signals,
    stages: Vec<Vec<Child>>,
}

impl System {
    /// Starts everything, keeps it running until a signal or too many deaths, and stops it.
    async fn run(mut self, plan: &Plan, nats_server: &Path, deaths_max: u16) -> anyhow::Result<ExitCode> {
        let (deaths, mut died) = mpsc::channel(16);
        let stop = self.signals.stop.clone();
        let outcome = tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            error = too_many(&mut died, deaths_max) => Err(error),
            outcome = async {
                self.start(plan, nats_server, deaths).await?;
                let addresses: Vec<String> = plan.gateways().map(|addr| format!("http://{addr}")).collect();
                let shown = self.shared.output.clone();
                shown.say(&format!("ready: {} (NATS: {}); Ctrl-C stops it", addresses.join(" "), plan.nats.url)).await;
                std::future::pending().await
            } => outcome,
        };
        if let Err(error) = &outcome {
            self.shared.output.say(&format!("stopping: {error:#}")).await;
        } else {
            self.shared.output.say("stopping").await;
        }
        for stage in self.stages.drain(..).rev() {
            futures_util::future::join_all(stage.into_iter().map(Child::stop)).await;
        }
        outcome?;
        self.shared.output.say("stopped").await;
        Ok(if self.signals.kill.is_cancelled() { ExitCode::from(EXIT_FAILURE) } else { ExitCode::SUCCESS })
    }

    async fn start(&mut self, plan: &Plan, nats_server: &Path, deaths: mpsc::Sender<Instant>) -> anyhow::Result<()> {
        for stage in [Stage::Nats, Stage::Cores, Stage::Gateways] {
            let specs = plan.specs.iter().filter(|spec| spec.stage == stage);
            let children: Vec<Child> = specs
                .map(|spec| {
                    let program = spec.program.clone().unwrap_or_else(|| nats_server.to_path_buf());
                    Child::start(spec.clone(), program, self.shared.clone(), &self.signals.kill, deaths.clone())
                })
                .collect();
            self.stages.push(children);
            let deadline = Instant::now() + READY_TIMEOUT;
            for child in self.stages.iter_mut().flatten() {
                if !child.ready_by(deadline).await {
                    bail!("{} is not ready after {} s", child.name(), READY_TIMEOUT.as_secs());
                }
            }
        }
        Ok(())
    }
}

async fn too_many(died: &mut mpsc::Receiver<Instant>, max: u16) -> anyhow::Error {
    let mut deaths = Deaths::new(max);
    while let Some(at) = died.recv().await {
        if deaths.too_many(at) {
            return anyhow::anyhow!("{max} deaths within a minute");
        }
    }
    // Nobody is left who could die.
    std::future::pending().await
}
