//! The shell every process runs in: common flags, logs, signals, limits, exit codes.

use std::future::Future;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, ValueEnum};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;

use crate::version::version;

/// Exit code: it went wrong while running.
pub const EXIT_FAILURE: u8 = 1;
/// Exit code: wrong flags or configuration.
pub const EXIT_USAGE: u8 = 2;

/// Flags of every service. Each is also an environment variable, `SWITCHBOARD_<FLAG>`.
#[derive(Args, Clone, Debug)]
pub struct CommonArgs {
    /// NATS servers, separated by commas.
    #[arg(long, env = "SWITCHBOARD_NATS_URL", default_value = "nats://127.0.0.1:4222")]
    pub nats_url: String,
    /// File with NATS credentials (.creds).
    #[arg(long, env = "SWITCHBOARD_NATS_CREDS", value_name = "FILE")]
    pub nats_creds: Option<PathBuf>,
    /// Replicas of the streams and buckets that this service makes.
    #[arg(long, env = "SWITCHBOARD_NATS_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub nats_replicas: u8,
    /// Address of the admin port: /health/live, /health/ready, /metrics. Port 0: any free one.
    #[arg(long, env = "SWITCHBOARD_ADMIN_ADDR", default_value = "127.0.0.1:0")]
    pub admin_addr: SocketAddr,
    /// How logs are written, to standard error.
    #[arg(long, env = "SWITCHBOARD_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Which logs are written: error, warn, info, debug, trace, or tracing directives.
    #[arg(long, env = "SWITCHBOARD_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A configuration that parses but cannot be: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Parses the arguments, starts logs and signals, and runs `run` until it returns or a signal cancels its token.
/// A second signal ends the process at once.
pub fn main<A, F>(common: impl FnOnce(&A) -> CommonArgs, run: impl FnOnce(A, CancellationToken) -> F) -> ExitCode
where
    A: Parser,
    F: Future<Output = anyhow::Result<()>>,
{
    let args = A::parse();
    let name = A::command().get_name().to_owned();
    let common = common(&args);
    if let Err(error) = start_logs(common.log_format, &common.log_level) {
        eprintln!("{name}: {error}");
        return ExitCode::from(EXIT_USAGE);
    }
    raise_open_files();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    let outcome = runtime.block_on(async {
        let stop = CancellationToken::new();
        let signals = tokio::spawn(cancel_on_signal(stop.clone()));
        tracing::info!(version = version(), "starting");
        let outcome = run(args, stop).await;
        signals.abort();
        outcome
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match outcome {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(if error.is::<UsageError>() { EXIT_USAGE } else { EXIT_FAILURE })
        }
    }
}

/// Starts logs to standard error.
///
/// # Errors
/// If the level is none.
pub fn start_logs(format: LogFormat, level: &str) -> Result<(), UsageError> {
    let filter = EnvFilter::try_new(level).map_err(|error| UsageError(format!("--log-level {level:?}: {error}")))?;
    // async-nats says at INFO what this program says itself.
    let quiet: Directive = match "async_nats=warn".parse() {
        Ok(directive) => directive,
        Err(error) => unreachable!("a literal directive: {error}"),
    };
    let filter = if level.contains("async_nats") { filter } else { filter.add_directive(quiet) };
    let colours = std::io::stderr().is_terminal();
    // A reader of the logs that is gone must not end the process: reporting that would panic.
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .log_internal_errors(false);
    match format {
        LogFormat::Text => logs.with_target(false).init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Raises the soft limit of open files to the hard one.
pub fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum }) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Cancels `stop` at SIGTERM, SIGINT or SIGHUP; the second signal exits.
async fn cancel_on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int), Ok(mut hup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
    else {
        tracing::warn!("signals cannot be listened to");
        return;
    };
    loop {
        let name = tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
            _ = hup.recv() => "SIGHUP",
        };
        if stop.is_cancelled() {
            tracing::warn!(signal = name, "stopping at once");
            std::process::exit(i32::from(EXIT_FAILURE));
        }
        tracing::info!(signal = name, "stopping");
        stop.cancel();
    }
}
