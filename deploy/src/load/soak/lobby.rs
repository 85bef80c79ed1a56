//! The lobby's part of a soak: students that come, wait, talk, leave or are cut off, each with an id of its own, and
//! teachers that stay.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::super::checker::{Counts, Violation, Who};
use super::super::siege::{self, Siege, SiegeReport, Strikes};
use super::super::world::{Halt, Ids, Tally, Times, World};
use super::{SoakArgs, System};

/// How often a teacher with a free place claims a student.
const CLAIM_EVERY: Duration = Duration::from_millis(250);
/// Between the end of one student and the next, on average.
const PAUSE: Duration = Duration::from_secs(1);
/// Where teachers have places for all, nobody waits for longer than the server may take to come up again.
const WAIT_MAX: Duration = Duration::from_secs(90);
/// After the last student has gone, teachers are told within this time.
const LAST_STATUS_WITHIN: Duration = Duration::from_secs(30);

type Outcome = Result<(), Halt>;

/// How far the end is.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Not begun.
    Open,
    /// Students leave.
    Students,
    /// Teachers are told that nobody is left.
    Status(Instant),
    /// Teachers leave.
    Teachers,
}

/// Everybody in the lobby.
pub(super) struct Lobby {
    siege: Rc<Siege>,
    students: JoinSet<Outcome>,
    teachers: JoinSet<Outcome>,
    count: u32,
    wait_max: Duration,
    end: End,
}

impl Lobby {
    /// Everybody comes.
    ///
    /// # Errors
    /// If the key of this system cannot be read.
    pub(super) fn begin(args: &SoakArgs, system: &System, strikes: Option<Rc<Strikes>>) -> anyhow::Result<Lobby> {
        let ids = Ids::new(args.lobby_vsn(), system.unix_seconds);
        let world = World::new(ids, args.capacity, args.messages, CLAIM_EVERY, system.key()?)?;
        world.claims_open.set(true);
        let pace = Duration::from_millis(args.pace);
        let siege = Rc::new(Siege::of(&Rc::new(world), strikes, pace, args.churn, system.seed));
        let user = Rc::new(siege::users(&siege, &system.gateways));
        let mut lobby = Lobby {
            siege: Rc::clone(&siege),
            students: JoinSet::new(),
            teachers: JoinSet::new(),
            count: args.teachers,
            wait_max: if u64::from(args.teachers) * u64::from(args.capacity) >= u64::from(args.students) {
                WAIT_MAX
            } else {
                Duration::MAX
            },
            end: End::Open,
        };
        for n in 0..args.teachers {
            lobby.teachers.spawn_local(user(Who::teacher(n)));
        }
        // The first ones come over the time of a chat, so that chats do not end in waves.
        let (next, arrive) = (Rc::new(Cell::new(0)), args.chat().min(args.time() / 4));
        for n in 0..args.students {
            let rng = StdRng::seed_from_u64(system.seed.wrapping_add(u64::from(n)));
            let after = arrive.mul_f64(f64::from(n) / f64::from(args.students));
            lobby.students.spawn_local(place(Rc::clone(&siege), Rc::clone(&user), Rc::clone(&next), after, rng));
        }
        Ok(lobby)
    }

    /// Judges what is due; with `enough`, everybody leaves. Whether all have.
    ///
    /// # Errors
    /// A [`Violation`], or whatever else keeps users from going on.
    pub(super) fn look(&mut self, enough: bool) -> anyhow::Result<bool> {
        for users in [&mut self.students, &mut self.teachers] {
            while let Some(ended) = users.try_join_next() {
                match ended.context("a user's task failed")? {
                    Ok(()) => {}
                    Err(Halt::Violation(violation)) => return Err(violation.into()),
                    Err(Halt::Connect(who, error)) => {
                        return Err(Violation::Unexpected { who, what: error.to_string() }.into());
                    }
                }
            }
        }
        self.siege.look(self.wait_max)?;
        let now = Instant::now();
        match self.end {
            End::Open if enough => {
                self.siege.closing.cancel();
                self.end = End::Students;
            }
            End::Students if self.students.is_empty() => self.end = End::Status(now + LAST_STATUS_WITHIN),
            End::Status(until) if now > until || self.siege.all_know_the_end(self.count) => {
                self.siege.world.over.cancel();
                self.end = End::Teachers;
            }
            End::Teachers if self.teachers.is_empty() => {
                self.siege.finish(0, self.count)?;
                return Ok(true);
            }
            End::Open | End::Students | End::Status(_) | End::Teachers => {}
        }
        Ok(false)
    }

    /// What a teacher was told last.
    pub(super) fn counts(&self) -> Option<Counts> {
        self.siege.counts()
    }

    pub(super) fn tally(&self) -> Tally {
        self.siege.world.tally()
    }

    /// From side to side, and to the `ok`.
    pub(super) fn times(&self) -> (Times, Times) {
        self.siege.world.times()
    }

    pub(super) fn report(&self) -> SiegeReport {
        self.siege.report()
    }
}

/// One student after the other.
async fn place<F>(siege: Rc<Siege>, user: Rc<F>, next: Rc<Cell<u32>>, after: Duration, mut rng: StdRng) -> Outcome
where
    F: Fn(Who) -> Pin<Box<dyn Future<Output = Outcome>>>,
{
    let mut pause = after;
    while siege.closing.run_until_cancelled(sleep(pause)).await.is_some() {
        let n = next.replace(next.get() + 1);
        user(Who::student(n)).await?;
        siege.done(n);
        pause = PAUSE.mul_f64(rng.random_range(0.0..2.0));
    }
    Ok(())
}
