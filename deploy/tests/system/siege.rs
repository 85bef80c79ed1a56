//! `switchboard load lobby --kill` against a `switchboard up`.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::Place;

/// Longer than any such run takes, the load's own deadline included.
const WITHIN: Duration = Duration::from_secs(120);

/// The load's report on a run in which such processes are killed twice.
async fn besieged(what: &str) {
    let Some(place) = Place::new() else { return };
    let up = place.up(&[]);
    up.says(&[" ready: "]).await;
    let mut load = place.switchboard(&["load", "lobby", "--kill", what]);
    load.args(["--every", "2s", "--kills", "2", "--pace", "50", "--json"]);
    load.args(["--students", "20", "--teachers", "2", "--messages", "20", "--timeout", "60"]);
    let output = tokio::time::timeout(WITHIN, load.output()).await.expect("it ends").expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert_eq!(output.status.code(), Some(0), "{report}\n{said}\n{}", up.lines().join("\n"));
    assert!(report["kills"].as_u64() >= Some(1), "{report}\n{said}");
    assert_eq!((&report["violation"], &report["served"]), (&Value::Null, &json!(20)), "{report}");
    up.id.signal(Signal::TERM);
    let (status, said) = up.end().await;
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("SIGKILL"), "nothing was killed: {said}");
}

#[tokio::test]
async fn the_lobby_is_served_while_gateways_are_killed() {
    besieged("gateway").await;
}

#[tokio::test]
async fn the_lobby_is_served_while_leading_matchers_are_killed() {
    besieged("matcher").await;
}
