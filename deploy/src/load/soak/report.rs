//! What a soak found: verdicts, a table of what was sampled, and the chart.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use switchboard_contract::process::EXIT_FAILURE;

use super::super::EXIT_VIOLATION;
use super::super::measure::Costs;
use super::super::report::{line, print_costs, print_strikes, times};
use super::super::rooms::Tally as RoomsTally;
use super::super::siege::{Kill, SiegeReport};
use super::super::world::Times;
use super::feeds::Tally as FeedsTally;
use super::growth::{Trend, trend};
use super::{JUDGED_FROM, Local, Run, SoakArgs, Verdicts, chart};

/// What a soak found.
#[derive(Debug, Serialize)]
pub(super) struct SoakReport {
    command: &'static str,
    seed: u64,
    /// How long there was traffic.
    seconds: f64,
    /// How much of it was warm-up.
    warm_up_seconds: f64,
    lobby: LobbySeen,
    rooms: RoomsSeen,
    feeds: FeedsTally,
    series: Vec<Line>,
    chart: Option<PathBuf>,
    #[serde(flatten)]
    costs: Costs,
    verdicts: Verdicts,
    /// The run was ended before its time.
    interrupted: bool,
    #[serde(skip)]
    svg: String,
}

#[derive(Debug, Serialize)]
struct LobbySeen {
    /// Students that came, and of them those that have left.
    students: u32,
    done: u32,
    chats: u32,
    messages: u64,
    claims: u64,
    message_ms: Times,
    ack_ms: Times,
    #[serde(flatten)]
    siege: SiegeReport,
}

#[derive(Debug, Serialize)]
struct RoomsSeen {
    /// Rooms that were born.
    born: u64,
    #[serde(flatten)]
    tally: RoomsTally,
    message_ms: Times,
    ack_ms: Times,
}

/// A series.
#[derive(Debug, Serialize)]
struct Line {
    what: &'static str,
    line: String,
    unit: &'static str,
    #[serde(flatten)]
    trend: Trend,
}

impl SoakReport {
    /// Of a run.
    ///
    /// # Errors
    /// If the processes cannot be looked at.
    pub(super) fn of(run: Run<'_>, seed: u64, interrupted: bool) -> anyhow::Result<SoakReport> {
        let time = run.ended.map_or_else(|| run.began.elapsed(), |ended| ended - run.began);
        let (lobby, rooms, counted) = (run.lobby.tally(), run.rooms.times(), run.rooms.counted().tally());
        let (message_ms, ack_ms) = run.lobby.times();
        let mut siege = run.lobby.report();
        if let Some(strikes) = &mut siege.strikes {
            // Somebody always comes, and is served by what is up: of the others, this says nothing.
            strikes.kinds.retain(|of| of.kind == Kill::Matcher);
        }
        let mut report = SoakReport {
            command: "soak",
            seed,
            seconds: time.as_secs_f64(),
            warm_up_seconds: 0.0,
            lobby: LobbySeen {
                students: lobby.ready,
                done: lobby.served,
                chats: lobby.chats,
                messages: lobby.messages,
                claims: lobby.claims,
                message_ms,
                ack_ms,
                siege,
            },
            rooms: RoomsSeen { born: run.rooms.born(), tally: counted, message_ms: rooms.0, ack_ms: rooms.1 },
            feeds: run.feeds.tally(),
            series: Vec::new(),
            chart: None,
            costs: Costs::default(),
            verdicts: run.verdicts,
            interrupted,
            svg: String::new(),
        };
        if let Some(local) = &run.local {
            report.costs = local.meter.read()?;
            report.see(local, time, run.args.steady(local.log_age));
        }
        Ok(report)
    }

    /// Judges and draws what was sampled.
    fn see(&mut self, local: &Local, time: Duration, steady: Duration) {
        let quarter = time / 4;
        let kept_is_judged = steady <= time / 2;
        let warm_up = if kept_is_judged { quarter.max(steady) } else { quarter };
        let (warm_up, until) = (warm_up.as_secs_f64(), time.as_secs_f64());
        self.warm_up_seconds = warm_up;
        let samples = local.samples.borrow();
        for (panel, name, points) in samples.iter() {
            let about = panel.about();
            let judged =
                self.lobby.siege.strikes.is_none() && time >= JUDGED_FROM && (kept_is_judged || !about.is_kept);
            let trend = trend(points, warm_up, until, panel.bound(name).filter(|_| judged));
            let Trend { warm, end, grows, .. } = trend;
            let (what, unit) = (about.title, about.unit);
            if grows == Some(true) {
                self.verdicts.growth.push(format!("{what}, {name}: from {warm:.2} to {end:.2} {unit}"));
            }
            self.series.push(Line { what, line: name.to_owned(), unit, trend });
        }
        let title = format!("switchboard load soak, {until:.0} s, seed {}", self.seed);
        self.svg = chart::svg(&title, &samples, warm_up, until);
    }

