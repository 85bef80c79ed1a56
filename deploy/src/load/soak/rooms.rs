//! The rooms' part of a soak: some that live as long as the run, and some that are born and left, again and again.

use std::rc::Rc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::Instant;

use super::super::rooms::{Counted, Course, Hall, Parts, Plan, Turn, has_histories};
use super::super::siege::{Kill, Strikes};
use super::super::world::Times;
use super::{SoakArgs, System};
use crate::token::Key;

/// Entries of a room's log that its judge remembers: many times as many as the server keeps.
const KEEP: usize = 2_000;
/// In rooms that are left, members talk for so long,
const TALKS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(25));
/// and then wait no longer than this until all lists agree, where something is killed all the time.
const QUIET_WITHIN: Duration = Duration::from_secs(20);
/// Between the end of one such room and the birth of the next, at most.
const PAUSE: Duration = Duration::from_secs(4);

/// A room, or the time until the next one.
struct Slot {
    course: Option<Course>,
    /// When the next one is born, or how long this one talks.
    until: Instant,
    talks: Option<Duration>,
    stays: bool,
}

/// All rooms.
pub(super) struct Rooms {
    slots: Vec<Slot>,
    gateways: Vec<Rc<str>>,
    counted: Rc<Counted>,
    strikes: Option<Rc<Strikes>>,
    histories: bool,
    plan: Plan,
    speaks: super::super::Speaks,
    members: u16,
    key: Option<Key>,
    prefix: String,
    began: std::time::Instant,
    seed: u64,
    rng: StdRng,
    /// Rooms that were born.
    born: u64,
}

impl Rooms {
    /// Members come.
    ///
    /// # Errors
    /// If the key of this system, or run.json, cannot be read.
    pub(super) fn begin(args: &SoakArgs, system: &System, strikes: Option<Rc<Strikes>>) -> anyhow::Result<Rooms> {
        let mut rng = StdRng::seed_from_u64(system.seed);
        let stays = (0..args.rooms).map(|_| (true, Duration::ZERO));
        // Not all at once, and not in step.
        let passes = (0..args.passing).map(|_| (false, TALKS.0.mul_f64(rng.random()))).collect::<Vec<_>>();
        let slot = |(stays, after)| Slot { course: None, until: Instant::now() + after, talks: None, stays };
        Ok(Rooms {
            slots: stays.chain(passes).map(slot).collect(),
            gateways: system.gateways.clone(),
            counted: Counted::new()?,
            strikes,
            // Whoever breaks a history service from outside leaves another one.
            histories: args.broken == Some(Kill::History) || has_histories(&args.target.folder)?,
            plan: Plan { pace: Duration::from_millis(args.room_pace), churn: args.churn },
            speaks: args.vsn,
            members: args.members,
            key: system.key()?,
            prefix: format!("soak-{}", system.unix_seconds),
            began: system.began,
            seed: system.seed,
            rng,
            born: 0,
        })
    }

    fn hall(&mut self) -> Hall {
        self.born += 1;
        Hall::new(Parts {
            plan: self.plan,
            speaks: self.speaks,
            seed: self.seed.wrapping_add(self.born.wrapping_mul(0x9E37_79B9)),
            rooms: 1,
            members: self.members,
            keep: KEEP,
            prefix: format!("{}-{}", self.prefix, self.born),
            users: format!("r{}-", self.born),
            key: self.key.clone(),
            started: self.began,
            strikes: self.strikes.clone(),
            histories: self.histories,
            counted: Rc::clone(&self.counted),
        })
    }

    /// Judges what is due; with `enough`, everybody leaves. Whether all have.
    ///
    /// # Errors
    /// A violation, or whatever else keeps members from going on.
    pub(super) fn look(&mut self, enough: bool) -> anyhow::Result<bool> {
        let mut empty = true;
        for at in 0..self.slots.len() {
            let now = Instant::now();
            if self.slots[at].course.is_none() && !enough && now >= self.slots[at].until {
                let hall = Rc::new(self.hall());
                let talks = (!self.slots[at].stays).then(|| self.rng.random_range(TALKS.0..=TALKS.1));
                self.slots[at].course = Some(Course::begin(hall, &self.gateways));
                self.slots[at].talks = talks;
            }
            let Slot { course, until, talks, .. } = &mut self.slots[at];
            let Some(here) = course else { continue };
            let talked = here.talked.is_some_and(|since| talks.is_some_and(|talks| since.elapsed() >= talks));
            let up = || self.strikes.as_ref().is_none_or(|strikes| strikes.down().is_none());
            if here.look(enough || talked, up, QUIET_WITHIN)? == Turn::Over {
                *course = None;
                *until = now + PAUSE.mul_f64(self.rng.random());
            } else {
                empty = false;
            }
        }
        Ok(enough && empty)
    }

    pub(super) fn counted(&self) -> &Counted {
        &self.counted
    }

    /// From side to side, and to the `ok`.
    pub(super) fn times(&self) -> (Times, Times) {
        self.counted.times()
    }

    /// Rooms that were born.
    pub(super) fn born(&self) -> u64 {
        self.born
    }
}
