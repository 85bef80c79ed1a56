//! Looks at every process of run.json, and at what NATS and the services say of themselves.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use switchboard_contract::admin;
use tokio::time::{MissedTickBehavior, interval};

use super::super::churn::sum;
use super::super::measure;
use super::series::{OWN, Panel, Samples, TOGETHER};
use crate::runfile::{Process, ProcessId, RunFile};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(2);
/// One question to an admin port; who is silent has no points.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
const MIB: f64 = 1024.0 * 1024.0;

/// The gauges of the services: of which kind of process, its name, and where it is shown.
const GAUGES: [(&str, &str, Panel); 9] = [
    ("gateway", "switchboard_gateway_connections", Panel::Connections),
    ("gateway", "switchboard_gateway_topics", Panel::Topics),
    ("gateway", "switchboard_gateway_presence_rooms", Panel::Presence),
    ("gateway", "switchboard_gateway_lobby_rows", Panel::LobbyRows),
    ("gateway", "switchboard_gateway_feed_members", Panel::FeedMembers),
    ("gateway", "switchboard_gateway_limited_users", Panel::Users),
    ("history", "switchboard_history_feeds_known", Panel::Feeds),
    ("history", "switchboard_history_logs_kept", Panel::Logs),
    ("history", "switchboard_history_kept_bytes", Panel::LogBytes),
];

type Seen = Vec<(Panel, String, f64)>;

/// Looks again and again.
pub(super) struct Sampler {
    folder: PathBuf,
    began: Instant,
    samples: Rc<RefCell<Samples>>,
    /// The CPU time of each process when it was looked at last.
    cpu: BTreeMap<u32, (ProcessId, u64, Instant)>,
}

#[derive(Deserialize)]
struct Varz {
    connections: f64,
    subscriptions: f64,
}

#[derive(Deserialize)]
struct Connz {
    #[serde(default)]
    connections: Vec<Connection>,
}

#[derive(Deserialize)]
struct Connection {
    #[serde(default)]
    pending_bytes: f64,
}

#[derive(Deserialize)]
struct Jsz {
    #[serde(default)]
    account_details: Vec<Account>,
}

#[derive(Deserialize)]
struct Account {
    #[serde(default)]
    stream_detail: Vec<Stream>,
}

#[derive(Deserialize)]
struct Stream {
    name: String,
    state: StreamState,
}

#[derive(Deserialize)]
struct StreamState {
    messages: f64,
    bytes: f64,
    consumer_count: f64,
}

impl Sampler {
    /// One of what runs here.
    pub(super) fn new(folder: &Path, began: Instant) -> Sampler {
        Sampler { folder: folder.to_owned(), began, samples: Rc::default(), cpu: BTreeMap::new() }
    }

    /// What it has seen.
    pub(super) fn samples(&self) -> Rc<RefCell<Samples>> {
        Rc::clone(&self.samples)
    }

    /// Looks for as long as it is polled.
    pub(super) async fn run(mut self) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !self.samples.borrow_mut().is_due() {
                continue;
            }
            // A run file that cannot be read now can be later.
            let processes = RunFile::read(&self.folder).ok().flatten().unwrap_or_default().processes;
            let at = self.began.elapsed().as_secs_f64();
            let mut seen = Seen::new();
            for process in &processes {
                self.proc(&process.name, process.id, &mut seen);
            }
            if let Some(own) = ProcessId::of(std::process::id()) {
                self.proc(OWN, own, &mut seen);
            }
            self.cpu.retain(|_, (id, ..)| id.is_alive());
            let asked = processes.iter().map(ask);
            seen.extend(futures_util::future::join_all(asked).await.into_iter().flatten());
            self.samples.borrow_mut().add(at, merged(seen));
        }
    }

    /// What the kernel says of a process.
    fn proc(&mut self, name: &str, id: ProcessId, seen: &mut Seen) {
        let Some(ticks) = measure::ticks(id) else { return };
        let now = Instant::now();
        if let Some((before, spent, then)) = self.cpu.insert(id.pid, (id, ticks, now))
            && before == id
        {
            let seconds = (now - then).as_secs_f64().max(0.001);
            let spent = measure::seconds(ticks.saturating_sub(spent));
            seen.push((Panel::Cpu, name.to_owned(), 100.0 * spent / seconds));
        }
        if let Some((rss, _)) = measure::memory(id.pid) {
            seen.push((Panel::Memory, name.to_owned(), float(rss) / MIB));
        }
        let Ok(files) = std::fs::read_dir(format!("/proc/{}/fd", id.pid)) else { return };
        let (mut open, mut sockets) = (0.0, 0.0);
        for file in files.flatten() {
            open += 1.0;
            let link = std::fs::read_link(file.path()).unwrap_or_default();
            sockets += f64::from(u8::from(link.to_string_lossy().starts_with("socket:")));
        }
        seen.extend([(Panel::Files, name.to_owned(), open), (Panel::Sockets, name.to_owned(), sockets)]);
    }
}

/// What a process says of itself.
async fn ask(process: &Process) -> Seen {
    match process.kind() {
        "nats" => nats(process).await.unwrap_or_default(),
        _ => service(process).await.unwrap_or_default(),
    }
}

async fn get(process: &Process, path: &str) -> Option<String> {
    let (_, body) = admin::ask(process.admin?, path, ASK_TIMEOUT).await.ok()?;
    Some(body)
}