    /// Writes the chart, says all, and gives the exit code.
    ///
    /// # Errors
    /// If the chart cannot be written.
    pub(super) fn end(mut self, args: &SoakArgs) -> anyhow::Result<ExitCode> {
        if !self.svg.is_empty() {
            let file = args.chart.clone().unwrap_or_else(|| args.target.folder.join("soak.svg"));
            std::fs::write(&file, &self.svg).with_context(|| format!("cannot write {}", file.display()))?;
            self.chart = Some(file);
        }
        self.print(args.target.json)?;
        let Verdicts { growth, left, .. } = &self.verdicts;
        Ok(if self.verdicts.is_broken() || left.is_some() || !growth.is_empty() {
            ExitCode::from(EXIT_VIOLATION)
        } else if self.interrupted {
            ExitCode::from(EXIT_FAILURE)
        } else {
            ExitCode::SUCCESS
        })
    }

    fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        let LobbySeen { students, done, chats, messages, message_ms, ack_ms, siege, .. } = &self.lobby;
        line("seconds", format_args!("{:.0} of traffic, {:.0} of it warm-up", self.seconds, self.warm_up_seconds));
        line("lobby", format_args!("{students} students came, {done} have left; {chats} chats, {messages} messages"));
        line("  message ms", times(*message_ms));
        line("  ack ms", times(*ack_ms));
        let again = (siege.reconnects, siege.pushes_repeated, siege.gaps);
        line("  came back", format_args!("{}; {} pushes repeated, {} gaps shown", again.0, again.1, again.2));
        let RoomsSeen { born, tally, message_ms, ack_ms } = &self.rooms;
        line("rooms", format_args!("{born} born; {} messages, {} received", tally.messages, tally.deliveries));
        line("  message ms", times(*message_ms));
        line("  ack ms", times(*ack_ms));
        let (again, gaps, excused) = (tally.reconnects + tally.rejoins, tally.gaps, tally.gaps_excused);
        line("  came back", format_args!("{again}; {gaps} gaps shown, {excused} while nobody could be asked"));
        let (limited, unavailable, lists) = (tally.rate_limited, tally.unavailable, tally.lists_compared);
        line("  refused", format_args!("{limited} rate_limited, {unavailable} unavailable; {lists} lists compared"));
        let FeedsTally { values, updates, stale, reconnects, .. } = &self.feeds;
        line("feeds", format_args!("{values} values, shown {updates} times; {stale} times stale"));
        line("  came back", reconnects);
        if let Some(strikes) = &siege.strikes {
            print_strikes(strikes);
        }
        if self.chart.is_some() {
            println!("\n{}", self.table());
            print_costs(&self.costs);
        }
        if let Some(chart) = &self.chart {
            println!("\nchart: {}", chart.display());
        }
        self.print_verdicts();
        Ok(())
    }

    fn table(&self) -> String {
        let mut table = String::new();
        let mut above = "";
        for Line { what, line, unit, trend } in &self.series {
            if *what != above {
                above = what;
                let title = if unit.is_empty() { (*what).to_owned() } else { format!("{what}, {unit}") };
                // Writing into a string cannot fail.
                let _ = writeln!(table, "{title:<38}{:>10}{:>10}{:>10}{:>10}", "start", "warm", "end", "max");
            }
            let Trend { start, warm, end, max, grows } = trend;
            let mark = match grows {
                Some(true) => "  GROWS",
                Some(false) => "",
                None => "  -",
            };
            let _ = writeln!(table, "  {line:<36}{start:>10.1}{warm:>10.1}{end:>10.1}{max:>10.1}{mark}");
        }
        table.push_str("-: growth is not judged");
        table
    }

    fn print_verdicts(&self) {
        println!();
        if self.interrupted {
            println!("interrupted: the figures are of a part of the run");
        }
        let Verdicts { lobby, rooms, feeds, growth, left } = &self.verdicts;
        let say = |what: &str, found: Option<&str>| match found {
            Some(found) => println!("VIOLATION: {what}: {found}"),
            None => println!("{what}: no violation"),
        };
        say("lobby", lobby.as_deref());
        say("rooms", rooms.as_deref());
        say("feeds", feeds.as_deref());
        if self.series.iter().all(|line| line.trend.grows.is_none()) {
            println!("growth: not judged");
        } else if growth.is_empty() {
            println!("growth: none");
        }
        growth.iter().for_each(|grown| println!("GROWTH: {grown}"));
        if let Some(left) = left {
            println!("LEFT: {left}");
        }
    }
}
