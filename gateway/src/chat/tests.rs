//! A chat's topic as tables: what comes in, and what its members get.

use switchboard_contract::limits::JOIN_BUFFER_MAX;

use super::*;

pub(super) const TEACHER: u64 = 1;
pub(super) const STUDENT: u64 = 2;

pub(super) struct Topic {
    pub(super) chat: Chat<&'static str>,
    pub(super) out: Vec<Effect<&'static str>>,
    previous: u64,
}

impl Topic {
    pub(super) fn new() -> Self {
        Topic { chat: Chat::new(ChatId::new("c").expect("an id")), out: Vec::new(), previous: 0 }
    }

    /// Both sides have joined, and nothing was said.
    pub(super) fn joined() -> Self {
        let mut topic = Topic::new();
        topic.join("teacher", TEACHER, Role::Teacher, 7, None);
        topic.join("student", STUDENT, Role::Student, 5, None);
        topic.loaded(TEACHER, log(0));
        topic.loaded(STUDENT, log(0));
        topic.shown();
        topic
    }

    pub(super) fn join(&mut self, name: &'static str, chan: u64, role: Role, user: u64, last_seq: Option<u64>) {
        let who = ChatMember::new(role, UserId::from(user));
        self.chat.join(name, chan, 1, who, last_seq, &mut self.out);
    }

    pub(super) fn loaded(&mut self, chan: u64, log: ReadReply) {
        self.loaded_with(chan, Some(record(ChatStatus::Active)), log, Vec::new());
    }

    pub(super) fn loaded_with(
        &mut self,
        chan: u64,
        record: Option<ChatRecord>,
        log: ReadReply,
        replay: Vec<(u64, Role, Box<RawValue>)>,
    ) {
        self.chat.loaded(chan, Ok(Loaded { record, log, replay }), &mut self.out);
    }

    pub(super) fn push(&mut self, chan: u64, serial: u32, push: ChatPush) {
        let stamp = || Stamp { at: "now".into(), now: 0, id: "id".into(), gateway: "g".into() };
        let request = Request { serial, push, now: std::time::Instant::now() };
        self.chat.push(chan, request, stamp, &mut self.out);
    }

    /// The next entry of the log, nothing being lost before it.
    pub(super) fn stored(&mut self, seq: u64, event: &str, from: Option<Role>) {
        let previous = std::mem::replace(&mut self.previous, seq);
        self.stored_behind(seq, previous, event, from);
    }

    pub(super) fn stored_behind(&mut self, seq: u64, previous: u64, event: &str, from: Option<Role>) {
        let payload = RawValue::from_string(format!("{{\"message\":{seq}}}")).expect("JSON");
        let entry = Entry {
            v: V1,
            event: event.into(),
            payload: &payload,
            from: from.map(|role| Sender { role: Some(role), user_id: UserId::from(1), session: None }),
            rank: None,
            id: "id".into(),
            at: "now".into(),
        };
        self.chat.stored(seq, previous, Some(&entry), &mut self.out);
    }

    /// What members got since the last call, and what else is to be done.
    pub(super) fn shown(&mut self) -> Vec<String> {
        let show = |effect| match effect {
            #[allow(clippy::wildcard_enum_match_arm, reason = "shown as they are")]
            Effect::Send(to, event) => match &*event {
                Event::Done { serial, outcome: Outcome::Ok(response), .. } => format!("{to}: {serial} ok {response}"),
                Event::Done { serial, outcome, .. } => format!("{to}: {serial} {outcome:?}"),
                Event::Broadcast(b) => format!("{to}: {}", b.frame(crate::frame::Vsn::V2)),
                Event::Push { event, payload, .. } => format!("{to}: {event} {payload}"),
                other => format!("{to}: {other:?}"),
            },
            Effect::Load { chan, last_seq } => format!("load {chan} {last_seq:?}"),
            Effect::Publish { entry, message_id, .. } => {
                format!("publish {} {message_id:?}", String::from_utf8_lossy(&entry))
            }
            Effect::History { to, params, .. } => format!("history for {to} {params:?}"),
            Effect::Repair { after, to } => format!("repair {after} {to}"),
            Effect::Repaired(how) => format!("repaired {how:?}"),
            Effect::Review => "review".to_owned(),
            other @ (Effect::Tell { .. } | Effect::Judge { .. }) => format!("{other:?}"),
            Effect::Lobby(_, LobbyCommand::Set { chan, at, .. }) => format!("row {chan} {at:?}"),
            Effect::Lobby(_, command) => format!("{command:?}"),
            Effect::Presence(room, command) => format!("presence {room} {command:?}"),
        };
        self.out.drain(..).map(show).collect()
    }
}

