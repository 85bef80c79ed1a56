//! For tests of any service: a real nats-server of one's own, free ports, and waiting for a condition.
//!
//! Whatever goes wrong in here panics: it is a test's failure.

use std::fs::File;
use std::future::Future;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::stream::{Config, StorageType};
use clap::Parser;
use tempfile::TempDir;

use crate::process::CommonArgs;

/// A condition that a test waits for holds within this time.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Below the range from which Linux takes the local ports of outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// A port can be taken between being found free and being bound.
const START_ATTEMPTS: usize = 5;

/// One nats-server with JetStream, or a cluster of them, on free ports and in temporary folders. Killed on drop.
#[derive(Debug)]
pub struct NatsServer {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    port: u16,
    folder: TempDir,
    child: Option<Child>,
}

impl NatsServer {
    /// Starts one server and waits until it takes connections. `None` if no nats-server is installed: the test is
    /// skipped with a line; with `REQUIRE_ALL=1` that panics.
    pub async fn start() -> Option<NatsServer> {
        let binary = nats_server_binary()?;
        for _ in 0..START_ATTEMPTS {
            let mut node = Node::new(free_port(), "", "");
            if node.start(&binary).await {
                return Some(NatsServer { nodes: vec![node] });
            }
        }
        panic!("nats-server does not start");
    }

    /// Starts a cluster of `size` and waits until it can make replicated streams; else as [`NatsServer::start`].
    pub async fn start_cluster(size: usize) -> Option<NatsServer> {
        Self::start_cluster_over(size, |_, _, port| port).await
    }

    /// As [`NatsServer::start_cluster`], where one server reaches another (both counted from 0) on another port than
    /// the one that `over` is given: that of something between them. It may be asked again, with other ports.
    pub async fn start_cluster_over(size: usize, mut over: impl FnMut(usize, usize, u16) -> u16) -> Option<NatsServer> {
        let binary = nats_server_binary()?;
        for _ in 0..START_ATTEMPTS {
            let routes: Vec<u16> = (0..size).map(|_| free_port()).collect();
            let mut nodes: Vec<Node> = routes
                .iter()
                .enumerate()
                .map(|(i, port)| {
                    let others = routes.iter().enumerate().filter(|(other, _)| *other != i);
                    let over: Vec<(u16, u16)> = others.map(|(other, to)| (*to, over(i, other, *to))).collect();
                    // Servers tell each other where they are, and would find ways around what is between them.
                    let hidden = over.iter().any(|(to, over)| to != over);
                    let advertised = if hidden { 1 } else { *port };
                    let others: Vec<String> = over.iter().map(|(_, over)| format!("nats://127.0.0.1:{over}")).collect();
                    let cluster = format!(
                        "cluster {{ name: test, listen: \"127.0.0.1:{port}\", advertise: \"127.0.0.1:{advertised}\", \
                         routes: [{}], no_advertise: true }}\n",
                        others.join(", ")
                    );
                    Node::new(free_port(), &format!("node-{i}"), &cluster)
                })
                .collect();
            let mut started = true;
            for node in &mut nodes {
                started &= node.start(&binary).await;
            }
            if started {
                let cluster = NatsServer { nodes };
                cluster.wait_for_leader().await;
                return Some(cluster);
            }
        }
        panic!("a cluster of nats-servers does not start");
    }

    /// Where clients connect: all servers, separated by commas.
    pub fn url(&self) -> String {
        self.nodes.iter().map(|node| format!("nats://127.0.0.1:{}", node.port)).collect::<Vec<_>>().join(",")
    }

