//! Feeds whose owners die, hang, stop and come back, and feeds that nobody listens to any more. The source is a table
//! of PostgreSQL that counts its own polls, so a value is the number of polls, and the table says when they were.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use futures_util::StreamExt as _;
use rustix::process::Signal;
use serde_json::json;
use switchboard::client::Vsn;
use switchboard_contract::feed::Told;
use switchboard_contract::names::FeedId;
use switchboard_contract::testing::eventually;
use switchboard_contract::wire::{V1, encode};
use tempfile::TempDir;

use crate::feed_member::{Member, Version, file};
use crate::harness::{Shape, System};
use crate::postgres::Postgres;

const TOPIC: &str = "feed:polls";

/// Three gateways, three history services, and a table that is a row longer after each poll.
struct Counted {
    system: System,
    postgres: Postgres,
    _folder: TempDir,
}

impl Counted {
    async fn start() -> Option<Counted> {
        let postgres = Postgres::start().await?;
        postgres.run("create table polls (n bigserial, at timestamptz default clock_timestamp())").await;
        let (folder, file) = file(&format!(
            r#"
[sources.db]
postgres = "{}"
[[feed]]
name = "polls"
interval = "1s"
source = "db"
sql = "insert into polls default values returning n"
"#,
            postgres.url()
        ));
        let flags = ["--feeds", &file];
        let shape = Shape { gateways: 3, histories: 3, ..Shape::history(&flags) };
        Some(Counted { system: System::of(shape).await?, postgres, _folder: folder })
    }

    /// A member with each serializer on each gateway. The first is there before the first poll.
    async fn members(&self) -> Vec<Member> {
        let mut members = Vec::new();
        for gateway in 0..3 {
            for vsn in [Vsn::V1, Vsn::V2] {
                members.push(Member::join(&self.system, gateway, vsn, TOPIC).await);
            }
        }
        members
    }

    async fn rows(&self) -> Vec<i64> {
        self.postgres.numbers("select n from polls order by n").await
    }
}

fn last(member: &Member) -> Option<Version> {
    Some(member.values().last()?.0)
}

/// Waits until each member was shown three more values than the first one has been now, of a later epoch than `before`.
async fn goes_on(members: &[Member], before: Version) {
    let epoch = |member: &Member| last(member).is_some_and(|version| version.0 > before.0);
    eventually("values of a later epoch", async || members.iter().all(epoch)).await;
    three_more(members).await;
}

async fn three_more(members: &[Member]) {
    let reached = members[0].values().len() + 3;
    eventually("three more values", async || members[0].values().len() >= reached).await;
    let version = last(&members[0]);
    eventually("all have them", async || members.iter().all(|member| last(member) >= version)).await;
}

/// Waits for a new value, so that there is most of a second until the next poll; gives who polls, and its version. Who
/// comes back takes its feeds from whoever polls them meanwhile: not in this moment.
async fn just_polled(system: &System, member: &Member) -> (usize, Version) {
    loop {
        let (owner, mark) = (system.feed_owner().await, member.mark());
        member.hears(mark, "update", |_| true).await;
        let version = last(member).expect("a value");
        if system.feed_owner().await == owner && last(member) == Some(version) {
            return (owner, version);
        }
    }
}

#[tokio::test]
async fn one_owner_polls_for_all_whatever_happens_to_it() {
    let Some(mut counted) = Counted::start().await else { return };
    let members = counted.members().await;
    three_more(&members).await;

    let (killed, before) = just_polled(&counted.system, &members[0]).await;
    counted.system.histories[killed].kill();
    goes_on(&members, before).await;
    assert_ne!(counted.system.feed_owner().await, killed);
    counted.system.histories[killed].start_again();
    counted.system.histories[killed].ready().await;
    three_more(&members).await;

    let (paused, before) = just_polled(&counted.system, &members[0]).await;
    counted.system.histories[paused].signal(Signal::STOP);
    goes_on(&members, before).await;
    counted.system.histories[paused].signal(Signal::CONT);
    three_more(&members).await;

    let (stopped, before) = just_polled(&counted.system, &members[0]).await;
    assert!(counted.system.histories[stopped].terminate().await.expect("its status").success());
    goes_on(&members, before).await;
    assert_ne!(counted.system.feed_owner().await, stopped);

    // Up to a value that all have. Whoever polled it was let finish: so each row was told, and to all.
    let end = members[0].values().last().expect("a value").1.as_i64().expect("a number");
    let upto = |member: &Member| {
        let values = member.values();
        assert!(values.windows(2).all(|pair| pair[0].0 < pair[1].0), "versions grow: {values:?}");
        values.into_iter().filter(|(_, n)| n.as_i64() <= Some(end)).collect::<Vec<_>>()
    };
    eventually("all have it", async || {
        members.iter().all(|member| member.values().last().is_some_and(|(_, n)| n.as_i64() >= Some(end)))
    })
    .await;
    let told = upto(&members[0]);
    let rows: Vec<i64> = counted.rows().await.into_iter().filter(|n| *n <= end).collect();
    assert_eq!(told.iter().map(|(_, n)| n.as_i64().expect("a number")).collect::<Vec<_>>(), rows);
    for member in &members {
        let values = upto(member);
        assert_eq!(values, told[told.len() - values.len()..], "from when it joined");
    }
    let epochs: BTreeSet<u64> = told.iter().map(|(version, _)| version.0).collect();
    let sql = "select (extract(epoch from at) * 1000)::bigint from polls order by at";
    let times = counted.postgres.numbers(sql).await;
    let took = times[times.len() - 1] - times[0];
    eprintln!("{} polls in {took} ms by {} owners", times.len(), epochs.len());
    assert!(times.len() as i64 <= took / 1_000 + 2, "a take-over doubles no poll: {times:?}");
    assert!(times.windows(3).all(|times| times[2] - times[0] >= 1_000), "two in a second at most: {times:?}");
}

