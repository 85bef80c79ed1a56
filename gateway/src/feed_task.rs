//! The task that owns the feeds with members on this gateway: it subscribes to them, asks history for them, and
//! delivers to members.
//!
//! One for all, and not one per feed: a feed is little more than its last value, and one task needs no map that several
//! ones share.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{AbortHandle, BoxStream, FuturesUnordered, SelectAll, StreamExt as _, abortable};
use switchboard_contract::feed::{Told, Want, Wanted};
use switchboard_contract::limits;
use switchboard_contract::names::{self, FeedId};
use switchboard_contract::nats::Nats;
use switchboard_contract::reason::Reason;
use switchboard_contract::wire::{self, V1};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::commands::FeedCommand;
use crate::feed::{Effect, Feed};
use crate::lobby_task::understood;
use crate::log::ask;
use crate::mailbox::{Event, Mailbox, Outcome};
use crate::observe;

/// All feeds are looked at for what is due at most this often.
const LOOK: Duration = Duration::from_millis(20);

/// Where the task is reached. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FeedHandle {
    commands: mpsc::Sender<(FeedId, FeedCommand, Mailbox)>,
}

impl FeedHandle {
    /// Tells a feed; what comes back goes to `mailbox`. Waits while [`limits::FEED_COMMANDS_MAX`] others do.
    pub async fn send(&self, feed: FeedId, command: FeedCommand, mailbox: &Mailbox) {
        // The task ends with the process: then nobody waits for an answer either.
        observe::queue(&self.commands, "feed_commands");
        let _ = self.commands.send((feed, command, mailbox.clone())).await;
    }
}

/// Which feed, and which life of it on this gateway: one that was forgotten may have begun again.
type Key = (FeedId, u64);

/// What was asked of NATS has come back.
enum Work {
    Opened(Key, Option<Subscriber>),
    Answered(Key, Option<Wanted>),
}

struct Entry {
    feed: Feed<Mailbox>,
    life: u64,
    /// Ends the subscription.
    line: Option<AbortHandle>,
}

struct Task {
    nats: Nats,
    feeds: HashMap<FeedId, Entry>,
    lines: SelectAll<BoxStream<'static, (Key, Message)>>,
    work: FuturesUnordered<BoxFuture<'static, Work>>,
    members: usize,
    stale: usize,
    lives: u64,
    /// When a feed wants to be looked at, or earlier.
    wake: Option<Instant>,
    looked: Instant,
}