    /// The port of each server for clients.
    pub fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(|node| node.port).collect()
    }

    /// Common flags of a service that uses this server, its admin port a free one.
    pub fn common_args(&self) -> CommonArgs {
        #[derive(Parser)]
        struct Flags {
            #[command(flatten)]
            common: CommonArgs,
        }
        let admin = format!("127.0.0.1:{}", free_port());
        let replicas = self.nodes.len().to_string();
        Flags::parse_from([
            "test",
            "--nats-url",
            &self.url(),
            "--admin-addr",
            &admin,
            "--nats-replicas",
            &replicas,
            "--log-level",
            "warn",
        ])
        .common
    }

    /// The processes of the servers that run.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| node.child.as_ref()).map(Child::id).collect()
    }

    /// A plain connection, for the test itself.
    pub async fn client(&self) -> async_nats::Client {
        let servers: Vec<String> = self.url().split(',').map(str::to_owned).collect();
        async_nats::connect(servers).await.expect("a connection to the test's own nats-server")
    }

    /// `kill -9` for all servers. Their data stays for [`NatsServer::restart`].
    pub fn kill(&mut self) {
        self.nodes.iter_mut().for_each(Node::kill);
    }

    /// A signal for all servers that run, such as to pause them.
    pub fn signal(&self, signal: rustix::process::Signal) {
        for child in self.nodes.iter().filter_map(|node| node.child.as_ref()) {
            rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).expect("a signal");
        }
    }

    /// `kill -9` for one server, counted from 0.
    pub fn kill_node(&mut self, node: usize) {
        self.nodes[node].kill();
    }

    /// Kills what still runs and starts all servers again, on the same ports with the same data.
    pub async fn restart(&mut self) {
        let binary = nats_server_binary().expect("it was there before");
        self.kill();
        for node in &mut self.nodes {
            assert!(node.start(&binary).await, "nats-server does not start again");
        }
        if self.nodes.len() > 1 {
            self.wait_for_leader().await;
        }
    }

    /// As [`NatsServer::restart`], with so much room for streams on disk in each server, as in `10MB`.
    pub async fn restart_with_room(&mut self, max_file: &str) {
        for node in &self.nodes {
            let path = node.folder.path().join("nats.conf");
            let config = std::fs::read_to_string(&path).expect("the configuration");
            let (before, after) = config.split_once("max_file: ").expect("a limit");
            let (_, after) = after.split_once(' ').expect("more");
            std::fs::write(&path, format!("{before}max_file: {max_file} {after}")).expect("it is written");
        }
        self.restart().await;
    }

    /// Kills one server if it still runs, counted from 0, and starts it again.
    pub async fn restart_node(&mut self, node: usize) {
        let binary = nats_server_binary().expect("it was there before");
        self.nodes[node].kill();
        assert!(self.nodes[node].start(&binary).await, "nats-server does not start again");
    }

    async fn wait_for_leader(&self) {
        let mut context = jetstream::new(self.client().await);
        // Asked before there is a leader, a cluster says nothing at all.
        context.set_timeout(Duration::from_millis(500));
        let replicas = self.nodes.len();
        eventually("a cluster that makes replicated streams", async || {
            let probe = Config {
                name: "PROBE".into(),
                subjects: vec!["probe".into()],
                storage: StorageType::Memory,
                num_replicas: replicas,
                ..Config::default()
            };
            context.create_stream(probe).await.is_ok() && context.delete_stream("PROBE").await.is_ok()
        })
        .await;
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Node {
    fn new(port: u16, name: &str, cluster: &str) -> Node {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let name = if name.is_empty() { String::new() } else { format!("server_name: {name}\n") };
        let config = format!(
            "listen: \"127.0.0.1:{port}\"\n{name}jetstream {{ store_dir: \"{}\", max_mem: 1GB, max_file: 20GB }}\n{cluster}",
            folder.path().display()
        );
        std::fs::write(folder.path().join("nats.conf"), config).expect("the configuration is written");
        Node { port, folder, child: None }
    }

    /// Whether it came up; `false` if it exited, as for a port that was taken meanwhile.
    async fn start(&mut self, binary: &PathBuf) -> bool {
        let log_path = self.folder.path().join("nats.log");
        let log = File::options().create(true).append(true).open(&log_path).expect("a log file");
        let child = Command::new(binary)
            .arg("-c")
            .arg(self.folder.path().join("nats.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server starts");
        let child = self.child.insert(child);
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = child.try_wait().expect("a child can be asked") {
                eprintln!("nats-server: {status}\n{}", std::fs::read_to_string(&log_path).unwrap_or_default());
                return false;
            }
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return true;
            }
            assert!(Instant::now() < deadline, "nats-server takes no connections");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The nats-server of the tests: `NATS_SERVER`, else the workspace's own, else the one on the PATH. `None`: skip, and
/// that has been said.
pub fn nats_server_binary() -> Option<PathBuf> {
    let named = std::env::var_os("NATS_SERVER").map(PathBuf::from);
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.switchboard/tools/nats-server");
    let on_path = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).map(|folder| folder.join("nats-server")).collect::<Vec<_>>());
    let found = named.into_iter().chain([own]).chain(on_path.unwrap_or_default()).find(|path| path.is_file());
    if found.is_none() {
        skipped("nats-server (run `cargo run -p switchboard -- tools`)");
    }
    found
}

/// Says that a test is skipped because `tool` is missing; with `REQUIRE_ALL=1` that is a failure.
pub fn skipped(tool: &str) {
    assert!(std::env::var_os("REQUIRE_ALL").is_none_or(|all| all != "1"), "missing: {tool}");
    eprintln!("SKIPPED: missing {tool}");
}

/// A port of 127.0.0.1 on which nobody listens, and that no other test of this process is given.
pub fn free_port() -> u16 {
    free_ports(1)
}

/// The first of `count` such ports in a row.
pub fn free_ports(count: u16) -> u16 {
    static NEXT: Mutex<Option<u16>> = Mutex::new(None);
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let first =
            next.filter(|first| first + count <= PORTS.end).unwrap_or_else(|| rand::random_range(PORTS) - count);
        *next = Some(first + count);
        if (first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
}

/// Waits until `condition` holds, at most [`DEADLINE`], and prints how long it took.
pub async fn eventually<F>(what: &str, mut condition: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < DEADLINE, "not within {} s: {what}", DEADLINE.as_secs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    eprintln!("{what}: after {} ms", start.elapsed().as_millis());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_keeps_its_data_over_a_restart() {
        let Some(mut server) = NatsServer::start().await else { return };
        let context = jetstream::new(server.client().await);
        let stream = Config { name: "S".into(), subjects: vec!["s".into()], ..Config::default() };
        context.create_stream(stream).await.expect("a stream");
        context.publish("s", "kept".into()).await.expect("sent").await.expect("stored");
        server.restart().await;
        let context = jetstream::new(server.client().await);
        let stored = context.get_stream("S").await.expect("the stream").get_last_raw_message_by_subject("s").await;
        assert_eq!(&stored.expect("a message").payload[..], b"kept");
    }

    #[tokio::test]
    async fn a_cluster_replicates() {
        let Some(mut cluster) = NatsServer::start_cluster(3).await else { return };
        cluster.kill_node(0);
        cluster.restart_node(0).await;
        assert_eq!(cluster.url().split(',').count(), 3);
    }
}
