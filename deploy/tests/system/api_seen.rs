//! What else the HTTP API does: disconnects, what members see, browsers, and its own document.

use serde_json::{Value, json};
use switchboard::client::Vsn;
use switchboard_contract::testing::eventually;

use crate::api::{PUSH, ROOM, member, says};
use crate::harness::{SOON, System, chat, say};
use crate::http::SECRET;

#[tokio::test]
async fn a_disconnect_closes_the_sockets_of_a_user_on_all_gateways() {
    let Some(system) = System::start_api(&[]).await else { return };
    let mut ada = vec![
        member(&system, 0, Vsn::V2, "ada", 10).await,
        member(&system, 1, Vsn::V1, "ada", 10).await,
        system.student_on(0, "ada").await.client,
        system.teacher_on(1, "ada").await.client,
    ];
    let mut bob = [member(&system, 0, Vsn::V2, "bob", 10).await, system.student_on(1, "adam").await.client];
    let answer = system.ask(1, "POST", "/api/v1/users/ada/disconnect", &[("secret", SECRET)], "").await;
    assert_eq!((answer.status, answer.json()), (200, json!({})));
    for client in &mut ada {
        assert_eq!(client.expect_close(SOON).await.expect("a close"), Some(1001));
    }
    for client in &mut bob {
        assert!(client.push("phoenix", "heartbeat", json!({})).await.expect("a reply").ok, "others stay");
    }
    // Numbers and texts are the same user; and nothing keeps anybody from coming back.
    let mut five = system.student_on(0, 5).await.client;
    member(&system, 0, Vsn::V2, "ada", 10).await;
    let answer = system.ask(0, "POST", "/api/v1/users/5/disconnect", &[("secret", SECRET)], "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(five.expect_close(SOON).await.expect("a close"), Some(1001));
    let long = format!("/api/v1/users/{}/disconnect", "x".repeat(129));
    assert_eq!(system.ask(0, "POST", &long, &[("secret", SECRET)], "").await.status, 422);
}

#[tokio::test]
async fn rooms_are_seen_as_their_members_see_them() {
    let Some(system) = System::start_api(&[]).await else { return };
    for path in ["/api/v1/rooms/r/history", "/api/v1/rooms/r/presence", "/api/v1/rooms/a:b/presence"] {
        let answer = system.get(0, path).await;
        assert_eq!((answer.status, answer.json()), (404, json!({"error": "not_found"})), "{path}");
    }
    let mut ada = member(&system, 0, Vsn::V2, "ada", 10).await;
    let first = says(&mut ada, "one").await;
    says(&mut ada, "two").await;
    system.push_event(0, None, &json!({"room_id": "r", "event": "x", "payload": {}})).await;
    for (query, params) in [
        ("", json!({})),
        ("?limit=1", json!({"limit": 1})),
        (&*format!("?after={first}&limit=1"), json!({"after": first, "limit": 1})),
    ] {
        let answer = system.get(1, &format!("/api/v1/rooms/r/history{query}")).await;
        let pushed = ada.push(ROOM, "history", params).await.expect("a reply").response;
        assert_eq!((answer.status, answer.json()), (200, pushed), "{query}");
    }
    for query in ["?limit=0", "?limit=101", "?before=x"] {
        let answer = system.get(1, &format!("/api/v1/rooms/r/history{query}")).await;
        assert_eq!((answer.status, &answer.json()["error"]), (422, &json!("invalid_payload")), "{query}");
    }

    // On the gateway without members too, which follows the room no more afterwards than before.
    let state = ada.expect_on(ROOM, "presence_state", SOON).await.expect("a state").payload;
    for gateway in [0, 1] {
        let answer = system.get(gateway, "/api/v1/rooms/r/presence").await;
        assert_eq!((answer.status, answer.json()), (200, state.clone()));
    }
    assert!(system.gateway_metrics(1).await.contains("switchboard_gateway_presence_rooms 0"));
    member(&system, 1, Vsn::V1, "bob", 10).await.close().await.expect("a close");
    let mut cleo = member(&system, 1, Vsn::V2, "cleo", 10).await;
    eventually("both are seen, and nobody else", async || {
        let seen = system.get(0, "/api/v1/rooms/r/presence").await.json();
        seen.as_object().expect("an object").keys().eq(["ada:s", "cleo:s"])
    })
    .await;
    for client in [&mut ada, &mut cleo] {
        assert!(client.leave(ROOM).await.expect("a reply").ok);
    }
    eventually("the room is there, and nobody is in it", async || {
        let answer = system.get(1, "/api/v1/rooms/r/presence").await;
        answer.status == 200 && answer.json() == json!({})
    })
    .await;
}

#[tokio::test]
async fn chats_and_the_lobby_are_seen_as_their_members_see_them() {
    let Some(system) = System::start_api(&[]).await else { return };
    let (mut teacher, mut student, topic) = chat(&system, 7, "ada").await;
    say(&mut teacher.client, &mut student.client, &topic, "teacher", "hello").await;
    let id = topic.strip_prefix("chats:").expect("a chat");
    let answer = system.get(0, &format!("/api/v1/chats/{id}")).await;
    let seen = student.client.join(&topic, json!({"userId": "ada", "role": "student"})).await.expect("a reply");
    assert_eq!((answer.status, answer.json()), (200, seen.response["chat"].clone()));
    assert_eq!(answer.json()["messages"][0]["payload"]["message"], "hello");
    assert_eq!(answer.json()["teacher_id"], 7);
    for none in ["/api/v1/chats/none", &format!("/api/v1/chats/{}", "x".repeat(129))] {
        let answer = system.get(1, none).await;
        assert_eq!((answer.status, answer.json()), (404, json!({"error": "not_found"})));
    }
    eventually("the counts are those of now", async || {
        system.get(1, "/api/v1/lobby").await.json()
            == json!({
                "teachers": {"total": 1},
                "students": {"total": 1, "waiting": 0, "chatting": 1, "finished": 0}
            })
    })
    .await;
}

#[tokio::test]
async fn browsers_get_in_from_where_it_is_configured() {
    let Some(system) = System::start_api(&["--cors-origin", "https://app.example,http://localhost:3000"]).await else {
        return;
    };
    let preflight = async |origin: &str, path: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "secret,content-type,idempotency-key"),
        ];
        system.ask(0, "OPTIONS", path, &headers, "").await
    };
    let allowed = preflight("https://app.example", PUSH).await;
    assert_eq!(allowed.status, 200, "{allowed:?}");
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://app.example"));
    let headers = allowed.header("access-control-allow-headers").expect("headers").to_lowercase();
    assert!(["secret", "content-type", "idempotency-key"].iter().all(|name| headers.contains(name)), "{headers}");
    assert_eq!(preflight("https://else.example", PUSH).await.header("access-control-allow-origin"), None);
    assert_eq!(preflight("https://app.example", "/").await.header("access-control-allow-origin"), None);
    // A refusal is readable too.
    let refused = system.ask(0, "GET", "/api/v1/health", &[("origin", "http://localhost:3000")], "").await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.header("access-control-allow-origin"), Some("http://localhost:3000"));
}

