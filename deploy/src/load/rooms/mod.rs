//! `switchboard load rooms`: members of many rooms talk, leave, are cut off and come back.
//!
//! `life` plays a member on one socket after the other, `voice` decides what it does, `wire` says how that looks,
//! `judge` says whether what all of them saw can be, and the `hall` is what they share. Here: the run as a whole.

mod hall;
mod judge;
mod life;
mod report;
mod voice;
mod wire;

use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::end::End;
use super::lobby::ARRIVALS;
use super::measure::{Costs, Meter};
use super::progress::{Bar, Progress};
use super::siege::Strikes;
use super::target::Target;
use super::{KillArgs, Speaks, TargetArgs, interrupted, world};
use crate::runfile;
use hall::{Hall, Parts, Phase};
use judge::Violation;
use report::RoomsReport;
use voice::Plan;

/// How often the run looks at itself.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// All members are there within this time, and in the end all have everything.
const ARRIVE_WITHIN: Duration = Duration::from_secs(60);

/// Arguments of `switchboard load rooms`.
#[derive(Debug, clap::Args)]
pub(super) struct RoomsArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Rooms.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rooms: u32,
    /// Members of each, each on a socket of its own; the last two of four or more are one user's session.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    members: u16,
    /// How long they talk; SIGUSR1 ends it before.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Which serializers members speak.
    #[arg(long, default_value = "mix")]
    vsn: Speaks,
    /// A member waits so many milliseconds between a reply and its next push.
    #[arg(long, default_value_t = 0, value_name = "MS")]
    pace: u64,
    /// Mean time between a member's leaves and cuts: 10s. With 0 they stay.
    #[arg(long, default_value = "20s", value_name = "TIME", value_parser = churn)]
    churn: Duration,
    #[command(flatten)]
    kill: KillArgs,
    /// Repeats the chances of an earlier run.
    #[arg(long)]
    seed: Option<u64>,
}

fn churn(text: &str) -> Result<Duration, String> {
    super::time(text).ok_or_else(|| "a time is 10s, 500ms, or 0".to_owned())
}

struct Run<'a> {
    args: &'a RoomsArgs,
    hall: Rc<Hall>,
    users: JoinSet<Result<(), Violation>>,
    began: Instant,
    talked: Option<Instant>,
    /// They have talked enough, though their time is not over.
    enough: bool,
    settled: Option<Instant>,
    meter: Meter,
    costs: Option<Costs>,
}

/// Runs it.
///
/// # Errors
/// If there is nothing to put load on.
pub(super) async fn run(args: &RoomsArgs) -> anyhow::Result<ExitCode> {
    let target = Target::find(&args.target)?;
    let folder = &args.target.folder;
    let started = std::time::Instant::now();
    let seed = args.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    eprintln!("--seed {seed} repeats the chances of this run");
    let run = runfile::RunFile::read(folder)?.unwrap_or_default();
    let hall = Hall::new(Parts {
        plan: Plan { pace: Duration::from_millis(args.pace), churn: args.churn },
        speaks: args.vsn,
        seed,
        rooms: args.rooms,
        members: args.members,
        unix_seconds: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs(),
        key: world::key(folder)?,
        started,
        strikes: Strikes::new(&args.kill, Some(seed), folder, started)?,
        histories: run.processes.iter().filter(|process| process.kind() == "history").count() > 1,
    })?;
    let mut run = Run {
        args,
        hall: Rc::new(hall),
        users: JoinSet::new(),
        began: Instant::now(),
        talked: None,
        enough: false,
        settled: None,
        meter: Meter::start(folder)?,
        costs: None,
    };
    run.arrive(target.gateways());
    let mut progress = Progress::new();
    let interrupted = run.play(&mut progress).await;
    progress.end();
    run.report(End::of::<Violation>(interrupted)?)
}

