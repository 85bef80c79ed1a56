//! One that never reads, and some that send a byte a second.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use switchboard::client::Vsn;
use switchboard_contract::limits::HTTP_HEADER_TIMEOUT;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{interval, timeout};

use super::IDLE_TIMEOUT;
use crate::harness::{SOON, System};
use crate::raw::{self, Raw, masked};

const CLOSED: &str = "switchboard_gateway_closes_total{code=\"1008\"}";
/// How many never read.
const DEAF: usize = 10;
/// What they may cost: each has a queue of frames, which they share, and what is being written to it.
const COST_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// How many send a byte a second, of each kind.
const SLOW: usize = 50;

/// In a busy room, beside one that reads.
pub(super) async fn one_that_never_reads(system: &System) {
    let (gateway, url) = (&system.gateways[0].1, system.gateway(0));
    let (before, closed) = (gateway.resident(), gateway.metric(CLOSED).await.unwrap_or(0));
    let mut deaf = Vec::new();
    for n in 0..DEAF {
        let mut raw = Raw::upgraded(&url, Vsn::V2).await;
        raw.text(&format!(r#"["1","1","room:deaf","phx_join",{{"userId":"deaf-{n}"}}]"#)).await;
        deaf.push(raw);
    }
    let mut hears = system.client(0, Vsn::V2).await;
    let mut loud = system.client(1, Vsn::V2).await;
    for (client, rank) in [(&mut hears, 10), (&mut loud, 100)] {
        let reply = client.join("room:deaf", json!({"rank": rank})).await.expect("a reply");
        assert!(reply.ok, "{reply:?}");
    }
    let large = json!({"x": "x".repeat(31 * 1024)});
    let mut most = before;
    let mut heard = 0;
    let began = Instant::now();
    while gateway.metric(CLOSED).await.unwrap_or(0) < closed + DEAF as u64 {
        assert!(began.elapsed() < 4 * SOON, "some that never read are kept for ever");
        for _ in 0..20 {
            assert!(loud.push("room:deaf", "typing", &large).await.expect("a reply").ok);
            hears.expect_on("room:deaf", "typing", SOON).await.expect("who reads hears all");
            heard += 1;
        }
        assert!(hears.push("phoenix", "heartbeat", json!({})).await.expect("a reply").ok);
        most = most.max(gateway.resident());
        // They are not silent, only deaf.
        for raw in &mut deaf {
            let beat = masked(0x81, br#"[null,"2","phoenix","heartbeat",{}]"#);
            let _ = timeout(Duration::from_millis(1), raw.send(&beat)).await;
        }
    }
    let cost = most.saturating_sub(before);
    eprintln!("slow: {DEAF} that never read were closed after {heard} frames of 31 KiB; {} MiB more", cost >> 20);
    assert!(cost < COST_BYTES_MAX, "{cost} bytes");
    for raw in &mut deaf {
        assert!(matches!(raw.closed().await, Some(1008) | None));
    }
}

/// In the request for the upgrade, behind a request, and inside a frame: each is closed in its time.
pub(super) async fn a_byte_a_second(system: &System) {
    let url = system.gateway(0);
    let request = raw::request(&url, Vsn::V2);
    let headers = async |at_once: &[u8], slowly: &[u8]| {
        let mut stream = raw::connect(&url).await.expect("a connection");
        stream.write_all(at_once).await.expect("sent");
        let (mut reading, mut writing) = stream.split();
        let began = Instant::now();
        let dribble = async {
            let mut tick = interval(Duration::from_secs(1));
            for byte in slowly {
                tick.tick().await;
                if writing.write_all(&[*byte]).await.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        let ended = async { while reading.read(&mut [0; 512]).await.is_ok_and(|read| read > 0) {} };
        let ended = tokio::select! {
            () = dribble => false,
            () = ended => true,
            () = tokio::time::sleep(HTTP_HEADER_TIMEOUT + SOON) => false,
        };
        assert!(ended, "it is kept for ever");
        assert!(began.elapsed() + Duration::from_millis(100) >= HTTP_HEADER_TIMEOUT, "{:?}", began.elapsed());
    };
    let frames = async |first: u8| {
        let mut raw = Raw::upgraded(&url, Vsn::V2).await;
        let frame = masked(first, &[b'['; 1000]);
        let mut tick = interval(Duration::from_secs(1));
        // A moment less than it may: what comes behind the end has the connection reset, and the close frame is lost.
        for byte in &frame[..usize::try_from(IDLE_TIMEOUT.as_secs()).expect("a count") - 1] {
            tick.tick().await;
            raw.send(&[*byte]).await;
        }
        assert_eq!(raw.closed().await, Some(1001));
    };
    let whole = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    tokio::join!(
        join_all((0..SLOW).map(|_| headers(b"", request.as_bytes()))),
        join_all((0..SLOW).map(|_| headers(whole, request.as_bytes()))),
        join_all((0..SLOW).map(|n| frames(if n % 2 == 0 { 0x81 } else { 0x01 }))),
    );
}
