//! The task that owns [`Presence`]: it hears other gateways and tells them, and delivers to members.
//!
//! One for all rooms, and not the task of each room: what is said to another gateway of many rooms goes in one message,
//! and a gateway's death is noticed once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use serde_json::value::RawValue;
use switchboard_contract::limits;
use switchboard_contract::lobby::{ChannelId, Heartbeat};
use switchboard_contract::names::{self, Incarnation, LogName, RoomId};
use switchboard_contract::nats::Nats;
use switchboard_contract::presence::{Member, Peer};
use switchboard_contract::reason::Reason;
use switchboard_contract::wire;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::commands::{PresenceCommand, Recipient};
use crate::lobby_task::understood;
use crate::mailbox::{Event, Mailbox, Outcome};
use crate::observe;
use crate::presence::{Digest, Effect, Presence};

/// Where the task is reached. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PresenceHandle {
    commands: mpsc::Sender<(RoomId, Command)>,
    digest: Arc<Digest>,
}

/// What the task is told of a room.
#[derive(Debug)]
enum Command {
    /// By the room's topic.
    Topic(PresenceCommand<Mailbox>),
    /// Somebody asks who is there.
    Look(oneshot::Sender<String>),
}

impl PresenceHandle {
    /// Tells presence. Waits while [`limits::PRESENCE_COMMANDS_MAX`] others do.
    pub async fn send(&self, room: RoomId, command: PresenceCommand<Mailbox>) {
        // The task ends with the process: then nobody waits for an answer either.
        observe::queue(&self.commands, "presence_commands");
        let _ = self.commands.send((room, Command::Topic(command))).await;
    }

    /// Who is in a room, as the payload of `presence_state`; `None`: too many ask.
    pub async fn look(&self, room: RoomId) -> Option<String> {
        let (answer, seen) = oneshot::channel();
        self.commands.send((room, Command::Look(answer))).await.ok()?;
        seen.await.ok()
    }

    /// What the next heartbeat says of rooms; see [`Digest::take`].
    pub fn digest(&self) -> Option<Vec<(RoomId, u64)>> {
        self.digest.take()
    }
}

struct Task {
    nats: Nats,
    presence: Presence<Mailbox>,
    digest: Arc<Digest>,
    out: Vec<Effect<Mailbox>>,
    /// Who waits for which look; as many as presence has at most.
    looks: HashMap<u64, oneshot::Sender<String>>,
    ticket: u64,
}

/// Subscribes to what other gateways say, and starts the task, which never ends before the process.
///
/// # Errors
/// If NATS does not answer.
pub async fn start(
    nats: Nats,
    gateway: Incarnation,
    list_max: usize,
) -> anyhow::Result<(PresenceHandle, JoinHandle<()>)> {
    let beats = nats.client.subscribe(names::ALIVE_GATEWAYS).await.context("cannot subscribe")?;
    let peers = nats.client.subscribe(names::gateway_rooms(&gateway)).await.context("cannot subscribe")?;
    nats.round_trip(limits::REQUEST_TIMEOUT).await.context("NATS does not answer")?;
    let (commands, inbox) = mpsc::channel(limits::PRESENCE_COMMANDS_MAX);
    let digest = Arc::new(Digest::default());
    let presence = Presence::new(gateway, list_max, Instant::now());
    let task = Task { nats, presence, digest: digest.clone(), out: Vec::new(), looks: HashMap::new(), ticket: 0 };
    let task = tokio::spawn(task.run(inbox, beats, peers));
    Ok((PresenceHandle { commands, digest }, task))
}

impl Task {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<(RoomId, Command)>,
        mut beats: async_nats::Subscriber,
        mut peers: async_nats::Subscriber,
    ) {
        let (mut link, mut overflows) = (self.nats.link(), self.nats.overflows());
        let mut commands = Vec::new();
        loop {
            let timer = tokio::time::sleep_until(self.presence.wake().into());
            tokio::select! {
                n = inbox.recv_many(&mut commands, 256) => {
                    if n == 0 {
                        return;
                    }
                    for (room, command) in commands.drain(..) {
                        self.command(&room, command).await;
                    }
                }
                Some(message) = beats.next() => {
                    if let Some(beat) = understood(wire::decode::<Heartbeat>("heartbeat", &message.payload)) {
                        self.presence.heartbeat(&beat, Instant::now(), &mut self.out);
                    }
                }
                Some(message) = peers.next() => {
                    if let Some(peer) = understood(wire::decode::<Peer>("peer", &message.payload)) {
                        self.presence.peer(peer, Instant::now(), &mut self.out);
                    }
                }
                Ok(()) = link.changed() => {
                    if link.borrow_and_update().checked_rem(2) == Some(1) {
                        self.presence.resync(Instant::now());
                    }
                }
                Ok(()) = overflows.changed() => self.presence.resync(Instant::now()),
                () = timer => {}
            }
            self.presence.tick(Instant::now(), &mut self.out);
            self.apply().await;
            observe::PRESENCE_ROOMS.set(self.presence.len() as f64);
        }
    }

    async fn command(&mut self, room: &RoomId, command: Command) {
        let now = Instant::now();
        let command = match command {
            Command::Topic(command) => command,
            Command::Look(answer) => {
                self.ticket += 1;
                if self.presence.look(room, self.ticket, now) {
                    self.looks.insert(self.ticket, answer);
                }
                return;
            }
        };
        match command {
            PresenceCommand::Join { chan, key, mailbox } => {
                let online_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                self.presence.join(room, Member { key, chan, online_at }, mailbox, now, &mut self.out);
            }
            PresenceCommand::Leave { chan } => self.presence.leave(room, chan, now, &mut self.out),
            PresenceCommand::Delta(delta) => self.presence.delta(room, &delta, now, &mut self.out),
            PresenceCommand::Direct { chan, serial, to, payload, mailbox } => {
                let outcome = self.direct(room, chan, &to, payload);
                // Whoever gets it here has it before the sender has its answer.
                self.apply().await;
                mailbox.send(Arc::new(Event::Done { chan, serial, outcome }));
            }
        }
    }

    /// Not while NATS is away: other gateways would not get it.
    fn direct(&mut self, room: &RoomId, chan: ChannelId, to: &[Recipient], payload: Box<str>) -> Outcome {
        match RawValue::from_string(payload.into()) {
            Ok(payload) if self.nats.is_up() => {
                let recipients = self.presence.direct(room, chan, to, &payload, &mut self.out);
                Outcome::Ok(format!("{{\"recipients\":{recipients}}}").into())
            }
            Ok(_) | Err(_) => Outcome::Refused(Reason::Unavailable.into()),
        }
    }

    async fn apply(&mut self) {
        for effect in self.out.drain(..) {
            match effect {
                Effect::Send(mailbox, event) => mailbox.send(event),
                Effect::Publish(room, delta) => {
                    let subject = LogName::Room(room.clone()).out_subject();
                    self.nats.publish(subject, wire::encode(&delta)).await;
                    self.digest.note(room, delta.to);
                }
                Effect::Tell(gateway, peer) => {
                    observe::presence_asks(peer.asks.len());
                    self.nats.publish(names::gateway_rooms(&gateway), wire::encode(&peer)).await;
                }
                Effect::Seen(ticket, state) => {
                    // Whoever asked may be gone.
                    self.looks.remove(&ticket).map(|answer| answer.send(state));
                }
                Effect::Gone(gateway, why) => {
                    tracing::info!(%gateway, why, "another gateway is gone, with its members of rooms");
                    observe::gateway_gone();
                }
            }
        }
    }
}
