//! The chats that have members on this gateway: one task each, which owns the chat's topic and its subscription.
//!
//! A task lives from the first join to a while after the last leave. It never waits for a socket: what is for one goes
//! into its mailbox. What it asks of NATS comes back to it as an event.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use async_nats::Subscriber;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use switchboard_contract::limits;
use switchboard_contract::lobby::ChannelId;
use switchboard_contract::log::Position;
use switchboard_contract::names::{self, ChatId, LogName};
use switchboard_contract::nats::{Nats, RequestError};
use switchboard_contract::reason::Reason;
use switchboard_contract::wire;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::chat::{Chat, Effect, Fact, How, Loaded, Part, Stamp};
use crate::commands::ChatCommand;
use crate::lobby_task::LobbyHandle;
use crate::log::{history_read, load, publish, read_log};
use crate::mailbox::{Event, Mailbox, Outcome};
use crate::observe;
use crate::payload::Refusal;
use crate::repair;

/// What a topic's task is told.
enum Command {
    Client(ChatCommand, Mailbox),
    /// Its log reaches to this sequence.
    Behind(u64),
}

/// The task of a topic, as others see it.
struct TopicHandle {
    commands: mpsc::Sender<Command>,
    /// See [`Chat::position`]; [`NOWHERE`] before the first join.
    seen: Arc<AtomicU64>,
}

/// No sequence.
const NOWHERE: u64 = u64::MAX;

/// All chats with members here. Cheap to clone.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    nats: Nats,
    lobby: LobbyHandle,
    topics: Mutex<HashMap<ChatId, TopicHandle>>,
    message_ids: AtomicU64,
    message_prefix: String,
}

impl Hub {
    /// A hub without chats. Its task ends with it.
    pub fn new(nats: Nats, lobby: LobbyHandle) -> Self {
        let hub = Hub(Arc::new(Shared {
            nats: nats.clone(),
            lobby,
            topics: Mutex::new(HashMap::new()),
            message_ids: AtomicU64::new(0),
            message_prefix: names::random_token(8),
        }));
        tokio::spawn(check_ends(Arc::downgrade(&hub.0), nats));
        hub
    }

    /// Tells a chat's topic; what comes back goes to `mailbox`. Waits while [`limits::TOPIC_COMMANDS_MAX`] others do.
    pub async fn send(&self, chat: &ChatId, command: ChatCommand, mailbox: &Mailbox) {
        let mut command = (command, mailbox.clone());
        loop {
            let Some(topic) = self.topic(chat, &command) else { return };
            match topic.send(Command::Client(command.0, command.1)).await {
                Ok(()) | Err(mpsc::error::SendError(Command::Behind(_))) => return,
                // The topic has just ended, for want of members most likely.
                Err(mpsc::error::SendError(Command::Client(back, mailbox))) => command = (back, mailbox),
            }
        }
    }

    /// The queue of a chat's task. A join starts one; a push to one that is not there any more has lost its channel.
    fn topic(&self, chat: &ChatId, (command, mailbox): &(ChatCommand, Mailbox)) -> Option<mpsc::Sender<Command>> {
        let mut topics = self.0.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.get(chat).filter(|topic| !topic.commands.is_closed()) {
            return Some(topic.commands.clone());
        }
        match command {
            ChatCommand::Join { .. } => {}
            ChatCommand::Leave { .. } => return None,
            ChatCommand::Push { chan, .. } => {
                mailbox.send(Arc::new(Event::Failed { chan: *chan }));
                return None;
            }
        }
        let (sender, commands) = mpsc::channel(limits::TOPIC_COMMANDS_MAX);
        let seen = Arc::new(AtomicU64::new(NOWHERE));
        topics.insert(chat.clone(), TopicHandle { commands: sender.clone(), seen: seen.clone() });
        metrics::gauge!("switchboard_gateway_topics").set(topics.len() as f64);
        let topic = Topic {
            core: Chat::new(chat.clone()),
            log: LogName::Chat(chat.clone()),
            chat: chat.clone(),
            hub: self.clone(),
            subscription: None,
            seen,
            work: FuturesUnordered::new(),
        };
        tokio::spawn(topic.run(commands));
        Some(sender)
    }

    fn stamp(&self) -> Stamp {
        let n = self.0.message_ids.fetch_add(1, Ordering::Relaxed);
        Stamp { at: wire::timestamp(SystemTime::now()), id: format!("{}-{n}", self.0.message_prefix) }
    }
}

/// A topic ends without members, unless its task has failed: then its members are told, and join again.
impl Drop for Topic {
    fn drop(&mut self) {
        for (mailbox, chan) in self.core.members() {
            mailbox.send(Arc::new(Event::Failed { chan }));
        }
    }
}

