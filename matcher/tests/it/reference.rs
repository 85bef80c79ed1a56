//! A naive lobby: lists that are searched from end to end, no batches, no indexes, nobody told. Written from the rules
//! and not from the core.

use std::collections::BTreeMap;
use std::time::Duration;

use switchboard_contract::lobby::{At, ChatEnd, Role, Row, StudentState, TeacherSettings, Whole};
use switchboard_contract::reason::Reason;
use switchboard_matcher::core::Config;

/// A channel of a gateway.
pub(crate) type Place = (String, u64);

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Who {
    User(Role, String),
    Chat(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Channel {
    pub(crate) place: Place,
    pub(crate) n: u64,
    pub(crate) who: Who,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Teacher {
    pub(crate) id: String,
    pub(crate) capacity: u32,
    pub(crate) auto: bool,
    pub(crate) away: bool,
}

impl Teacher {
    fn set(&mut self, settings: &TeacherSettings, max_capacity: u32) {
        self.capacity = settings.capacity.unwrap_or(self.capacity).max(1).min(max_capacity);
        self.auto = settings.auto.unwrap_or(self.auto);
        self.away = settings.away.unwrap_or(self.away);
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Student {
    pub(crate) id: String,
    pub(crate) state: StudentState,
    pub(crate) ticket: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chat {
    pub(crate) id: String,
    pub(crate) teacher: String,
    pub(crate) student: String,
    pub(crate) teacher_entered: bool,
    pub(crate) student_entered: bool,
    pub(crate) end: Option<ChatEnd>,
    pub(crate) claim: u64,
}

/// What is due, in the order in which it is done at one moment.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum Due {
    TeacherGone(String),
    StudentGone(String),
    NotEntered(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Lobby {
    config: Config,
    pub(crate) channels: Vec<Channel>,
    /// Gateways whose tables are known, with the channels seen while a whole table is being sent.
    gateways: BTreeMap<String, Option<Vec<u64>>>,
    pub(crate) teachers: Vec<Teacher>,
    pub(crate) students: Vec<Student>,
    pub(crate) chats: Vec<Chat>,
    due: Vec<(Duration, Due)>,
    /// Students whose last channel was lost.
    lost: Vec<String>,
    prefix: String,
    next_chat: u64,
    next_ticket: u64,
}

impl Lobby {
    pub(crate) fn new(config: Config) -> Self {
        Lobby {
            config,
            channels: Vec::new(),
            gateways: BTreeMap::new(),
            teachers: Vec::new(),
            students: Vec::new(),
            chats: Vec::new(),
            due: Vec::new(),
            lost: Vec::new(),
            prefix: "0".into(),
            next_chat: 1,
            next_ticket: 1,
        }
    }

    /// Another leader: nobody is there any more, and everybody has its grace time.
    pub(crate) fn reload(&mut self, now: Duration, prefix: &str) {
        self.channels.clear();
        self.gateways.clear();
        self.due.clear();
        self.lost.clear();
        self.prefix = prefix.to_owned();
        self.next_chat = 1;
        self.next_ticket = self.students.iter().map(|s| s.ticket + 1).max().unwrap_or(1);
        let grace = now + self.config.grace;
        self.due.extend(self.teachers.iter().map(|t| (grace, Due::TeacherGone(t.id.clone()))));
        self.due.extend(self.students.iter().map(|s| (grace, Due::StudentGone(s.id.clone()))));
        let open = self.chats.iter().filter(|c| c.end.is_none() && !(c.teacher_entered && c.student_entered));
        self.due.extend(open.map(|c| (now + self.config.enter_timeout, Due::NotEntered(c.id.clone()))));
    }

    /// Rows of a gateway. `None`: it has to send all of them.
    pub(crate) fn table(
        &mut self,
        now: Duration,
        gateway: &str,
        whole: Option<Whole>,
        rows: &[Row],
    ) -> Option<Vec<(u64, Reason)>> {
        if whole.is_some_and(|w| w.first) {
            self.gateways.insert(gateway.to_owned(), Some(Vec::new()));
        }
        let seen = self.gateways.get(gateway)?;
        if whole.is_some() && seen.is_none() {
            return None;
        }
        let mut refused = Vec::new();
        for row in rows {
            if let Some(Some(seen)) = self.gateways.get_mut(gateway) {
                seen.push(row.chan);
            }
            if let Err(reason) = self.row(now, (gateway.to_owned(), row.chan), row.n, &row.at) {
                refused.push((row.chan, reason));
            }
            self.auto(now);
        }
        if whole.is_some_and(|w| w.last) {
            let seen = self.gateways.insert(gateway.to_owned(), None).flatten().unwrap_or_default();
            self.lose(now, |place| place.0 == gateway && !seen.contains(&place.1));
        }
        Some(refused)
    }

    pub(crate) fn gateway_gone(&mut self, now: Duration, gateway: &str) {
        self.lose(now, |place| place.0 == gateway);
        self.gateways.remove(gateway);
    }

    pub(crate) fn claim(&mut self, now: Duration, place: &Place, claim: u64) -> Option<Reason> {
        let channel = self.channels.iter().find(|c| c.place == *place);
        match channel.map(|c| c.who.clone()) {
            Some(Who::User(Role::Teacher, id)) => {
                if self.chats.iter().all(|chat| chat.claim != claim) {
                    self.assign(now, &id, claim);
                }
                self.auto(now);
                None
            }
            Some(Who::User(Role::Student, _) | Who::Chat(_)) => Some(Reason::Forbidden),
            None if matches!(self.gateways.get(&place.0), Some(None)) => Some(Reason::Forbidden),
            None => Some(Reason::Unavailable),
        }
    }

    pub(crate) fn terminate(&mut self, now: Duration, chat: &str) -> Option<Reason> {
        if !self.chats.iter().any(|c| c.id == chat) {
            return Some(Reason::NotFound);
        }
        self.end(chat, ChatEnd::Terminated);
        self.auto(now);
        None
    }

    /// The log has the tombstone.
    pub(crate) fn forget(&mut self, chat: &str) {
        self.chats.retain(|c| c.id != chat);
    }

    pub(crate) fn tick(&mut self, now: Duration) {
        self.auto(now);
        loop {
            self.due.sort_by(|a, b| a.partial_cmp(b).expect("an order"));
            if self.due.first().is_none_or(|(at, _)| *at > now) {
                return;
            }
            match self.due.remove(0).1 {
                Due::TeacherGone(id) => self.drop_teacher(&id),
                Due::StudentGone(id) => self.drop_student(&id),
                Due::NotEntered(id) => {
                    let teacher = self.chats.iter().any(|c| c.id == id && c.teacher_entered);
                    self.end(&id, if teacher { ChatEnd::Terminated } else { ChatEnd::Requeued });
                }
            }
            self.auto(now);
        }
    }

    /// Who waits, longest first.
    pub(crate) fn queue(&self) -> Vec<&Student> {
        let mut queue: Vec<_> = self.students.iter().filter(|s| s.state == StudentState::Waiting).collect();
        queue.sort_by_key(|s| s.ticket);
        queue
    }

    pub(crate) fn chats_of(&self, role: Role, id: &str) -> Vec<&Chat> {
        let user = |c: &Chat| if role == Role::Teacher { c.teacher == id } else { c.student == id };
        self.chats.iter().filter(|c| c.end.is_none() && user(c)).collect()
    }

    pub(crate) fn channels_of(&self, who: &Who) -> Vec<&Place> {
        self.channels.iter().filter(|c| c.who == *who).map(|c| &c.place).collect()
    }

    fn row(&mut self, now: Duration, place: Place, n: u64, at: &At) -> Result<(), Reason> {
        let known = self.channels.iter().position(|c| c.place == place);
        let who = match at {
            At::Teacher { id, .. } => Who::User(Role::Teacher, id.to_string()),
            At::Student { id, .. } => Who::User(Role::Student, id.to_string()),
            At::Chat { chat, .. } => Who::Chat(chat.to_string()),
            At::Left { lost } => {
                if known.is_some_and(|i| self.channels[i].n < n) {
                    self.leave(now, &place, *lost);
                }
                return Ok(());
            }
        };
        if matches!(&who, Who::Chat(id) if !self.chats.iter().any(|c| c.id == *id)) {
            return Ok(());
        }
        match known {
            Some(i) if self.channels[i].n >= n => return Ok(()),
            Some(i) if self.channels[i].who != who => return Err(Reason::Forbidden),
            Some(i) => self.channels[i].n = n,
            None => self.channels.push(Channel { place, n, who }),
        }
        match at {
            At::Teacher { id, says, said } => {
                let id = id.to_string();
                self.due.retain(|(_, due)| *due != Due::TeacherGone(id.clone()));
                let max_capacity = self.config.max_capacity;
                if !self.teachers.iter().any(|t| t.id == id) {
                    let mut teacher = Teacher { id: id.clone(), capacity: 5, auto: false, away: false };
                    teacher.set(said, max_capacity);
                    self.teachers.push(teacher);
                }
                let teacher = self.teachers.iter_mut().find(|t| t.id == id).expect("it is there");
                teacher.set(says, max_capacity);
            }
            At::Student { id, ready } => {
                let id = id.to_string();
                self.due.retain(|(_, due)| *due != Due::StudentGone(id.clone()));
                self.lost.retain(|lost| *lost != id);
                return if *ready { self.ready(&id) } else { Ok(()) };
            }
            At::Chat { chat, role, entered: true } => self.enter(&chat.to_string(), *role),
            At::Chat { .. } | At::Left { .. } => {}
        }
        Ok(())
    }

    fn ready(&mut self, id: &str) -> Result<(), Reason> {
        if self.students.iter().any(|s| s.id == id && s.state != StudentState::Finished) {
            return Ok(());
        }
        if self.queue().len() >= self.config.max_waiting {
            return Err(Reason::QueueFull);
        }
        self.students.retain(|s| s.id != id);
        self.students.push(Student { id: id.to_owned(), state: StudentState::Waiting, ticket: self.next_ticket });
        self.next_ticket += 1;
        Ok(())
    }

    fn enter(&mut self, id: &str, role: Role) {
        let Some(chat) = self.chats.iter_mut().find(|c| c.id == id && c.end.is_none()) else { return };
        match role {
            Role::Teacher => chat.teacher_entered = true,
            Role::Student => chat.student_entered = true,
        }
        if chat.teacher_entered && chat.student_entered {
            self.due.retain(|(_, due)| *due != Due::NotEntered(id.to_owned()));
        }
    }

    fn lose(&mut self, now: Duration, lost: impl Fn(&Place) -> bool) {
        let mut places: Vec<_> = self.channels.iter().map(|c| c.place.clone()).filter(|p| lost(p)).collect();
        places.sort();
        for place in places {
            self.leave(now, &place, true);
            self.auto(now);
        }
    }

    fn leave(&mut self, now: Duration, place: &Place, lost: bool) {
        let i = self.channels.iter().position(|c| c.place == *place).expect("it is there");
        let who = self.channels.remove(i).who;
        if !self.channels_of(&who).is_empty() {
            return;
        }
        let finished = |s: &Student, id: &str| s.id == id && s.state == StudentState::Finished;
        match who {
            Who::Chat(_) => {}
            Who::User(Role::Teacher, id) if lost => self.due.push((now + self.config.grace, Due::TeacherGone(id))),
            Who::User(Role::Teacher, id) => self.drop_teacher(&id),
            Who::User(Role::Student, id) if !self.students.iter().any(|s| s.id == id) => {}
            Who::User(Role::Student, id) if lost && !self.students.iter().any(|s| finished(s, &id)) => {
                self.lost.push(id.clone());
                self.due.push((now + self.config.grace, Due::StudentGone(id)));
            }
            Who::User(Role::Student, id) => self.drop_student(&id),
        }
    }

    fn drop_teacher(&mut self, id: &str) {
        let chats: Vec<_> = self.chats_of(Role::Teacher, id).iter().map(|c| c.id.clone()).collect();
        chats.iter().for_each(|chat| self.end(chat, ChatEnd::Requeued));
        self.teachers.retain(|t| t.id != id);
    }

    fn drop_student(&mut self, id: &str) {
        let chats: Vec<_> = self.chats_of(Role::Student, id).iter().map(|c| c.id.clone()).collect();
        chats.iter().for_each(|chat| self.end(chat, ChatEnd::Terminated));
        self.students.retain(|s| s.id != id);
        self.lost.retain(|lost| lost != id);
        self.due.retain(|(_, due)| *due != Due::StudentGone(id.to_owned()));
    }

    fn end(&mut self, id: &str, end: ChatEnd) {
        self.due.retain(|(_, due)| *due != Due::NotEntered(id.to_owned()));
        let Some(chat) = self.chats.iter_mut().find(|c| c.id == id && c.end.is_none()) else { return };
        chat.end = Some(end);
        let student = self.students.iter_mut().find(|s| s.id == chat.student).expect("on the roster");
        student.state = match end {
            ChatEnd::Terminated => StudentState::Finished,
            ChatEnd::Requeued => StudentState::Waiting,
        };
        let id = chat.student.clone();
        // Who is lost keeps its place for a while, and a finished student has none.
        if end == ChatEnd::Terminated && self.lost.contains(&id) {
            self.drop_student(&id);
        }
    }

    fn assign(&mut self, now: Duration, teacher_id: &str, claim: u64) -> bool {
        let has = self.chats_of(Role::Teacher, teacher_id).len();
        let teacher = self.teachers.iter().find(|t| t.id == teacher_id).expect("on the roster");
        let Some(first) = self.queue().first().map(|s| s.id.clone()) else { return false };
        if teacher.away || has >= teacher.capacity as usize {
            return false;
        }
        let student = self.students.iter_mut().find(|s| s.id == first).expect("on the roster");
        student.state = StudentState::Chatting;
        let id = format!("{}-{}", self.prefix, self.next_chat);
        self.next_chat += 1;
        self.due.push((now + self.config.enter_timeout, Due::NotEntered(id.clone())));
        self.chats.push(Chat {
            id,
            teacher: teacher_id.to_owned(),
            student: first,
            teacher_entered: false,
            student_entered: false,
            end: None,
            claim,
        });
        true
    }

    fn auto(&mut self, now: Duration) {
        loop {
            let free = |t: &&Teacher| {
                let there = !self.channels_of(&Who::User(Role::Teacher, t.id.clone())).is_empty();
                let has = self.chats_of(Role::Teacher, &t.id).len();
                t.auto && !t.away && there && has < t.capacity as usize
            };
            let next = self.teachers.iter().filter(free);
            let next = next.min_by_key(|t| (self.chats_of(Role::Teacher, &t.id).len(), t.id.clone()));
            let Some(id) = next.map(|t| t.id.clone()) else { return };
            if !self.assign(now, &id, 0) {
                return;
            }
        }
    }
}
