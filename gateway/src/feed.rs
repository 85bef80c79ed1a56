//! One feed, as its members on this gateway see it. Pure.
//!
//! Whatever is told comes with the feed's version, so nothing has to come in order, or at all: the newest one wins, and
//! who may have lost something asks history. The feed's owner says before each poll which version is the last one; so a
//! loss is noticed within an interval, and an owner's silence within a few.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use switchboard_contract::feed::{Fed, Stale, Told, Value, Version, Wanted};
use switchboard_contract::limits;
use switchboard_contract::lobby::ChannelId;
use switchboard_contract::names::FeedId;
use switchboard_contract::reason::Reason;
use switchboard_contract::wire;

use crate::auth::Pass;
use crate::mailbox::{Broadcast, Event, Outcome};

/// The reply to a join before the first poll has brought a value.
const NOTHING: &str = r#"{"value":null,"version":null,"at":null}"#;
/// Why a feed is stale whose owner is not heard.
const NOBODY: &str = "nobody polls it";

/// What a feed wants done. `M` is where a member is reached.
#[derive(Debug)]
pub enum Effect<M> {
    /// Subscribe to it; [`Feed::opened`] follows.
    Open,
    /// Ask history for it; [`Feed::answered`] follows.
    Ask,
    /// Hand an event over.
    Send(M, Arc<Event>),
    /// It has had no members for a while: forget it, and its subscription.
    End,
}

/// A feed with members here, or that had some a moment ago.
#[derive(Debug)]
pub struct Feed<M> {
    topic: Box<str>,
    members: BTreeMap<ChannelId, Member<M>>,
    line: Line,
    /// What history has said of it; `None`: it was not asked yet, and nobody could join.
    terms: Option<Terms>,
    last: Option<Value>,
    /// As members were told.
    stale: Option<Stale>,
    /// It is stale for this gateway alone: its owner is not heard.
    unheard: bool,
    /// The newest version heard of; its value may have been lost.
    newest: Version,
    /// The owner was heard since history was asked: what history answers may be older.
    told: bool,
    /// When the owner was heard last, or a new value came.
    heard: Instant,
    /// When it ends, if nobody joins.
    ends: Instant,
    /// Numbers what members are shown.
    shown: u64,
}

/// Where the feed comes from.
#[derive(Clone, Copy, Debug)]
enum Line {
    /// From nowhere, until it is subscribed to at this time.
    Down(Instant),
    /// It is being subscribed to.
    Opening,
    /// From its owner. History is asked at this time.
    Open(Instant),
    /// The same, and history is being asked.
    Asking,
}

#[derive(Clone, Copy, Debug)]
struct Terms {
    interval: Duration,
    /// What who joins has to show at least.
    wants: Pass,
}

#[derive(Debug)]
struct Member<M> {
    mailbox: M,
    /// The join that is not answered yet.
    joining: Option<u32>,
    pass: Pass,
}

impl<M: Clone> Feed<M> {
    /// A feed that nobody has joined, and nothing is known of.
    pub fn new(feed: &FeedId, now: Instant) -> Self {
        Feed {
            topic: format!("feed:{feed}").into(),
            members: BTreeMap::new(),
            line: Line::Down(now),
            terms: None,
            last: None,
            stale: None,
            unheard: false,
            newest: (0, 0),
            told: false,
            heard: now,
            ends: now + limits::TOPIC_LINGER,
            shown: 0,
        }
    }

    /// How many members it has, those included whose join is not answered yet.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// When [`Feed::tick`] wants to be called; `None`: something else is waited for.
    pub fn wake(&self) -> Option<Instant> {
        if self.members.is_empty() {
            return Some(self.ends);
        }
        let line = match self.line {
            Line::Down(at) | Line::Open(at) => Some(at),
            Line::Opening | Line::Asking => None,
        };
        line.into_iter().chain(self.silent_at()).min()
    }

    /// Somebody joins: answered at once if it is known what the feed is, and else once history has said so. Whoever
    /// waits for too long leaves.
    pub fn join(
        &mut self,
        mailbox: M,
        chan: ChannelId,
        serial: u32,
        pass: Pass,
        now: Instant,
        out: &mut Vec<Effect<M>>,
    ) {
        self.members.insert(chan, Member { mailbox, joining: Some(serial), pass });
        if let Some(terms) = self.terms {
            self.admit(chan, terms, out);
            self.linger(now);
        }
    }

