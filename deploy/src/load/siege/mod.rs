//! `switchboard load lobby --kill`: the lobby's run while processes are killed.
//!
//! `orders` say what is killed and when, `killer` kills, `pause` stops, `fencing` counts what it led to. `life` plays a
//! user on one socket after the other, `player` and `talk` decide what it asks for, `judge` says whether what all of
//! them saw can be, `takeover` how long they waited. The run's phases are `lobby`'s.

mod backoff;
mod fencing;
mod judge;
mod killer;
mod life;
mod orders;
mod pause;
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
use crate::runfile::Process;
use fencing::Fencing;
use judge::{Event, Judge};
use killer::Orders;
pub(super) use orders::{Every, Kill};
use takeover::{OfKind, Sight, Takeovers};

/// The protocol's bound, as clients see it.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What all users of such a run share, and its killer.
pub(super) struct Siege {
    pub(super) world: Rc<World>,
    orders: Orders,
    pace: Duration,
    folder: PathBuf,
    judge: RefCell<Judge>,
    takeovers: RefCell<Takeovers>,
    fencing: RefCell<Fencing>,
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
#[derive(Clone, Debug, Serialize)]
pub(super) struct SiegeReport {
    /// Kills, or pauses; where all are killed at once, that is one.
    pub(super) kills: u32,
    /// Sockets that were opened again.
    pub(super) reconnects: u64,
    /// Pushes that were sent again: without an answer, or answered with `unavailable`.
    pub(super) pushes_repeated: u64,
    /// Gaps that clients were shown.
    pub(super) gaps: u64,
    /// What was killed, and how long clients waited, kind by kind.
    pub(super) kinds: Vec<OfKind>,
    /// Writes that came from a matcher which no longer led, and were refused; as matchers say that were not killed.
    pub(super) late_writes_refused: u64,
    /// How often a matcher began to lead.
    pub(super) epochs: u64,
    /// `--seed` repeats the times of the kills.
    pub(super) seed: Option<u64>,
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
        let Some(orders) = Orders::new(args)? else { return Ok(None) };
        if args.students == 0 {
            return Err(UsageError("--kill needs students".into()).into());
        }
        if let Some(seed) = orders.seed {
            eprintln!("the times of the kills are random: --seed {seed} repeats them");
        }
        Ok(Some(Rc::new(Siege {
            world: Rc::clone(world),
            takeovers: RefCell::new(Takeovers::new(&orders.kinds)),
            fencing: RefCell::default(),
            orders,
            pace: Duration::from_millis(args.pace),
            folder: args.target.folder.clone(),
            judge: RefCell::new(Judge::new(Plan { answer_within: ANSWER_WITHIN, ..world.plan })),
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

    /// These are about to be killed, or paused for so long.
    fn struck(&self, kill: Kill, victims: &[Process], pause: Option<Duration>) {
        let at = self.world.now();
        let names: Vec<&str> = victims.iter().map(|victim| victim.name.as_str()).collect();
        let how = pause.map_or("kill".to_owned(), |pause| format!("pause, for {:.1} s,", pause.as_secs_f64()));
        eprintln!("{:.1} s: {how} {}", at.as_secs_f64(), names.join(", "));
        self.takeovers.borrow_mut().struck(kill, at);
    }

    /// Another matcher leads than the one that was struck.
    fn led(&self) {
        self.takeovers.borrow_mut().led(self.world.now());
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
        let kinds = self.takeovers.borrow().report();
        let fencing = self.fencing.borrow();
        SiegeReport {
            kills: kinds.iter().map(|kind| kind.kills).sum(),
            reconnects: self.reconnects.get(),
            pushes_repeated: self.repeated.get(),
            gaps: self.judge.borrow().gaps(),
            kinds,
            late_writes_refused: fencing.refused(),
            epochs: fencing.epochs(),
            seed: self.orders.seed,
        }
    }
}
