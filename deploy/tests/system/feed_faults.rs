//! Sources of feeds that fail: members of that feed are told so and why, others notice nothing, and what comes after it
//! comes by itself.

use std::time::SystemTime;

use futures_util::StreamExt as _;
use serde_json::Value;
use switchboard::client::Vsn;
use switchboard_contract::testing::eventually;
use switchboard_contract::wire::timestamp;

use crate::feed_member::{Member, file};
use crate::harness::{Shape, System};
use crate::postgres::Postgres;
use crate::web::Web;

/// What no answer may have: as JSON it is larger than the limit of an event. Bytes.
const HUGE: usize = 10_000_000;
/// By what a history service may grow at most meanwhile: less than one such answer. Bytes.
const GROWTH: u64 = 8 << 20;

fn feeds(postgres: &Postgres, web: &Web) -> String {
    format!(
        r#"
[sources.counted]
postgres = "{url}"
[sources.sized]
postgres = "{url}"
[[feed]]
name = "healthy"
interval = "500ms"
nats = "source"
[[feed]]
name = "polls"
interval = "500ms"
source = "counted"
sql = "insert into polls default values returning n"
[[feed]]
name = "text"
interval = "1s"
source = "sized"
sql = "select repeat('x', n) as text from size"
[[feed]]
name = "web"
interval = "1s"
http = "http://127.0.0.1:{port}/"
"#,
        url = postgres.url(),
        port = web.port
    )
}

/// Answers with a number that grows with each poll.
async fn count(system: &System) {
    let nats = system.nats.client().await;
    let mut requests = nats.subscribe("source").await.expect("a subscription");
    nats.flush().await.expect("a connection");
    tokio::spawn(async move {
        let mut polls = 0_u64;
        while let Some(request) = requests.next().await {
            polls += 1;
            let reply = request.reply.expect("a request");
            nats.publish(reply, polls.to_string().into()).await.expect("a connection");
        }
    });
}

/// What has been done to a source of the feed that these members are in, and when.
struct Fault<'a> {
    members: &'a [Member],
    marks: Vec<usize>,
    begun: String,
}

impl<'a> Fault<'a> {
    /// To be called before it is done.
    fn of(members: &'a [Member]) -> Fault<'a> {
        let marks = members.iter().map(Member::mark).collect();
        Fault { members, marks, begun: timestamp(SystemTime::now()) }
    }

    /// All members are told, for this reason first, since a moment behind the fault's begin.
    async fn is_told(&self, reason: &str) {
        for (member, mark) in self.members.iter().zip(&self.marks) {
            let stale = member.hears(*mark, "stale", |_| true).await;
            assert_eq!(stale["reason"], reason, "{stale}");
            let since = stale["since"].as_str().expect("a time");
            assert!(since >= &*self.begun && since <= &*timestamp(SystemTime::now()), "{} {stale}", self.begun);
        }
    }

    /// All members get a value again, as wanted. The source is well again since `now`, marked by [`Fault::of`].
    async fn is_over(&self, is: impl Fn(&Value) -> bool) {
        for (member, mark) in self.members.iter().zip(&self.marks) {
            member.hears(*mark, "update", |update| is(&update["value"])).await;
        }
    }
}

/// A member on each gateway, who have a value already.
async fn members(system: &System, topic: &str) -> [Member; 2] {
    let members = [Member::join(system, 0, Vsn::V1, topic).await, Member::join(system, 1, Vsn::V2, topic).await];
    for member in &members {
        eventually("a value", async || !member.values().is_empty()).await;
    }
    members
}

#[tokio::test]
async fn a_source_that_fails_is_told_to_its_members_alone_until_it_answers() {
    let Some(mut postgres) = Postgres::start().await else { return };
    postgres.run("create table polls (n bigserial); create table size as select 1 as n").await;
    let web = Web::start("1").await;
    let (_folder, file) = file(&feeds(&postgres, &web));
    let Some(system) = System::of(Shape::history(&["--feeds", &file])).await else { return };
    count(&system).await;
    let healthy = members(&system, "feed:healthy").await;
    let polls = members(&system, "feed:polls").await;
    let text = members(&system, "feed:text").await;
    let page = members(&system, "feed:web").await;

    let fault = Fault::of(&polls);
    postgres.kill();
    fault.is_told("the source cannot be reached").await;
    let mend = Fault::of(&polls);
    postgres.start_again().await;
    mend.is_over(Value::is_number).await;

    let fault = Fault::of(&polls);
    postgres.pause();
    fault.is_told("no answer in time").await;
    let mend = Fault::of(&polls);
    postgres.resume();
    mend.is_over(Value::is_number).await;

    let fault = Fault::of(&polls);
    postgres.run("alter table polls rename to gone").await;
    fault.is_told("the source refused").await;
    let mend = Fault::of(&polls);
    postgres.run("create table polls (n text default 'of another type')").await;
    mend.is_over(|value| *value == "of another type").await;

    let fault = Fault::of(&page);
    web.set("<html>");
    fault.is_told("the answer is no JSON").await;
    let mend = Fault::of(&page);
    web.set("2");
    mend.is_over(|value| *value == 2).await;

    let history = &system.histories[0];
    let before = history.peak();
    let huge = async || history.metric(r#"switchboard_history_feed_polls_total{outcome="too_large"}"#).await;
    assert_eq!(huge().await, None);
    let faults = [Fault::of(&page), Fault::of(&text)];
    web.set(format!("\"{}\"", "x".repeat(HUGE)));
    postgres.run(&format!("update size set n = {HUGE}")).await;
    for fault in &faults {
        fault.is_told("the answer is too large").await;
    }
    eventually("six huge answers", async || huge().await >= Some(6)).await;
    let after = history.peak();
    eprintln!("{HUGE} bytes, six times: from {before} to {after} bytes of memory at most");
    assert!(after < before + GROWTH, "from {before} to {after}");
    let [page, text] = [Fault::of(&page), Fault::of(&text)];
    web.set("3");
    postgres.run("update size set n = 3").await;
    page.is_over(|value| *value == 3).await;
    text.is_over(|value| *value == "xxx").await;

    for member in &healthy {
        let values: Vec<u64> = member.values().iter().map(|(_, n)| n.as_u64().expect("a number")).collect();
        assert!(values.windows(2).all(|pair| pair[1] == pair[0] + 1), "one is missing: {values:?}");
        assert_eq!(member.heard("stale"), 0);
    }
}
