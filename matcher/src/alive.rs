//! Which gateways live: each is heard from time to time, and one that is silent while others are heard is dead.

use std::collections::BTreeMap;
use std::time::Duration;

use switchboard_contract::limits::{DEAD_AFTER, HEARTBEAT, RESEND_AFTER};
use switchboard_contract::names::Incarnation;

/// When each gateway was heard last. Pure: the time comes in.
#[derive(Debug, Default)]
pub struct Alive {
    heard: BTreeMap<Incarnation, Duration>,
    /// Those that are heard and whose table is not here: since when, or when they were asked for it.
    strangers: BTreeMap<Incarnation, Duration>,
    looked_at: Duration,
}

impl Alive {
    /// A gateway was heard.
    pub fn heard(&mut self, now: Duration, gateway: &Incarnation) {
        match self.heard.get_mut(gateway) {
            Some(at) => *at = now,
            None => {
                self.heard.insert(gateway.clone(), now);
            }
        }
    }

    /// A gateway is gone.
    pub fn forget(&mut self, gateway: &Incarnation) {
        self.heard.remove(gateway);
        self.strangers.remove(gateway);
    }

    /// To be called each [`HEARTBEAT`]: the gateways that have been heard for [`RESEND_AFTER`], and whose table is not
    /// here all the same; each again after that time. One was buried while it lived, or has not heard of this leader.
    pub fn strangers(&mut self, now: Duration, has_table: impl Fn(&Incarnation) -> bool) -> Vec<Incarnation> {
        self.strangers.retain(|gateway, _| !has_table(gateway));
        for gateway in self.heard.keys().filter(|gateway| !has_table(gateway)) {
            if !self.strangers.contains_key(gateway) {
                self.strangers.insert(gateway.clone(), now);
            }
        }
        let due = self.strangers.iter_mut().filter(|(_, since)| **since + RESEND_AFTER <= now);
        due.map(|(gateway, since)| {
            *since = now;
            gateway.clone()
        })
        .collect()
    }

    /// What was not heard so far says nothing: NATS was away.
    pub fn forgive(&mut self, now: Duration) {
        self.heard.values_mut().for_each(|at| *at = now);
    }

    /// To be called each [`HEARTBEAT`]: the gateways that have been silent for [`DEAD_AFTER`]. If this process itself
    /// was not running for a while, what it has not heard says nothing, and it begins to listen anew.
    pub fn silent(&mut self, now: Duration) -> Vec<Incarnation> {
        let paused = now > self.looked_at + 3 * HEARTBEAT;
        self.looked_at = now;
        if paused {
            self.forgive(now);
        }
        self.heard.iter().filter(|(_, at)| **at + DEAD_AFTER <= now).map(|(gateway, _)| gateway.clone()).collect()
    }

    /// Whether any gateway was heard so lately that silence of another is its own.
    pub fn hears(&self, now: Duration) -> bool {
        self.heard.values().any(|at| *at + 2 * HEARTBEAT > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn a_gateway_without_a_table_is_asked_for_it_as_long_as_it_is_heard() {
        let (a, b) = (Incarnation::named("a").expect("a name"), Incarnation::named("b").expect("a name"));
        let mut alive = Alive::default();
        alive.heard(s(0), &a);
        alive.heard(s(0), &b);
        let has_b = |gateway: &Incarnation| *gateway == b;
        assert!(alive.strangers(s(0), has_b).is_empty());
        assert!(alive.strangers(s(1), has_b).is_empty());
        assert_eq!(alive.strangers(s(2), has_b), std::slice::from_ref(&a));
        assert!(alive.strangers(s(3), has_b).is_empty(), "it has just been asked");
        assert_eq!(alive.strangers(s(4), has_b), std::slice::from_ref(&a));
        assert!(alive.strangers(s(6), |_| true).is_empty(), "its table came");
        assert!(alive.strangers(s(7), has_b).is_empty(), "buried just now");
        alive.forget(&a);
        assert!(alive.strangers(s(20), has_b).is_empty(), "not heard any more");
    }

    #[test]
    fn silence_counts_only_while_this_process_listens() {
        let (a, b) = (Incarnation::named("a").expect("a name"), Incarnation::named("b").expect("a name"));
        let mut alive = Alive::default();
        assert!(alive.silent(s(0)).is_empty());
        alive.heard(s(0), &a);
        alive.heard(s(0), &b);
        for now in 1..5 {
            alive.heard(s(now), &b);
            assert!(alive.silent(s(now)).is_empty());
        }
        assert_eq!(alive.silent(s(5)), std::slice::from_ref(&a));
        assert!(alive.hears(s(5)));
        alive.forget(&a);
        assert!(alive.silent(s(20)).is_empty(), "paused: forgiven");
        assert!(alive.silent(s(22)).is_empty());
        assert!(alive.silent(s(24)).is_empty());
        assert_eq!(alive.silent(s(26)), [b]);
        assert!(!alive.hears(s(26)));
    }
}
