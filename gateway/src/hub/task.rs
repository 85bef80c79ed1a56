//! The task of one topic.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use async_nats::Subscriber;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use switchboard_contract::limits;
use switchboard_contract::lobby::ChannelId;
use switchboard_contract::log::ReadReply;
use switchboard_contract::names::LogName;
use switchboard_contract::nats::RequestError;
use switchboard_contract::reason::Reason;
use switchboard_contract::trace::Span;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Command, Hub, NOWHERE, Served, TOPIC, TOPIC_KIND, count};
use crate::commands::TopicCommand;
use crate::log::{PAUSE, history_json, history_read, judge, publish, read_log};
use crate::mailbox::{Event, Mailbox, Outcome};
use crate::payload::{HistoryParams, Refusal};
use crate::topic::{Effect, How, Part, Request, Topic};
use crate::{observe, repair};

/// With more members than this, what comes within [`limits::FANOUT_INTERVAL`] of a message is collected.
const FANOUT_MANY: usize = 64;
/// Messages that go to the members together at most.
const FANOUT_MESSAGES_MAX: usize = 64;

/// A topic ends without members, unless its task has failed: then its members are told, and join again.
impl<K: Served> Drop for Task<K> {
    fn drop(&mut self) {
        for (mailbox, chan) in self.topic.members() {
            mailbox.send(Arc::new(Event::Failed { chan }));
        }
    }
}

enum Work<K: Served> {
    Loaded(ChannelId, Result<K::Loaded, Refusal>),
    Acked(ChannelId, u32, Result<(u64, bool), ()>),
    Answered(Mailbox, Event),
    Behind(u64),
    Repaired(u64, How, Option<Part<K::Fact>>),
    Reviewed(Box<ReadReply>),
}

struct Task<K: Served> {
    id: K::Id,
    log: LogName,
    topic: Topic<Mailbox, K>,
    hub: Hub,
    subscription: Option<Subscriber>,
    seen: Arc<AtomicU64>,
    work: FuturesUnordered<BoxFuture<'static, Work<K>>>,
    /// Of the command whose effects are carried out; else nothing.
    asked: Span,
    /// Of what came, until it is handed over.
    delivering: Vec<Span>,
}

/// Serves a topic until it has had no members for a while.
pub(super) async fn run<K: Served>(id: K::Id, hub: Hub, seen: Arc<AtomicU64>, commands: mpsc::Receiver<Command<K>>) {
    let topic = K::topic(id.clone(), &hub.0);
    let log = K::log(&id);
    let (work, asked, delivering) = (FuturesUnordered::new(), Span::default(), Vec::new());
    Task { id, log, topic, hub, subscription: None, seen, work, asked, delivering }.run(commands).await;
}

impl<K: Served> Task<K> {
    async fn run(mut self, mut commands: mpsc::Receiver<Command<K>>) {
        let mut out = Vec::new();
        let linger = tokio::time::sleep(limits::TOPIC_LINGER);
        tokio::pin!(linger);
        let (hold, mut held) = (tokio::time::sleep(limits::FANOUT_INTERVAL), false);
        tokio::pin!(hold);
        loop {
            let was_empty = self.topic.is_empty();
            tokio::select! {
                biased;
                Some(message) = next(&mut self.subscription), if !held => {
                    self.came(&message, &mut out);
                    self.came_too(&mut out);
                    if self.topic.members().nth(FANOUT_MANY).is_some() {
                        held = true;
                        hold.as_mut().reset(Instant::now() + limits::FANOUT_INTERVAL);
                    }
                }
                () = &mut hold, if held => held = false,
                command = commands.recv() => {
                    match command {
                        Some(Command::Client(command, mailbox, span)) => {
                            self.asked = span;
                            self.command(command, mailbox, &mut out).await;
                        }
                        Some(Command::Behind(to)) => self.behind(to),
                        None => return,
                    }
                }
                Some(work) = self.work.next() => self.done(work, &mut out),
                () = &mut linger, if was_empty => {
                    if self.end(&mut commands) {
                        // Whoever was about to send has a place in the queue still: it begins again.
                        while let Some(command) = commands.recv().await {
                            if let Command::Client(command, mailbox, _) = command {
                                self.hub.send::<K>(&self.id, command, &mailbox).await;
                            }
                        }
                        return;
                    }
                    linger.as_mut().reset(Instant::now() + limits::TOPIC_LINGER);
                }
            }
            self.seen.store(self.topic.position().unwrap_or(NOWHERE), Ordering::Relaxed);
            self.apply_all(&mut out).await;
            if self.topic.is_empty() && !was_empty {
                linger.as_mut().reset(Instant::now() + limits::TOPIC_LINGER);
            }
        }
    }

