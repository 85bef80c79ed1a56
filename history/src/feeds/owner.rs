//! Who polls a feed: rendezvous hashing among the replicas that live and know the feed. Each replica computes it for
//! itself; where two disagree for a moment, the record's compare and set decides.
//!
//! The hash is XXH3, the same in all versions of this program: else replicas of two versions would take each other's
//! feeds for as long as both run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use switchboard_contract::alive::Alive;
use switchboard_contract::feed::HistoryBeat;
use switchboard_contract::limits::{FEED_DEAD_AFTER, HISTORY_REPLICAS_MAX};
use switchboard_contract::names::{FeedId, Incarnation};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::metrics;

/// The replicas that live, as their heartbeats say.
#[derive(Debug, Default)]
pub struct Replicas {
    alive: Alive,
    known: BTreeMap<Incarnation, Known>,
}

#[derive(Debug)]
struct Known {
    seed: u64,
    feeds: BTreeSet<Box<str>>,
}

impl Replicas {
    /// A heartbeat has come; `true` if owners may be others now.
    pub fn heard(&mut self, now: Duration, beat: HistoryBeat) -> bool {
        if beat.leaving {
            self.alive.forget(&beat.replica);
            return self.known.remove(&beat.replica).is_some();
        }
        let feeds: BTreeSet<Box<str>> = beat.feeds.into_iter().collect();
        let full = self.known.len() >= HISTORY_REPLICAS_MAX;
        match self.known.get_mut(&beat.replica) {
            Some(known) => {
                self.alive.heard(now, &beat.replica);
                let changed = known.feeds != feeds;
                known.feeds = feeds;
                changed
            }
            None if full => {
                metrics::full("replicas");
                false
            }
            None => {
                self.alive.heard(now, &beat.replica);
                let seed = xxh3_64(beat.replica.as_str().as_bytes());
                self.known.insert(beat.replica, Known { seed, feeds });
                true
            }
        }
    }

    /// To be called each 250 ms or so: forgets who has been silent while others were heard; `true` if somebody was.
    pub fn look(&mut self, now: Duration) -> bool {
        let silent = self.alive.silent(now, FEED_DEAD_AFTER);
        if silent.is_empty() || !self.alive.hears(now) {
            return false;
        }
        for replica in &silent {
            self.alive.forget(replica);
            self.known.remove(replica);
        }
        true
    }

    /// What was not heard so far says nothing: NATS was away.
    pub fn forgive(&mut self, now: Duration) {
        self.alive.forgive(now);
    }

    /// Those that live, by name.
    pub fn names(&self) -> impl Iterator<Item = &Incarnation> {
        self.known.keys()
    }

    /// Whether this one lives.
    pub fn knows(&self, replica: &Incarnation) -> bool {
        self.known.contains_key(replica)
    }

    /// Who is to poll this feed; `None`: nobody who lives knows it.
    pub fn winner(&self, feed: &FeedId) -> Option<&Incarnation> {
        self.knowing(feed).max_by_key(|(_, known)| weight(feed, known.seed)).map(|(replica, _)| replica)
    }

    /// All who live and know the feed's name; not each of them may take its argument.
    pub fn able(&self, feed: &FeedId) -> impl Iterator<Item = &Incarnation> {
        self.knowing(feed).map(|(replica, _)| replica)
    }

    fn knowing(&self, feed: &FeedId) -> impl Iterator<Item = (&Incarnation, &Known)> {
        self.known.iter().filter(|(_, known)| known.feeds.contains(feed.name()))
    }

    /// Who is to delete the record of a feed that nobody knows any more, as after a change of the configuration.
    pub fn undertaker(&self, feed: &FeedId) -> Option<&Incarnation> {
        match self.winner(feed) {
            Some(_) => None,
            None => self.known.iter().max_by_key(|(_, known)| weight(feed, known.seed)).map(|(replica, _)| replica),
        }
    }
}

fn weight(feed: &FeedId, seed: u64) -> u64 {
    xxh3_64_with_seed(feed.as_str().as_bytes(), seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchboard_contract::wire::V1;

    fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn name(name: &str) -> Incarnation {
        Incarnation::named(name).expect("a name")
    }

    fn beat(replica: &str, feeds: &[&str]) -> HistoryBeat {
        let feeds = feeds.iter().map(|&feed| feed.into()).collect();
        HistoryBeat { v: V1, replica: name(replica), feeds, leaving: false }
    }

    fn feeds() -> Vec<FeedId> {
        (0..1_000).map(|n| FeedId::new(&format!("n:{n}")).expect("a feed")).collect()
    }

    #[test]
    fn a_thousand_feeds_are_spread_over_three_and_only_those_of_who_is_gone_move() {
        let mut replicas = Replicas::default();
        for replica in ["host-a1b2c3", "host-d4e5f6", "host-0g7h8i"] {
            assert!(replicas.heard(s(0), beat(replica, &["n"])));
        }
        let before: Vec<Incarnation> = feeds().iter().map(|f| replicas.winner(f).expect("one").clone()).collect();
        for replica in ["host-a1b2c3", "host-d4e5f6", "host-0g7h8i"] {
            let count = before.iter().filter(|owner| **owner == name(replica)).count();
            assert!((267..=400).contains(&count), "{replica}: {count}");
        }
        assert!(replicas.heard(s(1), HistoryBeat { leaving: true, ..beat("host-d4e5f6", &["n"]) }));
        for (feed, before) in feeds().iter().zip(&before) {
            let now = replicas.winner(feed).expect("one");
            assert!(now == before || *before == name("host-d4e5f6"), "{feed}");
        }
    }

    #[test]
    fn the_hash_is_the_same_in_all_versions() {
        let feed = FeedId::new("news:a").expect("a feed");
        assert_eq!(weight(&feed, xxh3_64(b"host-a1b2c3")), 9_009_853_631_421_942_579);
    }

    #[test]
    fn only_who_knows_a_feed_polls_it_and_what_nobody_knows_has_an_undertaker() {
        let mut replicas = Replicas::default();
        replicas.heard(s(0), beat("a", &["old"]));
        replicas.heard(s(0), beat("b", &["old", "new"]));
        for argument in 0..50 {
            let feed = |name: &str| FeedId::new(&format!("{name}:{argument}")).expect("a feed");
            assert_eq!(replicas.winner(&feed("new")), Some(&name("b")));
            assert_eq!(replicas.undertaker(&feed("new")), None);
            assert_eq!(replicas.winner(&feed("none")), None);
            assert!(replicas.undertaker(&feed("none")).is_some());
        }
        assert!(!replicas.heard(s(1), beat("a", &["old"])), "nothing new");
        assert!(replicas.heard(s(1), beat("a", &["old", "new"])), "configured anew");
    }

    #[test]
    fn who_is_silent_for_four_seconds_is_gone_unless_nobody_is_heard() {
        let mut replicas = Replicas::default();
        replicas.heard(s(0), beat("a", &[]));
        replicas.heard(s(0), beat("b", &[]));
        for now in 1..4 {
            replicas.heard(s(now), beat("b", &[]));
            assert!(!replicas.look(s(now)));
        }
        assert!(replicas.look(s(4)));
        assert!(!replicas.knows(&name("a")) && replicas.knows(&name("b")));
        for now in 6..20 {
            assert!(!replicas.look(s(now)), "NATS carries nothing");
        }
        assert!(replicas.knows(&name("b")));
    }
}
