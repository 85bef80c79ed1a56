//! The official `phoenix` package from npm, in Node: its tests are in `deploy/tests/js`.

use std::path::Path;
use std::process::Command;

use switchboard_contract::testing::skipped;

use crate::harness::System;

#[tokio::test]
async fn phoenix_js_from_join_to_leave() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js");
    if !folder.join("node_modules/phoenix").exists() {
        return skipped("the npm packages of deploy/tests/js (run `npm ci` there)");
    }
    let Some(system) = System::start().await else { return };
    let mut node = Command::new("node");
    node.args(["--test", "--test-reporter=spec", "lobby.test.mjs"]).current_dir(folder);
    node.env("GATEWAYS", format!("{} {}", system.gateway(0), system.gateway(1)));
    let output = tokio::task::spawn_blocking(move || node.output()).await.expect("joined").expect("node runs");
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "phoenix.js found a fault");
}
