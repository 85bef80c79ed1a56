//! Any bytes, and any shapes of frames, against a live gateway: what has a ref is answered, or the socket is closed
//! with a code of the protocol; the gateway lives on, and a decent socket beside notices nothing.

mod shapes;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use serde_json::{Value, json};
use switchboard::client::{Client, Vsn};
use switchboard_contract::limits::FRAME_BYTES_MAX;
use switchboard_contract::reason::CloseCode;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout_at};

use crate::crowd;
use crate::feed_member::file;
use crate::harness::{Shape, System};
use crate::raw::{Raw, masked};
use shapes::Step;

/// Silence after which the gateways close: what is waiting for the rest of a frame hangs no longer than that. Seconds.
const IDLE_TIMEOUT: &str = "3";
/// All is answered, or closed, within this time: 5 s for the answers, and some for a slow machine.
const WITHIN: Duration = Duration::from_secs(20);
/// The decent socket's pace: often enough not to be closed for its silence.
const TALKS_EVERY: Duration = Duration::from_millis(200);
/// How long a failing case is made smaller. Milliseconds.
const SHRINK_MS: u32 = 120_000;

/// What one socket sends, and which serializer it speaks.
#[derive(Clone, Debug)]
struct Play {
    vsn: Vsn,
    steps: Vec<Step>,
}

fn plays(steps: impl Strategy<Value = Step>, at_once: usize) -> impl Strategy<Value = Vec<Play>> {
    let vsn = proptest::prop_oneof![1 => proptest::strategy::Just(Vsn::V1), 2 => proptest::strategy::Just(Vsn::V2)];
    let play = (vsn, proptest::collection::vec(steps, 1..12)).prop_map(|(vsn, steps)| Play { vsn, steps });
    proptest::collection::vec(play, 1..=at_once)
}

/// A system, and a decent socket on its only gateway.
struct Range {
    runtime: Runtime,
    system: System,
    decent: Client,
}

impl Range {
    fn open() -> Option<Range> {
        let runtime = Runtime::new().expect("a runtime");
        let (_folder, feeds) = file(crowd::FEEDS);
        let gateway = [&crowd::FLAGS[..], &["--direct-rate", "0", "--idle-timeout", IDLE_TIMEOUT]].concat();
        let history = ["--feeds", &feeds];
        let (system, decent) = runtime.block_on(async {
            let shape = Shape { gateways: 1, history: &history, ..Shape::gateway(&gateway) };
            let system = System::of(shape).await?;
            let mut decent = system.client(0, Vsn::V2).await;
            let reply = decent.join("room:decent", json!({"userId": "decent"})).await.expect("a reply");
            assert!(reply.ok, "{reply:?}");
            Some((system, decent))
        })?;
        Some(Range { runtime, system, decent })
    }

    /// Plays so many cases, all that follow from the seed.
    fn run(&mut self, what: &str, plays: impl Strategy<Value = Vec<Play>>, cases: u32, seed: u64) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let config = Config { cases, failure_persistence: None, max_shrink_time: SHRINK_MS, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        let Range { runtime, system, decent } = self;
        let decent = std::cell::RefCell::new(decent);
        let outcome = runner.run(&plays, |plays| {
            let mut decent = decent.borrow_mut();
            runtime.block_on(play_all(system, &mut decent, &plays)).map_err(TestCaseError::fail)
        });
        if let Err(error) = outcome {
            panic!("FUZZ_SEED={seed} repeats it: {what}: {error}");
        }
    }

    /// Some of everything.
    fn round(&mut self, seed: u64, (shapes, bytes): (u32, u32)) {
        self.run("shapes", plays(shapes::frames(), 4), shapes, seed);
        self.run("bytes", plays(shapes::anything(), 32), bytes, seed);
    }
}

