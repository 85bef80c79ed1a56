//! One process of the system: started, told ready, started again when it dies, stopped.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::Signal;
use switchboard_contract::admin;
use tokio::process::Command;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::plan::Spec;
use crate::runfile::{Process, ProcessId};

/// As many deaths of all processes within [`DEATHS_WINDOW`] end the run, unless it is told otherwise.
pub(super) const DEATHS_MAX: u16 = 5;
const DEATHS_WINDOW: Duration = Duration::from_secs(60);
/// From a death to the next start.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// From SIGTERM to SIGKILL.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a process that is not ready is asked.
const HEALTH_POLL: Duration = Duration::from_millis(50);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// The recent deaths, and how many are too many.
#[derive(Debug)]
pub(super) struct Deaths {
    recent: VecDeque<Instant>,
    max: usize,
}

impl Deaths {
    pub(super) fn new(max: u16) -> Deaths {
        Deaths { recent: VecDeque::new(), max: usize::from(max) }
    }

    /// Counts one; `true` if these are too many.
    pub(super) fn too_many(&mut self, at: Instant) -> bool {
        self.recent.push_back(at);
        while self.recent.front().is_some_and(|first| at.duration_since(*first) > DEATHS_WINDOW) {
            self.recent.pop_front();
        }
        self.recent.len() >= self.max
    }
}

/// A process that is kept running by a task of its own.
#[derive(Debug)]
pub(super) struct Child {
    name: String,
    ready: watch::Receiver<bool>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Child {
    /// Starts it. Each death is told to `deaths`; `kill` ends its patience with a process that should stop.
    pub(super) fn start(
        spec: Spec,
        program: PathBuf,
        shared: Arc<Shared>,
        kill: &CancellationToken,
        deaths: mpsc::Sender<Instant>,
    ) -> Child {
        let (told, ready) = watch::channel(false);
        let stop = CancellationToken::new();
        let name = spec.name.clone();
        let keeper = Keeper { spec, program, shared, ready: told, stop: stop.clone(), kill: kill.clone() };
        Child { name, ready, stop, task: tokio::spawn(keeper.keep(deaths)) }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is ready at last.
    pub(super) async fn ready_by(&mut self, deadline: Instant) -> bool {
        matches!(tokio::time::timeout_at(deadline.into(), self.ready.wait_for(|ready| *ready)).await, Ok(Ok(_)))
    }

    /// Stops it and waits for its end.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, name = self.name, "its keeper failed");
        }
    }
}

struct Keeper {
    spec: Spec,
    program: PathBuf,
    shared: Arc<Shared>,
    ready: watch::Sender<bool>,
    stop: CancellationToken,
    kill: CancellationToken,
}

impl Keeper {
    async fn keep(self, deaths: mpsc::Sender<Instant>) {
        while !self.stop.is_cancelled() {
            let how = match self.live().await {
                Ok(None) => return,
                Ok(Some(status)) => format!("died ({status})"),
                Err(error) => format!("did not start ({error:#})"),
            };
            self.ready.send_replace(false);
            self.say(&format!("{how}; starting again in {} s", RESTART_DELAY.as_secs())).await;
            if deaths.send(Instant::now()).await.is_err() {
                return;
            }
            let _ = tokio::time::timeout(RESTART_DELAY, self.stop.cancelled()).await;
        }
    }

    /// One life of the process; `None` if it was stopped.
    async fn live(&self) -> anyhow::Result<Option<ExitStatus>> {
        let started = Instant::now();
        let mut child = Command::new(&self.program)
            .args(&self.spec.args)
            .envs(self.spec.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C reaches the runner alone: the order of stopping is its own.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let id = child.id().and_then(ProcessId::of);
        if let Some(id) = id {
            self.note(id)?;
        }
        let relays =
            [child.stdout.take().map(|pipe| self.relay(pipe)), child.stderr.take().map(|pipe| self.relay(pipe))];
        let outcome = {
            let ready = self.tell_when_ready(started, id);
            tokio::pin!(ready);
            let mut waiting = true;
            loop {
                tokio::select! {
                    status = child.wait() => break Some(status?),
                    () = self.stop.cancelled() => break None,
                    () = &mut ready, if waiting => waiting = false,
                }
            }
        };
        if outcome.is_none() {
            self.end(&mut child, id).await?;
        }
        for relay in relays.into_iter().flatten() {
            // Whoever inherited the pipe may hold it open.
            let _ = tokio::time::timeout(HEALTH_TIMEOUT, relay).await;
        }
        Ok(outcome)
    }

    async fn end(&self, child: &mut tokio::process::Child, id: Option<ProcessId>) -> anyhow::Result<()> {
        if let Some(id) = id {
            id.signal(Signal::TERM);
        }
        tokio::select! {
            status = child.wait() => {
                let status = status?;
                if !status.success() {
                    self.say(&format!("stopped ({status})")).await;
                }
            }
            () = self.kill.cancelled() => child.kill().await?,
            () = tokio::time::sleep(STOP_TIMEOUT) => {
                self.say(&format!("does not stop within {} s: killed", STOP_TIMEOUT.as_secs())).await;
                child.kill().await?;
            }
        }
        Ok(())
    }

    async fn tell_when_ready(&self, started: Instant, id: Option<ProcessId>) {
        while !matches!(admin::ask(self.spec.admin, self.spec.health, HEALTH_TIMEOUT).await, Ok((200, _))) {
            tokio::time::sleep(HEALTH_POLL).await;
        }
        let addr = self.spec.addr.map(|addr| format!("{addr}, ")).unwrap_or_default();
        let pid = id.map_or(0, |id| id.pid);
        let took = started.elapsed().as_millis();
        self.say(&format!("is up: {addr}admin {}, pid {pid}, after {took} ms", self.spec.admin)).await;
        self.ready.send_replace(true);
    }

    fn relay(&self, pipe: impl tokio::io::AsyncRead + Unpin + Send + 'static) -> JoinHandle<()> {
        let (output, name, index) = (self.shared.output.clone(), self.spec.name.clone(), self.spec.index);
        tokio::spawn(async move { output.relay(&name, index, pipe).await })
    }

    /// Writes into the run file which process this is now.
    fn note(&self, id: ProcessId) -> anyhow::Result<()> {
        let Spec { name, addr, admin, .. } = self.spec.clone();
        let mut run_file = self.shared.run_file.lock().unwrap_or_else(PoisonError::into_inner);
        let process = Process { name, id, addr, admin: Some(admin) };
        match run_file.processes.iter_mut().find(|other| other.name == process.name) {
            Some(earlier) => *earlier = process,
            None => run_file.processes.push(process),
        }
        run_file.write(&self.shared.folder)
    }

    async fn say(&self, what: &str) {
        self.shared.output.say(&format!("{} {what}", self.spec.name)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_deaths_within_a_minute_are_too_many() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut deaths = Deaths::new(DEATHS_MAX);
        let outcomes: Vec<bool> = [0, 10, 20, 30, 61, 62, 100].map(|s| deaths.too_many(at(s))).into();
        assert_eq!(outcomes, [false, false, false, false, false, true, false]);
    }
}
