//! Each rule, held and broken.

mod queue;

use super::*;

const PLAN: Plan = Plan { capacity: 1, messages: 1, answer_within: Duration::from_secs(5) };
const S: fn(u32) -> Who = Who::student;
const T: fn(u32) -> Who = Who::teacher;

/// A judge with a clock that ticks a millisecond per event.
struct Story {
    judge: Judge,
    now: Duration,
    reference: u64,
}

type Outcome = Result<Option<Took>, Violation>;

impl Story {
    fn new() -> Story {
        Story { judge: Judge::new(PLAN), now: Duration::from_secs(1), reference: 0 }
    }

    fn sees(&mut self, who: Who, event: Event<'_>) -> Outcome {
        self.now += Duration::from_millis(1);
        self.judge.observe(who, self.now, event)
    }

    fn sends(&mut self, who: Who, push: Push<'_>) -> u64 {
        self.reference += 1;
        self.sees(who, Event::Pushed(self.reference, push)).unwrap();
        self.reference
    }

    fn asks(&mut self, who: Who, push: Push<'_>, outcome: Result<Option<u64>, &str>) -> Outcome {
        let reference = self.sends(who, push);
        self.sees(who, Event::Replied(reference, outcome))
    }

    fn does(&mut self, who: Who, push: Push<'_>) {
        self.asks(who, push, Ok(None)).unwrap();
    }

    fn shown(&mut self, who: Who, chat: &str, teacher: u32, student: u32) -> Outcome {
        self.sees(who, Event::NewChat { chat, teacher: Some(teacher), student: Some(student) })
    }

    fn says(&mut self, who: Who, chat: &str, n: u32, seq: u64) -> Outcome {
        self.asks(who, Push::Say(chat, n), Ok(Some(seq)))
    }

    fn hears(&mut self, who: Who, chat: &str, n: u32, seq: u64) -> Outcome {
        self.sees(who, Event::Heard { chat, to: who.role, about: chat, n, seq })
    }

    /// Loses its socket, and is back in lobby and chat after this time.
    fn is_away(&mut self, who: Who, seconds: u64, chat: &str) {
        self.sees(who, Event::Lost).unwrap();
        self.now += Duration::from_secs(seconds);
        self.does(who, Push::Join);
        self.does(who, Push::JoinChat(chat));
        self.does(who, Push::Enter(chat));
    }

    /// Both in the lobby, assigned, and in.
    fn chat(&mut self, chat: &str, teacher: u32, student: u32) {
        self.does(T(teacher), Push::Join);
        self.does(S(student), Push::Join);
        self.does(S(student), Push::Ready);
        for who in [T(teacher), S(student)] {
            self.shown(who, chat, teacher, student).unwrap();
            self.does(who, Push::JoinChat(chat));
            self.does(who, Push::Enter(chat));
        }
        for who in [T(teacher), S(student)] {
            self.sees(who, Event::ChatReady(chat)).unwrap();
        }
    }
}

fn with_chat() -> Story {
    let mut story = Story::new();
    story.chat("c", 0, 0);
    story
}

#[test]
fn a_whole_run_with_losses_breaks_no_rule() {
    let mut story = with_chat();
    // Stored, but the answer is lost with the socket; said again, it has the place that was heard.
    story.sends(T(0), Push::Say("c", 1));
    story.hears(S(0), "c", 1, 7).unwrap();
    story.is_away(T(0), 2, "c");
    story.shown(T(0), "c", 0, 0).unwrap();
    story.says(T(0), "c", 1, 7).unwrap();
    story.asks(S(0), Push::Say("c", 1), Err("unavailable")).unwrap();
    story.says(S(0), "c", 1, 8).unwrap();
    story.is_away(T(0), 2, "c");
    story.hears(T(0), "c", 1, 8).unwrap();
    story.does(T(0), Push::Terminate("c"));
    for who in [T(0), S(0)] {
        story.sees(who, Event::Ended("c", End::Terminated)).unwrap();
    }
    story.sees(T(0), Event::Students(0)).unwrap();
    story.judge.finish(1, 1).unwrap();
    assert!(matches!(story.judge.finish(2, 1), Err(Violation::NotServed { missing: 1, students: 2, first: 1 })));
    assert!(matches!(story.judge.finish(1, 2), Err(Violation::NoLastStatus { .. })));
}