impl Run<'_> {
    fn arrive(&mut self, gateways: &[Rc<str>]) {
        let gateways: Rc<[Rc<str>]> = gateways.into();
        let arrivals = Arc::new(Semaphore::new(ARRIVALS));
        for room in 0..usize::try_from(self.args.rooms).unwrap_or(usize::MAX) {
            for member in 0..self.args.members {
                let (hall, gateways, arrivals) = (Rc::clone(&self.hall), Rc::clone(&gateways), Arc::clone(&arrivals));
                self.users.spawn_local(life::play(hall, room, member, gateways, arrivals));
            }
        }
    }

    /// Plays until the run is over, or `true`, is interrupted.
    async fn play(&mut self, progress: &mut Progress) -> anyhow::Result<bool> {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let interrupt = interrupted();
        tokio::pin!(interrupt);
        let mut enough = signal(SignalKind::user_defined1())?;
        loop {
            tokio::select! {
                biased;
                interrupted = &mut interrupt => {
                    interrupted.context("cannot listen to signals")?;
                    return Ok(true);
                }
                _ = enough.recv() => self.enough = true,
                _ = looks.tick() => {
                    if self.look()? {
                        return Ok(false);
                    }
                    progress.show(&self.bars());
                }
                Some(ended) = self.users.join_next() => ended.context("a member's task failed")??,
            }
        }
    }

    /// Moves on to the next phase where the present one is over; whether the run is.
    fn look(&mut self) -> anyhow::Result<bool> {
        if let Some(strikes) = &self.hall.strikes {
            strikes.failure()?;
            self.meter.look()?;
        }
        let quiet = self.hall.look()?;
        let now = Instant::now();
        let phase = *self.hall.phase.borrow();
        match phase {
            Phase::Arriving if self.hall.arrived.get() == self.args.rooms * u32::from(self.args.members) => {
                // Only what is said is measured, not the arrival.
                self.meter.restart()?;
                self.talked = Some(now);
                if let Some(strikes) = &self.hall.strikes {
                    strikes.begin();
                }
                self.hall.phase.send_replace(Phase::Talking);
            }
            Phase::Arriving if now > self.began + ARRIVE_WITHIN => {
                bail!("{} members have come within {} s", self.hall.arrived.get(), ARRIVE_WITHIN.as_secs());
            }
            Phase::Talking
                if self.enough
                    || self.talked.is_some_and(|talked| now >= talked + Duration::from_secs(self.args.seconds)) =>
            {
                self.costs = Some(self.meter.read()?);
                self.settled = Some(now);
                self.hall.phase.send_replace(Phase::Settling);
            }
            Phase::Settling => {
                let up = self.hall.strikes.as_ref().is_none_or(|strikes| strikes.end());
                let behind = self.hall.behind();
                if up && quiet && behind.is_none() {
                    self.hall.phase.send_replace(Phase::Leaving);
                } else if let Some(violation) = behind
                    && self.settled.is_some_and(|settled| now > settled + ARRIVE_WITHIN)
                {
                    return Err(violation.into());
                } else if self.settled.is_some_and(|settled| now > settled + 2 * ARRIVE_WITHIN) {
                    bail!("not quiet within {} s", 2 * ARRIVE_WITHIN.as_secs());
                }
            }
            Phase::Leaving if self.users.is_empty() => return Ok(true),
            Phase::Arriving | Phase::Talking | Phase::Leaving => {}
        }
        Ok(false)
    }

    fn bars(&self) -> Vec<Bar> {
        let tally = self.hall.tally();
        let talked = self.talked.map_or(0, |talked| talked.elapsed().as_secs()).min(self.args.seconds);
        let members = u64::from(self.args.rooms) * u64::from(self.args.members);
        let bar = |what, now, of, beside| Bar { what, now, of, beside };
        let (messages, gaps) = (tally.messages, tally.gaps);
        vec![
            bar("members", u64::from(self.hall.arrived.get()), members, format!("{} reconnects", tally.reconnects)),
            bar("seconds", talked, self.args.seconds, format!("{messages} messages, {gaps} gaps")),
        ]
    }

    fn report(self, end: End) -> anyhow::Result<ExitCode> {
        let End { code, violation, interrupted } = end;
        let costs = match self.costs {
            Some(costs) => costs,
            None => self.meter.read()?,
        };
        let now = Instant::now();
        let (connected, settled) = (self.talked.unwrap_or(now), self.settled.unwrap_or(now));
        let connect = (connected - self.began).as_secs_f64();
        let talk = (settled - connected).as_secs_f64();
        let report = RoomsReport::new(self.args, &self.hall, (connect, talk), costs, violation, interrupted);
        report.print(self.args.target.json)?;
        Ok(code)
    }
}
