//! The task that owns the logs: applies what the stream feeds, and answers reads.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_nats::jetstream::Message;
use async_nats::service::endpoint::Endpoint;
use async_nats::service::{self, Request};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use switchboard_contract::admin::Readiness;
use switchboard_contract::limits;
use switchboard_contract::log::{Behind, Entry, Read, Seen};
use switchboard_contract::names::{LogName, ROOMS_STREAM, RoomId};
use switchboard_contract::nats::{Nats, RequestError};
use switchboard_contract::room::RoomRecord;
use switchboard_contract::trace::Span;
use switchboard_contract::wire::{self, V1};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::field::display;

use crate::follow::Fed;
use crate::lead::{Lead, unix_ms};
use crate::log::{Applied, Logs};
use crate::metrics::{self, Unanswered};
use crate::waiters::Waiters;

/// How often reads that wait in vain are given up.
const SWEEP: Duration = Duration::from_millis(250);

const FEED_ENDED: &str = "the task that follows the stream ended";

/// A read, and where its answer goes.
#[derive(Debug)]
struct Asked {
    read: Read,
    request: Request,
    span: Span,
    deadline: Instant,
    /// The last sequence of its log that the stream's leader named.
    last_seq: Option<u64>,
}

/// A fresh read with the answer to what it has to wait for: the last sequence of its log, 0 if it has none.
type Learned = (Asked, Result<u64, RequestError>);

/// Owns the logs.
pub(crate) struct Server {
    nats: Nats,
    logs: Logs,
    fed: mpsc::Receiver<Fed>,
    memory_bytes: usize,
    window: Duration,
    /// The records of rooms, until the stream's first sequence is known.
    records: Vec<(RoomId, RoomRecord)>,
    evicted_before: u64,
    caught_up: bool,
    /// Fresh reads that ask the stream's leader. With `waiters` at most [`limits::HISTORY_WAITERS_MAX`].
    asking: FuturesUnordered<BoxFuture<'static, Learned>>,
    waiters: Waiters<Asked>,
}

impl Server {
    /// The `records` were read before the stream is followed.
    pub(crate) fn new(
        nats: Nats,
        memory_bytes: usize,
        window: Duration,
        records: Vec<(RoomId, RoomRecord)>,
        fed: mpsc::Receiver<Fed>,
    ) -> Self {
        Server {
            nats,
            logs: Logs::new(memory_bytes).with_window(window),
            fed,
            memory_bytes,
            window,
            records,
            evicted_before: 0,
            caught_up: false,
            asking: FuturesUnordered::new(),
            waiters: Waiters::new(),
        }
    }

    /// Applies what the stream had at the start.
    pub(crate) async fn catch_up(&mut self) -> anyhow::Result<()> {
        while !self.caught_up {
            let fed = self.fed.recv().await.context(FEED_ENDED)?;
            self.take(fed);
            self.logs.take_touched();
        }
        Ok(())
    }