async fn service(process: &Process) -> Option<Seen> {
    let metrics = get(process, "/metrics").await?;
    let mut seen = Seen::new();
    let kind = process.kind();
    for (_, metric, panel) in GAUGES.iter().filter(|(of, ..)| *of == kind) {
        let scale = if *panel == Panel::LogBytes { MIB } else { 1.0 };
        seen.push((*panel, process.name.clone(), float(sum(&metrics, metric)) / scale));
    }
    if kind == "history" {
        let owned = float(sum(&metrics, "switchboard_history_feeds_owned"));
        seen.push((Panel::Feeds, format!("{} owns", process.name), owned));
    }
    // One that no longer leads says what was when it did.
    if kind == "matcher" && sum(&metrics, "switchboard_matcher_leading") == 1 {
        for (line, metric) in [("teachers", "teachers"), ("students", "students"), ("inbox", "inbox")] {
            let value = float(sum(&metrics, &format!("switchboard_matcher_{metric}")));
            seen.push((Panel::Roster, line.to_owned(), value));
        }
        for state in ["waiting", "chatting", "finished"] {
            let metric = format!("switchboard_matcher_students{{state=\"{state}\"}} ");
            let value = metrics.lines().find_map(|line| line.strip_prefix(&metric)?.parse().ok()).unwrap_or(0.0);
            seen.push((Panel::Roster, state.to_owned(), value));
        }
    }
    Some(seen)
}

async fn nats(process: &Process) -> Option<Seen> {
    let name = || process.name.clone();
    let varz: Varz = serde_json::from_str(&get(process, "/varz").await?).ok()?;
    let connz: Connz = serde_json::from_str(&get(process, "/connz?limit=1024").await?).ok()?;
    let pending: f64 = connz.connections.iter().map(|connection| connection.pending_bytes).sum();
    let mut seen = vec![
        (Panel::NatsConnections, name(), varz.connections),
        (Panel::Subscriptions, name(), varz.subscriptions),
        (Panel::NatsPending, name(), pending / 1024.0),
    ];
    let jsz: Jsz = serde_json::from_str(&get(process, "/jsz?accounts=true&streams=true").await?).ok()?;
    for Stream { name, state } in jsz.account_details.into_iter().flat_map(|account| account.stream_detail) {
        seen.push((Panel::Consumers, name.clone(), state.consumer_count));
        seen.push((Panel::Messages, name.clone(), state.messages));
        seen.push((Panel::Bytes, name, state.bytes / MIB));
    }
    Some(seen)
}

/// Each line once: in a cluster every server tells of the streams, and the one with the most is right. With the sums of
/// what gateways share, and without their clients' sockets.
fn merged(seen: Seen) -> Seen {
    let mut lines: BTreeMap<(Panel, String), f64> = BTreeMap::new();
    for (panel, line, value) in seen {
        lines.entry((panel, line)).and_modify(|most| *most = most.max(value)).or_insert(value);
    }
    let shared: Vec<_> =
        lines.iter().filter(|((panel, _), _)| panel.is_shared()).map(|(k, v)| (k.clone(), *v)).collect();
    for ((panel, line), value) in shared {
        if let Some(sockets) = lines.get_mut(&(Panel::Sockets, line)).filter(|_| panel == Panel::Connections) {
            *sockets -= value;
        }
        *lines.entry((panel, TOGETHER.to_owned())).or_insert(0.0) += value;
    }
    lines.into_iter().map(|((panel, line), value)| (panel, line, value)).collect()
}

/// Exact up to 2^32, and near it beyond.
fn float(count: u64) -> f64 {
    let low = f64::from(u32::try_from(count & u64::from(u32::MAX)).unwrap_or(0));
    let high = f64::from(u32::try_from(count >> 32).unwrap_or(u32::MAX));
    high.mul_add(4_294_967_296.0, low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_several_servers_tell_is_there_once() {
        let seen = vec![
            (Panel::Messages, "ROOMS".to_owned(), 5.0),
            (Panel::Messages, "ROOMS".to_owned(), 7.0),
            (Panel::Consumers, "ROOMS".to_owned(), 1.0),
        ];
        let expected = vec![(Panel::Consumers, "ROOMS".to_owned(), 1.0), (Panel::Messages, "ROOMS".to_owned(), 7.0)];
        assert_eq!(merged(seen), expected);
        let gateway = |n: u32, sockets, connections| {
            let name = format!("gateway-{n}");
            [(Panel::Sockets, name.clone(), sockets), (Panel::Connections, name, connections)]
        };
        let seen = merged([gateway(1, 15.0, 10.0), gateway(2, 9.0, 4.0)].concat());
        let of = |panel, line: &str| seen.iter().find(|seen| (seen.0, &*seen.1) == (panel, line)).map(|seen| seen.2);
        assert_eq!((of(Panel::Sockets, "gateway-1"), of(Panel::Sockets, "gateway-2")), (Some(5.0), Some(5.0)));
        assert_eq!((of(Panel::Connections, "gateway-2"), of(Panel::Connections, TOGETHER)), (Some(4.0), Some(14.0)));
        assert!((float(1 << 40) - 1_099_511_627_776.0).abs() < 1e-6 && (float(7) - 7.0).abs() < 1e-9);
    }

    #[test]
    fn what_nats_says_of_its_streams_is_read() {
        let json = r#"{"streams":1,"account_details":[{"name":"$G","stream_detail":[
            {"name":"ROOMS","created":"x","state":{"messages":3,"bytes":9,"first_seq":1,"consumer_count":2}}]}]}"#;
        let jsz: Jsz = serde_json::from_str(json).expect("read");
        let stream = &jsz.account_details[0].stream_detail[0];
        assert!(stream.name == "ROOMS" && stream.state.consumer_count > 1.0 && stream.state.bytes > 8.0);
    }
}
