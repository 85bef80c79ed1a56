//! A new version is rolled out: each process is stopped with SIGTERM and started again, while everybody goes on.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use switchboard::client::Vsn;
use switchboard_contract::limits::CLOSE_TIMEOUT;
use switchboard_contract::testing::eventually;

use crate::feed_member::{Member as FeedMember, WITH_FEEDS};
use crate::fuzz;
use crate::harness::{Shape, Student, System, Teacher};
use crate::rooms::Member;
use crate::side::{Side, agree, sides, talk};
use crate::support::Place;

/// Longer than any such run takes, the load's own deadlines included.
const WITHIN: Duration = Duration::from_secs(600);

/// A report of a load's run in which six processes are stopped in turn, one so long after the other; it finds nothing
/// wrong, and nobody was told `unavailable`.
async fn rolled(command: &[&str], kinds: &str, every: &str) -> Option<Value> {
    let place = Place::new()?;
    let up = place.up(&["--deaths", "100", "--limits", "off"]);
    up.says(&[" ready: "]).await;
    let mut load = place.switchboard(command);
    load.args(["--kill", kinds, "--drain", "--every", every, "--kills", "6", "--json"]);
    let output = tokio::time::timeout(WITHIN, load.output()).await.expect("it ends").expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert_eq!(output.status.code(), Some(0), "{report}\n{said}\n{}", up.lines().join("\n"));
    assert_eq!(report["violation"], Value::Null, "{report}");
    assert!(report["kills"].as_u64() >= Some(2), "{report}\n{said}");
    // Who stops refuses what it has not done, and the next one does it.
    assert_eq!(report["unavailable"], 0, "{report}\n{said}\n{}", up.lines().join("\n"));
    up.id.signal(Signal::TERM);
    let (status, said) = up.end().await;
    assert_eq!(status.code(), Some(0), "{said}");
    // Whoever was stopped ended by itself, and without a complaint.
    assert!(said.contains("died (exit status: 0)") && !said.contains("SIGKILL"), "{said}");
    assert!(!said.contains("died (exit status: 1)") && !said.contains("panicked"), "{said}");
    Some(report)
}

#[tokio::test]
async fn the_lobby_is_served_while_every_service_is_restarted_in_turn() {
    let command = ["load", "lobby", "--students", "30", "--teachers", "3", "--messages", "40", "--pace", "50"];
    let Some(report) = rolled(&command, "gateway,matcher,history", "1s").await else { return };
    assert_eq!((&report["served"], &report["gaps"]), (&json!(30), &json!(0)), "{report}");
    assert!(report["reconnects"].as_u64() > Some(0), "{report}");
    println!("sockets opened again within a second, at most: {}", report["reconnects_per_second_most"]);
}

#[tokio::test]
async fn members_of_rooms_get_everything_while_every_service_is_restarted_in_turn() {
    let rooms = ["load", "rooms", "--rooms", "4", "--members", "6", "--seconds", "15", "--pace", "20", "--churn", "5s"];
    rolled(&rooms, "gateway,history,matcher", "1s").await;
}

/// A thousand users who lose no place and no message.
async fn a_thousand(command: &[&str]) {
    let seed = fuzz::seed().to_string();
    let Some(report) = rolled(&[command, &["--seed", &seed]].concat(), "gateway,matcher,history", "2s..5s").await
    else {
        return;
    };
    assert_eq!((&report["kills"], &report["gaps"]), (&json!(6), &json!(0)), "{report}");
    let (most, longest) = (&report["reconnects_per_second_most"], &report["message_ms"]["max"]);
    eprintln!("sockets opened again within a second, at most: {most}; the longest message took {longest} ms");
}

#[tokio::test]
#[ignore = "minutes: make test-long"]
async fn a_thousand_in_the_lobby_are_served_while_every_service_is_restarted_for_long() {
    a_thousand(&["load", "lobby", "--students", "1000", "--messages", "50", "--pace", "50", "--timeout", "500"]).await;
}

#[tokio::test]
#[ignore = "minutes: make test-long"]
async fn a_thousand_in_rooms_get_everything_while_every_service_is_restarted_for_long() {
    a_thousand(&["load", "rooms", "--pace", "1000", "--seconds", "90", "--churn", "0"]).await;
}

/// What a system is asked for while it is rolled: a chat that talks, a queue, two members of a room, two of a feed.
struct Everybody {
    teacher: Side,
    student: Side,
    waiting: Vec<Student>,
    claimer: Teacher,
    members: [Member; 2],
    feeds: [FeedMember; 2],
}