fn record(status: ChatStatus) -> ChatRecord {
    ChatRecord {
        v: V1,
        id: ChatId::new("c").expect("an id"),
        status,
        teacher_id: UserId::from(7),
        student_id: UserId::from(5),
        teacher_entered: true,
        student_entered: false,
        end: (status == ChatStatus::Finished).then_some(ChatEnd::Terminated),
        owes: Vec::new(),
        claim: 0,
        since: String::new(),
    }
}

pub(super) fn log(last_seq: u64) -> ReadReply {
    ReadReply { last_seq, ..ReadReply::default() }
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.into()).expect("JSON")
}

fn says(text: &str) -> ChatPush {
    ChatPush::Send(Message { payload: text.into(), id: None })
}

#[test]
fn a_join_is_answered_with_chat_and_log() {
    let mut topic = Topic::new();
    topic.join("student", STUDENT, Role::Student, 5, None);
    assert_eq!(topic.shown(), ["load 2 None"]);
    topic.loaded(STUDENT, log(9));
    assert_eq!(
        topic.shown(),
        [
            r#"student: 1 ok {"chat":{"id":"c","status":"active","student_entered":false,"student_id":5,"teacher_entered":true,"teacher_id":7,"messages":[]},"last_seq":9,"recovered":true}"#,
            "row 2 Chat { chat: ChatId(\"c\"), role: Student, entered: false }",
        ]
    );
}

#[test]
fn strangers_and_chats_that_are_not() {
    for (role, user, record, reason) in [
        (Role::Student, 6, Some(record(ChatStatus::Active)), "Unauthorized"),
        (Role::Teacher, 5, Some(record(ChatStatus::Active)), "Unauthorized"),
        (Role::Student, 5, None, "NotFound"),
    ] {
        let mut topic = Topic::new();
        topic.join("x", STUDENT, role, user, None);
        topic.shown();
        topic.loaded_with(STUDENT, record, log(0), Vec::new());
        let shown = topic.shown();
        assert_eq!(shown.len(), 1, "{shown:?}");
        assert!(shown[0].contains(reason), "{shown:?}");
        assert!(topic.chat.is_empty());
    }
}

