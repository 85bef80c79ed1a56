//! What the killer is told to do, and when. Pure.

use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;

use crate::runfile::Process;

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(in crate::load) enum Kill {
    /// The leading matcher.
    Matcher,
    /// The gateways in turn.
    Gateway,
    /// The history services in turn.
    History,
    /// The NATS servers in turn.
    Nats,
    /// Everything but the runner, at once.
    All,
}

impl Kill {
    /// As on the command line and in the names of run.json.
    pub(in crate::load) fn as_str(self) -> &'static str {
        match self {
            Kill::Matcher => "matcher",
            Kill::Gateway => "gateway",
            Kill::History => "history",
            Kill::Nats => "nats",
            Kill::All => "all",
        }
    }

    /// The processes that it means, by name: in run.json, those of one stage come as they happened to start.
    pub(super) fn of(self, processes: &[Process]) -> Vec<&Process> {
        let of_kind = processes.iter().filter(|process| self == Kill::All || process.kind() == self.as_str());
        let mut of_kind: Vec<&Process> = of_kind.collect();
        of_kind.sort_by(|one, other| one.name.cmp(&other.name));
        of_kind
    }
}

/// When the next kill comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::load) enum Every {
    /// So long after the last one, and never before the victim is up again.
    Fixed(Duration),
    /// At random, between so long and so long after the system serves again.
    Random(Duration, Duration),
}

impl Every {
    /// How long until the next one.
    pub(super) fn draw(self, rng: &mut StdRng) -> Duration {
        match self {
            Every::Fixed(every) => every,
            Every::Random(least, most) => rng.random_range(least..=most),
        }
    }
}

/// Which kind's turn it is: one after the other, and within a kind one process after the other.
#[derive(Debug)]
pub(super) struct Turns {
    kinds: Vec<Kill>,
    turn: usize,
}

impl Turns {
    pub(super) fn new(kinds: &[Kill]) -> Turns {
        Turns { kinds: kinds.to_vec(), turn: 0 }
    }

    /// The next kind, and how often all kinds have had their turn before.
    pub(super) fn advance(&mut self) -> Option<(Kill, usize)> {
        let kind = self.kinds.get(self.turn % self.kinds.len().max(1)).copied()?;
        let round = self.turn / self.kinds.len();
        self.turn += 1;
        Some((kind, round))
    }
}

/// The victims of a kind that has no leader.
pub(super) fn in_turn(kill: Kill, processes: &[Process], round: usize) -> Vec<Process> {
    let of_kind = kill.of(processes);
    match kill {
        Kill::All => of_kind.into_iter().cloned().collect(),
        Kill::Matcher | Kill::Gateway | Kill::History | Kill::Nats => {
            of_kind.get(round % of_kind.len().max(1)).copied().cloned().into_iter().collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;
    use crate::runfile::ProcessId;

    fn processes(names: &[&str]) -> Vec<Process> {
        let id = ProcessId { pid: 1, started: 1 };
        names.iter().map(|name| Process { name: (*name).into(), id, addr: None, admin: None }).collect()
    }

    fn names(victims: &[Process]) -> Vec<&str> {
        victims.iter().map(|process| process.name.as_str()).collect()
    }

    #[test]
    fn the_processes_of_a_kind_come_in_turn_and_all_at_once() {
        let all = processes(&["nats-1", "nats-2", "nats-3", "matcher-1", "history", "gateway-2", "gateway-1"]);
        let of = |kill, round| names(&in_turn(kill, &all, round)).concat();
        assert_eq!([0, 1, 2].map(|round| of(Kill::Gateway, round)), ["gateway-1", "gateway-2", "gateway-1"]);
        assert_eq!([0, 2, 3].map(|round| of(Kill::Nats, round)), ["nats-1", "nats-3", "nats-1"]);
        assert_eq!(of(Kill::History, 7), "history");
        assert_eq!(in_turn(Kill::All, &all, 1).len(), all.len());
        assert!(in_turn(Kill::Nats, &all[3..], 0).is_empty());
    }

    #[test]
    fn kinds_come_in_turn_and_each_has_its_own_rounds() {
        let mut turns = Turns::new(&[Kill::Matcher, Kill::Nats]);
        let seen: Vec<_> = std::iter::from_fn(|| turns.advance()).take(4).collect();
        assert_eq!(seen, [(Kill::Matcher, 0), (Kill::Nats, 0), (Kill::Matcher, 1), (Kill::Nats, 1)]);
        assert_eq!(Turns::new(&[]).advance(), None);
    }

    #[test]
    fn a_seed_repeats_the_times_and_they_keep_to_the_range() {
        let secs = Duration::from_secs;
        let draw = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            [(); 20].map(|()| Every::Random(secs(1), secs(3)).draw(&mut rng))
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!(draw(7).iter().all(|time| (secs(1)..=secs(3)).contains(time)));
        assert_eq!(Every::Fixed(secs(5)).draw(&mut StdRng::seed_from_u64(1)), secs(5));
    }
}
