//! Sources of feeds: HTTP, and how they fail.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use switchboard_contract::testing::{NatsServer, eventually};

use crate::listener::{Listener, configuration, connect};
use crate::service::Service;

/// What the source answers.
#[derive(Clone, Debug, Default)]
enum Mode {
    #[default]
    Well,
    Other,
    Tagged,
    Refuses,
    Silent,
    Garbage,
    TooLarge,
    Redirects,
}

#[derive(Clone, Default)]
struct Site {
    mode: Arc<Mutex<Mode>>,
    unchanged: Arc<AtomicU64>,
    /// Answers wait while it is.
    held: Arc<AtomicBool>,
    paths: Arc<Mutex<Vec<String>>>,
}

impl Site {
    async fn start(&self) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let site = Router::new().route("/v/{argument}", get(answer)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, site).await });
        port
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock().expect("no panic") = mode;
    }
}

async fn answer(State(site): State<Site>, Path(argument): Path<String>, headers: HeaderMap) -> Response {
    assert_eq!(headers["x-key"], "k");
    site.paths.lock().expect("no panic").push(argument);
    let mode = site.mode.lock().expect("no panic").clone();
    while site.held.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    match mode {
        Mode::Well if headers.get("if-none-match").is_some_and(|tag| tag == "\"1\"") => {
            site.unchanged.fetch_add(1, Ordering::SeqCst);
            StatusCode::NOT_MODIFIED.into_response()
        }
        Mode::Well => ([("etag", "\"1\"")], "{ \"n\": 1 }").into_response(),
        Mode::Other => "{\"n\":2}".into_response(),
        Mode::Tagged if headers.get("if-none-match").is_some_and(|tag| tag == "\"2\"") => {
            StatusCode::NOT_MODIFIED.into_response()
        }
        Mode::Tagged => ([("etag", "\"2\"")], "{\"n\":2}").into_response(),
        Mode::Refuses => (StatusCode::INTERNAL_SERVER_ERROR, "secret words").into_response(),
        Mode::Silent => std::future::pending().await,
        Mode::Garbage => "<html>".into_response(),
        Mode::TooLarge => format!("\"{}\"", "x".repeat(40_000)).into_response(),
        Mode::Redirects => (StatusCode::FOUND, [("location", "/v/elsewhere")]).into_response(),
    }
}

