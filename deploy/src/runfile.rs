//! `.switchboard/run.json`: what runs, as the runner wrote it. `status`, `load` and the next `up` read it.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// The folder of everything that the tool keeps, below the project's root.
pub const FOLDER: &str = ".switchboard";

/// What runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunFile {
    /// The runner itself.
    pub runner: Option<ProcessId>,
    /// All of the system's processes, in start order.
    pub processes: Vec<Process>,
    /// Where clients of NATS connect.
    pub nats_url: String,
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
    /// Its name: `nats`, `matcher`, `history`, `gateway-1`, `gateway-2`…
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

impl RunFile {
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
}