/// A schema of the document, without references.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).expect("a schema"),
        None => schema,
    }
}

/// Whether an answer has the properties that its schema names, and no others.
fn fits(document: &Value, schema: &Value, answer: &Value) {
    let schema = resolved(document, schema);
    if let (Some(object), Some(properties)) = (answer.as_object(), schema["properties"].as_object()) {
        for (key, value) in object {
            fits(document, properties.get(key).unwrap_or_else(|| panic!("{key} is not in {schema}")), value);
        }
        for required in schema["required"].as_array().into_iter().flatten() {
            assert!(object.contains_key(required.as_str().expect("a name")), "{required} is not in {answer}");
        }
    }
    for item in answer.as_array().into_iter().flatten() {
        fits(document, &schema["items"], item);
    }
}

#[tokio::test]
async fn the_document_says_what_the_api_does() {
    let Some(system) = System::start_api(&[]).await else { return };
    let (mut teacher, mut student, topic) = chat(&system, 7, "ada").await;
    say(&mut teacher.client, &mut student.client, &topic, "teacher", "hello").await;
    let mut bob = member(&system, 0, Vsn::V2, "bob", 10).await;
    says(&mut bob, "hello").await;
    let answer = system.ask(0, "GET", "/api/v1/openapi.json", &[], "").await;
    let document = answer.json();
    assert_eq!((answer.status, document["openapi"].as_str().map(|v| v.starts_with("3.1"))), (200, Some(true)));
    assert_eq!(document["components"]["securitySchemes"]["secret"]["name"], "secret");
    let paths = document["paths"].as_object().expect("paths");
    let mut operations = Vec::new();
    for (path, methods) in paths {
        let id = topic.strip_prefix("chats:").expect("a chat");
        let real = path.replace("chats/{id}", &format!("chats/{id}")).replace("{id}", "r");
        for (method, operation) in methods.as_object().expect("methods") {
            let open = operation["security"] == json!([{}]);
            operations.push((method.to_uppercase(), path.as_str(), open));
            let example = &operation["requestBody"]["content"]["application/json"]["example"];
            let body = if example.is_null() { String::new() } else { example.to_string() };
            if let Some(schema) = operation.pointer("/requestBody/content/application~1json/schema") {
                fits(&document, schema, example);
            }
            let without = system.ask(0, &method.to_uppercase(), &real, &[], body.clone()).await;
            assert_eq!(without.status, if open { 200 } else { 401 }, "{method} {real}");
            let with = system.ask(1, &method.to_uppercase(), &real, &[("secret", SECRET)], body).await;
            let status = with.status.to_string();
            assert_eq!(status, "200", "{method} {real}: {with:?}");
            for status in [status.as_str(), if open { "200" } else { "401" }] {
                let description = operation["responses"][status]["description"].as_str();
                assert!(description.is_some_and(|text| !text.is_empty()), "{method} {path} {status}");
            }
            let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
            if schema.is_object() {
                fits(&document, schema, &with.json());
            } else {
                assert_eq!(with.body, "", "{method} {path}");
            }
            if !open {
                fits(
                    &document,
                    &operation["responses"]["401"]["content"]["application/json"]["schema"],
                    &without.json(),
                );
            }
        }
    }
    operations.sort();
    assert_eq!(
        operations,
        [
            ("GET".to_owned(), "/api/v1/chats/{id}", false),
            ("GET".to_owned(), "/api/v1/health", false),
            ("GET".to_owned(), "/api/v1/lobby", false),
            ("GET".to_owned(), "/api/v1/openapi.json", true),
            ("GET".to_owned(), "/api/v1/rooms/{id}/history", false),
            ("GET".to_owned(), "/api/v1/rooms/{id}/presence", false),
            ("POST".to_owned(), "/api/v1/push_room_event", false),
            ("POST".to_owned(), "/api/v1/users/{id}/disconnect", false),
        ]
    );
}
