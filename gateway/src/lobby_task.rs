//! The task that owns [`Lobby`]: it talks with the matcher, and delivers to sockets.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use async_nats::Message;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use switchboard_contract::limits;
use switchboard_contract::lobby::{At, ChannelId, Claim, Push, Status, TableReply, Terminate};
use switchboard_contract::names::{self, Incarnation, MatcherVerb};
use switchboard_contract::nats::Nats;
use switchboard_contract::reason::Reason;
use switchboard_contract::trace::Span;
use switchboard_contract::wire::{self, V1};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::asking;
use crate::commands::LobbyCommand;
use crate::lobby::{Effect, Lobby};
use crate::mailbox::{Broadcast, Event, Mailbox, Outcome};
use crate::observe;

/// Where the lobby's task is reached. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LobbyHandle {
    commands: mpsc::Sender<(LobbyCommand, Mailbox, Span)>,
    nobody_waits: Arc<AtomicBool>,
    view: watch::Receiver<View>,
}

/// What others may know of the lobby.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct View {
    /// The last status; `None` before the first.
    pub status: Option<Status>,
    /// The matcher knows this gateway's whole table.
    pub settled: bool,
    /// See [`Lobby::era`].
    pub era: u64,
}

impl LobbyHandle {
    /// Tells the lobby, as a part of `asked`; what comes back goes to `mailbox`. Waits while
    /// [`limits::LOBBY_COMMANDS_MAX`] others do.
    pub async fn send(&self, command: LobbyCommand, mailbox: &Mailbox, asked: Span) {
        // The task ends with the process: then nobody waits for an answer either.
        observe::queue(&self.commands, "lobby_commands");
        let _ = self.commands.send((command, mailbox.clone(), asked)).await;
    }

    /// Whether the last status says that the queue is empty.
    pub fn nobody_waits(&self) -> bool {
        self.nobody_waits.load(Ordering::Relaxed)
    }

    /// Whether no command is on its way to the task.
    pub fn is_idle(&self) -> bool {
        self.commands.capacity() == self.commands.max_capacity()
    }

    /// What is known of the lobby.
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }
}

enum Answer {
    Table(Option<TableReply>),
    Request(Mailbox, ChannelId, u32, Outcome),
}

struct Task {
    nats: Nats,
    gateway: Incarnation,
    lobby: Lobby,
    mailboxes: HashMap<ChannelId, Mailbox>,
    answers: FuturesUnordered<BoxFuture<'static, Answer>>,
    nobody_waits: Arc<AtomicBool>,
    view: watch::Sender<View>,
}

/// Subscribes to what the matcher says, and starts the task. A gateway is of no use without it: it never ends before.
///
/// # Errors
/// If NATS does not answer.
pub async fn start(nats: Nats, gateway: Incarnation) -> anyhow::Result<(LobbyHandle, JoinHandle<()>)> {
    let statuses = nats.client.subscribe(names::LOBBY_STATUS).await.context("cannot subscribe")?;
    let pushes = nats.client.subscribe(names::gateway_subject(&gateway)).await.context("cannot subscribe")?;
    nats.round_trip(limits::REQUEST_TIMEOUT).await.context("NATS does not answer")?;
    let (commands, inbox) = mpsc::channel(limits::LOBBY_COMMANDS_MAX);
    let (view, seen) = watch::channel(View::default());
    let nobody_waits = Arc::new(AtomicBool::new(false));
    let task = Task {
        lobby: Lobby::new(gateway.clone(), Instant::now()),
        gateway,
        nats,
        mailboxes: HashMap::new(),
        answers: FuturesUnordered::new(),
        nobody_waits: nobody_waits.clone(),
        view,
    };
    let task = tokio::spawn(task.run(inbox, statuses, pushes));
    Ok((LobbyHandle { commands, nobody_waits, view: seen }, task))
}

