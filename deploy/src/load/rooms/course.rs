//! A hall from the arrival of its members until all of them have left.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::lobby::ARRIVALS;
use super::hall::{Hall, Phase};
use super::judge::Violation;
use super::life;

/// All members are there within this time, and in the end all have everything.
const ARRIVE_WITHIN: Duration = Duration::from_secs(60);

/// A hall's course.
pub(in crate::load) struct Course {
    pub(in crate::load) hall: Rc<Hall>,
    users: JoinSet<Result<(), Violation>>,
    members: u32,
    pub(in crate::load) began: Instant,
    /// When all were there and began to talk.
    pub(in crate::load) talked: Option<Instant>,
    /// When they had talked enough.
    pub(in crate::load) settled: Option<Instant>,
}

/// What a look has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::load) enum Turn {
    /// Nothing.
    None,
    /// They talk from now on.
    Talks,
    /// They say nothing new any more.
    Settles,
    /// All have left.
    Over,
}

impl Course {
    /// Members come, spread over the gateways.
    pub(in crate::load) fn begin(hall: Rc<Hall>, gateways: &[Rc<str>]) -> Course {
        let gateways: Rc<[Rc<str>]> = gateways.into();
        let (arrivals, mut users) = (Arc::new(Semaphore::new(ARRIVALS)), JoinSet::new());
        for room in 0..hall.rooms() {
            for member in 0..hall.members() {
                let (hall, gateways, arrivals) = (Rc::clone(&hall), Rc::clone(&gateways), Arc::clone(&arrivals));
                users.spawn_local(life::play(hall, room, member, gateways, arrivals));
            }
        }
        let members = u32::try_from(users.len()).unwrap_or(u32::MAX);
        Course { hall, users, members, began: Instant::now(), talked: None, settled: None }
    }

    /// Judges what is due, and moves on to the next phase where the present one is over. `enough`: they have talked
    /// for long enough. `up`: nothing is down that they need in order to settle. Where a room does not become quiet
    /// within `quiet_within` though all have everything, its lists are not compared.
    ///
    /// # Errors
    /// The first violation; or if members do not come.
    pub(in crate::load) fn look(
        &mut self,
        enough: bool,
        up: impl FnOnce() -> bool,
        quiet_within: Duration,
    ) -> anyhow::Result<Turn> {
        while let Some(ended) = self.users.try_join_next() {
            ended.context("a member's task failed")??;
        }
        let quiet = self.hall.look()?;
        let now = Instant::now();
        let phase = *self.hall.phase.borrow();
        match phase {
            Phase::Arriving if self.hall.arrived.get() == self.members => {
                self.talked = Some(now);
                self.hall.phase.send_replace(Phase::Talking);
                return Ok(Turn::Talks);
            }
            Phase::Arriving if now > self.began + ARRIVE_WITHIN => {
                let (arrived, members, seconds) = (self.hall.arrived.get(), self.members, ARRIVE_WITHIN.as_secs());
                bail!("{arrived} of {members} members have come within {seconds} s");
            }
            Phase::Talking if enough => {
                self.settled = Some(now);
                self.hall.phase.send_replace(Phase::Settling);
                return Ok(Turn::Settles);
            }
            Phase::Settling => {
                let (up, behind) = (up(), self.hall.behind());
                let waited = self.settled.map_or(Duration::ZERO, |settled| now - settled);
                if up && behind.is_none() && (quiet || waited > quiet_within) {
                    self.hall.phase.send_replace(Phase::Leaving);
                } else if let Some(violation) = behind
                    && waited > ARRIVE_WITHIN
                {
                    return Err(violation.into());
                } else if waited > 2 * ARRIVE_WITHIN {
                    bail!("not quiet within {} s", 2 * ARRIVE_WITHIN.as_secs());
                }
            }
            Phase::Leaving if self.users.is_empty() => return Ok(Turn::Over),
            Phase::Arriving | Phase::Talking | Phase::Leaving => {}
        }
        Ok(Turn::None)
    }

    /// The next member whose task has ended; never, if all have.
    ///
    /// # Errors
    /// Its violation.
    pub(in crate::load) async fn ended(&mut self) -> anyhow::Result<()> {
        match self.users.join_next().await {
            Some(ended) => Ok(ended.context("a member's task failed")??),
            None => std::future::pending().await,
        }
    }
}
