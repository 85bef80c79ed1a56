//! Which gateways live, as each receiver of their heartbeats judges it: one that is silent while others are heard is
//! dead. History replicas judge each other in the same way. Pure: the time comes in.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::limits::{GATEWAYS_MAX, HEARTBEAT};
use crate::names::Incarnation;

/// When each gateway was heard last: of at most [`GATEWAYS_MAX`].
#[derive(Debug, Default)]
pub struct Alive {
    heard: BTreeMap<Incarnation, Duration>,
    looked_at: Duration,
}

impl Alive {
    /// A gateway was heard; `false` if it is one too many, and stays unknown.
    pub fn heard(&mut self, now: Duration, gateway: &Incarnation) -> bool {
        let full = self.heard.len() >= GATEWAYS_MAX;
        match self.heard.get_mut(gateway) {
            Some(at) => *at = now,
            None if full => return false,
            None => {
                self.heard.insert(gateway.clone(), now);
            }
        }
        true
    }

    /// A gateway is gone.
    pub fn forget(&mut self, gateway: &Incarnation) {
        self.heard.remove(gateway);
    }

    /// The gateways that have been heard and are not gone.
    pub fn gateways(&self) -> impl Iterator<Item = &Incarnation> {
        self.heard.keys()
    }

    /// Whether this one has been heard and is not gone.
    pub fn knows(&self, gateway: &Incarnation) -> bool {
        self.heard.contains_key(gateway)
    }

    /// What was not heard so far says nothing: NATS was away.
    pub fn forgive(&mut self, now: Duration) {
        self.heard.values_mut().for_each(|at| *at = now);
    }

    /// To be called each [`HEARTBEAT`] at least: the gateways that have been silent for `so_long`. If this process
    /// itself was not running for a while, what it has not heard says nothing, and it begins to listen anew.
    pub fn silent(&mut self, now: Duration, so_long: Duration) -> Vec<Incarnation> {
        let paused = now > self.looked_at + 3 * HEARTBEAT;
        self.looked_at = now;
        if paused {
            self.forgive(now);
        }
        self.heard.iter().filter(|(_, at)| **at + so_long <= now).map(|(gateway, _)| gateway.clone()).collect()
    }

    /// Whether any gateway was heard so lately that silence of another is its own.
    pub fn hears(&self, now: Duration) -> bool {
        self.heard.values().any(|at| *at + 2 * HEARTBEAT > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::DEAD_AFTER;

    fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn of_more_gateways_than_are_known_at_most_the_first_are() {
        let mut alive = Alive::default();
        let name = |n: usize| Incarnation::named(&format!("g{n}")).expect("a name");
        assert!((0..GATEWAYS_MAX).all(|n| alive.heard(s(0), &name(n))));
        assert!(!alive.heard(s(1), &name(GATEWAYS_MAX)));
        assert!(!alive.knows(&name(GATEWAYS_MAX)) && alive.heard(s(1), &name(0)));
        alive.forget(&name(7));
        assert!(alive.heard(s(2), &name(GATEWAYS_MAX)));
    }

    #[test]
    fn silence_counts_only_while_this_process_listens() {
        let (a, b) = (Incarnation::named("a").expect("a name"), Incarnation::named("b").expect("a name"));
        let mut alive = Alive::default();
        assert!(alive.silent(s(0), DEAD_AFTER).is_empty());
        alive.heard(s(0), &a);
        alive.heard(s(0), &b);
        for now in 1..5 {
            alive.heard(s(now), &b);
            assert!(alive.silent(s(now), DEAD_AFTER).is_empty());
        }
        assert_eq!(alive.silent(s(5), DEAD_AFTER), std::slice::from_ref(&a));
        assert!(alive.hears(s(5)));
        alive.forget(&a);
        assert!(alive.silent(s(20), DEAD_AFTER).is_empty(), "paused: forgiven");
        assert!(alive.silent(s(22), DEAD_AFTER).is_empty());
        assert!(alive.silent(s(24), DEAD_AFTER).is_empty());
        assert_eq!(alive.silent(s(26), DEAD_AFTER), [b]);
        assert!(!alive.hears(s(26)));
    }
}
