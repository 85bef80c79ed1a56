//! `switchboard load soak`: lobby, rooms and feeds at once, for as long as it takes to see what grows.
//!
//! `lobby`, `rooms` and `feeds` play users that come, go and are cut off, each judged as in the run of that name, feeds
//! by `feed_judge`; what judges remember is bounded. `sample` looks at processes and NATS meanwhile, `series` keeps
//! what it saw, `growth` says what grows, `chart` draws it, `report` says it. Here: the run as a whole.

mod chart;
mod feed_judge;
mod feeds;
mod growth;
mod lobby;
mod report;
mod rooms;
mod sample;
mod series;

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use switchboard_contract::limits;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::checker::Violation;
use super::churn::{Look, Traces};
use super::guest::Broken;
use super::measure::Meter;
use super::progress::{Bar, Progress};
use super::siege::{Kill, Strikes};
use super::target::Target;
use super::{KillArgs, Speaks, TargetArgs, interrupted, world};
use crate::client::Vsn;
use crate::runfile::RunFile;
use crate::token::Key;
use feeds::Feeds;
use lobby::Lobby;
use report::SoakReport;
use rooms::Rooms;
use sample::Sampler;
use series::Samples;

/// How often the run looks at itself.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often it is looked whether all is gone.
const SETTLE_EVERY: Duration = Duration::from_secs(1);
/// When its time is over, everybody has left within this time.
const LEAVE_WITHIN: Duration = Duration::from_secs(240);
/// What is kept for a while is steady so much later than the first of it goes.
const STEADY_AFTER: Duration = Duration::from_secs(15);
/// Growth is judged in runs of at least so much: in shorter ones, everything still warms up.
const JUDGED_FROM: Duration = Duration::from_secs(120);

/// Arguments of `switchboard load soak`.
#[derive(Debug, clap::Args)]
pub(super) struct SoakArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// How long.
    #[arg(long, default_value_t = 60, conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
    /// How long, for short runs; SIGUSR1 ends any before its time. Below two minutes nothing is said of growth.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    seconds: Option<u64>,
    /// Which serializers members of rooms and feeds speak; those of the lobby speak V1 with 1, and else V2.
    #[arg(long, default_value = "mix")]
    vsn: Speaks,
    /// Students that are there at a time; each leaves when it was served, and another one comes.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    students: u32,
    /// Teachers. Where they have places for all students, none may wait for more than 90 s.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    teachers: u32,
    /// Chats of a teacher at once.
    #[arg(long, default_value_t = limits::CAPACITY_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=50))]
    capacity: u32,
    /// Messages each way in every chat.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    messages: u32,
    /// Each side of a chat waits so many milliseconds before it answers.
    #[arg(long, default_value_t = 4_000, value_name = "MS")]
    pace: u64,
    /// Rooms that live as long as the run.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    rooms: u32,
    /// Rooms at a time that are born, talked in for 5 to 25 s, and left.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    passing: u32,
    /// Members of a room.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    members: u16,
    /// A member of a room waits so many milliseconds between a reply and its next push. Where the gateways limit users,
    /// members that say the same more often than four times in 10 s are told to wait.
    #[arg(long, default_value_t = 5_000, value_name = "MS")]
    room_pace: u64,
    /// Members of `feed:lobby` and `feed:gateways`, half of each; 0 where there are no such feeds.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    feed_members: u32,
    /// Mean time until a user is cut off, or leaves before its time: 10s. With 0 they stay.
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = super::rooms::churn)]
    churn: Duration,
    /// Where the chart is written; without it, to soak.svg in the folder of run.json.
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// After everybody has left, all must be as before within so many seconds; 0: it is not looked at.
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    settle: u64,
    #[command(flatten)]
    kill: KillArgs,
    /// Somebody else breaks such processes during the run: a first SIGUSR2 tells it that they are about to break, and a
    /// second one that they serve again.
    #[arg(long, value_name = "WHAT", conflicts_with = "kill")]
    broken: Option<Kill>,
    /// Repeats the chances of an earlier run.
    #[arg(long)]
    seed: Option<u64>,
}

