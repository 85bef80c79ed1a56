//! Ring 3: two matchers, of which one leads. The lease, and taking over: on one server and on three.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use switchboard_contract::admin;
use switchboard_contract::lease::{Attempt, Lease, LeaseKey};
use switchboard_contract::lobby::{At, Leader, Role, Row, Table, TableReply, Whole};
use switchboard_contract::names::{Incarnation, MATCHER_LEASE, MatcherVerb};
use switchboard_contract::nats::Nats;
use switchboard_contract::wire::{V1, decode, encode};

use crate::nats_server::{DEADLINE, Servers, free_port, until};
use crate::peers::{Gateway, Matcher, counts, leader, log, standbys, student, teacher};

/// How the leader goes.
#[derive(Clone, Copy, Debug)]
enum End {
    Stopped,
    Killed,
}

/// Waits for a leader of a later epoch.
async fn next_leader(nats: &Nats, before: &Leader) -> Leader {
    let begin = Instant::now();
    loop {
        match leader(nats).await {
            Some(now) if now.status.epoch > before.status.epoch => return now,
            Some(_) | None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
        assert!(begin.elapsed() < DEADLINE, "nobody takes over");
    }
}

async fn the_standby_takes_over(servers: usize, end: End) {
    let Some(servers) = Servers::start(servers).await else { return };
    let nats = servers.connect().await;
    let first = Matcher::lead(&servers, &nats, &[]).await;
    let second = Matcher::start(&servers, &[]);
    second.ready().await;
    let mut a = Gateway::start(&nats, "a").await;
    let b = Gateway::start(&nats, "b").await;
    let of_a = |n| vec![(1, n, teacher(1))];
    let of_b = |n| (2..=6).map(|id| (id, n, student(id, true))).collect::<Vec<_>>();
    a.whole(of_a(1)).await;
    b.whole(of_b(1)).await;
    assert_eq!(a.claim(1).await, None);
    let chat = a.new_chat(true).await.new_chats[0].chat.clone();
    assert_eq!(chat.student_id.as_str(), "2");
    // Longer than a lease without renewal: the standby stands by.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let before = leader(&nats).await.expect("a leader");
    assert_eq!((before.status.epoch, counts(&before.status)), (1, [1, 4, 1, 0]));

    let begin = Instant::now();
    match end {
        End::Stopped => first.stop().await,
        End::Killed => first.abort().await,
    }
    let after = next_leader(&nats, &before).await;
    eprintln!("{end:?}: the other one leads after {} ms", begin.elapsed().as_millis());
    assert_ne!(after.leader, before.leader);
    assert_eq!((after.status.epoch, counts(&after.status)), (2, [1, 4, 1, 0]));
    assert_eq!(after.status.version, before.status.version, "the students are the same");

    assert!(a.row(1, 1, teacher(1)).await.resend && b.row(2, 1, student(2, true)).await.resend, "asked for the tables");
    a.whole(of_a(2)).await;
    b.whole(of_b(2)).await;
    // The chat goes on.
    let enter = |role| At::Chat { chat: chat.id.clone(), role, entered: true };
    a.row(10, 1, enter(Role::Teacher)).await;
    b.row(20, 1, enter(Role::Student)).await;
    let ready = format!("chat:ready {{}} {}-ready", chat.id);
    until("the chat is ready", || async { log(&nats, &chat.id).await == [ready.clone()] }).await;
    // The queue has kept its order.
    let mut served = Vec::new();
    while served.len() < 4 {
        assert_eq!(a.claim(1).await, None);
        for new in a.new_chat(true).await.new_chats {
            if new.chat.id != chat.id && !served.contains(&new.chat.student_id.to_string()) {
                served.push(new.chat.student_id.to_string());
            }
        }
    }
    assert_eq!(served, ["3", "4", "5", "6"]);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stands_by_is_found_until_it_leads_or_stops() {
    let Some(servers) = Servers::start(1).await else { return };
    let nats = servers.connect().await;
    let first = Matcher::lead(&servers, &nats, &[]).await;
    assert_eq!(standbys(&nats, 0).await, [""; 0], "the one that leads does not stand by");
    let others = [Matcher::start(&servers, &[]), Matcher::start(&servers, &[])];
    until("two stand by", || async { standbys(&nats, 2).await.len() == 2 }).await;
    let before = leader(&nats).await.expect("a leader");
    first.stop().await;
    let after = next_leader(&nats, &before).await;
    until("one stands by", || async { standbys(&nats, 2).await.len() == 1 }).await;
    assert_ne!(standbys(&nats, 1).await, [after.leader.to_string()]);
    let [one, other] = others;
    one.stop().await;
    other.stop().await;
    until("nobody stands by", || async { standbys(&nats, 1).await.is_empty() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_stop_on_one_server() {
    the_standby_takes_over(1, End::Stopped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_stop_on_three_servers() {
    the_standby_takes_over(3, End::Stopped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_on_one_server() {
    the_standby_takes_over(1, End::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_on_three_servers() {
    the_standby_takes_over(3, End::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_knows_the_last_status_where_no_record_shows_it() {
    let Some(servers) = Servers::start(1).await else { return };
    let nats = servers.connect().await;
    let first = Matcher::lead(&servers, &nats, &[]).await;
    let second = Matcher::start(&servers, &[]);
    second.ready().await;
    let a = Gateway::start(&nats, "a").await;
    a.whole(vec![(1, 1, student(1, true))]).await;
    a.row(1, 2, At::Left { lost: false }).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let before = leader(&nats).await.expect("a leader");
    assert_eq!(counts(&before.status), [0, 0, 0, 0]);
    first.stop().await;
    let after = next_leader(&nats, &before).await;
    assert!(before.status.version > 0);
    assert_eq!(after.status.version, before.status.version, "the bucket holds no student of that version");
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_leaves_because_the_server_that_leads_the_buckets_died() {
    let Some(mut servers) = Servers::start(3).await else { return };
    let nats = servers.connect().await;
    // The gateways of this test send no heartbeats, so they are buried; what counts is that grace begins anew.
    let matchers = [
        Matcher::lead(&servers, &nats, &["--grace-ms", "60000"]).await,
        Matcher::start(&servers, &["--grace-ms", "60000"]),
    ];
    matchers[1].ready().await;
    let a = Gateway::start(&nats, "a").await;
    let rows = |n| (1..=20).map(|id| (id, n, student(id, true))).collect::<Vec<_>>();
    a.whole(rows(1)).await;
    let context = async_nats::jetstream::new(nats.client.clone());
    let stream = context.get_stream("KV_lobby").await.expect("the stream");
    let leading = stream.cached_info().cluster.as_ref().and_then(|cluster| cluster.leader.clone());
    let leading =
        leading.and_then(|name| name.strip_prefix("node-")?.parse().ok()).expect("a leader, node-0 to node-2");

    servers.kill(leading);
    let begin = Instant::now();
    // What is answered with a write says that there is a leader, and that it can write.
    let row = Row { chan: 21, n: 1, at: student(21, true) };
    let table = |whole, rows| Table { v: V1, gateway: a.name.clone(), whole, rows };
    loop {
        assert!(begin.elapsed() < DEADLINE, "nobody serves");
        let whole = Some(Whole { first: true, last: true });
        let all = rows(1).into_iter().map(|(chan, n, at)| Row { chan, n, at }).chain([row.clone()]).collect();
        let body = encode(&table(whole, all));
        let answer = nats.request(MatcherVerb::Table.subject(), body, Duration::from_secs(1)).await;
        if let Ok(answer) = answer {
            let reply: TableReply = decode("reply", &answer.payload).expect("a reply");
            assert!(!reply.resend);
            assert_eq!(counts(&reply.status), [0, 21, 0, 0], "nobody has left");
            eprintln!("epoch {} serves {} ms after the server died", reply.epoch, begin.elapsed().as_millis());
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for matcher in matchers {
        matcher.stop().await;
    }
}

const LEASE: LeaseKey = LeaseKey { subject: MATCHER_LEASE, fenced: || {} };

async fn taken(nats: &Nats, me: &Incarnation) -> Lease {
    let begin = Instant::now();
    loop {
        match Lease::attempt(nats, LEASE, me).await {
            Attempt::Held(lease) => return *lease,
            Attempt::Taken(_) | Attempt::Lost => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        assert!(begin.elapsed() < DEADLINE, "the lease stays taken");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_holds_the_lease_and_it_is_free_when_let_go_or_expired() {
    let Some(servers) = Servers::start(1).await else { return };
    let nats = servers.connect().await;
    let [one, two] = ["one", "two"].map(|name| Incarnation::named(name).expect("a name"));
    // Expiry and release leave a marker for a while, and then nothing: each is a start of its own.
    for pause in [0, 1_500] {
        let lease = taken(&nats, &one).await;
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert!(lease.holds(), "it is renewed");
        assert!(matches!(Lease::attempt(&nats, LEASE, &two).await, Attempt::Taken(holder) if holder == one));
        let begin = Instant::now();
        lease.release().await;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let lease = taken(&nats, &two).await;
        eprintln!("let go, taken {} ms later", begin.elapsed().as_millis());
        let begin = Instant::now();
        drop(lease);
        tokio::time::sleep(Duration::from_millis(2 * pause)).await;
        taken(&nats, &one).await.release().await;
        eprintln!("dropped, expired and taken {} ms later", begin.elapsed().as_millis());
    }
    // NATS away: the own clock ends it, before NATS would.
    let lease = taken(&nats, &one).await;
    servers.signal("STOP");
    let begin = Instant::now();
    lease.lost().await;
    eprintln!("without NATS lost after {} ms", begin.elapsed().as_millis());
    assert!(!lease.holds() && begin.elapsed() < Duration::from_millis(1_900));
    servers.signal("CONT");
}

/// A matcher that is a process of its own; killed on drop.
struct Process {
    child: Child,
    admin: u16,
}

impl Process {
    fn start(servers: &Servers) -> Process {
        let admin = free_port();
        let child = Command::new(env!("CARGO_BIN_EXE_switchboard-matcher"))
            .args(["--nats-url", &servers.url(), "--nats-replicas", &servers.pids().len().to_string()])
            .args(["--admin-addr", &format!("127.0.0.1:{admin}"), "--log-level", "warn"])
            .stdin(Stdio::null())
            .spawn()
            .expect("the matcher starts");
        Process { child, admin }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().expect("kill").success());
    }

    async fn metric(&self, name: &str) -> f64 {
        let address = format!("127.0.0.1:{}", self.admin).parse().expect("an address");
        let Ok((200, text)) = admin::ask(address, "/metrics", Duration::from_secs(1)).await else { return -1.0 };
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("switchboard_matcher_{name} ")));
        line.and_then(|value| value.parse().ok()).unwrap_or(-1.0)
    }

    async fn is_ready(&self) -> bool {
        let address = format!("127.0.0.1:{}", self.admin).parse().expect("an address");
        admin::ask(address, "/health/ready", Duration::from_secs(1)).await.is_ok_and(|(code, _)| code == 200)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn a_paused_leader_is_deposed(servers: usize) {
    let Some(servers) = Servers::start(servers).await else { return };
    let nats = servers.connect().await;
    let paused = Process::start(&servers);
    until("it leads", || async { paused.metric("leading").await == 1.0 }).await;
    let standby = Matcher::start(&servers, &["--grace-ms", "60000"]);
    standby.ready().await;
    let a = Gateway::start(&nats, "a").await;
    a.whole(vec![(1, 1, student(1, true))]).await;
    let before = leader(&nats).await.expect("a leader");

    paused.signal("STOP");
    let begin = Instant::now();
    // What it finds when it wakes up.
    for id in 2..20 {
        let rows = vec![Row { chan: id, n: 1, at: student(id, true) }];
        let table = Table { v: V1, gateway: a.name.clone(), whole: None, rows };
        nats.publish(MatcherVerb::Table.subject(), encode(&table)).await;
    }
    let after = next_leader(&nats, &before).await;
    eprintln!("paused: the other one leads after {} ms", begin.elapsed().as_millis());
    assert_eq!((after.status.epoch, counts(&after.status)), (2, [0, 1, 0, 0]));
    let reply = a.whole(vec![(1, 2, student(1, true)), (9, 1, student(9, true))]).await;
    assert_eq!((reply.epoch, counts(&reply.status)), (2, [0, 2, 0, 0]));
    tokio::time::sleep(Duration::from_millis(4_500).saturating_sub(begin.elapsed())).await;

    paused.signal("CONT");
    let begin = Instant::now();
    until("it stands by", || async { paused.metric("leading").await == 0.0 && paused.is_ready().await }).await;
    eprintln!("woken: it stands by after {} ms", begin.elapsed().as_millis());
    until("its late write was refused", || async { paused.metric("fenced_total").await >= 1.0 }).await;
    assert_eq!(paused.metric("takeovers_total").await, 1.0);
    let now = leader(&nats).await.expect("a leader");
    assert_eq!((&now.leader, now.status.epoch, counts(&now.status)), (&after.leader, 2, [0, 2, 0, 0]));

    // It is a standby like any other.
    let begin = Instant::now();
    standby.stop().await;
    let again = next_leader(&nats, &now).await;
    eprintln!("stopped: the woken one leads after {} ms", begin.elapsed().as_millis());
    assert_eq!((again.leader, again.status.epoch), (before.leader, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_leader_is_deposed_on_one_server() {
    a_paused_leader_is_deposed(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_leader_is_deposed_on_three_servers() {
    a_paused_leader_is_deposed(3).await;
}
