//! Ring 2: random transitions of the core against the naive [`Lobby`], with commits that come late and leaders that
//! die before, during and after a batch. `SEED=n` plays one run again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use switchboard_contract::inside::{Talk, Waiting};
use switchboard_contract::lobby::{
    At, ChatEvent, ChatRecord, ChatStatus, Claim, Push, Role, Row, Status, StudentState, Table, TableReply,
    TeacherSettings, Terminate, Whole,
};
use switchboard_contract::names::{ChatId, Incarnation, LobbyKey, UserId};
use switchboard_contract::reason::Reason;
use switchboard_contract::wire::V1;
use switchboard_matcher::core::{Batch, Config, Core, Effect, Input, Loaded, Now, Record, Token, View};

use crate::reference::{Lobby, Place, Who};

const RUNS: u64 = 10_000;
const STEPS: usize = 150;
const GATEWAYS: [&str; 3] = ["a", "b", "c"];

/// What the naive lobby says to a request.
#[derive(Debug, PartialEq)]
enum Answer {
    Table(Option<Vec<(u64, Reason)>>),
    Done(Option<Reason>),
}

/// Each student's state and ticket.
type Students = BTreeMap<String, (StudentState, u64)>;

/// A request that is not answered yet: what it must be told, and after which change of the lobby.
struct Asked {
    answer: Answer,
    change: u64,
}

/// The world around a core: clients' channels, the bucket, the logs.
struct World {
    rng: StdRng,
    at: Duration,
    core: Core,
    lobby: Lobby,
    /// Counts the inputs of the lobby.
    change: u64,
    epoch: u64,
    seq: u64,
    bucket: BTreeMap<LobbyKey, (Record, u64)>,
    /// The batch in flight, with the lobby as it was, and its change.
    in_flight: Option<(Batch, Lobby, u64)>,
    /// The lobby as the bucket has it.
    stored: Lobby,
    /// What the gateways have: the last row of each channel.
    channels: BTreeMap<Place, Row>,
    next_chan: u64,
    asked: BTreeMap<Token, Asked>,
    /// Who looks and has seen nothing yet.
    looks: BTreeSet<Token>,
    token: Token,
    logs: BTreeMap<ChatId, Vec<ChatEvent>>,
    log_acks: Vec<(ChatId, ChatEvent)>,
    /// Each claim that was asked, with its id; some are asked again.
    claims: Vec<(Place, u64)>,
    tell_acks: Vec<(Incarnation, ChatId, u64)>,
    told: BTreeSet<(String, Place)>,
    published: Option<(Status, Students)>,
}

