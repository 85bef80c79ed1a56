//! `user:status`: counts that add up, nothing before the first student, and the last one at the end.

use std::collections::{BTreeMap, BTreeSet};

use super::{Violation, Who};

/// The counts of a `user:status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Teachers on the roster.
    pub teachers: u64,
    /// All students.
    pub students: u64,
    /// Students waiting.
    pub waiting: u64,
    /// Students in a chat.
    pub chatting: u64,
    /// Students whose chat ended, still there.
    pub finished: u64,
}

#[derive(Debug, Default)]
pub(super) struct Statuses {
    asked: u64,
    somebody_left: bool,
    /// Students whose place was acknowledged before the first of all left, and that have not left themselves: as long
    /// as there is one, the roster is not empty.
    staying: BTreeSet<u32>,
    /// Per teacher: the last status, if any had students.
    seen: BTreeMap<Who, u64>,
}

impl Statuses {
    pub(super) fn ready_sent(&mut self) {
        self.asked += 1;
    }

    pub(super) fn ready_acked(&mut self, student: u32) {
        if !self.somebody_left {
            self.staying.insert(student);
        }
    }

    pub(super) fn leaves(&mut self, student: u32) {
        self.somebody_left = true;
        self.staying.remove(&student);
    }

    pub(super) fn status(&mut self, who: Who, counts: Counts) -> Result<(), Violation> {
        let wrong = |why| Err(Violation::Counts { who, counts, why });
        if self.asked == 0 {
            return wrong("no student was ready yet");
        }
        if counts.waiting + counts.chatting + counts.finished != counts.students {
            return wrong("the total is not the sum");
        }
        if counts.students > self.asked {
            return wrong("more students than were ever ready");
        }
        if counts.students > 0 {
            self.seen.insert(who, counts.students);
        } else if let Some(last) = self.seen.get_mut(&who) {
            if !self.staying.is_empty() {
                return wrong("students are there");
            }
            *last = 0;
        }
        Ok(())
    }

    pub(super) fn knows_the_end(&self, who: Who) -> bool {
        self.seen.get(&who) == Some(&0)
    }

    pub(super) fn finish(&self, teachers: u32) -> Result<(), Violation> {
        match (0..teachers).map(Who::teacher).find(|who| !self.knows_the_end(*who)) {
            None => Ok(()),
            Some(who) => Err(Violation::NoLastStatus { who }),
        }
    }
}
