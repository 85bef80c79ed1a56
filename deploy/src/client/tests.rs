//! The client against servers that say what a test wants.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message as WsMessage;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::*;

const SOON: Duration = Duration::from_secs(5);

/// A server that takes one client, and answers each message that it expects with those that it is given; then it
/// closes with 1012.
async fn server(script: Vec<(&'static str, Vec<&'static str>)>) -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut ws = tokio_tungstenite::accept_async(tcp).await.unwrap();
        for (expected, answers) in script {
            assert_eq!(ws.next().await.unwrap().unwrap().to_text().unwrap(), expected);
            for answer in answers {
                ws.send(WsMessage::text(answer)).await.unwrap();
            }
        }
        ws.close(Some(CloseFrame { code: 1012.into(), reason: "draining".into() })).await.unwrap();
        while ws.next().await.is_some() {}
    });
    (url, served)
}

#[tokio::test]
async fn replies_are_told_from_events_and_both_are_kept_in_order() {
    let (url, served) = server(vec![
        (
            r#"["1","1","t","phx_join",{"a":1}]"#,
            vec![
                r#"["1",null,"t","early",{"n":1}]"#,
                r#"["1","1","t","phx_reply",{"status":"ok","response":{"b":2}}]"#,
            ],
        ),
        (
            r#"["1","2","t","say",{}]"#,
            vec![r#"["1","2","t","phx_reply",{"status":"error","response":{"reason":"quiet"}}]"#],
        ),
        (
            r#"["1","3","t","phx_leave",{}]"#,
            vec![r#"["1","3","t","phx_reply",{"status":"ok","response":{}}]"#, r#"["1","1","t","phx_close",{}]"#],
        ),
        (
            r#"[null,"4","t","say",{}]"#,
            vec![r#"[null,"4","t","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#],
        ),
    ])
    .await;
    let mut client = Client::connect(&url, Vsn::V2).await.unwrap();
    let joined = client.join("t", json!({"a": 1})).await.unwrap();
    assert_eq!((joined.ok, &joined.response["b"], joined.reason()), (true, &json!(2), None));
    assert_eq!(client.push("t", "say", json!({})).await.unwrap().reason(), Some("quiet"));
    assert!(client.leave("t").await.unwrap().ok);
    assert_eq!(client.push("t", "say", json!({})).await.unwrap().reason(), Some("unmatched topic"));
    assert_eq!(client.expect_close(SOON).await.unwrap(), Some(1012));
    let unread: Vec<_> = client.unread().iter().map(|m| m.event.as_str()).collect();
    assert_eq!(unread, ["early", "phx_close"]);
    assert_eq!(client.expect("early", SOON).await.unwrap().payload["n"], 1);
    assert!(matches!(client.expect("early", SOON).await, Err(ClientError::Socket(_))));
    served.await.unwrap();
}

#[tokio::test]
async fn what_does_not_come_is_late_and_what_should_not_come_is_unwanted() {
    let (url, _served) = server(vec![
        (
            r#"{"topic":"t","event":"e","payload":{},"ref":"1"}"#,
            vec![r#"{"topic":"t","event":"here","payload":{},"ref":null}"#],
        ),
        ("never", vec![]),
    ])
    .await;
    let mut client = Client::connect(&url, Vsn::V1).await.unwrap();
    client.send("t", "e", json!({})).await.unwrap();
    let late = client.expect("other", Duration::from_millis(200)).await.unwrap_err();
    assert!(late.to_string().contains("here on t"), "{late}");
    client.expect_none("other", Duration::from_millis(20)).await.unwrap();
    let unwanted = client.expect_none("here", Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(unwanted, ClientError::Unwanted(_)), "{unwanted}");
}

#[tokio::test]
async fn no_server_and_no_socket_are_told_apart() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let refusing = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut head = [0; 1024];
        let length = tcp.read(&mut head).await.unwrap();
        tcp.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        String::from_utf8_lossy(&head[..length]).into_owned()
    });
    let headers = [("origin", "http://elsewhere")];
    let refused = Socket::connect_with(&url, Vsn::V2, &headers).await.err().unwrap();
    assert!(matches!(refused, ConnectError::Refused(403)), "{refused}");
    let head = refusing.await.unwrap().to_lowercase();
    assert!(head.contains("origin: http://elsewhere"), "{head}");
    let nobody = Client::connect(&url, Vsn::V2).await.err().unwrap();
    assert!(matches!(nobody, ConnectError::Tcp(..)), "{nobody}");
}
