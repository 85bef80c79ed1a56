//! Feeds from source to client: a source that is a NATS request, a history service, two gateways, both serializers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use switchboard::client::{Client, Vsn};
use switchboard_contract::testing::eventually;

use crate::feed_member::file;
use crate::harness::{A_WHILE, SOON, Shape, System};

const FEEDS: &str = r#"
[[feed]]
name = "count"
interval = "100ms"
argument = "[a-z]+"
nats = "source"
"#;

/// A source that counts who asks it, and answers with its value, or not.
struct Source {
    asked: Arc<AtomicU64>,
    value: Arc<AtomicU64>,
}

/// It does not answer.
const MUTE: u64 = 0;

impl Source {
    async fn start(system: &System) -> Source {
        let nats = async_nats::connect(system.nats.url()).await.expect("a connection");
        let mut requests = nats.subscribe("source").await.expect("a subscription");
        nats.flush().await.expect("a connection");
        let source = Source { asked: Arc::default(), value: Arc::new(AtomicU64::new(1)) };
        let (asked, value) = (source.asked.clone(), source.value.clone());
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                asked.fetch_add(1, Ordering::Relaxed);
                let value = value.load(Ordering::Relaxed);
                if let (Some(reply), true) = (request.reply, value != MUTE) {
                    let body = json!({"value": value}).to_string();
                    nats.publish(reply, body.into()).await.expect("a connection");
                }
            }
        });
        source
    }

    fn set(&self, value: u64) {
        self.value.store(value, Ordering::Relaxed);
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn event(client: &mut Client, event: &str) -> Value {
    client.expect_on("feed:count:a", event, SOON).await.expect(event).payload
}

#[tokio::test]
async fn a_feed_is_polled_for_all_its_members_and_for_nobody_else() {
    let (_folder, file) = file(FEEDS);
    let Some(system) = System::of(Shape::history(&["--feeds", &file])).await else { return };
    let source = Source::start(&system).await;

    let mut ada = system.client(0, Vsn::V2).await;
    let reply = ada.join("feed:count:a", json!({})).await.expect("a reply");
    assert!(reply.ok, "{reply:?}");
    if reply.response["value"].is_null() {
        assert_eq!(event(&mut ada, "update").await["value"], json!({"value": 1}));
    }
    let mut bob = system.client(1, Vsn::V1).await;
    let reply = bob.join("feed:count:a", json!({})).await.expect("a reply");
    assert!(reply.ok, "{reply:?}");
    assert_eq!(reply.response["value"], json!({"value": 1}), "the last value at once");
    let first = reply.response["version"].clone();
    ada.expect_none("update", A_WHILE).await.expect("it has not changed");

    source.set(2);
    let (to_ada, to_bob) = (event(&mut ada, "update").await, event(&mut bob, "update").await);
    assert_eq!(to_ada, to_bob);
    assert_eq!(to_ada["value"], json!({"value": 2}));
    assert!(to_ada["version"][1].as_u64() > first[1].as_u64() && to_ada["at"].is_string(), "{first} {to_ada}");

    source.set(MUTE);
    for client in [&mut ada, &mut bob] {
        let stale = event(client, "stale").await;
        assert!(stale["since"].is_string() && stale["reason"].is_string(), "{stale}");
    }
    source.set(3);
    for client in [&mut ada, &mut bob] {
        assert_eq!(event(client, "update").await["value"], json!({"value": 3}));
    }

    for (topic, reason) in [("feed:count:B'; drop", "not_found"), ("feed:count", "not_found"), ("feed:x", "not_found")]
    {
        let reply = ada.join(topic, json!({})).await.expect("a reply");
        assert_eq!(reply.reason(), Some(reason), "{topic}");
    }

    for client in [&mut ada, &mut bob] {
        assert!(client.push("feed:count:a", "phx_leave", json!({})).await.expect("a reply").ok);
    }
    eventually("no record", async || system.feeds().await.is_empty()).await;
    let asked = source.asked();
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(source.asked(), asked, "nobody asks for it any more");
}
