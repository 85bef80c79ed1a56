//! One epoch: the task that owns the core, and what it listens to.
//!
//! The task runs one `select!`; each event is handled by a plain function, and what the core wants told is handed to
//! the outbox or becomes a request whose answer is an event again. So it never waits, and nothing in it is locked.

use std::collections::HashMap;
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, bail};
use async_nats::Subscriber;
use async_nats::service::{Request, Service};
use bytes::Bytes;
use futures_util::future::FutureExt as _;
use futures_util::stream::{FuturesUnordered, SelectAll, StreamExt as _};
use switchboard_contract::ack::Outcome;
use switchboard_contract::admin::Readiness;
use switchboard_contract::alive::Alive;
use switchboard_contract::inside::LobbyInside;
use switchboard_contract::lease::Lease;
use switchboard_contract::limits::{BATCH_INTERVAL, DEAD_AFTER, HEARTBEAT, MATCHER_INBOX_MAX, REQUEST_TIMEOUT};
use switchboard_contract::lobby::{Done, Heartbeat, Leader, Push, Status};
use switchboard_contract::names::{self, Incarnation, MatcherVerb};
use switchboard_contract::nats::Nats;
use switchboard_contract::reason::Reason;
use switchboard_contract::trace::Span;
use switchboard_contract::wire::{V1, decode, encode, timestamp};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::alive::Strangers;
use crate::core::{Config, Core, Counters, Effect, Input, Now, Token, View};
use crate::endpoints::{Requests, listen};
use crate::observe;
use crate::outbox::{Out, Outbox};
use crate::store::{self, Epoch};
use crate::tell::{self, Answer, Asked};

/// Requests that are taken in one go before the next batch begins, so that they share it.
const REQUESTS_PER_TURN: usize = 256;
/// Requests to gateways and logs that are not answered yet. The core asks again for what is above it.
const ASKED_MAX: usize = 8192;
/// Random characters that begin the ids of an epoch's chats.
const CHAT_PREFIX_LENGTH: usize = 6;

/// How an epoch ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// The process stops.
    Stopped,
    /// The lease is lost or a batch failed; the status that was committed last.
    SteppedDown(Status),
}

/// A leader's time in office.
pub(crate) struct Term<'a> {
    me: Incarnation,
    nats: Nats,
    epoch: Epoch,
    core: Core,
    start: Instant,
    lease: &'a Lease,
    service: Service,
    requests: Requests,
    /// Requests that are not answered yet.
    waiting: HashMap<Token, (Box<Request>, Span)>,
    next_token: Token,
    outbox: Outbox,
    asked: FuturesUnordered<Asked>,
    commit: Option<JoinHandle<Outcome>>,
    /// Not before then, see [`BATCH_INTERVAL`].
    batch_at: Instant,
    held_back: bool,
    heartbeats: Subscriber,
    alive: Alive,
    strangers: Strangers,
    look: Interval,
    link: watch::Receiver<u64>,
    counters: Counters,
}

enum Event {
    Stop,
    Unleased,
    Committed(Outcome),
    Link,
    Answer(Answer),
    Heartbeat(Bytes),
    Request(MatcherVerb, Box<Request>),
    Due,
    BatchDue,
    Look,
    Lost(&'static str),
}

impl<'a> Term<'a> {
    /// Begins an epoch, and loads what the bucket holds. `heard`: the status that was published last, as far as is
    /// known. `None`: the lease was lost meanwhile.
    pub(crate) async fn begin(
        nats: &Nats,
        me: &Incarnation,
        config: Config,
        heard: Option<Status>,
        lease: &'a Lease,
    ) -> anyhow::Result<Option<Term<'a>>> {
        let link = nats.link();
        let begin = Instant::now();
        let Some(epoch) = store::acquire(nats, me, || lease.holds()).await? else { return Ok(None) };
        let records = store::load(nats, epoch).await?;
        let loaded = records.len();
        let start = Instant::now();
        let mut core = Core::new(epoch.number, &names::random_token(CHAT_PREFIX_LENGTH), config);
        core.load(now(start), records, epoch.revision, heard);
        let heartbeats = nats.client.subscribe(names::ALIVE_GATEWAYS).await.context("cannot hear heartbeats")?;
        let (service, requests) = listen(nats, epoch).await?;
        nats.round_trip(REQUEST_TIMEOUT).await.context("NATS went away")?;
        let mut look = tokio::time::interval(HEARTBEAT);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (repaired, ms) = (core.counters().repaired, begin.elapsed().as_millis());
        tracing::info!(matcher = %me, epoch = epoch.number, records = loaded, repaired, ms, "leading");
        observe::leads(epoch.number);
        Ok(Some(Term {
            me: me.clone(),
            nats: nats.clone(),
            epoch,
            core,
            start,
            lease,
            service,
            requests,
            waiting: HashMap::new(),
            next_token: 0,
            outbox: Outbox::new(nats.clone()),
            asked: FuturesUnordered::new(),
            commit: None,
            batch_at: start,
            held_back: false,
            heartbeats,
            alive: Alive::default(),
            strangers: Strangers::default(),
            look,
            link,
            counters: Counters::default(),
        }))
    }

