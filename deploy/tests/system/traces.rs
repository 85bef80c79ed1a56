//! Traces: one from a push to all who get it, of services that were built with the feature `otel`.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};
use switchboard::client::Vsn;
use switchboard_contract::limits::SHUTDOWN_TIMEOUT;
use switchboard_contract::testing::{DEADLINE, eventually, skipped};

use crate::harness::{Shape, System, chat};
use crate::rooms::Member;
use crate::web::Web;

/// As JSON, so that it can be read here.
const PROTOCOL: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json");
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const ALL: (&str, &str) = ("OTEL_TRACES_SAMPLER", "always_on");
const AT_ONCE: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "50");
/// Longer than any test.
const AT_THE_END: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "600000");
/// What is said, and must be in no trace.
const SECRET: &str = "a secret among friends";

/// Whether the services can trace: who built them without is told how to.
fn can_trace() -> bool {
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_switchboard")).parent().expect("a folder");
    let help = Command::new(folder.join("switchboard-gateway")).arg("--help").output().expect("a gateway").stdout;
    let can = String::from_utf8_lossy(&help).contains(ENDPOINT);
    if !can {
        skipped("services with traces (cargo build --workspace --bins --features otel)");
    }
    can
}

/// A span as it was exported.
#[derive(Clone, Debug)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: u64,
    service: String,
    /// Which process.
    instance: String,
    attributes: BTreeMap<String, String>,
}

fn attributes(of: &Value) -> BTreeMap<String, String> {
    let all = of["attributes"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().map(|one| (text(&one["key"]), text(&one["value"]["stringValue"]))).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// All that came to the collector so far.
fn spans(collector: &Web) -> Vec<Span> {
    let mut spans = Vec::new();
    for body in collector.told() {
        let told: Value = serde_json::from_slice(&body).expect("JSON");
        for resource in told["resourceSpans"].as_array().expect("spans of processes") {
            let who = attributes(&resource["resource"]);
            let all = resource["scopeSpans"].as_array().expect("spans").iter();
            for span in all.flat_map(|scope| scope["spans"].as_array().expect("spans")) {
                spans.push(Span {
                    trace: text(&span["traceId"]),
                    id: text(&span["spanId"]),
                    parent: text(&span["parentSpanId"]),
                    name: text(&span["name"]),
                    kind: span["kind"].as_u64().expect("a kind"),
                    service: who["service.name"].clone(),
                    instance: who["service.instance.id"].clone(),
                    attributes: attributes(span),
                });
            }
        }
    }
    spans
}

/// Of these, those of this name below that one.
fn below<'a>(spans: &'a [Span], parent: &Span, name: &str) -> Vec<&'a Span> {
    let mut found: Vec<&Span> = spans
        .iter()
        .filter(|span| (&span.trace, &span.parent) == (&parent.trace, &parent.id) && span.name == name)
        .collect();
    found.sort_by(|a, b| a.instance.cmp(&b.instance));
    found
}

/// The header of each entry that the log has, if it has one.
async fn headers(system: &System) -> Vec<Option<String>> {
    let context = async_nats::jetstream::new(system.nats.client().await);
    let stream = context.get_stream("ROOMS").await.expect("the stream");
    let mut headers = Vec::new();
    let state = &stream.cached_info().state;
    for seq in state.first_sequence..=state.last_sequence {
        if let Ok(entry) = stream.get_raw_message(seq).await {
            headers.push(entry.headers.get("traceparent").map(|header| header.as_str().to_owned()));
        }
    }
    headers
}

