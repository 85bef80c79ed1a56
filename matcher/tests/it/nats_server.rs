//! Real nats-servers for tests of the matcher: one, or a cluster of three.

use std::process::Command;

use clap::Parser as _;
use switchboard_contract::names::Incarnation;
use switchboard_contract::nats::Nats;
use switchboard_contract::streams::{self, Asset};
pub(crate) use switchboard_contract::testing::{DEADLINE, NatsServer, eventually as until, free_port};
use switchboard_matcher::Args;

/// The servers of one test.
pub(crate) struct Servers(NatsServer);

impl Servers {
    /// Starts so many servers. `None`: there is no nats-server, and the test is skipped; with `REQUIRE_ALL=1` it fails.
    pub(crate) async fn start(count: usize) -> Option<Servers> {
        let servers = if count == 1 { NatsServer::start().await } else { NatsServer::start_cluster(count).await };
        servers.map(Servers)
    }

    pub(crate) fn url(&self) -> String {
        self.0.url()
    }

    /// The processes, to see what they cost.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.0.pids()
    }

    /// Kills one, which does not come back.
    pub(crate) fn kill(&mut self, n: usize) {
        self.0.kill_node(n);
    }

    /// Kills all of them as a crash does, and starts them again with what they had stored.
    pub(crate) async fn crash(&mut self) {
        self.0.restart().await;
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
        let replicas = self.0.pids().len().to_string();
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