enum Work {
    Loaded(ChannelId, Result<Loaded, Refusal>),
    Acked(ChannelId, u32, Result<(u64, bool), ()>),
    Answered(Mailbox, Event),
    Behind(u64),
    Repaired(u64, How, Option<Part<Fact>>),
}

struct Topic {
    chat: ChatId,
    log: LogName,
    core: Chat<Mailbox>,
    hub: Hub,
    subscription: Option<Subscriber>,
    seen: Arc<AtomicU64>,
    work: FuturesUnordered<BoxFuture<'static, Work>>,
}

impl Topic {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut out = Vec::new();
        let linger = tokio::time::sleep(limits::TOPIC_LINGER);
        tokio::pin!(linger);
        loop {
            let was_empty = self.core.is_empty();
            tokio::select! {
                biased;
                Some(message) = next(&mut self.subscription) => self.stored(&message, &mut out),
                command = commands.recv() => {
                    match command {
                        Some(Command::Client(command, mailbox)) => self.command(command, mailbox, &mut out).await,
                        Some(Command::Behind(to)) => self.behind(to),
                        None => return,
                    }
                }
                Some(work) = self.work.next() => self.done(work, &mut out),
                () = &mut linger, if was_empty => {
                    if self.end(&mut commands) {
                        // Whoever was about to send has a place in the queue still: it begins again.
                        while let Some(command) = commands.recv().await {
                            if let Command::Client(command, mailbox) = command {
                                self.hub.send(&self.chat, command, &mailbox).await;
                            }
                        }
                        return;
                    }
                    linger.as_mut().reset(Instant::now() + limits::TOPIC_LINGER);
                }
            }
            self.seen.store(self.core.position().unwrap_or(NOWHERE), Ordering::Relaxed);
            for effect in out.drain(..) {
                self.apply(effect).await;
            }
            if self.core.is_empty() && !was_empty {
                linger.as_mut().reset(Instant::now() + limits::TOPIC_LINGER);
            }
        }
    }

    /// Leaves the map, unless somebody has come meanwhile. Who comes later sees the closed queue and begins again.
    fn end(&self, commands: &mut mpsc::Receiver<Command>) -> bool {
        let mut topics = self.hub.0.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if !commands.is_empty() {
            return false;
        }
        commands.close();
        topics.remove(&self.chat);
        metrics::gauge!("switchboard_gateway_topics").set(topics.len() as f64);
        true
    }

    async fn command(&mut self, command: ChatCommand, mailbox: Mailbox, out: &mut Vec<Effect<Mailbox>>) {
        match command {
            ChatCommand::Join { chan, serial, role, user, last_seq } => {
                if self.subscribe().await.is_err() {
                    let outcome = Outcome::Refused(Reason::Unavailable.into());
                    return mailbox.send(Arc::new(Event::Done { chan, serial, outcome }));
                }
                self.core.join(mailbox, chan, serial, role, user, last_seq, out);
            }
            ChatCommand::Leave { chan, lost } => self.core.leave(chan, lost, out),
            ChatCommand::Push { chan, serial, push } => {
                let hub = self.hub.clone();
                self.core.push(chan, serial, push, || hub.stamp(), out);
            }
        }
    }

    /// A subscription is live only after a round trip.
    async fn subscribe(&mut self) -> Result<(), RequestError> {
        if self.subscription.is_some() {
            return Ok(());
        }
        let nats = &self.hub.0.nats;
        if !nats.is_up() {
            return Err(RequestError::Down);
        }
        let subscription = nats.client.subscribe(self.log.out_subject()).await.map_err(|_| RequestError::Down)?;
        nats.round_trip(limits::REQUEST_TIMEOUT).await?;
        self.subscription = Some(subscription);
        Ok(())
    }

    fn stored(&mut self, message: &async_nats::Message, out: &mut Vec<Effect<Mailbox>>) {
        let headers = message.headers.as_ref();
        let number = |name| headers.and_then(|h| h.get(name)).and_then(|n| n.as_str().parse().ok());
        let Some(seq) = number("Nats-Sequence") else { return };
        let previous = number("Nats-Last-Sequence").unwrap_or(0);
        let entry = repair::entry(&message.payload);
        self.core.stored(seq, previous, entry.as_ref(), out);
    }

    /// What the log has may be on its way here: only what has not come in a moment is lost.
    fn behind(&mut self, to: u64) {
        if self.core.position().is_some_and(|at| to > at) {
            self.work.push(Box::pin(async move {
                tokio::time::sleep(limits::BEHIND_GRACE).await;
                Work::Behind(to)
            }));
        }
    }

    fn done(&mut self, work: Work, out: &mut Vec<Effect<Mailbox>>) {
        match work {
            Work::Loaded(chan, loaded) => self.core.loaded(chan, loaded, out),
            Work::Acked(chan, serial, result) => self.core.acked(chan, serial, result, out),
            Work::Answered(mailbox, event) => mailbox.send(Arc::new(event)),
            Work::Behind(to) => self.core.behind(to, out),
            Work::Repaired(after, how, part) => self.core.repaired(after, how, part, out),
        }
    }

    async fn apply(&mut self, effect: Effect<Mailbox>) {
        let nats = self.hub.0.nats.clone();
        match effect {
            Effect::Send(mailbox, event) => mailbox.send(event),
            Effect::Repair { after, to } => {
                tracing::debug!(chat = %self.chat, after, to, "entries are missing");
                let log = self.log.clone();
                self.work.push(Box::pin(async move {
                    let (how, part) = repair::fetch(&nats, log, after, to).await;
                    Work::Repaired(after, how, part)
                }));
            }
            Effect::Repaired(how) => observe::gap(how),
            Effect::Lobby(mailbox, command) => self.hub.0.lobby.send(command, &mailbox).await,
            Effect::Load { chan, last_seq } => {
                let (chat, log) = (self.chat.clone(), self.log.clone());
                self.work.push(Box::pin(async move {
                    let loading = load(&nats, chat, log, last_seq);
                    let loaded = tokio::time::timeout(limits::LOG_ACK_TIMEOUT, loading).await;
                    Work::Loaded(chan, loaded.unwrap_or_else(|_| Err(Reason::Unavailable.into())))
                }));
            }
            Effect::Publish { chan, serial, entry, message_id } => {
                observe::MESSAGES.increment(1);
                let subject = self.log.log_subject();
                self.work.push(Box::pin(async move {
                    Work::Acked(chan, serial, publish(&nats, subject, entry, message_id).await)
                }));
            }
            Effect::History { to, chan, serial, params } => {
                let read = history_read(self.log.clone(), params);
                self.work.push(Box::pin(async move {
                    let reading = tokio::time::timeout(limits::LOG_ACK_TIMEOUT, read_log(&nats, &read));
                    let outcome = match reading.await {
                        Ok(reply) => Outcome::Ok(
                            format!(r#"{{"messages":{},"complete":{}}}"#, reply.messages.get(), reply.complete).into(),
                        ),
                        Err(_) => Outcome::Refused(Reason::Unavailable.into()),
                    };
                    Work::Answered(to, Event::Done { chan, serial, outcome })
                }));
            }
        }
    }
}

