//! Each rule, held and broken.

use super::*;

const PLAN: Plan = Plan { capacity: 2, messages: 1, answer_within: Duration::from_secs(5) };
const S: fn(u32) -> Who = Who::student;
const T: fn(u32) -> Who = Who::teacher;

/// A checker with a clock that ticks a millisecond per event, and refs counted per test.
struct Story {
    checker: Checker,
    now: Duration,
    reference: u64,
}

impl Story {
    fn new() -> Story {
        Story { checker: Checker::new(PLAN), now: Duration::ZERO, reference: 0 }
    }

    fn sees(&mut self, who: Who, event: Event<'_>) -> Result<Option<Took>, Violation> {
        self.now += Duration::from_millis(1);
        self.checker.observe(who, self.now, event)
    }

    fn sends(&mut self, who: Who, push: Push<'_>) -> u64 {
        self.reference += 1;
        self.sees(who, Event::Pushed(self.reference, push)).expect("sending breaks no rule");
        self.reference
    }

    /// Sent and answered.
    fn does(&mut self, who: Who, push: Push<'_>) {
        let reference = self.sends(who, push);
        let seq = matches!(push, Push::Say(..)).then_some(reference);
        self.sees(who, Event::Replied(reference, Ok(seq))).expect("an answer");
    }

    fn shown(&mut self, who: Who, chat: &str, teacher: u32, student: u32) -> Result<Option<Took>, Violation> {
        self.sees(who, Event::NewChat { chat, teacher: Some(teacher), student: Some(student) })
    }

    /// Ready, claimed, shown to both, entered by both, ready.
    fn chat(&mut self, chat: &str, teacher: u32, student: u32) {
        self.does(S(student), Push::Ready);
        self.does(T(teacher), Push::Claim);
        for who in [T(teacher), S(student)] {
            self.shown(who, chat, teacher, student).expect("a chat");
            self.does(who, Push::Enter(chat));
        }
        for who in [T(teacher), S(student)] {
            self.sees(who, Event::ChatReady(chat)).expect("both are in");
        }
    }

    fn hears(&mut self, who: Who, chat: &str, n: u32, seq: u64) -> Result<Option<Took>, Violation> {
        self.sees(who, Event::Heard { chat, to: who.role, about: chat, n, seq })
    }

    fn status(&mut self, who: Who, students: u64, of: [u64; 3]) -> Result<Option<Took>, Violation> {
        let [waiting, chatting, finished] = of;
        self.sees(who, Event::Status(Counts { teachers: 1, students, waiting, chatting, finished }))
    }
}

fn broken(outcome: Result<Option<Took>, Violation>) -> Violation {
    outcome.expect_err("a rule is broken")
}

#[test]
fn a_whole_run_breaks_no_rule() {
    let mut story = Story::new();
    story.does(T(0), Push::Join);
    story.chat("c", 0, 0);
    story.status(T(0), 1, [0, 1, 0]).unwrap();
    let said = story.sends(T(0), Push::Say("c", 1));
    assert_eq!(story.hears(S(0), "c", 1, 7).unwrap(), Some(Took::Message(Duration::from_millis(1))));
    let answered = story.sends(S(0), Push::Say("c", 1));
    story.hears(T(0), "c", 1, 8).unwrap();
    let ack = story.sees(T(0), Event::Replied(said, Ok(Some(7)))).unwrap();
    assert_eq!(ack, Some(Took::Ack(Duration::from_millis(4))));
    story.sees(S(0), Event::Replied(answered, Ok(Some(8)))).unwrap();
    story.does(T(0), Push::Terminate("c"));
    for who in [T(0), S(0)] {
        story.sees(who, Event::Terminated("c")).unwrap();
        story.does(who, Push::LeaveChat("c"));
    }
    story.does(S(0), Push::Leave);
    story.status(T(0), 0, [0; 3]).unwrap();
    story.checker.finish(1, 1).unwrap();
    assert!(matches!(story.checker.finish(2, 1), Err(Violation::NotServed { missing: 1, students: 2, first: 1 })));
    assert!(matches!(story.checker.finish(1, 2), Err(Violation::NoLastStatus { who }) if who == T(1)));
}

