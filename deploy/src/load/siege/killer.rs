//! Kills or pauses processes of run.json, one after the other, and waits until the system serves again.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rustix::process::Signal;
use switchboard_contract::admin;
use switchboard_contract::process::UsageError;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};

use super::super::KillArgs;
use super::orders::{Every, Kill, Turns, in_turn};
use super::pause::Paused;
use super::strikes::Strikes;
use crate::matchers::{self, Matcher};
use crate::runfile::{Process, RunFile};

/// What does not serve again after this time will not.
const UP_WITHIN: Duration = Duration::from_secs(60);
/// How often run.json is read while something is down.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// One question to an admin port.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// What the killer is told to do.
#[derive(Clone, Debug)]
pub(super) struct Orders {
    pub(super) kinds: Vec<Kill>,
    /// Somebody else does it, and says when.
    pub(super) from_outside: bool,
    every: Every,
    kills: Option<u32>,
    pause: Option<Duration>,
    drain: bool,
    /// Of the times, where they are random.
    pub(super) seed: Option<u64>,
}

impl Orders {
    /// Of the arguments; `None`: nothing is killed.
    ///
    /// # Errors
    /// If what should be killed does not run here, or nobody could judge its pause.
    pub(super) fn new(args: &KillArgs, seed: Option<u64>, folder: &Path) -> anyhow::Result<Option<Orders>> {
        if args.kill.is_empty() {
            return Ok(None);
        }
        check(args, folder)?;
        let seed = match args.every {
            Every::Fixed(_) => None,
            Every::Random(..) => Some(seed.unwrap_or_else(|| u64::from(rand::random::<u32>()))),
        };
        let KillArgs { kill, every, pause, drain, kills } = args.clone();
        Ok(Some(Orders { kinds: kill, from_outside: false, every, kills, pause, drain, seed }))
    }

    /// Somebody else breaks what is of this kind.
    pub(super) fn from_outside(kind: Kill) -> Orders {
        let every = Every::Fixed(Duration::ZERO);
        Orders { kinds: vec![kind], from_outside: true, every, kills: None, pause: None, drain: false, seed: None }
    }
}

fn check(args: &KillArgs, folder: &Path) -> anyhow::Result<()> {
    let run = RunFile::read(folder)?.unwrap_or_default();
    for kind in &args.kill {
        if kind.of(&run.processes).is_empty() {
            let (kind, folder) = (kind.as_str(), folder.display());
            bail!(UsageError(format!("--kill {kind}: {folder}/run.json names no such process")));
        }
    }
    if args.pause.is_some() && args.kill.iter().any(|kind| matches!(kind, Kill::Gateway | Kill::All)) {
        // Its sockets stay open, so that its clients' pushes are neither answered in time nor lost.
        bail!(UsageError("--pause: a gateway that is paused keeps no promise; it can be killed".into()));
    }
    Ok(())
}

/// Notes what somebody else breaks: SIGUSR2 says that something is about to break, and the next one that all serves
/// again.
///
/// # Errors
/// If signals cannot be listened to.
pub(super) async fn heed(strikes: Rc<Strikes>) -> anyhow::Result<()> {
    let mut signals = signal(SignalKind::user_defined2())?;
    while signals.recv().await.is_some() {
        match strikes.down() {
            None => strikes.orders.kinds.iter().for_each(|kind| strikes.struck(*kind, &[], "broken from outside")),
            Some(_) => strikes.served(),
        }
    }
    Ok(())
}

