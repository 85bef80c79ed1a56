//! What all users of a run share: who they are, the plan, the checker, and what has been counted.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Map, json};
use switchboard_contract::limits;
use tokio_util::sync::CancellationToken;

use super::checker::{Checker, Event, Plan, Took, Violation, Who};
use crate::client::{ConnectError, Socket, Vsn};
use crate::runfile::{Auth, RunFile};
use crate::token::Key;

/// Why a user cannot go on.
#[derive(Debug)]
pub(super) enum Halt {
    /// A rule is broken.
    Violation(Violation),
    /// There is no connection.
    Connect(Who, ConnectError),
}

impl From<Violation> for Halt {
    fn from(violation: Violation) -> Self {
        Halt::Violation(violation)
    }
}

/// A user's id as it goes over the wire.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Id {
    Number(u64),
    Text(String),
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Id::Number(number) => write!(f, "{number}"),
            Id::Text(text) => f.write_str(text),
        }
    }
}

/// The ids of a run: integers for V1, strings for V2, so that both kinds are used. Teacher 1 and student 1 have the
/// same one, as they may; runs one after the other have different ones.
#[derive(Debug)]
pub(super) struct Ids {
    vsn: Vsn,
    base: u64,
}

/// More than the users of one run, and small enough for JSON's integers.
const IDS_PER_SECOND: u64 = 1_000_000;

impl Ids {
    /// For a run that began at this unix second.
    pub(super) fn new(vsn: Vsn, unix_seconds: u64) -> Ids {
        Ids { vsn, base: unix_seconds * IDS_PER_SECOND }
    }

    fn prefix(&self) -> String {
        format!("load-{}-", self.base / IDS_PER_SECOND)
    }

    /// The id of the `n`th.
    pub(super) fn id(&self, n: u32) -> Id {
        match self.vsn {
            Vsn::V1 => Id::Number(self.base + u64::from(n)),
            Vsn::V2 => Id::Text(format!("{}{n}", self.prefix())),
        }
    }

    /// Whose id this JSON text is: exactly as it was sent, or nobody's.
    pub(super) fn who(&self, json: &str) -> Option<u32> {
        match self.vsn {
            Vsn::V1 => u32::try_from(json.parse::<u64>().ok()?.checked_sub(self.base)?).ok(),
            Vsn::V2 => json.strip_prefix('"')?.strip_suffix('"')?.strip_prefix(&self.prefix())?.parse().ok(),
        }
    }
}

/// What has been counted, for the progress bars and the report.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) teachers: u32,
    pub(super) ready: u32,
    pub(super) chats: u32,
    pub(super) served: u32,
    pub(super) messages: u64,
    pub(super) claims: u64,
}

/// What all users of a run share.
pub(super) struct World {
    pub(super) vsn: Vsn,
    pub(super) ids: Ids,
    pub(super) plan: Plan,
    pub(super) claim_every: Duration,
    /// Signs tokens for a system that verifies them.
    key: Option<Key>,
    /// Teachers claim from when this is set.
    pub(super) claims_open: Cell<bool>,
    /// Teachers leave when this is cancelled.
    pub(super) over: CancellationToken,
    started: Instant,
    state: RefCell<State>,
}

struct State {
    checker: Checker,
    tally: Tally,
    messages: Histogram<u64>,
    acks: Histogram<u64>,
}

impl State {
    fn took(&mut self, took: Took) {
        let us = |took: Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        match took {
            Took::Message(took) => {
                self.tally.messages += 1;
                self.messages.saturating_record(us(took));
            }
            Took::Ack(took) => self.acks.saturating_record(us(took)),
        }
    }
}

/// A distribution of times.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Times {
    /// Milliseconds.
    pub(super) p50: f64,
    /// Milliseconds.
    pub(super) p99: f64,
    /// Milliseconds.
    pub(super) max: f64,
}

/// Of times that are to be told apart, in microseconds.
pub(super) fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, TIME_MAX_US, 3)?)
}

impl Times {
    /// Of microseconds.
    pub(super) fn of(times: &Histogram<u64>) -> Times {
        // Below a minute, so a float holds it.
        let ms = |us: u64| f64::from(u32::try_from(us).unwrap_or(u32::MAX)) / 1000.0;
        Times { p50: ms(times.value_at_quantile(0.5)), p99: ms(times.value_at_quantile(0.99)), max: ms(times.max()) }
    }
}

