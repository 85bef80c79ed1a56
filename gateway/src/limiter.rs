//! What one user may do over all its sockets on this gateway: rates, repeats, and who went on although refused. Pure.
//!
//! Users are kept only while something of them counts; see [`Limiter::sweep`].

pub mod args;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use switchboard_contract::limits::{LIMITED_USERS_MAX, SAID_KEPT_MAX};
use switchboard_contract::names::UserId;

use crate::observe;
use crate::payload::Refusal;

/// What users may do; `None`: no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// Logged messages in rooms.
    pub broadcasts: Option<Quota>,
    /// Direct messages, `typing` and binary data in rooms, together.
    pub directs: Option<Quota>,
    /// Joins of any topic.
    pub joins: Option<Quota>,
    /// The same text of logged messages.
    pub repeats: Option<Within>,
    /// Refusals because of the above.
    pub refusals: Option<Within>,
    /// How long a user waits who was refused so often.
    pub ban: Duration,
}

/// So many in so long a time are one too many.
#[derive(Clone, Copy, Debug)]
pub struct Within {
    /// The last of these is refused.
    pub count: usize,
    /// Any time of this length.
    pub window: Duration,
}

/// Something was too much, and has used up nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// After this time the same is allowed, if nothing else has happened until then.
    pub after: Duration,
    /// The user went on for too long: the socket is to be closed.
    pub out: bool,
}

impl Refused {
    /// `rate_limited`, with when to try again.
    pub fn refusal(&self) -> Refusal {
        // Rounded up: what is tried again then is not too early.
        let ms = self.after.as_nanos().div_ceil(1_000_000);
        Refusal::rate_limited(u64::try_from(ms).unwrap_or(u64::MAX))
    }
}

/// The limits of all users of a gateway.
#[derive(Debug)]
pub struct Limiter {
    rates: Rates,
    /// Texts and ids are remembered by their hashes, which nobody outside can foresee.
    hashes: RandomState,
    begin: Instant,
    users: Mutex<Users>,
}

#[derive(Debug, Default)]
struct Users {
    clock: Given,
    users: HashMap<UserId, User>,
    /// All of whom it is not known who they are.
    nobody: Option<User>,
}

/// The time as the last caller gave it. It does not go back.
#[derive(Clone, Debug, Default)]
struct Given(Arc<AtomicU64>);

impl Clock for Given {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.load(Ordering::Relaxed).into()
    }
}

type Rate = RateLimiter<NotKeyed, InMemoryState, Given, NoOpMiddleware<Nanos>>;

#[derive(Debug)]
struct User {
    seen: Instant,
    broadcasts: Option<Rate>,
    directs: Option<Rate>,
    joins: Option<Rate>,
    said: VecDeque<Said>,
    refusals: VecDeque<Instant>,
    banned: Option<Instant>,
}

/// A text, the message's own id if it had one, and when.
#[derive(Clone, Copy, Debug)]
struct Said {
    at: Instant,
    text: u64,
    id: Option<u64>,
}

impl Limiter {
    /// A limiter that knows nobody.
    pub fn new(rates: Rates, now: Instant) -> Limiter {
        Limiter { rates, hashes: RandomState::new(), begin: now, users: Mutex::default() }
    }

    /// A user joins a topic.
    ///
    /// # Errors
    /// If that is too often, or the user has to wait because of what it did before.
    pub fn join(&self, user: &UserId, now: Instant) -> Result<(), Refused> {
        self.check(user, now, |user, rates, clock| {
            if let Some(after) = user.waits(now) {
                return Err(Refused { after, out: false });
            }
            let allowed = allow(&mut user.joins, rates.joins, clock);
            allowed.map_err(|after| user.refused(after, rates, now))
        })
    }

    /// Somebody joins a feed with a secret, the right one or not: as a user, or as nobody in particular, who all count
    /// together. Whether one wrong secret too many has come with it: then the socket is to be closed.
    ///
    /// # Errors
    /// If too many wrong ones have come before. That goes for the right one too: else it would be told from others.
    pub fn guess(&self, user: Option<&UserId>, right: bool, now: Instant) -> Result<bool, Refused> {
        let mut out = false;
        let mut guessed = |user: &mut User, rates: &Rates, _: &Given| {
            if let Some(after) = user.waits(now) {
                return Err(Refused { after, out: false });
            }
            out = !right && user.refused(Duration::ZERO, rates, now).out;
            Ok(())
        };
        match user {
            Some(user) => self.check(user, now, guessed)?,
            None => {
                let Users { clock, nobody, .. } = &mut *self.lock();
                guessed(nobody.get_or_insert_with(|| User::new(now)), &self.rates, clock)?;
            }
        }
        Ok(out)
    }

    /// A user who is no moderator sends what is not logged.
    ///
    /// # Errors
    /// If that is too often.
    pub fn direct(&self, user: &UserId, now: Instant) -> Result<(), Refused> {
        self.check(user, now, |user, rates, clock| {
            let allowed = allow(&mut user.directs, rates.directs, clock);
            allowed.map_err(|after| user.refused(after, rates, now))
        })
    }

