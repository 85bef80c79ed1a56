//! What a client writes under the server's own names reaches nobody, however it spells them.

use serde_json::{Value, json};
use switchboard::client::{Client, Vsn};

use crate::harness::{System, chat};
use crate::rooms::{Member, ROOM};

/// The server's names, each twice: as they are, and escaped. What lies deeper is the client's own.
const FORGED: &str = r#""seq":1,"\u0073eq":2,"seq":{"seq":3},"from":{"user_id":"eve"},"f\u0072om":1,"at":"then","\u0061t":1,"deep":{"seq":9,"from":8,"at":7}"#;
const FORGED_BY_NAME: &str = r#""user":"eve","us\u0065r":1,"timestamp":0,"timest\u0061mp":1"#;

/// Sends a push as it stands.
async fn push(client: &mut Client, join_ref: &str, topic: &str, event: &str, payload: &str) {
    let frame = match client.socket().vsn() {
        Vsn::V1 => format!(r#"{{"topic":"{topic}","event":"{event}","payload":{payload},"ref":"900"}}"#),
        Vsn::V2 => format!(r#"[{join_ref},"900","{topic}","{event}",{payload}]"#),
    };
    client.socket().send_text(frame).expect("sent");
    client.socket().flush().await.expect("sent");
    let reply = client.reply(900).await.expect("a reply");
    assert!(reply.ok, "{event} {payload}: {reply:?}");
}

/// The text of the next frame with this event, and its payload.
async fn heard(client: &mut Client, event: &str) -> (String, Value) {
    loop {
        let incoming = client.socket().next().await.expect("a frame");
        let Some(text) = incoming.text().filter(|text| text.contains(&format!("\"{event}\""))) else { continue };
        let frame: Value = serde_json::from_str(text).expect("JSON");
        let payload = match client.socket().vsn() {
            Vsn::V1 => frame["payload"].clone(),
            Vsn::V2 => frame[4].clone(),
        };
        return (text.to_owned(), payload);
    }
}

/// Each name stands once at the top, once in what lies deeper, and nowhere escaped.
fn is_clean(text: &str, payload: &Value, names: &[&str]) {
    for name in names {
        let deep = usize::from(payload["deep"].get(name).is_some());
        let top = usize::from(payload.get(name).is_some());
        assert_eq!(text.matches(&format!("\"{name}\":")).count(), deep + top, "{name} in {text}");
    }
    assert!(!text.contains("\\u00"), "{text}");
    assert_eq!(payload["deep"], json!({"seq": 9, "from": 8, "at": 7}), "what lies deeper is the client's: {text}");
}

#[tokio::test]
async fn reserved_names_reach_nobody_in_a_room() {
    let Some(system) = System::start().await else { return };
    for (speaks, hears) in [(Vsn::V1, Vsn::V2), (Vsn::V2, Vsn::V1)] {
        let mut ada = Member::on(&system, 0, speaks, "ada", 100).await.client;
        let mut bob = Member::on(&system, 1, hears, "bob", 10).await.client;
        let ada_is = json!({"user_id": "ada", "session": "ada:s"});
        for (event, whom, logged) in [
            ("new_msg", r#""broadcast":true,"#, true),
            ("new_msg", r#""to":[{"userId":"bob"}],"#, false),
            ("typing", "", false),
        ] {
            push(&mut ada, "null", ROOM, event, &format!("{{{whom}{FORGED}}}")).await;
            let (text, payload) = heard(&mut bob, event).await;
            is_clean(&text, &payload, &["seq", "from", "at"]);
            assert_eq!(payload["from"], ada_is, "{text}");
            assert_eq!((payload["seq"].is_u64(), payload["at"].is_string()), (logged, logged), "{text}");
        }
        push(&mut ada, "null", ROOM, "new_message", &format!(r#"{{"body":"x",{FORGED_BY_NAME},{FORGED}}}"#)).await;
        let (text, payload) = heard(&mut bob, "new_message").await;
        is_clean(&text, &payload, &["seq", "from", "at", "user", "timestamp"]);
        assert_eq!(payload["user"], "ada", "{text}");
        assert!(payload["seq"].is_u64() && payload["timestamp"].is_string(), "{text}");
        assert!(payload.get("from").is_none() && payload.get("at").is_none(), "{text}");
        // What would have two meanings is refused.
        let twice = bob.push(ROOM, "new_msg", json!({"broadcast": true, "to": []})).await.expect("a reply");
        assert_eq!(twice.reason(), Some("invalid_payload"));
    }
}

#[tokio::test]
async fn a_sequence_of_ones_own_reaches_nobody_in_a_chat() {
    let Some(system) = System::start().await else { return };
    let (mut teacher, mut student, topic) = chat(&system, "t", "s").await;
    push(&mut teacher.client, "null", &topic, "teacher:send", &format!(r#"{{"message":1,{FORGED}}}"#)).await;
    let (text, payload) = heard(&mut student.client, "student:receive").await;
    assert_eq!(text.matches("\"seq\":").count(), 2, "the server's, and one that lies deeper: {text}");
    assert!(!text.contains("\\u0073eq") && payload["seq"].as_u64() > Some(3), "{text}");
    let history = student.client.push(&topic, "history", json!({})).await.expect("a reply").response;
    let message = &history["messages"][0];
    assert_eq!((&message["seq"], &message["from"]["user_id"]), (&payload["seq"], &json!("t")));
    assert!(message["payload"].get("seq").is_none(), "{message}");
}