#[test]
fn every_push_is_answered_in_time_and_once() {
    let mut story = Story::new();
    let reference = story.sends(S(0), Push::Join);
    let sent = story.now;
    assert_eq!(story.checker.overdue(sent + PLAN.answer_within), Ok(()));
    let late = Violation::Unanswered { who: S(0), what: "join", reference, seconds: 5 };
    assert_eq!(story.checker.overdue(sent + PLAN.answer_within + Duration::from_millis(1)), Err(late.clone()));
    assert!(matches!(story.checker.finish(0, 0), Err(Violation::Unanswered { .. })));
    story.sees(S(0), Event::Replied(reference, Ok(None))).unwrap();
    assert_eq!(story.checker.overdue(sent + Duration::from_secs(60)), Ok(()));
    assert_eq!(
        broken(story.sees(S(0), Event::Replied(reference, Ok(None)))),
        Violation::StrayReply { who: S(0), reference }
    );
    assert_eq!(
        broken(story.sees(T(0), Event::Replied(reference, Ok(None)))),
        Violation::StrayReply { who: T(0), reference }
    );

    let reference = story.sends(S(0), Push::Join);
    story.now += PLAN.answer_within;
    assert_eq!(
        broken(story.sees(S(0), Event::Replied(reference, Ok(None)))),
        Violation::Unanswered { who: S(0), what: "join", reference, seconds: 5 }
    );
}

#[test]
fn a_refusal_is_a_violation_and_a_message_needs_a_seq() {
    let mut story = Story::new();
    let reference = story.sends(S(0), Push::Ready);
    let refused = broken(story.sees(S(0), Event::Replied(reference, Err("unavailable"))));
    assert_eq!(refused, Violation::Refused { who: S(0), what: "student:ready", reason: "unavailable".into() });
    story.chat("c", 0, 0);
    let reference = story.sends(T(0), Push::Say("c", 1));
    assert_eq!(broken(story.sees(T(0), Event::Replied(reference, Ok(None)))), Violation::NoSeq { who: T(0), n: 1 });
}

#[test]
fn a_chat_has_exactly_its_two() {
    let mut story = Story::new();
    story.does(S(0), Push::Ready);
    story.does(T(0), Push::Claim);
    let stranger = story.sees(T(0), Event::NewChat { chat: "x", teacher: Some(0), student: None });
    assert_eq!(broken(stranger), Violation::Stranger { who: T(0), chat: "x".into() });
    story.shown(T(0), "c", 0, 0).unwrap();
    let pair = |who, teacher, student| Violation::WrongPair { who, chat: "c".into(), teacher, student };
    assert_eq!(broken(story.shown(S(0), "c", 1, 0)), pair(S(0), 1, 0));
    assert_eq!(broken(story.shown(S(1), "c", 0, 0)), pair(S(1), 0, 0));
    assert_eq!(broken(story.shown(T(0), "c", 0, 0)), Violation::ShownTwice { who: T(0), chat: "c".into() });
    let not_shown = Violation::NotMember { who: S(0), what: "chat:ready", chat: "c".into() };
    assert_eq!(broken(story.sees(S(0), Event::ChatReady("c"))), not_shown);
    assert!(matches!(broken(story.hears(S(1), "c", 1, 1)), Violation::NotMember { .. }));
    assert!(matches!(broken(story.sees(T(1), Event::Terminated("c"))), Violation::NotMember { .. }));
}

#[test]
fn a_student_is_in_one_chat_and_only_if_it_waits() {
    let mut story = Story::new();
    assert_eq!(broken(story.shown(T(0), "a", 0, 0)), Violation::NotWaiting { student: 0, teacher: 0 });
    let mut story = Story::new();
    story.chat("a", 0, 0);
    assert_eq!(broken(story.shown(T(1), "b", 1, 0)), Violation::NotWaiting { student: 0, teacher: 1 });
    let mut story = Story::new();
    story.chat("a", 0, 0);
    story.does(T(0), Push::Terminate("a"));
    story.chat("b", 0, 0);
}

#[test]
fn a_teacher_stays_below_its_capacity() {
    let mut story = Story::new();
    story.chat("a", 0, 0);
    story.chat("b", 0, 1);
    story.does(S(2), Push::Ready);
    let above = Violation::AboveCapacity { teacher: 0, chats: 3, capacity: 2 };
    assert_eq!(broken(story.shown(S(2), "c", 0, 2)), above);
    let mut story = Story::new();
    story.chat("a", 0, 0);
    story.chat("b", 0, 1);
    story.sends(T(0), Push::Terminate("a"));
    story.chat("c", 0, 2);
}

