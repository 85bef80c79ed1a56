//! Arguments that try to be more than arguments: they reach the source as they are, or are refused with a reason.

use serde_json::json;
use switchboard::client::{Client, Vsn};
use switchboard_contract::limits::{FEED_BYTES_MAX, NAME_BYTES_MAX};
use url::form_urlencoded;

use crate::feed_member::file;
use crate::harness::{SOON, Shape, System};
use crate::postgres::Postgres;
use crate::web::Web;

/// Whatever an argument may be that is short enough.
const ARGUMENTS: [&str; 35] = [
    "",
    "a",
    "'",
    "''",
    "\"",
    ";",
    "'; drop table polls; --",
    "1); drop table polls; --",
    "$1",
    "$$",
    "{argument}",
    "/",
    "//",
    "../..",
    ".",
    "..",
    "a/../../b",
    "?a=b#c",
    "&q=2",
    "%",
    "%2F",
    "%00",
    "+",
    " ",
    "a b",
    "\n",
    "\r\nhost: other",
    "\t",
    "\\",
    "\u{1}",
    "🐘",
    "a.b.*.>",
    ">",
    "*",
    ":",
];

fn feeds(postgres: &Postgres, web: &Web) -> String {
    format!(
        r#"
[sources.db]
postgres = "{}"
[[feed]]
name = "sql"
interval = "1s"
argument = "(?s).*"
source = "db"
sql = "select $1::text as a"
[[feed]]
name = "path"
interval = "1s"
argument = "(?s).*"
http = "http://127.0.0.1:{port}/path/{{argument}}/end?q=1"
[[feed]]
name = "query"
interval = "1s"
argument = "(?s).*"
http = "http://127.0.0.1:{port}/query?q={{argument}}&z=1"
[[feed]]
name = "strict"
interval = "1s"
argument = "[a-z]{{1,20}}"
http = "http://127.0.0.1:{port}/strict/{{argument}}"
"#,
        postgres.url(),
        port = web.port
    )
}

/// Joins a feed; its first value.
async fn value(client: &mut Client, topic: &str) -> serde_json::Value {
    let mut reply = client.join(topic, json!({})).await.expect("a reply");
    assert!(reply.ok, "{topic:?}: {reply:?}");
    let value = if reply.response["version"].is_null() {
        client.expect_on(topic, "update", SOON).await.expect(topic).payload["value"].take()
    } else {
        reply.response["value"].take()
    };
    assert!(client.leave(topic).await.expect("a reply").ok);
    value
}

/// What stands between two texts, decoded as a part of a URL.
fn between(uri: &str, before: &str, behind: &str) -> Option<String> {
    let part = uri.strip_prefix(before)?.strip_suffix(behind)?;
    assert!(!part.contains(['/', '?', '#', '&', '=', '+', ' ']), "it is not within its part: {uri}");
    form_urlencoded::parse(format!("x={part}").as_bytes()).next().map(|(_, value)| value.into_owned())
}

#[tokio::test]
async fn an_argument_reaches_its_source_as_it_is_or_not_at_all() {
    let Some(postgres) = Postgres::start().await else { return };
    postgres.run("create table polls (n bigserial); insert into polls default values").await;
    let web = Web::start("1").await;
    let (_folder, file) = file(&feeds(&postgres, &web));
    let flags = ["--join-rate", "0"];
    let Some(system) = System::of(Shape { gateway: &flags, ..Shape::history(&["--feeds", &file]) }).await else {
        return;
    };
    let mut clients = [system.client(0, Vsn::V1).await, system.client(1, Vsn::V2).await];
    let longest = "'".repeat(FEED_BYTES_MAX - "query:".len());
    for (at, argument) in ARGUMENTS.into_iter().chain([longest.as_str()]).enumerate() {
        let client = &mut clients[at % 2];
        assert_eq!(value(client, &format!("feed:sql:{argument}")).await, argument);
        for (feed, before, behind) in [("path", "/path/", "/end?q=1"), ("query", "/query?q=", "&z=1")] {
            let topic = format!("feed:{feed}:{argument}");
            let earlier = web.asked().len();
            // Within a path it would mean another place, also where it is escaped.
            if [".", ".."].contains(&argument) {
                assert_eq!(client.join(&topic, json!({})).await.expect("a reply").reason(), Some("not_found"));
                assert_eq!(web.asked().len(), earlier);
                continue;
            }
            assert_eq!(value(client, &topic).await, 1);
            for uri in &web.asked()[earlier..] {
                let seen = between(uri, before, behind);
                let other = between(uri, "/path/", "/end?q=1");
                assert!(seen.as_deref() == Some(argument) || other.as_deref() == Some(argument), "{argument:?}: {uri}");
            }
            let seen =
                web.asked()[earlier..].iter().any(|uri| between(uri, before, behind).as_deref() == Some(argument));
            assert!(seen, "{argument:?} {:?}", web.asked());
        }
    }

    let before = web.asked();
    for client in &mut clients {
        for argument in ["A", "", "a b", "a\n", "aé", "a'", "../a", &"a".repeat(21)] {
            let topic = format!("feed:strict:{argument}");
            let reply = client.join(&topic, json!({})).await.expect("a reply");
            assert_eq!(reply.reason(), Some("not_found"), "{topic:?}");
        }
        // No text for PostgreSQL.
        let reply = client.join("feed:sql:a\0b", json!({})).await.expect("a reply");
        assert_eq!(reply.reason(), Some("not_found"));
        for length in [NAME_BYTES_MAX - "feed:strict:".len() + 1, 10_000] {
            let topic = format!("feed:strict:{}", "a".repeat(length));
            let reply = client.join(&topic, json!({})).await.expect("a reply");
            assert_eq!(reply.reason(), Some("invalid_payload"), "{length}");
            let detail = reply.response["detail"].as_str().expect("words");
            assert!(detail.contains(&NAME_BYTES_MAX.to_string()), "{detail}");
        }
        assert_eq!(value(client, "feed:strict:abc").await, 1);
    }
    let asked: Vec<String> = web.asked().split_off(before.len());
    assert!(asked.iter().any(|uri| uri == "/strict/abc"), "{asked:?}");
    assert!(asked.iter().all(|uri| uri == "/strict/abc" || !uri.starts_with("/strict")), "{asked:?}");
    assert_eq!(postgres.numbers("select n from polls").await, [1], "the table stands");
}
