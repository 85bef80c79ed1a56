//! A runner of one's own: own ports, own folder, nothing left behind.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use switchboard::runfile::{Process, ProcessId, RunFile};
use switchboard_contract::testing::{DEADLINE, eventually, free_ports, nats_server_binary};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::task::JoinHandle;

/// A folder and ports, for one runner after the other.
pub(crate) struct Place {
    folder: TempDir,
    pub(crate) gateway_port: u16,
    pub(crate) nats_port: u16,
    admin_port: u16,
}

impl Place {
    /// `None`: there is no nats-server, the test is skipped.
    pub(crate) fn new() -> Option<Place> {
        let nats_server = nats_server_binary()?;
        let folder = tempfile::tempdir().expect("a folder");
        let tools = folder.path().join("tools");
        std::fs::create_dir(&tools).expect("a folder");
        let nats_server = std::fs::canonicalize(nats_server).expect("a path");
        std::os::unix::fs::symlink(nats_server, tools.join("nats-server")).expect("a link");
        Some(Place { folder, gateway_port: free_ports(8), nats_port: free_ports(6), admin_port: free_ports(16) })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn switchboard(&self, command: &[&str]) -> Command {
        let mut switchboard = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        switchboard.args(command).arg("--folder").arg(self.folder()).stdin(Stdio::null()).kill_on_drop(true);
        switchboard
    }

    /// `switchboard up`, not necessarily ready.
    pub(crate) fn up(&self, flags: &[&str]) -> Running {
        self.up_with(flags, &[])
    }

    /// The same with environment variables, which its processes inherit.
    pub(crate) fn up_with(&self, flags: &[&str], variables: &[(&str, &str)]) -> Running {
        let port = |port: u16| port.to_string();
        let mut up = self.switchboard(&["up"]);
        up.args(["--gateway-port", &port(self.gateway_port), "--nats-port", &port(self.nats_port)])
            .args(["--admin-port", &port(self.admin_port)])
            .args(flags)
            .envs(variables.iter().copied());
        Running::of(up)
    }

    pub(crate) fn run_file(&self) -> Option<RunFile> {
        RunFile::read(self.folder()).expect("a run file that is understood")
    }

    pub(crate) fn process(&self, name: &str) -> Option<Process> {
        self.run_file()?.processes.into_iter().find(|process| process.name == name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Ok(Some(run_file)) = RunFile::read(self.folder.path()) {
            run_file.runner.into_iter().for_each(|id| id.signal(Signal::KILL));
            run_file.processes.iter().for_each(|process| process.id.signal(Signal::KILL));
        }
    }
}

/// A runner, or a load.
pub(crate) struct Running {
    child: tokio::process::Child,
    pub(crate) id: ProcessId,
    lines: Arc<Mutex<Vec<String>>>,
    readers: [JoinHandle<()>; 2],
}

impl Running {
    /// Starts it. What it says is kept, line by line.
    pub(crate) fn of(mut command: Command) -> Running {
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = piped.spawn().expect("switchboard starts");
        let lines = Arc::default();
        let readers = [
            collect(child.stdout.take().expect("piped"), &lines),
            collect(child.stderr.take().expect("piped"), &lines),
        ];
        let id = child.id().and_then(ProcessId::of).expect("it runs");
        Running { child, id, lines, readers }
    }

    /// Waits until a line holds all of these texts.
    pub(crate) async fn says(&self, texts: &[&str]) {
        let found = || self.lines().iter().any(|line| texts.iter().all(|text| line.contains(text)));
        let said = tokio::time::timeout(DEADLINE, async {
            while !found() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(said.await.is_ok(), "no line with {texts:?} in\n{}", self.lines().join("\n"));
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no panic").clone()
    }

    /// Waits for its end.
    pub(crate) async fn end(mut self) -> (ExitStatus, String) {
        let ended = tokio::time::timeout(2 * DEADLINE, self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("no end:\n{}", self.lines().join("\n"))).expect("an exit status");
        // What it wrote last may still be on its way.
        for reader in &mut self.readers {
            tokio::time::timeout(DEADLINE, reader).await.expect("its output ends").expect("no panic");
        }
        (status, self.lines().join("\n"))
    }
}

fn collect(pipe: impl AsyncRead + Unpin + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    let lines = lines.clone();
    tokio::spawn(async move {
        let mut from = BufReader::new(pipe).lines();
        while let Ok(Some(line)) = from.next_line().await {
            lines.lock().expect("no panic").push(line);
        }
    })
}

/// Waits until none of them runs.
pub(crate) async fn all_gone(processes: &[Process]) {
    eventually("no process is left", async || processes.iter().all(|process| !process.id.is_alive())).await;
}
