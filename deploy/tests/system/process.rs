//! One process of a system: it is started, killed, and started again with the same flags and ports.

use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use switchboard_contract::admin;
use switchboard_contract::testing::{eventually, free_port};
use tokio::task::JoinHandle;

/// A service of a system; killed on drop.
pub(crate) struct Process {
    binary: &'static str,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    admin: SocketAddr,
    child: Option<Child>,
}

impl Process {
    /// Starts a service, which is not ready yet, with something more in its environment.
    pub(crate) fn start(binary: &'static str, nats_url: &str, flags: &[&str], environment: &[(&str, &str)]) -> Process {
        // To look into a failure, the environment says more: LOG_LEVEL=debug.
        let level = std::env::var("LOG_LEVEL").unwrap_or_else(|_| "warn".to_owned());
        let common = ["--nats-url", nats_url, "--log-level", &level];
        let flags = common.iter().chain(flags).map(|flag| (*flag).to_owned()).collect();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self::with(binary, flags, environment)
    }

    /// Starts one more with the same flags, which is not ready yet.
    pub(crate) fn another(&self) -> Process {
        Self::with(self.binary, self.flags.clone(), self.environment.clone())
    }

    fn with(binary: &'static str, flags: Vec<String>, environment: Vec<(String, String)>) -> Process {
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut process = Process { binary, flags, environment, admin, child: None };
        process.start_again();
        process
    }

    /// Starts it once more, unless it runs.
    pub(crate) fn start_again(&mut self) {
        let folder = std::path::Path::new(env!("CARGO_BIN_EXE_switchboard")).parent().expect("a folder");
        if self.child.is_none() {
            let mut command = Command::new(folder.join(self.binary));
            command.args(&self.flags).args(["--admin-addr", &self.admin.to_string()]);
            command.envs(self.environment.iter().map(|(name, value)| (name, value)));
            let child = command.stdin(Stdio::null()).spawn();
            let missing = |error| panic!("{}: {error}; run `cargo build --workspace --bins` first", self.binary);
            self.child = Some(child.unwrap_or_else(missing));
        }
    }

    /// Waits until it is ready.
    pub(crate) async fn ready(&self) {
        eventually(&format!("{} is ready", self.binary), async || {
            admin::ask(self.admin, "/health/ready", Duration::from_secs(1)).await.is_ok_and(|(status, _)| status == 200)
        })
        .await;
    }

    /// What its admin port says of it; `None` if it is not there.
    pub(crate) async fn metrics(&self) -> Option<String> {
        admin::ask(self.admin, "/metrics", Duration::from_secs(5)).await.ok().map(|(_, metrics)| metrics)
    }

    /// What a gauge of it says, or a counter; `None` if it is not there, or has none of this name and these labels.
    pub(crate) async fn metric(&self, name: &str) -> Option<u64> {
        let metrics = self.metrics().await?;
        metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// The most of resident memory that it has had. Bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Its resident memory. Bytes.
    pub(crate) fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    fn memory(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let kib = status.lines().find_map(|read| read.strip_prefix(line)?.trim().strip_suffix(" kB"));
        kib.expect("its memory").parse::<u64>().expect("a number") * 1024
    }

    /// How many files it has open, connections among them.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// The time of a processor that it has used so far.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        let after_name = stat.rsplit_once(')').expect("a name").1.split_whitespace();
        // Its own and the kernel's for it, in hundredths of a second.
        let ticks: u64 = after_name.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(10 * ticks)
    }

    /// `kill -9`, if it runs.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().and_then(|()| child.wait()).expect("it is killed");
        }
    }

    /// A signal, such as to pause it.
    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("a signal");
    }

    /// SIGTERM; gives its end, which may be waited for.
    pub(crate) fn terminate(&mut self) -> JoinHandle<ExitStatus> {
        self.signal(Signal::TERM);
        let mut child = self.child.take().expect("it runs");
        tokio::task::spawn_blocking(move || child.wait().expect("an end"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