#[test]
fn the_queue_is_served_in_order() {
    // Student 0 is ahead of student 1; the teacher is full when student 1's chat is seen, and gets student 0 after it.
    let mut story = Story::new();
    story.chat("a", 0, 10);
    story.chat("b", 0, 11);
    story.does(S(0), Push::Ready);
    story.does(S(1), Push::Ready);
    story.does(T(1), Push::Claim);
    story.shown(S(1), "one", 1, 1).unwrap();
    story.sends(T(0), Push::Terminate("a"));
    story.sends(T(0), Push::Claim);
    assert_eq!(broken(story.shown(T(0), "zero", 0, 0)), Violation::QueueOrder { earlier: 0, later: 1 });

    // A teacher that claims for the first time after the later one's chat was seen.
    let mut story = Story::new();
    story.does(S(0), Push::Ready);
    story.does(S(1), Push::Ready);
    story.does(T(1), Push::Claim);
    story.shown(S(1), "one", 1, 1).unwrap();
    story.does(T(0), Push::Claim);
    assert_eq!(broken(story.shown(T(0), "zero", 0, 0)), Violation::QueueOrder { earlier: 0, later: 1 });
}

#[test]
fn what_clients_cannot_know_is_no_inversion() {
    // Both were assigned before either was seen, whatever the order of seeing.
    let mut story = Story::new();
    story.does(S(0), Push::Ready);
    story.does(S(1), Push::Ready);
    story.does(T(0), Push::Claim);
    story.does(T(1), Push::Claim);
    story.shown(S(1), "one", 1, 1).unwrap();
    story.shown(T(0), "zero", 0, 0).unwrap();

    // The later one asked before the earlier one's place was acknowledged.
    let mut story = Story::new();
    let first = story.sends(S(0), Push::Ready);
    let second = story.sends(S(1), Push::Ready);
    story.sees(S(0), Event::Replied(first, Ok(None))).unwrap();
    story.sees(S(1), Event::Replied(second, Ok(None))).unwrap();
    story.does(T(1), Push::Claim);
    story.shown(S(1), "one", 1, 1).unwrap();
    story.does(T(0), Push::Claim);
    story.shown(T(0), "zero", 0, 0).unwrap();

    // A teacher that was not full may have been assigned the earlier one long before it heard of it.
    let mut story = Story::new();
    story.chat("a", 0, 10);
    story.does(S(0), Push::Ready);
    story.does(S(1), Push::Ready);
    story.does(T(1), Push::Claim);
    story.shown(S(1), "one", 1, 1).unwrap();
    story.sends(T(0), Push::Terminate("a"));
    story.sends(T(0), Push::Claim);
    story.shown(T(0), "zero", 0, 0).unwrap();
}

#[test]
fn chat_ready_comes_once_and_after_both() {
    let mut story = Story::new();
    story.does(S(0), Push::Ready);
    story.does(T(0), Push::Claim);
    story.shown(T(0), "c", 0, 0).unwrap();
    story.does(T(0), Push::Enter("c"));
    assert_eq!(broken(story.sees(T(0), Event::ChatReady("c"))), Violation::ReadyEarly { who: T(0), chat: "c".into() });
    story.shown(S(0), "c", 0, 0).unwrap();
    story.sends(S(0), Push::Enter("c"));
    story.sees(T(0), Event::ChatReady("c")).unwrap();
    let twice = Violation::Twice { who: T(0), what: "chat:ready", chat: "c".into() };
    assert_eq!(broken(story.sees(T(0), Event::ChatReady("c"))), twice);
}

