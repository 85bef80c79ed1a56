//! One side of a chat whose socket may break: it comes back, says again what was not answered, and remembers all that
//! it heard.

use std::time::Duration;

use serde_json::{Value, json};
use switchboard::client::{Client, ClientError, Reply, Vsn};
use switchboard_contract::testing::DEADLINE;
use tokio::time::{Instant, sleep};

use crate::harness::{A_WHILE, SOON, Student, System, Teacher, chat};

/// From one attempt, or one message, to the next.
const PACE: Duration = Duration::from_millis(10);

/// A teacher or a student in a chat. Its messages are numbered from 0.
pub(crate) struct Side {
    pub(crate) client: Client,
    id: Value,
    role: &'static str,
    own_topic: String,
    pub(crate) chat: String,
    /// The sequences that the server gave its messages.
    said: Vec<u64>,
    /// Number and sequence of what it heard, in the order in which it came.
    heard: Vec<(u64, u64)>,
}

/// A teacher `t` on gateway 1 and a student `s` on gateway 0, in a chat that both have entered.
pub(crate) async fn sides(system: &System) -> (Side, Side) {
    sides_of(system, "t", "s").await
}

/// The same of users of other names.
pub(crate) async fn sides_of(system: &System, teacher: &str, student: &str) -> (Side, Side) {
    let (teacher, student, chat) = chat(system, teacher, student).await;
    (Side::teacher(teacher, &chat), Side::student(student, &chat))
}

impl Side {
    fn teacher(teacher: Teacher, chat: &str) -> Side {
        Self::new(teacher.client, teacher.id, "teacher", "presence:teachers".to_owned(), chat)
    }

    fn student(student: Student, chat: &str) -> Side {
        Self::new(student.client, student.id, "student", student.topic, chat)
    }

    fn new(client: Client, id: Value, role: &'static str, own_topic: String, chat: &str) -> Side {
        Side { client, id, role, own_topic, chat: chat.to_owned(), said: Vec::new(), heard: Vec::new() }
    }

    /// Sends its next message once.
    ///
    /// # Errors
    /// If the socket breaks.
    pub(crate) async fn send(&mut self) -> Result<Reply, ClientError> {
        self.note().await?;
        let n = self.said.len();
        let payload = json!({"message": n, "id": format!("{}-{n}", self.role)});
        let reply = self.client.push(&self.chat, &format!("{}:send", self.role), payload).await?;
        if reply.ok {
            self.said.push(reply.response["seq"].as_u64().expect("a sequence"));
        }
        Ok(reply)
    }

    /// Says that many things, each again while it is answered with `unavailable`.
    ///
    /// # Errors
    /// If the socket breaks; what was not answered is said again next time.
    pub(crate) async fn talk(&mut self, messages: usize) -> Result<(), ClientError> {
        let all = self.said.len() + messages;
        while self.said.len() < all {
            let reply = self.send().await?;
            assert!(reply.ok || reply.reason() == Some("unavailable"), "{reply:?}");
            sleep(PACE).await;
        }
        Ok(())
    }

    /// On a new socket: its own topic, and the chat from what it heard last.
    pub(crate) async fn come_back(&mut self, gateway: &str) {
        let deadline = Instant::now() + DEADLINE;
        self.client = loop {
            match Client::connect(gateway, Vsn::V2).await {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            sleep(PACE).await;
        };
        let last_seq = self.heard.last().map_or(0, |(_, seq)| *seq);
        let mut user = json!({"userId": self.id, "role": self.role, "capacity": 10});
        self.insist(&self.own_topic.clone(), "phx_join", &user).await;
        if self.role == "student" {
            self.insist(&self.own_topic.clone(), "student:ready", &json!({"userId": self.id})).await;
        }
        user["last_seq"] = last_seq.into();
        self.insist(&self.chat.clone(), "phx_join", &user).await;
        self.insist(&self.chat.clone(), &format!("{}:joined", self.role), &json!({})).await;
    }

    /// Again until it is `ok`.
    async fn insist(&mut self, topic: &str, event: &str, payload: &Value) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let reply = match event {
                "phx_join" => self.client.join(topic, payload).await,
                _ => self.client.push(topic, event, payload).await,
            }
            .expect("a reply");
            if reply.ok {
                return;
            }
            assert_eq!(reply.reason(), Some("unavailable"), "{event} on {topic}");
            assert!(Instant::now() < deadline, "{event} on {topic} is always unavailable");
            sleep(PACE).await;
        }
    }

    /// Notes what has come.
    async fn note(&mut self) -> Result<(), ClientError> {
        let event = format!("{}:receive", self.role);
        loop {
            match self.client.expect_on(&self.chat, &event, Duration::ZERO).await {
                Ok(message) => self.heard.push(number_and_seq(&message.payload)),
                Err(ClientError::Late { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for all that the other side said. It comes in order, nothing twice and nothing lost; and nothing else that
    /// a client would have to act on has come since its last socket was opened.
    async fn has_heard(&mut self, said: &[u64]) {
        let event = format!("{}:receive", self.role);
        while self.heard.len() < said.len() {
            let message = self.client.expect_on(&self.chat, &event, SOON).await.expect("a message");
            self.heard.push(number_and_seq(&message.payload));
        }
        self.client.expect_none(&event, A_WHILE).await.expect("nothing twice");
        let expected: Vec<_> = (0..).zip(said.iter().copied()).collect();
        assert_eq!(self.heard, expected, "what the {} heard", self.role);
        for unwanted in ["gap", "chat:requeued", "chat:terminated", "phx_close", "phx_error"] {
            assert!(self.client.unread().iter().all(|m| m.event != unwanted), "{:?}", self.client.unread());
        }
    }
}

/// Both have heard what the other one said.
pub(crate) async fn agree(one: &mut Side, other: &mut Side) {
    one.has_heard(&other.said).await;
    other.has_heard(&one.said).await;
}

/// Both talk at the same time, and no socket breaks.
pub(crate) async fn talk(one: &mut Side, other: &mut Side, messages: usize) {
    let (first, second) = tokio::join!(one.talk(messages), other.talk(messages));
    first.and(second).expect("sockets stay open");
}

fn number_and_seq(payload: &Value) -> (u64, u64) {
    (payload["message"].as_u64().expect("a number"), payload["seq"].as_u64().expect("a sequence"))
}
