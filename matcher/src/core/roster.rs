//! Who is there: rows of teachers and students come and go, and with them places on the rosters and in the queue.

use std::collections::{BTreeMap, BTreeSet};

use switchboard_contract::limits::CAPACITY_DEFAULT;
use switchboard_contract::lobby::{ChatEnd, Role, StudentRecord, StudentState, TeacherRecord, TeacherSettings};
use switchboard_contract::names::{LobbyKey, UserId};
use switchboard_contract::reason::Reason;
use switchboard_contract::wire::{V1, timestamp};

use super::table::{Addr, Member};
use super::timers::Timer;
use super::{Core, Now};

/// A teacher on the roster.
#[derive(Debug)]
pub(super) struct Teacher {
    pub(super) record: TeacherRecord,
    pub(super) rows: BTreeSet<Addr>,
}

impl Teacher {
    fn has_place(&self) -> bool {
        !self.record.away && self.record.chats.len() < self.record.capacity as usize
    }
}

/// A student who is on the roster, or has joined and may be.
#[derive(Debug, Default)]
pub(super) struct Student {
    /// `None`: not on the roster.
    pub(super) record: Option<StudentRecord>,
    /// Its channels, each with the place in the queue (of how many) that it was told last.
    pub(super) rows: BTreeMap<Addr, Option<(u64, u64)>>,
    /// Its last channel was lost. After a take-over nobody is: who has no channel yet may still be there.
    pub(super) lost: bool,
}

impl Core {
    /// A row of a teacher, new or changed: what it says, and what it said before. That is on the roster, unless another
    /// channel has said something else since; it counts only where the teacher is not on the roster.
    pub(super) fn teacher_row(
        &mut self,
        now: Now,
        addr: Addr,
        id: &UserId,
        says: TeacherSettings,
        said: TeacherSettings,
    ) {
        let max_capacity = self.config.max_capacity;
        let is_new = !self.teachers.contains_key(id);
        let teacher = self.teachers.entry(id.clone()).or_insert_with(|| Teacher {
            record: TeacherRecord {
                v: V1,
                id: id.clone(),
                capacity: CAPACITY_DEFAULT.min(max_capacity),
                auto: false,
                away: false,
                chats: Vec::new(),
                since: timestamp(now.wall),
            },
            rows: BTreeSet::new(),
        });
        let record = &mut teacher.record;
        let settings = if is_new { says.over(said) } else { says };
        let before = (record.capacity, record.auto, record.away);
        record.capacity = settings.capacity.map_or(record.capacity, |c| c.clamp(1, max_capacity));
        record.auto = settings.auto.unwrap_or(record.auto);
        record.away = settings.away.unwrap_or(record.away);
        let changed = is_new || before != (record.capacity, record.auto, record.away);
        let is_new_row = teacher.rows.insert(addr);
        let chats = if is_new_row { teacher.record.chats.clone() } else { Vec::new() };
        self.timers.cancel(&Timer::Grace(Role::Teacher, id.clone()));
        for chat in chats {
            self.tell(&chat, Role::Teacher, addr, true);
        }
        self.index(id);
        if changed {
            self.touch(LobbyKey::Teacher(id.clone()));
        }
    }

    /// A row of a student, new or changed; `ready`: it wants a place in the queue.
    ///
    /// # Errors
    /// If the queue is full. The row itself holds.
    pub(super) fn student_row(&mut self, now: Now, addr: Addr, id: &UserId, ready: bool) -> Result<(), Reason> {
        let student = self.students.entry(id.clone()).or_default();
        student.lost = false;
        let is_new_row = !student.rows.contains_key(&addr);
        if is_new_row {
            student.rows.insert(addr, None);
        }
        let state = student.record.as_ref().map(|r| r.state);
        let chat = student.record.as_ref().and_then(|r| r.chat.clone());
        self.timers.cancel(&Timer::Grace(Role::Student, id.clone()));
        if is_new_row && let Some(chat) = chat {
            self.tell(&chat, Role::Student, addr, true);
        }
        match state {
            Some(StudentState::Waiting) if is_new_row => self.places.change(),
            Some(StudentState::Waiting | StudentState::Chatting) => {}
            Some(StudentState::Finished) | None if ready => return self.enqueue(now, id),
            Some(StudentState::Finished) | None => {}
        }
        Ok(())
    }

    /// A row that was there is gone.
    pub(super) fn row_left(&mut self, now: Now, addr: Addr, member: Member, lost: bool) {
        match member {
            Member::Teacher(id) => self.teacher_row_left(now, addr, &id, lost),
            Member::Student(id) => self.student_row_left(now, addr, &id, lost),
            Member::Chat(id, _) => self.chat_row_left(now, addr, &id),
        }
    }

    /// The end of a user's grace time.
    pub(super) fn grace_over(&mut self, now: Now, role: Role, id: &UserId) {
        self.counters.expired += 1;
        match role {
            Role::Teacher => self.drop_teacher(now, id),
            Role::Student => self.drop_student(now, id),
        }
    }