impl SoakArgs {
    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(self.minutes * 60))
    }

    /// How long a chat takes in which nobody is cut off.
    fn chat(&self) -> Duration {
        Duration::from_millis(self.pace) * 2 * self.messages
    }

    /// From when on as much is forgotten as is added: entries of the log at this age, and chats some time after the
    /// slowest of the first ones is over.
    fn steady(&self, log_age: Duration) -> Duration {
        log_age.max(self.chat() * 3 / 2 + limits::CHAT_LINGER) + STEADY_AFTER
    }

    fn lobby_vsn(&self) -> Vsn {
        if self.vsn == Speaks::V1 { Vsn::V1 } else { Vsn::V2 }
    }
}

/// What all three kinds of traffic have to know.
struct System {
    gateways: Vec<Rc<str>>,
    folder: PathBuf,
    unix_seconds: u64,
    began: Instant,
    seed: u64,
}

impl System {
    /// Signs tokens, where they are verified.
    fn key(&self) -> anyhow::Result<Option<Key>> {
        world::key(&self.folder)
    }
}

/// What was found by each judge; `None`: nothing.
#[derive(Debug, Default, serde::Serialize)]
struct Verdicts {
    lobby: Option<String>,
    rooms: Option<String>,
    feeds: Option<String>,
    /// What grew.
    growth: Vec<String>,
    /// What was left behind when everybody had gone.
    left: Option<String>,
}

impl Verdicts {
    /// Whether users saw something that cannot be.
    fn is_broken(&self) -> bool {
        self.lobby.is_some() || self.rooms.is_some() || self.feeds.is_some()
    }
}

/// What processes hold, where they run here.
struct Local {
    look: Look,
    before: Traces,
    /// The age at which the log forgets.
    log_age: Duration,
    samples: Rc<RefCell<Samples>>,
    meter: Meter,
}

/// Whether there is traffic of all kinds: in the beginning, and whenever what was broken serves again. A member of a
/// feed that joins while something is broken may be refused, which no test could tell from one that was thrown out: so
/// feeds flow when all their members are there.
#[derive(Debug, Default)]
struct Flow {
    /// How much of each kind there had been, when it was looked for.
    base: [u64; 4],
    flows: [bool; 4],
    /// How often it was looked for.
    round: u32,
}

impl Flow {
    const KINDS: [&str; 4] = ["matches", "chats", "rooms", "feeds"];

    /// Which kinds do from now on, and did not before. `here`: all members of feeds are.
    fn look(&mut self, seen: [u64; 4], here: bool, round: Option<u32>) -> Vec<&'static str> {
        let Some(round) = round else { return Vec::new() };
        if self.round != round {
            *self = Flow { base: seen, flows: [false; 4], round };
        }
        let mut began = Vec::new();
        for (at, kind) in Self::KINDS.into_iter().enumerate() {
            if !self.flows[at] && seen[at] > self.base[at] && (here || kind != "feeds") {
                self.flows[at] = true;
                began.push(kind);
            }
        }
        if !began.is_empty() && self.flows == [true; 4] {
            began.push("all");
        }
        began
    }
}

struct Run<'a> {
    args: &'a SoakArgs,
    began: Instant,
    lobby: Lobby,
    rooms: Rooms,
    feeds: Feeds,
    strikes: Option<Rc<Strikes>>,
    verdicts: Verdicts,
    local: Option<Local>,
    flow: Flow,
    /// It has been told that this is enough.
    enough: bool,
    /// When users were told to leave.
    ended: Option<Instant>,
}

