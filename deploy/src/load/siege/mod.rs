//! `switchboard load lobby --kill`: the lobby's run while processes are killed.
//!
//! `orders` say what is killed and when, `killer` kills, `pause` stops, `fencing` counts what it led to, `takeover` how
//! long clients waited, `peak` how many came back at once; `strikes` holds these together, for the run of rooms too. The
//! run of feeds has a striker of its own, and takes what it needs of `killer` and `pause`. `life` plays a user on one
//! socket after the other, `player` and `talk` decide what it asks for, `judge` says whether what all of them saw can
//! be. The run's phases are `lobby`'s.

pub(super) mod backoff;
mod fencing;
mod judge;
mod killer;
mod life;
mod orders;
mod pause;
mod peak;
mod player;
mod strikes;
mod takeover;
mod talk;
mod wire;

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use switchboard_contract::process::UsageError;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::LobbyArgs;
use super::checker::{Counts, Plan, Took, Violation, Who};
use super::lobby::ARRIVALS;
use super::progress;
use super::world::{Halt, World};
use judge::{Event, Judge};
pub(super) use killer::{all_up, read};
pub(super) use orders::{Every, Kill};
pub(super) use pause::Paused;
pub(super) use strikes::{Strikes, StrikesReport};
pub(super) use takeover::median_and_worst;

/// The protocol's bound, as clients see it.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What all users of such a run share, and its killer.
pub(super) struct Siege {
    pub(super) world: Rc<World>,
    pub(super) strikes: Option<Rc<Strikes>>,
    pace: Duration,
    /// Mean time until a user is cut off, or a student leaves before its time; zero: never.
    churn: Duration,
    /// Of the chances of users that go.
    seed: u64,
    /// Students leave when this is cancelled, wherever they are.
    pub(super) closing: CancellationToken,
    /// What a teacher was told last.
    counts: Cell<Option<Counts>>,
    judge: RefCell<Judge>,
    reconnects: Cell<u64>,
    repeated: Cell<u64>,
    unavailable: Cell<u64>,
}

/// What the report adds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SiegeReport {
    /// Messages that were said, and that were answered with `ok`, each counted once.
    pub(super) said: u64,
    pub(super) acked: u64,
    /// Sockets that were opened again.
    pub(super) reconnects: u64,
    /// Pushes that were sent again: without an answer, or answered with `unavailable`.
    pub(super) pushes_repeated: u64,
    /// Answers that were `unavailable`.
    pub(super) unavailable: u64,
    /// Gaps that clients were shown.
    pub(super) gaps: u64,
    #[serde(flatten)]
    pub(super) strikes: Option<StrikesReport>,
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
        let (kill, target) = (&args.kill, &args.target);
        let Some(strikes) = Strikes::new(kill, args.seed, &target.folder, world.started())? else { return Ok(None) };
        if args.students == 0 {
            return Err(UsageError("--kill needs students".into()).into());
        }
        if let Some(seed) = strikes.seed() {
            eprintln!("the times of the kills are random: --seed {seed} repeats them");
        }
        let pace = Duration::from_millis(args.pace);
        Ok(Some(Rc::new(Siege::of(world, Some(strikes), pace, Duration::ZERO, 0))))
    }

    /// One whose users go after so long, each side of a chat waiting for `pace` before it answers. Without strikes
    /// sockets are not lost, and nothing is `unavailable`.
    pub(super) fn of(
        world: &Rc<World>,
        strikes: Option<Rc<Strikes>>,
        pace: Duration,
        churn: Duration,
        seed: u64,
    ) -> Siege {
        Siege {
            world: Rc::clone(world),
            strikes,
            pace,
            churn,
            seed,
            closing: CancellationToken::new(),
            counts: Cell::new(None),
            judge: RefCell::new(Judge::new(Plan { answer_within: ANSWER_WITHIN, ..world.plan })),
            reconnects: Cell::new(0),
            repeated: Cell::new(0),
            unavailable: Cell::new(0),
        }
    }

    /// What a teacher was told last of the lobby.
    pub(super) fn counts(&self) -> Option<Counts> {
        self.counts.get()
    }

    /// This student has left, and its client is gone: it is forgotten after a while.
    pub(super) fn done(&self, student: u32) {
        self.judge.borrow_mut().done(student, self.world.now());
    }

    /// Judges what does not come, and forgets who is done.
    ///
    /// # Errors
    /// If something is late, or a student has waited in the queue for longer than `wait_max`.
    pub(super) fn look(&self, wait_max: Duration) -> Result<(), Violation> {
        let now = self.world.now();
        let mut judge = self.judge.borrow_mut();
        judge.overdue(now)?;
        judge.forget(now)?;
        match judge.waits_longest() {
            Some((student, since)) if now.saturating_sub(since) > wait_max => {
                let what = format!("it has waited for {} s, and teachers have places", wait_max.as_secs());
                Err(Violation::Unexpected { who: Who::student(student), what })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Tells the judge what a user, connected since then, sends or sees.
    fn observe(&self, who: Who, connected: Duration, event: Event<'_>) -> Result<(), Violation> {
        let at = self.world.now();
        let took = self.judge.borrow_mut().observe(who, at, event)?;
        if let Some(took) = took {
            match took {
                // Who is cut off on purpose hears late, and that says nothing of the system.
                Took::Message(after) if !self.churn.is_zero() && at.saturating_sub(after) < connected => {
                    self.world.count(|tally| tally.messages += 1);
                }
                Took::Message(_) | Took::Ack(_) => self.world.took(took),
            }
            match took {
                Took::Message(after) => self.saw(Some(at.saturating_sub(after)), connected),
                Took::Ack(_) => {}
            }
        }
        Ok(())
    }

    fn saw(&self, said: Option<Duration>, connected: Duration) {
        if let Some(strikes) = &self.strikes {
            strikes.saw(said, connected);
        }
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

    /// Something was answered with `unavailable`.
    fn unavailable(&self, now: Duration, who: Who, ask: &player::Ask) {
        self.unavailable.set(self.unavailable.get() + 1);
        progress::unavailable(self.unavailable.get(), now, format_args!("{who}, {ask:?}"));
    }

    /// What happened.
    pub(super) fn report(&self) -> SiegeReport {
        let (said, acked) = self.judge.borrow().said_and_acked();
        SiegeReport {
            said,
            acked,
            reconnects: self.reconnects.get(),
            pushes_repeated: self.repeated.get(),
            unavailable: self.unavailable.get(),
            gaps: self.judge.borrow().gaps(),
            strikes: self.strikes.as_ref().map(|strikes| strikes.report()),
            seed: self.strikes.as_ref().and_then(|strikes| strikes.seed()),
        }
    }
}
