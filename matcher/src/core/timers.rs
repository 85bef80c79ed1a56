//! Deadlines, each of which has a name and at most one time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use switchboard_contract::lobby::Role;
use switchboard_contract::names::{ChatId, UserId};

/// What is to be done at a deadline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A user that was lost has not come back.
    Grace(Role, UserId),
    /// A side of a chat has not entered.
    Enter(ChatId),
    /// Nobody has been in a finished chat.
    Linger(ChatId),
    /// A `new:chat` is not acknowledged.
    Tell(ChatId),
    /// An entry of a chat's log is not acknowledged.
    Log(ChatId),
    /// A chat's record still owes what is long acknowledged.
    Clear(ChatId),
}

/// All deadlines.
#[derive(Debug, Default)]
pub(super) struct Timers {
    order: BTreeSet<(Duration, Timer)>,
    times: BTreeMap<Timer, Duration>,
}

impl Timers {
    /// Sets a deadline, in place of the one it had.
    pub(super) fn set(&mut self, timer: Timer, at: Duration) {
        self.cancel(&timer);
        self.times.insert(timer.clone(), at);
        self.order.insert((at, timer));
    }

    /// Sets a deadline, unless it has an earlier one.
    pub(super) fn set_earlier(&mut self, timer: Timer, at: Duration) {
        if self.times.get(&timer).is_none_or(|now| *now > at) {
            self.set(timer, at);
        }
    }

    /// Forgets a deadline, if there is one.
    pub(super) fn cancel(&mut self, timer: &Timer) {
        if let Some((timer, at)) = self.times.remove_entry(timer) {
            self.order.remove(&(at, timer));
        }
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Duration> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes one that is due.
    pub(super) fn pop(&mut self, now: Duration) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        let (_, timer) = self.order.pop_first()?;
        self.times.remove(&timer);
        Some(timer)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}