impl Everybody {
    async fn of(system: &System) -> Everybody {
        let (teacher, student) = sides(system).await;
        let mut waiting = Vec::new();
        for n in 0..8 {
            waiting.push(system.student_on(n % 2, n).await);
        }
        let members =
            [Member::on(system, 0, Vsn::V2, "ada", 10).await, Member::on(system, 1, Vsn::V2, "bob", 10).await];
        let feeds = [
            FeedMember::join(system, 0, Vsn::V2, "feed:lobby").await,
            FeedMember::join(system, 1, Vsn::V1, "feed:lobby").await,
        ];
        Everybody { teacher, student, waiting, claimer: system.teacher_on(0, "claimer").await, members, feeds }
    }

    /// Nothing is lost, in order and place: what is said is heard, who waits longest is next, and members are told.
    async fn goes_on(&mut self) {
        let left = self.waiting.len();
        talk(&mut self.teacher, &mut self.student, 3).await;
        agree(&mut self.teacher, &mut self.student).await;
        for _ in 0..2 {
            let [from, to] = &mut self.members;
            let seq = from.say(&format!("with {left} left")).await;
            assert_eq!(to.event("new_msg").await["seq"], seq);
            self.members.reverse();
        }
        let marks = self.feeds.each_ref().map(FeedMember::mark);
        let mut first = self.waiting.remove(0);
        assert_eq!(self.claimer.claim().await["student_id"], first.id);
        first.new_chat().await;
        for (feed, mark) in self.feeds.iter().zip(marks) {
            feed.hears(mark, "update", |update| !update["value"].is_null()).await;
        }
    }
}

#[tokio::test]
async fn matchers_and_histories_are_restarted_and_nobody_is_told_unavailable() {
    let shape = Shape { matchers: 2, histories: 2, ..Shape::history(&WITH_FEEDS) };
    let Some(mut system) = System::of(shape).await else { return };
    let mut everybody = Everybody::of(&system).await;
    everybody.goes_on().await;
    for _ in 0..2 {
        let leader = system.leader().await;
        let ended = system.matchers[leader].terminate();
        let (status, ()) = tokio::join!(ended, everybody.goes_on());
        assert!(status.expect("its end").success());
        system.start_matcher(leader).await;
    }
    for at in 0..2 {
        let ended = system.histories[at].terminate();
        let (status, ()) = tokio::join!(ended, everybody.goes_on());
        assert!(status.expect("its end").success());
        system.histories[at].start_again();
        system.histories[at].ready().await;
        everybody.goes_on().await;
    }
}

#[tokio::test]
async fn a_gateway_that_stops_spreads_what_it_closes() {
    const SOCKETS: usize = 200;
    let Some(mut system) = System::of(Shape::gateway(&["--drain-ms", "2000"])).await else { return };
    let mut clients = Vec::new();
    for _ in 0..SOCKETS {
        clients.push(system.client(0, Vsn::V2).await);
    }
    let open = async |system: &System| system.gateways[0].1.metric("switchboard_gateway_connections").await;
    eventually("all are open", async || open(&system).await == Some(SOCKETS as u64)).await;
    let began = tokio::time::Instant::now();
    let ended = system.gateways[0].1.terminate();
    let closes = clients.into_iter().map(|mut client| {
        tokio::spawn(async move {
            let closed = client.expect_where(|_| false, "its end", WITHIN).await.expect_err("it is closed");
            (began.elapsed(), closed.to_string())
        })
    });
    let mut closed = Vec::new();
    for close in closes.collect::<Vec<_>>() {
        let (at, how) = close.await.expect("no panic");
        assert!(how.contains("1012"), "{how}");
        closed.push(at);
    }
    assert!(ended.await.expect("its end").success());
    // These clients go without a word, and are not waited for.
    closed.sort();
    let waited = began.elapsed().saturating_sub(closed.last().copied().unwrap_or_default());
    println!("ended {} ms after the last close", waited.as_millis());
    assert!(waited < CLOSE_TIMEOUT, "{waited:?}");
    // Of two seconds, no quarter has more than half of them.
    let within =
        |from: Duration| closed.iter().filter(|at| (from..from + Duration::from_millis(500)).contains(*at)).count();
    let most = closed.iter().map(|from| within(*from));
    let most = most.max().unwrap_or(SOCKETS);
    println!("closes within half a second at most: {most} of {SOCKETS}");
    assert!(most <= SOCKETS / 2, "{closed:?}");
}
