//! The lobby's table as tables: what changes, what is told, and who is answered.

use super::*;
use switchboard_contract::lobby::{ChatStatus, NewChat, Positions, Role, TeacherSettings};
use switchboard_contract::names::{ChatId, UserId};

struct Desk {
    lobby: Lobby,
    now: Instant,
    out: Vec<Effect>,
}

impl Desk {
    /// A table that the matcher of epoch 1 knows.
    fn new() -> Self {
        let now = Instant::now();
        let mut desk = Desk { lobby: Lobby::new(Incarnation::named("g-1").unwrap(), now), now, out: Vec::new() };
        let table = desk.request().expect("the first is whole");
        assert_eq!((table.whole, table.rows.len()), (Some(Whole { first: true, last: true }), 0));
        desk.answer(reply(1, 0));
        desk
    }

    fn set(&mut self, chan: u64, at: At, serial: Option<u32>) {
        self.lobby.set(chan, at, serial, self.now);
    }

    fn request(&mut self) -> Option<Table> {
        self.lobby.next_request(self.now)
    }

    fn answer(&mut self, reply: TableReply) -> Vec<Effect> {
        self.lobby.answered(&reply, self.now, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn status(&mut self, status: Status) -> Vec<Effect> {
        self.lobby.take_status(status, self.now, &mut self.out);
        std::mem::take(&mut self.out)
    }
}

fn reply(epoch: u64, version: u64) -> TableReply {
    let status = Status { epoch, version, ..Status::default() };
    TableReply { v: V1, epoch, resend: false, refused: Vec::new(), status }
}

fn student(ready: bool) -> At {
    At::Student { id: UserId::from(5), ready }
}

fn member() -> At {
    At::Chat { chat: ChatId::new("c").unwrap(), role: Role::Student, entered: false }
}

fn teacher() -> At {
    says(TeacherSettings::default(), TeacherSettings::default())
}

fn says(says: TeacherSettings, said: TeacherSettings) -> At {
    At::Teacher { id: UserId::from(7), says, said }
}

fn rows(table: Option<Table>) -> Vec<(u64, u64, At)> {
    table.into_iter().flat_map(|t| t.rows).map(|r| (r.chan, r.n, r.at)).collect()
}

#[test]
fn one_request_at_a_time_and_the_newest_state_goes() {
    let mut desk = Desk::new();
    desk.set(9, member(), None);
    assert!(desk.request().is_none(), "nobody waits for it: it may wait for company");
    desk.set(1, student(true), Some(2));
    assert_eq!(rows(desk.request()), [(9, 1, member()), (1, 1, student(true))]);
    desk.set(2, teacher(), Some(1));
    assert!(desk.request().is_none(), "one is on its way");
    assert_eq!(desk.answer(reply(1, 5)), [Effect::Done(1, 2, Outcome::Ok("{}".into()))]);
    assert_eq!(rows(desk.request()), [(2, 1, teacher())]);
    let status = reply(1, 5).status;
    assert_eq!(desk.answer(reply(1, 5)), [Effect::Done(2, 1, Outcome::Status(status))]);
    assert!(desk.lobby.is_settled());
}

#[test]
fn what_nobody_waits_for_goes_a_little_later() {
    let mut desk = Desk::new();
    desk.set(1, member(), None);
    desk.now += LAZY_FOR;
    assert_eq!(rows(desk.request()).len(), 1);
}

#[test]
fn a_failed_request_is_sent_again_and_nothing_is_doubled() {
    let mut desk = Desk::new();
    desk.set(1, student(true), Some(1));
    assert_eq!(rows(desk.request()).len(), 1);
    desk.lobby.failed(desk.now);
    assert!(desk.request().is_none());
    desk.now += RETRY_AFTER;
    assert_eq!(rows(desk.request()), [(1, 1, student(true))], "the same row, the same number");
    assert_eq!(desk.answer(reply(1, 2)).len(), 1);
}

#[test]
fn a_ready_that_was_acknowledged_is_not_told_again() {
    let mut desk = Desk::new();
    desk.set(1, student(true), Some(1));
    desk.request();
    desk.answer(reply(1, 2));
    desk.status(Status { epoch: 2, version: 2, ..Status::default() });
    assert_eq!(rows(desk.request()), [(1, 1, student(false))]);
}

#[test]
fn what_a_teacher_said_is_told_as_new_until_it_is_acknowledged() {
    let none = TeacherSettings::default();
    let (three, away) = (TeacherSettings { capacity: Some(3), ..none }, TeacherSettings { away: Some(true), ..none });
    let mut desk = Desk::new();
    desk.set(1, says(three, none), Some(1));
    assert_eq!(rows(desk.request()), [(1, 1, says(three, none))]);
    desk.set(1, says(away, none), Some(2));
    desk.answer(reply(1, 0));
    assert_eq!(rows(desk.request()), [(1, 2, says(three.over(away), none))], "an answer to an earlier version");
    desk.answer(reply(1, 0));
    desk.status(Status { epoch: 2, ..Status::default() });
    assert_eq!(rows(desk.request()), [(1, 2, says(none, three.over(away)))]);
    desk.answer(reply(2, 0));
    let here = TeacherSettings { away: Some(false), ..none };
    desk.set(1, says(here, none), Some(3));
    assert_eq!(rows(desk.request()), [(1, 3, says(here, three.over(away)))], "only what it says now");
    desk.answer(reply(2, 0));
    desk.lobby.reconnected(desk.now);
    assert_eq!(rows(desk.request()), [(1, 3, says(none, here.over(three)))]);
}

#[test]
fn a_ready_that_came_while_a_request_was_on_its_way_is_kept() {
    let mut desk = Desk::new();
    desk.set(1, student(true), Some(1));
    desk.request();
    desk.set(1, student(true), Some(2));
    assert!(desk.answer(reply(1, 2)).is_empty());
    assert_eq!(rows(desk.request()), [(1, 2, student(true))]);
    assert_eq!(desk.answer(reply(1, 2)), [Effect::Done(1, 2, Outcome::Ok("{}".into()))]);
}

#[test]
fn what_an_earlier_leader_did_not_answer_goes_to_the_next_at_once() {
    let mut desk = Desk::new();
    desk.set(1, student(true), Some(1));
    assert_eq!(rows(desk.request()).len(), 1);
    let era = desk.lobby.era();
    desk.status(Status { epoch: 2, ..Status::default() });
    assert!(desk.request().is_none(), "one is on its way");
    assert_ne!(desk.lobby.era(), era, "and nobody waits for it any more");
    desk.lobby.failed(desk.now);
    assert_eq!(rows(desk.request()), [(1, 1, student(true))]);
    assert_eq!(desk.answer(reply(2, 1)), [Effect::Done(1, 1, Outcome::Ok("{}".into()))]);
    let era = desk.lobby.era();
    desk.status(Status { epoch: 2, version: 1, ..Status::default() });
    assert_eq!(desk.lobby.era(), era, "the same leader");
    desk.lobby.reconnected(desk.now);
    assert_ne!(desk.lobby.era(), era);
}

#[test]
fn a_new_epoch_gets_the_whole_table_in_parts() {
    let mut desk = Desk::new();
    for chan in 1..=(TABLE_ROWS_MAX as u64 + 1) {
        desk.set(chan, student(false), None);
    }
    desk.now += LAZY_FOR;
    while desk.request().is_some() {
        desk.answer(reply(1, 0));
    }
    desk.status(Status { epoch: 2, ..Status::default() });
    let first = desk.request().expect("a part");
    assert_eq!((first.whole, first.rows.len()), (Some(Whole { first: true, last: false }), TABLE_ROWS_MAX));
    desk.answer(reply(2, 0));
    let last = desk.request().expect("a part");
    assert_eq!((last.whole, last.rows.len()), (Some(Whole { first: false, last: true }), 1));
    desk.answer(reply(2, 0));
    assert!(desk.lobby.is_settled());
}

#[test]
fn a_whole_table_whose_part_failed_begins_anew() {
    let mut desk = Desk::new();
    for chan in 1..=(TABLE_ROWS_MAX as u64 + 1) {
        desk.set(chan, student(false), None);
    }
    desk.lobby.reconnected(desk.now);
    desk.request();
    desk.answer(reply(1, 0));
    desk.request();
    desk.lobby.failed(desk.now);
    desk.now += RETRY_AFTER;
    assert_eq!(desk.request().expect("a part").whole, Some(Whole { first: true, last: false }));
}

#[test]
fn a_leader_that_asks_for_the_table_gets_all_of_it() {
    let mut desk = Desk::new();
    desk.set(1, student(false), Some(1));
    desk.request();
    desk.answer(reply(1, 0));
    let push = |epoch| Push { v: V1, epoch, new_chats: Vec::new(), positions: None, resend: true };
    assert!(desk.lobby.take_push(push(0), desk.now, &mut desk.out).is_none());
    assert!(desk.request().is_none(), "no leader any more");
    desk.lobby.take_push(push(1), desk.now, &mut desk.out).expect("an answer");
    let table = desk.request().expect("at once");
    assert_eq!((table.whole, table.rows.len()), (Some(Whole { first: true, last: true }), 1));
    desk.answer(reply(1, 0));
    assert!(desk.lobby.is_settled() && desk.request().is_none());
}

#[test]
fn a_matcher_that_does_not_know_this_gateway_gets_everything() {
    let mut desk = Desk::new();
    desk.set(1, student(true), Some(1));
    desk.request();
    let resend = TableReply { resend: true, ..reply(2, 0) };
    assert!(desk.answer(resend).is_empty());
    let table = desk.request().expect("at once");
    assert_eq!((table.whole, table.rows.len()), (Some(Whole { first: true, last: true }), 1));
    assert_eq!(desk.answer(reply(2, 0)).len(), 1);
    assert!(desk.lobby.is_settled());
}

#[test]
fn what_a_rejoin_replaces_is_told_behind_it() {
    let mut desk = Desk::new();
    desk.set(1, student(false), Some(1));
    desk.set(9, student(false), Some(1));
    desk.request();
    desk.set(1, student(true), Some(2));
    desk.set(9, At::Left { lost: false }, None);
    desk.set(2, student(false), Some(1));
    desk.set(1, At::Left { lost: true }, None);
    desk.answer(reply(1, 0));
    let chans: Vec<u64> = rows(desk.request()).iter().map(|(chan, _, _)| *chan).collect();
    assert_eq!(chans, [9, 2, 1], "but a leave keeps its place");
}

#[test]
fn a_row_that_left_is_forgotten_once_that_is_known() {
    let mut desk = Desk::new();
    desk.set(1, student(false), None);
    desk.set(1, At::Left { lost: true }, None);
    assert_eq!(rows(desk.request()), [(1, 2, At::Left { lost: true })]);
    assert_eq!(desk.answer(reply(1, 0)), [Effect::Forget(1)]);
    assert!(desk.lobby.is_empty());
    desk.set(9, At::Left { lost: true }, None);
    assert!(desk.lobby.is_empty(), "a row that never was");
}

#[test]
fn a_refused_row_is_answered_with_why() {
    let mut desk = Desk::new();
    desk.set(1, student(true), Some(4));
    desk.request();
    let refused = TableReply { refused: vec![(1, Reason::QueueFull)], ..reply(1, 0) };
    assert_eq!(desk.answer(refused), [Effect::Done(1, 4, Outcome::Refused(Reason::QueueFull.into()))]);
}

#[test]
fn status_reaches_teachers_once_per_version_and_old_leaders_are_ignored() {
    let mut desk = Desk::new();
    desk.set(1, teacher(), Some(1));
    desk.request();
    desk.answer(reply(1, 3));
    let status = |epoch, version, teachers| Status { epoch, version, teachers, ..Status::default() };
    assert_eq!(desk.status(status(1, 4, 1)), [Effect::Status(vec![1], status(1, 4, 1))]);
    assert!(desk.status(status(1, 4, 2)).is_empty(), "a teacher's change is no news for clients");
    assert_eq!(desk.lobby.status().map(|s| s.teachers), Some(2));
    assert!(desk.status(status(1, 3, 9)).is_empty());
    assert!(desk.status(status(0, 9, 9)).is_empty());
    assert_eq!(desk.lobby.status().map(|s| s.version), Some(4));
}

#[test]
fn a_join_that_was_told_an_older_status_gets_the_newest() {
    let mut desk = Desk::new();
    desk.set(1, teacher(), Some(1));
    desk.request();
    let newer = Status { epoch: 1, version: 9, waiting: 1, ..Status::default() };
    assert!(desk.status(newer).is_empty(), "nobody has joined yet");
    let done = Effect::Done(1, 1, Outcome::Status(reply(1, 8).status));
    assert_eq!(desk.answer(reply(1, 8)), [done, Effect::Status(vec![1], newer)]);
}

#[test]
fn new_chats_reach_their_channels_and_others_are_gone() {
    let mut desk = Desk::new();
    desk.set(1, student(false), Some(1));
    desk.request();
    let chat = ChatRecord {
        v: V1,
        id: ChatId::new("c").unwrap(),
        status: ChatStatus::Active,
        teacher_id: UserId::from(7),
        student_id: UserId::from(5),
        teacher_entered: false,
        student_entered: false,
        end: None,
        owes: Vec::new(),
        claim: 0,
        since: String::new(),
    };
    let push = |epoch| Push {
        v: V1,
        epoch,
        new_chats: vec![NewChat { chans: vec![1, 2], chat: chat.clone(), hold: false }],
        positions: Some(Positions { of: 4, pace_ms: Some(1_500), list: vec![(1, 3)] }),
        resend: false,
    };
    assert!(desk.lobby.take_push(push(0), desk.now, &mut desk.out).is_none(), "no leader any more");
    let pushed = desk.lobby.take_push(push(1), desk.now, &mut desk.out).expect("an answer");
    assert_eq!(pushed.gone, [2]);
    let position = r#"{"position":3,"of":4,"wait_seconds":5}"#.to_owned();
    let told = [Effect::NewChat(1, Arc::new(chat.clone()), false), Effect::Position(1, position)];
    assert!(desk.out.is_empty(), "a push can overtake the answer to the join, and nobody would see it: {:?}", desk.out);
    let done = Effect::Done(1, 1, Outcome::Ok("{}".into()));
    assert_eq!(desk.answer(reply(1, 0)), [&[done][..], &told[..]].concat());
    desk.lobby.take_push(push(1), desk.now, &mut desk.out).expect("an answer");
    assert_eq!(desk.out, told);
}
