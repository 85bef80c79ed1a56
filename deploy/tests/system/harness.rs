//! A whole system of one's own: nats-server, matcher, history and gateways, on free ports; killed on drop.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use switchboard::client::{Client, Message, Vsn};
use switchboard_contract::admin;
use switchboard_contract::testing::{NatsServer, eventually, free_port};

/// Whatever a client waits for comes within this time.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// What should not come is waited for this long.
pub(crate) const A_WHILE: Duration = Duration::from_millis(300);

/// Which of the processes is the matcher: the second that was started.
const MATCHER: usize = 1;

/// The system. Its gateways are in different processes.
pub(crate) struct System {
    pub(crate) nats: NatsServer,
    gateways: Vec<u16>,
    admin: Vec<u16>,
    children: Vec<Child>,
}

impl System {
    /// A system with two gateways; `None`: no nats-server is installed, and the test is skipped.
    pub(crate) async fn start() -> Option<System> {
        Self::start_with(&[], &[]).await
    }

    /// As [`System::start`], with further flags for the matcher and for each gateway.
    pub(crate) async fn start_with(matcher: &[&str], gateway: &[&str]) -> Option<System> {
        let nats = NatsServer::start().await?;
        let mut system = System { nats, gateways: Vec::new(), admin: Vec::new(), children: Vec::new() };
        system.spawn("switchboard-history", &[]);
        system.spawn("switchboard-matcher", matcher);
        for _ in 0..2 {
            let port = free_port();
            let listen = format!("127.0.0.1:{port}");
            let mut flags = vec!["--auth", "open", "--listen", listen.as_str()];
            flags.extend_from_slice(gateway);
            system.spawn("switchboard-gateway", &flags);
            system.gateways.push(port);
        }
        for port in system.admin.clone() {
            let address = format!("127.0.0.1:{port}").parse().expect("an address");
            eventually("a service is ready", async || {
                admin::ask(address, "/health/ready", Duration::from_secs(1))
                    .await
                    .is_ok_and(|(status, _)| status == 200)
            })
            .await;
        }
        Some(system)
    }

    fn spawn(&mut self, binary: &str, flags: &[&str]) {
        let (child, admin) = self.process(binary, flags);
        self.children.push(child);
        self.admin.push(admin);
    }

    /// A process, and its admin port.
    fn process(&self, binary: &str, flags: &[&str]) -> (Child, u16) {
        let folder = std::path::Path::new(env!("CARGO_BIN_EXE_switchboard")).parent().expect("a folder");
        let admin = free_port();
        let child = Command::new(folder.join(binary))
            .args([
                "--nats-url",
                &self.nats.url(),
                "--admin-addr",
                &format!("127.0.0.1:{admin}"),
                "--log-level",
                "warn",
            ])
            .args(flags)
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{binary}: {error}; run `cargo build --workspace --bins` first"));
        (child, admin)
    }

    /// Where a gateway is, counted from 0.
    pub(crate) fn gateway(&self, at: usize) -> String {
        format!("http://127.0.0.1:{}", self.gateways[at])
    }

    /// SIGTERM for a gateway; gives its process, which ends by itself.
    pub(crate) fn terminate_gateway(&mut self, at: usize) -> Child {
        let gateways = self.children.len() - self.gateways.len();
        let child = self.children.remove(gateways + at);
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        child
    }

    /// A client on a gateway.
    pub(crate) async fn client(&self, gateway: usize, vsn: Vsn) -> Client {
        Client::connect(&self.gateway(gateway), vsn).await.expect("a connection")
    }

    /// A teacher who has joined, on gateway 1.
    pub(crate) async fn teacher(&self, id: impl Into<Value>) -> Teacher {
        let id = id.into();
        let mut client = self.client(1, Vsn::V2).await;
        let reply = client.join("presence:teachers", json!({"userId": id, "role": "teacher"})).await.expect("a reply");
        assert!(reply.ok, "{reply:?}");
        Teacher { client, id, counts: reply.response }
    }

