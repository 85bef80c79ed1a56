//! `switchboard load lobby --kill`: the lobby's run while processes are killed.
//!
//! `killer` kills, `life` plays a user on one socket after the other, `player` and `talk` decide what it asks for,
//! `judge` says whether what all of them saw can be, `takeover` how long they waited. The run's phases are `lobby`'s.

mod backoff;
mod judge;
mod killer;
mod life;
mod player;
mod takeover;
mod talk;
mod wire;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use switchboard_contract::process::UsageError;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::LobbyArgs;
use super::checker::{Plan, Took, Violation, Who};
use super::lobby::ARRIVALS;
use super::world::{Halt, World};
use judge::{Event, Judge};
pub(super) use killer::Kill;
use takeover::{Sight, Takeovers};

/// The protocol's bound, as clients see it.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What all users of such a run share, and its killer.
pub(super) struct Siege {
    pub(super) world: Rc<World>,
    kill: Kill,
    every: Duration,
    kills: Option<u32>,
    pace: Duration,
    folder: PathBuf,
    judge: RefCell<Judge>,
    takeovers: RefCell<Takeovers>,
    reconnects: Cell<u64>,
    repeated: Cell<u64>,
    /// No more kills.
    enough: CancellationToken,
    /// The killer's end, if it could not go on.
    failed: RefCell<Option<anyhow::Error>>,
    /// Whether the killer is at work.
    killing: Cell<bool>,
}

/// What the report adds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct SiegeReport {
    /// Processes killed.
    pub(super) kills: u32,
    /// Sockets that were opened again.
    pub(super) reconnects: u64,
    /// Pushes that were sent again: without an answer, or answered with `unavailable`.
    pub(super) pushes_repeated: u64,
    /// Gaps that clients were shown.
    pub(super) gaps: u64,
    /// Kills after which clients saw the system serve again before the next.
    pub(super) takeovers: usize,
    /// From the kill to that.
    pub(super) takeover_median_seconds: f64,
    /// The longest of them.
    pub(super) takeover_worst_seconds: f64,
}

/// Plays users on these gateways, each beginning with another.
pub(super) fn users(
    siege: &Rc<Siege>,
    gateways: &[Rc<str>],
) -> impl Fn(Who) -> Pin<Box<dyn Future<Output = Result<(), Halt>>>> + use<> {
    let (siege, gateways): (_, Rc<[Rc<str>]>) = (Rc::clone(siege), gateways.into());
    let arrivals = Arc::new(Semaphore::new(ARRIVALS));
    move |who| {
        let at = usize::try_from(who.n).unwrap_or(0);
        Box::pin(life::play(Rc::clone(&siege), who, Rc::clone(&gateways), at, Arc::clone(&arrivals)))
    }
}

impl Siege {
    /// Of the arguments, if they ask for it.
    ///
    /// # Errors
    /// If there is nothing to kill, or nobody to see it.
    pub(super) fn new(args: &LobbyArgs, world: &Rc<World>) -> anyhow::Result<Option<Rc<Siege>>> {
        let Some(kill) = args.kill else { return Ok(None) };
        if args.students == 0 {
            return Err(UsageError("--kill needs students".into()).into());
        }
        killer::check(kill, &args.target.folder)?;
        Ok(Some(Rc::new(Siege {
            world: Rc::clone(world),
            kill,
            every: args.every,
            kills: args.kills,
            pace: Duration::from_millis(args.pace),
            folder: args.target.folder.clone(),
            judge: RefCell::new(Judge::new(Plan { answer_within: ANSWER_WITHIN, ..world.plan })),
            takeovers: RefCell::new(Takeovers::new(kill)),
            reconnects: Cell::new(0),
            repeated: Cell::new(0),
            enough: CancellationToken::new(),
            failed: RefCell::new(None),
            killing: Cell::new(false),
        })))
    }

    /// Begins to kill.
    pub(super) fn begin(self: &Rc<Self>) {
        let siege = Rc::clone(self);
        self.killing.set(true);
        tokio::task::spawn_local(async move {
            let outcome = killer::run(Rc::clone(&siege)).await;
            *siege.failed.borrow_mut() = outcome.err();
            siege.killing.set(false);
        });
    }

    /// No further kill; whether the last victim is up again.
    pub(super) fn end(&self) -> bool {
        self.enough.cancel();
        !self.killing.get()
    }

    /// Why the killer could not go on.
    ///
    /// # Errors
    /// That.
    pub(super) fn failure(&self) -> anyhow::Result<()> {
        self.failed.borrow_mut().take().map_or(Ok(()), Err)
    }

    fn killed(&self, name: &str) {
        let at = self.world.now();
        eprintln!("{:.1} s: kill {name}", at.as_secs_f64());
        self.takeovers.borrow_mut().killed(at);
    }

    /// Tells the judge what a user, connected since then, sends or sees.
    fn observe(&self, who: Who, connected: Duration, event: Event<'_>) -> Result<(), Violation> {
        let at = self.world.now();
        let took = self.judge.borrow_mut().observe(who, at, event)?;
        if let Some(took) = took {
            self.world.took(took);
            match took {
                Took::Message(after) => self.saw(Some(at.saturating_sub(after)), connected),
                Took::Ack(_) => {}
            }
        }
        Ok(())
    }

    fn saw(&self, said: Option<Duration>, connected: Duration) {
        self.takeovers.borrow_mut().saw(Sight { at: self.world.now(), said, connected });
    }

    /// Whether a push is still unanswered though its time is over.
    ///
    /// # Errors
    /// If so.
    pub(super) fn overdue(&self) -> Result<(), Violation> {
        self.judge.borrow().overdue(self.world.now())
    }

    /// Whether everybody got everything.
    ///
    /// # Errors
    /// The first thing that is missing.
    pub(super) fn finish(&self, students: u32, teachers: u32) -> Result<(), Violation> {
        self.judge.borrow().finish(students, teachers)
    }

    /// Whether all teachers were told that no student is left.
    pub(super) fn all_know_the_end(&self, teachers: u32) -> bool {
        let judge = self.judge.borrow();
        (0..teachers).all(|n| judge.knows_the_end(Who::teacher(n)))
    }

    /// What happened.
    pub(super) fn report(&self) -> SiegeReport {
        let takeovers = self.takeovers.borrow();
        let (seen, median, worst) = takeovers.times();
        SiegeReport {
            kills: takeovers.kills(),
            reconnects: self.reconnects.get(),
            pushes_repeated: self.repeated.get(),
            gaps: self.judge.borrow().gaps(),
            takeovers: seen,
            takeover_median_seconds: median,
            takeover_worst_seconds: worst,
        }
    }
}
