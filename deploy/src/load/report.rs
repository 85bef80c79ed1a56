//! What a run found, as a table and as JSON.

use serde::Serialize;

use super::churn::Traces;
use super::measure::{Cost, Costs};
use super::siege::{SiegeReport, StrikesReport};
use super::world::Times;

/// What a run of the lobby found.
#[derive(Debug, Serialize)]
pub(super) struct LobbyReport {
    pub(super) command: &'static str,
    pub(super) vsn: u8,
    pub(super) students: u32,
    pub(super) teachers: u32,
    pub(super) messages_each_way: u32,
    /// Students that were served: talked, and left.
    pub(super) served: u32,
    pub(super) chats: u32,
    /// Messages that arrived.
    pub(super) messages: u64,
    pub(super) claims: u64,
    /// Until all were connected and waited.
    pub(super) connect_seconds: f64,
    /// From the first claim to the last status.
    pub(super) serve_seconds: f64,
    /// From saying a message to the other side's hearing it.
    pub(super) message_ms: Times,
    /// From saying a message to its `ok`.
    pub(super) ack_ms: Times,
    /// Of a run with kills.
    #[serde(flatten)]
    pub(super) siege: Option<SiegeReport>,
    #[serde(flatten)]
    pub(super) costs: Costs,
    /// The first broken rule.
    pub(super) violation: Option<String>,
    /// The run was ended before its time.
    pub(super) interrupted: bool,
}

/// What idle sockets cost.
#[derive(Debug, Serialize)]
pub(super) struct IdleReport {
    pub(super) command: &'static str,
    pub(super) vsn: u8,
    pub(super) sockets: u32,
    pub(super) connect_seconds: f64,
    /// Resident memory that the gateways have more than before.
    pub(super) gateway_bytes_per_socket: f64,
    /// Resident memory that all processes have more than before.
    pub(super) bytes_per_socket: f64,
    #[serde(flatten)]
    pub(super) costs: Costs,
    pub(super) interrupted: bool,
}

/// What a room of many costs.
#[derive(Debug, Serialize)]
pub(super) struct FanoutReport {
    pub(super) command: &'static str,
    pub(super) vsn: u8,
    pub(super) members: u32,
    /// How many of them speak.
    pub(super) senders: u32,
    /// How many gateways the members are on.
    pub(super) gateways: usize,
    /// So many messages were said in the same moment,
    pub(super) burst: u32,
    /// and so many such moments were meant a second.
    pub(super) rate: f64,
    /// Messages meant.
    pub(super) messages: u32,
    /// Messages that members heard.
    pub(super) deliveries: u64,
    /// Messages that had to be said again later.
    pub(super) rate_limited: u32,
    /// Until all had joined and presence was quiet; not measured.
    pub(super) join_seconds: f64,
    pub(super) talk_seconds: f64,
    /// CPU time of all gateways by all deliveries. Microseconds.
    pub(super) gateway_us_per_delivery: f64,
    /// The same of all processes.
    pub(super) us_per_delivery: f64,
    /// From saying a message to a member's hearing it; one delivery in 16 is timed.
    pub(super) delivery_ms: Times,
    /// From saying a message to its `ok`.
    pub(super) ack_ms: Times,
    #[serde(flatten)]
    pub(super) costs: Costs,
    /// The first broken rule.
    pub(super) violation: Option<String>,
    /// The run was ended before its time.
    pub(super) interrupted: bool,
}

/// What rooms that are gone have left behind.
#[derive(Debug, Serialize)]
pub(super) struct ChurnReport {
    pub(super) command: &'static str,
    pub(super) vsn: u8,
    pub(super) per_minute: u32,
    /// What was held before the first round.
    pub(super) before: Traces,
    pub(super) rounds: Vec<Round>,
    #[serde(flatten)]
    pub(super) costs: Costs,
    /// The first broken rule.
    pub(super) violation: Option<String>,
    /// The run was ended before its time.
    pub(super) interrupted: bool,
}

/// One round of it.
#[derive(Debug, Serialize)]
pub(super) struct Round {
    /// Rooms that were born and left.
    pub(super) rooms: u64,
    pub(super) seconds: f64,
    /// From the last room's end until all was as before, or was waited for in vain.
    pub(super) settle_seconds: f64,
    /// What was held then.
    pub(super) traces: Traces,
    /// What each process held then.
    pub(super) memory: Vec<Cost>,
}

impl ChurnReport {
    /// Says it.
    pub(super) fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        line("before", self.before);
        for (n, round) in (1..).zip(&self.rounds) {
            let Round { rooms, seconds, settle_seconds, traces, memory } = round;
            line(&format!("round {n}"), format_args!("{rooms} rooms in {seconds:.1} s; {settle_seconds:.0} s later:"));
            line("", traces);
            let rss: Vec<String> =
                memory.iter().map(|cost| format!("{} {:.1}", cost.name, mib(cost.rss_bytes))).collect();
            line("  RSS MiB", rss.join("  "));
        }
        print_costs(&self.costs);
        print_end(self.violation.as_deref(), self.interrupted);
        Ok(())
    }
}

