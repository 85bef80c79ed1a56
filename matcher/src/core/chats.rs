//! Chats: how they begin and end, who is told of them, and what their logs are owed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use switchboard_contract::limits::OWED_RETRY;
use switchboard_contract::lobby::{ChatEnd, ChatEvent, ChatRecord, ChatStatus, NewChat, Role, StudentState};
use switchboard_contract::names::{ChatId, LobbyKey, UserId};
use switchboard_contract::wire::{V1, timestamp};

use super::roster::Student;
use super::table::{Addr, GatewayNo};
use super::timers::Timer;
use super::types::Token;
use super::{Core, Now, Reply};
use crate::observe;

/// How long a record may owe what its log already has. Most are written again before that, and carry it along; and
/// it is far below the log's window for duplicates, should a new leader pay it once more.
const CLEAR_AFTER: Duration = Duration::from_secs(10);

/// A chat that has a record.
#[derive(Debug)]
pub(super) struct Chat {
    pub(super) record: ChatRecord,
    /// Channels that have its topic joined.
    pub(super) rows: BTreeSet<Addr>,
    /// Channels that have not acknowledged its `new:chat`.
    pub(super) untold: BTreeMap<Addr, Untold>,
    /// The entry of its log that waits for its acknowledgement.
    logging: Option<ChatEvent>,
    /// Its linger time is over: its log gets a tombstone, then the record goes.
    closing: bool,
    /// Requests to end it, answered once its log has the end.
    enders: Vec<Token>,
}

/// A `new:chat` that is owed to a channel.
#[derive(Debug)]
pub(super) struct Untold {
    role: Role,
    hold: bool,
    /// When it is due to be told (again).
    due: Duration,
    told_before: bool,
}

impl Chat {
    pub(super) fn new(record: ChatRecord) -> Self {
        Chat {
            record,
            rows: BTreeSet::new(),
            untold: BTreeMap::new(),
            logging: None,
            closing: false,
            enders: Vec::new(),
        }
    }

    pub(super) fn is_active(&self) -> bool {
        self.record.status == ChatStatus::Active
    }

    /// What its log is owed next. The tombstone stands in no record: a leader that finds the finished chat waits for
    /// its linger time once more, and writes it then.
    fn owed(&self) -> Option<ChatEvent> {
        self.record.owes.first().copied().or(self.closing.then_some(ChatEvent::Tombstone))
    }
}

impl Core {
    pub(super) fn insert_chat(&mut self, record: ChatRecord) {
        if record.claim != 0 {
            self.claims.insert(record.claim);
        }
        self.chats.insert(record.id.clone(), Chat::new(record));
    }

    /// A claim's decision: the longest-waiting student, if the teacher has a place.
    pub(super) fn assign_next(&mut self, now: Now, teacher: &UserId, claim: u64) -> bool {
        if !self.has_place(teacher) {
            return false;
        }
        let Some((ticket, student)) = self.queue.first_key_value().map(|(ticket, id)| (*ticket, id.clone())) else {
            return false;
        };
        self.assign(now, teacher, ticket, &student, claim);
        true
    }

    /// Assigns one student to a teacher that takes them without asking, if there are both.
    pub(super) fn assign_auto(&mut self, now: Now) -> bool {
        let Some((_, teacher)) = self.open.first().cloned() else { return false };
        self.assign_next(now, &teacher, 0)
    }

    fn assign(&mut self, now: Now, teacher_id: &UserId, ticket: u64, student_id: &UserId, claim: u64) {
        let (Some(teacher), Some(student)) = (self.teachers.get_mut(teacher_id), self.students.get_mut(student_id))
        else {
            unreachable!("both are on their rosters")
        };
        let Some(student_record) = &mut student.record else { unreachable!("who waits is on the roster") };
        observe::waited(&student_record.since, now.wall);
        let since = timestamp(now.wall);
        let id = self.next_chat.next();
        student_record.state = StudentState::Chatting;
        student_record.chat = Some(id.clone());
        student_record.since.clone_from(&since);
        teacher.record.chats.push(id.clone());
        assert!(teacher.record.chats.len() <= teacher.record.capacity as usize, "within capacity");
        let record = ChatRecord {
            v: V1,
            id: id.clone(),
            status: ChatStatus::Active,
            teacher_id: teacher.record.id.clone(),
            student_id: student_record.id.clone(),
            teacher_entered: false,
            student_entered: false,
            end: None,
            owes: Vec::new(),
            claim,
            since,
        };
        let told: Vec<(Role, Addr)> = (teacher.rows.iter().map(|addr| (Role::Teacher, *addr)))
            .chain(student.rows.keys().map(|addr| (Role::Student, *addr)))
            .collect();
        self.insert_chat(record);
        for (role, addr) in told {
            self.tell(&id, role, addr, false);
        }
        self.timers.set(Timer::Enter(id.clone()), now.at + self.config.enter_timeout);
        self.chatting += 1;
        self.counters.matched += 1;
        self.places.assigned(now.at);
        self.leave_queue(ticket);
        self.index(teacher_id);
        self.touch(LobbyKey::Chat(id));
        self.touch(LobbyKey::Teacher(teacher_id.clone()));
        self.touch(LobbyKey::Student(student_id.clone()));
    }

