//! A whole system of one's own: nats-server, matchers, history and gateways, on free ports; killed on drop.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use switchboard::client::{Client, Message, Reply, Vsn};
use switchboard_contract::ack::is_marker;
use switchboard_contract::admin;
use switchboard_contract::testing::{NatsServer, eventually, free_port};

use crate::cluster::{Links, Service};
use crate::process::Process;

/// Whatever a client waits for comes within this time.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// What should not come is waited for this long.
pub(crate) const A_WHILE: Duration = Duration::from_millis(300);

/// What a system is made of. All flags are further ones.
pub(crate) struct Shape<'a> {
    pub(crate) gateways: usize,
    /// One leads, the others stand by.
    pub(crate) matchers: usize,
    pub(crate) histories: usize,
    /// One server, or a cluster that replicates everything.
    pub(crate) nats_servers: usize,
    /// Servers and services reach servers over [`Links`].
    pub(crate) links: bool,
    pub(crate) gateway: &'a [&'a str],
    pub(crate) matcher: &'a [&'a str],
    pub(crate) history: &'a [&'a str],
    /// What all of them find in their environment beside that of the tests.
    pub(crate) environment: &'a [(&'a str, &'a str)],
}

impl Default for Shape<'_> {
    fn default() -> Self {
        Shape {
            gateways: 2,
            matchers: 1,
            histories: 1,
            nats_servers: 1,
            links: false,
            gateway: &[],
            matcher: &[],
            history: &[],
            environment: &[],
        }
    }
}

impl<'a> Shape<'a> {
    /// With flags for the gateways.
    pub(crate) fn gateway(gateway: &'a [&'a str]) -> Shape<'a> {
        Shape { gateway, ..Shape::default() }
    }

    /// With flags for the matcher.
    pub(crate) fn matcher(matcher: &'a [&'a str]) -> Shape<'a> {
        Shape { matcher, ..Shape::default() }
    }

    /// With flags for history.
    pub(crate) fn history(history: &'a [&'a str]) -> Shape<'a> {
        Shape { history, ..Shape::default() }
    }
}

/// The system. Its services are in different processes.
pub(crate) struct System {
    pub(crate) histories: Vec<Process>,
    pub(crate) matchers: Vec<Process>,
    /// With the port of each.
    pub(crate) gateways: Vec<(u16, Process)>,
    pub(crate) links: Links,
    pub(crate) nats: NatsServer,
}

impl System {
    /// A system with two gateways; `None`: no nats-server is installed, and the test is skipped.
    pub(crate) async fn start() -> Option<System> {
        Self::of(Shape::default()).await
    }

    /// As [`System::start`], of another shape.
    pub(crate) async fn of(shape: Shape<'_>) -> Option<System> {
        let (nats, mut links) = Links::servers(&shape).await?;
        let start = |binary, url: &str, flags: &[&str]| Process::start(binary, url, flags, shape.environment);
        let mut url = |service| if shape.links { links.url(service, &nats) } else { nats.url() };
        let replicas = shape.nats_servers.to_string();
        let replicated = ["--nats-replicas", &replicas];
        let history = [&replicated, shape.history].concat();
        let histories =
            (0..shape.histories).map(|n| start("switchboard-history", &url(Service::History(n)), &history)).collect();
        let matcher = [&replicated, shape.matcher].concat();
        let matchers =
            (0..shape.matchers).map(|n| start("switchboard-matcher", &url(Service::Matcher(n)), &matcher)).collect();
        let gateway = |n| {
            let port = free_port();
            let listen = format!("127.0.0.1:{port}");
            let open: &[&str] = if shape.gateway.contains(&"--auth") { &[] } else { &["--auth", "open"] };
            let flags = [open, &["--listen", &listen], shape.gateway].concat();
            (port, start("switchboard-gateway", &url(Service::Gateway(n)), &flags))
        };
        let gateways = (0..shape.gateways).map(gateway).collect();
        let system = System { histories, matchers, gateways, links, nats };
        for service in system.services() {
            service.ready().await;
        }
        Some(system)
    }

    /// All services.
    pub(crate) fn services(&self) -> impl Iterator<Item = &Process> {
        let gateways = self.gateways.iter().map(|(_, process)| process);
        self.histories.iter().chain(&self.matchers).chain(gateways)
    }

