//! `switchboard load feeds`: one feed of many members, while its owner is struck.
//!
//! Its source is a table that gets a row with each poll, so that polls are counted where they arrive. `judge` says
//! whether what members see can be, `polls` whether what is in the `database` can; `striker` strikes the owner. Here:
//! the run as a whole, and a member.

mod database;
mod judge;
mod polls;
mod report;
mod striker;

use std::cell::{Cell, RefCell};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::end::End;
use super::guest::{Broken, Door, first_failure};
use super::lobby::ARRIVALS;
use super::measure::{Costs, Meter};
use super::progress::{Bar, Progress};
use super::target::Target;
use super::{Speaks, TargetArgs, interrupted};
use crate::client::Incoming;
use crate::runfile::Process;
use database::Table;
use judge::{Judge, Strike, Version};
use report::{FeedsReport, Seen};

/// `deploy/load-feeds.toml` configures it.
const TOPIC: &str = "feed:load";
/// How often the run looks at itself.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// All members are there, and have been shown a value, within this time.
const ARRIVE_WITHIN: Duration = Duration::from_secs(60);

/// Arguments of `switchboard load feeds`.
#[derive(Debug, clap::Args)]
pub(super) struct FeedsArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// The PostgreSQL that the feed polls, without TLS: postgres://user:password@host/db. Its table
    /// switchboard_load_polls is made anew.
    #[arg(long, env = "LOAD_DATABASE", value_name = "URL", hide_env_values = true)]
    database: String,
    /// Members of the feed, spread over the gateways.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    members: u32,
    /// Which serializers members speak.
    #[arg(long, default_value = "mix")]
    vsn: Speaks,
    /// How long it is watched, without --strike.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// What is done to the history service that polls the feed at that moment; of several, separated by commas, each
    /// has its turn. The runner must bear it: `switchboard up --deaths 1000`.
    #[arg(long, value_name = "HOW", value_delimiter = ',')]
    strike: Vec<Strike>,
    /// So many strikes of each kind.
    #[arg(long, default_value_t = 20, requires = "strike", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    times: u32,
    /// From the moment when all is well again to the next strike, and up to a second more, so that strikes come at all
    /// phases of the interval.
    #[arg(long, default_value = "15s", value_name = "TIME", value_parser = super::duration, requires = "strike")]
    every: Duration,
    /// For how long the owner is paused.
    #[arg(long, default_value = "20s", value_name = "TIME", value_parser = super::duration, requires = "strike")]
    pause: Duration,
}

/// What all members of a run share.
struct Hall {
    began: Instant,
    door: Door,
    judge: RefCell<Judge>,
    joined: Cell<u32>,
    /// Strikes after which all is well again.
    well: Cell<u32>,
    over: CancellationToken,
}

/// What a reply to a join and an `update` say; both null before the first poll.
#[derive(Deserialize)]
struct Shown {
    value: Option<i64>,
    version: Option<Version>,
}

/// Runs it.
///
/// # Errors
/// If there is nothing to put load on, or to strike, or the database fails.
pub(super) async fn run(args: &FeedsArgs) -> anyhow::Result<ExitCode> {
    let target = Target::find(&args.target)?;
    striker::check(args)?;
    let mut meter = Meter::start(&args.target.folder)?;
    let began = Instant::now();
    let table = Table::make(&args.database, began).await?;
    let hall = Rc::new(Hall {
        began,
        door: Door::new(&args.target.folder)?,
        judge: RefCell::new(Judge::new(usize::try_from(args.members)?)),
        joined: Cell::new(0),
        well: Cell::new(0),
        over: CancellationToken::new(),
    });
    let (mut members, arrivals) = (JoinSet::new(), Rc::new(Semaphore::new(ARRIVALS)));
    for n in 0..args.members {
        // Each gateway has members of both serializers.
        let gateway = usize::try_from(n / 2)? % target.gateways().len();
        let url = Rc::clone(&target.gateways()[gateway]);
        members.spawn_local(play(Rc::clone(&hall), n, args.vsn, url, Rc::clone(&arrivals)));
    }
    let mut progress = Progress::new();
    let watched = tokio::select! {
        watched = hall.watch(args, &mut meter, &mut progress) => watched.map(|()| false),
        failed = first_failure(&mut members) => failed.map(|()| false),
        interrupted = interrupted() => interrupted.context("cannot listen to signals").map(|()| true),
    };
    let costs = meter.read()?;
    let watched = match watched {
        Ok(false) => {
            hall.over.cancel();
            first_failure(&mut members).await.map(|()| false)
        }
        other => other,
    };
    progress.end();
    hall.report(args, target.gateways().len(), watched, &table, costs).await
}

impl Hall {
    /// The time since the run began.
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// The owner is about to be struck.
    fn struck(&self, strike: Strike, owner: &Process) {
        let at = self.now();
        eprintln!("{:.1} s: {} {}", at.as_secs_f64(), strike.as_str(), owner.name);
        self.judge.borrow_mut().struck(at, strike);
    }

    /// All is well again after a strike.
    fn well(&self) {
        self.well.set(self.well.get() + 1);
    }

