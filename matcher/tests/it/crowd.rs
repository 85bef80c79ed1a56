//! Ring 3: the binary itself, with a thousand students at ten teachers, and what that cost.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use switchboard_contract::lobby::{At, Claim, Done, Push, Pushed, Role, Row, Table, TableReply, Terminate, Whole};
use switchboard_contract::names::{self, ChatId, Incarnation, MatcherVerb, UserId};
use switchboard_contract::nats::Nats;
use switchboard_contract::wire::{V1, decode, encode};
use tokio::sync::mpsc;

use crate::nats_server::{DEADLINE, Servers, until};
use crate::peers::teacher;

const STUDENTS: u64 = 1_000;
const TEACHERS: u64 = 10;
/// Channels of chats begin here, on either gateway.
const CHATS: u64 = 1_000_000;

struct Process {
    child: Child,
    admin: u16,
}

impl Process {
    fn start(servers: &Servers, replicas: &str) -> Process {
        let admin = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let child = Command::new(env!("CARGO_BIN_EXE_switchboard-matcher"))
            .args(["--nats-url", &servers.url(), "--nats-replicas", replicas, "--chat-linger-ms", "500"])
            .args(["--admin-addr", &format!("127.0.0.1:{admin}")])
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        Process { child, admin }
    }

    fn get(&self, path: &str) -> String {
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.admin)) {
            write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("sent");
            let _ = stream.read_to_string(&mut answer);
        }
        answer
    }

    /// The sum of a metric over its labels.
    fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics");
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU that a process has used. Seconds.
fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<f64> = stat.rsplit(')').next().unwrap_or("").split(' ').filter_map(|f| f.parse().ok()).collect();
    fields.get(10..12).map_or(0.0, |ticks| ticks.iter().sum::<f64>() / 100.0)
}

/// A gateway: rows that change while a request is on its way go together into the next.
#[derive(Clone)]
struct Gateway {
    nats: Nats,
    name: Incarnation,
    rows: mpsc::UnboundedSender<Row>,
}

impl Gateway {
    async fn start(nats: &Nats, name: &str) -> Gateway {
        let (rows, mut changes) = mpsc::unbounded_channel();
        let gateway = Gateway { nats: nats.clone(), name: Incarnation::named(name).expect("a name"), rows };
        let sender = gateway.clone();
        let mut whole = Some(Whole { first: true, last: true });
        sender.send(whole.take(), Vec::new()).await;
        tokio::spawn(async move {
            let mut rows = Vec::new();
            while changes.recv_many(&mut rows, 500).await > 0 {
                sender.send(None, std::mem::take(&mut rows)).await;
            }
        });
        gateway
    }

    async fn send(&self, whole: Option<Whole>, rows: Vec<Row>) {
        let table = Table { v: V1, gateway: self.name.clone(), whole, rows };
        let answer = self.nats.request(MatcherVerb::Table.subject(), encode(&table), DEADLINE).await.expect("answered");
        let reply: TableReply = decode("reply", &answer.payload).expect("a reply");
        assert!(!reply.resend && reply.refused.is_empty(), "{reply:?}");
    }

    fn row(&self, chan: u64, n: u64, at: At) {
        let _ = self.rows.send(Row { chan, n, at });
    }
}