impl Task {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<(LobbyCommand, Mailbox, Span)>,
        mut statuses: async_nats::Subscriber,
        mut pushes: async_nats::Subscriber,
    ) {
        let mut link = self.nats.link();
        let mut commands = Vec::new();
        let mut out = Vec::new();
        loop {
            self.publish_view();
            self.ask();
            let wake = self.lobby.wake();
            let timer = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now).into());
            tokio::select! {
                n = inbox.recv_many(&mut commands, 256) => {
                    if n == 0 {
                        return;
                    }
                    for (command, mailbox, asked) in commands.drain(..) {
                        self.command(command, mailbox, &asked);
                    }
                }
                Some(message) = statuses.next() => {
                    if let Some(status) = understood(wire::decode::<Status>("status", &message.payload)) {
                        self.lobby.take_status(status, Instant::now(), &mut out);
                    }
                }
                Some(message) = pushes.next() => self.pushed(message, &mut out).await,
                Some(answer) = self.answers.next() => self.answered(answer, &mut out),
                changed = link.changed() => {
                    if changed.is_ok() && link.borrow_and_update().checked_rem(2) == Some(1) {
                        self.lobby.reconnected(Instant::now());
                    }
                }
                () = timer, if wake.is_some() => {}
            }
            for effect in out.drain(..) {
                self.apply(effect);
            }
        }
    }

    fn command(&mut self, command: LobbyCommand, mailbox: Mailbox, asked: &Span) {
        match command {
            LobbyCommand::Set { chan, at, serial } => {
                if !matches!(at, At::Left { .. }) {
                    self.mailboxes.entry(chan).or_insert(mailbox);
                }
                self.lobby.set(chan, at, serial, Instant::now());
            }
            LobbyCommand::Claim { chan, serial } => {
                metrics::counter!("switchboard_gateway_claims_total").increment(1);
                let claim = wire::encode(&Claim { v: V1, gateway: self.gateway.clone(), chan, id: rand::random() });
                let asked = Span::pushed("claim");
                self.request((MatcherVerb::Claim, claim), mailbox, chan, serial, &asked);
            }
            LobbyCommand::Terminate { chan, serial, chat } => {
                let terminate = wire::encode(&Terminate { v: V1, chat });
                self.request((MatcherVerb::Terminate, terminate), mailbox, chan, serial, asked);
            }
        }
    }

    /// A request of a channel. A socket has at most one claim, and one end of a chat for each of its channels, on their
    /// way; but what its channels leave behind when they go waits on for a while, so there is a limit to all together.
    fn request(
        &mut self,
        (verb, body): (MatcherVerb, Bytes),
        mailbox: Mailbox,
        chan: ChannelId,
        serial: u32,
        asked: &Span,
    ) {
        if self.answers.len() >= limits::MATCHER_REQUESTS_MAX {
            observe::full("matcher_requests");
            let outcome = Outcome::Refused(Reason::Unavailable.into());
            return mailbox.send(Arc::new(Event::Done { chan, serial, outcome }));
        }
        let asking = asked.around(asking::ask(self.nats.clone(), verb, body, self.view.subscribe()));
        self.answers.push(Box::pin(async move { Answer::Request(mailbox, chan, serial, asking.await) }));
    }

    fn ask(&mut self) {
        let Some(table) = self.lobby.next_request(Instant::now()) else { return };
        let (nats, body) = (self.nats.clone(), wire::encode(&table));
        let (era, view) = (self.lobby.era(), self.view.subscribe());
        self.answers.push(Box::pin(async move {
            let reply = asking::once(&nats, MatcherVerb::Table, body, era, view).await;
            let reply = reply.inspect_err(|error| tracing::debug!(%error, "the table was not answered"));
            Answer::Table(reply.ok().flatten())
        }));
    }

    fn answered(&mut self, answer: Answer, out: &mut Vec<Effect>) {
        match answer {
            Answer::Table(Some(reply)) => self.lobby.answered(&reply, Instant::now(), out),
            Answer::Table(None) => self.lobby.failed(Instant::now()),
            Answer::Request(mailbox, chan, serial, outcome) => {
                mailbox.send(Arc::new(Event::Done { chan, serial, outcome }));
            }
        }
    }

    async fn pushed(&mut self, message: Message, out: &mut Vec<Effect>) {
        let Some(push) = understood(wire::decode::<Push>("push", &message.payload)) else { return };
        let Some(pushed) = self.lobby.take_push(push, Instant::now(), out) else { return };
        if let Some(reply) = message.reply {
            self.nats.publish(reply.into_string(), wire::encode(&pushed)).await;
        }
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Done(chan, serial, outcome) => self.deliver(chan, Event::Done { chan, serial, outcome }),
            Effect::NewChat(chan, chat, hold) => self.deliver(chan, Event::NewChat { chan, chat, hold }),
            Effect::Position(chan, payload) => {
                let event = "queue:position".into();
                self.deliver(chan, Event::Push { chan, event, payload: payload.into() });
            }
            Effect::Status(chans, status) => {
                let broadcast = Broadcast::new("presence:teachers", "user:status", status.counts());
                let event = Arc::new(Event::Once { version: status.version, broadcast });
                for mailbox in chans.iter().filter_map(|chan| self.mailboxes.get(chan)) {
                    mailbox.send(event.clone());
                }
            }
            Effect::Forget(chan) => {
                self.mailboxes.remove(&chan);
            }
        }
    }

    fn deliver(&self, chan: ChannelId, event: Event) {
        if let Some(mailbox) = self.mailboxes.get(&chan) {
            mailbox.send(Arc::new(event));
        }
    }

    fn publish_view(&self) {
        let lobby = &self.lobby;
        let view = View { status: lobby.status().copied(), settled: lobby.is_settled(), era: lobby.era() };
        self.nobody_waits.store(view.status.is_some_and(|status| status.waiting == 0), Ordering::Relaxed);
        self.view.send_if_modified(|now| {
            let changed = *now != view;
            *now = view;
            changed
        });
        observe::LOBBY_ROWS.set(self.lobby.len() as f64);
    }
}

pub(crate) fn understood<T>(decoded: Result<T, wire::DecodeError>) -> Option<T> {
    decoded.inspect_err(|error| tracing::warn!(%error, "from the matcher")).ok()
}