    /// A member is gone.
    pub fn leave(&mut self, chan: ChannelId, now: Instant) {
        self.members.remove(&chan);
        self.linger(now);
    }

    /// It was subscribed to, or not.
    pub fn opened(&mut self, open: bool, now: Instant) {
        self.line = if open { Line::Open(now) } else { Line::Down(now + limits::FEED_JOIN_RETRY) };
    }

    /// Anything may have been lost: history is asked at this time, unless it is being asked.
    pub fn resync(&mut self, at: Instant) {
        if let Line::Open(then) = &mut self.line {
            *then = at.min(*then);
        }
    }

    /// Its owner says something, or somebody who was its owner.
    pub fn told(&mut self, told: Told, now: Instant, out: &mut Vec<Effect<M>>) {
        let version = told.last.as_ref().map_or(told.version, |last| last.version);
        if version < self.newest {
            return;
        }
        (self.newest, self.heard) = (version, now);
        let ask = if told.last.is_none() && version > self.version() {
            now
        } else {
            self.told = true;
            self.take(told.last, told.stale, out);
            now + self.patience()
        };
        if let Line::Open(at) = &mut self.line {
            *at = ask;
        }
    }

    /// What history answered, if it did.
    pub fn answered(&mut self, answer: Option<Wanted>, now: Instant, out: &mut Vec<Effect<M>>) {
        let (fed, refused) = answer.map_or((None, None), |wanted| (wanted.feed, wanted.refused));
        if let Some(Fed { interval_ms, token, secret, last, stale }) = fed {
            if self.terms.is_none() {
                self.heard = now;
            }
            let interval = Duration::from_millis(interval_ms).min(limits::FEED_INTERVAL_MAX);
            let wants = match (secret, token) {
                (true, _) => Pass::Secret,
                (false, true) => Pass::Token,
                (false, false) => Pass::Nothing,
            };
            let terms = Terms { interval, wants };
            self.terms = Some(terms);
            let version = last.as_ref().map_or((0, 0), |last| last.version);
            if version > self.version() {
                (self.newest, self.heard) = (self.newest.max(version), now);
                self.take(last, stale, out);
            } else if version == self.version() && !self.told && !self.unheard {
                self.take(None, stale, out);
            }
            let waiting = self.waiting();
            waiting.into_iter().for_each(|chan| self.admit(chan, terms, out));
            self.linger(now);
            let lost = self.version() < self.newest;
            self.line = Line::Open(now + if lost { self.retry() } else { self.patience() });
            return;
        }
        if refused == Some(Reason::NotFound) {
            // Those who are in stay: another replica may know of it.
            let waiting = self.waiting();
            waiting.into_iter().for_each(|chan| self.refuse(chan, Reason::NotFound, out));
            self.linger(now);
        }
        self.line = Line::Open(now + self.retry());
    }

    /// Time passes; `clock` is the same moment, for clients.
    pub fn tick(&mut self, now: Instant, clock: SystemTime, out: &mut Vec<Effect<M>>) {
        if self.members.is_empty() {
            if self.ends <= now {
                out.push(Effect::End);
            }
            return;
        }
        match self.line {
            Line::Down(at) if at <= now => {
                self.line = Line::Opening;
                out.push(Effect::Open);
            }
            Line::Open(at) if at <= now => {
                (self.line, self.told) = (Line::Asking, false);
                out.push(Effect::Ask);
            }
            Line::Down(_) | Line::Open(_) | Line::Opening | Line::Asking => {}
        }
        if self.silent_at().is_some_and(|at| at <= now) {
            let since = clock.checked_sub(now.duration_since(self.heard)).unwrap_or(clock);
            let stale = Stale { since: wire::timestamp(since).into(), reason: NOBODY.into() };
            self.take(None, Some(stale), out);
            self.unheard = true;
        }
    }

    fn version(&self) -> Version {
        self.last.as_ref().map_or((0, 0), |last| last.version)
    }

