//! `switchboard load rooms`: members of many rooms talk, leave, are cut off and come back.
//!
//! `life` plays a member on one socket after the other, `voice` decides what it does, `wire` says how that looks,
//! `judge` says whether what all of them saw can be, and the `hall` is what they share; `course` takes them
//! from their arrival to their end. Here: the run as a whole.

mod course;
mod hall;
mod judge;
mod life;
mod report;
mod voice;
mod wire;

use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::end::End;
use super::measure::{Costs, Meter};
use super::progress::{Bar, Progress};
use super::siege::Strikes;
use super::target::Target;
use super::{KillArgs, Speaks, TargetArgs, interrupted, world};
use crate::runfile;
pub(super) use course::{Course, Turn};
pub(super) use hall::{Counted, Hall, Parts, Tally};
pub(super) use judge::Violation;
use report::RoomsReport;
pub(super) use voice::{Plan, draw};

/// How often the run looks at itself.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Messages that all judges together remember; of longer runs, the last ones. At 72 bytes each.
const MESSAGES_MAX: usize = 4_000_000;

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

/// A time, which may be nothing.
pub(super) fn churn(text: &str) -> Result<Duration, String> {
    super::time(text).ok_or_else(|| "a time is 10s, 500ms, or 0".to_owned())
}

struct Run<'a> {
    args: &'a RoomsArgs,
    course: Course,
    /// They have talked enough, though their time is not over.
    enough: bool,
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
    let hall = Hall::new(Parts {
        plan: Plan { pace: Duration::from_millis(args.pace), churn: args.churn },
        speaks: args.vsn,
        seed,
        rooms: args.rooms,
        members: args.members,
        keep: MESSAGES_MAX / usize::try_from(args.rooms.max(1))?,
        prefix: format!("load-{}", SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs()),
        users: String::new(),
        key: world::key(folder)?,
        started,
        strikes: Strikes::new(&args.kill, Some(seed), folder, started)?,
        histories: has_histories(folder)?,
        counted: Counted::new()?,
    });
    let course = Course::begin(Rc::new(hall), target.gateways());
    let mut run = Run { args, course, enough: false, meter: Meter::start(folder)?, costs: None };
    let mut progress = Progress::new();
    let interrupted = run.play(&mut progress).await;
    progress.end();
    run.report(End::of::<Violation>(interrupted)?)
}

/// Whether several history services run here: then one that is killed takes nothing away.
///
/// # Errors
/// If run.json cannot be read.
pub(super) fn has_histories(folder: &Path) -> anyhow::Result<bool> {
    let run = runfile::RunFile::read(folder)?.unwrap_or_default();
    Ok(run.processes.iter().filter(|process| process.kind() == "history").count() > 1)
}

impl Run<'_> {
    fn hall(&self) -> &Hall {
        &self.course.hall
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
                ended = self.course.ended() => ended?,
            }
        }
    }

    /// Moves on to the next phase where the present one is over; whether the run is.
    fn look(&mut self) -> anyhow::Result<bool> {
        let strikes = self.hall().strikes.clone();
        if let Some(strikes) = &strikes {
            strikes.failure()?;
            self.meter.look()?;
        }
        let seconds = Duration::from_secs(self.args.seconds);
        let enough = self.enough || self.course.talked.is_some_and(|talked| talked.elapsed() >= seconds);
        let up = || strikes.as_ref().is_none_or(|strikes| strikes.end());
        match self.course.look(enough, up, Duration::MAX)? {
            Turn::Talks => {
                // Only what is said is measured, not the arrival.
                self.meter.restart()?;
                if let Some(strikes) = &strikes {
                    strikes.begin();
                }
            }
            Turn::Settles => self.costs = Some(self.meter.read()?),
            Turn::Over => return Ok(true),
            Turn::None => {}
        }
        Ok(false)
    }

    fn bars(&self) -> Vec<Bar> {
        let tally = self.hall().tally();
        let talked = self.course.talked.map_or(0, |talked| talked.elapsed().as_secs()).min(self.args.seconds);
        let members = u64::from(self.args.rooms) * u64::from(self.args.members);
        let bar = |what, now, of, beside| Bar { what, now, of, beside };
        let (messages, gaps) = (tally.messages, tally.gaps);
        vec![
            bar("members", u64::from(self.hall().arrived.get()), members, format!("{} reconnects", tally.reconnects)),
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
        let (connected, settled) = (self.course.talked.unwrap_or(now), self.course.settled.unwrap_or(now));
        let connect = (connected - self.course.began).as_secs_f64();
        let talk = (settled - connected).as_secs_f64();
        let report = RoomsReport::new(self.args, &self.course.hall, (connect, talk), costs, violation, interrupted);
        report.print(self.args.target.json)?;
        Ok(code)
    }
}
