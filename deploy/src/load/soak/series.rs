//! What is sampled, how it is called, and how much of it there may be more in the end. Pure, with bounded memory.

use std::collections::BTreeMap;

use super::growth::{Bound, Point};

/// Points of a series that are kept; when there are more, every other one is dropped, and fewer are taken.
const POINTS_MAX: usize = 2_000;

/// What is sampled: a panel of the chart, with a line for each process, stream or state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Panel {
    Memory,
    Cpu,
    Files,
    Sockets,
    Connections,
    Topics,
    Presence,
    LobbyRows,
    FeedMembers,
    Users,
    Roster,
    Feeds,
    Logs,
    LogBytes,
    NatsConnections,
    NatsPending,
    Subscriptions,
    Consumers,
    Messages,
    Bytes,
}

/// What a panel shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct About {
    pub(super) title: &'static str,
    /// Of its values, if they are no plain counts.
    pub(super) unit: &'static str,
    pub(super) bound: Option<Bound>,
    /// It is kept for a while, and so grows until the first of it is forgotten.
    pub(super) is_kept: bool,
}

impl Panel {
    pub(super) fn about(self) -> About {
        let counted = |title, more| About { title, unit: "", bound: Some(Bound { part: 0.05, more }), is_kept: false };
        // What depends on who happens to be in a chat, and where.
        let noisy = |title, more| About { bound: Some(Bound { part: 0.1, more }), ..counted(title, more) };
        match self {
            Panel::Memory => {
                let bound = Some(Bound { part: 0.1, more: 2.0 });
                About { title: "resident memory", unit: "MiB", bound, is_kept: false }
            }
            Panel::Cpu => About { title: "CPU", unit: "% of a core", bound: None, is_kept: false },
            Panel::Files => counted("open files", 10.0),
            Panel::Sockets => counted("sockets, but for clients'", 10.0),
            Panel::Connections => counted("gateways: connections", 10.0),
            Panel::Topics => noisy("gateways: chats and rooms", 20.0),
            Panel::Presence => counted("gateways: rooms with presence", 10.0),
            Panel::LobbyRows => noisy("gateways: rows of the lobby", 20.0),
            Panel::FeedMembers => counted("gateways: members of feeds", 5.0),
            Panel::Users => noisy("gateways: users of whom something counts", 30.0),
            Panel::Roster => counted("lobby", 10.0),
            Panel::Feeds => counted("history: feeds known, and owned", 2.0),
            Panel::Logs => About { is_kept: true, ..noisy("history: logs kept", 30.0) },
            Panel::LogBytes => {
                let bound = Some(Bound { part: 0.1, more: 0.5 });
                About { title: "history: memory of logs", unit: "MiB", bound, is_kept: true }
            }
            Panel::NatsConnections => counted("NATS: connections", 2.0),
            Panel::NatsPending => {
                let bound = Some(Bound { part: 0.1, more: 64.0 });
                About { title: "NATS: bytes that wait for clients", unit: "KiB", bound, is_kept: false }
            }
            Panel::Subscriptions => counted("NATS: subscriptions", 20.0),
            Panel::Consumers => counted("NATS: consumers", 5.0),
            Panel::Messages => About { is_kept: true, ..noisy("streams: messages", 100.0) },
            Panel::Bytes => {
                let bound = Some(Bound { part: 0.1, more: 0.25 });
                About { title: "streams: bytes", unit: "MiB", bound, is_kept: true }
            }
        }
    }

    /// Whether its lines are the gateways', of what users bring with them.
    pub(super) fn is_shared(self) -> bool {
        matches!(
            self,
            Panel::Connections | Panel::Topics | Panel::Presence | Panel::LobbyRows | Panel::FeedMembers | Panel::Users
        )
    }

    /// Of one of its lines. Users move from gateway to gateway, so those are judged together, and without the files that
    /// are users' sockets. NATS keeps buffers and caches as its garbage collector likes; and of a load that judges all
    /// the time, only a leak is looked for.
    pub(super) fn bound(self, line: &str) -> Option<Bound> {
        let bound = self.about().bound?;
        let by_users = matches!(self, Panel::Files | Panel::Sockets) && line == OWN
            || self == Panel::Files && line.starts_with("gateway");
        if by_users || self.is_shared() && line != TOGETHER {
            return None;
        }
        let loose = self == Panel::Memory && (line.starts_with("nats") || line == OWN);
        Some(if loose { Bound { part: 0.25, more: 16.0 } } else { bound })
    }
}

/// The sum of all gateways' lines.
pub(super) const TOGETHER: &str = "together";
/// The line of the load itself.
pub(super) const OWN: &str = "(load itself)";

/// All series of a run, in the order of panels and lines.
#[derive(Debug, Default)]
pub(super) struct Samples {
    series: BTreeMap<(Panel, String), Vec<Point>>,
    /// One look in so many is kept, as a power of two.
    thinned: u32,
    looks: u64,
}

impl Samples {
    /// Whether the next look is to be kept.
    pub(super) fn is_due(&mut self) -> bool {
        self.looks += 1;
        self.looks.is_multiple_of(1 << self.thinned.min(63))
    }

    /// Adds what was seen at this time, in seconds since the run began.
    pub(super) fn add(&mut self, at: f64, seen: Vec<(Panel, String, f64)>) {
        for (panel, line, value) in seen {
            self.series.entry((panel, line)).or_default().push((at, value));
        }
        if self.series.values().any(|points| points.len() > POINTS_MAX) {
            self.thinned += 1;
            for points in self.series.values_mut() {
                let mut keep = false;
                points.retain(|_| {
                    keep = !keep;
                    keep
                });
            }
        }
    }

    /// Panel, line, points.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Panel, &str, &[Point])> {
        self.series.iter().map(|((panel, line), points)| (*panel, &**line, &**points))
    }

    /// The lines of each panel.
    pub(super) fn panels(&self) -> BTreeMap<Panel, Vec<(&str, &[Point])>> {
        let mut panels: BTreeMap<Panel, Vec<(&str, &[Point])>> = BTreeMap::new();
        for (panel, line, points) in self.iter() {
            panels.entry(panel).or_default().push((line, points));
        }
        panels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_long_a_run_is_it_keeps_a_bounded_number_of_points_over_all_of_it() {
        let mut samples = Samples::default();
        for n in 0..100_000_u32 {
            if samples.is_due() {
                samples.add(f64::from(n), vec![(Panel::Memory, "nats".into(), 1.0)]);
            }
        }
        let (_, line, points) = samples.iter().next().expect("a series");
        assert!(line == "nats" && (POINTS_MAX / 2 - 1..=POINTS_MAX).contains(&points.len()), "{}", points.len());
        let (first, last) = (points[0].0, points[points.len() - 1].0);
        assert!(first < 200.0 && last > 99_800.0, "{first} {last}");
        let gaps: Vec<f64> = points.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        let longest = gaps.iter().copied().fold(0.0, f64::max);
        assert!(longest <= 128.0, "{longest}");
    }
}