#[test]
fn the_core_does_what_the_naive_lobby_does() {
    let begin = std::time::Instant::now();
    if let Some(seed) = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        run(seed);
        return;
    }
    let mut seen = [0; 3];
    for seed in 0..RUNS {
        let result = std::panic::catch_unwind(|| run(seed));
        match result {
            Ok(counts) => seen.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n),
            Err(panic) => {
                eprintln!("SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    eprintln!("{RUNS} runs in {:?}: {seen:?} matched, requeued, terminated", begin.elapsed());
    assert!(seen.iter().all(|n| *n > RUNS / 2), "the runs reach all of it: {seen:?}");
}

fn run(seed: u64) -> [u64; 3] {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.settle();
    world.all_told();
    world.everybody_goes();
    let counters = world.core.counters();
    [counters.matched, counters.requeued, counters.terminated]
}

impl World {
    fn new(seed: u64) -> Self {
        let config = config();
        let lobby = Lobby::new(config.clone());
        let mut core = Core::new(1, "0", config);
        let at = Duration::from_secs(1);
        core.load(now(at), Vec::new(), 1, None);
        World {
            rng: StdRng::seed_from_u64(seed),
            at,
            core,
            stored: lobby.clone(),
            lobby,
            change: 0,
            epoch: 1,
            seq: 1,
            bucket: BTreeMap::new(),
            in_flight: None,
            channels: BTreeMap::new(),
            next_chan: 1,
            asked: BTreeMap::new(),
            looks: BTreeSet::new(),
            token: 0,
            logs: BTreeMap::new(),
            log_acks: Vec::new(),
            claims: Vec::new(),
            tell_acks: Vec::new(),
            told: BTreeSet::new(),
            published: None,
        }
    }

    // ---- what may happen -----------------------------------------------------------------------------------------

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..45 => self.some_rows(),
            45..58 => self.some_claim(),
            58..62 => self.some_terminate(),
            62..65 => self.some_whole_table(),
            65..67 => self.some_gateway_dies(),
            67..80 => self.time_passes(),
            80..90 => self.commit(),
            90..95 => self.acknowledge_log(),
            95..99 => self.acknowledge_told(),
            _ => self.leader_dies(),
        }
        if self.rng.random_bool(0.2) {
            self.look();
        }
        if self.rng.random_bool(0.8) {
            self.begin_batch();
        }
    }

    fn look(&mut self) {
        self.token += 1;
        self.looks.insert(self.token);
        self.input(Input::Look(self.token));
    }

    fn some_rows(&mut self) {
        let gateway = GATEWAYS[self.rng.random_range(0..GATEWAYS.len())];
        let rows = (0..self.rng.random_range(1..4)).map(|_| self.some_row(gateway)).collect();
        self.table(gateway, None, rows);
    }

    /// A new channel of a gateway, a change of one, or what is old.
    fn some_row(&mut self, gateway: &str) -> Row {
        let ours: Vec<Place> = self.channels.keys().filter(|(name, _)| name == gateway).cloned().collect();
        if ours.is_empty() || self.rng.random_bool(0.4) {
            let at = self.some_new();
            let row = Row { chan: self.next_chan, n: 1, at };
            self.next_chan += 1;
            self.channels.insert((gateway.to_owned(), row.chan), row.clone());
            return row;
        }
        let place = ours[self.rng.random_range(0..ours.len())].clone();
        let mut row = self.channels[&place].clone();
        if self.rng.random_bool(0.1) {
            row.n -= self.rng.random_range(0..=1);
            return row;
        }
        row.n += 1;
        row.at = self.some_change(row.at);
        if matches!(row.at, At::Left { .. }) {
            self.channels.remove(&place);
        } else {
            self.channels.insert(place, row.clone());
        }
        row
    }

    fn some_new(&mut self) -> At {
        match self.rng.random_range(0..10) {
            0..5 => At::Student { id: self.some_user(7), ready: self.rng.random_bool(0.7) },
            5..7 => self.some_teacher(None),
            _ => match self.some_chat() {
                Some(chat) => {
                    let role = if self.rng.random_bool(0.5) { Role::Teacher } else { Role::Student };
                    At::Chat { chat, role, entered: self.rng.random_bool(0.7) }
                }
                None => At::Student { id: self.some_user(7), ready: true },
            },
        }
    }

    fn some_change(&mut self, at: At) -> At {
        if self.rng.random_bool(0.35) {
            return At::Left { lost: self.rng.random_bool(0.6) };
        }
        match at {
            At::Teacher { id, .. } => self.some_teacher(Some(id)),
            At::Student { id, .. } => At::Student { id, ready: self.rng.random_bool(0.8) },
            At::Chat { chat, role, .. } => At::Chat { chat, role, entered: true },
            At::Left { lost } => At::Left { lost },
        }
    }

    fn some_teacher(&mut self, id: Option<UserId>) -> At {
        let id = id.unwrap_or_else(|| self.some_user(3));
        let said = if self.rng.random_bool(0.3) { self.some_settings() } else { TeacherSettings::default() };
        At::Teacher { id, says: self.some_settings(), said }
    }

    fn some_settings(&mut self) -> TeacherSettings {
        let rng = &mut self.rng;
        TeacherSettings {
            capacity: rng.random_bool(0.5).then(|| rng.random_range(0..6)),
            auto: rng.random_bool(0.3).then(|| rng.random_bool(0.5)),
            away: rng.random_bool(0.3).then(|| rng.random_bool(0.3)),
        }
    }

    fn some_user(&mut self, count: u64) -> UserId {
        let id = self.rng.random_range(1..=count);
        if self.rng.random_bool(0.5) { UserId::from(id) } else { UserId::text(&id.to_string()).expect("an id") }
    }

    /// A chat that the bucket has, or had.
    fn some_chat(&mut self) -> Option<ChatId> {
        let mut chats: Vec<ChatId> = self.logs.keys().cloned().collect();
        let chat = |key: &LobbyKey| if let LobbyKey::Chat(id) = key { Some(id.clone()) } else { None };
        let live: Vec<ChatId> = self.bucket.keys().filter_map(chat).collect();
        if !live.is_empty() && self.rng.random_bool(0.9) {
            chats = live;
        }
        (!chats.is_empty()).then(|| chats[self.rng.random_range(0..chats.len())].clone())
    }

    fn some_claim(&mut self) {
        let teacher = |row: &Row| matches!(row.at, At::Teacher { .. });
        let mut places: Vec<Place> =
            self.channels.iter().filter(|(_, row)| teacher(row)).map(|(place, _)| place.clone()).collect();
        if places.is_empty() || self.rng.random_bool(0.05) {
            places = self.channels.keys().cloned().collect();
            places.push(("b".into(), 0));
        }
        let before = self.rng.random_range(1..=8);
        let again = self.claims.iter().nth_back(before).filter(|_| self.rng.random_bool(0.2)).cloned();
        let (place, id) = again.unwrap_or_else(|| {
            let place = places[self.rng.random_range(0..places.len())].clone();
            (place, self.claims.len() as u64 + 1)
        });
        self.claims.push((place.clone(), id));
        let answer = self.lobby.claim(self.at, &place, id);
        let token = self.ask(Answer::Done(answer));
        let claim = Claim { v: V1, gateway: name(&place.0), chan: place.1, id };
        self.input(Input::Claim(token, claim));
    }

    fn some_terminate(&mut self) {
        let Some(chat) = self.some_chat() else { return };
        let answer = self.lobby.terminate(self.at, chat.as_str());
        let token = self.ask(Answer::Done(answer));
        self.input(Input::Terminate(token, Terminate { v: V1, chat }));
    }

    /// In one part or in two, and some rows are not in it.
    fn some_whole_table(&mut self) {
        let gateway = GATEWAYS[self.rng.random_range(0..GATEWAYS.len())];
        let lost: Vec<Place> = self.channels.keys().filter(|(name, _)| name == gateway).cloned().collect();
        for place in lost {
            if self.rng.random_bool(0.1) {
                self.channels.remove(&place);
            }
        }
        let mut rows: Vec<Row> =
            self.channels.iter().filter(|((name, _), _)| name == gateway).map(|(_, row)| row.clone()).collect();
        if self.rng.random_bool(0.3) {
            let rest = rows.split_off(rows.len() / 2);
            self.table(gateway, Some(Whole { first: true, last: false }), rows);
            if self.rng.random_bool(0.2) {
                return;
            }
            self.table(gateway, Some(Whole { first: false, last: true }), rest);
        } else {
            self.table(gateway, Some(Whole { first: true, last: true }), rows);
        }
    }

    fn some_gateway_dies(&mut self) {
        let gateway = GATEWAYS[self.rng.random_range(0..GATEWAYS.len())];
        self.channels.retain(|(name, _), _| name != gateway);
        self.lobby.gateway_gone(self.at, gateway);
        self.change += 1;
        self.input(Input::GatewayGone(name(gateway)));
    }

    fn time_passes(&mut self) {
        let longest = [5, 60, 1_500, 8_000, 25_000][self.rng.random_range(0..5)];
        self.at += Duration::from_millis(self.rng.random_range(1..longest));
        self.tick();
    }

    fn tick(&mut self) {
        self.lobby.tick(self.at);
        self.change += 1;
        self.input(Input::Tick);
    }

    fn begin_batch(&mut self) {
        let Some(batch) = self.core.take_batch(now(self.at)) else { return };
        assert!(self.in_flight.is_none() && !batch.records.is_empty() && batch.records.len() <= 1_000);
        self.in_flight = Some((batch, self.lobby.clone(), self.change));
    }

    fn commit(&mut self) {
        let Some((batch, lobby, change)) = self.in_flight.take() else { return };
        self.store(&batch);
        self.stored = lobby;
        check_bucket(&self.bucket, &self.stored);
        let effects = self.core.committed(now(self.at), self.seq);
        self.check_effects(effects, change);
    }

    fn store(&mut self, batch: &Batch) {
        for (key, record) in &batch.records {
            self.seq += 1;
            match record {
                Some(record) => drop(self.bucket.insert(key.clone(), (record.clone(), self.seq))),
                None => assert!(self.bucket.remove(key).is_some(), "a purge of nothing: {key}"),
            }
        }
    }

    fn acknowledge_log(&mut self) {
        if self.log_acks.is_empty() {
            return;
        }
        let (chat, event) = self.log_acks.swap_remove(self.rng.random_range(0..self.log_acks.len()));
        if event == ChatEvent::Tombstone {
            self.lobby.forget(chat.as_str());
        }
        self.change += 1;
        self.input(Input::Logged(chat, event));
    }

    fn acknowledge_told(&mut self) {
        if self.tell_acks.is_empty() {
            return;
        }
        let (gateway, chat, chan) = self.tell_acks.swap_remove(self.rng.random_range(0..self.tell_acks.len()));
        self.input(Input::Told(gateway, vec![(chat, chan)]));
    }

    /// Before the batch in flight was written, or after. Nobody who was not answered knows which.
    fn leader_dies(&mut self) {
        if let Some((batch, lobby, _)) = self.in_flight.take()
            && self.rng.random_bool(0.5)
        {
            self.store(&batch);
            self.stored = lobby;
        }
        check_bucket(&self.bucket, &self.stored);
        self.epoch += 1;
        self.seq += 1;
        self.asked.clear();
        self.looks.clear();
        self.log_acks.clear();
        self.tell_acks.clear();
        self.told.clear();
        let prefix = format!("{}", self.epoch);
        let records = self.bucket.iter().map(|(key, (record, revision))| Loaded {
            key: key.clone(),
            record: record.clone(),
            revision: *revision,
        });
        let heard = self.rng.random_bool(0.7).then(|| self.core.status());
        if heard.is_none() {
            self.published = None;
        }
        let mut core = Core::new(self.epoch, &prefix, config());
        core.load(now(self.at), records.collect(), self.seq, heard);
        assert_eq!(core.counters().repaired, 0, "what is committed fits together");
        self.core = core;
        self.lobby = self.stored.clone();
        self.lobby.reload(self.at, &prefix);
        self.tick();
    }

    // ---- what must be --------------------------------------------------------------------------------------------

    fn table(&mut self, gateway: &str, whole: Option<Whole>, rows: Vec<Row>) {
        let answer = self.lobby.table(self.at, gateway, whole, &rows);
        let token = self.ask(Answer::Table(answer));
        self.input(Input::Table(token, Table { v: V1, gateway: name(gateway), whole, rows }));
    }

    fn ask(&mut self, answer: Answer) -> Token {
        self.token += 1;
        self.change += 1;
        self.asked.insert(self.token, Asked { answer, change: self.change });
        self.token
    }

    fn input(&mut self, input: Input) {
        // What is told before a commit depends on none.
        let committed = self.change;
        let effects = self.core.handle(now(self.at), input);
        let speaks = |effect: &Effect| !matches!(effect, Effect::Status(_));
        if effects.iter().any(speaks) {
            assert!(self.in_flight.is_none(), "told before the commit: {effects:?}");
            self.stored = self.lobby.clone();
            check_bucket(&self.bucket, &self.stored);
        }
        self.check_effects(effects, committed);
    }

    fn check_effects(&mut self, effects: Vec<Effect>, mut committed: u64) {
        for effect in effects {
            match effect {
                Effect::TableReply(token, reply) => {
                    self.check_counts(&reply.status);
                    let TableReply { resend, refused, .. } = reply;
                    self.answered(token, Answer::Table((!resend).then_some(refused)), &mut committed);
                }
                Effect::Done(token, done) => self.answered(token, Answer::Done(done.refused), &mut committed),
                Effect::Status(status) => self.check_status(status),
                Effect::Push(gateway, push) => self.check_push(&gateway, push),
                Effect::Log(chat, event) => self.check_log(chat, event),
                Effect::Forget(_) => panic!("the inbox is not full"),
                Effect::Looked(tokens, view) => self.looked(&tokens, &view),
            }
        }
    }

    fn answered(&mut self, token: Token, answer: Answer, committed: &mut u64) {
        let asked = self.asked.remove(&token).expect("answered once");
        assert_eq!(answer, asked.answer);
        if asked.change > *committed {
            // It changed nothing that was not written: then the bucket is the lobby as it is.
            check_bucket(&self.bucket, &self.lobby);
            self.stored = self.lobby.clone();
            *committed = self.change;
        }
    }

    /// What is seen is what the bucket has.
    fn looked(&mut self, tokens: &[Token], view: &View) {
        assert!(!tokens.is_empty() && tokens.iter().all(|token| self.looks.remove(token)), "answered once");
        self.check_counts(&view.status);
        let (mut queue, mut chats) = (Vec::new(), Vec::new());
        for (record, _) in self.bucket.values() {
            match record {
                Record::Queue(q) => queue.push(Waiting { student: q.student.clone(), since: q.since.as_str().into() }),
                Record::Chat(c) if c.status == ChatStatus::Active => chats.push(Talk {
                    id: c.id.clone(),
                    teacher: c.teacher_id.clone(),
                    student: c.student_id.clone(),
                    since: c.since.as_str().into(),
                }),
                Record::Chat(_) | Record::Teacher(_) | Record::Student(_) => {}
            }
        }
        assert_eq!(self.core.waiting_since(), queue.first().map(|first| &*first.since));
        assert_eq!(view.queue, queue);
        chats.sort_by(|a, b| (&b.since, &b.id).cmp(&(&a.since, &a.id)));
        assert_eq!(view.chats, chats);
    }

    fn students(&self) -> Students {
        let student = |record: &Record| match record {
            Record::Student(s) => Some((s.id.to_string(), (s.state, s.ticket))),
            Record::Teacher(_) | Record::Queue(_) | Record::Chat(_) => None,
        };
        self.bucket.values().filter_map(|(record, _)| student(record)).collect()
    }

    fn check_counts(&self, status: &Status) {
        let students = self.students();
        let count = |state| students.values().filter(|(s, _)| *s == state).count() as u64;
        let teachers = self.bucket.keys().filter(|key| matches!(key, LobbyKey::Teacher(_))).count() as u64;
        assert_eq!(
            [status.teachers, status.waiting, status.chatting, status.finished],
            [teachers, count(StudentState::Waiting), count(StudentState::Chatting), count(StudentState::Finished)]
        );
        assert_eq!(status.epoch, self.epoch);
    }

    fn check_status(&mut self, status: Status) {
        self.check_counts(&status);
        let students = self.students();
        if let Some((before, had)) = &self.published {
            assert!(status.version >= before.version, "{before:?} {status:?}");
            if status.epoch == before.epoch {
                assert!(status.version > before.version || students == *had, "a change of students is a new version");
            }
            let same = (before.waiting, before.chatting, before.finished);
            if status.version == before.version {
                assert_eq!((status.waiting, status.chatting, status.finished), same);
            }
        }
        self.published = Some((status, students));
    }

    fn check_push(&mut self, gateway: &Incarnation, push: Push) {
        assert_eq!(push.epoch, self.epoch);
        for new in push.new_chats {
            let Some((Record::Chat(stored), _)) = self.bucket.get(&LobbyKey::Chat(new.chat.id.clone())) else {
                panic!("told, not stored: {new:?}")
            };
            // What the log has may be cleared from the record later.
            assert_eq!(ChatRecord { owes: new.chat.owes.clone(), ..stored.clone() }, new.chat);
            assert_eq!(new.chat.status, ChatStatus::Active);
            for chan in new.chans {
                self.told.insert((new.chat.id.to_string(), (gateway.to_string(), chan)));
                if self.rng.random_bool(0.7) {
                    self.tell_acks.push((gateway.clone(), new.chat.id.clone(), chan));
                }
            }
        }
        if let Some(positions) = push.positions {
            let queue = self.stored.queue();
            assert_eq!(positions.of, queue.len() as u64);
            for (chan, position) in positions.list {
                let place = (gateway.to_string(), chan);
                let student = queue[usize::try_from(position).expect("a place") - 1];
                let channels = self.stored.channels_of(&Who::User(Role::Student, student.id.clone()));
                assert!(channels.contains(&&place), "{place:?} is not at {position}");
            }
        }
    }

    fn check_log(&mut self, chat: ChatId, event: ChatEvent) {
        let Some((Record::Chat(record), _)) = self.bucket.get(&LobbyKey::Chat(chat.clone())) else {
            panic!("{event:?} of a chat that is not stored")
        };
        let log = self.logs.entry(chat.clone()).or_default();
        match event {
            ChatEvent::Ready => {
                assert!(record.teacher_entered && record.student_entered);
                assert!(log.is_empty() || log.contains(&event), "ready is the first");
            }
            ChatEvent::Terminated | ChatEvent::Requeued => {
                assert_eq!(record.end, event.end());
                assert_eq!(log.contains(&ChatEvent::Ready), record.teacher_entered && record.student_entered);
            }
            ChatEvent::Tombstone => assert!(record.end.is_some_and(|end| log.contains(&end.event()))),
        }
        if !log.contains(&event) {
            log.push(event);
        }
        if self.rng.random_bool(0.7) {
            self.log_acks.push((chat, event));
        }
    }

    // ---- the end -------------------------------------------------------------------------------------------------

    /// Everything is written and acknowledged, and nothing else happens, for a few seconds.
    fn settle(&mut self) {
        for _ in 0..40 {
            self.begin_batch();
            self.commit();
            while !self.log_acks.is_empty() {
                self.acknowledge_log();
            }
            while !self.tell_acks.is_empty() {
                self.acknowledge_told();
            }
            self.at += Duration::from_millis(500);
            self.tick();
        }
        while self.in_flight.is_some()
            || self.core.take_batch(now(self.at)).is_some_and(|batch| {
                self.in_flight = Some((batch, self.lobby.clone(), self.change));
                true
            })
        {
            self.commit();
        }
        assert!(self.asked.is_empty() && self.looks.is_empty(), "all are answered");
        check_bucket(&self.bucket, &self.lobby);
    }

    /// Each channel of a user with an active chat that it has not entered was told of it.
    fn all_told(&self) {
        for chat in self.lobby.chats.iter().filter(|chat| chat.end.is_none()) {
            let sides = [
                (Role::Teacher, &chat.teacher, chat.teacher_entered),
                (Role::Student, &chat.student, chat.student_entered),
            ];
            for (role, id, _) in sides.into_iter().filter(|(_, _, entered)| !entered) {
                for place in self.lobby.channels_of(&Who::User(role, id.clone())) {
                    assert!(
                        self.told.contains(&(chat.id.clone(), place.clone())),
                        "{place:?} does not know {}",
                        chat.id
                    );
                }
            }
        }
    }

    fn everybody_goes(&mut self) {
        for gateway in GATEWAYS {
            self.lobby.gateway_gone(self.at, gateway);
            self.change += 1;
            self.input(Input::GatewayGone(name(gateway)));
        }
        self.settle();
        self.settle();
        self.settle();
        assert!(self.bucket.is_empty(), "left behind: {:?}", self.bucket.keys());
        assert!(self.core.is_empty());
    }
}