    /// A user who is no moderator says something that is logged, perhaps under an id of its own.
    ///
    /// # Errors
    /// If that is too often, or the same too often.
    pub fn say(&self, user: &UserId, text: Option<&str>, id: Option<&str>, now: Instant) -> Result<(), Refused> {
        let said = text.map(|text| Said {
            at: now,
            text: self.hashes.hash_one(text),
            id: id.map(|id| self.hashes.hash_one(id)),
        });
        self.check(user, now, |user, rates, clock| {
            let fresh = user.repeats(said, rates.repeats, now);
            let allowed = fresh.and_then(|fresh| allow(&mut user.broadcasts, rates.broadcasts, clock).map(|()| fresh));
            match allowed {
                Ok(fresh) => {
                    user.remember(fresh);
                    Ok(())
                }
                Err(after) => Err(user.refused(after, rates, now)),
            }
        })
    }

    /// How long a user has to wait before it may join anything.
    pub fn banned(&self, user: &UserId, now: Instant) -> Option<Duration> {
        self.lock().users.get(user)?.waits(now)
    }

    /// Whether the texts of messages count.
    pub fn hears(&self) -> bool {
        self.rates.repeats.is_some()
    }

    /// Forgets the users of whom nothing counts any more: all that they have used up is there again. Gives how many are
    /// left. To be called each second or so.
    pub fn sweep(&self, now: Instant) -> usize {
        let keep = self.rates.memory();
        let mut users = self.lock();
        users.users.retain(|_, user| user.seen + keep > now);
        if users.users.capacity() > 4 * users.users.len().max(256) {
            users.users.shrink_to_fit();
        }
        users.users.len()
    }

    fn lock(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks of one user. Beyond [`LIMITED_USERS_MAX`] others are not limited: who comes under so many names is not held
    /// by limits of one.
    fn check(
        &self,
        user: &UserId,
        now: Instant,
        ask: impl FnOnce(&mut User, &Rates, &Given) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let mut users = self.lock();
        let Users { clock, users, .. } = &mut *users;
        let since = now.saturating_duration_since(self.begin).as_nanos();
        clock.0.fetch_max(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
        if let Some(user) = users.get_mut(user) {
            user.seen = now.max(user.seen);
            return ask(user, &self.rates, clock);
        }
        if users.len() >= LIMITED_USERS_MAX {
            metrics::counter!("switchboard_gateway_unlimited_total").increment(1);
            return Ok(());
        }
        ask(users.entry(user.clone()).or_insert_with(|| User::new(now)), &self.rates, clock)
    }
}

impl Rates {
    /// After so long nothing counts any more that a user did.
    fn memory(&self) -> Duration {
        let refill = |quota: Quota| quota.replenish_interval() * quota.burst_size().get();
        let buckets = [self.broadcasts, self.directs, self.joins].into_iter().flatten().map(refill);
        let windows = [self.repeats, self.refusals].into_iter().flatten().map(|within| within.window);
        buckets.chain(windows).fold(self.ban, Duration::max)
    }
}

/// Uses up one; else how long until there is one again.
fn allow(rate: &mut Option<Rate>, quota: Option<Quota>, clock: &Given) -> Result<(), Duration> {
    let Some(quota) = quota else { return Ok(()) };
    let rate = rate.get_or_insert_with(|| RateLimiter::direct_with_clock(quota, clock.clone()));
    rate.check().map_err(|until| until.wait_time_from(clock.now()))
}

impl User {
    fn new(now: Instant) -> User {
        User {
            seen: now,
            broadcasts: None,
            directs: None,
            joins: None,
            said: VecDeque::new(),
            refusals: VecDeque::new(),
            banned: None,
        }
    }

    fn waits(&self, now: Instant) -> Option<Duration> {
        self.banned.filter(|until| *until > now).map(|until| until - now)
    }

    /// What is to be remembered if it is allowed otherwise: nothing, if it is the same message once more. Else how long
    /// until it is no repetition.
    fn repeats(&mut self, said: Option<Said>, repeats: Option<Within>, now: Instant) -> Result<Option<Said>, Duration> {
        let (Some(said), Some(Within { count, window })) = (said, repeats) else { return Ok(None) };
        while self.said.front().is_some_and(|old| old.at + window <= now) {
            self.said.pop_front();
        }
        let same = || self.said.iter().filter(|old| old.text == said.text);
        if said.id.is_some() && same().any(|old| old.id == said.id) {
            return Ok(None);
        }
        match same().next() {
            Some(oldest) if same().count() + 1 >= count => Err((oldest.at + window).saturating_duration_since(now)),
            _ => Ok(Some(said)),
        }
    }

    fn remember(&mut self, said: Option<Said>) {
        if self.said.len() >= SAID_KEPT_MAX {
            observe::full("said");
            self.said.pop_front();
        }
        self.said.extend(said);
    }

    /// Counts a refusal. Who is out already, and goes on on another socket, is out there too.
    fn refused(&mut self, after: Duration, rates: &Rates, now: Instant) -> Refused {
        let Some(Within { count, window }) = rates.refusals else { return Refused { after, out: false } };
        let mut out = self.waits(now).is_some();
        if !out {
            while self.refusals.front().is_some_and(|old| *old + window <= now) {
                self.refusals.pop_front();
            }
            self.refusals.push_back(now);
            out = self.refusals.len() >= count;
            if out {
                metrics::counter!("switchboard_gateway_bans_total").increment(1);
                self.refusals = VecDeque::new();
                self.banned = Some(now + rates.ban);
            }
        }
        Refused { after, out }
    }
}

#[cfg(test)]
mod tests;
