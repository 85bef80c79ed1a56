//! What the matchers of run.json say of themselves on their admin ports: which one leads.

use std::time::Duration;

use switchboard_contract::admin;

use crate::runfile::{Process, ProcessId};

const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// One matcher, by its own metrics. One that was paused may say for a moment that it leads, and no longer does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Matcher {
    /// Its name in run.json.
    pub(crate) name: String,
    pub(crate) id: ProcessId,
    /// Whether it believes that it leads.
    pub(crate) leads: bool,
    /// The epoch that it has led last; 0: none.
    pub(crate) epoch: u64,
    /// How many of its late writes were refused since it started.
    pub(crate) fenced: u64,
}

/// Asks all of them. Those that do not answer are left out.
pub(crate) async fn ask(processes: &[Process]) -> Vec<Matcher> {
    let matchers = processes.iter().filter(|process| process.kind() == "matcher");
    let asked = matchers.map(async |process| {
        let (_, metrics) = admin::ask(process.admin?, "/metrics", ASK_TIMEOUT).await.ok()?;
        read(process, &metrics)
    });
    futures_util::future::join_all(asked).await.into_iter().flatten().collect()
}

/// The one that leads: of several that believe it, the one with the newest epoch. `None`: nobody does.
pub(crate) fn leader(matchers: &[Matcher]) -> Option<&Matcher> {
    matchers.iter().filter(|matcher| matcher.leads).max_by_key(|matcher| matcher.epoch)
}

fn read(process: &Process, metrics: &str) -> Option<Matcher> {
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.parse::<u64>().ok()
    };
    Some(Matcher {
        name: process.name.clone(),
        id: process.id,
        leads: value("switchboard_matcher_leading")? == 1,
        epoch: value("switchboard_matcher_epoch").unwrap_or(0),
        fenced: value("switchboard_matcher_fenced_total").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_epoch_leads_among_those_that_believe_it() {
        let read = |pid, metrics| {
            let id = ProcessId { pid, started: 1 };
            read(&Process { name: format!("matcher-{pid}"), id, addr: None, admin: None }, metrics)
        };
        let standby = read(1, "# HELP x\nswitchboard_matcher_leading 0\nswitchboard_matcher_epoch 12\n");
        let stale = read(2, "switchboard_matcher_leading 1\nswitchboard_matcher_epoch 10\n");
        let leads = "switchboard_matcher_fenced_total 3\nswitchboard_matcher_leading 1\nswitchboard_matcher_epoch 11\n";
        let leads = read(3, leads);
        assert!(standby.as_ref().is_some_and(|m| !m.leads && m.epoch == 12));
        assert!(leads.as_ref().is_some_and(|m| m.leads && m.epoch == 11 && m.fenced == 3));
        assert_eq!(read(4, "switchboard_matcher_leading_since 1\n"), None);
        let all: Vec<Matcher> = [standby, stale, leads].into_iter().flatten().collect();
        assert_eq!(leader(&all).map(|m| m.name.as_str()), Some("matcher-3"));
        assert_eq!(leader(&all[..1]), None);
    }
}
