//! A new leader's beginning: the records as they were found.

use switchboard_contract::limits::OWED_RETRY;
use switchboard_contract::lobby::{ChatEnd, ChatStatus, Role, Status, StudentState};
use switchboard_contract::names::{ChatId, LobbyKey, UserId};
use switchboard_contract::wire::V1;

use super::chats::Chat;
use super::roster::Teacher;
use super::timers::Timer;
use super::types::{Loaded, Record};
use super::{Board, Core, Now, step_records_max};

impl Core {
    /// Takes over the records of an earlier leader. Nobody is confirmed until a gateway sends its rows: grace, the
    /// time to enter and linger times start anew, and what is owed is due at once.
    ///
    /// `heard` is the status that the earlier leader published last, as far as is known, and `epoch_seq` the sequence
    /// of the own epoch's record. A version is taken over from the records, and from `heard` where it is newer; but
    /// where the students are not those of `heard` (its last batch was never published, and purged the only records
    /// that would show it), the status is a new one.
    pub fn load(&mut self, now: Now, records: Vec<Loaded>, epoch_seq: u64, heard: Option<Status>) {
        let mut version = 0;
        for Loaded { key, record, revision } in records {
            self.stored.insert(key);
            match record {
                Record::Teacher(record) => {
                    let teacher = Teacher { record, rows: Default::default() };
                    self.teachers.insert(teacher.record.id.clone(), teacher);
                }
                Record::Student(record) => {
                    version = version.max(revision);
                    self.next_ticket = self.next_ticket.max(record.ticket + 1);
                    let id = record.id.clone();
                    self.students.entry(id).or_default().record = Some(record);
                }
                // The queue is made of the students' tickets; its records are for people.
                Record::Queue(_) => {}
                Record::Chat(record) => {
                    self.insert_chat(record);
                }
            }
        }
        self.repair_chats();
        self.repair_students();
        self.repair_teachers();
        self.purge_strays();
        self.start_timers(now);
        let status = self.count();
        let version = match heard {
            Some(heard) if same_students(&heard, &status) => version.max(heard.version),
            Some(_) => epoch_seq,
            None => version,
        };
        self.board = Board::new(Status { version, ..status });
        self.places.change();
    }

    fn count(&self) -> Status {
        Status {
            v: V1,
            epoch: self.epoch,
            version: 0,
            teachers: self.teachers.len() as u64,
            waiting: self.queue.len() as u64,
            chatting: self.chatting,
            finished: self.finished,
        }
    }

    /// An active chat has its two. Batches keep it so; a hand in the bucket may not have.
    fn repair_chats(&mut self) {
        let is_whole = |chat: &Chat| {
            let student = self.students.get(&chat.record.student_id).and_then(|s| s.record.as_ref());
            let in_it =
                student.is_some_and(|s| s.state == StudentState::Chatting && s.chat.as_ref() == Some(&chat.record.id));
            in_it && self.teachers.contains_key(&chat.record.teacher_id)
        };
        let broken: Vec<ChatId> =
            self.chats.iter().filter(|(_, c)| c.is_active() && !is_whole(c)).map(|(id, _)| id.clone()).collect();
        for id in broken {
            if let Some(chat) = self.chats.get_mut(&id) {
                chat.record.status = ChatStatus::Finished;
                chat.record.end = Some(ChatEnd::Terminated);
                chat.record.owes.push(ChatEnd::Terminated.event());
            }
            self.repaired(LobbyKey::Chat(id));
        }
    }

    /// A student who chats has an active chat; one who waits has a place in the queue, and its own.
    fn repair_students(&mut self) {
        let mut ids: Vec<(u64, UserId)> =
            self.students.values().filter_map(|s| s.record.as_ref()).map(|r| (r.ticket, r.id.clone())).collect();
        ids.sort();
        for (_, id) in ids {
            let Some(record) = self.students.get_mut(&id).and_then(|s| s.record.as_mut()) else { continue };
            let chat = record.chat.as_ref().and_then(|chat| self.chats.get(chat));
            match record.state {
                StudentState::Chatting if chat.is_some_and(|c| c.is_active()) => self.chatting += 1,
                StudentState::Chatting => {
                    record.state = StudentState::Finished;
                    record.chat = None;
                    self.finished += 1;
                    self.repaired(LobbyKey::Student(id));
                }
                StudentState::Finished => self.finished += 1,
                StudentState::Waiting => {
                    if self.queue.contains_key(&record.ticket) {
                        record.ticket = self.next_ticket;
                        self.next_ticket += 1;
                        self.counters.repaired += 1;
                        self.dirty.insert(LobbyKey::Student(id.clone()));
                    }
                    let key = LobbyKey::Queue(record.ticket);
                    self.queue.insert(record.ticket, id);
                    if !self.stored.contains(&key) {
                        self.repaired(key);
                    }
                }
            }
        }
    }

    /// A teacher's chats are the active ones that name it.
    fn repair_teachers(&mut self) {
        let mut wrong = Vec::new();
        for (id, teacher) in &mut self.teachers {
            let chats = &self.chats;
            let before = teacher.record.chats.len();
            teacher
                .record
                .chats
                .retain(|chat| chats.get(chat).is_some_and(|c| c.is_active() && c.record.teacher_id == *id));
            if teacher.record.chats.len() != before {
                wrong.push(id.clone());
            }
        }
        for (id, chat) in &self.chats {
            let teacher = self.teachers.get_mut(&chat.record.teacher_id).filter(|_| chat.is_active());
            if let Some(teacher) = teacher.filter(|t| !t.record.chats.contains(id)) {
                teacher.record.chats.push(id.clone());
                wrong.push(chat.record.teacher_id.clone());
            }
        }
        wrong.into_iter().for_each(|id| self.repaired(LobbyKey::Teacher(id)));
        let most = self.teachers.values().map(|t| t.record.chats.len()).max().unwrap_or(0);
        self.step_records_max = self.step_records_max.max(step_records_max(most));
    }

    /// Places in the queue that are nobody's.
    fn purge_strays(&mut self) {
        let strays: Vec<LobbyKey> = self.stored.iter().filter(|key| !self.exists(key)).cloned().collect();
        strays.into_iter().for_each(|key| self.repaired(key));
    }

    fn repaired(&mut self, key: LobbyKey) {
        self.counters.repaired += 1;
        self.touch(key);
    }

    fn start_timers(&mut self, now: Now) {
        let grace = now.at + self.config.grace;
        for id in self.teachers.keys() {
            self.timers.set(Timer::Grace(Role::Teacher, id.clone()), grace);
        }
        for id in self.students.keys() {
            self.timers.set(Timer::Grace(Role::Student, id.clone()), grace);
        }
        for (id, chat) in &self.chats {
            if !chat.is_active() {
                self.timers.set(Timer::Linger(id.clone()), now.at + self.config.chat_linger);
            } else if !(chat.record.teacher_entered && chat.record.student_entered) {
                self.timers.set(Timer::Enter(id.clone()), now.at + self.config.enter_timeout);
            }
            if !chat.record.owes.is_empty() {
                self.pending.logs.insert(id.clone());
                self.timers.set(Timer::Log(id.clone()), now.at + OWED_RETRY);
            }
        }
    }
}

fn same_students(a: &Status, b: &Status) -> bool {
    (a.waiting, a.chatting, a.finished) == (b.waiting, b.chatting, b.finished)
}