    /// Answers until `stop`.
    pub(crate) async fn serve(
        &mut self,
        [mut reads, mut read_alls, mut behinds]: [Endpoint; 3],
        mut lead: Lead,
        readiness: &Readiness,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut link = self.nats.link();
        loop {
            readiness.set(if self.nats.is_up() { Ok(()) } else { Err("NATS is away") });
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Ok(()) = link.changed() => {}
                fed = self.fed.recv() => {
                    let fed = fed.context(FEED_ENDED)?;
                    if matches!(fed, Fed::Anew) {
                        lead.anew().await;
                    }
                    self.take(fed);
                    lead.note(&mut self.logs);
                    self.answer_reached().await;
                }
                Some((asked, learned)) = self.asking.next() => self.learned(asked, learned).await,
                _ = sweep.tick(), if !self.waiters.is_empty() => {
                    metrics::observe_unanswered(Unanswered::Late, self.waiters.expire(Instant::now()));
                }
                request = reads.next() => self.asked(request.context("the endpoint ended")?).await,
                request = read_alls.next() => self.asked(request.context("the endpoint ended")?).await,
                request = behinds.next() => self.behind(request.context("the endpoint ended")?).await,
                // Who waits for an answer comes first.
                turn = lead.next() => lead.take(turn, &mut self.logs),
            }
        }
        lead.release().await;
        readiness.set(Err("stopping"));
        for endpoint in [&mut reads, &mut read_alls, &mut behinds] {
            let stopped = tokio::time::timeout(limits::REQUEST_TIMEOUT, endpoint.stop()).await;
            tracing::debug!(?stopped, "an endpoint is closed");
        }
        // Answers that are on their way still leave.
        let flushed = tokio::time::timeout(limits::REQUEST_TIMEOUT, self.nats.client.flush()).await;
        tracing::debug!(?flushed, "stopped answering");
        Ok(())
    }

    fn take(&mut self, fed: Fed) {
        let (mut messages, mut malformed) = (0, 0);
        match fed {
            Fed::Entries(entries) => {
                for entry in &entries {
                    match apply(&mut self.logs, entry) {
                        Some(Applied::Message) => messages += 1,
                        Some(Applied::State | Applied::Void | Applied::Known) => {}
                        Some(Applied::TooLarge) | None => malformed += 1,
                    }
                }
            }
            Fed::First(seq) => {
                for (room, record) in self.records.drain(..) {
                    self.logs.seed(room, record, seq);
                }
                self.logs.drop_before(seq);
            }
            Fed::CaughtUp => self.caught_up = true,
            Fed::Anew => {
                self.logs = Logs::new(self.memory_bytes).with_window(self.window);
                self.evicted_before = 0;
            }
        }
        let evicted = self.logs.evicted() - self.evicted_before;
        self.evicted_before += evicted;
        metrics::observe_logs(&self.logs, messages, malformed, evicted);
    }

    async fn asked(&mut self, request: Request) {
        let read: Read = match wire::decode("history_read", &request.message.payload) {
            Ok(read) => read,
            Err(error) => return malformed(&request, &error).await,
        };
        let span = Span::received("read", request.message.headers.as_ref());
        let asked = Asked { read, request, span, deadline: Instant::now() + limits::READ_TIMEOUT, last_seq: None };
        if !asked.read.fresh {
            self.answer(asked).await;
        } else if self.asking.len() + self.waiters.len() < limits::HISTORY_WAITERS_MAX {
            let nats = self.nats.clone();
            self.asking.push(Box::pin(asked.span.clone().around(async move {
                let subject = asked.read.log.log_subject();
                let stored = nats.leader_get(ROOMS_STREAM, &subject, limits::READ_TIMEOUT).await;
                (asked, stored.map(|stored| stored.map_or(0, |stored| stored.seq)))
            })));
        } else {
            metrics::observe_unanswered(Unanswered::Busy, 1);
        }
    }

    async fn learned(&mut self, mut asked: Asked, learned: Result<u64, RequestError>) {
        asked.last_seq = learned.ok();
        match learned.map(|seq| seq.max(asked.read.reach)) {
            Ok(seq) if seq <= self.logs.applied() => self.answer(asked).await,
            Ok(seq) => {
                metrics::observe_fresh_wait();
                self.waiters.insert(seq, asked.deadline, asked);
            }
            Err(error) => {
                let (chat, room) = (asked.read.log.chat().map(display), asked.read.log.room().map(display));
                tracing::debug!(%error, chat, room, "a fresh read is given up");
                metrics::observe_unanswered(Unanswered::Late, 1);
            }
        }
    }

    async fn answer_reached(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        for asked in self.waiters.reached(self.logs.applied()) {
            self.answer(asked).await;
        }
    }

    /// Nothing is handed over while NATS is away; a connection that takes nothing for long loses the answer.
    async fn answer(&mut self, asked: Asked) {
        if !self.nats.is_up() {
            return metrics::observe_unanswered(Unanswered::Late, 1);
        }
        let mut reply = self.logs.read(&asked.read, unix_ms());
        if let (LogName::Room(_), None, Some(last_seq)) = (&asked.read.log, &reply.room, asked.last_seq) {
            // A tombstone, of which nothing is kept: who begins a new life has to expect it. Or the room was forgotten
            // for want of memory. Either way what it had is gone.
            (reply.last_seq, reply.dropped_to) = (last_seq, last_seq);
        }
        if respond(&asked.request, wire::encode(&reply)).await {
            metrics::observe_read();
        }
    }

    /// Answers from what has been applied: who asks does so again and again.
    async fn behind(&mut self, request: Request) {
        let seen: Seen = match wire::decode("history_behind", &request.message.payload) {
            Ok(seen) => seen,
            Err(error) => return malformed(&request, &error).await,
        };
        if self.nats.is_up() {
            let logs = self.logs.behind(seen.logs.get(..limits::BEHIND_LOGS_MAX).unwrap_or(&seen.logs));
            respond(&request, wire::encode(&Behind { v: V1, logs })).await;
        }
    }
}

/// Whether it could be sent.
pub(crate) async fn respond(request: &Request, reply: Bytes) -> bool {
    let sent = tokio::time::timeout(limits::REQUEST_TIMEOUT, request.respond(Ok(reply))).await;
    let sent = matches!(sent, Ok(Ok(())));
    if !sent {
        metrics::observe_unanswered(Unanswered::Late, 1);
    }
    sent
}

/// Refuses a request that is not understood.
pub(crate) async fn malformed(request: &Request, error: &wire::DecodeError) {
    metrics::observe_unanswered(Unanswered::Malformed, 1);
    refuse(request, 400, error.to_string()).await;
}

/// Answers with an error, in words for operators.
pub(crate) async fn refuse(request: &Request, code: usize, status: String) {
    let error = service::error::Error { status, code };
    let sent = tokio::time::timeout(limits::REQUEST_TIMEOUT, request.respond(Err(error))).await;
    tracing::debug!(?sent, code, "refused a request");
}

/// Applies one entry of the stream; `None` if it is not understood.
fn apply(logs: &mut Logs, message: &Message) -> Option<Applied> {
    let seq = match message.info() {
        Ok(info) => info.stream_sequence,
        Err(error) => {
            tracing::debug!(%error, "an entry without its place");
            return None;
        }
    };
    let name = LogName::from_subject(&message.subject);
    let entry: Result<Entry<'_>, _> = wire::decode("entry", &message.payload);
    match (name, entry) {
        (Some(name), Ok(entry)) => Some(logs.apply(name, seq, &entry)),
        (name, entry) => {
            tracing::debug!(seq, subject = %message.subject, error = ?entry.err(), "an entry is not understood");
            logs.pass(name, seq);
            None
        }
    }
}
