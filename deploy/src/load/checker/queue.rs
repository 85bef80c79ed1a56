//! Who is assigned, and in which order. For runs with kills too: where a process dies, less is known for certain.
//!
//! **The order** is the server's, and clients see it through two windows that open late. A comparison is made only
//! where they cannot lie:
//! - A is *ahead of* B in the queue if A's place was acknowledged before B asked for one. A student that is requeued
//!   has the place that it had.
//! - B was assigned *before* its `new:chat` was first seen.
//! - A was assigned to its teacher T *after* T was last known to be full: a teacher is full from when as many of its
//!   chats as it may have were seen, until there is the first reason for one of them to end; had A been assigned
//!   before that, T would have been above its capacity. And never before a claim of T that may have led to it, nor
//!   before A asked for a place.
//! - A *waits* from when its place was acknowledged, or from when it was seen to be requeued; B was assigned after that
//!   if B's teacher was full, or B had not asked yet.
//!
//! If A is ahead of B, and was assigned after a moment after which B's `new:chat` had already been seen, and waited
//! already at a moment before which B cannot have been assigned, then B was taken while A waited.
//!
//! A teacher that is given up may have had a chat that nobody was shown, and whose student is requeued without knowing
//! it. So nothing is known of those who waited while its last claim may have been carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Violation;

/// A claim of a socket that was lost, or that was answered with `unavailable`, may be carried out until so long after:
/// the protocol's bound for an answer, and as much again.
const CLAIM_WITHIN: Duration = Duration::from_secs(10);

/// A moment: its place among all events, and the time since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::load) struct Moment {
    pub(in crate::load) order: u64,
    pub(in crate::load) at: Duration,
}

#[derive(Debug, Default)]
struct Student {
    /// It asked for its place then, at the earliest.
    asked: Option<u64>,
    /// It has asked since its last chat was seen: for its next place, if it needs one.
    asked_since: Option<u64>,
    /// It had its place then, at the latest.
    acknowledged: Option<u64>,
    /// It certainly waits since then, unless a teacher that was given up had it unseen.
    waits: Option<Moment>,
    /// What it asked before this may have been answered for what it had before.
    asks_from: u64,
    /// A chat was seen, and its end not.
    in_chat: bool,
    /// The teacher in whose chat it certainly is.
    with: Option<u32>,
    served: bool,
}

#[derive(Debug, Default)]
struct Teacher {
    /// With whom it certainly has a chat.
    chats: BTreeSet<u32>,
    /// What it is assigned from now on, it was not assigned before this; `None`: not before its next claim.
    not_before: Option<u64>,
    /// Claims that are not answered.
    open: u32,
    /// Others may be carried out until then.
    unknown_until: Duration,
}

/// An assignment that was seen.
#[derive(Debug)]
struct Assigned {
    student: u32,
    asked: u64,
    /// It was not made before this.
    not_before: u64,
    seen: u64,
    /// Of all assignments up to this one, the latest time of asking.
    last_asked: u64,
}

#[derive(Debug, Default)]
pub(in crate::load) struct Queue {
    students: BTreeMap<u32, Student>,
    teachers: BTreeMap<u32, Teacher>,
    assigned: Vec<Assigned>,
    /// Who waited before this may have been in a chat that nobody was shown.
    hidden_until: Duration,
}

impl Queue {
    pub(in crate::load) fn ready_sent(&mut self, student: u32, order: u64) {
        let student = self.students.entry(student).or_default();
        student.asked.get_or_insert(order);
        if student.in_chat {
            student.asked_since.get_or_insert(order);
        }
    }

    /// The `ok` of a `student:ready` that was sent at `sent`.
    pub(in crate::load) fn ready_acked(&mut self, student: u32, sent: u64, now: Moment) {
        let student = self.students.entry(student).or_default();
        if !student.in_chat && sent >= student.asks_from {
            student.acknowledged.get_or_insert(now.order);
            student.waits.get_or_insert(now);
        }
    }

    pub(in crate::load) fn claim_sent(&mut self, teacher: u32, order: u64) {
        let teacher = self.teachers.entry(teacher).or_default();
        teacher.not_before.get_or_insert(order);
        teacher.open += 1;
    }

    /// The `ok` of a claim: it is carried out by now.
    pub(in crate::load) fn claim_done(&mut self, teacher: u32) {
        let teacher = self.teachers.entry(teacher).or_default();
        teacher.open = teacher.open.saturating_sub(1);
    }

    /// Nobody knows whether this claim is carried out, or will be.
    pub(in crate::load) fn claim_unknown(&mut self, teacher: u32, at: Duration) {
        self.claim_done(teacher);
        self.teachers.entry(teacher).or_default().unknown_until = at + CLAIM_WITHIN;
    }

    /// There is a reason for their chat to end: its places may be taken from here on.
    pub(in crate::load) fn freed(&mut self, teacher: u32, student: u32, capacity: u32, now: Moment) {
        let it = self.students.entry(student).or_default();
        if it.with == Some(teacher) {
            it.with = None;
        }
        let teacher = self.teachers.entry(teacher).or_default();
        let was_full = is_full(teacher, capacity);
        if teacher.chats.remove(&student) && was_full {
            let may_claim = teacher.open > 0 || now.at <= teacher.unknown_until;
            teacher.not_before = may_claim.then_some(now.order);
        }
    }

