//! Kills processes of run.json, one after the other, and waits until the runner has them up again.

use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use rustix::process::Signal;
use switchboard_contract::admin;
use switchboard_contract::limits::REQUEST_TIMEOUT;
use switchboard_contract::lobby::Leader;
use switchboard_contract::names::MatcherVerb;
use switchboard_contract::process::UsageError;
use switchboard_contract::wire;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Siege;
use crate::runfile::{Process, RunFile};

/// A process that is not up again after this time will not be.
const UP_WITHIN: Duration = Duration::from_secs(60);
/// How often run.json is read while one is down.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// One question to an admin port, or to NATS.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::load) enum Kill {
    /// The leading matcher.
    Matcher,
    /// The gateways in turn.
    Gateway,
    /// The history service.
    History,
    /// The NATS server.
    Nats,
}

impl Kill {
    /// How the names in run.json begin: `matcher`, or `matcher-1`…
    fn prefix(self) -> &'static str {
        match self {
            Kill::Matcher => "matcher",
            Kill::Gateway => "gateway",
            Kill::History => "history",
            Kill::Nats => "nats",
        }
    }

    fn health(self) -> &'static str {
        match self {
            Kill::Nats => "/healthz",
            Kill::Matcher | Kill::Gateway | Kill::History => "/health/ready",
        }
    }

    fn is(self, name: &str) -> bool {
        name.strip_prefix(self.prefix()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }
}

/// The one whose turn it is: the leader where one is known, else one after the other.
fn choose<'a>(kill: Kill, processes: &'a [Process], leader: Option<&str>, turn: usize) -> Option<&'a Process> {
    let of_kind: Vec<&Process> = processes.iter().filter(|process| kill.is(&process.name)).collect();
    let leads = of_kind.iter().find(|process| Some(process.name.as_str()) == leader);
    leads.copied().or_else(|| of_kind.get(turn % of_kind.len().max(1)).copied())
}

/// Makes sure that there is something to kill.
pub(super) fn check(kill: Kill, folder: &Path) -> anyhow::Result<()> {
    let run = RunFile::read(folder)?.unwrap_or_default();
    match choose(kill, &run.processes, None, 0) {
        Some(_) => Ok(()),
        None => {
            bail!(UsageError(format!("--kill {}: {}/run.json names no such process", kill.prefix(), folder.display())))
        }
    }
}

/// Kills until `kills` are done, or the run no longer wants it.
pub(super) async fn run(siege: Rc<Siege>) -> anyhow::Result<()> {
    let mut turn = 0;
    let mut next = Instant::now() + siege.every;
    while siege.kills.is_none_or(|kills| turn < kills) {
        tokio::select! {
            () = siege.enough.cancelled() => return Ok(()),
            () = sleep_until(next) => {}
        }
        next = Instant::now() + siege.every;
        let run = RunFile::read(&siege.folder)?.context("run.json is gone: the runner has ended")?;
        let leader = leader(siege.kill, &run).await;
        let turn_now = usize::try_from(turn).unwrap_or(usize::MAX);
        let victim = choose(siege.kill, &run.processes, leader.as_deref(), turn_now);
        let victim = victim.context("run.json no longer names it")?;
        siege.killed(&victim.name);
        victim.id.signal(Signal::KILL);
        up_again(&siege, victim).await?;
        turn += 1;
    }
    Ok(())
}

/// Waits until run.json names another process of that name, and it is ready.
async fn up_again(siege: &Siege, killed: &Process) -> anyhow::Result<()> {
    let deadline = Instant::now() + UP_WITHIN;
    while Instant::now() < deadline {
        sleep(LOOK_EVERY).await;
        let run = RunFile::read(&siege.folder)?.context("run.json is gone: the runner has ended (see up --deaths)")?;
        let later = run.processes.iter().find(|process| process.name == killed.name && process.id != killed.id);
        if let Some(admin) = later.and_then(|process| process.admin)
            && matches!(admin::ask(admin, siege.kill.health(), ASK_TIMEOUT).await, Ok((200, _)))
        {
            return Ok(());
        }
    }
    bail!("{} is not up again {} s after it was killed", killed.name, UP_WITHIN.as_secs())
}

/// The name in run.json of the matcher that leads: the one whose metrics carry the leader's name. `None` if there is
/// only one, or it cannot be told.
async fn leader(kill: Kill, run: &RunFile) -> Option<String> {
    let matchers: HashMap<&str, _> =
        run.processes.iter().filter(|p| kill.is(&p.name)).filter_map(|p| Some((p.name.as_str(), p.admin?))).collect();
    if kill != Kill::Matcher || matchers.len() < 2 {
        return None;
    }
    let options = async_nats::ConnectOptions::new().name("switchboard-load").connection_timeout(ASK_TIMEOUT);
    let client = options.connect(run.nats_url.as_str()).await.ok()?;
    let asked =
        timeout(REQUEST_TIMEOUT, client.request(MatcherVerb::Status.subject(), Bytes::new())).await.ok()?.ok()?;
    let Leader { leader, .. } = wire::decode("leader", &asked.payload).ok()?;
    for (name, admin) in matchers {
        if admin::ask(admin, "/metrics", ASK_TIMEOUT).await.is_ok_and(|(_, text)| text.contains(leader.as_str())) {
            return Some(name.to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runfile::ProcessId;

    #[test]
    fn the_leader_goes_first_and_others_in_turn() {
        let process =
            |name: &str| Process { name: name.into(), id: ProcessId { pid: 1, started: 1 }, addr: None, admin: None };
        let all: Vec<Process> =
            ["nats", "matcher-1", "matcher-2", "history", "gateway-1", "gateway-2"].map(process).into();
        let of = |kill, leader, turn| choose(kill, &all, leader, turn).map(|process| process.name.as_str());
        assert_eq!(
            [0, 1, 2].map(|turn| of(Kill::Gateway, None, turn).unwrap()),
            ["gateway-1", "gateway-2", "gateway-1"]
        );
        assert_eq!(of(Kill::Matcher, Some("matcher-2"), 0), Some("matcher-2"));
        assert_eq!(of(Kill::Matcher, None, 1), Some("matcher-2"));
        assert_eq!((of(Kill::Nats, None, 7), of(Kill::History, None, 7)), (Some("nats"), Some("history")));
        assert!(choose(Kill::Nats, &all[1..], None, 0).is_none());
    }
}
