//! Who is assigned, and in which order.
//!
//! **The order** is the server's, and clients see it through two windows that open late. A comparison is made only
//! where they cannot lie:
//! - A is *ahead of* B in the queue if A's place was acknowledged before B asked for one.
//! - B was assigned *before* its `new:chat` was first seen.
//! - A was assigned to its teacher T *after* T was last known to be full: a teacher is full from when as many of its
//!   chats as it may have were seen, until the first of their ends is asked for; had A been assigned before that, T
//!   would have been above its capacity. And never before T's first claim, nor before A asked for a place.
//!
//! If A is ahead of B, and was assigned after a moment after which B's `new:chat` had already been seen, then B was
//! taken while A waited.

use std::collections::BTreeMap;

use super::Violation;

#[derive(Debug, Default)]
struct Student {
    waiting: bool,
    asked: u64,
    acknowledged: Option<u64>,
    served: bool,
}

#[derive(Debug, Default)]
struct Teacher {
    chats: u32,
    /// What it is assigned from now on, it was not assigned before this.
    not_before: Option<u64>,
}

/// An assignment that was seen.
#[derive(Debug)]
struct Assigned {
    seen: u64,
    /// Of all assignments up to this one, the student that asked last, and when.
    last_asked: (u64, u32),
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    students: BTreeMap<u32, Student>,
    teachers: BTreeMap<u32, Teacher>,
    assigned: Vec<Assigned>,
}

impl Queue {
    pub(super) fn ready_sent(&mut self, student: u32, order: u64) {
        let student = self.students.entry(student).or_default();
        if !student.waiting {
            *student = Student { waiting: true, asked: order, acknowledged: None, served: student.served };
        }
    }

    pub(super) fn ready_acked(&mut self, student: u32, order: u64) {
        let student = self.students.entry(student).or_default();
        student.acknowledged.get_or_insert(order);
    }

    pub(super) fn claim_sent(&mut self, teacher: u32, order: u64) {
        self.teachers.entry(teacher).or_default().not_before.get_or_insert(order);
    }

    /// The end of a chat is being asked for: its places may be taken from here on.
    pub(super) fn freed(&mut self, teacher: u32, student: u32, capacity: u32, order: u64) {
        let teacher = self.teachers.entry(teacher).or_default();
        if teacher.chats >= capacity {
            teacher.not_before = Some(order);
        }
        teacher.chats = teacher.chats.saturating_sub(1);
        self.students.entry(student).or_default().served = true;
    }

    /// A chat is seen for the first time.
    pub(super) fn assigned(&mut self, teacher: u32, student: u32, capacity: u32, order: u64) -> Result<(), Violation> {
        let it = self.students.entry(student).or_default();
        if !std::mem::take(&mut it.waiting) {
            return Err(Violation::NotWaiting { student, teacher });
        }
        let (asked, acknowledged) = (it.asked, it.acknowledged);
        let by = self.teachers.entry(teacher).or_default();
        by.chats += 1;
        if by.chats > capacity {
            return Err(Violation::AboveCapacity { teacher, chats: by.chats, capacity });
        }
        let not_before = by.not_before.unwrap_or(0).max(asked);
        let certainly_earlier = self.assigned.partition_point(|other| other.seen < not_before);
        let overtaken_by = certainly_earlier.checked_sub(1).map(|last| self.assigned[last].last_asked);
        if let (Some(acknowledged), Some((other_asked, later))) = (acknowledged, overtaken_by)
            && acknowledged < other_asked
        {
            return Err(Violation::QueueOrder { earlier: student, later });
        }
        let before = self.assigned.last().map_or((0, student), |last| last.last_asked);
        self.assigned.push(Assigned { seen: order, last_asked: before.max((asked, student)) });
        Ok(())
    }

    pub(super) fn finish(&self, students: u32) -> Result<(), Violation> {
        let served = |n: &u32| self.students.get(n).is_some_and(|s| s.served);
        let mut missing = (0..students).filter(|n| !served(n));
        match missing.next() {
            None => Ok(()),
            Some(first) => {
                let missing = u32::try_from(missing.count()).unwrap_or(u32::MAX).saturating_add(1);
                Err(Violation::NotServed { missing, students, first })
            }
        }
    }
}