#[tokio::test]
async fn a_push_is_one_trace_up_to_its_delivery_by_the_other_gateway() {
    if !can_trace() {
        return;
    }
    let collector = Web::start("{}").await;
    let endpoint = format!("http://127.0.0.1:{}", collector.port);
    let environment = [PROTOCOL, ALL, AT_ONCE, (ENDPOINT, &*endpoint)];
    let Some(system) = System::of(Shape { environment: &environment, ..Shape::default() }).await else { return };
    let mut ada = Member::on(&system, 0, Vsn::V2, "ada", 10).await;
    let mut bob = Member::on(&system, 1, Vsn::V2, "bob", 10).await;
    ada.say(SECRET).await;
    assert_eq!(bob.event("new_msg").await["text"], SECRET);

    eventually("push, log, and both deliveries are exported", async || {
        let spans = spans(&collector);
        let pushed = spans.iter().find(|span| span.name == "new_msg");
        let logged = pushed.and_then(|push| below(&spans, push, "log").into_iter().next());
        logged.is_some_and(|logged| below(&spans, logged, "deliver").len() == 2)
    })
    .await;
    let all = spans(&collector);
    let push = all.iter().find(|span| span.name == "new_msg").expect("a push");
    assert_eq!((push.parent.as_str(), push.kind, push.service.as_str()), ("", 2, "switchboard-gateway"));
    assert_eq!(push.attributes["switchboard.topic.kind"], "room");
    assert_eq!(push.attributes["switchboard.topic.id"], "r");
    let [logged] = below(&all, push, "log")[..] else { panic!("one write: {all:?}") };
    assert_eq!((logged.kind, &logged.instance), (4, &push.instance));
    assert_eq!(logged.attributes["messaging.destination.name"], "sb.log.room.r");
    let delivered = below(&all, logged, "deliver");
    assert!(delivered.iter().all(|span| (span.kind, span.service.as_str()) == (5, "switchboard-gateway")));
    assert_ne!(delivered[0].instance, delivered[1].instance);
    assert!(delivered.iter().any(|span| span.instance == push.instance), "{delivered:?}");
    // The log has it too: who reads it there finds the trace.
    let header = format!("00-{}-{}-01", logged.trace, logged.id);
    assert!(headers(&system).await.contains(&Some(header)));

    // What the other services do is a part of what was asked.
    let (mut teacher, _student, topic) = chat(&system, "t", "s").await;
    assert!(teacher.client.push(&topic, "teacher:send", json!({"message": SECRET})).await.expect("a reply").ok);
    for (asked, verb, service) in
        [("claim", "claim", "switchboard-matcher"), ("join", "read", "switchboard-history"), ("send", "log", "")]
    {
        eventually(&format!("{asked} leads to {verb}"), async || {
            let spans = spans(&collector);
            let asked = spans.iter().filter(|span| span.name == asked && span.parent.is_empty());
            let sent: Vec<&Span> = asked.flat_map(|asked| below(&spans, asked, verb)).collect();
            let did = sent.iter().flat_map(|sent| below(&spans, sent, verb)).collect::<Vec<_>>();
            did.iter().any(|did| did.service == service) || (service.is_empty() && !sent.is_empty())
        })
        .await;
    }
    for body in collector.told() {
        let told = String::from_utf8_lossy(&body);
        assert!(!told.contains(SECRET), "{told}");
    }
}

#[tokio::test]
async fn what_is_not_traced_has_no_header() {
    let collector = Web::start("{}").await;
    let endpoint = format!("http://127.0.0.1:{}", collector.port);
    let away = [PROTOCOL, ALL, AT_ONCE];
    let never = [PROTOCOL, ("OTEL_TRACES_SAMPLER", "always_off"), AT_ONCE, (ENDPOINT, &endpoint)];
    for environment in [&away[..], &never[..]] {
        let Some(system) = System::of(Shape { environment, ..Shape::default() }).await else { return };
        let mut ada = Member::on(&system, 0, Vsn::V2, "ada", 10).await;
        let mut bob = Member::on(&system, 1, Vsn::V2, "bob", 10).await;
        ada.say("hello").await;
        bob.event("new_msg").await;
        let headers = headers(&system).await;
        assert!(!headers.is_empty() && headers.iter().all(Option::is_none), "{headers:?}");
    }
    assert_eq!(collector.told().len(), 0);
}

#[tokio::test]
async fn what_is_left_is_exported_at_the_end() {
    if !can_trace() {
        return;
    }
    let collector = Web::start("{}").await;
    let endpoint = format!("http://127.0.0.1:{}", collector.port);
    let environment = [PROTOCOL, ALL, AT_THE_END, (ENDPOINT, &*endpoint)];
    let shape = Shape { environment: &environment, gateway: &["--drain-ms", "0"], ..Shape::default() };
    let Some(mut system) = System::of(shape).await else { return };
    let mut ada = Member::on(&system, 0, Vsn::V2, "ada", 10).await;
    ada.say("hello").await;
    assert_eq!(collector.told().len(), 0);
    let end = system.gateways[0].1.terminate().await.expect("an end");
    assert!(end.success(), "{end}");
    assert!(spans(&collector).iter().any(|span| span.name == "new_msg"));
}

#[tokio::test]
async fn a_collector_that_is_away_or_says_nothing_delays_nobody() {
    if !can_trace() {
        return;
    }
    // Nothing is ever accepted, or read.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = format!("http://{}", silent.local_addr().expect("an address"));
    for endpoint in [silent.as_str(), "http://127.0.0.1:1"] {
        // A queue that is full at once.
        let queue = [("OTEL_BSP_MAX_QUEUE_SIZE", "2"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")];
        let environment = [PROTOCOL, ALL, AT_ONCE, (ENDPOINT, endpoint), queue[0], queue[1]];
        let shape = Shape { environment: &environment, gateway: &["--drain-ms", "0"], ..Shape::default() };
        let Some(mut system) = System::of(shape).await else { return };
        let mut ada = Member::on(&system, 0, Vsn::V2, "ada", 10).await;
        let mut bob = Member::on(&system, 1, Vsn::V2, "bob", 10).await;
        // Twenty exports that are waited for would take 100 s, and the three that are left at the end 15 s.
        let said = tokio::time::timeout(DEADLINE, async {
            for n in 0..20 {
                ada.say(&n.to_string()).await;
                bob.event("new_msg").await;
            }
        });
        said.await.expect("nobody waits for an export");
        let end = tokio::time::timeout(SHUTDOWN_TIMEOUT, system.gateways[0].1.terminate()).await;
        let end = end.expect("nor does the end").expect("no panic");
        assert!(end.success(), "{end}");
    }
}