    /// All services, to kill and start them.
    pub(crate) fn services_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        let gateways = self.gateways.iter_mut().map(|(_, process)| process);
        self.histories.iter_mut().chain(&mut self.matchers).chain(gateways)
    }

    /// Where a gateway is, counted from 0.
    pub(crate) fn gateway(&self, at: usize) -> String {
        format!("http://127.0.0.1:{}", self.gateways[at].0)
    }

    /// A client on a gateway.
    pub(crate) async fn client(&self, gateway: usize, vsn: Vsn) -> Client {
        Client::connect(&self.gateway(gateway), vsn).await.expect("a connection")
    }

    /// A teacher who has joined, on gateway 1.
    pub(crate) async fn teacher(&self, id: impl Into<Value>) -> Teacher {
        self.teacher_on(1, id).await
    }

    /// A teacher who has joined.
    pub(crate) async fn teacher_on(&self, gateway: usize, id: impl Into<Value>) -> Teacher {
        Teacher::on(self.client(gateway, Vsn::V2).await, id.into()).await
    }

    /// A student who is ready, on gateway 0.
    pub(crate) async fn student(&self, id: impl Into<Value>) -> Student {
        self.student_on(0, id).await
    }

    /// A student who is ready.
    pub(crate) async fn student_on(&self, gateway: usize, id: impl Into<Value>) -> Student {
        let mut student = self.joined_on(gateway, id).await;
        student.ready().await;
        student
    }

    /// A student who has joined its own topic and no more.
    pub(crate) async fn student_joined(&self, id: impl Into<Value>) -> Student {
        self.joined_on(0, id).await
    }

    async fn joined_on(&self, gateway: usize, id: impl Into<Value>) -> Student {
        Student::on(self.client(gateway, Vsn::V2).await, id.into()).await
    }

    /// The body of `GET /` as JSON.
    pub(crate) async fn counts(&self, gateway: usize) -> Value {
        let address = format!("127.0.0.1:{}", self.gateways[gateway].0).parse().expect("an address");
        let (_, body) = admin::ask(address, "/", SOON).await.expect("an answer");
        serde_json::from_str(&body).expect("JSON")
    }

    /// A signal for each gateway, such as to pause it.
    pub(crate) fn signal_gateways(&self, signal: rustix::process::Signal) {
        self.gateways.iter().for_each(|(_, gateway)| gateway.signal(signal));
    }

    /// The metrics of a gateway.
    pub(crate) async fn gateway_metrics(&self, gateway: usize) -> String {
        self.gateways[gateway].1.metrics().await.expect("an answer")
    }

    /// Waits until the lobby's bucket holds nothing but the epoch.
    pub(crate) async fn nothing_is_left(&self) {
        eventually("nothing is left in KV lobby but the epoch", async || self.lobby_keys().await.iter().eq(["epoch"]))
            .await;
    }

    /// What the lobby's bucket holds.
    pub(crate) async fn lobby_keys(&self) -> BTreeSet<String> {
        let records = self.records("lobby").await;
        records.iter().map(|record| record.subject.replacen("$KV.lobby.", "", 1)).collect()
    }

    /// What a bucket holds. A listing of its keys would wait forever for one that is written meanwhile.
    pub(crate) async fn records(&self, bucket: &str) -> Vec<StreamMessage> {
        let context = async_nats::jetstream::new(self.nats.client().await);
        let stream = context.get_stream(format!("KV_{bucket}")).await.expect("the bucket");
        let subjects = stream.info_with_subjects(format!("$KV.{bucket}.>")).await.expect("its subjects");
        let last = async |subject: Result<(String, usize), _>| {
            let (subject, _) = subject.expect("a subject");
            match stream.get_last_raw_message_by_subject(&subject).await {
                Ok(record) => Some(record),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => None,
                Err(error) => panic!("{subject}: {error}"),
            }
        };
        let records: Vec<_> = subjects.map(last).buffer_unordered(50).collect().await;
        records.into_iter().flatten().filter(|record| !is_marker(Some(&record.headers))).collect()
    }

    /// Waits until the lobby's bucket holds one message, so that the markers of what was purged are gone too.
    pub(crate) async fn no_marker_is_left(&self) {
        // The bucket is opened each time: its state is that of the moment when it was opened.
        eventually("no marker is left in KV lobby", async || {
            self.lobby().await.status().await.expect("its state").values() == 1
        })
        .await;
    }

    async fn lobby(&self) -> async_nats::jetstream::kv::Store {
        let context = async_nats::jetstream::new(self.nats.client().await);
        context.get_key_value("lobby").await.expect("the bucket")
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
    /// One that has joined with this client.
    pub(crate) async fn on(mut client: Client, id: Value) -> Teacher {
        let payload = json!({"userId": id, "role": "teacher", "capacity": 10});
        let reply = client.join("presence:teachers", payload).await.expect("a reply");
        assert!(reply.ok, "{reply:?}");
        Teacher { client, id, counts: reply.response }
    }

    /// Claims until a student is assigned, as real clients do; gives the chat.
    pub(crate) async fn claim(&mut self) -> Value {
        self.claim_with(|reply| assert!(reply.ok, "{reply:?}")).await
    }

    /// As [`Teacher::claim`], where a claim may be answered with `unavailable`.
    pub(crate) async fn claim_in_trouble(&mut self) -> Value {
        self.claim_with(|reply| assert!(reply.ok || reply.reason() == Some("unavailable"), "{reply:?}")).await
    }

    async fn claim_with(&mut self, check: impl Fn(&Reply)) -> Value {
        let event = format!("new:chat:{}", text(&self.id));
        for _ in 0..3_000 {
            let payload = json!({"teacherId": self.id});
            check(&self.client.push("presence:teachers", "claim:student", payload).await.expect("a reply"));
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
    /// One that has joined its own topic with this client.
    pub(crate) async fn on(mut client: Client, id: Value) -> Student {
        let topic = format!("presence:student:{}", text(&id));
        let reply = client.join(&topic, json!({"userId": id, "role": "student"})).await.expect("a reply");
        assert!(reply.ok, "{reply:?}");
        Student { client, id, topic }
    }

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
