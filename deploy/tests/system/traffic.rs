//! Chats, rooms and feeds at once while a test breaks something: a `load soak` of its own process, which judges all that
//! its users see.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::sleep;

use crate::crowd;
use crate::feed_member::WITH_FEEDS;
use crate::harness::{Shape, System};
use crate::support::Running;

/// Longer than anything is taken for dead, or for away.
pub(crate) const LONG: Duration = Duration::from_secs(8);
/// Longer than any test; it ends the traffic itself. Seconds.
const FOR_EVER: &str = "604800";
/// There is traffic within this time, also after leaders were elected.
const WITHIN: Duration = Duration::from_secs(45);
/// Small enough for a few such systems at once.
const USERS: &str = "--students 12 --teachers 4 --capacity 3 --messages 6 --pace 250 --rooms 3 --passing 2 --members 4 \
                     --room-pace 250 --feed-members 8 --churn 0";

/// Two of each service, with what traffic needs.
pub(crate) const SYSTEM: Shape<'_> = Shape {
    gateways: 2,
    matchers: 2,
    histories: 2,
    nats_servers: 1,
    links: false,
    gateway: &crowd::FLAGS,
    // What a chat leaves behind is gone soon enough to be waited for.
    matcher: &["--chat-linger-ms", "2000"],
    history: &WITH_FEEDS,
    environment: &[],
};

/// The traffic.
pub(crate) struct Traffic {
    load: Running,
    /// How often it was said that all flows.
    flows: usize,
}

impl Traffic {
    /// Waits until there is traffic of all kinds. `breaks`: what will break, as `load soak --broken` names it.
    pub(crate) async fn on(system: &System, breaks: &str) -> Traffic {
        let mut load = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        load.args(["load", "soak", "--seconds", FOR_EVER, "--broken", breaks, "--json", "--folder", "/nonexistent"]);
        load.args(USERS.split_whitespace());
        for gateway in 0..system.gateways.len() {
            load.args(["--gateway", &system.gateway(gateway)]);
        }
        let mut traffic = Traffic { load: Running::of(load), flows: 0 };
        traffic.flows().await;
        traffic
    }

    async fn flows(&mut self) {
        self.flows += 1;
        self.says("all flow", self.flows).await;
    }

    /// Waits until so many lines hold this text.
    async fn says(&self, text: &str, times: usize) {
        let start = Instant::now();
        loop {
            let lines = self.load.lines();
            if lines.iter().filter(|line| line.contains(text)).count() >= times {
                return;
            }
            let waits = self.load.id.is_alive() && start.elapsed() < WITHIN;
            assert!(waits, "after {} ms not: {text}\n{}", start.elapsed().as_millis(), lines.join("\n"));
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Something breaks from now on.
    pub(crate) async fn breaks(&self) {
        self.load.id.signal(Signal::USR2);
        self.says("broken from outside", self.flows).await;
    }

    /// All that was broken is there again; waits until NATS takes what is written, and then until there is traffic of
    /// all kinds again.
    pub(crate) async fn mended(&mut self, system: &System) {
        system.streams_have_leaders().await;
        let start = Instant::now();
        self.load.id.signal(Signal::USR2);
        self.flows().await;
        eprintln!("all flows {} ms after it was mended", start.elapsed().as_millis());
    }

    /// Ends it. Nobody has seen anything that cannot be, and what NATS holds then is what they were told.
    pub(crate) async fn verdict(self, system: &System) -> Seen {
        self.load.id.signal(Signal::USR1);
        let (status, said) = self.load.end().await;
        let report = said.lines().find(|line| line.starts_with('{')).unwrap_or_default();
        let report: Value = serde_json::from_str(report).unwrap_or_default();
        assert_eq!(status.code(), Some(0), "{said}");
        said.lines().filter(|line| line.contains("unavailable: ")).for_each(|line| eprintln!("{line}"));
        let seen = Seen(report);
        system.holds(&seen).await;
        seen
    }
}

/// What users saw.
pub(crate) struct Seen(Value);

impl Seen {
    /// A count of the report.
    pub(crate) fn count(&self, kind: &str, what: &str) -> u64 {
        self.sum(&[(kind, what)])
    }

    fn sum(&self, of: &[(&str, &str)]) -> u64 {
        let each = of.iter().map(|(kind, what)| {
            self.0[kind][what].as_u64().unwrap_or_else(|| panic!("no {what} of {kind} in {}", self.0))
        });
        each.sum()
    }

    /// Sockets that were opened again.
    pub(crate) fn reconnects(&self) -> u64 {
        self.sum(&[("lobby", "reconnects"), ("rooms", "reconnects"), ("feeds", "reconnects")])
    }

    /// Pushes that were refused with `unavailable`, and gaps that were shown.
    pub(crate) fn refused(&self) -> u64 {
        self.sum(&[("lobby", "unavailable"), ("rooms", "unavailable"), ("lobby", "gaps"), ("rooms", "gaps")])
    }

    /// How often a feed was stale for somebody.
    pub(crate) fn stale(&self) -> u64 {
        self.sum(&[("feeds", "stale")])
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let each = |what| format!("{} in lobby, {} in rooms", self.count("lobby", what), self.count("rooms", what));
        let (opened, refused, gaps) = (each("reconnects"), each("unavailable"), each("gaps"));
        let (feeds, stale, lost) = (self.count("feeds", "reconnects"), self.stale(), &self.0["feeds"]["lost"]);
        write!(f, "sockets opened again: {opened}, {feeds} in feeds ({lost}); ")?;
        write!(f, "unavailable: {refused}; gaps: {gaps}; stale: {stale}")
    }
}
