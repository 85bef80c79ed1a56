//! Ring 1: this input at this time gives exactly these effects, and exactly these records.

mod chats;
mod commits;
mod loading;
mod looks;
mod roster;
mod telling;

use std::time::{Duration, SystemTime};

use switchboard_contract::lobby::{
    At, ChannelId, ChatEvent, Claim, NewChat, Role, Row, Table, TeacherSettings, Terminate, Whole,
};
use switchboard_contract::names::{ChatId, Incarnation, UserId};
use switchboard_contract::wire::V1;

use super::{Batch, Config, Core, Effect, Input, Loaded, Now, Record, Token};

/// A core with a clock, and with batches that are committed when the test says so.
struct Rig {
    core: Core,
    at: Duration,
    seq: u64,
    token: Token,
    batch_len: u64,
}

impl Rig {
    fn new() -> Self {
        Rig::with(Config::default())
    }

    /// A lobby of gateways `a` and `b`, both with empty tables, at a quiet moment.
    fn with(config: Config) -> Self {
        let mut rig =
            Rig { core: Core::new(7, "x", config), at: Duration::from_secs(100), seq: 100, token: 0, batch_len: 0 };
        for gateway in ["a", "b"] {
            rig.whole(gateway, Vec::new());
        }
        rig.wait_ms(500);
        rig
    }

    fn now(&self) -> Now {
        Now { at: self.at, wall: SystemTime::UNIX_EPOCH + self.at }
    }

    fn wait_ms(&mut self, ms: u64) -> Vec<String> {
        let until = self.at + Duration::from_millis(ms);
        let mut said = Vec::new();
        while self.core.next_deadline() <= until {
            self.at = self.core.next_deadline().max(self.at);
            said.extend(self.run(Input::Tick));
        }
        self.at = until;
        // Repeated statuses say nothing.
        said.retain(|line| !line.starts_with("status"));
        said
    }

    /// An input, of which nothing is committed yet.
    fn put(&mut self, input: Input) -> Vec<String> {
        let effects = self.core.handle(self.now(), input);
        show(&effects)
    }

    fn batch(&mut self) -> Option<Vec<String>> {
        let batch = self.core.take_batch(self.now())?;
        self.batch_len = batch.records.len() as u64;
        Some(show_batch(&batch))
    }

    fn commit(&mut self) -> Vec<String> {
        self.seq += self.batch_len.max(10);
        let effects = self.core.committed(self.now(), self.seq);
        show(&effects)
    }

    /// An input, with everything committed at once.
    fn run(&mut self, input: Input) -> Vec<String> {
        let mut said = self.put(input);
        while self.batch().is_some() {
            said.extend(self.commit());
        }
        said
    }

    /// As [`Rig::run`], without replies that say nothing and without statuses.
    fn quiet(&mut self, input: Input) -> Vec<String> {
        let mut said = self.run(input);
        said.retain(|line| !line.starts_with("status") && !line.starts_with("reply") && !line.ends_with("done"));
        said
    }

    fn table(&mut self, gateway: &str, rows: Vec<(ChannelId, u64, At)>, whole: Option<Whole>) -> Input {
        self.token += 1;
        let rows = rows.into_iter().map(|(chan, n, at)| Row { chan, n, at }).collect();
        Input::Table(self.token, Table { v: V1, gateway: name(gateway), whole, rows })
    }

    fn whole(&mut self, gateway: &str, rows: Vec<(ChannelId, u64, At)>) -> Vec<String> {
        let table = self.table(gateway, rows, Some(Whole { first: true, last: true }));
        self.quiet(table)
    }

    /// One row, committed; what was said but for the reply and the status.
    fn row(&mut self, gateway: &str, chan: ChannelId, n: u64, at: At) -> Vec<String> {
        let table = self.table(gateway, vec![(chan, n, at)], None);
        self.quiet(table)
    }

    /// A student joins and is ready, on channel `chan` of a gateway, with `n` 1.
    fn waits(&mut self, gateway: &str, chan: ChannelId, id: u64) {
        self.row(gateway, chan, 1, student(id, true));
    }

    fn claim_input(&mut self, gateway: &str, chan: ChannelId) -> Input {
        self.token += 1;
        Input::Claim(self.token, Claim { v: V1, gateway: name(gateway), chan, id: self.token })
    }

    fn claim(&mut self, gateway: &str, chan: ChannelId) -> Vec<String> {
        let claim = self.claim_input(gateway, chan);
        self.quiet(claim)
    }

    fn terminate_input(&mut self, chat: &str) -> Input {
        self.token += 1;
        Input::Terminate(self.token, Terminate { v: V1, chat: chat_id(chat) })
    }

    fn terminate(&mut self, chat: &str) -> Vec<String> {
        let terminate = self.terminate_input(chat);
        self.quiet(terminate)
    }

    fn told(&mut self, gateway: &str, chat: &str, chans: &[ChannelId]) {
        let told = chans.iter().map(|chan| (chat_id(chat), *chan)).collect();
        assert_eq!(self.run(Input::Told(name(gateway), told)), none());
    }

