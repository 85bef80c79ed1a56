//! What the system's processes cost, from `/proc`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use crate::runfile::{Process, ProcessId, RunFile};

/// The clock ticks of `/proc/<pid>/stat`: the kernel's interface to programs has 100 a second on every architecture
/// that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Cost {
    /// Its name in run.json.
    pub(super) name: String,
    /// Its number.
    pub(super) pid: u32,
    /// User and system time since the measurement began, or since it started.
    pub(super) cpu_seconds: f64,
    /// Resident memory now.
    pub(super) rss_bytes: u64,
    /// The most it was since the measurement began.
    pub(super) peak_rss_bytes: u64,
}

/// What processes of one name spent that died during the measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Dead {
    /// How many.
    pub(super) died: u32,
    /// User and system time as it was last seen: what they spent after that, up to the time between two looks each, is
    /// not in it.
    pub(super) cpu_seconds: f64,
}

/// What a measurement found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Costs {
    /// The system's processes that live at the end.
    pub(super) processes: Vec<Cost>,
    /// Those that do not, by their names.
    pub(super) dead: BTreeMap<String, Dead>,
    /// Of all of them.
    pub(super) cpu_seconds: f64,
    /// The load generator's own.
    pub(super) load_cpu_seconds: f64,
    /// How long was measured.
    pub(super) seconds: f64,
}

/// A measurement that has begun.
pub(super) struct Meter {
    folder: PathBuf,
    began: Instant,
    before: Vec<Seen>,
    /// Each process as it was looked at last.
    seen: Vec<Seen>,
    own_before: u64,
}

/// A process, and the CPU time that it had then.
#[derive(Clone, Debug)]
struct Seen {
    name: String,
    id: ProcessId,
    ticks: u64,
}

impl Costs {
    /// CPU time of all processes of a kind, those that died included. Seconds.
    pub(super) fn of(&self, kind: &str) -> f64 {
        let living = self.processes.iter().filter(|cost| cost.name.starts_with(kind)).map(|cost| cost.cpu_seconds);
        let dead = self.dead.iter().filter(|(name, _)| name.starts_with(kind)).map(|(_, dead)| dead.cpu_seconds);
        living.chain(dead).sum()
    }
}

impl Meter {
    /// Begins: notes the CPU time of every process of run.json, and has the kernel forget their peak of memory.
    pub(super) fn start(folder: &Path) -> anyhow::Result<Meter> {
        let mut before = Vec::new();
        for process in processes(folder)? {
            if let Some(ticks) = ticks(process.id) {
                // Only for the peak; without it, the peak is that of the process's whole life.
                let _peak_forgotten = std::fs::write(format!("/proc/{}/clear_refs", process.id.pid), "5");
                before.push(Seen { name: process.name, id: process.id, ticks });
            }
        }
        let seen = before.clone();
        Ok(Meter { folder: folder.to_owned(), began: Instant::now(), before, seen, own_before: own_ticks() })
    }

    /// Begins anew.
    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        *self = Meter::start(&self.folder)?;
        Ok(())
    }

    /// Looks at the CPU time of each process, so that it is not forgotten when the process dies.
    pub(super) fn look(&mut self) -> anyhow::Result<()> {
        for Process { name, id, .. } in processes(&self.folder)? {
            let Some(ticks) = ticks(id) else { continue };
            match self.seen.iter_mut().find(|seen| seen.id == id) {
                Some(seen) => seen.ticks = ticks,
                None => self.seen.push(Seen { name, id, ticks }),
            }
        }
        Ok(())
    }

    /// What has been spent since.
    pub(super) fn read(&self) -> anyhow::Result<Costs> {
        let mut costs = Vec::new();
        let mut alive = Vec::new();
        for process in processes(&self.folder)? {
            let Some(now) = ticks(process.id) else { continue };
            alive.push(process.id);
            let (rss_bytes, peak_rss_bytes) = memory(process.id.pid).unwrap_or_default();
            let cpu_seconds = self.spent(process.id, now);
            costs.push(Cost { name: process.name, pid: process.id.pid, cpu_seconds, rss_bytes, peak_rss_bytes });
        }
        let mut dead: BTreeMap<String, Dead> = BTreeMap::new();
        for seen in self.seen.iter().filter(|seen| !alive.contains(&seen.id)) {
            let of = dead.entry(seen.name.clone()).or_default();
            of.died += 1;
            of.cpu_seconds += self.spent(seen.id, seen.ticks);
        }
        let living: f64 = costs.iter().map(|cost| cost.cpu_seconds).sum();
        Ok(Costs {
            cpu_seconds: living + dead.values().map(|dead| dead.cpu_seconds).sum::<f64>(),
            processes: costs,
            dead,
            load_cpu_seconds: seconds(own_ticks().saturating_sub(self.own_before)),
            seconds: self.began.elapsed().as_secs_f64(),
        })
    }

    fn spent(&self, id: ProcessId, ticks: u64) -> f64 {
        let before = self.before.iter().find(|before| before.id == id).map_or(0, |before| before.ticks);
        seconds(ticks.saturating_sub(before))
    }
}

