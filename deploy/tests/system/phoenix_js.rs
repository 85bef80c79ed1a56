//! The official `phoenix` package from npm, in Node: its tests are in `deploy/tests/js`.

use std::path::Path;
use std::process::Stdio;

use switchboard_contract::testing::skipped;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

use crate::harness::{Shape, System};

/// What asks for something in the output of a test; it is answered with `done` and the same words.
const WISH: &str = "please ";

/// Runs a test file against the system, and does to the system what it asks for.
async fn node(mut system: System, test: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js");
    let mut node = Command::new("node");
    node.args(["--test-reporter=spec", test]).current_dir(folder).kill_on_drop(true);
    node.env("GATEWAYS", format!("{} {}", system.gateway(0), system.gateway(1)));
    let mut node = node.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("node runs");
    let mut answers = node.stdin.take().expect("piped");
    let mut lines = BufReader::new(node.stdout.take().expect("piped")).lines();
    while let Some(line) = lines.next_line().await.expect("text") {
        eprintln!("{line}");
        if let Some(wish) = line.strip_prefix(WISH) {
            fulfil(&mut system, wish).await;
            answers.write_all(format!("done {wish}\n").as_bytes()).await.expect("node listens");
        }
    }
    assert!(node.wait().await.expect("its status").success(), "phoenix.js found a fault");
}

async fn fulfil(system: &mut System, wish: &str) {
    match wish {
        "kill students' gateway" => system.kill_gateway(0),
        "start students' gateway" => system.start_gateway(0).await,
        "kill leading matcher" => _ = system.kill_leader().await,
        "restart NATS" => system.nats.restart().await,
        unknown => panic!("a wish that nobody can fulfil: {unknown}"),
    }
}

/// The system, if there is all that the tests need.
async fn system() -> Option<System> {
    if !Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js/node_modules/phoenix").exists() {
        skipped("the npm packages of deploy/tests/js (run `npm ci` there)");
        return None;
    }
    System::of(Shape { matchers: 2, ..Shape::default() }).await
}

#[tokio::test]
async fn phoenix_js_from_join_to_leave() {
    let Some(system) = system().await else { return };
    node(system, "lobby.test.mjs").await;
}

#[tokio::test]
async fn phoenix_js_while_processes_die() {
    let Some(system) = system().await else { return };
    node(system, "outages.test.mjs").await;
}

#[tokio::test]
async fn phoenix_js_in_a_room() {
    let Some(system) = system().await else { return };
    node(system, "presence.test.mjs").await;
}

#[tokio::test]
async fn phoenix_js_talks_in_a_room_and_resumes() {
    let Some(system) = system().await else { return };
    node(system, "room.test.mjs").await;
}
