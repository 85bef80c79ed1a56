//! The feed of operators: the whole system in one value, for who has the secret of the HTTP API, and for nobody else.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};
use switchboard::client::{Client, Vsn};
use switchboard_contract::admin;
use switchboard_contract::testing::{eventually, free_port};
use tokio::process::Command;

use crate::feed_member::WITH_FEEDS;
use crate::harness::{SOON, Shape, System, meet, say};
use crate::tokens::{HOUR, Issuer};

const TOPIC: &str = "feed:operator";
const SECRET: &str = "s3cret-of-operators";
const WRONG: &str = "s3cret-of-0perators";

/// Somebody who looks.
struct Operator {
    client: Client,
    last: Value,
}

impl Operator {
    async fn on(mut client: Client) -> Operator {
        let mut reply = client.join(TOPIC, json!({ "secret": SECRET })).await.expect("a reply");
        assert!(reply.ok, "{reply:?}");
        Operator { client, last: reply.response["value"].take() }
    }

    /// Waits until it is shown this.
    async fn sees(&mut self, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        while !so(&self.last) {
            let update = self.client.expect_on(TOPIC, "update", SOON).await;
            let mut update = update.unwrap_or_else(|error| panic!("{what}: {error} behind {}", self.last));
            self.last = update.payload["value"].take();
        }
        self.last.clone()
    }
}

/// What is shown of a gateway but for who it is.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Gateway {
    connections: u64,
    draining: Option<bool>,
    joins: Option<u64>,
    messages: Option<u64>,
}

