//! The chats that have members on this gateway: one task each, which owns the chat's topic and its subscription.
//!
//! A task lives from the first join to a while after the last leave. It never waits for a socket: what is for one goes
//! into its mailbox. What it asks of NATS comes back to it as an event.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde::Deserialize;
use switchboard_contract::limits;
use switchboard_contract::lobby::{ChannelId, ChatRecord, Role};
use switchboard_contract::log::{Entry, Message, Read, ReadReply};
use switchboard_contract::names::{self, ChatId, LobbyKey, LogName};
use switchboard_contract::nats::{Nats, RequestError, header};
use switchboard_contract::reason::Reason;
use switchboard_contract::wire::{self, V1};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::chat::{Chat, Effect, Loaded, Stamp};
use crate::commands::ChatCommand;
use crate::lobby_task::LobbyHandle;
use crate::mailbox::{Event, Mailbox, Outcome};
use crate::observe;
use crate::payload::{HistoryParams, Refusal};

type Command = (ChatCommand, Mailbox);

/// All chats with members here. Cheap to clone.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    nats: Nats,
    lobby: LobbyHandle,
    topics: Mutex<HashMap<ChatId, mpsc::Sender<Command>>>,
    message_ids: AtomicU64,
    message_prefix: String,
}

impl Hub {
    /// A hub without chats.
    pub fn new(nats: Nats, lobby: LobbyHandle) -> Self {
        Hub(Arc::new(Shared {
            nats,
            lobby,
            topics: Mutex::new(HashMap::new()),
            message_ids: AtomicU64::new(0),
            message_prefix: names::random_token(8),
        }))
    }

    /// Tells a chat's topic; what comes back goes to `mailbox`. Waits while [`limits::TOPIC_COMMANDS_MAX`] others do.
    pub async fn send(&self, chat: &ChatId, command: ChatCommand, mailbox: &Mailbox) {
        let mut command = (command, mailbox.clone());
        loop {
            let Some(topic) = self.topic(chat, &command) else { return };
            match topic.send(command).await {
                Ok(()) => return,
                // The topic has just ended, for want of members most likely.
                Err(mpsc::error::SendError(back)) => command = back,
            }
        }
    }

    /// The queue of a chat's task. A join starts one; a push to one that is not there any more has lost its channel.
    fn topic(&self, chat: &ChatId, (command, mailbox): &Command) -> Option<mpsc::Sender<Command>> {
        let mut topics = self.0.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.get(chat).filter(|topic| !topic.is_closed()) {
            return Some(topic.clone());
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
        topics.insert(chat.clone(), sender.clone());
        metrics::gauge!("switchboard_gateway_topics").set(topics.len() as f64);
        let topic = Topic {
            core: Chat::new(chat.clone()),
            log: LogName::Chat(chat.clone()),
            chat: chat.clone(),
            hub: self.clone(),
            subscription: None,
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
}

struct Topic {
    chat: ChatId,
    log: LogName,
    core: Chat<Mailbox>,
    hub: Hub,
    subscription: Option<Subscriber>,
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
                    let Some((command, mailbox)) = command else { return };
                    self.command(command, mailbox, &mut out).await;
                }
                Some(work) = self.work.next() => self.done(work, &mut out),
                () = &mut linger, if was_empty => {
                    if self.end(&mut commands) {
                        // Whoever was about to send has a place in the queue still: it begins again.
                        while let Some((command, mailbox)) = commands.recv().await {
                            self.hub.send(&self.chat, command, &mailbox).await;
                        }
                        return;
                    }
                    linger.as_mut().reset(Instant::now() + limits::TOPIC_LINGER);
                }
            }
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
        let seq = headers.and_then(|h| h.get("Nats-Sequence")).and_then(|seq| seq.as_str().parse().ok());
        match (seq, serde_json::from_slice::<Entry<'_>>(&message.payload)) {
            (Some(seq), Ok(entry)) => self.core.stored(seq, &entry, out),
            (Some(_), Err(error)) => {
                metrics::counter!("switchboard_messages_refused_total", "kind" => "log entry").increment(1);
                tracing::warn!(%error, chat = %self.chat, "an entry of the log was not understood");
            }
            (None, _) => {}
        }
    }

    fn done(&mut self, work: Work, out: &mut Vec<Effect<Mailbox>>) {
        match work {
            Work::Loaded(chan, loaded) => self.core.loaded(chan, loaded, out),
            Work::Acked(chan, serial, result) => self.core.acked(chan, serial, result, out),
            Work::Answered(mailbox, event) => mailbox.send(Arc::new(event)),
        }
    }