    /// A student who is ready, on gateway 0.
    pub(crate) async fn student(&self, id: impl Into<Value>) -> Student {
        let mut student = self.student_joined(id).await;
        student.ready().await;
        student
    }

    /// A student who has joined its own topic and no more.
    pub(crate) async fn student_joined(&self, id: impl Into<Value>) -> Student {
        let id = id.into();
        let topic = format!("presence:student:{}", text(&id));
        let mut client = self.client(0, Vsn::V2).await;
        let reply = client.join(&topic, json!({"userId": id, "role": "student"})).await.expect("a reply");
        assert!(reply.ok, "{reply:?}");
        Student { client, id, topic }
    }

    /// The body of `GET /` as JSON.
    pub(crate) async fn counts(&self, gateway: usize) -> Value {
        let address = format!("127.0.0.1:{}", self.gateways[gateway]).parse().expect("an address");
        let (_, body) = admin::ask(address, "/", SOON).await.expect("an answer");
        serde_json::from_str(&body).expect("JSON")
    }

    /// `kill -9` for history.
    pub(crate) fn kill_history(&mut self) {
        let history = self.children.first_mut().expect("it is the first that was started");
        history.kill().and_then(|()| history.wait()).expect("it is killed");
    }

    /// `kill -9` for the matcher. Its lease is taken away too: how long it lasts is not what is tested here.
    pub(crate) async fn kill_matcher(&mut self) {
        let matcher = &mut self.children[MATCHER];
        matcher.kill().and_then(|()| matcher.wait()).expect("it is killed");
        let context = async_nats::jetstream::new(self.nats.client().await);
        let leases = context.get_key_value("leases").await.expect("the bucket");
        leases.delete("matcher").await.expect("it is deleted");
    }

    /// Another matcher in the place of the one that was killed.
    pub(crate) fn start_matcher(&mut self) {
        (self.children[MATCHER], self.admin[MATCHER]) = self.process("switchboard-matcher", &[]);
    }

    /// A signal for each gateway, such as to pause it.
    pub(crate) fn signal_gateways(&self, signal: rustix::process::Signal) {
        for child in &self.children[self.children.len() - self.gateways.len()..] {
            rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).expect("a signal");
        }
    }

    /// The metrics of a gateway.
    pub(crate) async fn gateway_metrics(&self, gateway: usize) -> String {
        let others = self.admin.len() - self.gateways.len();
        let address = format!("127.0.0.1:{}", self.admin[others + gateway]).parse().expect("an address");
        admin::ask(address, "/metrics", SOON).await.expect("an answer").1
    }

    /// Waits until the lobby's bucket holds nothing but the epoch.
    pub(crate) async fn nothing_is_left(&self) {
        let context = async_nats::jetstream::new(self.nats.client().await);
        eventually("nothing is left in KV lobby but the epoch", async || {
            let bucket = context.get_key_value("lobby").await.expect("the bucket");
            let keys = bucket.keys().await.expect("keys");
            let keys: Vec<_> = futures_util::StreamExt::collect(keys).await;
            keys.len() == 1
        })
        .await;
    }
}

impl Drop for System {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn text(id: &Value) -> String {
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}

/// A teacher on its topic.
pub(crate) struct Teacher {
    pub(crate) client: Client,
    pub(crate) id: Value,
    /// The reply to its join.
    pub(crate) counts: Value,
}

impl Teacher {
    /// Claims until a student is assigned, as real clients do; gives the chat.
    pub(crate) async fn claim(&mut self) -> Value {
        let event = format!("new:chat:{}", text(&self.id));
        for _ in 0..3_000 {
            let payload = json!({"teacherId": self.id});
            let reply = self.client.push("presence:teachers", "claim:student", payload).await.expect("a reply");
            assert!(reply.ok, "{reply:?}");
            if let Ok(message) = self.client.expect(&event, Duration::from_millis(10)).await {
                return message.payload;
            }
        }
        panic!("nobody was assigned to teacher {}", self.id);
    }

