//! The queue's order, and who certainly is in a chat, where sockets are lost.

use super::*;

/// Teacher 0 has student 9, and is full; students 0 and 1 wait, in this order; teacher 1 is there.
fn queue() -> Story {
    let mut story = Story::new();
    for who in [T(1), S(0), S(1)] {
        story.does(who, Push::Join);
    }
    story.claimed("c", 0, 9);
    story.does(S(0), Push::Ready);
    story.does(S(1), Push::Ready);
    story
}

const OVERTAKEN: Violation = Violation::QueueOrder { earlier: 0, later: 1 };

impl Story {
    /// As `chat`, with a claim.
    fn claimed(&mut self, chat: &str, teacher: u32, student: u32) {
        self.does(T(teacher), Push::Claim);
        self.chat(chat, teacher, student);
    }

    /// Ends teacher 0's chat with student 9, and claims again.
    fn goes_on(&mut self) {
        self.does(T(0), Push::Terminate("c"));
        self.does(T(0), Push::Claim);
    }

    fn waits(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// Loses its socket, is back in the lobby after so long, and asks for a place again.
    fn asks_again_after(&mut self, student: u32, seconds: u64) {
        self.sees(S(student), Event::Lost).unwrap();
        self.waits(seconds);
        self.does(S(student), Push::Join);
        self.does(S(student), Push::Ready);
    }
}

#[test]
fn who_waited_first_is_assigned_first() {
    let outcome = |between: &dyn Fn(&mut Story)| {
        let mut story = queue();
        between(&mut story);
        story.does(T(1), Push::Claim);
        story.shown(S(1), "one", 1, 1).unwrap();
        story.goes_on();
        story.shown(S(0), "zero", 0, 0).map(|_| ())
    };
    assert_eq!(outcome(&|_| ()), Err(OVERTAKEN));
    assert_eq!(outcome(&|s| s.asks_again_after(0, 8)), Err(OVERTAKEN), "it came back in time");
    assert_eq!(outcome(&|s| s.asks_again_after(0, 10)), Ok(()), "it lost its place");
    assert_eq!(outcome(&|s| s.asks_again_after(1, 10)), Err(OVERTAKEN), "the later one may only be later still");
    assert_eq!(outcome(&|s| s.does(S(0), Push::Leave)), Ok(()), "it left");

    // Seen after there was room for the earlier one: both may have been assigned in either order.
    let mut story = queue();
    story.does(T(1), Push::Claim);
    story.goes_on();
    story.shown(S(1), "one", 1, 1).unwrap();
    story.shown(S(0), "zero", 0, 0).unwrap();

    // A claim that is open when there is room may be carried out at once; else the next one counts.
    let outcome = |claims: bool| {
        let mut story = queue();
        story.does(T(1), Push::Claim);
        let open = claims.then(|| story.sends(T(0), Push::Claim));
        story.does(T(0), Push::Terminate("c"));
        story.shown(S(1), "one", 1, 1).unwrap();
        story.does(T(0), Push::Claim);
        if let Some(open) = open {
            story.sees(T(0), Event::Replied(open, Ok(None))).unwrap();
        }
        story.shown(S(0), "zero", 0, 0).map(|_| ())
    };
    assert_eq!(outcome(true), Ok(()));
    assert_eq!(outcome(false), Err(OVERTAKEN));
}

#[test]
fn a_place_counts_from_its_acknowledgement() {
    let mut story = Story::new();
    story.claimed("c", 0, 9);
    story.does(T(1), Push::Claim);
    story.sends(S(0), Push::Ready);
    story.sees(S(0), Event::Lost).unwrap();
    story.does(S(1), Push::Ready);
    story.does(S(0), Push::Join);
    story.does(S(0), Push::Ready);
    story.shown(S(1), "one", 1, 1).unwrap();
    story.goes_on();
    story.shown(S(0), "zero", 0, 0).unwrap();
}

#[test]
fn a_claim_without_an_answer_may_be_carried_out_for_a_while() {
    let outcome = |lost: bool, seconds| {
        let mut story = queue();
        let claim = story.sends(T(0), Push::Claim);
        if lost {
            story.sees(T(0), Event::Lost).unwrap();
            story.does(T(0), Push::Join);
        } else {
            story.sees(T(0), Event::Replied(claim, Err("unavailable"))).unwrap();
        }
        story.waits(seconds);
        story.does(T(0), Push::Terminate("c"));
        story.does(T(1), Push::Claim);
        story.shown(S(1), "one", 1, 1).unwrap();
        story.does(T(0), Push::Claim);
        story.shown(S(0), "zero", 0, 0).map(|_| ())
    };
    for lost in [false, true] {
        assert_eq!(outcome(lost, 9), Ok(()));
        assert_eq!(outcome(lost, 11), Err(OVERTAKEN));
    }
}

#[test]
fn a_requeued_student_has_its_old_place() {
    // Teacher 0 is lost with student 0, who was ahead of student 1. Teacher 2 has student 8, and is full.
    let story = |gone: u64| {
        let mut story = Story::new();
        story.claimed("c", 0, 0);
        story.claimed("d", 2, 8);
        story.does(T(1), Push::Join);
        story.does(S(1), Push::Join);
        story.does(S(1), Push::Ready);
        story.sees(T(0), Event::Lost).unwrap();
        story.waits(gone);
        story
    };
    let ends = |mut story: Story| {
        story.does(T(2), Push::Terminate("d"));
        story.does(T(2), Push::Claim);
        story.shown(S(0), "zero", 2, 0).map(|_| ())
    };
    let mut broken = story(11);
    broken.sees(S(0), Event::Ended("c", End::Requeued)).unwrap();
    broken.does(T(1), Push::Claim);
    broken.shown(S(1), "one", 1, 1).unwrap();
    assert_eq!(ends(broken), Err(OVERTAKEN));

    // The later one may have been assigned before the other was back in the queue.
    let mut held = story(11);
    held.does(T(1), Push::Claim);
    held.sees(S(0), Event::Ended("c", End::Requeued)).unwrap();
    held.shown(S(1), "one", 1, 1).unwrap();
    assert_eq!(ends(held), Ok(()));

    // The end was refused instead of told: it may have a new place.
    let mut held = story(11);
    held.asks(S(0), Push::JoinChat("c"), Err("not_found")).unwrap();
    held.does(T(1), Push::Claim);
    held.shown(S(1), "one", 1, 1).unwrap();
    assert_eq!(ends(held), Ok(()));

    // Whatever it asks again, it is ahead of those who came later.
    let mut held = story(11);
    held.does(S(3), Push::Ready);
    held.sees(S(0), Event::Ended("c", End::Requeued)).unwrap();
    held.does(S(0), Push::Ready);
    held.does(T(1), Push::Claim);
    held.shown(S(0), "zero", 1, 0).unwrap();
    held.does(T(3), Push::Claim);
    held.shown(S(3), "three", 3, 3).unwrap();
}

#[test]
fn only_a_place_that_is_known_is_had_again() {
    // Teacher 0 takes student 0 and is lost; student 1 asked after that was seen. Teacher 2 is full until the end.
    let outcome = |acknowledged: bool, between: &dyn Fn(&mut Story)| {
        let mut story = Story::new();
        story.claimed("d", 2, 8);
        let asks = story.sends(S(0), Push::Ready);
        if acknowledged {
            story.sees(S(0), Event::Replied(asks, Ok(None))).unwrap();
        }
        story.does(T(0), Push::Claim);
        story.shown(S(0), "c", 0, 0).unwrap();
        story.does(S(1), Push::Ready);
        story.sees(T(0), Event::Lost).unwrap();
        story.waits(11);
        between(&mut story);
        story.does(T(1), Push::Claim);
        story.shown(S(1), "one", 1, 1).unwrap();
        story.does(T(2), Push::Terminate("d"));
        story.does(T(2), Push::Claim);
        story.shown(S(0), "zero", 2, 0).map(|_| ())
    };
    let requeued = |story: &mut Story| {
        story.sees(S(0), Event::Ended("c", End::Requeued)).unwrap();
    };
    assert_eq!(outcome(true, &requeued), Err(OVERTAKEN));
    assert_eq!(outcome(false, &requeued), Err(OVERTAKEN), "who was assigned had a place");
    // It got another chat without having been told how the first one ended: perhaps from a new place.
    let moves_on = |story: &mut Story| {
        story.does(T(3), Push::Claim);
        story.shown(S(0), "e", 3, 0).unwrap();
    };
    let again = |story: &mut Story| {
        moves_on(story);
        story.sees(T(3), Event::Lost).unwrap();
        story.waits(11);
        story.sees(S(0), Event::Ended("e", End::Requeued)).unwrap();
    };
    assert_eq!(outcome(true, &again), Ok(()));
    // The first one's end is told late: it does not wait again by that.
    let late = |story: &mut Story| {
        moves_on(story);
        requeued(story);
        story.does(S(4), Push::Ready);
        story.does(S(0), Push::Terminate("e"));
        story.sees(S(0), Event::Ended("e", End::Terminated)).unwrap();
        story.does(S(0), Push::Ready);
        story.does(T(4), Push::Claim);
        story.shown(S(4), "four", 4, 4).unwrap();
    };
    assert_eq!(outcome(true, &late), Ok(()));
}

#[test]
fn who_has_had_its_chat_has_a_new_place_at_the_end() {
    let mut story = queue();
    story.goes_on();
    story.shown(S(0), "zero", 0, 0).unwrap();
    story.does(S(0), Push::Terminate("zero"));
    story.sees(S(0), Event::Ended("zero", End::Terminated)).unwrap();
    story.does(S(0), Push::Ready);
    let ahead = Violation::QueueOrder { earlier: 1, later: 0 };
    story.does(T(0), Push::Claim);
    story.shown(S(0), "again", 0, 0).unwrap();
    story.does(T(1), Push::Claim);
    assert_eq!(story.shown(S(1), "one", 1, 1), Err(ahead));

    // In the right order; and a ready of before, that is answered late, is no new place.
    let mut story = queue();
    story.goes_on();
    story.shown(S(0), "zero", 0, 0).unwrap();
    let early = story.sends(S(0), Push::Ready);
    story.does(S(0), Push::Terminate("zero"));
    story.sees(S(0), Event::Ended("zero", End::Terminated)).unwrap();
    story.sees(S(0), Event::Replied(early, Ok(None))).unwrap();
    story.does(S(2), Push::Ready);
    story.does(S(0), Push::Ready);
    story.does(T(1), Push::Claim);
    story.shown(S(1), "one", 1, 1).unwrap();
    story.does(T(2), Push::Claim);
    story.shown(S(2), "two", 2, 2).unwrap();
    story.does(T(0), Push::Claim);
    story.shown(S(0), "again", 0, 0).unwrap();
}

#[test]
fn nothing_is_known_of_who_may_have_been_in_a_chat_that_nobody_saw() {
    let outcome = |between: &dyn Fn(&mut Story)| {
        let mut story = queue();
        story.does(T(2), Push::Join);
        between(&mut story);
        story.does(T(1), Push::Claim);
        story.shown(S(1), "one", 1, 1).unwrap();
        story.goes_on();
        story.shown(S(0), "zero", 0, 0).map(|_| ())
    };
    let is_lost_for = |seconds| {
        move |story: &mut Story| {
            story.sees(T(2), Event::Lost).unwrap();
            story.waits(seconds);
        }
    };
    assert_eq!(outcome(&is_lost_for(9)), Err(OVERTAKEN));
    assert_eq!(outcome(&is_lost_for(10)), Ok(()));
}

#[test]
fn a_chat_that_nobody_ends_is_active() {
    let mut story = queue();
    assert_eq!(story.shown(T(0), "zero", 0, 0), Err(Violation::AboveCapacity { teacher: 0, chats: 2, capacity: 1 }));
    let mut story = queue();
    assert_eq!(story.shown(S(9), "d", 1, 9), Err(Violation::TwoChats { student: 9, chats: 2 }));
    for ends in [
        &|story: &mut Story| story.does(T(0), Push::Terminate("c")),
        &|story: &mut Story| story.does(S(9), Push::Leave),
        &|story: &mut Story| story.is_away(S(9), 10, "c"),
        &|story: &mut Story| {
            story.sees(T(0), Event::Lost).unwrap();
            story.waits(10);
        },
    ] as [&dyn Fn(&mut Story); 4]
    {
        let mut story = queue();
        ends(&mut story);
        story.shown(S(9), "d", 1, 9).unwrap();
    }
    // What is first seen soon after its teacher was given up may be over already.
    let outcome = |seconds| {
        let mut story = queue();
        story.sees(T(1), Event::Lost).unwrap();
        story.waits(11);
        story.does(T(1), Push::Join);
        story.waits(seconds);
        story.shown(S(0), "zero", 1, 0).unwrap();
        story.shown(S(1), "one", 1, 1).map(|_| ())
    };
    assert_eq!(outcome(14), Ok(()));
    assert_eq!(outcome(16), Err(Violation::AboveCapacity { teacher: 1, chats: 2, capacity: 1 }));
    // One that was never ready ends after a minute.
    let outcome = |seconds| {
        let mut story = queue();
        story.does(T(1), Push::Claim);
        story.shown(S(0), "zero", 1, 0).unwrap();
        story.waits(seconds);
        story.shown(S(1), "one", 1, 1).map(|_| ())
    };
    assert_eq!(outcome(54), Err(Violation::AboveCapacity { teacher: 1, chats: 2, capacity: 1 }));
    assert_eq!(outcome(55), Ok(()));
}