#[tokio::test]
async fn a_source_that_fails_makes_a_feed_stale_until_it_answers() {
    let Some(server) = NatsServer::start().await else { return };
    let site = Site::default();
    let port = site.start().await;
    let (_folder, file) = configuration(&format!(
        "[[feed]]\nname = \"web\"\ninterval = \"100ms\"\nargument = \".*\"\n\
         http = \"http://127.0.0.1:{port}/v/{{argument}}\"\nheaders = {{ x-key = \"k\" }}\n"
    ));
    let nats = connect(&server).await;
    let service = Service::start_with_feeds(&server, &file).await;
    let (listener, _) = Listener::joined(&nats, "web:a/b?c").await;
    let mut last = listener.value("a value", |value| value == r#"{"n":1}"#).await;
    eventually("it is unchanged", async || site.unchanged.load(Ordering::SeqCst) > 2).await;
    assert_eq!(listener.values().len(), 1, "told once");
    for (mode, reason) in [
        (Mode::Refuses, "the source refused"),
        (Mode::Garbage, "the answer is no JSON"),
        (Mode::Silent, "no answer in time"),
        (Mode::TooLarge, "the answer is too large"),
        (Mode::Redirects, "the source refused"),
    ] {
        site.set(mode);
        let stale = async || listener.record().await.and_then(|(_, record)| record.stale);
        eventually(reason, async || stale().await.is_some_and(|stale| &*stale.reason == reason)).await;
        eventually("it is told", async || {
            listener.told().last().and_then(|told| told.stale.clone()).is_some_and(|stale| &*stale.reason == reason)
        })
        .await;
        let (_, late) = Listener::joined(&nats, "web:a/b?c").await;
        assert_eq!(late.stale.expect("stale").reason.as_ref(), reason);
        assert_eq!(late.last.expect("the last value").version, last);
        site.set(Mode::Well);
        eventually("it answers again, the same", async || {
            listener.values().last().is_some_and(|(version, value)| *version > last && value == r#"{"n":1}"#)
        })
        .await;
        assert!(stale().await.is_none());
        last = listener.values().last().expect("one").0;
    }
    site.set(Mode::Other);
    assert!(listener.value("another value", |value| value == r#"{"n":2}"#).await > last);
    assert!(site.paths.lock().expect("no panic").iter().all(|path| path == "a/b?c"), "escaped, and not redirected");
    service.stop().await;
}

#[tokio::test]
async fn a_source_takes_so_many_polls_at_a_time() {
    let Some(server) = NatsServer::start().await else { return };
    let site = Site::default();
    let port = site.start().await;
    site.set(Mode::Silent);
    let (_folder, file) = configuration(&format!(
        "[sources.one]\nconnections = 1\n\
         [[feed]]\nname = \"web\"\ninterval = \"1s\"\nargument = \".*\"\nsource = \"one\"\n\
         http = \"http://127.0.0.1:{port}/v/{{argument}}\"\nheaders = {{ x-key = \"k\" }}\n"
    ));
    let nats = connect(&server).await;
    let service = Service::start_with_feeds(&server, &file).await;
    let mut listeners = Vec::new();
    for n in 0..5 {
        listeners.push(Listener::joined(&nats, &format!("web:{n}")).await.0);
    }
    eventually("polls are left out", async || {
        service.status("/metrics").await.1.contains("polls_skipped_total{reason=\"busy\"}")
    })
    .await;
    site.set(Mode::Well);
    for listener in &listeners {
        listener.value("all have their turn", |_| true).await;
    }
    tokio::time::timeout(Duration::from_secs(30), service.stop()).await.expect("it stops");
}

const WEB: &str = r#"
[[feed]]
name = "web"
interval = "INTERVAL"
http = "http://127.0.0.1:PORT/v/a"
headers = { x-key = "k" }
"#;

#[tokio::test]
async fn a_value_that_could_not_be_written_is_asked_for_again() {
    let Some(mut server) = NatsServer::start().await else { return };
    let site = Site::default();
    let port = site.start().await;
    let (_folder, file) = configuration(&WEB.replace("INTERVAL", "2s").replace("PORT", &port.to_string()));
    let nats = connect(&server).await;
    let service = Service::start_with_feeds(&server, &file).await;
    let (listener, _) = Listener::joined(&nats, "web").await;
    listener.value("a value", |value| value == r#"{"n":1}"#).await;
    site.held.store(true, Ordering::SeqCst);
    site.set(Mode::Tagged);
    let polls = || site.paths.lock().expect("no panic").len();
    let before = polls();
    eventually("a poll is on its way", async || polls() > before).await;
    server.kill();
    eventually("NATS is away", async || !nats.is_up()).await;
    site.held.store(false, Ordering::SeqCst);
    server.restart().await;
    listener.value("the value that was lost", |value| value == r#"{"n":2}"#).await;
    service.stop().await;
}

#[tokio::test]
async fn when_a_feed_was_polled_is_written_now_and_then_and_told_to_nobody() {
    let Some(server) = NatsServer::start().await else { return };
    let site = Site::default();
    let port = site.start().await;
    let (_folder, file) = configuration(&WEB.replace("INTERVAL", "100ms").replace("PORT", &port.to_string()));
    let nats = connect(&server).await;
    let service = Service::start_with_feeds(&server, &file).await;
    let (listener, _) = Listener::joined(&nats, "web").await;
    listener.value("a value", |_| true).await;
    let (first, record) = listener.record().await.expect("a record");
    let (version, polled) = (record.last.expect("a value").version, record.polled.expect("it is said"));
    assert_eq!((polled.polls, polled.failed), (1, 0));
    let revision = async || listener.record().await.expect("a record").0;
    let mut said = vec![polled];
    for again in 1..=2 {
        eventually("it is said again", async || revision().await >= first + again).await;
        let (revision, record) = listener.record().await.expect("a record");
        assert_eq!(revision, first + again);
        assert_eq!(record.last.expect("a value").version, version);
        said.push(record.polled.expect("it is said"));
    }
    assert!(said.windows(2).all(|pair| pair[0].at < pair[1].at && pair[1].failed == 0), "{said:?}");
    // A hundred polls, or fewer where the machine was busy.
    assert!((20..=103).contains(&(said[2].polls - said[1].polls)), "{said:?}");
    assert_eq!(listener.values().len(), 1);
    assert!(listener.told().iter().all(|told| told.version <= version));

    site.set(Mode::Refuses);
    let failed = async || {
        let (_, record) = listener.record().await.expect("a record");
        record.stale.is_some() && record.polled.is_some_and(|polled| polled.failed == 1)
    };
    eventually("a failure is counted with what it leads to", failed).await;
    service.stop().await;
}