    /// The next `user:status`.
    pub(crate) async fn status(&mut self) -> Value {
        self.client.expect("user:status", SOON).await.expect("a status").payload
    }

    /// Waits for a `user:status` with these counts of students: waiting, chatting, finished.
    pub(crate) async fn status_is(&mut self, waiting: u64, chatting: u64, finished: u64) {
        let total = waiting + chatting + finished;
        loop {
            let students = self.status().await["students"].take();
            if students == json!({"total": total, "waiting": waiting, "chatting": chatting, "finished": finished}) {
                return;
            }
        }
    }

    /// Joins a chat.
    pub(crate) async fn join(&mut self, chat: &Value) -> String {
        enter_join(&mut self.client, &self.id, "teacher", chat).await
    }
}

/// A student on its topic.
pub(crate) struct Student {
    pub(crate) client: Client,
    pub(crate) id: Value,
    pub(crate) topic: String,
}

impl Student {
    /// Says that it is ready.
    pub(crate) async fn ready(&mut self) {
        let payload = json!({"userId": self.id});
        let reply = self.client.push(&self.topic, "student:ready", payload).await.expect("a reply");
        assert!(reply.ok, "{reply:?}");
    }

    /// Its `new:chat`.
    pub(crate) async fn new_chat(&mut self) -> Value {
        self.client.expect("new:chat", SOON).await.expect("a chat").payload
    }

    /// Joins a chat.
    pub(crate) async fn join(&mut self, chat: &Value) -> String {
        enter_join(&mut self.client, &self.id, "student", chat).await
    }
}

async fn enter_join(client: &mut Client, id: &Value, role: &str, chat: &Value) -> String {
    let topic = format!("chats:{}", chat["id"].as_str().expect("an id"));
    let reply = client.join(&topic, json!({"userId": id, "role": role})).await.expect("a reply");
    assert!(reply.ok, "{reply:?}");
    topic
}

/// A teacher and a student in a chat that both have entered: its topic, and the chat as the teacher saw it.
pub(crate) async fn chat(
    system: &System,
    teacher: impl Into<Value>,
    student: impl Into<Value>,
) -> (Teacher, Student, String) {
    let mut teacher = system.teacher(teacher).await;
    let mut student = system.student(student).await;
    let topic = meet(&mut teacher, &mut student).await;
    (teacher, student, topic)
}

/// The student is assigned to the teacher, and both enter.
pub(crate) async fn meet(teacher: &mut Teacher, student: &mut Student) -> String {
    let seen = teacher.claim().await;
    let chat = student.new_chat().await;
    assert_eq!(seen["id"], chat["id"]);
    let topic = teacher.join(&chat).await;
    student.join(&chat).await;
    enter(&mut teacher.client, &topic, "teacher").await;
    enter(&mut student.client, &topic, "student").await;
    ready(&mut teacher.client, &topic).await;
    ready(&mut student.client, &topic).await;
    topic
}

/// A side enters.
pub(crate) async fn enter(client: &mut Client, topic: &str, role: &str) {
    let reply = client.push(topic, &format!("{role}:joined"), json!({})).await.expect("a reply");
    assert!(reply.ok, "{reply:?}");
}

/// Waits for `chat:ready`.
pub(crate) async fn ready(client: &mut Client, topic: &str) -> Message {
    client.expect_on(topic, "chat:ready", SOON).await.expect("chat:ready")
}

/// A message from one side to the other; gives its sequence.
pub(crate) async fn say(from: &mut Client, to: &mut Client, topic: &str, role: &str, text: &str) -> u64 {
    let reply = from.push(topic, &format!("{role}:send"), json!({"message": text})).await.expect("a reply");
    assert!(reply.ok, "{reply:?}");
    let other = if role == "teacher" { "student" } else { "teacher" };
    let message = to.expect_on(topic, &format!("{other}:receive"), SOON).await.expect("a message");
    assert_eq!(message.payload["message"], text);
    assert_eq!(message.payload["seq"], reply.response["seq"]);
    reply.response["seq"].as_u64().expect("a sequence")
}
