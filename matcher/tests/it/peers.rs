//! Who the matcher talks with, for tests: gateways made of raw messages, and other matchers.

use std::time::Duration;

use async_nats::Subscriber;
use async_nats::jetstream;
use futures_util::StreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use switchboard_contract::admin::Readiness;
use switchboard_contract::lobby::{
    At, Claim, Done, Heartbeat, Leader, Push, Pushed, Row, Status, Table, TableReply, TeacherSettings, Terminate, Whole,
};
use switchboard_contract::log::Entry;
use switchboard_contract::names::{self, ChatId, Incarnation, LogName, MatcherVerb, UserId};
use switchboard_contract::nats::Nats;
use switchboard_contract::reason::Reason;
use switchboard_contract::wire::{V1, decode, encode};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::nats_server::{DEADLINE, Servers, until};

/// A matcher in this process.
pub(crate) struct Matcher {
    stop: CancellationToken,
    pub(crate) task: JoinHandle<anyhow::Result<()>>,
    pub(crate) readiness: Readiness,
}

impl Matcher {
    pub(crate) fn start(servers: &Servers, flags: &[&str]) -> Matcher {
        let (stop, readiness) = (CancellationToken::new(), Readiness::new("matcher"));
        let (args, theirs, ready) = (servers.args(flags), stop.clone(), readiness.clone());
        let task = tokio::spawn(async move { switchboard_matcher::lead(args, &ready, theirs).await });
        Matcher { stop, task, readiness }
    }

    pub(crate) async fn ready(&self) {
        until("the matcher is ready", || async { self.readiness.get() == Ok(()) }).await;
    }

    /// Starts one and waits until a matcher leads: this one, where it is the only one.
    pub(crate) async fn lead(servers: &Servers, nats: &Nats, flags: &[&str]) -> Matcher {
        let matcher = Matcher::start(servers, flags);
        matcher.ready().await;
        until("a matcher leads", || async { leader(nats).await.is_some() }).await;
        matcher
    }

    /// Ends it without a word, as far as that goes inside a process.
    pub(crate) async fn abort(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(DEADLINE, self.task).await.expect("in time");
        ended.expect("no panic").expect("no error");
    }
}

/// A gateway that tells the matcher what the test says.
pub(crate) struct Gateway {
    pub(crate) nats: Nats,
    pub(crate) name: Incarnation,
    pub(crate) pushes: Subscriber,
    beats: u64,
}

impl Gateway {
    pub(crate) async fn start(nats: &Nats, name: &str) -> Gateway {
        let name = Incarnation::named(name).expect("a name");
        let pushes = nats.client.subscribe(names::gateway_subject(&name)).await.expect("a subscription");
        nats.round_trip(DEADLINE).await.expect("a round trip");
        Gateway { nats: nats.clone(), name, pushes, beats: 0 }
    }

    pub(crate) async fn ask<T: DeserializeOwned>(&self, verb: MatcherVerb, body: &impl Serialize) -> T {
        let answer = self.nats.request(verb.subject(), encode(body), DEADLINE).await.expect("an answer");
        decode("answer", &answer.payload).expect("an answer that is understood")
    }

    pub(crate) async fn send(&self, rows: Vec<(u64, u64, At)>, whole: Option<Whole>) -> TableReply {
        let rows = rows.into_iter().map(|(chan, n, at)| Row { chan, n, at }).collect();
        self.ask(MatcherVerb::Table, &Table { v: V1, gateway: self.name.clone(), whole, rows }).await
    }

    pub(crate) async fn whole(&self, rows: Vec<(u64, u64, At)>) -> TableReply {
        self.send(rows, Some(Whole { first: true, last: true })).await
    }

    pub(crate) async fn row(&self, chan: u64, n: u64, at: At) -> TableReply {
        self.send(vec![(chan, n, at)], None).await
    }

    pub(crate) async fn claim(&self, chan: u64) -> Option<Reason> {
        let done: Done = self.ask(MatcherVerb::Claim, &Claim { v: V1, gateway: self.name.clone(), chan, id: 0 }).await;
        done.refused
    }

