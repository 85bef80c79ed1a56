//! The feeds of `switchboard up`: those that it brings with it, and a file of one's own.

use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use switchboard::client::{Client, Vsn};
use switchboard_contract::testing::eventually;
use tokio::process::Command;

use crate::harness::SOON;
use crate::support::Place;

const FEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/feeds.toml");

async fn client(place: &Place, gateway: u16) -> Client {
    let url = format!("http://127.0.0.1:{}", place.gateway_port + gateway);
    Client::connect(&url, Vsn::V2).await.expect("a connection")
}

/// Waits until the feed's value is so, from this one on.
async fn becomes(client: &mut Client, topic: &str, mut value: Value, so: impl Fn(&Value) -> bool) -> Value {
    while !so(&value) {
        let update = client.expect_on(topic, "update", SOON).await;
        value = update.unwrap_or_else(|error| panic!("{topic}: {error} behind {value}")).payload["value"].take();
    }
    value
}

#[tokio::test]
async fn the_lobby_and_the_gateways_are_feeds_out_of_the_box() {
    let Some(place) = Place::new() else { return };
    let up = place.up(&[]);
    up.says(&[" ready: "]).await;
    let mut ada = client(&place, 0).await;
    let mut values = Vec::new();
    for topic in ["feed:gateways", "feed:lobby"] {
        let mut reply = ada.join(topic, json!({})).await.expect("a reply");
        assert!(reply.ok, "{reply:?}");
        values.push(reply.response["value"].take());
    }
    let [gateways, lobby] = values.try_into().expect("two");
    // A gateway that has not told of ada yet counts her later.
    let connections = |n: u64| move |value: &Value| value["total"] == json!({"gateways": 2, "connections": n});
    let one = becomes(&mut ada, "feed:gateways", gateways, connections(1)).await;
    let mut shown: Vec<u64> = Vec::new();
    for gateway in one["gateways"].as_array().expect("gateways") {
        assert!(gateway["name"].is_string() && gateway.as_object().is_some_and(|keys| keys.len() == 2), "{one}");
        shown.extend(gateway["connections"].as_u64());
    }
    shown.sort_unstable();
    assert_eq!((shown, &one["left_out"]), (vec![0, 1], &json!(0)), "{one}");

    let none = json!({
        "teachers": {"total": 0},
        "students": {"total": 0, "waiting": 0, "chatting": 0, "finished": 0},
        "waiting_since": null,
    });
    let lobby = becomes(&mut ada, "feed:lobby", lobby, |value| *value == none).await;
    let mut bob = client(&place, 1).await;
    let own = "presence:student:bob";
    assert!(bob.join(own, json!({"userId": "bob", "role": "student"})).await.expect("a reply").ok);
    assert!(bob.push(own, "student:ready", json!({"userId": "bob"})).await.expect("a reply").ok);
    let waits = |value: &Value| value["students"]["waiting"] == 1 && value["waiting_since"].is_string();
    becomes(&mut ada, "feed:lobby", lobby, waits).await;
    becomes(&mut ada, "feed:gateways", one, connections(2)).await;

    eventually("status shows both", async || {
        let status = place.switchboard(&["status"]).output().await.expect("it runs");
        let table = String::from_utf8(status.stdout).expect("text");
        ["gateways ", "lobby "].iter().all(|feed| table.lines().any(|line| line.starts_with(feed)))
    })
    .await;
    up.id.signal(Signal::TERM);
    let (status, said) = up.end().await;
    assert_eq!(status.code(), Some(0), "{said}");
}

#[tokio::test]
async fn a_wrong_file_of_feeds_is_said_before_anything_starts() {
    let Some(place) = Place::new() else { return };
    let file = place.folder().join("mine.toml");
    std::fs::write(&file, "[[feed]]\nname = \"a\"\ninterval = \"soon\"\nnats = \"s\"\n").expect("a file");
    let (file, missing) = (file.display().to_string(), place.folder().join("none.toml").display().to_string());
    for (file, what) in [(&file, format!("{file}:3: ")), (&missing, format!("{missing}: cannot be read"))] {
        let (status, said) = place.up_with(&[], &[("FEEDS", file)]).end().await;
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(said.contains(&what) && !said.contains(" is up"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(place.run_file().is_none());
    }
}

#[tokio::test]
async fn the_examples_in_the_file_of_feeds_are_right() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("feeds.toml");
    // Prose has a space behind its #.
    let text = std::fs::read_to_string(FEEDS).expect("the feeds");
    let example = |line: &str| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).map(str::to_owned);
    let lines: Vec<String> = text.lines().map(|line| example(line).unwrap_or_else(|| line.to_owned())).collect();
    std::fs::write(&file, lines.join("\n")).expect("a file");
    let history = Path::new(env!("CARGO_BIN_EXE_switchboard")).with_file_name("switchboard-history");
    let mut check = Command::new(history);
    check.args(["--check-feeds", "--feeds"]).arg(&file).env("WEATHER_KEY", "k");
    let without = check.env_remove("SHOP_URL").output().await.expect("it runs");
    assert_eq!(without.status.code(), Some(2), "the examples are read: {without:?}");
    let with = check.env("SHOP_URL", "postgres://u@127.0.0.1/shop").output().await.expect("it runs");
    assert_eq!(with.status.code(), Some(0), "{with:?}");
}