/// Those with fewer connections first.
fn gateways(value: &Value) -> Vec<Gateway> {
    let all = value["gateways"]["all"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of = |gateway: &Value| Gateway {
        connections: gateway["connections"].as_u64().expect("a number"),
        draining: gateway["draining"].as_bool(),
        joins: gateway["joins"].as_u64(),
        messages: gateway["messages"].as_u64(),
    };
    let mut shown: Vec<_> = all.iter().map(of).collect();
    shown.sort_unstable();
    shown
}

#[tokio::test]
async fn operators_see_who_waits_who_talks_what_runs_and_what_changes() {
    let gateway = ["--api-secret", SECRET, "--drain-ms", "100000"];
    let shape = Shape { gateway: &gateway, history: &WITH_FEEDS, matchers: 2, histories: 2, ..Shape::default() };
    let Some(mut system) = System::of(shape).await else { return };
    let (mut teacher, mut student) = (system.teacher(5).await, system.student("bob").await);
    let chat = meet(&mut teacher, &mut student).await;
    let waiting = [system.student(7).await, system.student("ada").await, system.student("7th").await];
    for text in ["one", "two"] {
        say(&mut student.client, &mut teacher.client, &chat, "student", text).await;
    }
    say(&mut teacher.client, &mut student.client, &chat, "teacher", "three").await;

    let mut operator = Operator::on(system.client(0, Vsn::V2).await).await;
    // Three with a join each, one with two, and the operator; the teacher, with its chat.
    let counted = |connections, joins, messages| Gateway {
        connections,
        draining: Some(false),
        joins: Some(joins),
        messages: Some(messages),
    };
    let expected = [counted(1, 2, 1), counted(5, 6, 2)];
    let seen = operator
        .sees("all of it", |value| {
            let standbys = value["matcher"]["standbys"].as_array().map(Vec::len);
            let histories = value["histories"].as_array().map(Vec::len);
            gateways(value) == expected && (standbys, histories) == (Some(1), Some(2)) && !value["queue"].is_null()
        })
        .await;
    assert_eq!(seen["lobby"], json!({"teachers": 1, "waiting": 3, "chatting": 1, "finished": 0}));
    let students: Vec<&Value> =
        seen["queue"]["first"].as_array().expect("a queue").iter().map(|place| &place["student"]).collect();
    assert_eq!((students, &seen["queue"]["left_out"]), (vec![&json!(7), &json!("ada"), &json!("7th")], &json!(0)));
    let talk = &seen["chats"]["newest"][0];
    assert_eq!((&talk["teacher"], &talk["student"]), (&json!(5), &json!("bob")));
    assert_eq!(chat, format!("chats:{}", talk["id"].as_str().expect("an id")));
    for time in [&seen["at"], &talk["since"], &seen["queue"]["first"][0]["since"], &seen["matcher"]["since"]] {
        assert!(time.as_str().is_some_and(|time| time.len() == 24 && time.ends_with('Z')), "{time}");
    }
    assert_eq!(seen["matcher"]["epoch"], 1);
    let feed = &seen["feeds"]["all"][0];
    assert!(feed["name"] == "operator" && feed["failed"] == 0 && feed["stale"].is_null(), "{feed}");
    assert!(seen["histories"].as_array().expect("names").contains(&feed["owner"]), "{seen}");

    let standby = seen["matcher"]["standbys"][0].clone();
    let killed = system.kill_leader().await;
    let seen = operator.sees("the standby leads", |value| value["matcher"]["leader"] == standby).await;
    assert_eq!((&seen["matcher"]["epoch"], &seen["matcher"]["standbys"]), (&json!(2), &json!([])));
    assert_eq!(seen["queue"]["first"].as_array().map(Vec::len), Some(3), "they have kept their places");
    system.start_matcher(killed).await;
    operator
        .sees("another one stands by", |value| {
            let standbys = value["matcher"]["standbys"].as_array();
            standbys.is_some_and(|all| all.len() == 1 && all[0] != standby)
        })
        .await;

    // So many sockets are closed one after the other that the drain is seen.
    let _idle = [system.client(1, Vsn::V1).await, system.client(1, Vsn::V2).await];
    operator.sees("who has come", |value| gateways(value).iter().any(|gateway| gateway.connections == 3)).await;
    system.gateways[1].1.signal(Signal::TERM);
    let drains = |value: &Value| gateways(value).iter().filter(|gateway| gateway.draining == Some(true)).count();
    let seen = operator.sees("a gateway drains", |value| drains(value) == 1).await;
    assert_eq!(gateways(&seen).len(), 2);
    system.gateways[1].1.kill();
    let silent = |gateway: &Gateway| (gateway.draining, gateway.joins, gateway.messages) == (None, None, None);
    let seen = operator.sees("it is not heard any more", |value| gateways(value).iter().any(silent)).await;
    assert!(gateways(&seen).iter().any(|gateway| gateway.draining == Some(false)), "{seen}");
    drop((waiting, student));
}

#[tokio::test]
async fn without_the_secret_nobody_sees_it() {
    let gateway = ["--api-secret", SECRET];
    let Some(system) = System::of(Shape { gateway: &gateway, ..Shape::history(&WITH_FEEDS) }).await else { return };
    let without = System::of(Shape { gateways: 1, ..Shape::history(&WITH_FEEDS) }).await.expect("as before");
    for (system, vsn) in [(&system, Vsn::V2), (&system, Vsn::V1), (&without, Vsn::V2)] {
        let mut client = system.client(0, vsn).await;
        let right = if std::ptr::eq(system, &without) { Some(SECRET) } else { None };
        for payload in [json!({}), json!({ "secret": null }), json!({ "secret": "" }), json!({ "secret": WRONG })]
            .into_iter()
            .chain(right.map(|secret| json!({ "secret": secret })))
        {
            let reply = client.join(TOPIC, &payload).await.expect("a reply");
            assert_eq!(reply.reason(), Some("unauthorized"), "{payload}");
        }
        assert!(client.join("feed:lobby", json!({})).await.expect("a reply").ok);
    }
    // Whoever goes on guessing is closed, and then nobody of whom nothing is known may, for a while.
    let mut guesser = system.client(1, Vsn::V2).await;
    let guesses = async {
        for n in 0..200 {
            // The socket may be closed meanwhile.
            let _ = guesser.send_join(TOPIC, json!({ "secret": format!("{n}") })).await;
        }
        guesser.expect_close(SOON).await.expect("a close")
    };
    assert_eq!(guesses.await, Some(1008));
    let mut operator = system.client(1, Vsn::V2).await;
    let reply = operator.join(TOPIC, json!({ "secret": SECRET })).await.expect("a reply");
    assert_eq!(reply.reason(), Some("rate_limited"), "{reply:?}");
    assert!(operator.join("feed:lobby", json!({})).await.expect("a reply").ok);
    let elsewhere = system.client(0, Vsn::V2).await;
    Operator::on(elsewhere).await.sees("a value", |value| !value["matcher"].is_null()).await;
}

#[tokio::test]
async fn with_tokens_the_secret_is_needed_too_and_no_token_has_to_name_the_feed() {
    let flags = ["--api-secret", SECRET, "--refusals", "3", "--ban-ms", "60000"];
    let Some(issuer) = Issuer::start_with(&flags).await else { return };
    for (n, feeds) in [None, Some(json!(["lobby"])), Some(json!(["operator"]))].into_iter().enumerate() {
        let mut claims = json!({ "sub": format!("op-{n}") });
        if let Some(feeds) = feeds {
            claims["feeds"] = feeds;
        }
        let mut client = issuer.client(claims.clone(), HOUR).await;
        for payload in [json!({}), json!({ "secret": WRONG })] {
            let reply = client.join(TOPIC, &payload).await.expect("a reply");
            assert_eq!(reply.reason(), Some("unauthorized"), "{claims} {payload}");
        }
        Operator::on(client).await.sees("a value", |value| !value["matcher"].is_null()).await;
    }
    let mut guesser = issuer.client(json!({ "sub": "eve" }), HOUR).await;
    for _ in 0..3 {
        let reply = guesser.join(TOPIC, json!({ "secret": WRONG })).await.expect("a reply");
        assert_eq!(reply.reason(), Some("unauthorized"));
    }
    assert_eq!(guesser.expect_close(SOON).await.expect("a close"), Some(1008));
    let other = issuer.client(json!({ "sub": "op-9" }), HOUR).await;
    Operator::on(other).await.sees("a value, whoever guesses", |value| !value["matcher"].is_null()).await;
}

#[tokio::test]
async fn no_log_line_holds_a_secret() {
    let Some(system) = System::of(Shape { gateways: 1, ..Shape::history(&WITH_FEEDS) }).await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (port, log) = (free_port(), folder.path().join("gateway.log"));
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_switchboard").to_owned() + "-gateway");
    let listen = format!("127.0.0.1:{port}");
    gateway.args(["--nats-url", &system.nats.url(), "--listen", &listen, "--auth", "open", "--log-level", "trace"]);
    gateway.args(["--api-secret", SECRET]).stdin(Stdio::null()).kill_on_drop(true);
    let stderr = std::fs::File::create(&log).expect("a file");
    let _running = gateway.stderr(stderr).spawn().expect("it starts; see `cargo build --workspace --bins`");
    let address = format!("127.0.0.1:{port}").parse().expect("an address");
    eventually("the gateway listens", async || admin::ask(address, "/", SOON).await.is_ok()).await;

    let mut client = Client::connect(&format!("http://{address}"), Vsn::V2).await.expect("a connection");
    for payload in [json!({ "secret": WRONG }), json!({ "secret": [WRONG] }), json!({ "secret": { WRONG: 1 } })] {
        let reply = client.join(TOPIC, &payload).await.expect("a reply");
        assert!(!reply.ok && !reply.response.to_string().contains(WRONG), "{reply:?}");
    }
    // And in a frame that is malformed.
    client.socket().send_text(format!(r#"["1","9","{TOPIC}","phx_join",{{"secret":"{WRONG}"}}"#)).expect("sent");
    client.socket().flush().await.expect("sent");
    let mut operator = Operator::on(Client::connect(&format!("http://{address}"), Vsn::V2).await.expect("one")).await;
    operator.sees("a value", |value| !value["matcher"].is_null()).await;
    let said = || std::fs::read_to_string(&log).expect("a log");
    eventually("the malformed frame is logged", async || said().contains("malformed")).await;
    assert!(!said().contains(SECRET) && !said().contains(WRONG), "{}", said());
}