    /// Ends an active chat. Its student is finished, or at the front of the queue again.
    pub(super) fn end_chat(&mut self, now: Now, id: &ChatId, end: ChatEnd) {
        let Some(chat) = self.chats.get_mut(id).filter(|c| c.is_active()) else { return };
        chat.record.status = ChatStatus::Finished;
        chat.record.end = Some(end);
        chat.record.owes.push(end.event());
        chat.untold.clear();
        let is_empty = chat.rows.is_empty();
        let (teacher_id, student_id) = (chat.record.teacher_id.clone(), chat.record.student_id.clone());
        self.pending.logs.insert(id.clone());
        self.timers.cancel(&Timer::Enter(id.clone()));
        self.timers.cancel(&Timer::Tell(id.clone()));
        if is_empty {
            self.timers.set(Timer::Linger(id.clone()), now.at + self.config.chat_linger);
        }
        if let Some(teacher) = self.teachers.get_mut(&teacher_id) {
            teacher.record.chats.retain(|chat| chat != id);
        }
        self.index(&teacher_id);
        self.free_student(now, &student_id, end);
        self.touch(LobbyKey::Chat(id.clone()));
        self.touch(LobbyKey::Teacher(teacher_id));
    }

    /// Answers a request to end a chat that has ended: once the log has it, so that whatever is sent after the answer
    /// stands behind the end.
    pub(super) fn answer_ended(&mut self, id: &ChatId, token: Token) {
        match self.chats.get_mut(id) {
            Some(chat) if chat.record.owes.iter().any(|owed| owed.end().is_some()) => chat.enders.push(token),
            Some(_) | None => self.pending.replies.push(Reply::Done { token, refused: None }),
        }
    }

    fn free_student(&mut self, now: Now, id: &UserId, end: ChatEnd) {
        let Some(Student { record: Some(record), lost, .. }) = self.students.get_mut(id) else {
            unreachable!("who chats is on the roster")
        };
        let lost = *lost;
        record.chat = None;
        record.since = timestamp(now.wall);
        self.chatting -= 1;
        match end {
            ChatEnd::Terminated => {
                record.state = StudentState::Finished;
                self.finished += 1;
                self.counters.terminated += 1;
                self.touch(LobbyKey::Student(id.clone()));
                // The grace time keeps a place; there is none to be kept any more.
                if lost {
                    self.drop_student(now, id);
                }
            }
            ChatEnd::Requeued => {
                record.state = StudentState::Waiting;
                let ticket = record.ticket;
                self.counters.requeued += 1;
                self.join_queue(ticket, id);
            }
        }
    }

    /// A channel that has a chat's topic joined; `entered`: that side said so.
    pub(super) fn chat_row(&mut self, addr: Addr, id: &ChatId, role: Role, entered: bool) {
        let Some(chat) = self.chats.get_mut(id) else { return };
        chat.rows.insert(addr);
        self.timers.cancel(&Timer::Linger(id.clone()));
        if !entered || !chat.is_active() || chat.record.entered(role) {
            return;
        }
        match role {
            Role::Teacher => chat.record.teacher_entered = true,
            Role::Student => chat.record.student_entered = true,
        }
        chat.untold.retain(|_, untold| untold.role != role);
        if chat.record.teacher_entered && chat.record.student_entered {
            chat.record.owes.push(ChatEvent::Ready);
            self.pending.logs.insert(id.clone());
            self.timers.cancel(&Timer::Enter(id.clone()));
        }
        self.touch(LobbyKey::Chat(id.clone()));
    }

    /// A channel has left a chat's topic, in whichever way.
    pub(super) fn chat_row_left(&mut self, now: Now, addr: Addr, id: &ChatId) {
        let Some(chat) = self.chats.get_mut(id) else { return };
        chat.rows.remove(&addr);
        if chat.rows.is_empty() && !chat.is_active() && !chat.closing {
            self.timers.set(Timer::Linger(id.clone()), now.at + self.config.chat_linger);
        }
    }