#[test]
fn a_message_reaches_the_other_side_and_is_answered_once_the_log_has_brought_it() {
    let mut topic = Topic::joined();
    topic.push(TEACHER, 2, says(r#"{"message":"hi"}"#));
    assert_eq!(
        topic.shown(),
        [
            r#"publish {"v":1,"event":"teacher:send","payload":{"message":"hi"},"from":{"role":"teacher","user_id":7},"id":"id","at":"now"} None"#
        ]
    );
    topic.chat.acked(TEACHER, 2, Ok((11, false)), &mut topic.out);
    assert!(topic.shown().is_empty(), "stored, but what is below it is not here yet");
    topic.stored(10, "student:send", Some(Role::Student));
    topic.stored(11, "teacher:send", Some(Role::Teacher));
    assert_eq!(
        topic.shown(),
        [
            r#"teacher: [null,null,"chats:c","teacher:receive",{"message":10,"seq":10}]"#,
            r#"student: [null,null,"chats:c","student:receive",{"message":11,"seq":11}]"#,
            r#"teacher: 2 ok {"seq":11}"#,
        ]
    );
    topic.stored(11, "teacher:send", Some(Role::Teacher));
    assert!(topic.shown().is_empty(), "once");
}

#[test]
fn a_repeated_id_is_answered_with_the_first_sequence() {
    let mut topic = Topic::joined();
    topic.push(
        TEACHER,
        2,
        ChatPush::Send(Message { payload: r#"{"message":1,"id":"a b"}"#.into(), id: Some("a b".into()) }),
    );
    assert!(topic.shown()[0].ends_with(r#"Some("chat.c.teacher.7.a=20b")"#));
    topic.stored(4, "teacher:send", Some(Role::Teacher));
    topic.shown();
    topic.chat.acked(TEACHER, 2, Ok((4, true)), &mut topic.out);
    assert_eq!(topic.shown(), [r#"teacher: 2 ok {"seq":4}"#]);
    topic.chat.acked(TEACHER, 3, Err(()), &mut topic.out);
    assert!(topic.shown()[0].contains("Unavailable"));
}

#[test]
fn chat_ready_once_per_join() {
    let mut topic = Topic::joined();
    topic.push(STUDENT, 2, ChatPush::Enter);
    assert_eq!(topic.shown(), ["row 2 Chat { chat: ChatId(\"c\"), role: Student, entered: true }"]);
    topic.stored(5, "chat:ready", None);
    assert_eq!(
        topic.shown(),
        [r#"teacher: [null,null,"chats:c","chat:ready",{}]"#, r#"student: [null,null,"chats:c","chat:ready",{}]"#]
    );
    topic.push(STUDENT, 3, ChatPush::Enter);
    assert_eq!(topic.shown().len(), 1, "the same join is told once");

    topic.join("again", 3, Role::Student, 5, None);
    topic.loaded(3, ReadReply { ready: Some(5), ..log(5) });
    topic.shown();
    topic.push(3, 2, ChatPush::Enter);
    assert_eq!(topic.shown()[1], "again: chat:ready {}", "it alone");

    topic.stored(6, "student:send", Some(Role::Student));
    topic.join("late", 4, Role::Student, 5, None);
    topic.loaded(4, ReadReply { ready: Some(5), said: 6, ..log(6) });
    topic.shown();
    topic.push(4, 2, ChatPush::Enter);
    assert_eq!(topic.shown().len(), 1, "not once something was said");
}

#[test]
fn what_was_said_before_chat_ready_does_not_count_as_said_since() {
    let mut topic = Topic::joined();
    topic.stored(4, "teacher:send", Some(Role::Teacher));
    topic.stored(5, "chat:ready", None);
    topic.join("again", 3, Role::Student, 5, None);
    topic.loaded(3, ReadReply { ready: Some(5), said: 4, ..log(5) });
    topic.shown();
    topic.push(3, 2, ChatPush::Enter);
    assert_eq!(topic.shown()[1], "again: chat:ready {}");
}

#[test]
fn a_join_that_knows_of_the_end_first_takes_nothing_from_the_others() {
    let mut topic = Topic::joined();
    topic.join("late", 3, Role::Student, 5, None);
    let ended = ReadReply { end: Some((6, ChatEnd::Terminated)), said: 5, ..log(6) };
    topic.loaded_with(3, Some(record(ChatStatus::Finished)), ended, Vec::new());
    topic.shown();
    topic.stored(5, "teacher:send", Some(Role::Teacher));
    topic.stored(6, "chat:terminated", None);
    topic.stored(7, "teacher:send", Some(Role::Teacher));
    let shown = topic.shown();
    let student: Vec<&String> = shown.iter().filter(|line| line.starts_with("student")).collect();
    assert!(student[0].contains("student:receive") && student[1].contains("chat:terminated"), "{shown:?}");
    assert_eq!(student.len(), 2, "{shown:?}");
    assert_eq!(shown.iter().filter(|line| line.contains("late") && line.contains("terminated")).count(), 0);
}

#[test]
fn behind_the_end_everything_is_void() {
    let mut topic = Topic::joined();
    topic.push(TEACHER, 2, says(r#"{"message":1}"#));
    topic.push(STUDENT, 2, ChatPush::Terminate);
    topic.shown();
    topic.stored(5, "chat:terminated", None);
    assert_eq!(topic.shown().len(), 2, "both are told");
    topic.chat.acked(TEACHER, 2, Ok((6, false)), &mut topic.out);
    topic.stored(6, "teacher:send", Some(Role::Teacher));
    let shown = topic.shown();
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert!(shown[0].contains("ChatFinished"), "{shown:?}");
    topic.push(TEACHER, 3, says(r#"{"message":1}"#));
    assert!(topic.shown()[0].contains("ChatFinished"));
    topic.push(TEACHER, 4, ChatPush::Terminate);
    assert_eq!(topic.shown(), ["teacher: 4 ok {}"]);
    topic.stored(7, "chat:requeued", None);
    assert!(topic.shown().is_empty(), "it ended once");
}

#[test]
fn an_ended_chat_is_told_to_its_joiner_alone() {
    let mut topic = Topic::joined();
    topic.join("late", 3, Role::Student, 5, None);
    topic.loaded_with(
        3,
        Some(record(ChatStatus::Finished)),
        ReadReply { end: Some((4, ChatEnd::Requeued)), ..log(4) },
        Vec::new(),
    );
    let shown = topic.shown();
    assert_eq!(shown[2], "late: chat:requeued {}", "{shown:?}");
    topic.stored(4, "chat:requeued", None);
    let shown = topic.shown();
    assert_eq!(shown.len(), 2, "the others, once the log has brought it: {shown:?}");
    assert!(shown.iter().all(|line| !line.starts_with("late")), "{shown:?}");

    let mut topic = Topic::new();
    topic.join("late", 3, Role::Student, 5, None);
    topic.loaded_with(3, Some(record(ChatStatus::Finished)), log(4), Vec::new());
    assert_eq!(topic.shown()[2], "late: chat:terminated {}", "the record knows it too");
}

#[test]
fn an_end_that_is_owed_comes_live_and_once() {
    let mut topic = Topic::new();
    topic.join("late", 3, Role::Student, 5, None);
    let owing = ChatRecord { owes: vec![ChatEvent::Terminated], ..record(ChatStatus::Finished) };
    topic.loaded_with(3, Some(owing), log(4), Vec::new());
    topic.shown();
    topic.stored(5, "chat:terminated", None);
    assert_eq!(topic.shown(), [r#"late: [null,null,"chats:c","chat:terminated",{}]"#]);
}

#[test]
fn replay_is_what_the_other_side_said() {
    let mut topic = Topic::new();
    topic.join("student", STUDENT, Role::Student, 5, Some(3));
    assert_eq!(topic.shown(), ["load 2 Some(3)"]);
    let replay = vec![
        (4, Role::Teacher, raw(r#"{"message":"a"}"#)),
        (5, Role::Student, raw(r#"{"message":"b"}"#)),
        (6, Role::Teacher, raw(r#"{"message":"c"}"#)),
        (9, Role::Teacher, raw(r#"{"message":"live"}"#)),
    ];
    // While the join is not answered, live messages wait for it.
    topic.stored(6, "teacher:send", Some(Role::Teacher));
    topic.stored(9, "teacher:send", Some(Role::Teacher));
    topic.loaded_with(STUDENT, Some(record(ChatStatus::Active)), ReadReply { said: 6, ..log(6) }, replay);
    let shown = topic.shown();
    assert_eq!(
        shown[1..3],
        [r#"student: student:receive {"message":"a","seq":4}"#, r#"student: student:receive {"message":"c","seq":6}"#]
    );
    assert_eq!(shown[4], r#"student: [null,null,"chats:c","student:receive",{"message":9,"seq":9}]"#);
    assert_eq!(shown.len(), 5, "{shown:?}");
}

#[test]
fn a_log_that_does_not_reach_back_is_a_gap() {
    let mut topic = Topic::new();
    topic.join("student", STUDENT, Role::Student, 5, Some(3));
    topic.loaded(STUDENT, ReadReply { dropped_to: 8, ..log(20) });
    let shown = topic.shown();
    assert!(shown[1].contains(r#""recovered":false"#), "{shown:?}");
    assert_eq!(shown[2], r#"student: gap {"from":4,"to":8}"#);

    let mut topic = Topic::new();
    topic.join("student", STUDENT, Role::Student, 5, Some(30));
    topic.loaded(STUDENT, log(0));
    assert_eq!(topic.shown()[2], r#"student: gap {"from":31,"to":31}"#, "nothing of it was kept");

    // So much was said while the log was read that it dropped what stands behind the end that the join was told.
    let mut topic = Topic::new();
    topic.join("student", STUDENT, Role::Student, 5, Some(3));
    let payload = || RawValue::from_string("{}".to_owned()).expect("JSON");
    let replay = vec![(4, Role::Teacher, payload()), (41, Role::Teacher, payload())];
    topic.loaded_with(STUDENT, Some(record(ChatStatus::Active)), ReadReply { dropped_to: 40, ..log(20) }, replay);
    let shown = topic.shown();
    assert_eq!(shown[2], r#"student: gap {"from":4,"to":20}"#, "what is behind it follows live");
    assert!(!shown.iter().any(|line| line.contains("receive")), "{shown:?}");
}

#[test]
fn a_join_during_a_flood_loads_again_instead_of_losing() {
    let mut topic = Topic::joined();
    topic.join("late", 3, Role::Student, 5, None);
    for seq in 1..=(JOIN_BUFFER_MAX as u64 + 1) {
        topic.stored(seq, "teacher:send", Some(Role::Teacher));
    }
    topic.shown();
    topic.loaded(3, log(0));
    assert_eq!(topic.shown(), ["load 3 None"]);
    topic.loaded(3, log(JOIN_BUFFER_MAX as u64));
    let shown = topic.shown();
    assert_eq!(shown.iter().filter(|line| line.contains("student:receive")).count(), 1, "{shown:?}");
}

#[test]
fn leaving() {
    let mut topic = Topic::joined();
    topic.chat.leave(STUDENT, false, &mut topic.out);
    assert_eq!(topic.shown(), ["row 2 Left { lost: false }"]);
    topic.stored(5, "teacher:send", Some(Role::Teacher));
    assert!(topic.shown().is_empty());
    topic.chat.leave(TEACHER, true, &mut topic.out);
    assert!(topic.chat.is_empty());
}