/// Runs it.
///
/// # Errors
/// If there is nothing to put load on, or the chart cannot be written.
pub(super) async fn run(args: &SoakArgs) -> anyhow::Result<ExitCode> {
    let target = Target::find(&args.target)?;
    target.wait_until_empty().await?;
    let folder = &args.target.folder;
    let seed = args.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    eprintln!("--seed {seed} repeats the chances of this run");
    let here = args.target.gateways.is_empty() && RunFile::read(folder)?.is_some();
    let before = if here {
        let look = Look::new(folder).await?;
        let before = look.at_rest().await?;
        let log_age = look.log_max_age().await?;
        hint(args, log_age);
        Some((look, before, log_age))
    } else {
        eprintln!("nothing of this system runs here: its processes are not looked at");
        None
    };
    let unix_seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let (gateways, began) = (target.gateways().to_vec(), Instant::now());
    let system = System { gateways, folder: folder.clone(), unix_seconds, began, seed };
    let strikes = match args.broken {
        Some(kind) => Some(Strikes::from_outside(kind, folder, began)),
        None => Strikes::new(&args.kill, Some(seed), folder, began)?,
    };
    let mut run = Run {
        args,
        began,
        lobby: Lobby::begin(args, &system, strikes.clone())?,
        rooms: Rooms::begin(args, &system, strikes.clone())?,
        feeds: Feeds::begin(args, &system, strikes.clone())?,
        strikes,
        verdicts: Verdicts::default(),
        local: None,
        flow: Flow::default(),
        enough: false,
        ended: None,
    };
    if let Some((look, before, log_age)) = before {
        let sampler = Sampler::new(folder, began);
        run.local = Some(Local { look, before, log_age, samples: sampler.samples(), meter: Meter::start(folder)? });
        tokio::task::spawn_local(sampler.run());
    }
    if let Some(strikes) = &run.strikes {
        strikes.begin();
    }
    let mut progress = Progress::new();
    let played = tokio::select! {
        played = run.play(&mut progress) => played.map(|()| false),
        interrupted = interrupted() => interrupted.context("cannot listen to signals").map(|()| true),
    };
    progress.end();
    let interrupted = played?;
    SoakReport::of(run, seed, interrupted)?.end(args)
}

/// Says how the log can be made steady within the run, where it is not.
fn hint(args: &SoakArgs, log_age: Duration) {
    let (steady, left) = (args.steady(log_age) <= args.time() / 2, log_age <= Duration::from_secs(args.settle));
    let not_judged = match (steady, left) {
        (true, true) => return,
        (false, true) => "the growth of what is kept",
        (true, false) => "what is left in the end",
        (false, false) => "the growth of what is kept, and what is left in the end,",
    };
    let age = log_age.as_secs();
    eprintln!(
        "the log keeps entries for {age} s, a chat takes {} s, and is kept for a minute: {not_judged} will not be judged. \
         The run can be longer, chats shorter (--messages, --pace), and the system can be started with \
         SWITCHBOARD_LOG_MAX_AGE_MS=60000 SWITCHBOARD_ROOM_LINGER_MS=5000",
        args.chat().as_secs()
    );
}

/// What a judge of this kind has found; what is no broken rule is an error of the run.
fn verdict<V, T>(outcome: anyhow::Result<T>, found: &mut Option<String>) -> anyhow::Result<Option<T>>
where
    V: std::error::Error + Send + Sync + 'static,
{
    match outcome {
        Ok(fine) => Ok(Some(fine)),
        Err(error) => {
            *found = Some(error.downcast::<V>()?.to_string());
            Ok(None)
        }
    }
}