    pub(crate) async fn terminate(&self, chat: &ChatId) -> Option<Reason> {
        let done: Done = self.ask(MatcherVerb::Terminate, &Terminate { v: V1, chat: chat.clone() }).await;
        done.refused
    }

    /// The next push with chats; it is acknowledged if the test says so.
    pub(crate) async fn new_chat(&mut self, acknowledge: bool) -> Push {
        loop {
            let message = tokio::time::timeout(DEADLINE, self.pushes.next()).await.expect("a push").expect("a push");
            let push: Push = decode("push", &message.payload).expect("a push that is understood");
            if push.new_chats.is_empty() {
                continue;
            }
            let reply = message.reply.expect("a request");
            if acknowledge {
                self.nats.client.publish(reply, encode(&Pushed::default())).await.expect("sent");
            }
            return push;
        }
    }

    /// Looks at what comes within half a second.
    pub(crate) async fn is_asked_for_its_table(&mut self) -> bool {
        while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(500), self.pushes.next()).await {
            if decode::<Push>("push", &message.payload).expect("a push that is understood").resend {
                return true;
            }
        }
        false
    }

    pub(crate) async fn beat(&mut self, bye: bool) {
        self.beats += 1;
        let beat = Heartbeat { v: V1, gateway: self.name.clone(), n: self.beats, bye, rooms: Vec::new() };
        self.nats.publish(names::alive_gateway(&self.name), encode(&beat)).await;
    }

    pub(crate) async fn leader(&self) -> Leader {
        self.ask(MatcherVerb::Status, &()).await
    }
}

pub(crate) fn teacher(id: u64) -> At {
    At::Teacher { id: UserId::from(id), says: TeacherSettings::default(), said: TeacherSettings::default() }
}

pub(crate) fn student(id: u64, ready: bool) -> At {
    At::Student { id: UserId::from(id), ready }
}

pub(crate) fn counts(status: &Status) -> [u64; 4] {
    [status.teachers, status.waiting, status.chatting, status.finished]
}

/// The events of a chat's log, with their payloads and ids.
pub(crate) async fn log(nats: &Nats, chat: &ChatId) -> Vec<String> {
    let context = jetstream::new(nats.client.clone());
    let stream = context.get_stream("ROOMS").await.expect("the stream");
    let config = jetstream::consumer::push::OrderedConfig {
        deliver_subject: nats.client.new_inbox(),
        filter_subject: LogName::Chat(chat.clone()).log_subject(),
        ..Default::default()
    };
    let mut messages = stream.create_consumer(config).await.expect("a consumer").messages().await.expect("messages");
    let mut events = Vec::new();
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(300), messages.next()).await {
        let message = message.expect("a message");
        let entry: Entry<'_> = serde_json::from_slice(&message.payload).expect("an entry");
        events.push(format!("{} {} {}", entry.event, entry.payload.get(), entry.id));
    }
    events
}

/// Who leads, if anybody says so.
pub(crate) async fn leader(nats: &Nats) -> Option<Leader> {
    let answer = nats.request(MatcherVerb::Status.subject(), encode(&()), Duration::from_millis(500)).await.ok()?;
    Some(decode("leader", &answer.payload).expect("an answer that is understood"))
}

/// The matchers that NATS's own tool finds to stand by, of so many.
pub(crate) async fn standbys(nats: &Nats, most: usize) -> Vec<String> {
    let inbox = nats.client.new_inbox();
    let mut answers = nats.client.subscribe(inbox.clone()).await.expect("a subscription");
    let ping = names::MATCHER_STANDBY_PING.to_owned();
    nats.client.publish_with_reply(ping, inbox, "".into()).await.expect("sent");
    let mut found = Vec::new();
    while found.len() <= most
        && let Ok(Some(answer)) = tokio::time::timeout(Duration::from_millis(300), answers.next()).await
        && answer.status.is_none()
    {
        let answer: async_nats::service::PingResponse = serde_json::from_slice(&answer.payload).expect("an answer");
        assert_eq!(answer.name, names::MATCHER_STANDBY);
        found.push(answer.metadata[names::MATCHER_STANDBY_NAME].clone());
    }
    found
}