    /// Teachers that are to get students without asking, those with the fewest chats first. One without any channel
    /// is not among them: its students would wait for a new chat that nobody opens.
    pub(super) fn index(&mut self, id: &UserId) {
        if let Some(chats) = self.open_at.remove(id) {
            self.open.remove(&(chats, id.clone()));
        }
        let Some(teacher) = self.teachers.get(id) else { return };
        if teacher.record.auto && teacher.has_place() && !teacher.rows.is_empty() {
            let chats = teacher.record.chats.len();
            self.open.insert((chats, id.clone()));
            self.open_at.insert(id.clone(), chats);
        }
    }

    /// Whether a teacher may get one more student.
    pub(super) fn has_place(&self, id: &UserId) -> bool {
        self.teachers.get(id).is_some_and(Teacher::has_place)
    }

    /// At the end of the queue, with a new ticket.
    fn enqueue(&mut self, now: Now, id: &UserId) -> Result<(), Reason> {
        if self.queue.len() >= self.config.max_waiting {
            self.counters.refused += 1;
            return Err(Reason::QueueFull);
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let student = self.students.entry(id.clone()).or_default();
        if student.record.as_ref().is_some_and(|r| r.state == StudentState::Finished) {
            self.finished -= 1;
        }
        let id = student.record.take().map_or_else(|| id.clone(), |r| r.id);
        student.record = Some(StudentRecord {
            v: V1,
            id: id.clone(),
            state: StudentState::Waiting,
            ticket,
            chat: None,
            since: timestamp(now.wall),
        });
        self.join_queue(ticket, &id);
        Ok(())
    }

    /// Into the queue, where the ticket says.
    pub(super) fn join_queue(&mut self, ticket: u64, id: &UserId) {
        if let Some(student) = self.students.get_mut(id) {
            student.rows.values_mut().for_each(|told| *told = None);
        }
        let before = self.queue.insert(ticket, id.clone());
        assert!(before.is_none(), "a ticket is one student's");
        self.places.change();
        self.touch(LobbyKey::Queue(ticket));
        self.touch(LobbyKey::Student(id.clone()));
    }

    /// Out of the queue.
    pub(super) fn leave_queue(&mut self, ticket: u64) {
        self.queue.remove(&ticket);
        self.places.change();
        self.touch(LobbyKey::Queue(ticket));
    }

    fn teacher_row_left(&mut self, now: Now, addr: Addr, id: &UserId, lost: bool) {
        let Some(teacher) = self.teachers.get_mut(id) else { return };
        teacher.rows.remove(&addr);
        let is_last = teacher.rows.is_empty();
        for chat in teacher.record.chats.clone() {
            self.untell(&chat, addr);
        }
        if is_last && !lost {
            self.drop_teacher(now, id);
        } else if is_last {
            self.timers.set(Timer::Grace(Role::Teacher, id.clone()), now.at + self.config.grace);
            self.index(id);
        }
    }

    fn student_row_left(&mut self, now: Now, addr: Addr, id: &UserId, lost: bool) {
        let Some(student) = self.students.get_mut(id) else { return };
        student.rows.remove(&addr);
        let is_last = student.rows.is_empty();
        student.lost = is_last && lost;
        let state = student.record.as_ref().map(|r| r.state);
        if let Some(chat) = student.record.as_ref().and_then(|r| r.chat.clone()) {
            self.untell(&chat, addr);
        }
        if !is_last {
            return;
        }
        match state {
            None | Some(StudentState::Finished) => self.drop_student(now, id),
            Some(StudentState::Waiting | StudentState::Chatting) if lost => {
                self.timers.set(Timer::Grace(Role::Student, id.clone()), now.at + self.config.grace);
            }
            Some(StudentState::Waiting | StudentState::Chatting) => self.drop_student(now, id),
        }
    }

    /// Off the roster; its students are at the front of the queue again.
    fn drop_teacher(&mut self, now: Now, id: &UserId) {
        let Some(teacher) = self.teachers.get(id) else { return };
        for chat in teacher.record.chats.clone() {
            self.end_chat(now, &chat, ChatEnd::Requeued);
        }
        self.teachers.remove(id);
        self.timers.cancel(&Timer::Grace(Role::Teacher, id.clone()));
        self.index(id);
        self.touch(LobbyKey::Teacher(id.clone()));
    }

    /// Off the roster; its chat is over.
    pub(super) fn drop_student(&mut self, now: Now, id: &UserId) {
        if let Some(chat) = self.students.get(id).and_then(|s| s.record.as_ref()?.chat.clone()) {
            self.end_chat(now, &chat, ChatEnd::Terminated);
        }
        self.timers.cancel(&Timer::Grace(Role::Student, id.clone()));
        let Some(record) = self.students.remove(id).and_then(|s| s.record) else { return };
        match record.state {
            StudentState::Waiting => self.leave_queue(record.ticket),
            StudentState::Finished => self.finished -= 1,
            StudentState::Chatting => unreachable!("its chat has just ended"),
        }
        self.touch(LobbyKey::Student(id.clone()));
    }
}
