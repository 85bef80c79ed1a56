//! Processes that are stopped for a while, and never for ever.

use rustix::process::Signal;

use crate::runfile::{Process, ProcessId};

/// Stopped processes. They go on when this is dropped: also where the run fails, or is interrupted, meanwhile.
#[derive(Debug)]
pub(in crate::load) struct Paused(Vec<ProcessId>);

impl Paused {
    /// Stops them.
    pub(in crate::load) fn new(processes: &[Process]) -> Paused {
        let ids: Vec<ProcessId> = processes.iter().map(|process| process.id).collect();
        ids.iter().for_each(|id| id.signal(Signal::STOP));
        Paused(ids)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        self.0.iter().for_each(|id| id.signal(Signal::CONT));
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use switchboard_contract::testing::eventually;

    use super::*;

    /// Killed, so that a failed test leaves nothing behind.
    struct Sleeper(Child);

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[tokio::test]
    async fn what_was_stopped_goes_on_when_the_pause_is_dropped() {
        let sleeper = Sleeper(Command::new("sleep").arg("60").spawn().expect("it runs"));
        let pid = sleeper.0.id();
        let id = ProcessId::of(pid).expect("it runs");
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs").contains(" T ");
        let paused = Paused::new(&[Process { name: "sleep".into(), id, addr: None, admin: None }]);
        eventually("it is stopped", async || state()).await;
        drop(paused);
        eventually("it goes on", async || !state()).await;
    }
}
