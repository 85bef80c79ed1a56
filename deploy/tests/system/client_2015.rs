//! A client of 2015, to the letter: the bare `/ws` without `vsn`, string refs, no `join_ref`, integer ids, and it never
//! waits for a reply.

use serde_json::{Value, json};
use switchboard::client::{Socket, Vsn};

use crate::harness::{SOON, System};

struct Client {
    socket: Socket,
    reference: u32,
}

impl Client {
    async fn connect(system: &System, gateway: usize) -> Client {
        let url = format!("{}/ws", system.gateway(gateway));
        Client { socket: Socket::connect_with(&url, Vsn::V1, &[]).await.expect("a connection"), reference: 0 }
    }

    async fn push(&mut self, topic: &str, event: &str, payload: &str) -> String {
        self.reference += 1;
        let reference = self.reference.to_string();
        let text = format!(r#"{{"topic":"{topic}","event":"{event}","payload":{payload},"ref":"{reference}"}}"#);
        self.socket.send_text(text).expect("sent");
        self.socket.flush().await.expect("sent");
        reference
    }

    /// The next frame with this event, as the text that came.
    async fn frame(&mut self, event: &str) -> String {
        loop {
            let incoming = tokio::time::timeout(SOON, self.socket.next()).await.expect("in time").expect("a frame");
            let text = incoming.text().expect("text").to_owned();
            let value: Value = serde_json::from_str(&text).expect("JSON");
            let keys: Vec<&String> = value.as_object().expect("an object").keys().collect();
            assert_eq!(keys, ["event", "payload", "ref", "topic"], "exactly these: {text}");
            if value["event"] == event {
                return text;
            }
        }
    }
}

#[tokio::test]
async fn a_client_of_2015_from_queue_to_end() {
    let Some(system) = System::start().await else { return };
    let mut teacher = Client::connect(&system, 1).await;
    let mut student = Client::connect(&system, 0).await;
    teacher.push("presence:teachers", "phx_join", r#"{"userId":7,"role":"teacher"}"#).await;
    assert_eq!(
        teacher.frame("phx_reply").await,
        r#"{"topic":"presence:teachers","event":"phx_reply","payload":{"status":"ok","response":{"teachers":{"total":1},"students":{"total":0,"waiting":0,"chatting":0,"finished":0}}},"ref":"1"}"#
    );
    // It waits for no reply: join and ready go out in one breath.
    student.push("presence:student:5", "phx_join", r#"{"userId":5,"role":"student"}"#).await;
    student.push("presence:student:5", "student:ready", r#"{"userId":5}"#).await;
    for reference in ["1", "2"] {
        assert_eq!(
            student.frame("phx_reply").await,
            format!(
                r#"{{"topic":"presence:student:5","event":"phx_reply","payload":{{"status":"ok","response":{{}}}},"ref":"{reference}"}}"#
            )
        );
    }
    assert_eq!(
        teacher.frame("user:status").await,
        r#"{"topic":"presence:teachers","event":"user:status","payload":{"teachers":{"total":1},"students":{"total":1,"waiting":1,"chatting":0,"finished":0}},"ref":null}"#
    );
    teacher.push("presence:teachers", "claim:student", r#"{"teacherId":7}"#).await;
    let new_chat: Value = serde_json::from_str(&teacher.frame("new:chat:7").await).expect("JSON");
    let id = new_chat["payload"]["id"].as_str().expect("an id").to_owned();
    let seen: Value = serde_json::from_str(&student.frame("new:chat").await).expect("JSON");
    assert_eq!(seen["payload"], new_chat["payload"]);
    assert_eq!((&seen["payload"]["teacher_id"], &seen["payload"]["student_id"]), (&json!(7), &json!(5)));

    let topic = format!("chats:{id}");
    teacher.push(&topic, "phx_join", r#"{"userId":7,"role":"teacher"}"#).await;
    teacher.push(&topic, "teacher:joined", "{}").await;
    student.push(&topic, "phx_join", r#"{"userId":5,"role":"student"}"#).await;
    student.push(&topic, "student:joined", "{}").await;
    let ready = format!(r#"{{"topic":"{topic}","event":"chat:ready","payload":{{}},"ref":null}}"#);
    assert_eq!(teacher.frame("chat:ready").await, ready);
    assert_eq!(student.frame("chat:ready").await, ready);

    for n in 0..3 {
        teacher.push(&topic, "teacher:send", &format!(r#"{{"message":"q{n}"}}"#)).await;
    }
    for n in 0..3 {
        let received: Value = serde_json::from_str(&student.frame("student:receive").await).expect("JSON");
        assert_eq!(received["payload"]["message"], format!("q{n}"));
    }
    student.push(&topic, "student:send", r#"{"message":"a"}"#).await;
    assert!(teacher.frame("teacher:receive").await.contains(r#""message":"a","seq":"#));
    student.push("phoenix", "heartbeat", "{}").await;
    teacher.push(&topic, "chat:terminate", "{}").await;
    let end = format!(r#"{{"topic":"{topic}","event":"chat:terminated","payload":{{}},"ref":null}}"#);
    assert_eq!(student.frame("chat:terminated").await, end);
    assert_eq!(teacher.frame("chat:terminated").await, end);

    let reference = student.push(&topic, "phx_leave", "{}").await;
    assert!(student.frame("phx_reply").await.contains(&format!(r#""ref":"{reference}""#)));
    // Its join was its third push: that is the channel's ref.
    assert_eq!(
        student.frame("phx_close").await,
        format!(r#"{{"topic":"{topic}","event":"phx_close","payload":{{}},"ref":"3"}}"#)
    );
}