/// Kills until there were enough, or the run no longer wants it.
///
/// # Errors
/// If the system does not serve again within a minute.
pub(super) async fn run(strikes: Rc<Strikes>) -> anyhow::Result<()> {
    let orders = &strikes.orders;
    let mut rng = StdRng::seed_from_u64(orders.seed.unwrap_or(0));
    let mut turns = Turns::new(&orders.kinds);
    count(&strikes).await?;
    let mut next = Instant::now() + orders.every.draw(&mut rng);
    for _ in 0..orders.kills.unwrap_or(u32::MAX) {
        let Some((kill, round)) = turns.advance() else { break };
        let chosen = async {
            sleep_until(next).await;
            choose(kill, round, &strikes.folder).await
        };
        let Some(victims) = strikes.enough.run_until_cancelled(chosen).await else { break };
        let victims = victims?;
        let struck = Instant::now();
        let how = match (orders.pause, orders.drain) {
            (Some(pause), _) => format!("pause, for {:.1} s,", pause.as_secs_f64()),
            (None, true) => "stop".to_owned(),
            (None, false) => "kill".to_owned(),
        };
        strikes.struck(kill, &victims, &how);
        if kill == Kill::Matcher {
            // Beside the rest: while the old leader is paused, the new one leads already.
            tokio::task::spawn_local(watch_leader(Rc::clone(&strikes), victims.clone()));
        }
        match orders.pause {
            None => {
                let signal = if orders.drain { Signal::TERM } else { Signal::KILL };
                victims.iter().for_each(|victim| victim.id.signal(signal));
            }
            Some(pause) => {
                let _paused = Paused::new(&victims);
                let _ = strikes.enough.run_until_cancelled(sleep(pause)).await;
            }
        }
        served_again(&strikes, kill, &victims).await?;
        strikes.served();
        count(&strikes).await?;
        next = match orders.every {
            Every::Fixed(every) => struck + every,
            Every::Random(..) => Instant::now() + orders.every.draw(&mut rng),
        };
    }
    count(&strikes).await
}

/// Says when a matcher leads that was not struck.
async fn watch_leader(strikes: Rc<Strikes>, struck: Vec<Process>) {
    let deadline = Instant::now() + UP_WITHIN;
    while Instant::now() < deadline {
        sleep(LOOK_EVERY).await;
        let Ok(run) = read(&strikes.folder) else { return };
        let other = |process: &Process| struck.iter().all(|victim| victim.id != process.id);
        let others: Vec<Process> = run.processes.into_iter().filter(other).collect();
        if matchers::leader(&matchers::ask(&others).await).is_some() {
            return strikes.led();
        }
    }
}

/// What runs here.
///
/// # Errors
/// If nothing does any more.
pub(in crate::load) fn read(folder: &Path) -> anyhow::Result<RunFile> {
    RunFile::read(folder)?.context("run.json is gone: the runner has ended (see up --deaths)")
}

async fn count(strikes: &Strikes) -> anyhow::Result<()> {
    let matchers = matchers::ask(&read(&strikes.folder)?.processes).await;
    strikes.fencing.borrow_mut().note(&matchers);
    Ok(())
}

/// Those whose turn it is. A matcher is killed only while it leads and another one could take over: without one, the
/// kill would show how fast a process starts.
async fn choose(kill: Kill, round: usize, folder: &Path) -> anyhow::Result<Vec<Process>> {
    let deadline = Instant::now() + UP_WITHIN;
    while Instant::now() < deadline {
        let run = read(folder)?;
        let victims = match kill {
            Kill::Matcher => leader_with_standby(&kill.of(&run.processes)).await,
            Kill::Gateway | Kill::History | Kill::Nats | Kill::All => in_turn(kill, &run.processes, round),
        };
        if !victims.is_empty() {
            return Ok(victims);
        }
        sleep(LOOK_EVERY).await;
    }
    bail!("no {} to kill for {} s: none leads, or none stands by", kill.as_str(), UP_WITHIN.as_secs())
}

/// The leader alone, if it is known, and another one is ready, or there is no other.
async fn leader_with_standby(matchers: &[&Process]) -> Vec<Process> {
    let all: Vec<Process> = matchers.iter().copied().cloned().collect();
    let seen = matchers::ask(&all).await;
    let Some(leader) = sole_leader(&seen, all.len()) else { return Vec::new() };
    let (leads, others): (Vec<Process>, Vec<Process>) = all.into_iter().partition(|matcher| matcher.id == leader.id);
    let mut standby = others.is_empty();
    for other in &others {
        standby = standby || is_ready(other).await;
    }
    if standby { leads } else { Vec::new() }
}

