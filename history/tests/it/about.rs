//! What history answers about the system itself: the lobby's counts, the gateways, and all of it for operators.

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use switchboard_contract::ack::Outcome;
use switchboard_contract::inside::{GatewayInside, LobbyInside, Talk, Waiting};
use switchboard_contract::limits::REQUEST_TIMEOUT;
use switchboard_contract::lobby::{GatewayRecord, Leader, Status};
use switchboard_contract::names::{
    ChatId, GATEWAYS_LOOK, HISTORY_GATEWAYS, HISTORY_LOBBY, HISTORY_OPERATOR, Incarnation, MATCHER_STANDBY_PING,
    MatcherVerb, UserId, gateway_record_subject,
};
use switchboard_contract::nats::Nats;
use switchboard_contract::streams::{Asset, ensure};
use switchboard_contract::testing::{NatsServer, eventually};
use switchboard_contract::wire::{V1, encode};
use tokio_util::task::AbortOnDropHandle;

use crate::listener::{Counter, Listener, configuration, connect};
use crate::service::Service;

/// The answer, or the error that there is instead.
async fn ask(nats: &Nats, subject: &str) -> Result<Value, String> {
    let answer = nats.request(subject.to_owned(), Bytes::new(), REQUEST_TIMEOUT).await.expect("an answer");
    match answer.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error")) {
        Some(error) => Err(error.to_string()),
        None => Ok(serde_json::from_slice(&answer.payload).expect("JSON")),
    }
}

/// Answers whatever is asked on a subject; dropped, it does not.
async fn answers(nats: &Nats, subject: &str, answer: Bytes) -> AbortOnDropHandle<()> {
    let mut asked = nats.client.subscribe(subject.to_owned()).await.expect("a subscription");
    nats.round_trip(REQUEST_TIMEOUT).await.expect("it is live");
    let nats = nats.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(request) = asked.next().await {
            nats.publish(request.reply.expect("a request").into_string(), answer.clone()).await;
        }
    }))
}