/// Every ten milliseconds, as long as anybody is to come.
async fn claims(gateway: Gateway, chan: u64, served: Arc<AtomicU64>) {
    while served.load(Ordering::Relaxed) < STUDENTS {
        let claim = Claim { v: V1, gateway: gateway.name.clone(), chan, id: 0 };
        let answer = gateway.nats.request(MatcherVerb::Claim.subject(), encode(&claim), DEADLINE).await;
        let done: Done = decode("done", &answer.expect("answered").payload).expect("an answer");
        assert_eq!(done.refused, None);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Enters each chat, once per channel; the teacher's side ends it when both have had their time.
async fn chats(gateway: Gateway, role: Role, served: Arc<AtomicU64>) {
    let subject = names::gateway_subject(&gateway.name);
    let mut pushes = gateway.nats.client.subscribe(subject).await.expect("a subscription");
    gateway.nats.round_trip(DEADLINE).await.expect("a round trip");
    let seen: Arc<Mutex<BTreeMap<ChatId, u64>>> = Arc::default();
    while let Some(message) = pushes.next().await {
        let push: Push = decode("push", &message.payload).expect("a push");
        if let Some(reply) = message.reply {
            gateway.nats.publish(reply.to_string(), encode(&Pushed::default())).await;
        }
        for new in push.new_chats {
            let mut seen = seen.lock().expect("a lock");
            let chan = CHATS + seen.len() as u64;
            if seen.insert(new.chat.id.clone(), new.chans[0]).is_none() {
                let at = At::Chat { chat: new.chat.id.clone(), role, entered: true };
                gateway.row(chan, 1, at);
                tokio::spawn(one_chat(gateway.clone(), role, chan, new.chans[0], new.chat.id, served.clone()));
            }
        }
    }
}

async fn one_chat(gateway: Gateway, role: Role, chan: u64, lobby: u64, chat: ChatId, served: Arc<AtomicU64>) {
    tokio::time::sleep(Duration::from_millis(100)).await;
    if role == Role::Teacher {
        let body = encode(&Terminate { v: V1, chat });
        gateway.nats.request(MatcherVerb::Terminate.subject(), body, DEADLINE).await.expect("answered");
        served.fetch_add(1, Ordering::Relaxed);
    } else {
        tokio::time::sleep(Duration::from_millis(100)).await;
        gateway.row(lobby, 2, At::Left { lost: true });
    }
    gateway.row(chan, 2, At::Left { lost: false });
}

async fn a_crowd(count: usize) {
    let Some(servers) = Servers::start(count).await else { return };
    let nats = servers.connect().await;
    let mut matcher = Process::start(&servers, &count.to_string());
    until("the matcher leads", || async { matcher.metric("switchboard_matcher_leading") == 1.0 }).await;
    let served = Arc::new(AtomicU64::new(0));
    let (a, b) = (Gateway::start(&nats, "a").await, Gateway::start(&nats, "b").await);
    tokio::spawn(chats(a.clone(), Role::Teacher, served.clone()));
    tokio::spawn(chats(b.clone(), Role::Student, served.clone()));
    let begin = std::time::Instant::now();
    for chan in 1..=TEACHERS {
        a.row(chan, 1, teacher(chan));
    }
    for chan in 1..=STUDENTS {
        b.row(chan, 1, At::Student { id: UserId::from(chan), ready: true });
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    for chan in 1..=TEACHERS {
        tokio::spawn(claims(a.clone(), chan, served.clone()));
    }
    until("all are served", || async { served.load(Ordering::Relaxed) == STUDENTS }).await;
    let took = begin.elapsed();
    assert_eq!(matcher.metric("switchboard_matcher_stepdowns_total"), 0.0);
    (1..=TEACHERS).for_each(|chan| a.row(chan, 2, At::Left { lost: false }));
    let context = async_nats::jetstream::new(nats.client.clone());
    let stream = context.get_stream("KV_lobby").await.expect("the stream");
    until("only the epoch is left", || async { stream.get_info().await.expect("its state").state.messages == 1 }).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(matcher.metric("switchboard_matcher_matched_total"), STUDENTS as f64, "each once");
    eprintln!(
        "{STUDENTS} students on {count} server(s): {} ms, {} records and {} requests in {} batches, {:.2} s of CPU, {:?} s of the servers'",
        took.as_millis(),
        matcher.metric("switchboard_matcher_records_total"),
        matcher.metric("switchboard_matcher_requests_total"),
        matcher.metric("switchboard_matcher_batches_total"),
        cpu(matcher.child.id()),
        servers.pids().into_iter().map(cpu).collect::<Vec<_>>(),
    );
    let stopped = Command::new("kill").arg(matcher.child.id().to_string()).status().expect("kill");
    assert!(stopped.success());
    assert!(matcher.child.wait().expect("it ends").success(), "SIGTERM is a clean end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_on_one_server() {
    a_crowd(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_on_three_servers() {
    a_crowd(3).await;
}