#[test]
fn a_push_is_answered_or_its_socket_is_lost() {
    let mut story = Story::new();
    let reference = story.sends(S(0), Push::Join);
    let late = story.now + PLAN.answer_within + Duration::from_millis(1);
    assert_eq!(story.judge.overdue(story.now + PLAN.answer_within), Ok(()));
    let expected = Violation::Unanswered { who: S(0), what: "join", reference, seconds: 5 };
    assert_eq!(story.judge.overdue(late), Err(expected));
    story.sees(S(0), Event::Lost).unwrap();
    assert_eq!(story.judge.overdue(late), Ok(()));
    let stray = story.sees(S(0), Event::Replied(reference, Ok(None)));
    assert_eq!(stray, Err(Violation::StrayReply { who: S(0), reference }));
}

#[test]
fn only_some_refusals_may_be() {
    let mut story = with_chat();
    story.asks(S(0), Push::Ready, Err("unavailable")).unwrap();
    assert!(matches!(story.asks(S(0), Push::Ready, Err("queue_full")), Err(Violation::Refused { .. })));
    assert!(matches!(story.asks(T(0), Push::Say("c", 1), Ok(None)), Err(Violation::NoSeq { .. })));
}

#[test]
fn a_replay_repeats_nothing_and_skips_nothing() {
    let mut story = with_chat();
    story.says(T(0), "c", 1, 7).unwrap();
    story.says(T(0), "c", 2, 8).unwrap();
    story.hears(S(0), "c", 1, 7).unwrap();
    story.is_away(S(0), 2, "c");
    let twice = story.hears(S(0), "c", 1, 7);
    assert_eq!(twice, Err(Violation::Sequence { who: S(0), chat: "c".into(), n: 1, expected: 2 }));
    let skipped = story.hears(S(0), "c", 3, 9);
    assert_eq!(skipped, Err(Violation::Sequence { who: S(0), chat: "c".into(), n: 3, expected: 2 }));
    story.hears(S(0), "c", 2, 8).unwrap();
    let invented = story.hears(S(0), "c", 3, 9);
    assert_eq!(invented, Err(Violation::Invented { who: S(0), chat: "c".into(), n: 3 }));
    // A gap that is shown excuses what it spans.
    for (n, seq) in [(3, 9), (4, 10)] {
        story.says(T(0), "c", n, seq).unwrap();
    }
    story.sees(S(0), Event::Gap("c")).unwrap();
    story.hears(S(0), "c", 4, 10).unwrap();
    assert_eq!(story.judge.gaps(), 1);
}

#[test]
fn what_was_acknowledged_comes_before_the_end() {
    let mut story = with_chat();
    story.says(T(0), "c", 1, 7).unwrap();
    let missed = Violation::Missed { who: S(0), chat: "c".into(), n: 1 };
    assert_eq!(story.judge.finish(0, 0), Err(missed.clone()));
    story.does(T(0), Push::Terminate("c"));
    assert_eq!(story.sees(S(0), Event::Ended("c", End::Terminated)), Err(missed));
    story.hears(S(0), "c", 1, 7).unwrap();
    story.sees(S(0), Event::Ended("c", End::Terminated)).unwrap();
    assert!(matches!(story.sees(S(0), Event::Ended("c", End::Terminated)), Err(Violation::Twice { .. })));
    story.sends(T(0), Push::Say("c", 2));
    assert!(matches!(story.hears(S(0), "c", 2, 8), Err(Violation::AfterEnd { .. })));
}

#[test]
fn a_place_in_the_order_is_one_for_all_and_grows() {
    let mut story = with_chat();
    story.says(T(0), "c", 1, 7).unwrap();
    assert!(matches!(story.says(T(0), "c", 1, 8), Err(Violation::Seq { other: 7, .. })), "another on repetition");
    assert!(matches!(story.hears(S(0), "c", 1, 8), Err(Violation::Seq { other: 7, .. })), "another for the listener");
    assert!(matches!(story.says(T(0), "c", 2, 6), Err(Violation::Seq { other: 7, .. })), "below the one before");
    story.says(S(0), "c", 1, 9).unwrap();
    assert!(matches!(story.hears(S(0), "c", 1, 7), Err(Violation::Seq { other: 9, .. })), "below an own ok");
    let astray = Event::Heard { chat: "c", to: Role::Teacher, about: "c", n: 1, seq: 10 };
    assert!(matches!(story.sees(S(0), astray), Err(Violation::Astray { .. })));
}

