//! A thousand who talk all the time, in rooms of ten and in chats, and are judged at the end: nobody was disconnected,
//! all was answered with `ok`, and everybody got everything once and in order.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use switchboard::runfile::ProcessId;
use switchboard_contract::testing::eventually;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::harness::System;
use crate::side::{Side, agree, sides_of, talk};

const ROOMS: u64 = 96;
const CHATS: usize = 20;
const MEMBERS: u64 = 10;
/// From one message of a side of a chat to its next, and of a member of a room to its next.
const PACE: Duration = Duration::from_secs(4);
/// The rooms' verdict, the load's own deadlines included.
const VERDICT_WITHIN: Duration = Duration::from_secs(180);

/// What a gateway is told to let the same few users be in all rooms, and say the same words.
pub(crate) const FLAGS: [&str; 6] = ["--broadcast-rate", "0", "--join-rate", "0", "--repeats", "0"];

/// A feed that is there for whoever wants one.
pub(crate) const FEEDS: &str = "[[feed]]\nname = \"lobby\"\ninterval = \"1s\"\nnats = \"sb.history.lobby\"\n";

/// The crowd. Its rooms are another process, and its chats other tasks.
pub(crate) struct Crowd {
    rooms: Child,
    chats: Vec<JoinHandle<(Side, Side)>>,
    over: CancellationToken,
}

impl Crowd {
    /// Waits until all of them talk.
    pub(crate) async fn gather(system: &System) -> Crowd {
        let over = CancellationToken::new();
        let mut chats = Vec::new();
        for n in 0..CHATS {
            let (mut one, mut other) = sides_of(system, &format!("crowd-t{n}"), &format!("crowd-s{n}")).await;
            let over = over.clone();
            chats.push(tokio::spawn(async move {
                while over.run_until_cancelled(tokio::time::sleep(PACE)).await.is_some() {
                    talk(&mut one, &mut other, 1).await;
                }
                (one, other)
            }));
        }
        let rooms = rooms(system, Duration::from_secs(86_400)).spawn().expect("the load starts");
        let crowd = Crowd { rooms, chats, over };
        eventually("the crowd talks", async || {
            let mut connections = 0;
            for (_, gateway) in &system.gateways {
                connections += gateway.metric("switchboard_gateway_connections").await.unwrap_or(0);
            }
            connections >= ROOMS * MEMBERS + 2 * CHATS as u64
        })
        .await;
        crowd
    }

    /// Ends the talk; gives from side to side p50 and p99, in milliseconds.
    pub(crate) async fn verdict(self) -> (f64, f64) {
        let load = self.rooms.id().and_then(ProcessId::of).expect("the rooms have not failed before");
        load.signal(Signal::USR1);
        self.over.cancel();
        for chat in self.chats {
            let (mut one, mut other) = chat.await.expect("nobody in a chat was disturbed");
            agree(&mut one, &mut other).await;
        }
        judged(self.rooms).await
    }
}

/// What members of rooms notice while nobody is hostile, in the time given: from side to side p50 and p99.
pub(crate) async fn calm(system: &System, time: Duration) -> (f64, f64) {
    judged(rooms(system, time).spawn().expect("the load starts")).await
}

fn rooms(system: &System, time: Duration) -> Command {
    let mut load = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    load.args(["load", "rooms", "--json", "--churn", "0", "--folder", "/nonexistent"]);
    let (rooms, members) = (ROOMS.to_string(), MEMBERS.to_string());
    let (seconds, pace) = (time.as_secs().to_string(), PACE.as_millis().to_string());
    load.args(["--rooms", &rooms, "--members", &members, "--seconds", &seconds, "--pace", &pace]);
    for gateway in 0..system.gateways.len() {
        load.args(["--gateway", &system.gateway(gateway)]);
    }
    load.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    load
}

/// The rooms' verdict, which has to be good.
async fn judged(load: Child) -> (f64, f64) {
    let output = timeout(VERDICT_WITHIN, load.wait_with_output()).await.expect("a verdict in time").expect("its end");
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert_eq!(output.status.code(), Some(0), "{report}\n{said}");
    let none = ["violation", "reconnects", "unavailable", "rate_limited", "gaps"].map(|name| &report[name]);
    assert_eq!(none, [&Value::Null, &0.into(), &0.into(), &0.into(), &0.into()], "{report}");
    assert!(report["messages"].as_u64() > Some(0), "{report}");
    let time = |name: &str| report["message_ms"][name].as_f64().unwrap_or_else(|| panic!("{name} in {report}"));
    (time("p50"), time("p99"))
}