    /// Leaves the map, unless somebody has come meanwhile. Who comes later sees the closed queue and begins again.
    fn end(&self, commands: &mut mpsc::Receiver<Command<K>>) -> bool {
        let mut topics = K::topics(&self.hub.0).0.lock().unwrap_or_else(PoisonError::into_inner);
        if !commands.is_empty() {
            return false;
        }
        commands.close();
        topics.remove(&self.id);
        count::<K>(topics.len());
        true
    }

    async fn command(
        &mut self,
        command: TopicCommand<K::Join, K::Push>,
        mailbox: Mailbox,
        out: &mut Vec<Effect<Mailbox>>,
    ) {
        match command {
            TopicCommand::Join { chan, serial, who, last_seq } => {
                if self.subscribe().await.is_err() {
                    let outcome = Outcome::Refused(Reason::Unavailable.into());
                    return mailbox.send(Arc::new(Event::Done { chan, serial, outcome }));
                }
                self.topic.join(mailbox, chan, serial, K::member(who), last_seq, out);
            }
            TopicCommand::Leave { chan, lost } => self.topic.leave(chan, lost, out),
            TopicCommand::Push { chan, serial, push } => {
                let hub = self.hub.clone();
                let request = Request { serial, push, now: std::time::Instant::now() };
                self.topic.push(chan, request, || hub.stamp(), out);
            }
        }
    }

    async fn subscribe(&mut self) -> Result<(), RequestError> {
        if self.subscription.is_some() {
            return Ok(());
        }
        self.subscription = Some(self.hub.0.nats.subscribe(self.log.out_subject(), limits::REQUEST_TIMEOUT).await?);
        Ok(())
    }

    /// What is stored has its sequence. A request without anything asks whether anybody is here: that it is delivered is
    /// the answer.
    fn came(&mut self, message: &async_nats::Message, out: &mut Vec<Effect<Mailbox>>) {
        let headers = message.headers.as_ref();
        let span = Span::received("deliver", headers).with(TOPIC_KIND, K::NAME).with(TOPIC, &self.id);
        if !span.is_none() {
            self.delivering.push(span);
        }
        let number = |name| headers.and_then(|h| h.get(name)).and_then(|n| n.as_str().parse().ok());
        let Some(seq) = number("Nats-Sequence") else {
            if !message.payload.is_empty() {
                K::told(&mut self.topic, &message.payload, &self.hub.0.prefix, out);
            }
            return;
        };
        let previous = number("Nats-Last-Sequence").unwrap_or(0);
        let entry = repair::entry(&message.payload);
        self.topic.stored(seq, previous, entry.as_ref(), out);
    }

    /// What has come meanwhile goes to the members together with it.
    fn came_too(&mut self, out: &mut Vec<Effect<Mailbox>>) {
        for _ in 1..FANOUT_MESSAGES_MAX {
            let Some(Some(message)) = next(&mut self.subscription).now_or_never() else { return };
            self.came(&message, out);
        }
    }

    /// What the log has may be on its way here: only what has not come in a moment is lost.
    fn behind(&mut self, to: u64) {
        if self.topic.position().is_some_and(|at| to > at) {
            self.work.push(Box::pin(async move {
                tokio::time::sleep(limits::BEHIND_GRACE).await;
                Work::Behind(to)
            }));
        }
    }

    fn done(&mut self, work: Work<K>, out: &mut Vec<Effect<Mailbox>>) {
        match work {
            Work::Loaded(chan, loaded) => self.topic.loaded(chan, loaded, out),
            Work::Acked(chan, serial, result) => self.topic.acked(chan, serial, result, out),
            Work::Answered(mailbox, event) => mailbox.send(Arc::new(event)),
            Work::Behind(to) => self.topic.behind(to, out),
            Work::Reviewed(reply) => self.topic.reviewed(*reply, out),
            Work::Repaired(after, how, part) => self.topic.repaired(after, how, part, out),
        }
    }

    /// What is for the same socket, and nothing else between, is handed over at once: it wakes once, and writes once.
    /// Each gets its own in the order in which it came; between sockets there is none.
    async fn apply_all(&mut self, out: &mut Vec<Effect<Mailbox>>) {
        let (mut sends, mut delivered): (Vec<(Mailbox, Arc<Event>)>, u64) = (Vec::new(), 0);
        for effect in out.drain(..) {
            if let Effect::Send(mailbox, event) = effect {
                delivered += u64::from(!matches!(*event, Event::Done { .. }));
                sends.push((mailbox, event));
            } else {
                hand_over(&mut sends);
                self.apply(effect).await;
            }
        }
        hand_over(&mut sends);
        self.asked = Span::default();
        self.delivering.clear();
        observe::DELIVERIES.increment(delivered);
    }