    /// Waits until all are there, and watches for as long as it is told, or while the owner is struck.
    async fn watch(&self, args: &FeedsArgs, meter: &mut Meter, progress: &mut Progress) -> anyhow::Result<()> {
        let arrive_by = self.now() + ARRIVE_WITHIN;
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.judge.borrow().is_fresh() {
            looks.tick().await;
            progress.show(&self.bars(args, None));
            if self.now() > arrive_by {
                let (joined, members, seconds) = (self.joined.get(), args.members, ARRIVE_WITHIN.as_secs());
                bail!("{joined} of {members} members have joined {TOPIC} within {seconds} s, or it gives no values");
            }
        }
        // Only what is shown is measured, not the arrival.
        meter.restart()?;
        self.judge.borrow_mut().begin();
        let begun = self.now();
        let work = async {
            if args.strike.is_empty() {
                sleep(Duration::from_secs(args.seconds)).await;
            }
            striker::run(args, self).await
        };
        tokio::pin!(work);
        let mut done = false;
        loop {
            tokio::select! {
                biased;
                _ = looks.tick() => {
                    if !args.strike.is_empty() {
                        meter.look()?;
                    }
                    self.judge.borrow_mut().look(self.now())?;
                    progress.show(&self.bars(args, Some(begun)));
                    if done && self.judge.borrow().is_settled() {
                        return Ok(());
                    }
                }
                worked = &mut work, if !done => {
                    worked?;
                    done = true;
                }
            }
        }
    }

    fn bars(&self, args: &FeedsArgs, begun: Option<Duration>) -> Vec<Bar> {
        let tally = self.judge.borrow().tally();
        let bar = |what, now, of, beside| Bar { what, now, of, beside };
        let (deliveries, stale) = (tally.deliveries, tally.stale);
        let seen = format!("{deliveries} values shown, {stale} times stale");
        let strikes = u64::from(args.times) * u64::try_from(args.strike.len()).unwrap_or(u64::MAX);
        let second = match (strikes, begun) {
            (0, Some(begun)) => bar("seconds", (self.now() - begun).as_secs().min(args.seconds), args.seconds, seen),
            (0, None) => bar("seconds", 0, args.seconds, String::new()),
            (strikes, _) => bar("strikes", self.well.get().into(), strikes, seen),
        };
        vec![bar("joined", self.joined.get().into(), args.members.into(), String::new()), second]
    }

    /// What a member is sent.
    fn take(&self, member: usize, incoming: &Incoming) -> anyhow::Result<()> {
        let frame = incoming.frame().map_err(|error| Broken(error.to_string()))?;
        match &*frame.event {
            "update" => {
                let payload = frame.payload.json().unwrap_or_default();
                let Ok(Shown { value: Some(n), version: Some(version) }) = serde_json::from_str(payload) else {
                    bail!(Broken(format!("member {member} was shown {payload}")));
                };
                self.judge.borrow_mut().updated(self.now(), member, version, n)?;
            }
            "stale" => self.judge.borrow_mut().stale(member),
            "phx_error" | "phx_close" => bail!(Broken(format!("{} came to member {member}", frame.event))),
            _ => {}
        }
        Ok(())
    }

    async fn report(
        &self,
        args: &FeedsArgs,
        gateways: usize,
        watched: anyhow::Result<bool>,
        table: &Table,
        costs: Costs,
    ) -> anyhow::Result<ExitCode> {
        let ended = self.now();
        let rows = table.rows().await?;
        let judge = self.judge.borrow();
        let judged = judge.ends().map(|ends| polls::judge(&rows, ends, !judge.strikes().is_empty())).transpose();
        let polls = judged.as_ref().ok().copied().flatten().unwrap_or_default();
        let outcome = watched.and_then(|interrupted| Ok(judged.map(|_| interrupted)?));
        let end = End::of::<Broken>(outcome)?;
        let code = end.code;
        let seen = Seen { gateways, judge: &judge, polls, kinds: report::kinds(judge.strikes(), &rows, ended) };
        FeedsReport::new(args, seen, costs, end).print(args.target.json)?;
        Ok(code)
    }
}

/// One member: joins, and looks at what it is shown.
async fn play(hall: Rc<Hall>, n: u32, speaks: Speaks, url: Rc<str>, arrivals: Rc<Semaphore>) -> anyhow::Result<()> {
    let arrival = arrivals.acquire().await;
    let user = format!("member-{n}");
    let (mut guest, response) = hall.door.join(speaks.vsn(n), &url, TOPIC.into(), &user, json!({})).await?;
    drop(arrival);
    let member = usize::try_from(n)?;
    let said = response.to_string();
    let shown: Shown = serde_json::from_value(response).map_err(|_| Broken(format!("member {n} joined: {said}")))?;
    hall.judge.borrow_mut().joined(hall.now(), member, shown.version.zip(shown.value))?;
    hall.joined.set(hall.joined.get() + 1);
    let watched = async {
        loop {
            tokio::select! {
                incoming = guest.next() => hall.take(member, &incoming?)?,
                () = hall.over.cancelled() => return anyhow::Ok(()),
            }
        }
    };
    watched.await?;
    guest.close().await;
    Ok(())
}
