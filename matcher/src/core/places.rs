//! `queue:position`: who is told which place, at most once in [`POSITION_INTERVAL`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use switchboard_contract::limits::{POSITION_INTERVAL, POSITIONS_MAX};
use switchboard_contract::lobby::{ChannelId, Positions};

use super::Core;
use super::table::GatewayNo;

/// Assignments from which the pace of the queue is taken.
const PACE_ASSIGNMENTS: usize = 20;

/// When positions were sent last, and whether they can have changed since.
#[derive(Debug, Default)]
pub(super) struct Places {
    changed: bool,
    sent_at: Option<Duration>,
    assignments: VecDeque<Duration>,
}

impl Places {
    /// The queue changed, or a waiting student has another channel.
    pub(super) fn change(&mut self) {
        self.changed = true;
    }

    /// A student was assigned.
    pub(super) fn assigned(&mut self, now: Duration) {
        if self.assignments.len() == PACE_ASSIGNMENTS {
            self.assignments.pop_front();
        }
        self.assignments.push_back(now);
    }

    /// When positions are to be sent; `None`: nothing has changed.
    pub(super) fn due(&self) -> Option<Duration> {
        self.changed.then(|| self.sent_at.map_or(Duration::ZERO, |at| at + POSITION_INTERVAL))
    }

    /// The mean time between the recent assignments, in milliseconds.
    fn pace_ms(&self) -> Option<u64> {
        let (first, last) = (self.assignments.front()?, self.assignments.back()?);
        let intervals = u128::try_from(self.assignments.len() - 1).ok().filter(|n| *n > 0)?;
        u64::try_from((*last - *first).as_millis() / intervals).ok()
    }
}

impl Core {
    /// Positions that are due and differ from those that the channels were told last.
    pub(super) fn positions(&mut self, now: Duration) -> Vec<(GatewayNo, Positions)> {
        if self.places.due().is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.places.changed = false;
        let of = self.queue.len() as u64;
        let mut lists: BTreeMap<GatewayNo, Vec<(ChannelId, u64)>> = BTreeMap::new();
        for (position, id) in (1..).zip(self.queue.values()) {
            let Some(student) = self.students.get_mut(id) else { continue };
            for (addr, told) in &mut student.rows {
                if *told != Some((position, of)) {
                    *told = Some((position, of));
                    lists.entry(addr.gateway).or_default().push((addr.chan, position));
                }
            }
        }
        if !lists.is_empty() {
            self.places.sent_at = Some(now);
        }
        let pace_ms = self.places.pace_ms();
        let part = |list: &[_]| Positions { of, pace_ms, list: list.to_vec() };
        lists.iter().flat_map(|(no, list)| list.chunks(POSITIONS_MAX).map(move |list| (*no, part(list)))).collect()
    }
}