/// The bucket is the lobby, and its records fit together.
fn check_bucket(bucket: &BTreeMap<LobbyKey, (Record, u64)>, lobby: &Lobby) {
    let mut teachers = BTreeMap::new();
    let mut students = BTreeMap::new();
    let mut queue = BTreeMap::new();
    let mut chats: BTreeMap<&ChatId, &ChatRecord> = BTreeMap::new();
    for (key, (record, _)) in bucket {
        match (key, record) {
            (LobbyKey::Teacher(id), Record::Teacher(t)) => drop(teachers.insert(id, t)),
            (LobbyKey::Student(id), Record::Student(s)) => drop(students.insert(id, s)),
            (LobbyKey::Queue(ticket), Record::Queue(q)) => drop(queue.insert(*ticket, &q.student)),
            (LobbyKey::Chat(id), Record::Chat(c)) => drop(chats.insert(id, c)),
            (key, record) => panic!("{key} holds {record:?}"),
        }
    }
    let active: Vec<&&ChatRecord> = chats.values().filter(|c| c.status == ChatStatus::Active).collect();
    // The promises.
    for (id, student) in &students {
        let theirs: Vec<&ChatId> = active.iter().filter(|c| c.student_id == **id).map(|c| &c.id).collect();
        assert!(theirs.len() <= 1, "a student in two chats: {theirs:?}");
        assert_eq!(student.chat.as_ref(), theirs.first().copied());
        assert_eq!(student.state == StudentState::Chatting, student.chat.is_some());
        assert_eq!(queue.get(&student.ticket) == Some(id), student.state == StudentState::Waiting);
    }
    for (id, teacher) in &teachers {
        let theirs: BTreeSet<&ChatId> = active.iter().filter(|c| c.teacher_id == **id).map(|c| &c.id).collect();
        assert_eq!(teacher.chats.iter().collect::<BTreeSet<_>>(), theirs);
        assert!(theirs.len() <= config().max_capacity as usize);
    }
    assert!(active.iter().all(|c| teachers.contains_key(&c.teacher_id) && students.contains_key(&c.student_id)));
    // The same as in the naive lobby.
    let waiting: Vec<String> = queue.values().map(|id| id.to_string()).collect();
    assert_eq!(waiting, lobby.queue().iter().map(|s| s.id.clone()).collect::<Vec<_>>(), "the queue's order");
    assert_eq!(teachers.len(), lobby.teachers.len());
    for t in &lobby.teachers {
        let stored = teachers.values().find(|stored| stored.id.as_str() == t.id).expect("a teacher");
        assert_eq!((stored.capacity, stored.auto, stored.away), (t.capacity, t.auto, t.away));
    }
    assert_eq!(students.len(), lobby.students.len());
    for s in &lobby.students {
        let stored = students.values().find(|stored| stored.id.as_str() == s.id).expect("a student");
        assert_eq!((stored.state, stored.ticket), (s.state, s.ticket));
    }
    assert_eq!(chats.len(), lobby.chats.len());
    for c in &lobby.chats {
        let stored = chats.values().find(|stored| stored.id.as_str() == c.id).expect("a chat");
        assert_eq!((stored.teacher_id.as_str(), stored.student_id.as_str()), (&*c.teacher, &*c.student));
        let theirs = (c.teacher_entered, c.student_entered, c.end, c.end.is_some());
        let finished = stored.status == ChatStatus::Finished;
        assert_eq!((stored.teacher_entered, stored.student_entered, stored.end, finished), theirs);
    }
}

fn config() -> Config {
    Config {
        grace: Duration::from_secs(10),
        max_capacity: 3,
        enter_timeout: Duration::from_secs(20),
        chat_linger: Duration::from_secs(15),
        max_waiting: 5,
    }
}

fn now(at: Duration) -> Now {
    Now { at, wall: SystemTime::UNIX_EPOCH + at }
}

fn name(name: &str) -> Incarnation {
    Incarnation::named(name).expect("a name")
}