    /// Serves until `stop`, until the lease is lost, or until a batch fails.
    ///
    /// # Errors
    /// If the connection has ended.
    pub(crate) async fn serve(mut self, readiness: &Readiness, stop: &CancellationToken) -> anyhow::Result<End> {
        self.input(Input::Tick);
        self.flush();
        self.report(readiness);
        loop {
            let event = self.next(stop).await;
            // Also what is answered without a write is true only while nobody else can lead.
            if !matches!(event, Event::Stop) && !self.lease.holds() {
                return Ok(self.step_down("the lease is lost").await);
            }
            match event {
                Event::Stop => {
                    readiness.set(Err("stopping"));
                    return Ok(self.finish().await);
                }
                Event::Lost(what) => bail!("{what} ended"),
                Event::Committed(Outcome::Committed { seq }) => {
                    let effects = self.core.committed(now(self.start), seq);
                    self.perform(effects);
                }
                Event::Committed(Outcome::Fenced) => return Ok(self.step_down("another one leads").await),
                Event::Committed(Outcome::Unknown) => return Ok(self.step_down("a batch's fate is unknown").await),
                Event::Unleased => return Ok(self.step_down("the lease is lost").await),
                Event::Answer(answer) => self.answered(answer),
                Event::Heartbeat(body) => self.heartbeat(&body),
                Event::Request(verb, request) => self.requested(verb, request),
                Event::Due => self.input(Input::Tick),
                Event::BatchDue => {}
                Event::Link => {
                    self.alive.forgive(self.start.elapsed());
                    self.report(readiness);
                }
                Event::Look => self.look(readiness),
            }
            self.take_waiting_requests();
            self.flush();
        }
    }

    async fn next(&mut self, stop: &CancellationToken) -> Event {
        let commit = async {
            match &mut self.commit {
                Some(task) => task.await.unwrap_or(Outcome::Unknown),
                None => std::future::pending().await,
            }
        };
        let due = self.start + self.core.next_deadline();
        tokio::select! {
            biased;
            () = stop.cancelled() => Event::Stop,
            () = self.lease.lost() => Event::Unleased,
            outcome = commit => {
                self.commit = None;
                Event::Committed(outcome)
            }
            changed = self.link.changed() => changed.map_or(Event::Lost("the connection to NATS"), |()| Event::Link),
            Some(answer) = self.asked.next() => Event::Answer(answer),
            message = self.heartbeats.next() => {
                message.map_or(Event::Lost("the subscription of heartbeats"), |m| Event::Heartbeat(m.payload))
            }
            request = self.requests.next() => {
                request.map_or(Event::Lost("the service"), |(verb, request)| Event::Request(verb, request))
            }
            () = tokio::time::sleep_until(self.batch_at.into()), if self.held_back => Event::BatchDue,
            () = tokio::time::sleep_until(due.into()) => Event::Due,
            _ = self.look.tick() => Event::Look,
        }
    }

    /// Those that are here already share a batch.
    fn take_waiting_requests(&mut self) {
        for _ in 0..REQUESTS_PER_TURN {
            match self.requests.next().now_or_never() {
                Some(Some((verb, request))) => self.requested(verb, request),
                Some(None) | None => return,
            }
        }
    }

