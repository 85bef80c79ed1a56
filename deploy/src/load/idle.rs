//! `switchboard load idle`: sockets that wait in the queue, and what the system's memory makes of them.

use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use switchboard_contract::process::EXIT_FAILURE;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use super::checker::Violation;
use super::lobby::ARRIVALS;
use super::measure::{Costs, Meter};
use super::progress::{Bar, Progress};
use super::report::IdleReport;
use super::student::{Step, Student};
use super::target::Target;
use super::world::{self, Halt, Ids, World};
use super::{EXIT_VIOLATION, IdleArgs, interrupted};
use crate::client::Vsn;

/// How often the memory is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Memory has settled once it stayed the same for so many looks.
const STEADY_LOOKS: u32 = 3;
/// What counts as the same: this part of all memory, one in so many.
const STEADY_PART: u64 = 200;
/// The longest that sockets may take to settle.
const SETTLE_WITHIN: Duration = Duration::from_secs(120);

/// Runs it.
///
/// # Errors
/// If there is nothing to put load on.
pub(super) async fn run(args: &IdleArgs) -> anyhow::Result<ExitCode> {
    let target = Target::find(&args.target)?;
    target.wait_until_empty().await?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let world =
        Rc::new(World::new(Ids::new(args.vsn, now), 1, 1, Duration::from_secs(1), world::key(&args.target.folder)?)?);
    let meter = Meter::start(&args.target.folder)?;
    let before = meter.read()?;
    let mut users = JoinSet::new();
    let stop = CancellationToken::new();
    let arrivals = Rc::new(Semaphore::new(ARRIVALS));
    for (n, url) in (0..args.sockets).zip(target.gateways().iter().cycle()) {
        users.spawn_local(wait(Rc::clone(&world), n, Rc::clone(url), Rc::clone(&arrivals), stop.clone()));
    }
    let mut settling = Settling { args, target, world, meter, began: Instant::now(), connected: None };
    let mut progress = Progress::new();
    let interrupted = tokio::select! {
        settled = settling.settle(&mut progress) => settled.map(|()| false),
        halted = first_halt(&mut users) => halted.map(|()| false),
        interrupted = interrupted() => interrupted.context("cannot listen to signals").map(|()| true),
    };
    let after = settling.meter.read()?;
    stop.cancel();
    let left = if interrupted.is_ok() { first_halt(&mut users).await } else { Ok(()) };
    progress.end();
    let outcome = interrupted.and_then(|interrupted| left.map(|()| interrupted));
    let interrupted = match outcome {
        Ok(interrupted) => interrupted,
        Err(error) => match error.downcast::<Violation>() {
            Ok(violation) => {
                eprintln!("VIOLATION: {violation}");
                return Ok(ExitCode::from(EXIT_VIOLATION));
            }
            Err(error) => return Err(error),
        },
    };
    settling.report(&before, after, interrupted)?;
    Ok(if interrupted { ExitCode::from(EXIT_FAILURE) } else { ExitCode::SUCCESS })
}

/// One idle student: waits until told to leave.
async fn wait(
    world: Rc<World>,
    n: u32,
    url: Rc<str>,
    arrivals: Rc<Semaphore>,
    stop: CancellationToken,
) -> Result<(), Halt> {
    let arrival = arrivals.acquire().await;
    let mut student = Student::arrive(Rc::clone(&world), n, &url).await?;
    while student.step().await? != Step::Waiting {}
    drop(arrival);
    world.count(|tally| tally.ready += 1);
    let stopped = stop.cancelled();
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            step = student.step() => {
                step?;
            }
            () = &mut stopped => break,
        }
    }
    let departure = arrivals.acquire().await;
    student.leave()?;
    while student.step().await? != Step::Gone {}
    student.close().await;
    drop(departure);
    Ok(())
}

/// Waits until all users have ended, or the first of them failed.
async fn first_halt(users: &mut JoinSet<Result<(), Halt>>) -> anyhow::Result<()> {
    while let Some(ended) = users.join_next().await {
        match ended.context("a user's task failed")? {
            Ok(()) => {}
            Err(Halt::Violation(violation)) => return Err(violation.into()),
            Err(Halt::Connect(who, error)) => return Err(error).with_context(|| format!("{who} cannot come")),
        }
    }
    Ok(())
}

struct Settling<'a> {
    args: &'a IdleArgs,
    target: Target,
    world: Rc<World>,
    meter: Meter,
    began: Instant,
    connected: Option<Instant>,
}

impl Settling<'_> {
    /// Waits until all sockets are there, every gateway says so, and the memory stays as it is.
    async fn settle(&mut self, progress: &mut Progress) -> anyhow::Result<()> {
        let (mut steady, mut last) = (0, 0);
        let mut looks = interval(LOOK_EVERY);
        while steady < STEADY_LOOKS {
            looks.tick().await;
            let ready = self.world.tally().ready;
            let (now, of) = (u64::from(ready), u64::from(self.args.sockets));
            progress.show(&[Bar { what: "waiting", now, of, beside: String::new() }]);
            self.world.overdue()?;
            if ready < self.args.sockets {
                continue;
            }
            let connected = *self.connected.get_or_insert_with(Instant::now);
            if connected.elapsed() > SETTLE_WITHIN {
                bail!("the system has not settled within {} s", SETTLE_WITHIN.as_secs());
            }
            let counted = self.target.present().await?.iter().all(|present| present.students == of);
            let rss = rss(&self.meter.read()?, |_| true);
            let same = counted && rss.abs_diff(last) <= last / STEADY_PART;
            (steady, last) = (if same { steady + 1 } else { 0 }, rss);
        }
        Ok(())
    }

    fn report(&self, before: &Costs, costs: Costs, interrupted: bool) -> anyhow::Result<()> {
        let sockets = self.world.tally().ready;
        let more = |which: fn(&str) -> bool| {
            let more = rss(&costs, which).saturating_sub(rss(before, which));
            // In KiB, so that a float holds it.
            f64::from(u32::try_from(more / 1024).unwrap_or(u32::MAX)) * 1024.0 / f64::from(sockets.max(1))
        };
        let report = IdleReport {
            command: "idle",
            vsn: match self.args.vsn {
                Vsn::V1 => 1,
                Vsn::V2 => 2,
            },
            sockets,
            connect_seconds: (self.connected.unwrap_or_else(Instant::now) - self.began).as_secs_f64(),
            gateway_bytes_per_socket: more(|name| name.starts_with("gateway")),
            bytes_per_socket: more(|_| true),
            costs,
            interrupted,
        };
        report.print(self.args.target.json)
    }
}

fn rss(costs: &Costs, which: fn(&str) -> bool) -> u64 {
    costs.processes.iter().filter(|cost| which(&cost.name)).map(|cost| cost.rss_bytes).sum()
}
