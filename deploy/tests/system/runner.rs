//! `switchboard up`: starting, dying, stopping.

use std::net::TcpListener;

use rustix::process::Signal;
use switchboard_contract::admin;
use switchboard_contract::testing::{DEADLINE, eventually};

use crate::support::{Place, all_gone};

#[tokio::test]
async fn everything_comes_up_a_killed_gateway_comes_back_and_nothing_stays_behind() {
    let Some(place) = Place::new() else { return };
    let up = place.up(&[]);
    up.says(&[" ready: ", &format!("http://127.0.0.1:{}", place.gateway_port)]).await;
    for name in ["nats", "matcher-1", "matcher-2", "history-1", "history-2", "gateway-1", "gateway-2"] {
        up.says(&[name, " is up: "]).await;
        assert!(place.process(name).is_some_and(|process| process.id.is_alive()), "{name}");
    }

    eventually("status shows a leader and two gateways", async || {
        let status = place.switchboard(&["status"]).output().await.expect("it runs");
        let table = String::from_utf8(status.stdout).expect("text");
        status.status.success() && table.contains(" leads") && table.matches("127.0.0.1:").count() == 2
    })
    .await;

    let second = place.up(&[]).end().await;
    assert_eq!(second.0.code(), Some(1), "{}", second.1);
    assert!(second.1.contains(&format!("already running (pid {}", up.id.pid)), "{}", second.1);

    let killed = place.process("gateway-1").expect("it runs");
    killed.id.signal(Signal::KILL);
    up.says(&["gateway-1", "SIGKILL"]).await;
    eventually("gateway-1 is ready again", async || {
        let now = place.process("gateway-1").expect("it is known");
        now.id != killed.id
            && admin::ask(now.admin.expect("a port"), "/health/ready", DEADLINE)
                .await
                .is_ok_and(|(code, _)| code == 200)
    })
    .await;

    let processes = place.run_file().expect("it runs").processes;
    assert_eq!(processes.len(), 7);
    up.id.signal(Signal::TERM);
    let (status, said) = up.end().await;
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("stopped") && place.run_file().is_none(), "{said}");
    assert!(processes.iter().all(|process| !process.id.is_alive()), "{said}");
}

#[tokio::test]
async fn after_a_killed_runner_the_next_one_cleans_up_and_has_its_data() {
    let Some(place) = Place::new() else { return };
    let up = place.up(&["--gateways", "1"]);
    up.says(&[" ready: "]).await;
    let left = place.run_file().expect("it runs").processes;
    up.id.signal(Signal::KILL);
    up.end().await;
    let kept = place.folder().join("data/nats/kept");
    std::fs::write(&kept, "").expect("written");

    let up = place.up(&["--gateways", "1"]);
    up.says(&["an earlier run left", "gateway-1"]).await;
    up.says(&[" ready: "]).await;
    assert!(left.iter().all(|process| !process.id.is_alive()));
    assert!(kept.exists());
    up.id.signal(Signal::INT);
    up.end().await;

    let up = place.up(&["--gateways", "1", "--fresh"]);
    up.says(&[" ready: "]).await;
    assert!(!kept.exists());
    up.id.signal(Signal::HUP);
    assert_eq!(up.end().await.0.code(), Some(0));
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let Some(place) = Place::new() else { return };
    let taken = TcpListener::bind(("127.0.0.1", place.gateway_port + 1)).expect("a free port");
    let (status, said) = place.up(&[]).end().await;
    assert_eq!(status.code(), Some(1), "{said}");
    let port = (place.gateway_port + 1).to_string();
    for text in [&*port, "gateway-2 wants it", "GATEWAY_PORT"] {
        assert!(said.contains(text), "{text} is not in {said}");
    }
    assert!(place.run_file().is_none());
    drop(taken);
}

#[tokio::test]
async fn five_deaths_end_the_run() {
    let Some(place) = Place::new() else { return };
    let up = place.up(&["--gateways", "1"]);
    up.says(&[" ready: "]).await;
    let all = place.run_file().expect("it runs").processes;
    let mut victim = place.process("history-1").expect("it runs").id;
    for n in 1..=5 {
        victim.signal(Signal::KILL);
        if n < 5 {
            eventually("history-1 is started again", async || {
                place.process("history-1").is_some_and(|process| process.id != victim && process.id.is_alive())
            })
            .await;
            victim = place.process("history-1").expect("it runs").id;
        }
    }
    let (status, said) = up.end().await;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("5 deaths within a minute"), "{said}");
    all_gone(&all).await;
}

#[tokio::test]
async fn a_signal_during_the_start_stops_what_has_been_started() {
    let Some(place) = Place::new() else { return };
    let up = place.up(&["--gateways", "1"]);
    up.says(&["nats is up"]).await;
    let started = place.run_file().map(|run_file| run_file.processes).unwrap_or_default();
    up.id.signal(Signal::TERM);
    let (status, said) = up.end().await;
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(place.run_file().is_none());
    all_gone(&started).await;
}

#[tokio::test]
async fn a_second_signal_kills_what_does_not_stop() {
    let Some(place) = Place::new() else { return };
    let up = place.up(&["--gateways", "1"]);
    up.says(&[" ready: "]).await;
    let all = place.run_file().expect("it runs").processes;
    // A process that is paused does not stop.
    place.process("matcher-1").expect("it runs").id.signal(Signal::STOP);
    up.id.signal(Signal::TERM);
    up.says(&["stopping"]).await;
    up.id.signal(Signal::TERM);
    let (status, said) = up.end().await;
    assert_eq!(status.code(), Some(1), "{said}");
    all_gone(&all).await;
}

#[tokio::test]
async fn three_nats_servers_and_a_killed_one_comes_back_with_its_data() {
    let Some(place) = Place::new() else { return };
    let up = place.up(&["--gateways", "1", "--nats-servers", "3"]);
    up.says(&[" ready: "]).await;
    let ready = async |name: &str| {
        let admin = place.process(name).and_then(|process| process.admin).expect("it is known");
        admin::ask(admin, "/healthz", DEADLINE).await.is_ok_and(|(code, _)| code == 200)
    };
    let leader = async || {
        let status = place.switchboard(&["status"]).output().await.expect("it runs");
        String::from_utf8_lossy(&status.stdout).contains(" leads")
    };
    eventually("a matcher leads", leader).await;

    let killed = place.process("nats-2").expect("it runs");
    killed.id.signal(Signal::KILL);
    eventually("nats-2 runs again, and its replicas are current", async || {
        place.process("nats-2").expect("it is known").id != killed.id && ready("nats-2").await
    })
    .await;
    let streams = place.folder().join("data/nats-2/jetstream/$G/streams");
    assert!(streams.join("ROOMS").is_dir() && streams.join("KV_lobby").is_dir(), "{}", streams.display());
    eventually("the others are current", async || ready("nats-1").await && ready("nats-3").await).await;
    eventually("a matcher still leads", leader).await;

    up.id.signal(Signal::KILL);
    up.end().await;
    let up = place.up(&["--gateways", "1", "--nats-servers", "3"]);
    up.says(&["an earlier run left", "nats-1", "nats-2", "nats-3"]).await;
    up.says(&[" ready: "]).await;
    up.id.signal(Signal::TERM);
    let (status, said) = up.end().await;
    assert_eq!(status.code(), Some(0), "{said}");
}