impl Shared {
    /// How far each topic has seen its log.
    fn seen(&self) -> Vec<Position> {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = topics.iter().map(|(chat, topic)| (chat, topic.seen.load(Ordering::Relaxed)));
        seen.filter(|(_, seq)| *seq != NOWHERE).map(|(chat, seq)| (LogName::Chat(chat.clone()), seq)).collect()
    }

    fn tell_behind(&self, behind: &[Position]) {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        for (log, to) in behind {
            let LogName::Chat(chat) = log else { continue };
            if let Some(topic) = topics.get(chat) {
                // A topic with that much to do is told the next time.
                let _ = topic.commands.try_send(Command::Behind(*to));
            }
        }
    }
}

/// Asks now and then whether the topics' logs have more than was seen: the last entry has no successor that would tell.
async fn check_ends(hub: Weak<Shared>, nats: Nats) {
    let (mut link, mut overflows) = (nats.link(), nats.overflows());
    let mut wait = limits::BEHIND_INTERVAL;
    loop {
        let lossy = tokio::select! {
            changed = link.changed() => changed.map(|()| true),
            changed = overflows.changed() => changed.map(|()| true),
            () = tokio::time::sleep(wait) => Ok(false),
        };
        let (Ok(lossy), Some(seen)) = (lossy, hub.upgrade().map(|hub| hub.seen())) else { return };
        let answered = repair::behind(&nats, &seen, |behind| {
            if let Some(hub) = hub.upgrade() {
                hub.tell_behind(behind);
            }
        });
        // Where this gateway has lost something, history may have too, and not know it yet.
        wait = if answered.await && !lossy { limits::BEHIND_INTERVAL } else { limits::BEHIND_RETRY };
        if lossy {
            // An overflow goes on for a while, and says so with each message.
            tokio::time::sleep(limits::BEHIND_GRACE).await;
        }
    }
}

async fn next(subscription: &mut Option<Subscriber>) -> Option<async_nats::Message> {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => None,
    }
}
