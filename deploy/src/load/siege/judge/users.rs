//! Who was away, and for how long.

use std::collections::HashMap;
use std::time::Duration;

use switchboard_contract::limits;

use super::Who;

/// Clients and servers need not measure the same: this much less than the grace time is long enough.
const SLACK: Duration = Duration::from_millis(500);
/// A chat that one side has not entered after this time may end.
pub(super) const NEVER_ENTERED: Duration = limits::ENTER_TIMEOUT.saturating_sub(Duration::from_secs(5));

#[derive(Clone, Copy, Debug, Default)]
struct User {
    /// Its socket was lost then, and it has not joined since.
    away_since: Option<Duration>,
    /// The end of its last absence of the grace time.
    was_away: Option<Duration>,
    leaves: bool,
}

#[derive(Debug, Default)]
pub(super) struct Users(HashMap<Who, User>);

impl Users {
    pub(super) fn lost(&mut self, who: Who, at: Duration) {
        self.0.entry(who).or_default().away_since.get_or_insert(at);
    }

    pub(super) fn joined(&mut self, who: Who, at: Duration) {
        let user = self.0.entry(who).or_default();
        if user.away_since.take().is_some_and(|since| at.saturating_sub(since) >= limits::GRACE - SLACK) {
            user.was_away = Some(at);
        }
    }

    pub(super) fn leaves(&mut self, who: Who) {
        self.0.entry(who).or_default().leaves = true;
    }

    /// Whether the server may have given it up since `seen`: it left, or was away for the grace time.
    pub(super) fn was_away_since(&self, who: Who, seen: Duration, now: Duration) -> bool {
        let Some(user) = self.0.get(&who) else { return false };
        let is_away = user.away_since.is_some_and(|since| now.saturating_sub(since) >= limits::GRACE - SLACK);
        user.leaves || is_away || user.was_away.is_some_and(|until| until >= seen)
    }
}
