//! The feeds' part of a soak: members of the feeds that the runner brings with it, who are cut off and come back.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::super::Speaks;
use super::super::checker::Counts;
use super::super::guest::{Broken, Door, Guest};
use super::super::rooms::draw;
use super::super::siege::{Strikes, backoff};
use super::feed_judge::{Judge, Shown};
use super::{SoakArgs, System};
use crate::client::Incoming;

/// Of `switchboard up`, each polled every second.
const TOPICS: [&str; 2] = ["feed:lobby", "feed:gateways"];
/// Who was cut off comes back after up to this time.
const AWAY_MAX: Duration = Duration::from_secs(4);

/// What all members share.
struct Hall {
    began: std::time::Instant,
    door: Door,
    speaks: Speaks,
    gateways: Vec<Rc<str>>,
    churn: Duration,
    seed: u64,
    strikes: Option<Rc<Strikes>>,
    judges: [RefCell<Judge>; 2],
    reconnects: Cell<u64>,
    lost: RefCell<Option<String>>,
    over: CancellationToken,
}

/// All feeds.
pub(super) struct Feeds {
    hall: Rc<Hall>,
    members: JoinSet<anyhow::Result<()>>,
    /// Since when nothing is down.
    calm: Duration,
}

/// What was seen of feeds.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(super) struct Tally {
    /// Values, and how often members were shown one.
    pub(super) values: u64,
    pub(super) updates: u64,
    /// Events `stale`.
    pub(super) stale: u64,
    pub(super) reconnects: u64,
    /// Why a member lost its socket or channel last, though it was not cut off.
    lost: Option<String>,
}

impl Feeds {
    /// Members come, half of them to each feed.
    ///
    /// # Errors
    /// If the key of this system cannot be read.
    pub(super) fn begin(args: &SoakArgs, system: &System, strikes: Option<Rc<Strikes>>) -> anyhow::Result<Feeds> {
        let each = usize::try_from(args.feed_members.div_ceil(2))?;
        let hall = Rc::new(Hall {
            began: system.began,
            door: Door::new(&args.target.folder)?,
            speaks: args.vsn,
            gateways: system.gateways.clone(),
            churn: args.churn,
            seed: system.seed,
            strikes,
            judges: TOPICS.map(|topic| RefCell::new(Judge::new(topic, each))),
            reconnects: Cell::new(0),
            lost: RefCell::default(),
            over: CancellationToken::new(),
        });
        let mut members = JoinSet::new();
        for n in 0..args.feed_members {
            members.spawn_local(live(Rc::clone(&hall), n));
        }
        Ok(Feeds { hall, members, calm: Duration::ZERO })
    }

    /// Judges what is due; with `enough`, everybody leaves. Whether all have.
    ///
    /// # Errors
    /// A [`Broken`] rule, or whatever else keeps members from going on.
    pub(super) fn look(&mut self, enough: bool, lobby: Option<Counts>) -> anyhow::Result<bool> {
        while let Some(ended) = self.members.try_join_next() {
            ended.context("a member's task failed")??;
        }
        let now = self.hall.now();
        if self.hall.strikes.as_ref().is_some_and(|strikes| strikes.down().is_some()) {
            self.calm = now;
        }
        if enough {
            self.hall.over.cancel();
            return Ok(self.members.is_empty());
        }
        for judge in &self.hall.judges {
            judge.borrow_mut().look(now, lobby, self.calm)?;
        }
        Ok(false)
    }

    /// Whether no member is on its way.
    pub(super) fn all_are_here(&self) -> bool {
        self.hall.judges.iter().all(|judge| judge.borrow().all_are_here())
    }

    pub(super) fn tally(&self) -> Tally {
        let mut tally =
            Tally { reconnects: self.hall.reconnects.get(), lost: self.hall.lost.borrow().clone(), ..Tally::default() };
        for judge in &self.hall.judges {
            let judge = judge.borrow();
            tally.values += judge.values;
            tally.updates += judge.updates;
            tally.stale += judge.stales;
        }
        tally
    }
}

