//! What the system's processes cost, from `/proc`.

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

/// What a measurement found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Costs {
    /// The system's processes that live at the end; what others spent before they died is not in it.
    pub(super) processes: Vec<Cost>,
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
    before: Vec<(ProcessId, u64)>,
    own_before: u64,
}

impl Meter {
    /// Begins: notes the CPU time of every process of run.json, and has the kernel forget their peak of memory.
    pub(super) fn start(folder: &Path) -> anyhow::Result<Meter> {
        let mut before = Vec::new();
        for process in processes(folder)? {
            if let Some(ticks) = ticks(process.id) {
                // Only for the peak; without it, the peak is that of the process's whole life.
                let _peak_forgotten = std::fs::write(format!("/proc/{}/clear_refs", process.id.pid), "5");
                before.push((process.id, ticks));
            }
        }
        Ok(Meter { folder: folder.to_owned(), began: Instant::now(), before, own_before: own_ticks() })
    }

    /// Begins anew.
    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        *self = Meter::start(&self.folder)?;
        Ok(())
    }

    /// What has been spent since.
    pub(super) fn read(&self) -> anyhow::Result<Costs> {
        let mut costs = Vec::new();
        for process in processes(&self.folder)? {
            let Some(now) = ticks(process.id) else { continue };
            let before = self.before.iter().find(|(id, _)| *id == process.id).map_or(0, |(_, ticks)| *ticks);
            let (rss_bytes, peak_rss_bytes) = memory(process.id.pid).unwrap_or_default();
            let cpu_seconds = seconds(now.saturating_sub(before));
            costs.push(Cost { name: process.name, pid: process.id.pid, cpu_seconds, rss_bytes, peak_rss_bytes });
        }
        Ok(Costs {
            cpu_seconds: costs.iter().map(|c| c.cpu_seconds).sum(),
            processes: costs,
            load_cpu_seconds: seconds(own_ticks().saturating_sub(self.own_before)),
            seconds: self.began.elapsed().as_secs_f64(),
        })
    }
}

fn processes(folder: &Path) -> anyhow::Result<Vec<Process>> {
    Ok(RunFile::read(folder)?.unwrap_or_default().processes)
}

fn seconds(ticks: u64) -> f64 {
    // Less than a year of CPU time: a float holds it.
    f64::from(u32::try_from(ticks).unwrap_or(u32::MAX)) / TICKS_PER_SECOND
}

/// The CPU time of a process, if it still is the one that run.json means.
fn ticks(id: ProcessId) -> Option<u64> {
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

fn memory(pid: u32) -> Option<(u64, u64)> {
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
    use super::*;

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