fn processes(folder: &Path) -> anyhow::Result<Vec<Process>> {
    Ok(RunFile::read(folder)?.unwrap_or_default().processes)
}

/// Of clock ticks.
pub(super) fn seconds(ticks: u64) -> f64 {
    // Less than a year of CPU time: a float holds it.
    f64::from(u32::try_from(ticks).unwrap_or(u32::MAX)) / TICKS_PER_SECOND
}

/// The CPU time of a process, if it still is the one that run.json means.
pub(super) fn ticks(id: ProcessId) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", id.pid)).ok()?;
    parse_stat(&stat).filter(|(_, started)| *started == id.started).map(|(ticks, _)| ticks)
}

fn own_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    parse_stat(&stat).map_or(0, |(ticks, _)| ticks)
}

/// CPU time, and when the process started, both in ticks.
fn parse_stat(stat: &str) -> Option<(u64, u64)> {
    // The second field is a name in parentheses, which may hold anything, parentheses too.
    let (_, rest) = stat.rsplit_once(") ")?;
    let field = |number: usize| rest.split(' ').nth(number - 3)?.trim().parse::<u64>().ok();
    Some((field(14)? + field(15)?, field(22)?))
}

/// Resident memory of a process now, and at its peak. Bytes.
pub(super) fn memory(pid: u32) -> Option<(u64, u64)> {
    parse_status(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// Resident memory now, and at its peak.
fn parse_status(status: &str) -> Option<(u64, u64)> {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some((bytes("VmRSS:")?, bytes("VmHWM:")?))
}

#[cfg(test)]
mod tests {
    use switchboard_contract::testing::eventually;

    use super::*;

    #[tokio::test]
    async fn who_dies_is_counted_as_it_was_seen_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let busy = || std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let mut children = [busy(), busy()];
        let process = |child: &std::process::Child| {
            let id = ProcessId::of(child.id()).unwrap();
            Process { name: "gateway-1".into(), id, addr: None, admin: None }
        };
        // The second one comes up during the measurement.
        let mut file = RunFile { processes: vec![process(&children[0])], ..RunFile::default() };
        file.write(path).unwrap();
        let mut meter = Meter::start(path).unwrap();
        file.processes.push(process(&children[1]));
        file.write(path).unwrap();
        eventually("both are seen to spend", || {
            meter.look().unwrap();
            let spent = |seen: &Seen| meter.spent(seen.id, seen.ticks) > 0.0;
            std::future::ready(meter.seen.len() == 2 && meter.seen.iter().all(spent))
        })
        .await;
        assert!(meter.read().unwrap().dead.is_empty());
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        file.processes.clear();
        file.write(path).unwrap();
        let costs = meter.read().unwrap();
        let dead = &costs.dead["gateway-1"];
        assert_eq!((costs.processes.len(), costs.dead.len(), dead.died), (0, 1, 2));
        assert!((costs.of("gateway") - dead.cpu_seconds).abs() < 1e-9 && costs.of("nats") == 0.0);
        let seen: f64 = meter.seen.iter().map(|seen| meter.spent(seen.id, seen.ticks)).sum();
        assert!(seen > 0.0 && (dead.cpu_seconds - seen).abs() < 1e-9 && (costs.cpu_seconds - seen).abs() < 1e-9);
    }

    #[test]
    fn stat_and_status_are_read() {
        let stat =
            "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 7 7 20 0 9 0 123456 1000 200 18446744073709551615\n";
        assert_eq!(parse_stat(stat), Some((300, 123_456)));
        assert_eq!(parse_stat("42 (a) S 1"), None);
        let status = "Name:\tx\nVmHWM:\t    2000 kB\nVmRSS:\t    1000 kB\n";
        assert_eq!(parse_status(status), Some((1000 * 1024, 2000 * 1024)));
        assert!(own_ticks() < u64::MAX && parse_status("").is_none());
    }
}
