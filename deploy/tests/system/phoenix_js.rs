//! The official `phoenix` package from npm, in Node: its tests are in `deploy/tests/js`.

use crate::harness::{Shape, System};
use crate::node::Node;

/// Runs a test file against a system; it is skipped where something is missing.
async fn run(test: &str) {
    let Some(node) = Node::with("js", "phoenix") else { return };
    let Some(mut system) = System::of(Shape { matchers: 2, ..Shape::default() }).await else { return };
    assert!(node.run(&mut system, test, &[]).await, "phoenix.js found a fault");
}

#[tokio::test]
async fn phoenix_js_from_join_to_leave() {
    run("lobby.test.mjs").await;
}

#[tokio::test]
async fn phoenix_js_while_processes_die() {
    run("outages.test.mjs").await;
}

#[tokio::test]
async fn phoenix_js_in_a_room() {
    run("presence.test.mjs").await;
}

#[tokio::test]
async fn phoenix_js_talks_in_a_room_and_resumes() {
    run("room.test.mjs").await;
}
