//! Who was away, and for how long.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use switchboard_contract::limits;

use super::Who;

/// Clients and servers need not measure the same: this much less than the grace time is long enough.
const SLACK: Duration = Duration::from_millis(500);
/// A chat that one side has not entered after this time may end.
pub(super) const NEVER_ENTERED: Duration = limits::ENTER_TIMEOUT.saturating_sub(Duration::from_secs(5));
/// Absences of at least this may have been too long.
const AWAY: Duration = limits::GRACE.saturating_sub(SLACK);
/// What was said about a chat before one of its two was given up may come so much later.
pub(super) const SHOWN_WITHIN: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, Default)]
struct User {
    /// Its socket was lost then, and it has not joined since.
    away_since: Option<Duration>,
    /// The end of its last absence of the grace time.
    was_away: Option<Duration>,
    leaves: bool,
}

#[derive(Debug, Default)]
pub(super) struct Users {
    all: HashMap<Who, User>,
    /// Who was lost, and when, in that order.
    lost: VecDeque<(Duration, Who)>,
}

impl Users {
    pub(super) fn lost(&mut self, who: Who, at: Duration) {
        let user = self.all.entry(who).or_default();
        if user.away_since.is_none() {
            user.away_since = Some(at);
            self.lost.push_back((at, who));
        }
    }

    /// Somebody who is away for so long that the server may give it up, and since when; each absence once.
    pub(super) fn given_up(&mut self, now: Duration) -> Option<(Who, Duration)> {
        while let Some(&(since, who)) = self.lost.front()
            && now.saturating_sub(since) >= AWAY
        {
            self.lost.pop_front();
            if self.all.get(&who).is_some_and(|user| user.away_since == Some(since)) {
                return Some((who, since));
            }
        }
        None
    }

    pub(super) fn joined(&mut self, who: Who, at: Duration) {
        let user = self.all.entry(who).or_default();
        if user.away_since.take().is_some_and(|since| at.saturating_sub(since) >= AWAY) {
            user.was_away = Some(at);
        }
    }

    pub(super) fn leaves(&mut self, who: Who) {
        self.all.entry(who).or_default().leaves = true;
    }

    /// How many are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Forgets somebody who has left for good.
    pub(super) fn forget(&mut self, who: Who) {
        self.all.remove(&who);
    }

    /// Whether the server may have given it up since `seen`: it left, or was away for the grace time.
    pub(super) fn was_away_since(&self, who: Who, seen: Duration, now: Duration) -> bool {
        let Some(user) = self.all.get(&who) else { return false };
        let is_away = user.away_since.is_some_and(|since| now.saturating_sub(since) >= AWAY);
        user.leaves || is_away || user.was_away.is_some_and(|until| until >= seen)
    }
}
