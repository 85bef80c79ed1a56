//! What the next heartbeat says of rooms.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use switchboard_contract::limits::{DIGEST_ROOMS_MAX, DIGEST_WAITING_MAX};
use switchboard_contract::names::RoomId;

use crate::observe;

/// Which rooms have changed since the heartbeats before, each with its version. The task of presence notes them, that
/// of heartbeats takes them.
#[derive(Debug, Default)]
pub struct Digest(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    versions: HashMap<RoomId, u64>,
    order: VecDeque<RoomId>,
    overflowed: bool,
}

impl Digest {
    /// A room has a new version.
    pub fn note(&self, room: RoomId, version: u64) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.versions.insert(room.clone(), version).is_none() {
            waiting.order.push_back(room);
        }
        if waiting.order.len() > DIGEST_WAITING_MAX {
            observe::full("digest");
            *waiting = Waiting { overflowed: true, ..Waiting::default() };
        }
    }

    /// What goes with the next heartbeat; `None`: more has changed than heartbeats can say, so this one is left out,
    /// and whoever misses it asks for everything.
    pub fn take(&self) -> Option<Vec<(RoomId, u64)>> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut waiting.overflowed) {
            return None;
        }
        let n = waiting.order.len().min(DIGEST_ROOMS_MAX);
        let rooms: Vec<RoomId> = waiting.order.drain(..n).collect();
        Some(rooms.into_iter().filter_map(|room| waiting.versions.remove_entry(&room)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(n: usize) -> RoomId {
        RoomId::new(&format!("{n:06}")).expect("an id")
    }

    #[test]
    fn everything_is_said_once_and_the_rest_later() {
        let digest = Digest::default();
        (0..DIGEST_ROOMS_MAX + 2).for_each(|n| digest.note(room(n), 1));
        digest.note(room(0), 2);
        let first = digest.take().expect("a digest");
        assert_eq!((first.len(), &first[0]), (DIGEST_ROOMS_MAX, &(room(0), 2)));
        assert_eq!(digest.take().expect("a digest").len(), 2);
        assert_eq!(digest.take(), Some(vec![]));
    }

    #[test]
    fn when_too_much_has_changed_a_heartbeat_is_left_out() {
        let digest = Digest::default();
        (0..=DIGEST_WAITING_MAX).for_each(|n| digest.note(room(n), 1));
        digest.note(room(7), 2);
        assert_eq!(digest.take(), None);
        assert_eq!(digest.take(), Some(vec![(room(7), 2)]));
    }
}