    fn logged(&mut self, chat: &str, event: ChatEvent) -> Vec<String> {
        self.quiet(Input::Logged(chat_id(chat), event))
    }

    /// Teacher 1 on `a` 1 and student 2 on `b` 2, in chat `x-1`, told of it.
    fn chatting() -> Self {
        let mut rig = Rig::new();
        rig.row("a", 1, 1, teacher(1));
        rig.waits("b", 2, 2);
        rig.claim("a", 1);
        rig.told("a", "x-1", &[1]);
        rig.told("b", "x-1", &[2]);
        rig
    }

    /// The counts: teachers, waiting, chatting, finished.
    fn counts(&self) -> [u64; 4] {
        let status = self.core.status();
        [status.teachers, status.waiting, status.chatting, status.finished]
    }

    /// Who waits, in order.
    fn queue(&self) -> Vec<&str> {
        self.core.queue.values().map(UserId::as_str).collect()
    }
}

fn name(name: &str) -> Incarnation {
    Incarnation::named(name).expect("a name")
}

fn chat_id(id: &str) -> ChatId {
    ChatId::new(id).expect("an id")
}

fn teacher(id: u64) -> At {
    set(id, None, None, None)
}

fn set(id: u64, capacity: Option<u32>, auto: Option<bool>, away: Option<bool>) -> At {
    At::Teacher {
        id: UserId::from(id),
        says: TeacherSettings { capacity, auto, away },
        said: TeacherSettings::default(),
    }
}

/// As [`set`], said before and acknowledged.
fn was_set(id: u64, capacity: Option<u32>, auto: Option<bool>, away: Option<bool>) -> At {
    At::Teacher {
        id: UserId::from(id),
        says: TeacherSettings::default(),
        said: TeacherSettings { capacity, auto, away },
    }
}

fn student(id: u64, ready: bool) -> At {
    At::Student { id: UserId::from(id), ready }
}

fn member(chat: &str, role: Role, entered: bool) -> At {
    At::Chat { chat: chat_id(chat), role, entered }
}

fn left(lost: bool) -> At {
    At::Left { lost }
}

fn none() -> Vec<String> {
    Vec::new()
}

fn show(effects: &[Effect]) -> Vec<String> {
    effects.iter().map(show_effect).collect()
}

fn show_effect(effect: &Effect) -> String {
    match effect {
        Effect::TableReply(token, reply) => {
            let refused: String = reply.refused.iter().map(|(chan, reason)| format!(" {chan} {reason}")).collect();
            let resend = if reply.resend { " resend" } else { "" };
            format!("reply {token} v{}{resend}{refused}", reply.status.version)
        }
        Effect::Done(token, done) => match done.refused {
            Some(reason) => format!("done {token} {reason}"),
            None => format!("{token} done"),
        },
        Effect::Push(gateway, push) => {
            let chats: String = push.new_chats.iter().map(show_new_chat).collect();
            let positions = push.positions.as_ref().map(|p| format!(" of {} pace {:?} {:?}", p.of, p.pace_ms, p.list));
            format!("push {gateway}{chats}{}", positions.unwrap_or_default())
        }
        Effect::Log(chat, event) => format!("log {chat} {}", event.as_str()),
        Effect::Forget(token) => format!("forget {token}"),
        Effect::Looked(tokens, view) => {
            let queue: Vec<_> = view.queue.iter().map(|waiting| waiting.student.as_str()).collect();
            let chats: Vec<_> = view.chats.iter().map(|talk| talk.id.as_str()).collect();
            format!("{tokens:?} see {queue:?} {chats:?}")
        }
        Effect::Status(s) => {
            format!("status v{} {} {} {} {}", s.version, s.teachers, s.waiting, s.chatting, s.finished)
        }
    }
}

fn show_new_chat(new: &NewChat) -> String {
    format!(" {}{:?}{}", new.chat.id, new.chans, if new.hold { " hold" } else { "" })
}

fn show_batch(batch: &Batch) -> Vec<String> {
    batch.records.iter().map(|(key, record)| format!("{key}{}", show_record(record.as_ref()))).collect()
}

fn show_record(record: Option<&Record>) -> String {
    match record {
        None => " -".into(),
        Some(Record::Teacher(t)) => {
            let chats: Vec<_> = t.chats.iter().map(ChatId::as_str).collect();
            format!(
                " {}{}{} {chats:?}",
                t.capacity,
                if t.auto { " auto" } else { "" },
                if t.away { " away" } else { "" }
            )
        }
        Some(Record::Student(s)) => {
            format!(" {:?} #{} {}", s.state, s.ticket, s.chat.as_ref().map_or("-", ChatId::as_str))
        }
        Some(Record::Queue(q)) => format!(" {}", q.student),
        Some(Record::Chat(c)) => {
            let owes: Vec<_> = c.owes.iter().map(|e| e.as_str()).collect();
            format!(" {:?} {} {} {:?} {owes:?}", c.status, c.teacher_entered, c.student_entered, c.end)
        }
    }
}
