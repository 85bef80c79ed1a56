//! `switchboard load lobby`: the run as a whole.
//!
//! Teachers come first, then students, who all wait; only then do the teachers claim. So the queue's order is known
//! before anybody is taken from it, and what is measured begins at one moment.

use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::checker::{Violation, Who};
use super::end::End;
use super::measure::{Costs, Meter};
use super::progress::{Bar, Progress};
use super::report::LobbyReport;
use super::siege::{self, Siege, Strikes};
use super::target::Target;
use super::world::{self, Halt, Ids, World};
use super::{LobbyArgs, interrupted, student, teacher};
use crate::client::Vsn;

/// Clients that connect at once.
pub(super) const ARRIVALS: usize = 50;
/// How often the run looks at itself.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After the last student has gone, teachers are told within this time.
const LAST_STATUS_WITHIN: Duration = Duration::from_secs(5);
/// The same where the last victim may have to come up again, and its clients with it.
const LAST_STATUS_WITHIN_SIEGE: Duration = Duration::from_secs(30);

/// What the run is waiting for.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// All teachers are there.
    Teachers,
    /// All students wait.
    Students,
    /// The time of claims in vain is over.
    Claims { until: Instant },
    /// All students are served.
    Serving,
    /// All teachers know that.
    LastStatus { until: Instant },
    /// All teachers have left.
    Leaving,
}

struct Run<'a> {
    args: &'a LobbyArgs,
    target: Target,
    world: Rc<World>,
    /// With --kill.
    siege: Option<Rc<Siege>>,
    users: JoinSet<Result<(), Halt>>,
    phase: Phase,
    began: Instant,
    deadline: Instant,
    connected: Option<Instant>,
    finished: Option<Instant>,
    meter: Meter,
    costs: Option<Costs>,
}

/// Runs it.
///
/// # Errors
/// If there is nothing to put load on.
pub(super) async fn run(args: &LobbyArgs) -> anyhow::Result<ExitCode> {
    let target = Target::find(&args.target)?;
    target.wait_until_empty().await?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let world = World::new(
        Ids::new(args.vsn, now),
        args.capacity,
        args.messages,
        args.claim_every,
        world::key(&args.target.folder)?,
    )?;
    let world = Rc::new(world);
    let siege = Siege::new(args, &world)?;
    let began = Instant::now();
    let mut run = Run {
        args,
        target,
        world,
        siege,
        users: JoinSet::new(),
        phase: Phase::Teachers,
        began,
        deadline: began
            + Duration::from_secs(args.timeout.saturating_add(if args.students == 0 { args.seconds } else { 0 })),
        connected: None,
        finished: None,
        meter: Meter::start(&args.target.folder)?,
        costs: None,
    };
    let mut progress = Progress::new();
    let interrupted = run.play(&mut progress).await;
    progress.end();
    run.report(End::of::<Violation>(interrupted)?)
}

