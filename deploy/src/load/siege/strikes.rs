//! The killer of a run: what it is told, what it does, and what that led to.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::super::KillArgs;
use super::fencing::Fencing;
use super::killer::{self, Orders};
use super::orders::Kill;
use super::peak::Peak;
use super::takeover::{OfKind, Sight, Takeovers};
use crate::runfile::Process;

/// A run's killer.
pub(in crate::load) struct Strikes {
    pub(super) orders: Orders,
    pub(super) folder: PathBuf,
    pub(super) fencing: RefCell<Fencing>,
    /// No more kills.
    pub(super) enough: CancellationToken,
    takeovers: RefCell<Takeovers>,
    reconnects: RefCell<Peak>,
    /// The run's clock.
    began: Instant,
    /// The killer's end, if it could not go on.
    failed: RefCell<Option<anyhow::Error>>,
    /// Whether the killer is at work.
    killing: Cell<bool>,
    /// What was struck and does not serve again yet.
    down: Cell<Option<Kill>>,
    /// How often what was struck served again.
    served: Cell<u32>,
}

/// What the report adds.
#[derive(Clone, Debug, Serialize)]
pub(in crate::load) struct StrikesReport {
    /// Kills, or pauses; where all are killed at once, that is one.
    pub(in crate::load) kills: u32,
    /// The most sockets that were opened again within one second.
    pub(in crate::load) reconnects_per_second_most: usize,
    /// What was killed, and how long clients waited, kind by kind.
    pub(in crate::load) kinds: Vec<OfKind>,
    /// Writes that came from a matcher which no longer led, and were refused; as matchers say that were not killed.
    pub(in crate::load) late_writes_refused: u64,
    /// How often a matcher began to lead.
    pub(in crate::load) epochs: u64,
}

impl Strikes {
    /// Of the arguments, if they ask for it; times are counted from `began`.
    ///
    /// # Errors
    /// If there is nothing to kill.
    pub(in crate::load) fn new(
        args: &KillArgs,
        seed: Option<u64>,
        folder: &Path,
        began: Instant,
    ) -> anyhow::Result<Option<Rc<Strikes>>> {
        Ok(Orders::new(args, seed, folder)?.map(|orders| Self::of(orders, folder, began)))
    }

    /// Of what somebody else does to this kind.
    pub(in crate::load) fn from_outside(kind: Kill, folder: &Path, began: Instant) -> Rc<Strikes> {
        Self::of(Orders::from_outside(kind), folder, began)
    }

    fn of(orders: Orders, folder: &Path, began: Instant) -> Rc<Strikes> {
        Rc::new(Strikes {
            takeovers: RefCell::new(Takeovers::new(&orders.kinds)),
            reconnects: RefCell::default(),
            orders,
            folder: folder.to_owned(),
            fencing: RefCell::default(),
            enough: CancellationToken::new(),
            began,
            failed: RefCell::new(None),
            killing: Cell::new(false),
            down: Cell::new(None),
            served: Cell::new(0),
        })
    }

    /// Of the times, where they are random.
    pub(in crate::load) fn seed(&self) -> Option<u64> {
        self.orders.seed
    }

    /// Whether such processes are killed.
    pub(in crate::load) fn strikes(&self, kill: Kill) -> bool {
        self.orders.kinds.iter().any(|kind| *kind == kill || *kind == Kill::All)
    }

    /// Begins to kill, or to heed who does.
    pub(in crate::load) fn begin(self: &Rc<Self>) {
        let strikes = Rc::clone(self);
        let from_outside = self.orders.from_outside;
        self.killing.set(!from_outside);
        tokio::task::spawn_local(async move {
            let outcome = if from_outside {
                killer::heed(Rc::clone(&strikes)).await
            } else {
                killer::run(Rc::clone(&strikes)).await
            };
            *strikes.failed.borrow_mut() = outcome.err();
            strikes.killing.set(false);
        });
    }

    /// No further kill; whether the last victim is up again.
    pub(in crate::load) fn end(&self) -> bool {
        self.enough.cancel();
        !self.killing.get()
    }

    /// Why the killer could not go on.
    ///
    /// # Errors
    /// That.
    pub(in crate::load) fn failure(&self) -> anyhow::Result<()> {
        self.failed.borrow_mut().take().map_or(Ok(()), Err)
    }

    /// What was struck and does not serve again yet.
    pub(in crate::load) fn down(&self) -> Option<Kill> {
        self.down.get()
    }

    /// These are about to be killed, stopped or paused: `how`, in a word.
    pub(super) fn struck(&self, kill: Kill, victims: &[Process], how: &str) {
        let at = self.began.elapsed();
        let names: Vec<&str> = victims.iter().map(|victim| victim.name.as_str()).collect();
        eprintln!("{:.1} s: {how} {}", at.as_secs_f64(), names.join(", "));
        self.down.set(Some(kill));
        self.takeovers.borrow_mut().struck(kill, at);
    }

    /// A client has opened a socket again.
    pub(in crate::load) fn reconnected(&self) {
        self.reconnects.borrow_mut().note(self.began.elapsed());
    }

    /// What was struck serves again.
    pub(super) fn served(&self) {
        self.down.set(None);
        self.served.set(self.served.get() + 1);
    }

    /// How often what was struck has served again; `None`: it does not yet.
    pub(in crate::load) fn rounds(&self) -> Option<u32> {
        self.down.get().is_none().then_some(self.served.get())
    }

    /// Another matcher leads than the one that was struck.
    pub(super) fn led(&self) {
        self.takeovers.borrow_mut().led(self.began.elapsed());
    }

    /// A client, connected since then, saw something that was said at that time, or that only the whole system shows.
    pub(in crate::load) fn saw(&self, said: Option<Duration>, connected: Duration) {
        self.takeovers.borrow_mut().saw(Sight { at: self.began.elapsed(), said, connected });
    }

    /// What happened.
    pub(in crate::load) fn report(&self) -> StrikesReport {
        let kinds = self.takeovers.borrow().report();
        let fencing = self.fencing.borrow();
        StrikesReport {
            kills: kinds.iter().map(|kind| kind.kills).sum(),
            reconnects_per_second_most: self.reconnects.borrow().most(),
            kinds,
            late_writes_refused: fencing.refused(),
            epochs: fencing.epochs(),
        }
    }
}
