//! `.switchboard/run.json`: what runs, as the runner wrote it. `status`, `load` and the next `up` read it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use async_nats::Client;
use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use switchboard_contract::credentials::Files;
use switchboard_contract::process::without_password;

/// The folder of everything that the tool keeps, below the project's root.
pub const FOLDER: &str = ".switchboard";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// What runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunFile {
    /// The runner itself.
    pub runner: Option<ProcessId>,
    /// All of the system's processes, in start order.
    pub processes: Vec<Process>,
    /// Where clients of NATS connect: all servers, separated by commas.
    pub nats_url: String,
    /// What this tool connects there with, where not everybody is let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats_files: Option<NatsFiles>,
    /// How its gateways treat tokens.
    #[serde(default)]
    pub auth: Auth,
}

/// What is needed to connect to NATS.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NatsFiles {
    /// The seed of a user's key.
    pub creds: PathBuf,
    /// The CA of the servers' certificates.
    pub ca: PathBuf,
}

/// How gateways treat tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Nothing is verified: anybody can be anybody.
    #[default]
    Open,
    /// They verify tokens with the development key: see `switchboard token`.
    Jwt,
}

impl Auth {
    /// As flags and people write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Auth::Open => "open",
            Auth::Jwt => "jwt",
        }
    }
}

/// A process that cannot be mistaken for a later one of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since boot: field 22 of `/proc/<pid>/stat`.
    pub started: u64,
}

/// One process of the system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Its name: `nats`, or `nats-1`, `nats-2`, `nats-3`; `matcher-1`, `matcher-2`, `history-1`, `history-2`,
    /// or `history` if there is one, `gateway-1`, `gateway-2`…
    pub name: String,
    /// Which one.
    #[serde(flatten)]
    pub id: ProcessId,
    /// Where it serves clients: a gateway's WebSockets, or NATS itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addr: Option<SocketAddr>,
    /// Its admin port; for NATS its monitoring port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<SocketAddr>,
}

impl Process {
    /// What it is: its name without its number.
    pub fn kind(&self) -> &str {
        self.name.split('-').next().unwrap_or_default()
    }
}

impl ProcessId {
    /// The process that has this number now; `None` if there is none, or only its remains.
    pub fn of(pid: u32) -> Option<ProcessId> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in brackets, may hold anything; field 3 follows it.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        // While threads of it end, it still holds its ports.
        let threads: u32 = fields.get(17)?.parse().ok()?;
        let gone = matches!(*fields.first()?, "Z" | "X" | "x") && threads <= 1;
        let started = fields.get(19)?.parse().ok()?;
        (!gone).then_some(ProcessId { pid, started })
    }

    /// Whether it still runs.
    pub fn is_alive(self) -> bool {
        ProcessId::of(self.pid) == Some(self)
    }

    /// Sends a signal, if it still runs: never to a later process of the same number.
    pub fn signal(self, signal: Signal) {
        if !self.is_alive() {
            return;
        }
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(Err(error)) = pid.map(|pid| kill_process(pid, signal)) {
            tracing::debug!(%error, pid = self.pid, "not signalled");
        }
    }
}

impl RunFile {
    /// Connects to its NATS.
    ///
    /// # Errors
    /// If that cannot be done in time.
    pub async fn connect(&self, name: &str) -> anyhow::Result<Client> {
        let files = self.nats_files.as_ref();
        connect(&self.nats_url, files.map(|files| &*files.creds), files.map(|files| &*files.ca), name).await
    }

    /// Reads the file in `folder`; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read or is not understood.
    pub fn read(folder: &Path) -> anyhow::Result<Option<RunFile>> {
        let path = folder.join("run.json");
        match std::fs::read(&path) {
            Ok(json) => {
                serde_json::from_slice(&json).with_context(|| format!("{} is not understood", path.display())).map(Some)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes the file into `folder`, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let path = folder.join("run.json");
        let beside = folder.join("run.json.new");
        std::fs::write(&beside, serde_json::to_vec_pretty(self)?)
            .and_then(|()| std::fs::rename(&beside, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Removes the file from `folder`, if it is there.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(folder: &Path) -> anyhow::Result<()> {
        let path = folder.join("run.json");
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Connects this tool to NATS: under a name, with answers where an operator may read them.
///
/// # Errors
/// If that cannot be done in time.
pub async fn connect(url: &str, creds: Option<&Path>, ca: Option<&Path>, name: &str) -> anyhow::Result<Client> {
    let options = Files::open(creds, ca)?.options();
    let options = options.name(name).custom_inbox_prefix("_INBOX.operator").connection_timeout(CONNECT_TIMEOUT);
    let servers: Vec<&str> = url.split(',').map(str::trim).collect();
    options
        .connect(servers)
        .await
        .with_context(|| format!("no NATS server lets this tool in at {}", without_password(url)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_of_its_number() {
        let own = ProcessId::of(std::process::id()).expect("this process runs");
        assert!(own.is_alive());
        let earlier = ProcessId { started: own.started - 1, ..own };
        assert!(!earlier.is_alive());
        earlier.signal(Signal::KILL);
        assert_eq!(ProcessId::of(u32::MAX), None);
    }

    #[test]
    fn a_run_file_comes_back_and_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(RunFile::read(folder.path()).expect("no file is no error").is_none());
        let id = ProcessId { pid: 7, started: 9 };
        let process = Process { name: "nats".into(), id, addr: None, admin: None };
        let file = RunFile {
            runner: Some(id),
            processes: vec![process],
            nats_url: "nats://127.0.0.1:4222".into(),
            nats_files: None,
            auth: Auth::Jwt,
        };
        file.write(folder.path()).expect("written");
        let read = RunFile::read(folder.path()).expect("read").expect("there");
        assert_eq!((read.runner, read.processes[0].id, read.auth), (Some(id), id, Auth::Jwt));
        RunFile::remove(folder.path()).expect("removed");
        RunFile::remove(folder.path()).expect("nothing to remove");
    }
}