impl FanoutReport {
    /// Says it.
    pub(super) fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        line("members", format_args!("{} on {} gateways, {} of them speak", self.members, self.gateways, self.senders));
        let (burst, rate, again) = (self.burst, self.rate, self.rate_limited);
        line("messages", format_args!("{}, {burst} at once, {rate} times a second; {again} said again", self.messages));
        line("deliveries", self.deliveries);
        line("seconds", format_args!("{:.1} to join, {:.1} to talk", self.join_seconds, self.talk_seconds));
        line("delivery ms", times(self.delivery_ms));
        line("ack ms", times(self.ack_ms));
        let (gateways, all) = (self.gateway_us_per_delivery, self.us_per_delivery);
        line("CPU", format_args!("{gateways:.2} us of gateways per delivery, {all:.2} us of all processes"));
        print_costs(&self.costs);
        print_end(self.violation.as_deref(), self.interrupted);
        Ok(())
    }
}

impl LobbyReport {
    /// Says it.
    pub(super) fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        if self.students > 0 {
            line("served", format_args!("{} of {} students, {} chats", self.served, self.students, self.chats));
            line("messages", format_args!("{} of {}", self.messages, self.messages_meant()));
            line("seconds", format_args!("{:.1} to connect, {:.1} to serve", self.connect_seconds, self.serve_seconds));
            line("message ms", times(self.message_ms));
            line("ack ms", times(self.ack_ms));
        }
        line("claims", format_args!("{} of {} teachers", self.claims, self.teachers));
        if let Some(siege) = &self.siege {
            print_siege(siege);
        }
        print_costs(&self.costs);
        print_end(self.violation.as_deref(), self.interrupted);
        Ok(())
    }

    fn messages_meant(&self) -> u64 {
        2 * u64::from(self.students) * u64::from(self.messages_each_way)
    }
}

impl IdleReport {
    /// Says it.
    pub(super) fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        line("sockets", format_args!("{} in {:.1} s", self.sockets, self.connect_seconds));
        line("gateways", format_args!("{:.0} bytes of RSS per socket", self.gateway_bytes_per_socket));
        line("all", format_args!("{:.0} bytes of RSS per socket", self.bytes_per_socket));
        print_costs(&self.costs);
        if self.interrupted {
            println!("interrupted: the figures are of a part of the run");
        }
        Ok(())
    }
}

/// A line of the table.
pub(super) fn line(what: &str, value: impl std::fmt::Display) {
    println!("{what:<12} {value}");
}

fn mib(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) / 1024.0
}

/// A distribution of times, in words.
pub(super) fn times(times: Times) -> String {
    format!("p50 {:.2}  p99 {:.2}  max {:.2}", times.p50, times.p99, times.max)
}

/// Whether a rule was broken, and whether the run went to its end.
pub(super) fn print_end(violation: Option<&str>, interrupted: bool) {
    if interrupted {
        println!("interrupted: the figures are of a part of the run");
    }
    match violation {
        Some(violation) => println!("\nVIOLATION: {violation}"),
        None if !interrupted => println!("\nno violation"),
        None => println!("\nno violation so far"),
    }
}

fn print_siege(siege: &SiegeReport) {
    let SiegeReport { reconnects, pushes_repeated, unavailable, gaps, strikes, .. } = siege;
    line(
        "coming back",
        format_args!(
            "{reconnects} reconnects, {pushes_repeated} pushes repeated, {unavailable} unavailable, {gaps} gaps shown"
        ),
    );
    if let Some(strikes) = strikes {
        print_strikes(strikes);
    }
}

/// How long clients waited after each kind of kill, and what matchers had to do.
pub(super) fn print_strikes(strikes: &StrikesReport) {
    line("kills", strikes.kills);
    line("back at once", format_args!("{} sockets in one second at most", strikes.reconnects_per_second_most));
    for kind in &strikes.kinds {
        let (median, worst) = (kind.takeover_median_seconds, kind.takeover_worst_seconds);
        let (what, seen, of) = (kind.kind.as_str(), kind.takeovers, kind.kills);
        line(
            what,
            format_args!("take-over s: median {median:.2}  worst {worst:.2}  (seen after {seen} of {of} kills)"),
        );
    }
    line(
        "matchers",
        format_args!("{} epochs begun, {} late writes refused", strikes.epochs, strikes.late_writes_refused),
    );
}

/// What each process has cost.
pub(super) fn print_costs(costs: &Costs) {
    println!("\n{:<16}{:>10}{:>8}{:>12}{:>12}", "process", "CPU s", "% core", "RSS MiB", "peak MiB");
    let percent = |cpu: f64| 100.0 * cpu / costs.seconds.max(f64::MIN_POSITIVE);
    for cost in &costs.processes {
        let (name, cpu) = (&cost.name, cost.cpu_seconds);
        let (rss, peak) = (mib(cost.rss_bytes), mib(cost.peak_rss_bytes));
        println!("{name:<16}{cpu:>10.2}{:>8.1}{rss:>12.1}{peak:>12.1}", percent(cpu));
    }
    for (name, dead) in &costs.dead {
        let (died, cpu) = (dead.died, dead.cpu_seconds);
        println!("{name:<16}{cpu:>10.2}{:>8.1}   {died} that died, up to 0.1 s before", percent(cpu));
    }
    println!("{:<16}{:>10.2}{:>8.1}", "sum", costs.cpu_seconds, percent(costs.cpu_seconds));
    println!("{:<16}{:>10.2}{:>8.1}", "(load itself)", costs.load_cpu_seconds, percent(costs.load_cpu_seconds));
}
