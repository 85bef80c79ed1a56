//! `switchboard load soak` against a `switchboard up`.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::Place;

/// Longer than any such run takes, its own deadlines included.
const WITHIN: Duration = Duration::from_secs(180);

/// Whether every element that begins ends, in order. There are no comments in it, and no `>` in attributes.
fn is_well_formed(xml: &str) -> bool {
    let mut open = Vec::new();
    for tag in xml.split('<').skip(1) {
        let Some((tag, text)) = tag.split_once('>') else { return false };
        let name = tag.split([' ', '/']).next().unwrap_or_default();
        if text.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "").contains('&') {
            return false;
        }
        match tag.strip_prefix('/') {
            Some(name) if open.pop() == Some(name) => {}
            Some(_) => return false,
            None if tag.ends_with('/') => {}
            None => open.push(name),
        }
    }
    open.is_empty() && xml.starts_with("<svg ")
}

#[test]
fn what_is_not_well_formed_is_seen() {
    assert!(is_well_formed("<svg a=\"1\"><g><p x=\"2\"/>a &amp; b</g></svg>\n"));
    for wrong in ["<svg><g></svg></g>", "<svg><g></svg>", "<svg>a & b</svg>", "<svg><g", "svg", ""] {
        assert!(!is_well_formed(wrong), "{wrong}");
    }
}

#[tokio::test]
async fn all_kinds_of_traffic_at_once_break_no_rule_leave_nothing_and_are_drawn() {
    let Some(place) = Place::new() else { return };
    let kept_for = [
        // Longer than anybody is away.
        ("SWITCHBOARD_LOG_MAX_AGE_MS", "15000"),
        ("SWITCHBOARD_ROOM_LINGER_MS", "300"),
        ("SWITCHBOARD_CHAT_LINGER_MS", "1000"),
    ];
    let up = place.up_with(&["--limits", "off"], &kept_for);
    up.says(&[" ready: "]).await;
    let chart = place.folder().join("chart.svg");
    let mut load = place.switchboard(&["load", "soak", "--seconds", "15", "--settle", "90", "--json"]);
    load.arg("--chart").arg(&chart).args(["--students", "20", "--teachers", "5", "--messages", "4", "--pace", "200"]);
    load.args(["--rooms", "3", "--passing", "2", "--members", "4", "--room-pace", "200"]);
    load.args(["--feed-members", "8", "--churn", "5s"]);
    let output = tokio::time::timeout(WITHIN, load.output()).await.expect("it ends").expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert_eq!(output.status.code(), Some(0), "{report}\n{said}\n{}", up.lines().join("\n"));
    let none = json!({"lobby": null, "rooms": null, "feeds": null, "growth": [], "left": null});
    assert_eq!(report["verdicts"], none, "{report}");
    let count = |kind: &str, what: &str| report[kind][what].as_u64().unwrap_or(0);
    assert!(count("lobby", "done") > 20 && count("lobby", "reconnects") > 0, "{report}");
    assert!(count("rooms", "born") >= 5 && count("rooms", "reconnects") > 0, "{report}");
    assert!(count("feeds", "values") > 2 && count("feeds", "updates") > count("feeds", "values"), "{report}");
    // Every process, and every stream.
    let lines = |what: &str| {
        let series = report["series"].as_array().into_iter().flatten();
        series.filter(|line| line["what"] == what && line["max"].as_f64() > Some(0.0)).count()
    };
    assert!(lines("resident memory") == 8 && lines("open files") == 8 && lines("streams: messages") > 4, "{report}");
    assert_eq!((lines("NATS: subscriptions"), lines("gateways: connections")), (1, 3), "{report}");
    let svg = std::fs::read_to_string(&chart).expect("a chart");
    assert!(is_well_formed(&svg) && svg.matches("<polyline").count() > 40, "{svg}");

    up.id.signal(Signal::TERM);
    let (status, said) = up.end().await;
    assert_eq!(status.code(), Some(0), "{said}");
}
