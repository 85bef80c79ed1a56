//! Ten thousand connections that never say a word.

use std::time::Instant;

use futures_util::StreamExt as _;
use serde_json::json;
use switchboard::client::Vsn;
use switchboard_contract::limits::HTTP_HEADER_TIMEOUT;
use switchboard_contract::testing::{DEADLINE, eventually};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::harness::System;
use crate::raw;

const CONNECTIONS: usize = 10_000;
const MIB: u64 = 1024 * 1024;

/// All of them are on one gateway, which still takes others, and lets them go after its time for headers.
pub(super) async fn ten_thousand_that_never_speak(system: &System) {
    let (gateway, url) = (&system.gateways[0].1, system.gateway(0));
    let (files, resident) = (gateway.open_files(), gateway.resident());
    let began = Instant::now();
    let mut silent: Vec<TcpStream> = futures_util::stream::iter(0..CONNECTIONS)
        .map(|_| raw::connect(&url))
        .buffer_unordered(256)
        .map(|connected| connected.expect("a connection"))
        .collect()
        .await;
    let connected = began.elapsed();
    let most = gateway.open_files();
    assert!(most > files + CONNECTIONS / 2, "{most} files: they were not there at the same time");
    let mut decent = raw::client(&url, Vsn::V2).await;
    assert!(decent.push("phoenix", "heartbeat", json!({})).await.expect("a reply").ok);
    let within = HTTP_HEADER_TIMEOUT + DEADLINE;
    let ended = futures_util::future::join_all(silent.iter_mut().map(async |stream| {
        let read = tokio::time::timeout(within, stream.read(&mut [0; 64])).await;
        matches!(read, Ok(Ok(0) | Err(_)))
    }))
    .await;
    assert!(ended.iter().all(|ended| *ended), "{} are open", ended.iter().filter(|ended| !**ended).count());
    let peak = gateway.peak() / MIB;
    eprintln!(
        "silent: {CONNECTIONS} connections within {:.1} s, gone after {:.1} s; MiB before {}, now {}, at most {peak}",
        connected.as_secs_f64(),
        began.elapsed().as_secs_f64(),
        resident / MIB,
        gateway.resident() / MIB,
    );
    eventually("their files are closed", async || gateway.open_files() <= files + 50).await;
    assert!(decent.push("phoenix", "heartbeat", json!({})).await.expect("a reply").ok);
}
