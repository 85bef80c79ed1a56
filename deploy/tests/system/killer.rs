//! `switchboard load lobby --kill`: it strikes whom it should, and leaves nothing stopped.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};
use switchboard::runfile::{Process, ProcessId};
use switchboard_contract::testing::eventually;
use tokio::process::Command;

use crate::support::Place;

fn load(place: &Place, flags: &[&str]) -> Command {
    let mut load = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    load.args(["load", "lobby", "--json", "--students", "20", "--messages", "5", "--pace", "50", "--folder"])
        .arg(place.folder())
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    load
}

/// The process that `status` says leads.
async fn leader(place: &Place) -> Option<Process> {
    let status = place.switchboard(&["status"]).arg("--json").output().await.expect("it runs");
    let status: Value = serde_json::from_slice(&status.stdout).ok()?;
    place.process(status["process"].as_str()?)
}

#[tokio::test]
async fn the_leader_is_killed_and_another_one_takes_over() {
    let Some(place) = Place::new() else { return };
    let up = place.up(&[]);
    up.says(&[" ready: "]).await;
    eventually("a matcher leads", async || leader(&place).await.is_some()).await;
    let killed = leader(&place).await.expect("it leads");

    let run = load(&place, &["--kill", "matcher", "--every", "0s..10ms", "--kills", "1"]).output().await;
    let run = run.expect("it runs");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && said.contains(&format!("kill {}", killed.name)), "{said}");
    let report: Value = serde_json::from_slice(&run.stdout).expect("JSON");
    assert_eq!(
        (&report["kinds"][0]["kind"], &report["kinds"][0]["kills"], &report["epochs"]),
        (&json!("matcher"), &json!(1), &json!(1)),
        "{report}"
    );
    assert!(!killed.id.is_alive());
}

#[tokio::test]
async fn what_is_paused_goes_on_when_the_run_is_ended() {
    let Some(place) = Place::new() else { return };
    let up = place.up(&[]);
    up.says(&[" ready: "]).await;
    let stopped = || {
        let processes = place.run_file().expect("it runs").processes;
        let state = |id: ProcessId| std::fs::read_to_string(format!("/proc/{}/stat", id.pid)).expect("it runs");
        processes.into_iter().filter(|process| state(process.id).contains(") T ")).count()
    };
    let mut run =
        load(&place, &["--kill", "matcher,history", "--every", "1ms", "--pause", "60s"]).spawn().expect("it runs");
    eventually("one is stopped", async || stopped() == 1).await;
    run.id().and_then(ProcessId::of).expect("it runs").signal(Signal::TERM);
    assert_eq!(run.wait().await.expect("a status").code(), Some(1));
    assert_eq!(stopped(), 0);
}