    /// A side has not entered in time.
    pub(super) fn enter_over(&mut self, now: Now, id: &ChatId) {
        let Some(chat) = self.chats.get(id) else { return };
        let end = if chat.record.teacher_entered { ChatEnd::Terminated } else { ChatEnd::Requeued };
        self.end_chat(now, id, end);
    }

    /// Nobody has been in a finished chat for long enough.
    pub(super) fn linger_over(&mut self, id: &ChatId) {
        let Some(chat) = self.chats.get_mut(id) else { return };
        chat.closing = true;
        self.pending.logs.insert(id.clone());
    }

    /// An entry of a chat's log is stored.
    pub(super) fn logged(&mut self, now: Now, id: &ChatId, event: ChatEvent) {
        let Some(chat) = self.chats.get_mut(id).filter(|c| c.owed() == Some(event)) else { return };
        chat.logging = None;
        chat.record.owes.retain(|owed| *owed != event);
        if event.end().is_some() {
            let ended = std::mem::take(&mut chat.enders).into_iter();
            self.pending.replies.extend(ended.map(|token| Reply::Done { token, refused: None }));
        }
        let owes_more = chat.owed().is_some();
        self.timers.cancel(&Timer::Log(id.clone()));
        if event == ChatEvent::Tombstone {
            if let Some(chat) = self.chats.remove(id) {
                self.claims.remove(&chat.record.claim);
            }
            self.timers.cancel(&Timer::Clear(id.clone()));
            self.touch(LobbyKey::Chat(id.clone()));
            return;
        }
        self.timers.set_earlier(Timer::Clear(id.clone()), now.at + CLEAR_AFTER);
        if owes_more {
            self.pending.logs.insert(id.clone());
        }
    }

    /// An entry of a chat's log was not acknowledged.
    pub(super) fn log_again(&mut self, id: &ChatId) {
        let Some(chat) = self.chats.get_mut(id) else { return };
        chat.logging = None;
        self.pending.logs.insert(id.clone());
    }

    /// A record still owes what its log has.
    pub(super) fn clear_owed(&mut self, id: &ChatId) {
        self.touch(LobbyKey::Chat(id.clone()));
    }

    /// A channel is to be told of a chat, until it acknowledges it.
    pub(super) fn tell(&mut self, id: &ChatId, role: Role, addr: Addr, hold: bool) {
        let Some(chat) = self.chats.get_mut(id).filter(|c| c.is_active()) else { return };
        chat.untold.insert(addr, Untold { role, hold, due: Duration::ZERO, told_before: false });
        self.pending.tells.insert(id.clone());
    }

    /// A channel has been told, or is gone.
    pub(super) fn untell(&mut self, id: &ChatId, addr: Addr) {
        let Some(chat) = self.chats.get_mut(id) else { return };
        chat.untold.remove(&addr);
        if chat.untold.is_empty() {
            self.timers.cancel(&Timer::Tell(id.clone()));
        }
    }

    /// The `new:chat`s that are due of those chats that want some told, by gateway. They are due again if they are
    /// not acknowledged in time.
    pub(super) fn take_tells(&mut self, now: Duration) -> BTreeMap<GatewayNo, Vec<NewChat>> {
        let mut tells: BTreeMap<GatewayNo, Vec<NewChat>> = BTreeMap::new();
        for id in std::mem::take(&mut self.pending.tells) {
            let Some(chat) = self.chats.get_mut(&id) else { continue };
            let mut groups: BTreeMap<(GatewayNo, Role, bool), Vec<_>> = BTreeMap::new();
            for (addr, untold) in chat.untold.iter_mut().filter(|(_, untold)| untold.due <= now) {
                groups.entry((addr.gateway, untold.role, untold.hold)).or_default().push(addr.chan);
                self.counters.retold += u64::from(untold.told_before);
                untold.told_before = true;
                untold.due = now + OWED_RETRY;
            }
            if let Some(due) = chat.untold.values().map(|untold| untold.due).min() {
                self.timers.set(Timer::Tell(id), due);
            }
            for ((gateway, _, hold), chans) in groups {
                tells.entry(gateway).or_default().push(NewChat { chans, chat: chat.record.clone(), hold });
            }
        }
        tells
    }

    /// The entries that logs are owed next, of those chats that want one written; one per chat.
    pub(super) fn take_logs(&mut self, now: Duration) -> Vec<(ChatId, ChatEvent)> {
        let mut logs = Vec::new();
        for id in std::mem::take(&mut self.pending.logs) {
            let Some(chat) = self.chats.get_mut(&id).filter(|c| c.logging.is_none()) else { continue };
            let Some(event) = chat.owed() else { continue };
            chat.logging = Some(event);
            self.timers.set(Timer::Log(id.clone()), now + OWED_RETRY);
            logs.push((id, event));
        }
        logs
    }
}