    /// For how long the owner may be silent before history is asked.
    fn patience(&self) -> Duration {
        self.terms.map_or(limits::FEED_JOIN_RETRY, |terms| 2 * terms.interval + limits::FEED_PATIENCE)
    }

    /// When history is asked again that has not answered, or with what is old.
    fn retry(&self) -> Duration {
        self.terms.map_or(limits::FEED_JOIN_RETRY, |terms| terms.interval.max(limits::FEED_RETRY))
    }

    /// Whether members were told that the value may be old.
    pub fn is_stale(&self) -> bool {
        self.stale.is_some()
    }

    /// When members are told that nobody polls the feed; `None`: it is not known yet, or stale already.
    fn silent_at(&self) -> Option<Instant> {
        let terms = self.terms.filter(|_| self.stale.is_none())?;
        Some(self.heard + 3 * terms.interval + limits::FEED_SILENCE)
    }

    /// Nobody is left: it goes on for an interval at most, so that one that is polled often is not polled long for
    /// nobody.
    fn linger(&mut self, now: Instant) {
        if self.members.is_empty() {
            let interval = self.terms.map_or(limits::TOPIC_LINGER, |terms| terms.interval);
            self.ends = now + interval.min(limits::TOPIC_LINGER);
        }
    }

    /// The feed is so now. Members are told what is new to them: a value, which has been found to be newer; that it is
    /// stale; or that it no longer is, by the value that is still the last one.
    fn take(&mut self, newer: Option<Value>, stale: Option<Stale>, out: &mut Vec<Effect<M>>) {
        let newer = newer.filter(|value| value.version > self.version());
        let fresh = newer.is_some();
        self.last = newer.or(self.last.take());
        let was = std::mem::replace(&mut self.stale, stale);
        self.unheard = false;
        if fresh || (was.is_some() && self.stale.is_none()) {
            self.show("update", self.last.as_ref().map(json), out);
        }
        if fresh || was != self.stale {
            self.show("stale", self.stale.as_ref().map(json), out);
        }
    }

    fn show(&mut self, event: &'static str, payload: Option<String>, out: &mut Vec<Effect<M>>) {
        let Some(payload) = payload else { return };
        self.shown += 1;
        let broadcast = Broadcast::new(&self.topic, event, payload);
        let event = Arc::new(Event::Once { version: self.shown, broadcast });
        let joined = self.members.values().filter(|member| member.joining.is_none());
        out.extend(joined.map(|member| Effect::Send(member.mailbox.clone(), event.clone())));
    }

    fn waiting(&self) -> Vec<ChannelId> {
        let waiting = self.members.iter().filter(|(_, member)| member.joining.is_some());
        waiting.map(|(chan, _)| *chan).collect()
    }

    /// Answers a join from what is known.
    fn admit(&mut self, chan: ChannelId, terms: Terms, out: &mut Vec<Effect<M>>) {
        let Some(Member { mailbox, joining, pass }) = self.members.get_mut(&chan) else { return };
        if *pass < terms.wants {
            return self.refuse(chan, Reason::Unauthorized, out);
        }
        let Some(serial) = joining.take() else { return };
        let response = self.last.as_ref().map_or_else(|| NOTHING.to_owned(), json);
        let done = Event::Done { chan, serial, outcome: Outcome::Ok(response.into()) };
        out.push(Effect::Send(mailbox.clone(), Arc::new(done)));
        if let Some(stale) = &self.stale {
            let push = Event::Push { chan, event: "stale".into(), payload: json(stale).into() };
            out.push(Effect::Send(mailbox.clone(), Arc::new(push)));
        }
    }

    fn refuse(&mut self, chan: ChannelId, reason: Reason, out: &mut Vec<Effect<M>>) {
        let Some(Member { mailbox, joining: Some(serial), .. }) = self.members.remove(&chan) else { return };
        let done = Event::Done { chan, serial, outcome: Outcome::Refused(reason.into()) };
        out.push(Effect::Send(mailbox, Arc::new(done)));
    }
}

/// As clients see it, which is as it is said between services.
fn json(what: &impl Serialize) -> String {
    String::from_utf8_lossy(&wire::encode(what)).into_owned()
}
