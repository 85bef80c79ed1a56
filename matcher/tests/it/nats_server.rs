//! Real nats-servers for tests: own ports, own folders, killed on drop.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser as _;
use switchboard_contract::names::Incarnation;
use switchboard_contract::nats::Nats;
use switchboard_contract::streams::{self, Asset};
use switchboard_matcher::Args;

/// How long a test waits for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// One server, or a cluster of three.
pub(crate) struct Servers {
    children: Vec<Child>,
    ports: Vec<u16>,
    _folder: tempfile::TempDir,
}

impl Servers {
    /// Starts so many servers. `None`: there is no nats-server, and the test is skipped; with `REQUIRE_ALL=1` it fails.
    pub(crate) fn start(count: usize) -> Option<Servers> {
        let Some(program) = find() else {
            assert!(std::env::var("REQUIRE_ALL").as_deref() != Ok("1"), "nats-server is missing");
            eprintln!("skipped: no nats-server in NATS_SERVER, .switchboard/tools or PATH");
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let ports = free_ports(2 * count);
        let (clients, routes) = ports.split_at(count);
        let children = (0..count).map(|n| spawn(&program, folder.path(), n, clients, routes)).collect();
        Some(Servers { children, ports: clients.to_vec(), _folder: folder })
    }

    pub(crate) fn url(&self) -> String {
        self.ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
    }

    /// The processes, to see what they cost.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }

    /// Kills one, which does not come back.
    pub(crate) fn kill(&mut self, n: usize) {
        self.children[n].kill().expect("it runs");
        self.children[n].wait().expect("it ends");
    }

    /// Sends a signal to all of them: `STOP` pauses, `CONT` goes on.
    pub(crate) fn signal(&self, signal: &str) {
        for pid in self.pids() {
            let sent = Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status().expect("kill");
            assert!(sent.success());
        }
    }

    /// The flags of a matcher here.
    pub(crate) fn args(&self, more: &[&str]) -> Args {
        let replicas = self.ports.len().to_string();
        let url = self.url();
        let mut args = vec!["switchboard-matcher", "--nats-url", &url, "--nats-replicas", &replicas];
        args.extend(more);
        Args::try_parse_from(args).expect("flags")
    }

    /// A connection, once the streams are there.
    pub(crate) async fn connect(&self) -> Nats {
        let args = self.args(&[]);
        let nats = Nats::connect(&args.common, "test", &Incarnation::new()).await.expect("a connection");
        for asset in [Asset::Rooms, Asset::Lobby, Asset::Gateways, Asset::Leases] {
            streams::ensure(&nats, asset, args.common.nats_replicas).await.expect("a stream");
        }
        nats
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until a condition holds, and says how long that took.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let begin = Instant::now();
    while !holds().await {
        assert!(begin.elapsed() < DEADLINE, "not within {} s: {what}", DEADLINE.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eprintln!("{what}: after {} ms", begin.elapsed().as_millis());
}

fn find() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("NATS_SERVER") {
        return Some(named.into());
    }
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.switchboard/tools/nats-server");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("nats-server"));
    std::iter::once(installed).chain(on_path).find(|file| file.is_file())
}

/// Ports that are free now: held all together, so that no two are the same.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    held.iter().map(|listener| listener.local_addr().expect("an address").port()).collect()
}

fn spawn(program: &Path, folder: &Path, n: usize, clients: &[u16], routes: &[u16]) -> Child {
    let mut config = format!(
        "server_name: n{n}\nlisten: \"127.0.0.1:{}\"\njetstream {{ store_dir: \"{}\" }}\n",
        clients[n],
        folder.join(format!("n{n}")).display()
    );
    if clients.len() > 1 {
        let peers: Vec<_> = routes.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
        writeln!(
            config,
            "cluster {{ name: c, listen: \"127.0.0.1:{}\", routes: [{}], no_advertise: true }}",
            routes[n],
            peers.join(", ")
        )
        .expect("a text");
    }
    let file = folder.join(format!("n{n}.conf"));
    std::fs::write(&file, config).expect("a file");
    Command::new(program)
        .arg("-c")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nats-server starts")
}
