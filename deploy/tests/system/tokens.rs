//! Gateways that verify tokens: who may connect, as whom, for how long; and that no token stands in a log.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustix::process::Signal;
use serde_json::{Value, json};
use switchboard::client::{Client, Reply, Socket, Vsn};
use switchboard::token::Key;
use switchboard_contract::admin;
use switchboard_contract::testing::{eventually, free_port};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::feed_member::WITH_FEEDS;
use crate::harness::{SOON, Shape, System};
use crate::support::Place;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A system whose gateways verify tokens without leeway, and the key to sign them with.
pub(crate) struct Issuer {
    system: System,
    key: Key,
    folder: TempDir,
}

impl Issuer {
    pub(crate) async fn start() -> Option<Issuer> {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(flags: &[&str]) -> Option<Issuer> {
        let folder = tempfile::tempdir().expect("a folder");
        let key = Key::of(folder.path()).expect("a key");
        let path = Key::path(folder.path());
        let jwt = ["--auth", "jwt", "--jwt-leeway", "0", "--jwt-secret-file", path.to_str().expect("text")];
        let shape = Shape { gateway: &[&jwt, flags].concat(), ..Shape::history(&WITH_FEEDS) };
        Some(Issuer { system: System::of(shape).await?, key, folder })
    }

    fn token(&self, claims: &Value, ttl: Duration) -> String {
        self.key.mint(claims.as_object().expect("claims").clone(), ttl).expect("a token")
    }

    /// A client with a token of these claims.
    pub(crate) async fn client(&self, claims: Value, ttl: Duration) -> Client {
        self.client_on(0, Vsn::V2, &claims, ttl).await
    }

    async fn client_on(&self, gateway: usize, vsn: Vsn, claims: &Value, ttl: Duration) -> Client {
        let token = self.token(claims, ttl);
        Client::on(Socket::connect_as(&self.system.gateway(gateway), vsn, Some(&token)).await.expect("a connection"))
    }

    /// The answer to a join with a room's token that has expired.
    pub(crate) async fn expired_in_a_room(&self, gateway: usize, vsn: Vsn) -> Reply {
        let mut client = self.client_on(gateway, vsn, &json!({"sub": "5"}), HOUR).await;
        let expired = self.token(&json!({"room": "r"}), Duration::ZERO);
        client.join("room:r", json!({"room_token": expired})).await.expect("a reply")
    }

    /// Tokens that nobody should take, with these claims, each with what is wrong.
    fn forged(&self, claims: &Value) -> Vec<(String, &'static str)> {
        let claims = claims.as_object().expect("claims");
        let good = self.token(&json!(claims), HOUR);
        let (message, signature) = good.rsplit_once('.').expect("three parts");
        let (header, said) = message.split_once('.').expect("three parts");
        let foreign = tempfile::tempdir().expect("a folder");
        let wrong_key = Key::of(foreign.path()).expect("a key").mint(claims.clone(), HOUR).expect("a token");
        let base64 = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let none = base64(json!({"alg": "none"}));
        let mut more = claims.clone();
        more.insert("rank".to_owned(), json!(100));
        vec![
            (format!("{none}.{said}."), "no JWT"),
            (format!("{none}.{said}.{signature}"), "no JWT"),
            (wrong_key, "signature"),
            (format!("{header}.{}.{signature}", base64(json!(more))), "signature"),
            (format!("{message}."), "signature"),
            ("rub.bi.sh".to_owned(), "no JWT"),
            ("..".to_owned(), "no JWT"),
            (message.to_owned(), "no JWT"),
            ("x".repeat(10 * 1024), "large"),
        ]
    }
}

/// Asks for an upgrade; gives the status and what is said behind the headers.
async fn upgrade(gateway: &str, path: &str, headers: &str) -> (u16, String) {
    let answer = ask_upgrade(gateway, path, headers).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("headers");
    (head[9..12].parse().expect("a status"), body.to_owned())
}

/// Asks for an upgrade; gives the whole answer.
async fn ask_upgrade(gateway: &str, path: &str, headers: &str) -> String {
    let address = gateway.strip_prefix("http://").expect("a URL");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{headers}\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let whole = |answer: &[u8]| {
        let text = String::from_utf8_lossy(answer);
        text.split_once("\r\n\r\n").is_some_and(|(head, body)| head.starts_with("HTTP/1.1 101") || body.ends_with('\n'))
    };
    while !whole(&answer) {
        answer.push(stream.read_u8().await.expect("an answer"));
    }
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn who_connects_needs_a_token_that_counts() {
    let Some(issuer) = Issuer::start().await else { return };
    let gateway = issuer.system.gateway(0);
    let good = issuer.token(&json!({"sub": 5}), HOUR);
    let expired = issuer.token(&json!({"sub": 5}), Duration::ZERO);
    let nobodys = issuer.token(&json!({"role": "teacher"}), HOUR);
    let rooms = issuer.token(&json!({"sub": 5, "room": "r"}), HOUR);
    let forged = issuer.forged(&json!({"sub": 5}));
    let forged = forged.into_iter().map(|(token, why)| (format!("&user_token={token}"), why));
    for (query, why) in [
        (String::new(), "missing"),
        ("&user_token=".to_owned(), "missing"),
        ("&user_token=5".to_owned(), "no JWT"),
        (format!("&user_token={expired}"), "expired"),
        (format!("&user_token={nobodys}"), "without a claim"),
        (format!("&user_token={rooms}"), "a room's token"),
    ]
    .into_iter()
    .chain(forged)
    {
        let (status, said) = upgrade(&gateway, &format!("/socket/websocket?vsn=2.0.0{query}"), "").await;
        assert_eq!(status, 403, "{query} {said}");
        assert!(said.starts_with("user_token: ") && said.contains(why) && !said.contains("eyJ"), "{query} {said}");
    }
    for path in [format!("/socket/websocket?user_token={good}"), format!("/ws?vsn=2.0.0&token={good}")] {
        assert_eq!(upgrade(&gateway, &path, "").await.0, 101, "{path}");
    }
    let mut client = issuer.client(json!({"sub": 5}), HOUR).await;
    let reply = client.join("presence:student:5", json!({"userId": 5, "role": "student"})).await.expect("a reply");
    assert!(reply.ok, "{reply:?}");
    assert!(issuer.system.gateway_metrics(0).await.contains("switchboard_gateway_tokens_refused_total"));
}

#[tokio::test]
async fn a_room_is_joined_with_its_token() {
    let Some(issuer) = Issuer::start().await else { return };
    let mut client = issuer.client(json!({"sub": "5"}), HOUR).await;
    let of = |claims: Value| issuer.token(&claims, HOUR);
    for (payload, why) in [
        (json!({}), "none"),
        (json!({"room_token": of(json!({"room": "other"}))}), "another room's"),
        (json!({"room_token": of(json!({"room": "r", "sub": "6"}))}), "another user's"),
        (json!({"token": of(json!({"sub": "5"}))}), "no room's"),
        (json!({"room_token": ""}), "empty"),
    ] {
        let reply = client.join("room:r", payload).await.expect("a reply");
        assert_eq!(reply.reason(), Some("unauthorized"), "{why}");
    }
    for (gateway, vsn) in [(0, Vsn::V2), (1, Vsn::V1)] {
        let mut client = issuer.client_on(gateway, vsn, &json!({"sub": "5"}), HOUR).await;
        for (token, why) in issuer.forged(&json!({"room": "r"})) {
            let reply = client.join("room:r", json!({"room_token": token})).await.expect("a reply");
            assert_eq!(reply.reason(), Some("unauthorized"), "{why}");
        }
        assert_eq!(issuer.expired_in_a_room(gateway, vsn).await.reason(), Some("token_expired"));
    }
    // What the join says of itself counts for nothing.
    let payload = json!({"room_token": of(json!({"room": "r", "rank": 50})), "userId": "6", "rank": 100});
    let reply = client.join("room:r", payload).await.expect("a reply");
    assert_eq!((reply.ok, &reply.response["rank"]), (true, &json!(50)), "{reply:?}");
}

#[tokio::test]
async fn with_a_public_key_and_an_audience_no_other_key_and_no_other_audience_counts() {
    let public = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/tests/keys/rsa.pub.pem");
    let flags = ["--jwt-public-key-file", public.to_str().expect("text"), "--jwt-audience", "us"];
    let Some(issuer) = Issuer::start_with(&flags).await else { return };
    let pem = std::fs::read(&public).expect("a key");
    let private = std::fs::read(public.with_file_name("rsa.pem")).expect("a key");
    let exp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_secs() + 3_600;
    let mine = |audience: &str| json!({"sub": "5", "room": "r", "aud": audience, "exp": exp});
    let sign = |algorithm, key: &EncodingKey, claims: &Value| {
        jsonwebtoken::encode(&Header::new(algorithm), claims, key).expect("a token")
    };
    let rsa = EncodingKey::from_rsa_pem(&private).expect("a key");
    let user = |audience: &str| json!({"sub": "5", "aud": audience, "exp": exp});
    let good = sign(Algorithm::RS256, &rsa, &user("us"));
    let base = issuer.system.gateway(0);
    let mut client = Client::on(Socket::connect_as(&base, Vsn::V2, Some(&good)).await.expect("a connection"));
    for (algorithm, key, audience, why) in [
        // The public key, which anybody has, as the secret of HS256.
        (Algorithm::HS256, EncodingKey::from_secret(&pem), "us", "signature"),
        (Algorithm::HS256, EncodingKey::from_secret(pem.trim_ascii_end()), "us", "signature"),
        (Algorithm::RS256, rsa.clone(), "them", "audience"),
    ] {
        let (status, said) =
            upgrade(&base, &format!("/ws?user_token={}", sign(algorithm, &key, &user(audience))), "").await;
        assert!(status == 403 && said.contains(why), "{why}: {status} {said}");
        let token = sign(algorithm, &key, &mine(audience));
        let reply = client.join("room:r", json!({"room_token": token})).await.expect("a reply");
        assert_eq!(reply.reason(), Some("unauthorized"), "{why}");
    }
    let token = sign(Algorithm::RS256, &rsa, &mine("us"));
    let reply = client.join("room:r", json!({"room_token": token})).await.expect("a reply");
    assert!(reply.ok, "{reply:?}");
}

#[tokio::test]
async fn an_expired_room_token_ends_its_channel_unless_it_was_renewed() {
    let Some(issuer) = Issuer::start().await else { return };
    let room = "room:r";
    let of = |claims: Value, ttl| issuer.token(&claims, ttl);
    let mut watcher = issuer.client(json!({"sub": "w"}), HOUR).await;
    let reply = watcher.join(room, json!({"room_token": of(json!({"room": "r"}), HOUR)})).await.expect("a reply");
    assert!(reply.ok, "{reply:?}");
    watcher.expect_on(room, "presence_state", SOON).await.expect("a state");
    let short = Duration::from_secs(5);
    let mut members = Vec::new();
    for (name, vsn) in [("kept", Vsn::V2), ("two", Vsn::V2), ("one", Vsn::V1)] {
        let token = of(json!({"sub": name}), HOUR);
        let socket = Socket::connect_as(&issuer.system.gateway(1), vsn, Some(&token)).await.expect("a connection");
        let mut client = Client::on(socket);
        let payload = json!({"room_token": of(json!({"room": "r", "sub": name}), short), "session_id": "s"});
        let reply = client.join(room, payload).await.expect("a reply");
        assert!(reply.ok, "{reply:?}");
        client.expect_on(room, "presence_state", SOON).await.expect("a state");
        members.push((name, client));
    }
    for (name, client) in &mut members {
        let lobby = format!("presence:student:{name}");
        assert!(client.join(&lobby, json!({"userId": name, "role": "student"})).await.expect("a reply").ok);
        for (claims, ttl, reason) in [
            (json!({"room": "other", "sub": name}), HOUR, Some("unauthorized")),
            (json!({"room": "r", "sub": "x"}), HOUR, Some("unauthorized")),
            (json!({"room": "r", "sub": name}), Duration::ZERO, Some("token_expired")),
            (json!({"sub": name}), HOUR, None),
        ] {
            let payload = json!({"token": of(claims.clone(), ttl)});
            let reply = client.push(room, "access_token", payload).await.expect("a reply");
            assert_eq!(reply.reason(), reason, "{claims}");
        }
    }
    let kept = &mut members[0].1;
    let payload = json!({"token": of(json!({"room": "r"}), HOUR)});
    assert!(kept.push(room, "access_token", payload).await.expect("a reply").ok);

    let mut gone = Vec::new();
    while gone.len() < 2 {
        let diff = watcher.expect_on(room, "presence_diff", SOON).await.expect("a diff").payload;
        gone.extend(diff["leaves"].as_object().expect("an object").keys().cloned());
    }
    gone.sort();
    assert_eq!(gone, ["one:s", "two:s"]);
    for (name, client) in &mut members[1..] {
        let close = client.expect_on(room, "phx_close", SOON).await.expect("a close");
        assert!(close.reference.is_some(), "it carries the join_ref: {close:?}");
        let reply = client.push(&format!("presence:student:{name}"), "student:ready", json!({})).await;
        assert!(reply.expect("the socket lives on").ok);
        assert_eq!(client.push(room, "typing", json!({})).await.expect("a reply").reason(), Some("unmatched topic"));
    }
    assert!(members[0].1.push(room, "typing", json!({})).await.expect("a reply").ok);
}

#[tokio::test]
async fn a_user_is_who_its_token_says() {
    let Some(issuer) = Issuer::start().await else { return };
    let mut student = issuer.client(json!({"sub": "5", "role": "student"}), HOUR).await;
    for (topic, payload, reason) in [
        ("presence:student:6", json!({"userId": 6, "role": "student"}), Some("unauthorized")),
        ("presence:teachers", json!({"userId": 5, "role": "teacher"}), Some("unauthorized")),
        ("presence:teachers", json!({"userId": 6, "role": "teacher"}), Some("unauthorized")),
        ("chats:c", json!({"userId": 6, "role": "student"}), Some("unauthorized")),
        ("chats:c", json!({"userId": 5, "role": "student"}), Some("not_found")),
        ("presence:student:5", json!({"userId": 6, "role": "student"}), Some("unauthorized")),
        ("presence:student:5", json!({"userId": 5, "role": "student"}), None),
    ] {
        let reply = student.join(topic, &payload).await.expect("a reply");
        assert_eq!(reply.reason(), reason, "{topic} {payload}");
    }
    assert!(student.push("presence:student:5", "student:ready", json!({})).await.expect("a reply").ok);
}

#[tokio::test]
async fn an_expired_token_closes_the_socket_unless_it_was_renewed() {
    let Some(issuer) = Issuer::start().await else { return };
    let short = Duration::from_secs(4);
    let topic = "presence:student:5";
    let mut kept = issuer.client(json!({"sub": 5}), short).await;
    let mut lost = issuer.client(json!({"sub": 5}), short).await;
    for client in [&mut kept, &mut lost] {
        let reply = client.join(topic, json!({"userId": 5, "role": "student"})).await.expect("a reply");
        assert!(reply.ok, "{reply:?}");
    }
    for (claims, ttl, reason) in [
        (json!({"sub": 6}), HOUR, Some("unauthorized")),
        (json!({"sub": 5, "room": "r"}), HOUR, Some("unauthorized")),
        (json!({"sub": 5, "role": "teacher"}), HOUR, Some("unauthorized")),
        (json!({"sub": 5}), Duration::ZERO, Some("token_expired")),
    ] {
        let token = issuer.token(&claims, ttl);
        let reply = lost.push(topic, "access_token", json!({"token": token})).await.expect("a reply");
        assert_eq!(reply.reason(), reason, "{claims}");
    }
    let token = issuer.token(&json!({"sub": "5"}), HOUR);
    let reply = kept.push(topic, "access_token", json!({"token": token})).await.expect("a reply");
    assert!(reply.ok && reply.response == json!({}), "{reply:?}");

    assert_eq!(lost.expect_close(SOON).await.expect("a close"), Some(1008));
    let reply = kept.push(topic, "student:ready", json!({"userId": 5})).await.expect("its socket is open");
    assert!(reply.ok, "{reply:?}");
}

#[tokio::test]
async fn who_went_on_although_refused_gets_no_upgrade_for_a_while() {
    let flags = ["--join-rate", "1", "--join-burst", "2", "--refusals", "10", "--ban-ms", "3000"];
    let Some(issuer) = Issuer::start_with(&flags).await else { return };
    let mut loud = issuer.client(json!({"sub": 5}), HOUR).await;
    for n in 0..60 {
        let payload = json!({"userId": 5, "role": "student"});
        // The socket may be closed meanwhile.
        let _ = loud.send_join(&format!("chats:{n}"), payload).await;
    }
    assert_eq!(loud.expect_close(SOON).await.expect("a close"), Some(1008));
    let gateway = issuer.system.gateway(0);
    let path = |user: u64| format!("/ws?vsn=2.0.0&user_token={}", issuer.token(&json!({"sub": user}), HOUR));
    let answer = ask_upgrade(&gateway, &path(5), "").await;
    let waits = ["retry-after: 1\r\n", "retry-after: 2\r\n", "retry-after: 3\r\n"];
    assert!(answer.starts_with("HTTP/1.1 429") && waits.iter().any(|wait| answer.contains(wait)), "{answer}");
    assert_eq!(upgrade(&gateway, &path(6), "").await.0, 101, "somebody else");
    eventually("it may come again", async || upgrade(&gateway, &path(5), "").await.0 == 101).await;
}

#[tokio::test]
async fn no_log_line_holds_a_token() {
    let Some(issuer) = Issuer::start().await else { return };
    let (port, log) = (free_port(), issuer.folder.path().join("gateway.log"));
    let gateway = |flags: &[&str]| {
        let mut gateway = Command::new(env!("CARGO_BIN_EXE_switchboard").to_owned() + "-gateway");
        let listen = format!("127.0.0.1:{port}");
        gateway.args(["--nats-url", &issuer.system.nats.url(), "--listen", &listen, "--log-level", "trace"]);
        gateway.args(flags).stdin(Stdio::null()).kill_on_drop(true);
        gateway
    };
    let secret = Key::path(issuer.folder.path());
    let flags = ["--jwt-leeway", "0", "--jwt-secret-file", secret.to_str().expect("text")];
    let stderr = std::fs::File::create(&log).expect("a file");
    let _running = gateway(&flags).stderr(stderr).spawn().expect("it starts; see `cargo build --workspace --bins`");
    let address = format!("127.0.0.1:{port}").parse().expect("an address");
    eventually("the gateway listens", async || admin::ask(address, "/", SOON).await.is_ok()).await;

    let url = format!("http://{address}");
    let tokens = [HOUR, Duration::ZERO].map(|ttl| issuer.token(&json!({"sub": "ada"}), ttl));
    for token in &tokens {
        upgrade(&url, &format!("/ws?vsn=2.0.0&user_token={token}"), "").await;
    }
    let socket = Socket::connect_as(&url, Vsn::V2, Some(&tokens[0])).await.expect("a connection");
    let mut client = Client::on(socket);
    let topic = "presence:student:ada";
    assert!(client.join(topic, json!({"userId": "ada", "role": "student"})).await.expect("a reply").ok);
    for token in &tokens {
        client.push(topic, "access_token", json!({"token": token})).await.expect("a reply");
    }
    let mut tokens = Vec::from(tokens);
    // Refused at a room, too.
    for (token, _) in issuer.forged(&json!({"room": "r", "sub": "ada"})) {
        client.join("room:r", json!({"room_token": token})).await.expect("a reply");
        tokens.push(token);
    }
    let said = || std::fs::read_to_string(&log).expect("a log");
    eventually("both refusals are logged", async || said().matches("expired").count() == 2).await;
    let logged = || said().lines().filter(|line| line.contains("a room's token does not count")).count();
    eventually("those at the room are logged", async || logged() == tokens.len() - 2).await;
    let said = said();
    for why in ["no JWT", "signature", "large"] {
        assert!(said.lines().any(|line| line.contains("a room's token") && line.contains(why)), "{why}:\n{said}");
    }
    let refused = said.lines().find(|line| line.contains("no upgrade")).expect("a line");
    assert!(refused.contains("peer=127.0.0.1:") && refused.contains("error=expired"), "{refused}");
    for token in &tokens {
        for part in token.split('.').filter(|part| part.len() > 10) {
            assert!(!said.contains(part), "a part of a token is in the log:\n{said}");
        }
    }

    let keyless = gateway(&[]).env_remove("SWITCHBOARD_AUTH").output().await.expect("it ends");
    let said = String::from_utf8_lossy(&keyless.stderr);
    assert_eq!(keyless.status.code(), Some(2), "{said}");
    assert!(said.contains("--auth jwt needs a key") && said.contains("--jwt-secret-file"), "{said}");
}

#[tokio::test]
async fn the_runner_verifies_tokens_of_its_own_key_and_load_has_some() {
    let Some(place) = Place::new() else { return };
    let up = place.up(&["--auth", "jwt"]);
    up.says(&[" ready: "]).await;
    let gateway = format!("http://127.0.0.1:{}", place.gateway_port);
    assert_eq!(upgrade(&gateway, "/ws?vsn=2.0.0", "").await.0, 403);
    let minted = place.switchboard(&["token", "user", "--sub", "5", "--ttl", "30m"]).output().await.expect("it runs");
    let token = String::from_utf8(minted.stdout).expect("text");
    assert_eq!(upgrade(&gateway, &format!("/ws?vsn=2.0.0&user_token={}", token.trim()), "").await.0, 101, "{token}");
    let minted = place.switchboard(&["token", "room", "--room", "r"]).output().await.expect("it runs");
    let token = String::from_utf8(minted.stdout).expect("text");
    assert_eq!(upgrade(&gateway, &format!("/ws?vsn=2.0.0&user_token={}", token.trim()), "").await.0, 403, "{token}");

    let load = ["load", "lobby", "--students", "6", "--teachers", "2", "--messages", "3", "--json"];
    let load = place.switchboard(&load).output().await.expect("it runs");
    // Whether all else was right is the business of other tests: here it is that its users were let in and served.
    let report: Value = serde_json::from_slice(&load.stdout).unwrap_or_else(|error| panic!("{error}: {load:?}"));
    assert_eq!(report["served"], 6, "{load:?}");
    up.id.signal(Signal::TERM);
    let (status, said) = up.end().await;
    assert_eq!(status.code(), Some(0), "{said}");
}
