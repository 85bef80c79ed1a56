//! The shell every process runs in: common flags, logs, signals, limits, exit codes.

use std::future::Future;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::RangedU64ValueParser;
use clap::{ArgMatches, Args, Command, Parser, ValueEnum};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;

use crate::trace::Traces;
use crate::version::version;

/// Exit code: it went wrong while running.
pub const EXIT_FAILURE: u8 = 1;
/// Exit code: wrong flags or configuration.
pub const EXIT_USAGE: u8 = 2;

/// No time in a flag is longer: a day. Milliseconds.
const DAY_MS: u64 = 86_400_000;

/// Reads a time in milliseconds that is this long at least, and at most a day.
pub fn millis(least: u64) -> RangedU64ValueParser<u64> {
    RangedU64ValueParser::new().range(least..=DAY_MS)
}

/// Reads a time in seconds that is this long at least, and at most a day.
pub fn seconds(least: u64) -> RangedU64ValueParser<u64> {
    RangedU64ValueParser::new().range(least..=DAY_MS / 1_000)
}

/// Reads a number that is this at least.
pub fn number(least: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(least..)
}

/// Flags of every service. Each is also an environment variable, `SWITCHBOARD_<FLAG>`.
#[derive(Args, Clone, Debug)]
pub struct CommonArgs {
    /// NATS servers, separated by commas.
    #[arg(long, env = "SWITCHBOARD_NATS_URL", default_value = "nats://127.0.0.1:4222")]
    pub nats_url: String,
    /// File with what NATS knows this service by: credentials (.creds), or the seed of an nkey alone. Read again when
    /// it has changed: the service connects anew, and no client notices.
    #[arg(long, env = "SWITCHBOARD_NATS_CREDS", value_name = "FILE")]
    pub nats_creds: Option<PathBuf>,
    /// File with the CA of the NATS servers' certificates (PEM). With it TLS is required. Read again when it has
    /// changed.
    #[arg(long, env = "SWITCHBOARD_NATS_CA", value_name = "FILE")]
    pub nats_ca: Option<PathBuf>,
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
    let command = A::command();
    let name = command.get_name().to_owned();
    let matches = command.clone().get_matches();
    let args = A::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command.clone()).exit());
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
    let traces = {
        let _within = runtime.enter();
        Traces::start(&name)
    };
    let traces = match traces {
        Ok(traces) => traces,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let outcome = runtime.block_on(async {
        let stop = CancellationToken::new();
        let signals = tokio::spawn(cancel_on_signal(stop.clone()));
        tracing::info!(version = version(), flags = effective(&command, &matches), "starting");
        let outcome = run(args, stop).await;
        signals.abort();
        outcome
    });
    traces.finish();
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

/// All flags as they are in effect, from the command line, the environment or by default, so that they could be given
/// once more; what is secret is left out.
fn effective(command: &Command, matches: &ArgMatches) -> String {
    let mut flags = Vec::new();
    for arg in command.get_arguments() {
        let (Some(long), Ok(Some(values))) = (arg.get_long(), matches.try_get_raw(arg.get_id().as_str())) else {
            continue;
        };
        let values = values.map(|value| match arg.is_hide_env_values_set() {
            true => "(hidden)".to_owned(),
            false => without_password(&value.to_string_lossy()),
        });
        flags.push(format!("--{long}={}", values.collect::<Vec<_>>().join(",")));
    }
    flags.join(" ")
}

/// URLs, separated by commas, without the user and the password that each may have in it: for logs and errors.
pub fn without_password(value: &str) -> String {
    let hide = |url: &str| match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?)))
    {
        Some((scheme, (_, host))) => format!("{scheme}://(hidden)@{host}"),
        None => url.to_owned(),
    };
    value.split(',').map(hide).collect::<Vec<_>>().join(",")
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        common: CommonArgs,
        /// A secret.
        #[arg(long, hide_env_values = true)]
        secret: Option<String>,
        /// A switch.
        #[arg(long)]
        switch: bool,
        /// Many.
        #[arg(long, value_delimiter = ',')]
        many: Vec<u8>,
    }

    #[test]
    fn the_effective_configuration_has_defaults_and_no_secrets() {
        let url = "nats://me:word@a:1,tls://b:2";
        let given = ["test", "--secret", "word", "--many", "1,2", "--many", "3", "--nats-url", url];
        let shown = effective(&Flags::command(), &Flags::command().get_matches_from(given));
        for flag in ["--secret=(hidden)", "--many=1,2,3", "--switch=false", "--log-level=info", "--nats-replicas=1"] {
            assert!(shown.split(' ').any(|shown| shown == flag), "{flag}: {shown}");
        }
        assert!(shown.contains("--nats-url=nats://(hidden)@a:1,tls://b:2"), "{shown}");
        assert!(!shown.contains("word") && !shown.contains("--nats-creds"), "{shown}");
    }
}