#[tokio::test]
async fn when_the_last_member_is_gone_nothing_is_left_of_a_feed() {
    let Some(counted) = Counted::start().await else { return };
    let system = &counted.system;
    let nats = system.nats.client().await;
    let subject = FeedId::new("polls").expect("a feed").out_subject();
    let nothing = encode(&Told { v: V1, version: (0, 0), last: None, stale: None });
    let answered = async || nats.request(subject.clone(), nothing.clone()).await.map_err(|error| error.kind());
    let mut before = (0, 0);
    for _ in 0..2 {
        let members = counted.members().await;
        three_more(&members).await;
        let values = members[0].values();
        assert!(values.iter().all(|(version, _)| *version > before), "greater than before the feed ended: {values:?}");
        before = values.last().expect("a value").0;
        assert!(answered().await.is_ok(), "gateways listen");
        assert_eq!(system.feeds().await.len(), 1);

        // One leaves, one closes its socket, one is lost.
        for (at, member) in members.into_iter().enumerate() {
            match at % 3 {
                0 => assert!(member.client().await.leave(TOPIC).await.expect("a reply").ok),
                1 => member.client().await.close().await.expect("a close"),
                _ => drop(member),
            }
        }
        eventually("the record ends", async || system.feeds().await.is_empty()).await;
        let rows = counted.rows().await.len();
        // Three intervals.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(counted.rows().await.len(), rows, "nobody listens, and it is polled");
        assert_eq!(answered().await.expect_err("nobody listens"), RequestErrorKind::NoResponders);
        let histories = system.histories.iter().zip(["switchboard_history_feeds_owned"; 3]);
        let known = system.histories.iter().zip(["switchboard_history_feeds_known"; 3]);
        let gateways = || system.gateways.iter().map(|(_, gateway)| gateway);
        let feeds = gateways().zip(["switchboard_gateway_feeds"; 3]);
        let joined = gateways().zip(["switchboard_gateway_feed_members"; 3]);
        for (process, metric) in histories.chain(known).chain(feeds).chain(joined) {
            eventually(metric, async || process.metric(metric).await == Some(0)).await;
        }
    }
}

const FEEDS: usize = 1_000;

/// How many feeds each owner has.
async fn shares(system: &System) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for record in system.feeds().await {
        *shares.entry(record.owner.to_string()).or_default() += 1;
    }
    shares
}

/// Waits until so many owners have all feeds, each a fair share, give or take a fifth, and all are polled by them.
async fn spread(system: &System, owners: usize, asked: &Mutex<BTreeSet<String>>) {
    let fair = FEEDS / owners;
    let even = |shares: &BTreeMap<String, usize>| shares.values().all(|n| (fair * 4 / 5..=fair * 6 / 5).contains(n));
    let shown = Mutex::new(BTreeMap::new());
    eventually(&format!("{owners} owners have even shares"), async || {
        let shares = shares(system).await;
        let spread = shares.len() == owners && shares.values().sum::<usize>() == FEEDS && even(&shares);
        *shown.lock().expect("no panic") = shares;
        spread
    })
    .await;
    eprintln!("{:?}", shown.into_inner().expect("no panic"));
    asked.lock().expect("no panic").clear();
    eventually("all are polled", async || asked.lock().expect("no panic").len() == FEEDS).await;
}

#[tokio::test]
async fn a_thousand_feeds_are_spread_evenly_over_whoever_lives() {
    let (_folder, file) = file(
        r#"
[[feed]]
name = "n"
interval = "5s"
argument = "[0-9]+"
nats = "source"
"#,
    );
    let (gateway, history) = (["--max-channels", "1000", "--join-rate", "0"], ["--feeds", &file]);
    let shape = Shape { gateways: 3, histories: 3, gateway: &gateway, ..Shape::history(&history) };
    let Some(mut system) = System::of(shape).await else { return };
    let asked = Arc::<Mutex<BTreeSet<String>>>::default();
    let nats = system.nats.client().await;
    let mut requests = nats.subscribe("source").await.expect("a subscription");
    nats.flush().await.expect("a connection");
    let hears = asked.clone();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            hears.lock().expect("no panic").insert(String::from_utf8_lossy(&request.payload).into_owned());
            nats.publish(request.reply.expect("a request"), "1".into()).await.expect("a connection");
        }
    });
    let mut members = Vec::new();
    for gateway in 0..3 {
        let mut client = system.client(gateway, [Vsn::V1, Vsn::V2, Vsn::V2][gateway]).await;
        let mine: Vec<usize> = (0..FEEDS).filter(|n| n % 3 == gateway).collect();
        for some in mine.chunks(50) {
            let mut joins = Vec::new();
            for n in some {
                joins.push(client.send_join(&format!("feed:n:{n}"), json!({})).await.expect("sent"));
            }
            for join in joins {
                let reply = client.reply(join).await.expect("a reply");
                assert!(reply.ok, "{reply:?}");
            }
        }
        members.push(Member::of(client));
    }
    spread(&system, 3, &asked).await;
    let fourth = system.histories[0].another();
    fourth.ready().await;
    system.histories.push(fourth);
    spread(&system, 4, &asked).await;
    system.histories[1].kill();
    spread(&system, 3, &asked).await;
    for member in &members {
        member.hears(0, "update", |value| value["value"] == 1).await;
    }
}