/// The answer to anything: the protocol's bound.
const ANSWER_WITHIN: Duration = limits::ANSWER_TIMEOUT;
/// Longer than any run.
pub(super) const TOKEN_TTL: Duration = Duration::from_secs(7 * 86_400);
/// Longest time that the histograms tell apart. Microseconds.
const TIME_MAX_US: u64 = 60_000_000;

/// The development key, if what runs here wants tokens.
pub(super) fn key(folder: &Path) -> anyhow::Result<Option<Key>> {
    let auth = RunFile::read(folder)?.unwrap_or_default().auth;
    if auth == Auth::Jwt { Key::of(folder).map(Some) } else { Ok(None) }
}

impl World {
    pub(super) fn new(
        ids: Ids,
        capacity: u32,
        messages: u32,
        claim_every: Duration,
        key: Option<Key>,
    ) -> anyhow::Result<World> {
        let plan = Plan { capacity, messages, answer_within: ANSWER_WITHIN };
        Ok(World {
            vsn: ids.vsn,
            ids,
            plan,
            claim_every,
            key,
            claims_open: Cell::new(false),
            over: CancellationToken::new(),
            started: Instant::now(),
            state: RefCell::new(State {
                checker: Checker::new(plan),
                tally: Tally::default(),
                messages: histogram()?,
                acks: histogram()?,
            }),
        })
    }

    /// Connects a user, with a token where the system wants one.
    pub(super) async fn connect(&self, who: Who, url: &str) -> Result<Socket, ConnectError> {
        let token = self.key.as_ref().and_then(|key| {
            let claims = Map::from_iter([("sub".into(), json!(self.ids.id(who.n))), ("role".into(), json!(who.role))]);
            key.mint(claims, TOKEN_TTL).ok()
        });
        Socket::connect_as(url, self.vsn, token.as_deref()).await
    }

    /// Tells the checker what a user sends or sees.
    pub(super) fn observe(&self, who: Who, event: Event<'_>) -> Result<(), Violation> {
        let at = self.started.elapsed();
        let state = &mut *self.state.borrow_mut();
        if let Some(took) = state.checker.observe(who, at, event)? {
            state.took(took);
        }
        Ok(())
    }

    /// Counts what another judge than the checker has found to be so.
    pub(super) fn took(&self, took: Took) {
        self.state.borrow_mut().took(took);
    }

    /// When the run began.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// The time since the run began.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.state.borrow_mut().tally);
    }

    pub(super) fn tally(&self) -> Tally {
        self.state.borrow().tally
    }

    pub(super) fn overdue(&self) -> Result<(), Violation> {
        let now = self.started.elapsed();
        self.state.borrow_mut().checker.overdue(now)
    }

    pub(super) fn finish(&self, students: u32, teachers: u32) -> Result<(), Violation> {
        self.state.borrow().checker.finish(students, teachers)
    }

    pub(super) fn all_know_the_end(&self, teachers: u32) -> bool {
        let state = self.state.borrow();
        (0..teachers).all(|n| state.checker.knows_the_end(Who::teacher(n)))
    }

    /// Times from saying to hearing, and from saying to the `ok`.
    pub(super) fn times(&self) -> (Times, Times) {
        let state = self.state.borrow();
        (Times::of(&state.messages), Times::of(&state.acks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_only_as_they_were_sent() {
        let (numbers, texts) = (Ids::new(Vsn::V1, 1_700_000_000), Ids::new(Vsn::V2, 1_700_000_000));
        assert_eq!(serde_json::to_string(&numbers.id(7)).unwrap(), "1700000000000007");
        assert_eq!(serde_json::to_string(&texts.id(7)).unwrap(), "\"load-1700000000-7\"");
        assert_eq!(numbers.who("1700000000000007"), Some(7));
        assert_eq!(texts.who("\"load-1700000000-7\""), Some(7));
        for wrong in ["\"1700000000000007\"", "7", "null", "load-1700000000-7", "\"load-1700000001-7\"", "\""] {
            assert_eq!((numbers.who(wrong), texts.who(wrong)), (None, None), "{wrong}");
        }
    }
}
