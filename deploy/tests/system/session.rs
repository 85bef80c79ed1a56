//! The rules of a session over real sockets: what is refused, what closes, and that a chat beside it notices nothing.

use std::time::Duration;

use serde_json::json;
use switchboard::client::{Client, ConnectError, Socket, Vsn};
use switchboard_contract::testing::eventually;

use crate::harness::{SOON, Shape, System, chat, say};
use crate::raw::{Raw, closed_by_bytes, masked};

#[tokio::test]
async fn chats_that_are_not_and_strangers() {
    let Some(system) = System::start().await else { return };
    let (mut teacher, mut student, topic) = chat(&system, "t", "s").await;
    let mut stranger = system.client(0, Vsn::V2).await;
    for (topic, payload, reason) in [
        ("chats:nothing", json!({"userId": "s", "role": "student"}), "not_found"),
        (topic.as_str(), json!({"userId": "x", "role": "student"}), "unauthorized"),
        (topic.as_str(), json!({"userId": "t", "role": "student"}), "unauthorized"),
        (topic.as_str(), json!({"userId": "s", "role": "teacher"}), "unauthorized"),
        ("chats:a.*.> \u{1f98a}\n", json!({"userId": "s", "role": "student"}), "not_found"),
        ("room:a:b", json!({}), "unmatched topic"),
        ("room:", json!({}), "unmatched topic"),
        ("feed:a.b", json!({}), "unmatched topic"),
    ] {
        let reply = stranger.join(topic, payload).await.expect("a reply");
        assert_eq!(reply.reason(), Some(reason), "{topic}");
        let reply = stranger.push(topic, "student:send", json!({"message": "x"})).await.expect("a reply");
        assert_eq!(reply.reason(), Some("unmatched topic"), "{topic}");
    }
    let odd = "presence:student:a.*.> \u{1f98a}\n";
    let reply = stranger.join(odd, json!({"userId": &odd[17..], "role": "student"})).await.expect("a reply");
    assert!(reply.ok, "{reply:?}");
    assert!(stranger.push(odd, "student:ready", json!({})).await.expect("a reply").ok);
    let odd = "room:a.*.> \u{1f98a}";
    assert!(stranger.join(odd, json!({})).await.expect("a reply").ok);
    assert!(stranger.push(odd, "new_msg", json!({"broadcast": true})).await.expect("a reply").ok);
    say(&mut teacher.client, &mut student.client, &topic, "teacher", "still here").await;
}