/// Starts the task, which never ends before the process.
pub fn start(nats: Nats) -> (FeedHandle, JoinHandle<()>) {
    let (commands, inbox) = mpsc::channel(limits::FEED_COMMANDS_MAX);
    let task = Task {
        nats,
        feeds: HashMap::new(),
        lines: SelectAll::new(),
        work: FuturesUnordered::new(),
        members: 0,
        stale: 0,
        lives: 0,
        wake: None,
        looked: Instant::now(),
    };
    (FeedHandle { commands }, tokio::spawn(task.run(inbox)))
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<(FeedId, FeedCommand, Mailbox)>) {
        let (mut link, mut overflows) = (self.nats.link(), self.nats.overflows());
        let mut commands = Vec::new();
        loop {
            let wake = self.wake.map(|at| at.max(self.looked + LOOK));
            tokio::select! {
                n = inbox.recv_many(&mut commands, 256) => {
                    if n == 0 {
                        return;
                    }
                    for (feed, command, mailbox) in commands.drain(..) {
                        self.command(feed, command, mailbox);
                    }
                }
                Some((key, message)) = self.lines.next() => self.came(&key, message).await,
                Some(work) = self.work.next() => self.done(work),
                Ok(()) = link.changed() => {
                    if link.borrow_and_update().checked_rem(2) == Some(1) {
                        self.resync();
                    }
                }
                Ok(()) = overflows.changed() => self.resync(),
                () = tokio::time::sleep_until(wake.unwrap_or(self.looked).into()), if wake.is_some() => self.look(),
            }
            observe::FEEDS.set(self.feeds.len() as f64);
            observe::FEED_MEMBERS.set(self.members as f64);
            observe::FEEDS_STALE.set(self.stale as f64);
        }
    }

    fn command(&mut self, id: FeedId, command: FeedCommand, mailbox: Mailbox) {
        match command {
            FeedCommand::Join { chan, serial, pass } => {
                if !self.feeds.contains_key(&id) {
                    if self.feeds.len() >= limits::GATEWAY_FEEDS_MAX {
                        observe::full("feeds");
                        let outcome = Outcome::Refused(Reason::Unavailable.into());
                        return mailbox.send(Arc::new(Event::Done { chan, serial, outcome }));
                    }
                    self.lives += 1;
                    let feed = Feed::new(&id, Instant::now());
                    self.feeds.insert(id.clone(), Entry { feed, life: self.lives, line: None });
                }
                self.touch(&id, |feed, now, out| feed.join(mailbox, chan, serial, pass, now, out));
            }
            FeedCommand::Leave { chan } => self.touch(&id, |feed, now, _| feed.leave(chan, now)),
        }
    }

    /// Whoever asks whether anybody is here is answered, also while the feed has no members for a moment.
    async fn came(&mut self, (id, life): &Key, message: Message) {
        if self.feeds.get(id).is_none_or(|entry| entry.life != *life) {
            return;
        }
        if let Some(reply) = message.reply {
            self.nats.publish(reply.into_string(), Bytes::new()).await;
        }
        if let Some(told) = understood(wire::decode::<Told>("told", &message.payload)) {
            self.touch(id, |feed, now, out| feed.told(told, now, out));
        }
    }

    /// What was asked for an earlier life of a feed is dropped, and a subscription with it.
    fn done(&mut self, work: Work) {
        match work {
            Work::Opened((id, life), subscription) => {
                let Some(entry) = self.feeds.get_mut(&id).filter(|entry| entry.life == life) else { return };
                let open = subscription.is_some();
                if let Some(subscription) = subscription {
                    let key = (id.clone(), life);
                    let (line, handle) = abortable(subscription.map(move |message| (key.clone(), message)));
                    entry.line = Some(handle);
                    self.lines.push(line.boxed());
                }
                self.touch(&id, |feed, now, _| feed.opened(open, now));
            }
            Work::Answered((id, life), answer) => {
                if self.feeds.get(&id).is_some_and(|entry| entry.life == life) {
                    self.touch(&id, |feed, now, out| feed.answered(answer, now, out));
                }
            }
        }
    }

    /// Not all at once: history has those of all gateways to answer.
    fn resync(&mut self) {
        let now = Instant::now();
        for entry in self.feeds.values_mut() {
            entry.feed.resync(now + limits::FEED_SPREAD.mul_f64(rand::random()));
        }
        self.wake = Some(now);
    }

    fn look(&mut self) {
        let now = Instant::now();
        let due = |entry: &Entry| entry.feed.wake().is_some_and(|at| at <= now);
        let due: Vec<FeedId> = self.feeds.iter().filter(|(_, entry)| due(entry)).map(|(id, _)| id.clone()).collect();
        due.iter().for_each(|id| self.touch(id, |_, _, _| {}));
        self.looked = now;
        self.wake = self.feeds.values().filter_map(|entry| entry.feed.wake()).min();
    }

    fn touch(&mut self, id: &FeedId, act: impl FnOnce(&mut Feed<Mailbox>, Instant, &mut Vec<Effect<Mailbox>>)) {
        let Some(entry) = self.feeds.get_mut(id) else { return };
        let (now, mut out) = (Instant::now(), Vec::new());
        self.members -= entry.feed.members();
        self.stale -= usize::from(entry.feed.is_stale());
        act(&mut entry.feed, now, &mut out);
        entry.feed.tick(now, SystemTime::now(), &mut out);
        self.members += entry.feed.members();
        self.stale += usize::from(entry.feed.is_stale());
        self.wake = self.wake.into_iter().chain(entry.feed.wake()).min();
        let key = (id.clone(), entry.life);
        out.into_iter().for_each(|effect| self.apply(&key, effect));
    }

    fn apply(&mut self, key: &Key, effect: Effect<Mailbox>) {
        let known = || (self.nats.clone(), key.clone());
        match effect {
            Effect::Send(mailbox, event) => {
                if !matches!(*event, Event::Done { .. }) {
                    observe::FEED_EVENTS.increment(1);
                }
                mailbox.send(event);
            }
            Effect::Open => {
                let (nats, key) = known();
                self.work.push(Box::pin(async move {
                    let opened = nats.subscribe(key.0.out_subject(), limits::REQUEST_TIMEOUT).await;
                    let opened = opened.inspect_err(|error| tracing::debug!(%error, feed = %key.0, "not subscribed"));
                    Work::Opened(key, opened.ok())
                }));
            }
            Effect::Ask => {
                observe::FEED_WANTS.increment(1);
                let (nats, key) = known();
                self.work.push(Box::pin(async move {
                    let want = Want { v: V1, feed: key.0.clone(), keeps_secrets: true };
                    let answer = ask(&nats, names::HISTORY_FEED, &want, "wanted", limits::FEED_WANT_TIMEOUT).await;
                    Work::Answered(key, answer)
                }));
            }
            Effect::End => {
                let Some(Entry { feed, line, .. }) = self.feeds.remove(&key.0) else { return };
                self.stale -= usize::from(feed.is_stale());
                if let Some(line) = line {
                    line.abort();
                }
            }
        }
    }
}