impl Run<'_> {
    /// Plays until the run is over, or `true`, is interrupted.
    async fn play(&mut self, progress: &mut Progress) -> anyhow::Result<bool> {
        self.teachers_arrive();
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let interrupt = interrupted();
        tokio::pin!(interrupt);
        loop {
            tokio::select! {
                biased;
                interrupted = &mut interrupt => {
                    interrupted.context("cannot listen to signals")?;
                    return Ok(true);
                }
                _ = looks.tick() => {
                    if self.look()? {
                        return Ok(false);
                    }
                    progress.show(&self.bars());
                }
                Some(ended) = self.users.join_next() => match ended.context("a user's task failed")? {
                    Ok(()) => {}
                    Err(Halt::Violation(violation)) => return Err(violation.into()),
                    Err(Halt::Connect(who, error)) => return Err(error).with_context(|| format!("{who} cannot come")),
                },
            }
        }
    }

    /// Moves on to the next phase where the present one is over; whether the run is.
    fn look(&mut self) -> anyhow::Result<bool> {
        self.overdue()?;
        if self.siege.is_some() {
            self.meter.look()?;
        }
        let (now, tally) = (Instant::now(), self.world.tally());
        if now > self.deadline {
            self.finish(0)?;
            bail!("not over within {} s, while waiting for: {:?}", self.args.timeout, self.phase);
        }
        match self.phase {
            Phase::Teachers if tally.teachers == self.args.teachers => {
                if self.args.students == 0 {
                    // Only the claims are measured, not the arrival.
                    self.meter.restart()?;
                    self.connected = Some(now);
                    self.world.claims_open.set(true);
                    self.phase = Phase::Claims { until: now + Duration::from_secs(self.args.seconds) };
                } else {
                    self.students_arrive();
                    self.phase = Phase::Students;
                }
            }
            Phase::Students if tally.ready == self.args.students => {
                self.connected = Some(now);
                self.world.claims_open.set(true);
                if let Some(strikes) = self.strikes() {
                    strikes.begin();
                }
                self.phase = Phase::Serving;
            }
            Phase::Claims { until } if now >= until => {
                self.finished = Some(now);
                self.costs = Some(self.meter.read()?);
                self.leave();
            }
            Phase::Serving if tally.served == self.args.students => {
                // All is served by whatever is up: what was killed last comes up while the status is waited for.
                let within = if self.siege.is_some() { LAST_STATUS_WITHIN_SIEGE } else { LAST_STATUS_WITHIN };
                self.phase = Phase::LastStatus { until: now + within };
            }
            Phase::LastStatus { until } if now >= until || self.is_known() => {
                self.finished = Some(now);
                self.leave();
            }
            Phase::Leaving if self.users.is_empty() => {
                self.finish(self.args.teachers)?;
                return Ok(true);
            }
            Phase::Teachers
            | Phase::Students
            | Phase::Claims { .. }
            | Phase::Serving
            | Phase::LastStatus { .. }
            | Phase::Leaving => {}
        }
        Ok(false)
    }

    fn strikes(&self) -> Option<&Rc<Strikes>> {
        self.siege.as_ref()?.strikes.as_ref()
    }

    fn overdue(&self) -> anyhow::Result<()> {
        match &self.siege {
            Some(siege) => {
                self.strikes().map_or(Ok(()), |strikes| strikes.failure())?;
                siege.overdue()?;
            }
            None => self.world.overdue()?,
        }
        Ok(())
    }

    fn finish(&self, teachers: u32) -> anyhow::Result<()> {
        match &self.siege {
            Some(siege) => siege.finish(self.args.students, teachers)?,
            None => self.world.finish(self.args.students, teachers)?,
        }
        Ok(())
    }

    /// Whether all teachers know that no student is left; with --kill, also that all is up again.
    fn is_known(&self) -> bool {
        match &self.siege {
            Some(siege) => {
                self.strikes().is_none_or(|strikes| strikes.end()) && siege.all_know_the_end(self.args.teachers)
            }
            None => self.world.all_know_the_end(self.args.teachers),
        }
    }

    fn leave(&mut self) {
        self.world.over.cancel();
        self.phase = Phase::Leaving;
    }

    fn teachers_arrive(&mut self) {
        let (_, gateways) = self.target.halves();
        if let Some(siege) = &self.siege {
            let user = siege::users(siege, self.gateways_under_siege(gateways));
            (0..self.args.teachers).map(Who::teacher).for_each(|who| drop(self.users.spawn_local(user(who))));
            return;
        }
        for (n, url) in (0..self.args.teachers).zip(gateways.iter().cycle()) {
            self.users.spawn_local(teacher::play(Rc::clone(&self.world), n, Rc::clone(url)));
        }
    }

    fn students_arrive(&mut self) {
        let (gateways, _) = self.target.halves();
        if let Some(siege) = &self.siege {
            let user = siege::users(siege, self.gateways_under_siege(gateways));
            (0..self.args.students).map(Who::student).for_each(|who| drop(self.users.spawn_local(user(who))));
            return;
        }
        let arrivals = Rc::new(Semaphore::new(ARRIVALS));
        for (n, url) in (0..self.args.students).zip(gateways.iter().cycle()) {
            let student = student::play(Rc::clone(&self.world), n, Rc::clone(url), Rc::clone(&arrivals));
            self.users.spawn_local(student);
        }
    }

    /// A rolling restart has a load balancer before it, which knows another gateway at once. Who knows only those of its
    /// half waits for them: so a kill shows how long a gateway is away.
    fn gateways_under_siege<'a>(&'a self, half: &'a [Rc<str>]) -> &'a [Rc<str>] {
        if self.args.kill.drain { self.target.gateways() } else { half }
    }

    fn bars(&self) -> Vec<Bar> {
        let (tally, students) = (self.world.tally(), u64::from(self.args.students));
        let bar = |what, now, of, beside| Bar { what, now, of, beside };
        if students == 0 {
            let claiming = self.connected.map_or(0, |since| since.elapsed().as_secs());
            return vec![bar("seconds", claiming, self.args.seconds, format!("{} claims", tally.claims))];
        }
        let waiting = tally.ready.saturating_sub(tally.chats);
        let chatting = tally.chats.saturating_sub(tally.served);
        let messages = 2 * students * u64::from(self.args.messages);
        vec![
            bar("connected", u64::from(tally.ready), students, format!("{} teachers", tally.teachers)),
            bar("served", u64::from(tally.served), students, format!("{waiting} waiting, {chatting} chatting")),
            bar("messages", tally.messages, messages, String::new()),
        ]
    }

    fn report(self, end: End) -> anyhow::Result<ExitCode> {
        let costs = match self.costs {
            Some(costs) => costs,
            None => self.meter.read()?,
        };
        let (tally, args) = (self.world.tally(), self.args);
        let (message_ms, ack_ms) = self.world.times();
        let now = Instant::now();
        let connected = self.connected.unwrap_or(now);
        let End { code, violation, interrupted } = end;
        let report = LobbyReport {
            command: "lobby",
            vsn: match args.vsn {
                Vsn::V1 => 1,
                Vsn::V2 => 2,
            },
            students: args.students,
            teachers: args.teachers,
            messages_each_way: args.messages,
            served: tally.served,
            chats: tally.chats,
            messages: tally.messages,
            claims: tally.claims,
            connect_seconds: (connected - self.began).as_secs_f64(),
            serve_seconds: (self.finished.unwrap_or(now) - connected).as_secs_f64(),
            message_ms,
            ack_ms,
            siege: self.siege.as_ref().map(|siege| siege.report()),
            costs,
            violation,
            interrupted,
        };
        report.print(args.target.json)?;
        Ok(code)
    }
}
