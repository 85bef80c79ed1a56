//! What can happen to a system: any of its processes is killed with `kill -9`, and started again on the same port.

use std::cell::Cell;

use switchboard_contract::testing::eventually;

use crate::harness::System;
use crate::process::Process;

impl System {
    /// Kills a gateway, counted from 0.
    pub(crate) fn kill_gateway(&mut self, at: usize) {
        self.gateways[at].1.kill();
    }

    /// Starts a gateway again, and waits until it is ready.
    pub(crate) async fn start_gateway(&mut self, at: usize) {
        self.gateways[at].1.start_again();
        self.gateways[at].1.ready().await;
    }

    /// Kills all of history.
    pub(crate) fn kill_history(&mut self) {
        self.histories.iter_mut().for_each(Process::kill);
    }

    /// Which matcher leads, counted from 0; waits until one does.
    pub(crate) async fn leader(&self) -> usize {
        let leader = Cell::new(None);
        eventually("a matcher leads", async || {
            for (at, matcher) in self.matchers.iter().enumerate() {
                if matcher.metric("switchboard_matcher_leading").await == Some(1) {
                    leader.set(Some(at));
                }
            }
            leader.get().is_some()
        })
        .await;
        leader.get().expect("just found")
    }

    /// Kills the leading matcher; gives which one that was.
    pub(crate) async fn kill_leader(&mut self) -> usize {
        let leader = self.leader().await;
        self.matchers[leader].kill();
        leader
    }

    /// Kills all matchers.
    pub(crate) fn kill_matchers(&mut self) {
        self.matchers.iter_mut().for_each(Process::kill);
    }

    /// Kills all matchers and takes their lease away, where it does not matter how long that lasts.
    pub(crate) async fn kill_matchers_and_lease(&mut self) {
        self.kill_matchers();
        let context = async_nats::jetstream::new(self.nats.client().await);
        let leases = context.get_key_value("leases").await.expect("the bucket");
        leases.delete("matcher").await.expect("it is deleted");
    }

    /// Starts a matcher again, and waits until it is ready to lead.
    pub(crate) async fn start_matcher(&mut self, at: usize) {
        self.matchers[at].start_again();
        self.matchers[at].ready().await;
    }

    /// Kills everything, NATS first.
    pub(crate) fn kill_everything(&mut self) {
        self.nats.kill();
        self.services_mut().for_each(Process::kill);
    }

    /// Starts everything again, and waits until it is ready.
    pub(crate) async fn start_everything(&mut self) {
        self.nats.restart().await;
        self.services_mut().for_each(Process::start_again);
        for service in self.services() {
            service.ready().await;
        }
    }
}
