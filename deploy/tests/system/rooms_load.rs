//! `switchboard load rooms` against a `switchboard up`.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::Place;

/// Longer than any such run takes, the load's own deadlines included.
const WITHIN: Duration = Duration::from_secs(240);

/// The load's report on a run with these flags, which finds nothing wrong.
async fn talked(flags: &[&str]) -> Option<Value> {
    let place = Place::new()?;
    let up = place.up(&[]);
    up.says(&[" ready: "]).await;
    let mut load = place.switchboard(&["load", "rooms", "--rooms", "4", "--members", "6", "--seconds", "5", "--json"]);
    load.args(["--pace", "20", "--churn", "2s"]).args(flags);
    let output = tokio::time::timeout(WITHIN, load.output()).await.expect("it ends").expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert_eq!(output.status.code(), Some(0), "{report}\n{said}\n{}", up.lines().join("\n"));
    assert_eq!(report["violation"], Value::Null, "{report}");
    let count = |name: &str| report[name].as_u64().unwrap_or(0);
    assert!(count("messages") > 0 && count("deliveries") > count("messages"), "{report}");
    assert!(count("reconnects") > 0 && count("rejoins") > 0, "{report}");
    // At the end at the latest, every member's list was compared with all others of its room.
    assert!(count("lists_compared") >= 24, "{report}");
    up.id.signal(Signal::TERM);
    let (status, said) = up.end().await;
    assert_eq!(status.code(), Some(0), "{said}");
    Some(report)
}

#[tokio::test]
async fn members_of_rooms_get_everything_once_and_in_order() {
    if let Some(report) = talked(&[]).await {
        assert_eq!((&report["unavailable"], report.get("kills")), (&Value::from(0), None), "{report}");
    }
}

#[tokio::test]
async fn members_of_rooms_get_everything_while_gateways_are_killed() {
    if let Some(report) = talked(&["--kill", "gateway", "--every", "2s", "--kills", "2"]).await {
        assert!(report["kills"].as_u64() >= Some(1), "{report}");
    }
}
