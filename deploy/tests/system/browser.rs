//! The page in a real browser, as people use it: the tests are in `deploy/tests/browser`.

use std::time::Duration;

use serde_json::{Map, Value, json};
use switchboard::token::Key;
use switchboard_contract::testing::skipped;

use crate::harness::{Shape, System};
use crate::http::SECRET;
use crate::node::Node;
use crate::page::built;

const HOUR: Duration = Duration::from_secs(3600);

/// Node with a browser; `None`: something is missing, and the tests are skipped.
fn browser() -> Option<Node> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).any(|folder| folder.join("chromium").is_file());
    if !installed && std::env::var_os("CHROMIUM").is_none() {
        skipped("chromium (on the PATH, or named by CHROMIUM)");
        return None;
    }
    built()?;
    Node::with("browser", "playwright-core")
}

/// A system of two gateways with these flags, and with the feeds of `make run`.
async fn system(gateway: &[&str]) -> Option<System> {
    let feeds = concat!(env!("CARGO_MANIFEST_DIR"), "/feeds.toml");
    let gateway = [&["--api-secret", SECRET], gateway].concat();
    System::of(Shape { gateway: &gateway, history: &["--feeds", feeds], ..Shape::default() }).await
}

/// Runs test files against a system whose gateways verify no tokens. One after the other: a browser takes much memory.
async fn people_use(tests: &[&str]) {
    let Some(node) = browser() else { return };
    // A gateway that drains does it so slowly that it is seen.
    let Some(mut system) = system(&["--drain-ms", "100000"]).await else { return };
    let mut failed = Vec::new();
    for test in tests {
        if !node.run(&mut system, test, &[("API_SECRET", SECRET)]).await {
            failed.push(test);
        }
    }
    assert!(failed.is_empty(), "faults of the page: {failed:?}");
}

#[tokio::test]
async fn people_use_the_page() {
    people_use(&["chat.test.mjs", "desk.test.mjs", "room.test.mjs", "phone.test.mjs"]).await;
}

#[tokio::test]
async fn people_use_the_page_while_its_gateway_dies() {
    people_use(&["outages.test.mjs", "operator.test.mjs"]).await;
}

#[tokio::test]
async fn people_use_the_page_with_tokens() {
    let Some(node) = browser() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let key = Key::of(folder.path()).expect("a key");
    let path = Key::path(folder.path());
    let jwt = ["--auth", "jwt", "--jwt-leeway", "0", "--jwt-secret-file", path.to_str().expect("text")];
    let Some(mut system) = system(&jwt).await else { return };
    let token = |claims: Value, ttl| {
        let claims: Map<_, _> = claims.as_object().expect("claims").clone();
        key.mint(claims, ttl).expect("a token")
    };
    let tokens = json!({
        "student": token(json!({"sub": "ada", "role": "student"}), HOUR),
        "teacher": token(json!({"sub": "tom", "role": "teacher"}), HOUR),
        "expired": token(json!({"sub": "ada", "role": "student"}), Duration::ZERO),
        "room": token(json!({"room": "physics"}), HOUR),
    });
    let environment = [("API_SECRET", SECRET), ("TOKENS", &tokens.to_string())];
    assert!(node.run(&mut system, "tokens.test.mjs", &environment).await, "faults of the page");
}