    /// Begins the next batch, if there is one. While NATS is away nothing is handed to it.
    fn flush(&mut self) {
        if self.commit.is_some() || !self.nats.is_up() {
            return;
        }
        self.held_back = Instant::now() < self.batch_at;
        if self.held_back {
            return;
        }
        if let Some(batch) = self.core.take_batch(now(self.start)) {
            if batch.records.len() > 1 {
                self.batch_at = Instant::now() + BATCH_INTERVAL;
            }
            let (nats, epoch, records) = (self.nats.clone(), self.epoch, batch.records.len());
            self.commit = Some(tokio::spawn(async move {
                let begin = Instant::now();
                let outcome = store::commit(&nats, epoch, batch).await;
                observe::batch(outcome, records, begin.elapsed());
                outcome
            }));
        }
    }

    fn input(&mut self, input: Input) {
        let effects = self.core.handle(now(self.start), input);
        self.perform(effects);
    }

    fn requested(&mut self, verb: MatcherVerb, request: Box<Request>) {
        observe::request(verb);
        let token = self.next_token;
        let body = &request.message.payload;
        let input = match verb {
            MatcherVerb::Status => {
                let waiting_since = self.core.waiting_since().map(Into::into);
                let leader = Leader { v: V1, leader: self.me.clone(), status: self.core.status(), waiting_since };
                self.outbox.send(Out::Reply(request, encode(&leader)));
                return;
            }
            MatcherVerb::Look => Ok(Input::Look(token)),
            MatcherVerb::Table => decode("table", body).map(|table| Input::Table(token, table)),
            MatcherVerb::Claim => decode("claim", body).map(|claim| Input::Claim(token, claim)),
            MatcherVerb::Terminate => decode("terminate", body).map(|terminate| Input::Terminate(token, terminate)),
        };
        let input = match input {
            Ok(input) => input,
            Err(error) => {
                tracing::warn!(verb = verb.as_str(), %error, "a request was refused");
                self.outbox.send(Out::Refuse(request, error.to_string()));
                return;
            }
        };
        // Rows of a gateway that nobody would notice the death of: unanswered, so it sends them again.
        if let Input::Table(_, table) = &input
            && !self.heard(&table.gateway)
        {
            return;
        }
        if self.waiting.len() >= MATCHER_INBOX_MAX {
            observe::full("requests");
            let done = Done { v: V1, epoch: self.epoch.number, refused: Some(Reason::Unavailable) };
            if !matches!(input, Input::Table(..) | Input::Look(_)) {
                self.outbox.send(Out::Reply(request, encode(&done)));
            }
            return;
        }
        self.next_token += 1;
        let span = Span::received(verb.as_str(), request.message.headers.as_ref());
        self.waiting.insert(token, (request, span));
        self.input(input);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::TableReply(token, reply) => self.reply(token, encode(&reply)),
                Effect::Done(token, done) => self.reply(token, encode(&done)),
                Effect::Looked(tokens, view) => {
                    let body = self.inside(view);
                    tokens.into_iter().for_each(|token| self.reply(token, body.clone()));
                }
                Effect::Forget(token) => drop(self.waiting.remove(&token)),
                Effect::Status(status) => self.outbox.send(Out::Publish(names::LOBBY_STATUS.into(), encode(&status))),
                Effect::Push(gateway, push) if push.new_chats.is_empty() => {
                    observe::push("positions");
                    self.outbox.send(Out::Publish(names::gateway_subject(&gateway), encode(&push)));
                }
                Effect::Push(gateway, push) => {
                    observe::push("new_chats");
                    self.ask(|nats| tell::push(nats, gateway, push));
                }
                Effect::Log(chat, event) => self.ask(|nats| tell::log(nats, chat, event)),
            }
        }
    }

    fn inside(&self, View { status, queue, chats }: View) -> Bytes {
        let since = timestamp(self.epoch.since).into();
        encode(&LobbyInside { v: V1, leader: self.me.clone(), since, status, queue, chats })
    }

    fn ask(&mut self, asked: impl FnOnce(Nats) -> Asked) {
        if self.asked.len() < ASKED_MAX {
            self.asked.push(asked(self.nats.clone()));
        } else {
            observe::full("pushes");
        }
    }

    fn reply(&mut self, token: Token, body: Bytes) {
        if let Some((request, _)) = self.waiting.remove(&token) {
            self.outbox.send(Out::Reply(request, body));
        }
    }

    fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Told(gateway, told) => self.input(Input::Told(gateway, told)),
            Answer::Logged(chat, event) => {
                observe::logged();
                self.input(Input::Logged(chat, event));
            }
            Answer::RoundTrip => self.bury(),
            Answer::None => {}
        }
    }

    /// `false`: there are as many gateways as there may be.
    fn heard(&mut self, gateway: &Incarnation) -> bool {
        let known = self.alive.heard(self.start.elapsed(), gateway);
        if !known {
            observe::full("gateways");
        }
        known
    }

    fn heartbeat(&mut self, body: &[u8]) {
        match decode::<Heartbeat>("heartbeat", body) {
            Ok(heartbeat) if heartbeat.bye => self.gone(heartbeat.gateway, "said goodbye"),
            Ok(heartbeat) => drop(self.heard(&heartbeat.gateway)),
            Err(error) => tracing::warn!(%error, "a heartbeat was refused"),
        }
    }

    /// Once a second: who is silent? It counts only if NATS carries others to us, or our own words.
    fn look(&mut self, readiness: &Readiness) {
        let at = self.start.elapsed();
        if !self.alive.silent(at, DEAD_AFTER).is_empty() && self.nats.is_up() {
            if self.alive.hears(at) {
                self.bury();
            } else {
                self.ask(tell::round_trip);
            }
        }
        for gateway in self.strangers.due(at, &self.alive, |gateway| self.core.knows(gateway)) {
            tracing::info!(%gateway, "a gateway is asked for its table");
            observe::push("resend");
            let push = Push { v: V1, epoch: self.epoch.number, new_chats: Vec::new(), positions: None, resend: true };
            self.outbox.send(Out::Publish(names::gateway_subject(&gateway), encode(&push)));
        }
        self.report(readiness);
    }

    fn bury(&mut self) {
        for gateway in self.alive.silent(self.start.elapsed(), DEAD_AFTER) {
            self.gone(gateway, "is silent");
        }
    }

    fn gone(&mut self, gateway: Incarnation, why: &'static str) {
        tracing::info!(%gateway, why, "a gateway is gone");
        observe::gateway_gone();
        self.alive.forget(&gateway);
        self.input(Input::GatewayGone(gateway));
    }

    fn report(&mut self, readiness: &Readiness) {
        readiness.set(if self.nats.is_up() { Ok(()) } else { Err("NATS is away") });
        let core = &self.core;
        observe::lobby(&core.status(), core.inbox_len(), core.held(), core.waiting_since());
        observe::counters(&mut self.counters, self.core.counters());
    }

    /// Takes no more requests, and waits for the batch in flight.
    async fn finish(mut self) -> End {
        self.requests = SelectAll::new();
        let mut known = true;
        if let Some(task) = self.commit.take() {
            if let Ok(Outcome::Committed { seq }) = task.await {
                // Pushes and log entries among them are never sent: the next leader owes them.
                let effects = self.core.committed(now(self.start), seq);
                self.perform(effects);
            } else {
                known = false;
            }
        }
        let _ = self.service.stop().await;
        // What is not committed by now never is: who asked for it hears so, and asks the next leader. Only the end of a
        // chat may be committed, and miss its log entry; a second time does no harm there. Tables get no answer:
        // gateways send them anew once another one leads; nor does who only looks. If a batch's fate is unknown, nobody
        // gets one.
        let body = encode(&Done { v: V1, epoch: self.epoch.number, refused: Some(Reason::Unavailable) });
        let unanswered = [MatcherVerb::Table, MatcherVerb::Look].map(MatcherVerb::subject);
        let answered = |request: &Request| unanswered.iter().all(|subject| *request.message.subject != **subject);
        for request in
            self.waiting.into_values().map(|(request, _)| request).filter(|request| known && answered(request))
        {
            self.outbox.send(Out::Reply(request, body.clone()));
        }
        self.outbox.close().await;
        End::Stopped
    }

    /// What is in memory is worth nothing any more, and nobody was told of it.
    async fn step_down(self, why: &'static str) -> End {
        tracing::warn!(epoch = self.epoch.number, why, "stepping down");
        observe::stepdown();
        let status = self.core.status();
        let _ = self.service.stop().await;
        End::SteppedDown(status)
    }
}

fn now(start: Instant) -> Now {
    Now { at: start.elapsed(), wall: SystemTime::now() }
}