    async fn apply(&mut self, effect: Effect<Mailbox>) {
        let (nats, log, asked) = (self.hub.0.nats.clone(), self.log.clone(), self.asked.clone());
        match effect {
            Effect::Send(mailbox, event) => mailbox.send(event),
            Effect::Repair { after, to } => {
                tracing::debug!(
                    chat = log.chat().map(display),
                    room = log.room().map(display),
                    after,
                    to,
                    "entries are missing"
                );
                self.work.push(Box::pin(async move {
                    let (how, part) = repair::fetch::<K>(&nats, log, after, to).await;
                    Work::Repaired(after, how, part)
                }));
            }
            Effect::Repaired(how) => observe::gap(how),
            Effect::Review => {
                let read = history_read(log, HistoryParams { limit: Some(1), ..HistoryParams::default() });
                // As long as the topic lives: without an answer it may let through what is void elsewhere.
                self.work.push(Box::pin(async move {
                    // What history will have said by then has come here too.
                    tokio::time::sleep(PAUSE).await;
                    Work::Reviewed(Box::new(read_log(&nats, &read).await))
                }));
            }
            Effect::Lobby(mailbox, command) => self.hub.0.lobby.send(command, &mailbox, asked).await,
            Effect::Presence(room, command) => self.hub.0.presence.send(room, command).await,
            Effect::Load { chan, last_seq } => {
                let loading = asked.around(K::load(nats, self.id.clone(), last_seq));
                self.work.push(Box::pin(async move {
                    let loaded = tokio::time::timeout(limits::LOG_ACK_TIMEOUT, loading).await;
                    Work::Loaded(chan, loaded.unwrap_or_else(|_| Err(Reason::Unavailable.into())))
                }));
            }
            Effect::Publish { chan, serial, entry, message_id } => {
                observe::MESSAGES.increment(1);
                self.work.push(Box::pin(asked.around(async move {
                    Work::Acked(chan, serial, publish(&nats, log.log_subject(), entry, message_id).await)
                })));
            }
            Effect::Tell { to, chan, serial, body } => {
                // In this task, so that what is not logged keeps its order.
                let publish = asked.around(nats.publish(log.out_subject(), body));
                let publish = tokio::time::timeout(limits::REQUEST_TIMEOUT, publish);
                let outcome = if nats.is_up() && publish.await.is_ok() {
                    Outcome::Ok("{}".into())
                } else {
                    Outcome::Refused(Reason::Unavailable.into())
                };
                to.send(Arc::new(Event::Done { chan, serial, outcome }));
            }
            Effect::Judge { to, chan, serial, seq, void } => {
                self.work.push(Box::pin(async move {
                    let judging = tokio::time::timeout(limits::READ_TIMEOUT, judge(&nats, log, seq, void));
                    let outcome = judging.await.unwrap_or_else(|_| Outcome::Refused(Reason::Unavailable.into()));
                    Work::Answered(to, Event::Done { chan, serial, outcome })
                }));
            }
            Effect::History { to, chan, serial, params } => {
                let read = history_read(log, params);
                self.work.push(Box::pin(asked.around(async move {
                    let reading = tokio::time::timeout(limits::LOG_ACK_TIMEOUT, read_log(&nats, &read));
                    let outcome = match reading.await {
                        Ok(reply) => Outcome::Ok(history_json(&reply).into()),
                        Err(_) => Outcome::Refused(Reason::Unavailable.into()),
                    };
                    Work::Answered(to, Event::Done { chan, serial, outcome })
                })));
            }
        }
    }
}

fn hand_over(sends: &mut Vec<(Mailbox, Arc<Event>)>) {
    sends.sort_by_key(|(mailbox, _)| mailbox.address());
    let mut sends = sends.drain(..).peekable();
    while let Some((mailbox, event)) = sends.next() {
        let its_own = std::iter::from_fn(|| sends.next_if(|(next, _)| next.address() == mailbox.address()));
        mailbox.send_all(std::iter::once(event).chain(its_own.map(|(_, event)| event)));
    }
}

async fn next(subscription: &mut Option<Subscriber>) -> Option<async_nats::Message> {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn each_socket_gets_its_own_in_order_whatever_is_between() {
        let sockets: Vec<_> = (0..5).map(|_| Mailbox::new()).collect();
        let mut sends: Vec<(Mailbox, Arc<Event>)> = (0..4u8)
            .flat_map(|n| sockets.iter().map(move |(mailbox, _)| (mailbox.clone(), n)))
            .map(|(mailbox, n)| (mailbox, Arc::new(Event::Binary { topic: "t".into(), frame: Bytes::from(vec![n]) })))
            .collect();
        hand_over(&mut sends);
        assert!(sends.is_empty());
        for (_, events) in &sockets {
            let came = std::iter::from_fn(|| events.try_next()).map(|event| {
                let Event::Binary { frame, .. } = &*event else { panic!("{event:?}") };
                frame[0]
            });
            assert_eq!(came.collect::<Vec<_>>(), [0, 1, 2, 3]);
        }
    }
}
