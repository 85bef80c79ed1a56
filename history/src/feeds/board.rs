//! Which feeds there are, which of them this replica polls, and which it is to begin with.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use switchboard_contract::limits::{FEED_TAKE_RETRY, FEEDS_MAX};
use switchboard_contract::names::{FeedId, Incarnation};

use super::owner::Replicas;
use crate::metrics;

/// Why a feed is not polled here any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its record is deleted.
    Gone {
        /// The record had been written last before this sequence of the bucket's stream.
        seq: u64,
    },
    /// Another replica has taken it.
    Deposed {
        /// That one.
        by: Incarnation,
    },
    /// NATS did not let it be taken.
    NotTaken,
}

/// What is to be done with a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// To be polled from now on.
    Poll,
    /// Nobody knows it: its record is to be deleted.
    Bury,
}

/// All feeds that have a record, at most [`FEEDS_MAX`].
#[derive(Debug, Default)]
pub struct Board {
    /// With the sequence of the record's last write.
    records: BTreeMap<FeedId, u64>,
    busy: BTreeSet<FeedId>,
    later: BTreeMap<FeedId, Duration>,
}

impl Board {
    /// The feeds that there are, by name.
    pub fn feeds(&self) -> impl Iterator<Item = &FeedId> {
        self.records.keys()
    }

    /// How many feeds there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether this replica knows of so many feeds that there may be no further one.
    pub fn is_full(&self) -> bool {
        self.records.len() >= FEEDS_MAX
    }

    /// The sequence of a record's last write, as far as it has been heard of.
    pub fn seq(&self, feed: &FeedId) -> u64 {
        self.records.get(feed).copied().unwrap_or(0)
    }

    /// How many are polled here, or about to be.
    pub fn busy(&self) -> usize {
        self.busy.len()
    }

    /// The records are read from the start.
    pub fn anew(&mut self) {
        self.records.clear();
    }

    /// A record was written; `false` if there are too many to take note of it.
    pub fn written(&mut self, feed: &FeedId, seq: u64) -> bool {
        let full = self.is_full();
        match self.records.get_mut(feed) {
            Some(last) => *last = seq,
            None if full => {
                metrics::full("feeds");
                return false;
            }
            None => {
                self.records.insert(feed.clone(), seq);
            }
        }
        true
    }

    /// A record was deleted.
    pub fn deleted(&mut self, feed: &FeedId) {
        self.records.remove(feed);
    }

    /// What this replica is to do with this feed, if anything; it counts as done until [`Board::ended`].
    pub fn due(&mut self, feed: &FeedId, me: &Incarnation, replicas: &Replicas, now: Duration) -> Option<Duty> {
        if self.busy.contains(feed) || !self.records.contains_key(feed) {
            return None;
        }
        let duty = match replicas.winner(feed) {
            Some(winner) => (winner == me).then_some(Duty::Poll),
            None => (replicas.undertaker(feed) == Some(me)).then_some(Duty::Bury),
        }?;
        match self.later.get(feed) {
            Some(later) if now < *later => return None,
            Some(_) => self.later.remove(feed),
            None => None,
        };
        self.busy.insert(feed.clone());
        Some(duty)
    }

    /// What this replica is to do.
    pub fn all_due(&mut self, me: &Incarnation, replicas: &Replicas, now: Duration) -> Vec<(FeedId, Duty)> {
        self.later.retain(|_, later| now < *later);
        let feeds: Vec<FeedId> = self.records.keys().filter(|feed| !self.busy.contains(*feed)).cloned().collect();
        feeds.into_iter().filter_map(|feed| self.due(&feed, me, replicas, now).map(|duty| (feed, duty))).collect()
    }

    /// Other replicas live now than before: what was to be tried later is tried at once.
    pub fn changed(&mut self) {
        self.later.clear();
    }