/// The leader, where all of them answer and nobody else believes that it leads: one that was paused may do so for a
/// moment, and one that is silent may be the leader.
fn sole_leader(seen: &[Matcher], all: usize) -> Option<&Matcher> {
    let believers = seen.iter().filter(|matcher| matcher.leads).count();
    matchers::leader(seen).filter(|_| believers == 1 && seen.len() == all)
}

async fn is_ready(process: &Process) -> bool {
    let health = if process.kind() == "nats" { "/healthz" } else { "/health/ready" };
    match process.admin {
        Some(admin) => matches!(admin::ask(admin, health, ASK_TIMEOUT).await, Ok((200, _))),
        None => false,
    }
}

/// Waits until what was struck serves again.
async fn served_again(strikes: &Strikes, kill: Kill, struck: &[Process]) -> anyhow::Result<()> {
    let deadline = Instant::now() + UP_WITHIN;
    let killed = strikes.orders.pause.is_none();
    let random = matches!(strikes.orders.every, Every::Random(..));
    while Instant::now() < deadline {
        sleep(LOOK_EVERY).await;
        let processes = read(&strikes.folder)?.processes;
        let up = match kill {
            // Another one leads; the killed one comes back while the next kill is waited for.
            Kill::Matcher if killed && random => true,
            // One replica of three may be away at a time, not two: all must be current.
            Kill::Nats => all_up(&Kill::Nats.of(&processes), struck, killed).await,
            Kill::Matcher | Kill::Gateway | Kill::History | Kill::All => {
                let named = |process: &&Process| struck.iter().any(|victim| victim.name == process.name);
                let again: Vec<&Process> = processes.iter().filter(named).collect();
                again.len() == struck.len() && all_up(&again, struck, killed).await
            }
        };
        if up && (!matches!(kill, Kill::Matcher | Kill::All) || led(&processes, struck, killed).await) {
            return Ok(());
        }
    }
    let names: Vec<&str> = struck.iter().map(|victim| victim.name.as_str()).collect();
    bail!("{} s after {} was struck, the system does not serve again", UP_WITHIN.as_secs(), names.join(", "))
}

/// Whether all of them are ready, and none of those killed among them.
pub(in crate::load) async fn all_up(processes: &[&Process], struck: &[Process], killed: bool) -> bool {
    for process in processes {
        let same = struck.iter().any(|victim| victim.id == process.id);
        if (killed && same) || !is_ready(process).await {
            return false;
        }
    }
    true
}

/// Whether a matcher leads. One that was killed can still be in run.json; one that was paused may believe for a moment
/// that it leads, and then nobody is sure.
async fn led(processes: &[Process], struck: &[Process], killed: bool) -> bool {
    let seen = matchers::ask(processes).await;
    let leader = if killed {
        matchers::leader(&seen).filter(|leader| struck.iter().all(|victim| victim.id != leader.id))
    } else {
        sole_leader(&seen, Kill::Matcher.of(processes).len())
    };
    let Some(leader) = leader else { return false };
    match processes.iter().find(|process| process.id == leader.id) {
        Some(process) => is_ready(process).await,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runfile::ProcessId;

    #[test]
    fn a_leader_is_killed_only_where_nobody_else_can_be_it() {
        let matcher = |pid, leads, epoch| {
            let id = ProcessId { pid, started: 1 };
            Matcher { name: format!("matcher-{pid}"), id, leads, epoch, fenced: 0 }
        };
        let of = |seen: &[Matcher], all| sole_leader(seen, all).map(|leader| leader.epoch);
        assert_eq!(of(&[matcher(1, false, 4), matcher(2, true, 5)], 2), Some(5));
        assert_eq!(of(&[matcher(1, true, 4), matcher(2, true, 5)], 2), None, "one of them is stale");
        assert_eq!(of(&[matcher(2, true, 5)], 2), None, "the silent one may lead");
        assert_eq!(of(&[matcher(2, true, 5)], 1), Some(5));
        assert_eq!(of(&[matcher(1, false, 4), matcher(2, false, 5)], 2), None);
    }
}