impl Run<'_> {
    /// Plays until everybody has left and all is as before, or a rule is broken.
    async fn play(&mut self, progress: &mut Progress) -> anyhow::Result<()> {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut enough = signal(SignalKind::user_defined1())?;
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                _ = enough.recv() => self.enough = true,
            }
            let over = self.look()?;
            if self.verdicts.is_broken() {
                return Ok(());
            }
            progress.show(&self.bars());
            if over {
                return self.settle(progress).await;
            }
        }
    }

    /// Whether everybody has left.
    fn look(&mut self) -> anyhow::Result<bool> {
        if let Some(strikes) = &self.strikes {
            strikes.failure()?;
            if let Some(local) = &mut self.local {
                local.meter.look()?;
            }
        }
        let time = self.began.elapsed();
        // What was killed last is up before users leave.
        let enough =
            (self.enough || time >= self.args.time()) && self.strikes.as_ref().is_none_or(|strikes| strikes.end());
        if enough && self.ended.is_none() {
            self.ended = Some(Instant::now());
        }
        if self.ended.is_some_and(|ended| ended.elapsed() > LEAVE_WITHIN) {
            bail!("not everybody has left within {} s", LEAVE_WITHIN.as_secs());
        }
        if self.args.broken.is_some() {
            let round = self.strikes.as_ref().and_then(|strikes| strikes.rounds());
            let (lobby, rooms, feeds) = (self.lobby.tally(), self.rooms.counted().tally(), self.feeds.tally());
            let seen = [lobby.chats.into(), lobby.messages, rooms.messages, feeds.updates];
            for kind in self.flow.look(seen, self.feeds.all_are_here(), round) {
                eprintln!("{:.1} s: {kind} flow", time.as_secs_f64());
            }
        }
        let Verdicts { lobby, rooms, feeds, .. } = &mut self.verdicts;
        let counts = self.lobby.counts();
        let gone = [
            verdict::<Violation, _>(self.lobby.look(enough), lobby)?,
            verdict::<super::rooms::Violation, _>(self.rooms.look(enough), rooms)?,
            verdict::<Broken, _>(self.feeds.look(enough, counts), feeds)?,
        ];
        Ok(gone.iter().all(|gone| *gone == Some(true)))
    }

    /// Waits until there is no more than before, where that is to be expected within the time it has.
    async fn settle(&mut self, progress: &mut Progress) -> anyhow::Result<()> {
        let Some(local) = &self.local else { return Ok(()) };
        let settle = Duration::from_secs(self.args.settle);
        if local.log_age > settle {
            return Ok(());
        }
        let until = Instant::now() + settle;
        loop {
            let traces = local.look.look().await?;
            let more = traces.more_than(&local.before);
            if more.is_none() || Instant::now() > until {
                self.verdicts.left = more;
                return Ok(());
            }
            progress.show(&[Bar { what: "left", now: 0, of: 0, beside: traces.to_string() }]);
            sleep(SETTLE_EVERY).await;
        }
    }

    fn bars(&self) -> Vec<Bar> {
        let bar = |what, now, of, beside| Bar { what, now, of, beside };
        let (lobby, rooms, feeds) = (self.lobby.tally(), self.rooms.counted().tally(), self.feeds.tally());
        let time = self.args.time().as_secs();
        let words = format!(
            "{} chats, {} of {} students done, {} messages in chats, {} in {} rooms, {} values of feeds",
            lobby.chats,
            lobby.served,
            lobby.ready,
            lobby.messages,
            rooms.messages,
            self.rooms.born(),
            feeds.values,
        );
        vec![bar("seconds", self.began.elapsed().as_secs().min(time), time, words)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_flow_when_there_is_traffic_of_each_kind_and_all_members_of_feeds_are_there() {
        let mut flow = Flow::default();
        assert_eq!(flow.look([1, 1, 0, 1], false, Some(0)), ["matches", "chats"]);
        assert!(flow.look([1, 1, 1, 1], false, None).is_empty(), "broken");
        assert_eq!(flow.look([1, 1, 1, 1], true, Some(0)), ["rooms", "feeds", "all"]);
        assert!(flow.look([9, 9, 9, 9], true, Some(1)).is_empty(), "looked for anew");
        assert_eq!(flow.look([10, 10, 10, 10], true, Some(1)), ["matches", "chats", "rooms", "feeds", "all"]);
    }
}