/// Plays one case; says what is wrong.
async fn play_all(system: &System, decent: &mut Client, plays: &[Play]) -> Result<(), String> {
    let hostile = async { join_all(plays.iter().map(|play| play_one(system, play))).await.into_iter().collect() };
    let beside = async {
        while talks(decent).await.is_ok() {
            sleep(TALKS_EVERY).await;
        }
    };
    tokio::select! {
        outcome = hostile => outcome,
        () = beside => Ok(()),
    }?;
    talks(decent).await?;
    system.gateways[0].1.metrics().await.map(|_| ()).ok_or_else(|| "the gateway is gone".to_owned())
}

/// The decent socket says something, and is answered.
async fn talks(decent: &mut Client) -> Result<(), String> {
    match decent.push("room:decent", "new_msg", json!({"broadcast": true})).await {
        Ok(reply) if reply.ok => Ok(()),
        other => Err(format!("a decent socket beside got {other:?}")),
    }
}

async fn play_one(system: &System, Play { vsn, steps }: &Play) -> Result<(), String> {
    let mut raw = Raw::upgraded(&system.gateway(0), *vsn).await;
    let mut decent = true;
    for (at, step) in steps.iter().enumerate() {
        let bytes = step.bytes(*vsn, at);
        decent &= step.is_good() && bytes.len() <= FRAME_BYTES_MAX;
        raw.send(&bytes).await;
    }
    let end = match vsn {
        Vsn::V1 => r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"end"}"#,
        Vsn::V2 => r#"[null,"end","phoenix","heartbeat",{}]"#,
    };
    raw.send(&masked(0x81, end.as_bytes())).await;
    let mut awaited: Vec<String> = shapes::answered(steps).map(shapes::reference).collect();
    awaited.push("end".to_owned());
    let deadline = (Instant::now() + WITHIN).into();
    while !awaited.is_empty() {
        let Ok(next) = timeout_at(deadline, raw.next()).await else {
            return Err(format!("no answer to {awaited:?}"));
        };
        match next {
            None => return Err("the connection has ended without a close frame".to_owned()),
            Some((0x88, data)) => {
                let code = data.first_chunk().map(|code| u16::from_be_bytes(*code));
                return closed(code, decent, steps.iter().any(Step::may_close));
            }
            Some((0x81, data)) => {
                let frame: Value = serde_json::from_slice(&data).map_err(|error| format!("{error}: no JSON"))?;
                let (reference, event) = match vsn {
                    Vsn::V1 => (&frame["ref"], &frame["event"]),
                    Vsn::V2 => (&frame[1], &frame[3]),
                };
                if event == "phx_reply" {
                    awaited.retain(|awaited| reference != awaited.as_str());
                }
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Whether a socket may be closed with this code; `own`: the client may have sent a close frame itself, whose code
/// comes back.
fn closed(code: Option<u16>, decent: bool, own: bool) -> Result<(), String> {
    let of_the_protocol = CloseCode::ALL.iter().any(|known| Some(known.code()) == code);
    match decent {
        true => Err(format!("closed with {code:?} though nothing was wrong")),
        false if of_the_protocol || own => Ok(()),
        false => Err(format!("closed with {code:?}")),
    }
}

/// The first seed: that of the environment, or one of chance.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("FUZZ_SEED").ok().map(|seed| seed.parse().expect("FUZZ_SEED is a number"));
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) ^ u64::from(rand_of_now()));
    eprintln!("FUZZ_SEED={seed}");
    seed
}

fn rand_of_now() -> u32 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").subsec_nanos()
}

#[test]
fn whatever_comes_is_answered_or_closed() {
    let Some(mut range) = Range::open() else { return };
    range.round(seed(), (250, 8));
}

/// The same for FUZZ_SECONDS, an hour by default.
#[test]
#[ignore = "an hour: make test-long"]
fn whatever_comes_is_answered_or_closed_for_long() {
    let seconds = std::env::var("FUZZ_SECONDS").map_or(3_600, |s| s.parse().expect("FUZZ_SECONDS is a number"));
    let Some(mut range) = Range::open() else { return };
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut rounds = 0;
    for seed in seed().. {
        range.round(seed, (250, 8));
        rounds += 1;
        if Instant::now() > until {
            break;
        }
    }
    eprintln!("{rounds} rounds");
}