#[test]
fn a_chat_is_shown_once_per_channel_and_ready_once_per_join() {
    let mut story = with_chat();
    assert!(matches!(story.shown(S(0), "c", 0, 0), Err(Violation::ShownTwice { .. })));
    assert!(matches!(story.sees(S(0), Event::ChatReady("c")), Err(Violation::Twice { .. })));
    story.is_away(S(0), 1, "c");
    story.shown(S(0), "c", 0, 0).unwrap();
    story.sees(S(0), Event::ChatReady("c")).unwrap();
    assert!(matches!(story.shown(S(1), "c", 0, 0), Err(Violation::WrongPair { .. })));
    assert!(matches!(story.shown(T(0), "d", 0, 1), Err(Violation::NotWaiting { .. })));
    let stranger = Event::NewChat { chat: "d", teacher: None, student: Some(0) };
    assert!(matches!(story.sees(T(0), stranger), Err(Violation::Stranger { .. })));
    assert!(matches!(story.sees(S(1), Event::ChatReady("c")), Err(Violation::NotMember { .. })));
    story.does(S(1), Push::Ready);
    story.shown(T(1), "d", 1, 1).unwrap();
    assert!(matches!(story.sees(T(1), Event::ChatReady("d")), Err(Violation::ReadyEarly { .. })));
}

#[test]
fn a_chat_ends_because_somebody_ends_it_or_was_away_for_the_grace_time() {
    let ends = |prepare: &dyn Fn(&mut Story), who: Who, how: End| {
        let mut story = with_chat();
        prepare(&mut story);
        story.sees(who, Event::Ended("c", how))
    };
    for how in [End::Terminated, End::Requeued] {
        assert!(matches!(ends(&|_| (), S(0), how), Err(Violation::EndedWithoutCause { .. })));
    }
    assert!(matches!(
        ends(&|s| s.is_away(S(0), 8, "c"), T(0), End::Terminated),
        Err(Violation::EndedWithoutCause { .. })
    ));
    assert!(ends(&|s| s.is_away(S(0), 11, "c"), T(0), End::Terminated).is_ok());
    assert!(ends(&|s| s.is_away(T(0), 11, "c"), S(0), End::Requeued).is_ok());
    assert!(matches!(
        ends(&|s| s.is_away(S(0), 11, "c"), T(0), End::Requeued),
        Err(Violation::EndedWithoutCause { .. })
    ));
    assert!(ends(&|s| s.does(S(0), Push::Leave), T(0), End::Terminated).is_ok());
    let mut story = with_chat();
    let gone = story.asks(T(0), Push::JoinChat("c"), Err("not_found"));
    assert!(matches!(gone, Err(Violation::EndedWithoutCause { .. })));
    let mut story = with_chat();
    story.does(T(0), Push::Terminate("c"));
    story.asks(S(0), Push::JoinChat("c"), Err("not_found")).unwrap();
    story.asks(S(0), Push::Say("c", 1), Err("chat_finished")).unwrap();
}

#[test]
fn chats_that_took_messages_at_the_same_time_were_active_at_once() {
    let may_be_over = || {
        let mut story = with_chat();
        story.asks(T(0), Push::Terminate("c"), Err("unavailable")).unwrap();
        story
    };
    let mut story = may_be_over();
    story.chat("d", 1, 0);
    // It may have ended, until it takes a message behind the beginning of "d".
    story.says(T(1), "d", 1, 1).unwrap();
    let both = story.says(T(0), "c", 1, 7);
    assert_eq!(both, Err(Violation::TwoChats { student: 0, chats: 2 }));

    let mut story = may_be_over();
    story.chat("d", 0, 1);
    story.says(T(0), "d", 1, 1).unwrap();
    let above = story.says(S(0), "c", 1, 7);
    assert_eq!(above, Err(Violation::AboveCapacity { teacher: 0, chats: 2, capacity: 1 }));

    // Said before the other began, and answered after it: proves nothing.
    let mut story = may_be_over();
    let said = story.sends(S(0), Push::Say("c", 1));
    story.chat("d", 0, 1);
    story.says(T(0), "d", 1, 1).unwrap();
    story.sees(S(0), Event::Replied(said, Ok(Some(7)))).unwrap();
}

