//! The chats and rooms that have members on this gateway: one task each, which owns the topic and its subscription.
//!
//! A task lives from the first join to a while after the last leave. It never waits for a socket: what is for one goes
//! into its mailbox. What it asks of NATS comes back to it as an event.

mod kinds;
mod task;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use switchboard_contract::limits;
use switchboard_contract::lobby::ChannelId;
use switchboard_contract::log::Position;
use switchboard_contract::names::{self, LogName, RoomId};
use switchboard_contract::nats::Nats;
use switchboard_contract::trace::Span;
use switchboard_contract::wire;
use tokio::sync::mpsc;

use crate::chat::ChatKind;
use crate::commands::{PresenceCommand, TopicCommand};
use crate::limiter::Limiter;
use crate::lobby_task::LobbyHandle;
use crate::mailbox::{Event, Mailbox};
use crate::observe;
use crate::presence_task::PresenceHandle;
use crate::repair;
use crate::room::RoomKind;
use crate::topic::Stamp;

pub use kinds::Served;

/// What a topic's task is told.
enum Command<K: Served> {
    Client(TopicCommand<K::Join, K::Push>, Mailbox, Span),
    /// Its log reaches to this sequence.
    Behind(u64),
}

/// The task of a topic, as others see it.
struct TopicHandle<K: Served> {
    commands: mpsc::Sender<Command<K>>,
    /// See [`crate::topic::Topic::position`]; [`NOWHERE`] before the first join.
    seen: Arc<AtomicU64>,
}

/// Of a span: which kind of topic it is about, and which.
const TOPIC_KIND: &str = "switchboard.topic.kind";
pub(crate) const TOPIC: &str = "switchboard.topic.id";

/// No sequence.
const NOWHERE: u64 = u64::MAX;

/// The topics of one kind. A task that ends removes its topic under the lock, so that nobody is lost between two.
struct Topics<K: Served>(Mutex<HashMap<K::Id, TopicHandle<K>>>);

/// All chats and rooms with members here. Cheap to clone.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

/// What the tasks of all topics share.
pub struct Shared {
    nats: Nats,
    lobby: LobbyHandle,
    presence: PresenceHandle,
    limiter: Arc<Limiter>,
    chats: Topics<ChatKind>,
    rooms: Topics<RoomKind>,
    message_ids: AtomicU64,
    /// Of this gateway alone: what it numbers, and what it marks as its own.
    prefix: Arc<str>,
}

impl Hub {
    /// A hub without topics. Its task ends with it.
    pub fn new(nats: Nats, lobby: LobbyHandle, presence: PresenceHandle, limiter: Arc<Limiter>) -> Self {
        let hub = Hub(Arc::new(Shared {
            nats: nats.clone(),
            lobby,
            presence,
            limiter,
            chats: Topics(Mutex::default()),
            rooms: Topics(Mutex::default()),
            message_ids: AtomicU64::new(0),
            prefix: names::random_token(8).into(),
        }));
        tokio::spawn(check_ends(Arc::downgrade(&hub.0), nats));
        hub
    }

    /// Tells a topic; what comes back goes to `mailbox`. Waits while [`limits::TOPIC_COMMANDS_MAX`] others do.
    pub async fn send<K: Served>(&self, id: &K::Id, command: TopicCommand<K::Join, K::Push>, mailbox: &Mailbox) {
        let span = traced::<K>(id, &command);
        let mut command = (command, mailbox.clone());
        loop {
            let Some(topic) = self.topic::<K>(id, &command) else { return };
            observe::queue(&topic, "topic_commands");
            match topic.send(Command::Client(command.0, command.1, span.clone())).await {
                Ok(()) | Err(mpsc::error::SendError(Command::Behind(_))) => return,
                // The topic has just ended, for want of members most likely.
                Err(mpsc::error::SendError(Command::Client(back, mailbox, _))) => command = (back, mailbox),
            }
        }
    }

    /// A channel of a room has failed, and with it what would have told presence that it is gone.
    pub async fn failed(&self, room: RoomId, chan: ChannelId) {
        self.0.presence.send(room, PresenceCommand::Leave { chan }).await;
    }

    /// The queue of a topic's task. A join starts one; a push to one that is not there any more has lost its channel.
    fn topic<K: Served>(
        &self,
        id: &K::Id,
        (command, mailbox): &(TopicCommand<K::Join, K::Push>, Mailbox),
    ) -> Option<mpsc::Sender<Command<K>>> {
        let mut topics = K::topics(&self.0).0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.get(id).filter(|topic| !topic.commands.is_closed()) {
            return Some(topic.commands.clone());
        }
        match command {
            TopicCommand::Join { .. } => {}
            TopicCommand::Leave { .. } => return None,
            TopicCommand::Push { chan, .. } => {
                mailbox.send(Arc::new(Event::Failed { chan: *chan }));
                return None;
            }
        }
        let (sender, commands) = mpsc::channel(limits::TOPIC_COMMANDS_MAX);
        let seen = Arc::new(AtomicU64::new(NOWHERE));
        topics.insert(id.clone(), TopicHandle { commands: sender.clone(), seen: seen.clone() });
        count::<K>(topics.len());
        tokio::spawn(task::run::<K>(id.clone(), self.clone(), seen, commands));
        Some(sender)
    }

    fn stamp(&self) -> Stamp {
        let n = self.0.message_ids.fetch_add(1, Ordering::Relaxed);
        let (prefix, now) = (&self.0.prefix, SystemTime::now());
        let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Stamp {
            at: wire::timestamp(now),
            now: u64::try_from(millis).unwrap_or(u64::MAX),
            id: format!("{prefix}-{n}"),
            gateway: prefix.clone(),
        }
    }
}

/// What clients ask of a topic begins a trace.
fn traced<K: Served>(id: &K::Id, command: &TopicCommand<K::Join, K::Push>) -> Span {
    let name = match command {
        TopicCommand::Join { .. } => "join",
        TopicCommand::Push { push, .. } => K::name_of(push),
        TopicCommand::Leave { .. } => return Span::default(),
    };
    Span::pushed(name).with(TOPIC_KIND, K::NAME).with(TOPIC, id)
}

fn count<K: Served>(topics: usize) {
    metrics::gauge!("switchboard_gateway_topics", "kind" => K::NAME).set(topics as f64);
}

impl<K: Served> Topics<K> {
    /// How far each topic has seen its log.
    fn seen(&self) -> Vec<Position> {
        let topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = topics.iter().map(|(id, topic)| (id, topic.seen.load(Ordering::Relaxed)));
        seen.filter(|(_, seq)| *seq != NOWHERE).map(|(id, seq)| (K::log(id), seq)).collect()
    }

    fn tell_behind(&self, id: &K::Id, to: u64) {
        let topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.get(id) {
            // A topic with that much to do is told the next time.
            let _ = topic.commands.try_send(Command::Behind(to));
        }
    }
}

impl Shared {
    fn seen(&self) -> Vec<Position> {
        let mut seen = self.chats.seen();
        seen.extend(self.rooms.seen());
        seen
    }

    fn tell_behind(&self, behind: &[Position]) {
        for (log, to) in behind {
            match log {
                LogName::Chat(chat) => self.chats.tell_behind(chat, *to),
                LogName::Room(room) => self.rooms.tell_behind(room, *to),
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
