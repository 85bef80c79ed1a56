//! `switchboard load fanout` and `load churn` against a `switchboard up`.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::Place;

/// Longer than any such run takes, its own deadlines included.
const WITHIN: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_crowd_hears_all_and_rooms_that_are_left_leave_nothing() {
    let Some(place) = Place::new() else { return };
    let kept_for = [("SWITCHBOARD_LOG_MAX_AGE_MS", "5000"), ("SWITCHBOARD_ROOM_LINGER_MS", "300")];
    let up = place.up_with(&[], &kept_for);
    up.says(&[" ready: "]).await;
    let load = async |args: &[&str]| {
        let output = place.switchboard(&[&["load"], args].concat()).arg("--json").output();
        let output = tokio::time::timeout(WITHIN, output).await.expect("it ends").expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        assert_eq!(output.status.code(), Some(0), "{report}\n{said}\n{}", up.lines().join("\n"));
        report
    };

    // With so many, what comes at once is delivered together.
    for (more, vsn) in [(["--rate", "50", "--burst", "1"], "2"), (["--rate", "10", "--burst", "5"], "1")] {
        let mut args = vec!["fanout", "--members", "80", "--messages", "50", "--vsn", vsn];
        args.extend(more);
        let report = load(&args).await;
        assert_eq!(report["deliveries"], json!(79 * 50), "{report}");
        assert!(report["gateway_us_per_delivery"].as_f64().is_some(), "{report}");
    }

    let report = load(&["churn", "--per-minute", "600", "--seconds", "2", "--rounds", "1", "--settle", "60"]).await;
    let round = &report["rounds"][0];
    assert_eq!(round["rooms"], json!(20), "{report}");
    let traces = ["records", "entries", "topics", "presence", "logs"].map(|what| round["traces"][what].as_u64());
    let before = ["records", "entries", "topics", "presence", "logs"].map(|what| report["before"][what].as_u64());
    assert!(traces.iter().zip(before).all(|(now, before)| now.is_some() && *now <= before), "{report}");

    up.id.signal(Signal::TERM);
    let (status, said) = up.end().await;
    assert_eq!(status.code(), Some(0), "{said}");
}
