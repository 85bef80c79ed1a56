//! Tests in Node, in folders below `deploy/tests`: what they print is shown, and what they wish is done to the system.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;
use switchboard_contract::testing::skipped;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

use crate::harness::System;

/// What asks for something in the output of a test; it is answered with `done` and the same words.
const WISH: &str = "please ";

/// The tests of a folder.
pub(crate) struct Node {
    folder: PathBuf,
}

impl Node {
    /// `None`: this package is not there, and the tests are skipped.
    pub(crate) fn with(folder: &str, package: &str) -> Option<Node> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
        if path.join("node_modules").join(package).exists() {
            return Some(Node { folder: path });
        }
        skipped(&format!("the npm packages of deploy/tests/{folder} (run `npm ci` there)"));
        None
    }

    /// Runs a test file against the system, with something more in its environment; gives whether it has passed.
    pub(crate) async fn run(&self, system: &mut System, test: &str, environment: &[(&str, &str)]) -> bool {
        let mut node = Command::new("node");
        node.args(["--test-reporter=spec", test]).current_dir(&self.folder).kill_on_drop(true);
        node.env("GATEWAYS", format!("{} {}", system.gateway(0), system.gateway(1)));
        node.envs(environment.iter().copied());
        let mut node = node.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("node runs");
        let mut answers = node.stdin.take().expect("piped");
        let mut lines = BufReader::new(node.stdout.take().expect("piped")).lines();
        while let Some(line) = lines.next_line().await.expect("text") {
            eprintln!("{line}");
            if let Some(wish) = line.strip_prefix(WISH) {
                fulfil(system, wish).await;
                answers.write_all(format!("done {wish}\n").as_bytes()).await.expect("node listens");
            }
        }
        node.wait().await.expect("its status").success()
    }
}

async fn fulfil(system: &mut System, wish: &str) {
    match wish {
        "kill students' gateway" => system.kill_gateway(0),
        "drain students' gateway" => system.gateways[0].1.signal(Signal::TERM),
        "start students' gateway" => system.start_gateway(0).await,
        "kill leading matcher" => _ = system.kill_leader().await,
        "restart NATS" => system.nats.restart().await,
        unknown => panic!("a wish that nobody can fulfil: {unknown}"),
    }
}