fn named(name: &str) -> Incarnation {
    Incarnation::named(name).expect("a name")
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
async fn of_the_lobby_the_counts_are_told_and_who_waits_longest_and_nothing_else() {
    let Some(server) = NatsServer::start().await else { return };
    let nats = connect(&server).await;
    let service = Service::start(&server).await;
    let error = ask(&nats, HISTORY_LOBBY).await.expect_err("no matcher leads");
    assert!(error.contains("the matcher"), "{error}");
    let status =
        Status { epoch: 7, version: 9, teachers: 1, waiting: 2, chatting: 3, finished: 4, ..Status::default() };
    let leader = Leader { v: V1, leader: named("secret"), status, waiting_since: Some("then".into()) };
    let _matcher = answers(&nats, &MatcherVerb::Status.subject(), encode(&leader)).await;
    let counts = json!({
        "teachers": {"total": 1},
        "students": {"total": 9, "waiting": 2, "chatting": 3, "finished": 4},
        "waiting_since": "then",
    });
    assert_eq!(ask(&nats, HISTORY_LOBBY).await, Ok(counts));
    service.stop().await;
}

#[tokio::test]
async fn operators_are_shown_all_that_answers() {
    let Some(server) = NatsServer::start().await else { return };
    let nats = connect(&server).await;
    let (_folder, file) =
        configuration("[[feed]]\nname = \"n\"\ninterval = \"100ms\"\nargument = \"[a-z]\"\nnats = \"counter\"\n");
    let service = Service::start_with_feeds(&server, &file).await;
    let ask = async || ask(&nats, HISTORY_OPERATOR).await.expect("an answer");

    let nothing = ask().await;
    let matcher = json!({"leader": null, "epoch": null, "since": null, "standbys": [], "left_out": 0});
    assert!(nothing["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{nothing}");
    assert_eq!(nothing["matcher"], matcher);
    for part in ["lobby", "queue", "chats", "gateways"] {
        assert_eq!(nothing[part], Value::Null, "{part}");
    }
    assert_eq!(nothing["feeds"], json!({"all": [], "left_out": 0}));

    let status = Status { epoch: 7, teachers: 1, waiting: 2, chatting: 3, finished: 4, ..Status::default() };
    let (student, teacher) = (UserId::text("ada").expect("an id"), UserId::from(7));
    let talk = Talk {
        id: ChatId::new("c-1").expect("an id"),
        teacher: teacher.clone(),
        student: student.clone(),
        since: "then".into(),
    };
    let lobby = LobbyInside {
        v: V1,
        leader: named("m"),
        since: "long ago".into(),
        status,
        queue: vec![Waiting { student, since: "then".into() }],
        chats: vec![talk],
    };
    let leads = answers(&nats, &MatcherVerb::Look.subject(), encode(&lobby)).await;
    let pong = |name: &str| {
        let pong = json!({"type": "io.nats.micro.v1.ping_response", "name": "matcher-standby", "id": "x",
            "version": "0.1.0", "metadata": {"matcher": name}});
        Bytes::from(pong.to_string())
    };
    let _standbys = [
        answers(&nats, MATCHER_STANDBY_PING, pong("y")).await,
        answers(&nats, MATCHER_STANDBY_PING, pong("x")).await,
        answers(&nats, MATCHER_STANDBY_PING, "no JSON".into()).await,
    ];
    ensure(&nats, Asset::Gateways, 1).await.expect("a bucket");
    write(&nats, "b", Some(2)).await;
    write(&nats, "a", Some(3)).await;
    let answer = GatewayInside { v: V1, gateway: named("b"), connections: 9, draining: true, joins: 5, messages: 6 };
    let _gateway = answers(&nats, GATEWAYS_LOOK, encode(&answer)).await;
    let _counter = Counter::new(&nats, "counter").await;
    let (first, _) = Listener::joined(&nats, "n:b").await;
    let (_other, _) = Listener::joined(&nats, "n:a").await;
    first.value("a value", |_| true).await;
    eventually("both feeds are known", async || {
        ask().await["feeds"]["all"].as_array().is_some_and(|all| all.len() == 2)
    })
    .await;

    let all = ask().await;
    let matcher = json!({"leader": "m", "epoch": 7, "since": "long ago", "standbys": ["x", "y"], "left_out": 0});
    assert_eq!(all["matcher"], matcher);
    assert_eq!(all["lobby"], json!({"teachers": 1, "waiting": 2, "chatting": 3, "finished": 4}));
    assert_eq!(all["queue"], json!({"first": [{"student": "ada", "since": "then"}], "left_out": 1}));
    let talk = json!({"id": "c-1", "teacher": 7, "student": "ada", "since": "then"});
    assert_eq!(all["chats"], json!({"newest": [talk], "left_out": 2}));
    let (a, b) = (&all["gateways"]["all"][0], &all["gateways"]["all"][1]);
    let silent = json!({"name": "a", "version": "0.1.0", "connections": 3, "draining": null, "since": "then",
        "joins": null, "messages": null});
    let answers = json!({"name": "b", "version": "0.1.0", "connections": 9, "draining": true, "since": "then",
        "joins": 5, "messages": 6});
    assert_eq!((a, b, &all["gateways"]["left_out"]), (&silent, &answers, &json!(0)));
    let (_, record) = first.record().await.expect("a record");
    assert_eq!((&all["histories"], &all["histories_left_out"]), (&json!([record.owner]), &json!(0)));
    let names = ["n:a", "n:b"].map(|name| json!(name));
    assert_eq!([&all["feeds"]["all"][0]["name"], &all["feeds"]["all"][1]["name"]], names.each_ref());
    let of = &all["feeds"]["all"][1];
    assert!(of["owner"] == json!(record.owner) && of["polls"].as_u64() > Some(0) && of["stale"].is_null(), "{of}");

    drop(leads);
    eventually("nobody leads", async || {
        let without = ask().await;
        without["lobby"].is_null() && without["queue"].is_null() && without["gateways"] == all["gateways"]
    })
    .await;
    service.stop().await;
}
