//! What history answers about the system itself: the lobby's counts, and the gateways.

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use switchboard_contract::ack::Outcome;
use switchboard_contract::limits::REQUEST_TIMEOUT;
use switchboard_contract::lobby::{GatewayRecord, Leader, Status};
use switchboard_contract::names::{HISTORY_GATEWAYS, HISTORY_LOBBY, Incarnation, MatcherVerb, gateway_record_subject};
use switchboard_contract::nats::Nats;
use switchboard_contract::streams::{Asset, ensure};
use switchboard_contract::testing::NatsServer;
use switchboard_contract::wire::{V1, encode};

use crate::listener::connect;
use crate::service::Service;

/// The answer, or the error that there is instead.
async fn ask(nats: &Nats, subject: &str) -> Result<Value, String> {
    let answer = nats.request(subject.to_owned(), Bytes::new(), REQUEST_TIMEOUT).await.expect("an answer");
    match answer.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error")) {
        Some(error) => Err(error.to_string()),
        None => Ok(serde_json::from_slice(&answer.payload).expect("JSON")),
    }
}

/// Writes as a gateway does.
async fn write(nats: &Nats, name: &str, connections: Option<u64>) {
    let gateway = Incarnation::named(name).expect("a name");
    let subject = gateway_record_subject(&gateway);
    let mut headers = HeaderMap::new();
    let body = match connections {
        Some(connections) => encode(&GatewayRecord {
            v: V1,
            gateway,
            address: "127.0.0.1:4000".into(),
            version: "0.1.0".into(),
            connections,
            since: "then".into(),
        }),
        None => {
            headers.insert("KV-Operation", "DEL");
            Bytes::new()
        }
    };
    let answer = nats.request_with(subject, Some(headers), body, REQUEST_TIMEOUT).await.expect("an answer");
    assert!(matches!(nats.refusals.read(&answer.payload), Outcome::Committed { .. }), "{answer:?}");
}

#[tokio::test]
async fn the_live_gateways_are_counted_and_shown_by_name() {
    let Some(server) = NatsServer::start().await else { return };
    let nats = connect(&server).await;
    let service = Service::start(&server).await;
    assert!(ask(&nats, HISTORY_GATEWAYS).await.is_err(), "nobody has made the bucket yet");
    ensure(&nats, Asset::Gateways, 1).await.expect("a bucket");
    let none = json!({"total": {"gateways": 0, "connections": 0}, "gateways": [], "left_out": 0});
    assert_eq!(ask(&nats, HISTORY_GATEWAYS).await, Ok(none));
    for (name, connections) in [("b", 2), ("c", 9), ("a", 3), ("b", 4)] {
        write(&nats, name, Some(connections)).await;
    }
    write(&nats, "c", None).await;
    let two = json!({
        "total": {"gateways": 2, "connections": 7},
        "gateways": [{"name": "a", "connections": 3}, {"name": "b", "connections": 4}],
        "left_out": 0,
    });
    assert_eq!(ask(&nats, HISTORY_GATEWAYS).await, Ok(two), "c has said goodbye");
    for n in 0..150 {
        write(&nats, &format!("n{n:03}"), Some(1)).await;
    }
    let many = ask(&nats, HISTORY_GATEWAYS).await.expect("an answer");
    assert_eq!((&many["total"], &many["left_out"]), (&json!({"gateways": 152, "connections": 157}), &json!(52)));
    service.stop().await;
}

#[tokio::test]
async fn of_the_lobby_the_counts_are_told_and_nothing_else() {
    let Some(server) = NatsServer::start().await else { return };
    let nats = connect(&server).await;
    let service = Service::start(&server).await;
    let error = ask(&nats, HISTORY_LOBBY).await.expect_err("no matcher leads");
    assert!(error.contains("the matcher"), "{error}");
    let mut asked = nats.client.subscribe(MatcherVerb::Status.subject()).await.expect("a subscription");
    nats.round_trip(REQUEST_TIMEOUT).await.expect("it is live");
    let matcher = nats.clone();
    tokio::spawn(async move {
        while let Some(request) = asked.next().await {
            let status =
                Status { epoch: 7, version: 9, teachers: 1, waiting: 2, chatting: 3, finished: 4, ..Status::default() };
            let leader = Leader { v: V1, leader: Incarnation::named("secret").expect("a name"), status };
            matcher.publish(request.reply.expect("a request").into_string(), encode(&leader)).await;
        }
    });
    let counts =
        json!({"teachers": {"total": 1}, "students": {"total": 9, "waiting": 2, "chatting": 3, "finished": 4}});
    assert_eq!(ask(&nats, HISTORY_LOBBY).await, Ok(counts));
    service.stop().await;
}
