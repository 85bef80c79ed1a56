//! A set of keys over HTTP that rotates, fails, and is asked for no more often than it may be.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use futures_util::FutureExt as _;
use switchboard_contract::testing::eventually;

use super::super::claims::{Rules, TokenError};
use super::super::tests::{jwks_of, rsa_token};
use super::super::{Auth, Verifier};
use super::*;

/// What the issuer answers, and how often it was asked.
#[derive(Default)]
struct Issuer {
    answer: Mutex<(StatusCode, String)>,
    asked: AtomicUsize,
}

impl Issuer {
    async fn start() -> (Arc<Issuer>, String) {
        let issuer = Arc::new(Issuer::default());
        let answer = async |State(issuer): State<Arc<Issuer>>| {
            issuer.asked.fetch_add(1, Ordering::SeqCst);
            issuer.answer.lock().unwrap_or_else(PoisonError::into_inner).clone()
        };
        let router = Router::new().route("/jwks.json", get(answer)).with_state(issuer.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/jwks.json", listener.local_addr().expect("an address"));
        tokio::spawn(axum::serve(listener, router).into_future());
        (issuer, url)
    }

    fn answers(&self, status: StatusCode, text: String) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = (status, text);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn auth(place: &str, pace: Pace) -> Auth {
    let jwks = Jwks::start(place, pace).await.expect("keys");
    Auth::Jwt(Verifier::new(Vec::new(), Some(jwks), Rules::default()).into())
}

async fn refused(auth: &Auth, other: bool, kid: &str) -> Option<TokenError> {
    auth.admit(Some(rsa_token(other, Some(kid)))).await.err()
}

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn an_unknown_key_is_looked_for_and_a_failure_keeps_those_that_are_known() {
    let (issuer, url) = Issuer::start().await;
    issuer.answers(StatusCode::OK, jwks_of(false, Some("k1")));
    let auth = auth(&url, Pace { refresh: LONG, least: Duration::ZERO }).await;
    assert_eq!(refused(&auth, false, "k1").await, None);
    assert_eq!(issuer.asked(), 1, "a key that is known is not looked for");

    // Rotation: the first token with the new key is accepted, and the old key is gone.
    issuer.answers(StatusCode::OK, jwks_of(true, Some("k2")));
    assert_eq!(refused(&auth, true, "k2").await, None);
    assert_eq!(issuer.asked(), 2);
    assert_eq!(refused(&auth, false, "k1").await, Some(TokenError::UnknownKey));

    for (status, text) in [
        (StatusCode::INTERNAL_SERVER_ERROR, jwks_of(false, Some("k3"))),
        (StatusCode::FOUND, String::new()),
        (StatusCode::OK, "<html>".to_owned()),
        (StatusCode::OK, r#"{"keys":[]}"#.to_owned()),
        (StatusCode::OK, " ".repeat(JWKS_BYTES_MAX) + &jwks_of(false, Some("k3"))),
    ] {
        issuer.answers(status, text.clone());
        let before = issuer.asked();
        assert_eq!(refused(&auth, false, "k3").await, Some(TokenError::UnknownKey), "{status} {}", text.len());
        assert_eq!(issuer.asked(), before + 1);
        assert_eq!(refused(&auth, true, "k2").await, None, "what was known is");
    }
}

#[tokio::test]
async fn unknown_keys_cannot_make_us_ask_all_the_time() {
    let (issuer, url) = Issuer::start().await;
    issuer.answers(StatusCode::OK, jwks_of(false, Some("k1")));
    let auth = auth(&url, Pace { refresh: LONG, least: LONG }).await;
    issuer.answers(StatusCode::OK, jwks_of(true, Some("k2")));
    for _ in 0..20 {
        let refused = refused(&auth, true, "k2").now_or_never().expect("nobody waits for what will not be read");
        assert_eq!(refused, Some(TokenError::UnknownKey));
    }
    assert_eq!(issuer.asked(), 1, "it was read a moment ago");
}

#[tokio::test]
async fn a_set_is_read_again_in_time_from_a_file_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("jwks.json");
    let missing = Jwks::start(path.to_str().expect("text"), Pace::new(LONG)).await.expect_err("there is none yet");
    assert!(missing.is::<UsageError>() && missing.to_string().contains("jwks.json"), "{missing}");
    std::fs::write(&path, jwks_of(false, Some("k1"))).expect("written");
    let pace = Pace { refresh: Duration::from_millis(20), least: Duration::from_millis(20) };
    let jwks = Jwks::start(path.to_str().expect("text"), pace).await.expect("keys");
    std::fs::write(&path, jwks_of(true, Some("k2"))).expect("written");
    eventually("the new key is known", async || jwks.keys().iter().any(|key| key.kid.as_deref() == Some("k2"))).await;
    std::fs::remove_file(&path).expect("removed");
    let before = jwks.last.borrow().at;
    eventually("the set could not be read", async || jwks.last.borrow().at > before).await;
    assert_eq!(jwks.keys().len(), 1, "what was known is");
}

#[tokio::test]
async fn an_issuer_that_says_nothing_is_not_waited_for() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let source = Source::new(&format!("http://{}/", silent.local_addr().expect("an address"))).expect("a URL");
    tokio::time::pause();
    let error = source.read().await.expect_err("nothing comes");
    assert!(error.to_string().contains("no answer in time"), "{error:#}");
    assert!(Source::new("https://issuer.example/jwks.json").is_ok());
}