    /// A student's chat has been terminated: it has no place but for what it asked since.
    pub(in crate::load) fn terminated(&mut self, student: u32, order: u64) {
        let student = self.students.entry(student).or_default();
        if student.in_chat {
            student.asked = student.asked_since;
            student.loses_place(order);
            student.in_chat = false;
        }
    }

    /// A student's chat is over, and it waits again where it was.
    pub(in crate::load) fn requeued(&mut self, student: u32, now: Moment) {
        let student = self.students.entry(student).or_default();
        if student.in_chat {
            student.waits = student.acknowledged.map(|_| now);
            student.in_chat = false;
        }
    }

    /// A student's chat is over, nobody knows how: it may wait again where it was.
    pub(in crate::load) fn over(&mut self, student: u32, order: u64) {
        let student = self.students.entry(student).or_default();
        if student.in_chat {
            student.loses_place(order);
            student.in_chat = false;
        }
    }

    /// A student may have lost its place; it may have kept it too.
    pub(in crate::load) fn student_gone(&mut self, student: u32, order: u64) {
        self.students.entry(student).or_default().loses_place(order);
    }

    /// A teacher, connected until `lost`, may have been given up.
    pub(in crate::load) fn teacher_gone(&mut self, lost: Duration) {
        self.hidden_until = self.hidden_until.max(lost + CLAIM_WITHIN);
    }

    pub(in crate::load) fn served(&mut self, student: u32) {
        self.students.entry(student).or_default().served = true;
    }

    /// Forgets a student that has left for good, and every assignment that nobody who is still there can contradict.
    pub(in crate::load) fn forget(&mut self, student: u32, order: u64) {
        self.students.remove(&student);
        for teacher in self.teachers.values_mut() {
            teacher.chats.remove(&student);
        }
        // Who waits is compared with what was certainly assigned, and so seen, since it did.
        let waits = self.students.values().filter_map(|student| student.waits).map(|waits| waits.order);
        let since = waits.min().unwrap_or(order);
        self.assigned.drain(..self.assigned.partition_point(|assigned| assigned.seen < since));
    }

    /// The student that certainly waits for longest, and since when.
    pub(in crate::load) fn waits_longest(&self) -> Option<(u32, Duration)> {
        let waits = self.students.iter().filter_map(|(n, student)| Some((*n, student.waits?.at)));
        waits.min_by_key(|(_, since)| *since)
    }

    /// How much is remembered.
    #[cfg(test)]
    pub(in crate::load) fn len(&self) -> usize {
        self.students.len() + self.assigned.len()
    }

    /// Whether this student may be assigned: it has asked, and is in no chat.
    pub(in crate::load) fn is_waiting(&self, student: u32) -> bool {
        self.students.get(&student).is_some_and(|student| student.asked.is_some() && !student.in_chat)
    }

    /// A chat is seen for the first time. `certain`: it cannot have ended unseen.
    pub(in crate::load) fn assigned(
        &mut self,
        teacher: u32,
        student: u32,
        capacity: u32,
        certain: bool,
        order: u64,
    ) -> Result<(), Violation> {
        let it = self.students.entry(student).or_default();
        if it.with.is_some() && certain {
            return Err(Violation::TwoChats { student, chats: 2 });
        }
        let by = self.teachers.entry(teacher).or_default();
        let asked = it.asked.unwrap_or(0);
        let not_before = by.not_before.unwrap_or(0).max(asked);
        let waits = it.waits.take().filter(|waits| self.hidden_until.is_zero() || waits.at > self.hidden_until);
        let ahead = it.acknowledged;
        it.acknowledged = ahead.filter(|_| !it.in_chat).or(Some(order));
        it.asked_since = None;
        it.in_chat = true;
        if certain {
            it.with = Some(teacher);
            by.chats.insert(student);
            let chats = u32::try_from(by.chats.len()).unwrap_or(u32::MAX);
            if chats > capacity {
                return Err(Violation::AboveCapacity { teacher, chats, capacity });
            }
        }
        if let (Some(waits), Some(acknowledged)) = (waits, ahead)
            && let Some(later) = self.taken_while(waits.order, acknowledged, not_before)
        {
            return Err(Violation::QueueOrder { earlier: student, later });
        }
        let last_asked = self.assigned.last().map_or(0, |last| last.last_asked).max(asked);
        self.assigned.push(Assigned { student, asked, not_before, seen: order, last_asked });
        Ok(())
    }

    /// Who was certainly assigned between these two, and had asked for a place after `acknowledged`.
    fn taken_while(&self, from: u64, acknowledged: u64, until: u64) -> Option<u32> {
        let earlier = &self.assigned[..self.assigned.partition_point(|other| other.seen < until)];
        if earlier.last()?.last_asked <= acknowledged {
            return None;
        }
        let overtook = |other: &&Assigned| other.asked > acknowledged && other.not_before >= from;
        earlier.iter().rev().find(overtook).map(|other| other.student)
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

impl Student {
    fn loses_place(&mut self, order: u64) {
        (self.acknowledged, self.waits) = (None, None);
        self.asks_from = order;
    }
}

fn is_full(teacher: &Teacher, capacity: u32) -> bool {
    u32::try_from(teacher.chats.len()).is_ok_and(|chats| chats >= capacity)
}