    async fn apply(&mut self, effect: Effect<Mailbox>) {
        let nats = self.hub.0.nats.clone();
        match effect {
            Effect::Send(mailbox, event) => mailbox.send(event),
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

async fn next(subscription: &mut Option<Subscriber>) -> Option<async_nats::Message> {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => None,
    }
}

fn history_read(log: LogName, params: HistoryParams) -> Read {
    let HistoryParams { before, after, limit } = params;
    Read { v: V1, log, fresh: true, after, before, limit, oldest_first: false }
}

/// Reads a chat's record and its log, side by side; tried again until the caller's deadline.
async fn load(nats: &Nats, chat: ChatId, log: LogName, last_seq: Option<u64>) -> Result<Loaded, Refusal> {
    let read = history_read(log, HistoryParams::default());
    let (record, log) = tokio::join!(read_record(nats, chat), read_log(nats, &read));
    let mut replay = Vec::new();
    if let Some(last_seq) = last_seq.filter(|last_seq| *last_seq < log.said) {
        let mut page = Read { after: Some(last_seq), oldest_first: true, ..read };
        loop {
            let reply = read_log(nats, &page).await;
            let before = replay.len();
            collect(&reply, &mut replay)?;
            if reply.complete || replay.len() == before {
                break;
            }
            page.after = replay.last().map(|(seq, _, _)| *seq);
        }
    }
    Ok(Loaded { record, log, replay })
}

fn collect(reply: &ReadReply, replay: &mut Vec<(u64, Role, Box<serde_json::value::RawValue>)>) -> Result<(), Refusal> {
    let messages: Vec<Message<'_>> = serde_json::from_str(reply.messages.get()).map_err(|error| {
        tracing::warn!(%error, "a page of the history was not understood");
        Reason::Unavailable
    })?;
    for message in messages {
        if let Some(role) = message.from.and_then(|from| from.role) {
            replay.push((message.seq, role, message.payload.to_owned()));
        }
    }
    Ok(())
}

async fn read_record(nats: &Nats, chat: ChatId) -> Option<ChatRecord> {
    let stream = names::bucket_stream(names::LOBBY_BUCKET);
    let subject = LobbyKey::Chat(chat).subject();
    loop {
        match nats.leader_get(&stream, &subject, limits::READ_TIMEOUT).await {
            Ok(stored) => {
                let body = stored.and_then(|stored| stored.body)?;
                return wire::decode("chat record", &body).ok();
            }
            Err(error) => {
                tracing::debug!(%error, "a chat's record could not be read yet");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn read_log(nats: &Nats, read: &Read) -> ReadReply {
    loop {
        let reply = nats.request(names::HISTORY_READ.to_owned(), wire::encode(read), limits::READ_TIMEOUT).await;
        match reply.map(|reply| wire::decode("read reply", &reply.payload)) {
            Ok(Ok(reply)) => return reply,
            Ok(Err(error)) => tracing::warn!(%error, "from history"),
            Err(error) => tracing::debug!(%error, "history did not answer"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Stores an entry, within [`limits::LOG_ACK_TIMEOUT`]: its sequence, and whether it had been stored before.
async fn publish(nats: &Nats, subject: String, entry: Bytes, message_id: Option<String>) -> Result<(u64, bool), ()> {
    #[derive(Deserialize)]
    struct Ack {
        #[serde(default)]
        seq: u64,
        #[serde(default)]
        duplicate: bool,
        error: Option<serde_json::Value>,
    }
    let deadline = Instant::now() + limits::LOG_ACK_TIMEOUT;
    loop {
        let headers = message_id.as_deref().map(|id| header("Nats-Msg-Id", id));
        let left = deadline.saturating_duration_since(Instant::now());
        match nats.request_with(subject.clone(), headers, entry.clone(), left).await {
            Ok(reply) => {
                return match serde_json::from_slice(&reply.payload) {
                    Ok(Ack { seq, duplicate, error: None }) => Ok((seq, duplicate)),
                    Ok(Ack { error: Some(error), .. }) => {
                        tracing::warn!(%error, "the room stream refused a message");
                        Err(())
                    }
                    Err(error) => {
                        tracing::warn!(%error, "an acknowledgement was not understood");
                        Err(())
                    }
                };
            }
            // Not stored: the stream has no leader just now. Tried again within the deadline.
            Err(RequestError::NoResponders) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(RequestError::Down | RequestError::Timeout) => return Err(()),
        }
    }
}
