//! Whom to tell which keywords, on the replica that holds the lease: those of a room that have changed, at most once in
//! [`KEYWORD_INTERVAL`]. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchboard_contract::limits::{KEYWORD_INTERVAL, KEYWORD_ROOMS_PER_TURN};
use switchboard_contract::names::LogName;

use crate::keywords::{Word, differ};

/// What rooms were told.
#[derive(Debug, Default)]
pub struct Herald {
    rooms: HashMap<Arc<LogName>, Told>,
    timers: BTreeSet<(Instant, Arc<LogName>)>,
}

#[derive(Debug)]
struct Told {
    words: Vec<Word>,
    timer: Option<Instant>,
    /// Not looked at again before.
    next: Instant,
}

impl Herald {
    /// When there is a room to look at.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Something was said in a room.
    pub fn note(&mut self, name: &Arc<LogName>, now: Instant) {
        let told = self.rooms.entry(name.clone()).or_insert_with(|| Told { words: Vec::new(), timer: None, next: now });
        let at = told.next.max(now);
        if told.timer.is_none_or(|timer| timer > at) {
            Self::set(&mut self.timers, name, told, Some(at));
        }
    }

    /// A room whose life is over.
    pub fn forget(&mut self, name: &LogName) {
        if let Some((name, told)) = self.rooms.remove_entry(name)
            && let Some(timer) = told.timer
        {
            self.timers.remove(&(timer, name));
        }
    }

    /// The rooms to look at now: for each, [`Herald::tell`].
    pub fn due(&mut self, now: Instant) -> Vec<Arc<LogName>> {
        let mut due = Vec::new();
        while due.len() < KEYWORD_ROOMS_PER_TURN && self.deadline().is_some_and(|at| at <= now) {
            let Some((_, name)) = self.timers.pop_first() else { break };
            if let Some(told) = self.rooms.get_mut(&name) {
                told.timer = None;
            }
            due.push(name);
        }
        due
    }

    /// Whether the room is to be told these keywords, which hold until the time `until` if nothing more is said; it is
    /// `unix` now, both in unix milliseconds.
    pub fn tell(
        &mut self,
        name: &Arc<LogName>,
        (words, until): (&[Word], u64),
        window: Duration,
        now: Instant,
        unix: u64,
    ) -> bool {
        let Some(told) = self.rooms.get_mut(name) else { return false };
        told.next = now + KEYWORD_INTERVAL;
        let tell = differ(&told.words, words, window);
        if tell {
            told.words = words.to_vec();
        }
        if until == u64::MAX {
            // Nothing that was said counts any more, and all have been told so.
            self.forget(name);
        } else {
            let at = told.next.max(now + Duration::from_millis(until.saturating_sub(unix)));
            Self::set(&mut self.timers, name, told, Some(at));
        }
        tell
    }

    fn set(timers: &mut BTreeSet<(Instant, Arc<LogName>)>, name: &Arc<LogName>, told: &mut Told, at: Option<Instant>) {
        if let Some(before) = std::mem::replace(&mut told.timer, at) {
            timers.remove(&(before, name.clone()));
        }
        if let Some(at) = at {
            timers.insert((at, name.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use switchboard_contract::limits::KEYWORD_WINDOW;
    use switchboard_contract::names::RoomId;

    use super::*;

    fn word(expires: u64) -> Word {
        Word { word: "tram".into(), expires }
    }

    #[test]
    fn a_room_is_told_what_changes_and_at_most_once_in_a_while() {
        let mut herald = Herald::default();
        let room = Arc::new(LogName::Room(RoomId::new("r").expect("an id")));
        let start = Instant::now();
        herald.note(&room, start);
        herald.note(&room, start);
        assert_eq!(herald.due(start), std::slice::from_ref(&room));
        assert!(herald.tell(&room, (&[word(9_000)], 5_000), KEYWORD_WINDOW, start, 0));
        herald.note(&room, start);
        assert_eq!(herald.deadline(), Some(start + KEYWORD_INTERVAL), "it was told a moment ago");
        let next = start + KEYWORD_INTERVAL;
        assert_eq!(herald.due(next).len(), 1);
        assert!(!herald.tell(&room, (&[word(9_000)], 5_000), KEYWORD_WINDOW, next, 1_000), "the same");
        assert_eq!(herald.deadline(), Some(start + Duration::from_secs(5)), "then something ends");
        let end = start + Duration::from_secs(9);
        assert_eq!(herald.due(end).len(), 1);
        assert!(herald.tell(&room, (&[], u64::MAX), KEYWORD_WINDOW, end, 9_000), "nothing is left");
        assert_eq!((herald.deadline(), herald.rooms.len()), (None, 0));
    }

    #[test]
    fn a_room_that_is_gone_is_not_looked_at() {
        let mut herald = Herald::default();
        let room = Arc::new(LogName::Room(RoomId::new("r").expect("an id")));
        let start = Instant::now();
        herald.note(&room, start);
        herald.forget(&room);
        assert!(herald.due(start).is_empty() && !herald.tell(&room, (&[], 1), KEYWORD_WINDOW, start, 0));
    }
}
