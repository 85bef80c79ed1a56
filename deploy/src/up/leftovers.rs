//! What a runner left behind that was killed before it could stop its processes.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;
use rustix::process::Signal;

use super::output::Output;
use crate::runfile::{Process, RunFile};

/// What stops by itself does so in this time.
const TERM_TIMEOUT: Duration = Duration::from_secs(5);
/// After SIGKILL: the kernel needs a moment.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// Stops the processes of a runner that is gone.
///
/// # Errors
/// If that runner still runs, or a process cannot be stopped.
pub(super) async fn clean_up(folder: &Path, output: &Output) -> anyhow::Result<()> {
    let run_file = match RunFile::read(folder) {
        Ok(None) => return Ok(()),
        Ok(Some(run_file)) => run_file,
        Err(error) => {
            output.say(&format!("{error:#}: ignored")).await;
            return RunFile::remove(folder);
        }
    };
    if let Some(runner) = run_file.runner
        && runner.is_alive()
    {
        bail!("already running (pid {}, {})", runner.pid, folder.join("run.json").display());
    }
    let mut left: Vec<Process> = run_file.processes;
    left.retain(|process| process.id.is_alive());
    if !left.is_empty() {
        let names: Vec<String> =
            left.iter().map(|process| format!("{} (pid {})", process.name, process.id.pid)).collect();
        output.say(&format!("an earlier run left {} behind: stopping it", names.join(", "))).await;
    }
    // NATS last: the others say goodbye through it.
    let (nats, services): (Vec<Process>, Vec<Process>) =
        left.iter().cloned().partition(|process| process.kind() == "nats");
    stop(&services, Signal::TERM, TERM_TIMEOUT).await;
    stop(&nats, Signal::TERM, TERM_TIMEOUT).await;
    stop(&left, Signal::KILL, KILL_TIMEOUT).await;
    left.retain(|process| process.id.is_alive());
    if let Some(process) = left.first() {
        bail!("{} (pid {}) of an earlier run does not stop", process.name, process.id.pid);
    }
    RunFile::remove(folder)
}

/// Sends a signal to those that still run, and waits until they are gone, or for this long.
async fn stop(processes: &[Process], signal: Signal, timeout: Duration) {
    processes.iter().for_each(|process| process.id.signal(signal));
    let deadline = Instant::now() + timeout;
    while Instant::now() < deadline && processes.iter().any(|process| process.id.is_alive()) {
        tokio::time::sleep(POLL).await;
    }
}
