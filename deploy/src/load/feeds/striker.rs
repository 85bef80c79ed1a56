//! Strikes the feed's owner, whoever that is then, and waits until all is well again.

use std::path::Path;
use std::time::Duration;

use anyhow::{bail, ensure};
use futures_util::future::join_all;
use rustix::process::Signal;
use switchboard_contract::admin;
use switchboard_contract::process::UsageError;
use tokio::time::{Instant, sleep};

use super::super::churn::sum;
use super::super::siege::{Paused, all_up, read};
use super::judge::{INTERVAL, Strike};
use super::{FeedsArgs, Hall};
use crate::runfile::{Process, RunFile};

/// What is not well again after this time will not be.
const WELL_WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked whether it is.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// One question to an admin port. Who does not answer may be the owner.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
const OWNED: &str = "switchboard_history_feeds_owned";

/// Whether there is an owner to strike, and somebody to take over.
///
/// # Errors
/// If not.
pub(super) fn check(args: &FeedsArgs) -> anyhow::Result<()> {
    let run = RunFile::read(&args.target.folder)?.unwrap_or_default();
    let histories = run.processes.iter().filter(|process| process.kind() == "history").count();
    ensure!(
        args.strike.is_empty() || histories > 1,
        UsageError(format!(
            "--strike: {histories} history services run here: start it with --histories 3 (HISTORIES=3)"
        ))
    );
    Ok(())
}

/// Strikes as often as it is told, each kind in turn. What is paused goes on when this is dropped.
///
/// # Errors
/// If no owner is found, or the system is not well again in time.
pub(super) async fn run(args: &FeedsArgs, hall: &Hall) -> anyhow::Result<()> {
    let FeedsArgs { strike, times, every, pause, target, .. } = args;
    let kinds = u32::try_from(strike.len())?;
    for (n, strike) in (0..kinds.saturating_mul(*times)).zip(strike.iter().cycle()) {
        let owner = owner(&target.folder).await?;
        hall.struck(*strike, &owner);
        match strike {
            Strike::Kill => owner.id.signal(Signal::KILL),
            Strike::Drain => owner.id.signal(Signal::TERM),
            Strike::Pause => {
                let _paused = Paused::new(std::slice::from_ref(&owner));
                sleep(*pause).await;
            }
        }
        well_again(*strike, &target.folder, hall, &owner).await?;
        hall.well();
        // What comes back may take its feeds again, and that is seen before the next strike.
        sleep(*every + phase(n)).await;
    }
    Ok(())
}

/// Strikes come at all phases of the interval: else each would come as long after a poll as the one before, because
/// values are what is waited for. Multiples of the golden ratio are spread evenly, however many there are.
fn phase(n: u32) -> Duration {
    INTERVAL.mul_f64((f64::from(n) * 0.618_034).fract())
}

/// The one history service that polls the feed, where all of them answer: for a moment two may believe that they do.
async fn owner(folder: &Path) -> anyhow::Result<Process> {
    let deadline = Instant::now() + WELL_WITHIN;
    while Instant::now() < deadline {
        let mut histories = read(folder)?.processes;
        histories.retain(|process| process.kind() == "history");
        let owned = join_all(histories.iter().map(async |process| {
            let (_, metrics) = admin::ask(process.admin?, "/metrics", ASK_TIMEOUT).await.ok()?;
            Some(sum(&metrics, OWNED))
        }));
        if let Some(owned) = owned.await.into_iter().collect::<Option<Vec<u64>>>() {
            let mut owners = histories.into_iter().zip(owned).filter(|(_, owned)| *owned > 0);
            if let (Some((owner, _)), None) = (owners.next(), owners.next()) {
                return Ok(owner);
            }
        }
        sleep(LOOK_EVERY).await;
    }
    bail!("for {} s no history service said that it alone polls the feed", WELL_WITHIN.as_secs())
}

/// Waits until values come again, after a death from another owner, and whoever was struck is back.
async fn well_again(strike: Strike, folder: &Path, hall: &Hall, struck: &Process) -> anyhow::Result<()> {
    let (deadline, since) = (Instant::now() + WELL_WITHIN, hall.now());
    let dead = strike != Strike::Pause;
    while Instant::now() < deadline {
        sleep(LOOK_EVERY).await;
        let polled =
            if dead { hall.judge.borrow().is_taken_over() } else { hall.judge.borrow().has_value_since(since) };
        let processes = read(folder)?.processes;
        let again: Vec<&Process> = processes.iter().filter(|process| process.name == struck.name).collect();
        if polled && !again.is_empty() && all_up(&again, std::slice::from_ref(struck), dead).await {
            return Ok(());
        }
    }
    bail!("{} s after {} was struck, all is not well again", WELL_WITHIN.as_secs(), struck.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strikes_come_at_all_phases() {
        let mut tenths: Vec<u128> = (0..20).map(|n| phase(n).as_millis() / 100).collect();
        tenths.sort_unstable();
        tenths.dedup();
        assert_eq!(tenths, (0..10).collect::<Vec<u128>>());
    }
}