#[test]
fn counts_add_up() {
    let mut story = with_chat();
    let status = |students, waiting| Event::Status(Counts { teachers: 1, students, waiting, chatting: 1, finished: 0 });
    story.sees(T(0), status(1, 0)).unwrap();
    assert!(!story.judge.knows_the_end(T(0)));
    assert!(matches!(story.sees(T(0), status(1, 1)), Err(Violation::Counts { .. })));
    assert!(matches!(story.sees(T(0), status(2, 1)), Err(Violation::Counts { .. })));
}

#[test]
fn however_many_students_come_and_go_the_judge_remembers_few() {
    let mut story = Story::new();
    let mut most = 0;
    for n in 0..500 {
        let chat = format!("c{n}");
        story.chat(&chat, 0, n);
        story.says(T(0), &chat, 1, 1).unwrap();
        story.hears(S(n), &chat, 1, 1).unwrap();
        story.does(S(n), Push::Leave);
        story.sees(T(0), Event::Ended(&chat, End::Terminated)).unwrap();
        story.judge.done(n, story.now);
        story.now += Duration::from_secs(1);
        story.judge.forget(story.now).unwrap();
        let Judge { open, chats, queue, asked, done, .. } = &story.judge;
        most = most.max(open.len() + chats.len() + queue.len() + asked.len() + done.len() + story.judge.users.len());
    }
    assert!((120..800).contains(&most), "{most}");
    let status = |students| Event::Status(Counts { teachers: 1, students, waiting: students, ..Counts::default() });
    story.sees(T(0), status(500)).unwrap();
    assert!(matches!(story.sees(T(0), status(501)), Err(Violation::Counts { .. })), "who is forgotten was there");
}

#[test]
fn a_teacher_is_told_that_the_chat_of_a_student_that_left_is_over() {
    let left = || {
        let mut story = with_chat();
        story.does(S(0), Push::Leave);
        story.judge.done(0, story.now);
        story
    };
    let mut story = left();
    story.judge.forget(story.now + FORGET_AFTER).unwrap();
    assert!(!story.judge.done.is_empty(), "its teacher may still be away");
    let late = story.judge.forget(story.now + TOLD_WITHIN);
    assert!(matches!(late, Err(Violation::Incomplete { who, .. }) if who == T(0)), "{late:?}");
    let mut story = left();
    story.asks(T(0), Push::JoinChat("c"), Err("not_found")).unwrap();
    story.judge.forget(story.now + TOLD_WITHIN).unwrap();
    assert!(story.judge.done.is_empty());
}

#[test]
fn order_is_judged_although_others_were_forgotten() {
    let mut story = Story::new();
    for n in 0..3 {
        story.chat(&format!("c{n}"), 0, n);
        story.does(T(0), Push::Terminate(&format!("c{n}")));
        story.sees(T(0), Event::Ended(&format!("c{n}"), End::Terminated)).unwrap();
    }
    // The third waits again, and the others are forgotten; then somebody who came later is taken before it.
    story.does(S(2), Push::Ready);
    for n in 0..2 {
        story.does(S(n), Push::Leave);
        story.judge.done(n, story.now);
    }
    story.now += FORGET_AFTER;
    story.judge.forget(story.now).unwrap();
    assert_eq!(story.judge.waits_longest().map(|(n, _)| n), Some(2));
    story.does(S(3), Push::Ready);
    story.does(T(1), Push::Join);
    story.does(T(1), Push::Claim);
    story.shown(T(1), "d", 1, 3).unwrap();
    story.does(T(0), Push::Claim);
    let late = story.shown(T(0), "e", 0, 2);
    assert_eq!(late, Err(Violation::QueueOrder { earlier: 2, later: 3 }));
}
