//! What feeds count, of processes of their own: nobody else adds to it.

use switchboard_contract::testing::{NatsServer, eventually};

use crate::listener::{Counter, Listener, configuration, connect, want};
use crate::service::{Process, Service};

const FEEDS: &str = r#"
[[feed]]
name = "n"
interval = "200ms"
nats = "counter"

[[feed]]
name = "none"
interval = "200ms"
nats = "nowhere"

[sources.one]
connections = 1

[[feed]]
name = "slow"
interval = "200ms"
argument = "[0-9]"
source = "one"
nats = "mute"
"#;

#[tokio::test]
async fn polls_values_failures_and_take_overs_are_counted() {
    let Some(server) = NatsServer::start().await else { return };
    let (_folder, file) = configuration(FEEDS);
    let nats = connect(&server).await;
    let counter = Counter::new(&nats, "counter").await;
    let _mute = nats.client.subscribe("mute").await.expect("a subscription");
    let first = Service::start_with_feeds(&server, &file).await;
    let mut listeners = Vec::new();
    for feed in ["n", "none", "slow:1", "slow:2", "slow:3", "slow:4"] {
        listeners.push(Listener::joined(&nats, feed).await.0);
    }
    let process = Process::start_with_feeds(&server, &file).await;
    assert_eq!(process.metric("_panics_total").await, 0.0);
    first.stop().await;
    eventually("all are taken over", async || process.metric("s_owned").await == 6.0).await;
    assert_eq!(process.metric("_take_overs_total").await, 6.0);
    assert_eq!(process.metric("s_known").await, 6.0);

    let polls = async |outcome: &str| process.metric(&format!("_polls_total{{outcome=\"{outcome}\"}}")).await;
    let begun = (counter.polls() as f64, polls("ok").await);
    counter.reaches(counter.polls() + 5).await;
    eventually("polls that had a value", async || polls("ok").await >= begun.1 + 5.0).await;
    assert!(polls("ok").await <= counter.polls() as f64 && process.metric("_values_total").await >= 5.0);
    for outcome in ["unreachable", "late"] {
        eventually(outcome, async || polls(outcome).await > 1.0).await;
    }
    eventually("no turn", async || process.metric("_polls_skipped_total{reason=\"busy\"}").await > 0.0).await;
    let took = process.metric("_poll_seconds_count").await;
    let (ok, failed) = (polls("ok").await, polls("unreachable").await + polls("late").await);
    assert!(took > 5.0 && took <= ok + failed, "{took} of {ok} and {failed}");

    let requests = async |answer: &str| process.metric(&format!("_requests_total{{answer=\"{answer}\"}}")).await;
    want(&nats, &listeners[0].feed).await.expect("an answer");
    assert_eq!((requests("ok").await, requests("not_found").await), (1.0, 0.0));
    let unknown = switchboard_contract::names::FeedId::new("unknown").expect("a feed");
    want(&nats, &unknown).await.expect("an answer");
    assert_eq!((requests("ok").await, requests("not_found").await), (1.0, 1.0));

    let polled = async || listeners[1].record().await.and_then(|(_, record)| record.polled);
    eventually("failures are in the record", async || {
        polled().await.is_some_and(|polled| polled.failed > 0 && polled.failed == polled.polls)
    })
    .await;
}