#[tokio::test]
async fn malformed_frames_of_every_kind_close_that_socket_alone() {
    let Some(system) = System::start().await else { return };
    let (mut teacher, mut student, topic) = chat(&system, "t", "s").await;
    for (vsn, text) in [
        (Vsn::V2, "{"),
        (Vsn::V2, "[]"),
        (Vsn::V2, r#"{"topic":"t","event":"e","payload":{},"ref":"1"}"#),
        (Vsn::V2, r#"[null,1.5,"t","e",{}]"#),
        (Vsn::V1, r#"[null,"1","t","e",{}]"#),
        (Vsn::V1, "nonsense"),
    ] {
        let mut client = system.client(0, vsn).await;
        assert_eq!(closed_by_text(&mut client, text.to_owned()).await, Some(1007), "{text}");
    }
    for (vsn, bytes) in
        [(Vsn::V2, &b"\x00\x05"[..]), (Vsn::V2, b"\x09\x00\x00\x00\x00"), (Vsn::V1, b"\x00\x00\x00\x01\x01te")]
    {
        let mut client = system.client(0, vsn).await;
        assert_eq!(closed_by_data(&mut client, bytes).await, Some(1003), "{bytes:?}");
    }
    say(&mut teacher.client, &mut student.client, &topic, "teacher", "still here").await;
}

#[tokio::test]
async fn what_is_no_websocket_frame_closes_with_its_code() {
    let Some(system) = System::start().await else { return };
    let huge = [&[0x81, 0xff][..], &(1u64 << 40).to_be_bytes(), b"mask"].concat();
    for (bytes, code) in [
        (masked(0x81, b"[null,\"1\",\"t\xff\",\"e\",{}]"), 1007),
        (b"\x81\x02[]".to_vec(), 1002),
        (masked(0xc1, b"[]"), 1002),
        (masked(0x83, b"x"), 1002),
        (masked(0x80, b"x"), 1002),
        (huge, 1009),
    ] {
        assert_eq!(closed_by_bytes(&system.gateway(0), Vsn::V2, &bytes).await, code, "{bytes:?}");
    }
    // A message in fragments is a message.
    let mut raw = Raw::upgraded(&system.gateway(0), Vsn::V2).await;
    raw.send(&masked(0x01, br#"[null,"1","phoe"#)).await;
    raw.send(&masked(0x80, br#"nix","heartbeat",{}]"#)).await;
    assert_eq!(raw.next().await.map(|(first, _)| first), Some(0x81));
}

/// Sends a text message; gives the code with which the socket is closed.
pub(crate) async fn closed_by_text(client: &mut Client, text: String) -> Option<u16> {
    client.socket().send_text(text).expect("sent");
    // A large one is not read to its end.
    let _ = client.socket().flush().await;
    client.expect_close(SOON).await.expect("a close")
}

/// Sends a binary message; gives the code with which the socket is closed.
pub(crate) async fn closed_by_data(client: &mut Client, data: &[u8]) -> Option<u16> {
    client.socket().send_binary(data.to_vec()).expect("sent");
    client.socket().flush().await.expect("sent");
    client.expect_close(SOON).await.expect("a close")
}

#[tokio::test]
async fn sizes() {
    let Some(system) = System::start().await else { return };
    let (mut teacher, mut student, topic) = chat(&system, "t", "s").await;
    let message = |bytes: usize| json!({"message": "x".repeat(bytes)});
    let reply = teacher.client.push(&topic, "teacher:send", message(33 * 1024)).await.expect("a reply");
    assert_eq!(reply.reason(), Some("payload_too_large"));
    let reply = teacher.client.push(&topic, "teacher:send", message(31 * 1024)).await.expect("a reply");
    assert!(reply.ok, "{reply:?}");
    let received = student.client.expect("student:receive", SOON).await.expect("a message");
    assert_eq!(received.payload["message"].as_str().map(str::len), Some(31 * 1024));
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let frame = format!(r#"[null,"77","{topic}","teacher:send",{{"message":{deep}}}]"#);
    teacher.client.socket().send_text(frame).expect("sent");
    teacher.client.socket().flush().await.expect("sent");
    assert_eq!(teacher.client.reply(77).await.expect("a reply").reason(), Some("invalid_payload"));

    let mut loud = system.client(0, Vsn::V2).await;
    let large = format!(r#"[null,"1","t","e",{{"x":"{}"}}]"#, "x".repeat(70 * 1024));
    assert_eq!(closed_by_text(&mut loud, large).await, Some(1009));
    say(&mut teacher.client, &mut student.client, &topic, "teacher", "still here").await;
}

#[tokio::test]
async fn a_hundred_channels_and_one_more() {
    let Some(system) = System::start().await else { return };
    let mut client = system.client(0, Vsn::V2).await;
    for n in 0..100 {
        let reply = client.join(&format!("presence:student:{n}"), json!({"userId": n, "role": "student"})).await;
        assert!(reply.expect("a reply").ok);
    }
    let reply = client.join("presence:student:100", json!({"userId": 100, "role": "student"})).await.expect("a reply");
    assert_eq!(reply.reason(), Some("too many channels joined"));
    assert!(client.leave("presence:student:0").await.expect("a reply").ok);
    let reply = client.join("presence:student:100", json!({"userId": 100, "role": "student"})).await.expect("a reply");
    assert!(reply.ok, "{reply:?}");
}

#[tokio::test]
async fn the_same_topic_joined_twice() {
    let Some(system) = System::start().await else { return };
    let (mut teacher, mut student, topic) = chat(&system, "t", "s").await;
    let reply = student.client.join(&topic, json!({"userId": "s", "role": "student"})).await.expect("a reply");
    assert!(reply.ok, "{reply:?}");
    let closed = student.client.expect_on(&topic, "phx_close", SOON).await.expect("phx_close");
    assert!(closed.join_ref.is_some() && closed.join_ref == closed.reference, "{closed:?}");
    let own = student.topic.clone();
    student.client.join(&own, json!({"userId": "s", "role": "student"})).await.expect("a reply");
    student.client.expect_none("new:chat", Duration::from_millis(800)).await.expect("it has the chat joined");
    say(&mut teacher.client, &mut student.client, &topic, "teacher", "once").await;
    student.client.expect_none("student:receive", Duration::from_millis(300)).await.expect("once");
    teacher.client.expect_none("chat:terminated", Duration::from_millis(300)).await.expect("nobody has left");
}

#[tokio::test]
async fn replies_of_a_topic_come_in_order_and_unknown_events_are_refused() {
    let Some(system) = System::start().await else { return };
    let (mut teacher, mut student, topic) = chat(&system, "t", "s").await;
    let mut refs = Vec::new();
    for n in 0..50 {
        refs.push(teacher.client.send(&topic, "teacher:send", json!({"message": n})).await.expect("sent"));
    }
    let mut last = 0;
    for (n, reference) in refs.into_iter().enumerate() {
        let seq = teacher.client.reply(reference).await.expect("a reply").response["seq"].as_u64().expect("a sequence");
        let received = student.client.expect("student:receive", SOON).await.expect("a message").payload;
        assert_eq!((&received["message"], received["seq"].as_u64()), (&json!(n), Some(seq)));
        assert!(seq > last);
        last = seq;
    }
    let reply = teacher.client.push(&topic, "nonsense", json!({})).await.expect("a reply");
    assert_eq!(reply.reason(), Some("unmatched event"));
    let reply = teacher.client.push(&topic, "student:send", json!({"message": 1})).await.expect("a reply");
    assert_eq!(reply.reason(), Some("forbidden"));
}

#[tokio::test]
async fn binary_pushes_are_understood_and_chats_take_none() {
    let Some(system) = System::start().await else { return };
    let (mut teacher, mut student, topic) = chat(&system, "t", "s").await;
    let reply = teacher.client.push_data(&topic, "teacher:send", b"\x00\xff").await.expect("a reply");
    assert_eq!(reply.reason(), Some("invalid_payload"));
    let reply = teacher.client.push_data("phoenix", "heartbeat", b"").await.expect("a reply");
    assert!(reply.ok, "{reply:?}");
    say(&mut teacher.client, &mut student.client, &topic, "teacher", "still here").await;
}

#[tokio::test]
async fn a_gateway_that_stops_sends_its_sockets_away() {
    let Some(mut system) = System::of(Shape::gateway(&["--drain-ms", "200"])).await else { return };
    let (mut teacher, mut student, topic) = chat(&system, "t", "s").await;
    let ended = system.gateways[0].1.terminate();
    assert_eq!(student.client.expect_close(SOON).await.expect("a close"), Some(1012));
    assert!(ended.await.expect("its status").success());
    // It comes back elsewhere, in time: it has lost nothing.
    let mut elsewhere = system.client(1, Vsn::V2).await;
    elsewhere.join("presence:student:s", json!({"userId": "s", "role": "student"})).await.expect("a reply");
    let reply = elsewhere.join(&topic, json!({"userId": "s", "role": "student"})).await.expect("a reply");
    assert!(reply.ok, "{reply:?}");
    say(&mut teacher.client, &mut elsewhere, &topic, "teacher", "there you are").await;
}

#[tokio::test]
async fn connections_have_a_limit() {
    let Some(system) = System::of(Shape::gateway(&["--max-connections", "2"])).await else { return };
    let first = system.client(0, Vsn::V2).await;
    let mut second = system.client(0, Vsn::V2).await;
    assert!(Client::connect(&system.gateway(0), Vsn::V2).await.is_err());
    assert!(second.push("phoenix", "heartbeat", json!({})).await.expect("a reply").ok);
    first.close().await.expect("a close");
    eventually("the place is free again", async || Client::connect(&system.gateway(0), Vsn::V2).await.is_ok()).await;
}

#[test]
fn a_gateway_that_would_have_to_verify_tokens_does_not_start() {
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_switchboard")).parent().expect("a folder");
    for flags in [&[][..], &["--auth", "jwt"], &["--auth", "nonsense"]] {
        let output = std::process::Command::new(folder.join("switchboard-gateway"))
            .args(flags)
            .args(["--admin-addr", "127.0.0.1:0"])
            .output()
            .expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
async fn what_is_checked_before_the_upgrade() {
    let Some(system) = System::of(Shape::gateway(&["--allowed-origin", "https://app.example"])).await else { return };
    let base = system.gateway(0);
    let refused = async |url: String, headers: &[(&str, &str)]| match Socket::connect_with(&url, Vsn::V2, headers).await
    {
        Err(ConnectError::Refused(status)) => status,
        Err(error) => panic!("{error}"),
        Ok(_) => 101,
    };
    for (headers, status) in [
        (&[][..], 101),
        (&[("origin", "http://127.0.0.1:3000")], 101),
        (&[("origin", "https://app.example")], 101),
        (&[("origin", "https://evil.example")], 403),
        (&[("sec-websocket-protocol", "phoenix, base64url.bearer.phx.dG9rZW4")], 101),
    ] {
        assert_eq!(refused(base.clone(), headers).await, status, "{headers:?}");
    }
    for path in ["/socket/websocket", "/socket", "/ws/websocket", "/ws"] {
        assert_eq!(refused(format!("{base}{path}?vsn=2.0.0"), &[]).await, 101, "{path}");
    }
    assert_eq!(refused(format!("{base}/ws?vsn=3.0.0"), &[]).await, 403);
    assert_eq!(refused(format!("{base}/socket/longpoll?vsn=2.0.0"), &[]).await, 404);
}

#[tokio::test]
async fn silence_closes_a_socket_and_heartbeats_keep_it() {
    let Some(system) = System::of(Shape::gateway(&["--idle-timeout", "2"])).await else { return };
    let mut silent = system.client(0, Vsn::V2).await;
    let mut alive = system.client(0, Vsn::V2).await;
    let beat = async |client: &mut Client| client.push("phoenix", "heartbeat", json!({})).await.expect("a reply").ok;
    for _ in 0..4 {
        assert!(beat(&mut alive).await);
        alive.expect_none("anything", Duration::from_millis(700)).await.expect("open");
    }
    assert_eq!(silent.expect_close(SOON).await.expect("a close"), Some(1001));
    assert!(beat(&mut alive).await);
}