    /// It has ended.
    pub fn ended(&mut self, feed: &FeedId, how: &Ended, replicas: &Replicas, now: Duration) {
        self.busy.remove(feed);
        match how {
            // A record that was made since is another one.
            Ended::Gone { seq } => {
                if self.records.get(feed).is_some_and(|last| last < seq) {
                    self.records.remove(feed);
                }
            }
            // Whoever took it has gone meanwhile.
            Ended::Deposed { by } if !replicas.knows(by) => {}
            Ended::Deposed { .. } | Ended::NotTaken => {
                self.later.insert(feed.clone(), now + FEED_TAKE_RETRY);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchboard_contract::feed::HistoryBeat;
    use switchboard_contract::wire::V1;

    const T: Duration = Duration::from_secs(100);

    fn replicas(feeds: &[&str]) -> (Replicas, Incarnation) {
        let me = Incarnation::named("me").expect("a name");
        let mut replicas = Replicas::default();
        let feeds = feeds.iter().map(|&feed| feed.into()).collect();
        replicas.heard(T, HistoryBeat { v: V1, replica: me.clone(), feeds, leaving: false });
        (replicas, me)
    }

    fn feed() -> FeedId {
        FeedId::new("n:1").expect("a feed")
    }

    #[test]
    fn a_feed_is_begun_once_and_again_after_it_was_taken_away() {
        let ((mut replicas, me), mut board) = (replicas(&["n"]), Board::default());
        let by = Incarnation::named("other").expect("a name");
        let other = |leaving| HistoryBeat { v: V1, replica: by.clone(), feeds: vec![], leaving };
        replicas.heard(T, other(false));
        assert_eq!(board.due(&feed(), &me, &replicas, T), None, "no record");
        board.written(&feed(), 7);
        assert_eq!(board.all_due(&me, &replicas, T), [(feed(), Duty::Poll)]);
        board.written(&feed(), 8);
        assert_eq!(board.all_due(&me, &replicas, T), []);
        let deposed = Ended::Deposed { by: by.clone() };
        board.ended(&feed(), &deposed, &replicas, T);
        assert_eq!(board.all_due(&me, &replicas, T), [], "not at once");
        assert_eq!(board.due(&feed(), &me, &replicas, T), None);
        assert_eq!(board.all_due(&me, &replicas, T + FEED_TAKE_RETRY), [(feed(), Duty::Poll)]);

        board.ended(&feed(), &deposed, &replicas, T);
        assert_eq!(board.all_due(&me, &replicas, T), []);
        assert!(replicas.heard(T, other(true)), "it leaves");
        board.changed();
        assert_eq!(board.all_due(&me, &replicas, T), [(feed(), Duty::Poll)]);
        board.ended(&feed(), &deposed, &replicas, T);
        assert_eq!(board.all_due(&me, &replicas, T), [(feed(), Duty::Poll)], "it had left before that was noticed");
    }

    #[test]
    fn a_record_that_was_made_again_before_its_end_is_known_is_polled() {
        let ((replicas, me), mut board) = (replicas(&["n"]), Board::default());
        board.written(&feed(), 7);
        assert_eq!(board.due(&feed(), &me, &replicas, T), Some(Duty::Poll));
        board.written(&feed(), 10);
        board.ended(&feed(), &Ended::Gone { seq: 9 }, &replicas, T);
        assert_eq!(board.due(&feed(), &me, &replicas, T), Some(Duty::Poll));
        board.ended(&feed(), &Ended::Gone { seq: 11 }, &replicas, T);
        assert_eq!((board.due(&feed(), &me, &replicas, T), board.len()), (None, 0));
    }

    #[test]
    fn nothing_is_done_by_who_is_not_heard_and_what_nobody_knows_is_buried() {
        let mut board = Board::default();
        board.written(&feed(), 7);
        let me = Incarnation::named("me").expect("a name");
        assert_eq!(board.all_due(&me, &Replicas::default(), T), []);
        let (replicas, me) = replicas(&["other"]);
        assert_eq!(board.all_due(&me, &replicas, T), [(feed(), Duty::Bury)]);
    }

    #[test]
    fn there_is_a_most_of_feeds() {
        let mut board = Board::default();
        for n in 0..FEEDS_MAX {
            assert!(board.written(&FeedId::new(&format!("n:{n}")).expect("a feed"), 1));
        }
        assert!(board.is_full());
        assert!(!board.written(&FeedId::new("n:more").expect("a feed"), 1));
        assert!(board.written(&FeedId::new("n:0").expect("a feed"), 2), "a known one");
    }
}