#[test]
fn messages_come_once_in_order_to_the_right_side() {
    let mut story = Story::new();
    story.chat("c", 0, 0);
    story.chat("d", 0, 1);
    assert!(matches!(broken(story.hears(S(0), "c", 1, 1)), Violation::Invented { n: 1, .. }));
    story.sends(T(0), Push::Say("c", 1));
    story.sends(T(0), Push::Say("c", 2));
    story.sends(T(0), Push::Say("c", 3));
    assert!(matches!(broken(story.hears(S(0), "c", 2, 5)), Violation::Sequence { n: 2, expected: 1, .. }));
    let aside = Event::Heard { chat: "c", to: Role::Teacher, about: "c", n: 1, seq: 1 };
    assert!(matches!(broken(story.sees(S(0), aside)), Violation::Astray { .. }));
    let elsewhere = Event::Heard { chat: "c", to: Role::Student, about: "d", n: 1, seq: 1 };
    assert!(matches!(broken(story.sees(S(0), elsewhere)), Violation::Astray { .. }));
    story.hears(S(0), "c", 1, 5).unwrap();
    assert!(matches!(broken(story.hears(S(0), "c", 1, 5)), Violation::Sequence { n: 1, expected: 2, .. }));
    assert!(matches!(broken(story.hears(S(0), "c", 2, 5)), Violation::Seq { seq: 5, other: 5, .. }));
    story.hears(S(0), "c", 2, 6).unwrap();
    story.sends(T(0), Push::Terminate("c"));
    story.sees(S(0), Event::Terminated("c")).unwrap();
    assert!(matches!(broken(story.hears(S(0), "c", 3, 7)), Violation::AfterEnd { n: 3, .. }));
}

#[test]
fn a_seq_is_the_same_for_both_sides_and_grows() {
    let mut story = Story::new();
    story.chat("c", 0, 0);
    let first = story.sends(T(0), Push::Say("c", 1));
    story.hears(S(0), "c", 1, 10).unwrap();
    let wrong = story.sees(T(0), Event::Replied(first, Ok(Some(11))));
    assert!(matches!(broken(wrong), Violation::Seq { seq: 11, other: 10, .. }));

    let mut story = Story::new();
    story.chat("c", 0, 0);
    let first = story.sends(T(0), Push::Say("c", 1));
    let second = story.sends(T(0), Push::Say("c", 2));
    story.sees(T(0), Event::Replied(first, Ok(Some(10)))).unwrap();
    assert!(matches!(broken(story.hears(S(0), "c", 1, 11)), Violation::Seq { seq: 11, other: 10, .. }));
    let back = story.sees(T(0), Event::Replied(second, Ok(Some(9))));
    assert!(matches!(broken(back), Violation::Seq { seq: 9, other: 10, .. }));

    // Below the place of an own message nothing is delivered after its ok.
    let mut story = Story::new();
    story.chat("c", 0, 0);
    let own = story.sends(T(0), Push::Say("c", 1));
    story.sends(S(0), Push::Say("c", 1));
    story.sees(T(0), Event::Replied(own, Ok(Some(10)))).unwrap();
    assert!(matches!(broken(story.hears(T(0), "c", 1, 9)), Violation::Seq { seq: 9, other: 10, .. }));
}

#[test]
fn a_chat_ends_once_and_by_somebody() {
    let mut story = Story::new();
    story.chat("c", 0, 0);
    let nobody = Violation::EndedByNobody { who: S(0), chat: "c".into() };
    assert_eq!(broken(story.sees(S(0), Event::Terminated("c"))), nobody);
    story.does(T(0), Push::Terminate("c"));
    story.sees(S(0), Event::Terminated("c")).unwrap();
    let twice = Violation::Twice { who: S(0), what: "chat:terminated", chat: "c".into() };
    assert_eq!(broken(story.sees(S(0), Event::Terminated("c"))), twice);
    let incomplete = Violation::Incomplete { who: T(0), chat: "c".into(), what: "all that this side had to say" };
    assert_eq!(story.checker.finish(1, 0), Err(incomplete));
}

#[test]
fn statuses_add_up_and_neither_come_early_nor_end_early() {
    let why = |outcome| {
        let Violation::Counts { why, .. } = broken(outcome) else { panic!("another rule") };
        why
    };
    let mut story = Story::new();
    assert_eq!(why(story.status(T(0), 0, [0; 3])), "no student was ready yet");
    story.does(S(0), Push::Ready);
    story.does(S(1), Push::Ready);
    assert_eq!(why(story.status(T(0), 2, [1, 0, 0])), "the total is not the sum");
    assert_eq!(why(story.status(T(0), 3, [1, 1, 1])), "more students than were ever ready");
    story.status(T(0), 2, [1, 1, 0]).unwrap();
    story.sends(S(0), Push::Leave);
    assert_eq!(why(story.status(T(0), 0, [0; 3])), "students are there");
    story.sends(S(1), Push::Leave);
    assert!(!story.checker.knows_the_end(T(0)));
    story.status(T(0), 0, [0; 3]).unwrap();
    assert!(story.checker.knows_the_end(T(0)));
}