/// A member's whole life, over all its sockets.
async fn live(hall: Rc<Hall>, n: u32) -> anyhow::Result<()> {
    let mut rng = StdRng::seed_from_u64(hall.seed.wrapping_add(u64::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let (feed, member) = (usize::try_from(n % 2)?, usize::try_from(n / 2)?);
    let mut tries = 0;
    // Each feed has members of both serializers on each gateway.
    for at in usize::try_from(n / 4)?.. {
        let url = &hall.gateways[at % hall.gateways.len()];
        let met = hall.meet(url, n, feed, member, &mut rng).await;
        hall.judges[feed].borrow_mut().lost(member);
        let away = match met {
            Ok(true) => return Ok(()),
            Ok(false) => {
                tries = 0;
                AWAY_MAX.mul_f64(rng.random())
            }
            Err(Failed::Rule(broken)) => return Err(broken),
            Err(Failed::Lost(error)) if hall.strikes.is_none() => {
                return Err(Broken(format!("{}, member {member}: {error:#}", TOPICS[feed])).into());
            }
            Err(Failed::Lost(error)) => {
                hall.lost.replace(Some(format!("{}: {error:#}", TOPICS[feed])));
                tries += 1;
                backoff::socket(tries)
            }
        };
        hall.reconnects.set(hall.reconnects.get() + 1);
        if hall.over.run_until_cancelled(sleep(away)).await.is_none() {
            return Ok(());
        }
    }
    Ok(())
}

/// Why a member is not there any more.
enum Failed {
    /// What came cannot be.
    Rule(anyhow::Error),
    /// It could not come, or its socket or channel was lost; where nothing is killed, that is against the rules too.
    Lost(anyhow::Error),
}

impl Hall {
    /// The time since the run began.
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Joins, and looks at what comes until the run is over (`true`) or it is cut off.
    async fn meet(&self, url: &str, n: u32, feed: usize, member: usize, rng: &mut StdRng) -> Result<bool, Failed> {
        let (topic, judge, user) = (TOPICS[feed], &self.judges[feed], format!("listener-{n}"));
        let joining = self.door.join(self.speaks.vsn(n / 2), url, topic.to_owned(), &user, json!({})).await;
        let (mut guest, response): (Guest, _) = joining.map_err(Failed::Lost)?;
        let shown = serde_json::from_value::<Shown>(response).map_err(|error| Failed::Rule(rule(topic, &error)))?;
        judge.borrow_mut().joined(self.now(), member, &shown).map_err(|broken| Failed::Rule(broken.into()))?;
        let goes = draw(self.churn, rng).map(|after| Instant::now() + after);
        loop {
            tokio::select! {
                incoming = guest.next() => {
                    let incoming = incoming.map_err(Failed::Lost)?;
                    self.take(feed, member, &incoming)?;
                }
                () = sleep_until(goes.unwrap_or_else(Instant::now)), if goes.is_some() => return Ok(false),
                () = self.over.cancelled() => {
                    guest.close().await;
                    return Ok(true);
                }
            }
        }
    }

    /// What a member is sent.
    fn take(&self, feed: usize, member: usize, incoming: &Incoming) -> Result<(), Failed> {
        let frame = incoming.frame().map_err(|error| Failed::Rule(rule(TOPICS[feed], &error)))?;
        let mut judge = self.judges[feed].borrow_mut();
        match &*frame.event {
            "update" => {
                let payload = frame.payload.json().unwrap_or_default();
                let shown = serde_json::from_str(payload).map_err(|error| Failed::Rule(rule(TOPICS[feed], &error)))?;
                judge.updated(self.now(), member, &shown).map_err(|broken| Failed::Rule(broken.into()))
            }
            "stale" => {
                judge.stale(self.now(), member);
                Ok(())
            }
            "phx_error" | "phx_close" => Err(Failed::Lost(anyhow!("{} came", frame.event))),
            _ => Ok(()),
        }
    }
}

fn rule(topic: &str, error: &dyn std::fmt::Display) -> anyhow::Error {
    Broken(format!("{topic}: {error}")).into()
}
