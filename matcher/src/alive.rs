//! Gateways that are heard and whose table is not here.

use std::collections::BTreeMap;
use std::time::Duration;

use switchboard_contract::alive::Alive;
use switchboard_contract::limits::RESEND_AFTER;
use switchboard_contract::names::Incarnation;

/// Since when each of them is one, or when it was asked for its table. Pure: the time comes in.
#[derive(Debug, Default)]
pub struct Strangers(BTreeMap<Incarnation, Duration>);

impl Strangers {
    /// To be called each [`switchboard_contract::limits::HEARTBEAT`]: the gateways that have been heard for
    /// [`RESEND_AFTER`], and whose table is not here all the same; each again after that time. One was buried while it
    /// lived, or has not heard of this leader.
    pub fn due(&mut self, now: Duration, alive: &Alive, has_table: impl Fn(&Incarnation) -> bool) -> Vec<Incarnation> {
        self.0.retain(|gateway, _| alive.knows(gateway) && !has_table(gateway));
        for gateway in alive.gateways().filter(|gateway| !has_table(gateway)) {
            if !self.0.contains_key(gateway) {
                self.0.insert(gateway.clone(), now);
            }
        }
        let due = self.0.iter_mut().filter(|(_, since)| **since + RESEND_AFTER <= now);
        due.map(|(gateway, since)| {
            *since = now;
            gateway.clone()
        })
        .collect()
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
        let (mut alive, mut strangers) = (Alive::default(), Strangers::default());
        alive.heard(s(0), &a);
        alive.heard(s(0), &b);
        let has_b = |gateway: &Incarnation| *gateway == b;
        assert!(strangers.due(s(0), &alive, has_b).is_empty());
        assert!(strangers.due(s(1), &alive, has_b).is_empty());
        assert_eq!(strangers.due(s(2), &alive, has_b), std::slice::from_ref(&a));
        assert!(strangers.due(s(3), &alive, has_b).is_empty(), "it has just been asked");
        assert_eq!(strangers.due(s(4), &alive, has_b), std::slice::from_ref(&a));
        assert!(strangers.due(s(6), &alive, |_| true).is_empty(), "its table came");
        assert!(strangers.due(s(7), &alive, has_b).is_empty(), "buried just now");
        alive.forget(&a);
        assert!(strangers.due(s(20), &alive, has_b).is_empty(), "not heard any more");
    }
}
