//! The service as a process would run it, and what tests ask of it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use switchboard_contract::admin;
use switchboard_contract::limits::{KEYWORD_WINDOW, LOG_AGE_MAX};
use switchboard_contract::log::{Message, Read, ReadReply};
use switchboard_contract::names::HISTORY_READ;
use switchboard_contract::names::LogName;
use switchboard_contract::testing::{NatsServer, eventually};
use switchboard_contract::wire;
use switchboard_history::{Args, run};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const ASK: Duration = Duration::from_secs(5);

/// Its flags, with this linger time of rooms.
pub(crate) fn args(server: &NatsServer, linger: Duration) -> Args {
    Args {
        common: server.common_args(),
        memory_bytes: 64 * 1024 * 1024,
        room_linger_ms: ms(linger),
        log_max_age_ms: ms(LOG_AGE_MAX),
        keyword_window_ms: ms(KEYWORD_WINDOW),
        feeds: None,
        check_feeds: false,
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("short")
}

/// The service, as a process would run it.
pub(crate) struct Service {
    pub(crate) args: Args,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Service {
    pub(crate) async fn start(server: &NatsServer) -> Service {
        Service::start_with(server, Duration::from_secs(60), KEYWORD_WINDOW).await
    }

    /// With another linger time of rooms, and another window of keywords.
    pub(crate) async fn start_with(server: &NatsServer, linger: Duration, window: Duration) -> Service {
        Service::start_as(Args { keyword_window_ms: ms(window), ..args(server, linger) }).await
    }

    /// With a configuration of feeds.
    pub(crate) async fn start_with_feeds(server: &NatsServer, file: &Path) -> Service {
        Service::start_as(Args { feeds: Some(file.to_owned()), ..args(server, Duration::from_secs(60)) }).await
    }

    pub(crate) async fn start_as(args: Args) -> Service {
        let stop = CancellationToken::new();
        let service = Service { args: args.clone(), stop: stop.clone(), task: tokio::spawn(run(args, stop)) };
        eventually("history is ready", async || service.status("/health/ready").await.0 == 200).await;
        service
    }

    pub(crate) async fn status(&self, path: &str) -> (u16, String) {
        admin::ask(self.args.common.admin_addr, path, ASK).await.unwrap_or_default()
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(ASK, self.task).await.expect("it stops").expect("no panic").expect("no error");
    }

    /// As `kill -9`: what it has is not let go.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.expect_err("it ran").is_cancelled());
    }
}

/// The service as a process of its own, whose metrics no other test adds to. Dropped: killed.
pub(crate) struct Process {
    child: Child,
    admin: SocketAddr,
}

impl Process {
    pub(crate) async fn start_with_feeds(server: &NatsServer, file: &Path) -> Process {
        let common = server.common_args();
        let child = Command::new(env!("CARGO_BIN_EXE_switchboard-history"))
            .args(["--nats-url", &common.nats_url, "--log-level", "warn"])
            .args(["--admin-addr", &common.admin_addr.to_string(), "--feeds"])
            .arg(file)
            .spawn()
            .expect("a process");
        let process = Process { child, admin: common.admin_addr };
        let ready = async || admin::ask(process.admin, "/health/ready", ASK).await.is_ok_and(|(code, _)| code == 200);
        eventually("history is ready", ready).await;
        process
    }

    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// A metric of feeds, by what follows `switchboard_history_feed`; 0 if there is none yet.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let (_, text) = admin::ask(self.admin, "/metrics", ASK).await.expect("metrics");
        let line = format!("switchboard_history_feed{name} ");
        let value = text.lines().find_map(|metric| metric.strip_prefix(&line));
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) async fn read(client: &async_nats::Client, read: &Read) -> Option<ReadReply> {
    let request = client.request(HISTORY_READ, wire::encode(read));
    let reply = tokio::time::timeout(ASK, request).await.ok()?.ok()?;
    Some(wire::decode("reply", &reply.payload).expect("a reply"))
}

pub(crate) fn fresh(log: &LogName) -> Read {
    Read { fresh: true, ..Read::of(log.clone()) }
}

pub(crate) fn seqs(reply: &ReadReply) -> Vec<u64> {
    let messages: Vec<Message<'_>> = serde_json::from_str(reply.messages.get()).expect("messages");
    messages.iter().map(|message| message.seq).collect()
}

/// What a process has used. CPU seconds.
pub(crate) fn cpu(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let ticks: Vec<i64> = stat.rsplit(") ").next().expect("fields").split(' ').filter_map(|n| n.parse().ok()).collect();
    (ticks[10] + ticks[11]) as f64 / 100.0
}
