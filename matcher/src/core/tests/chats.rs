//! Who is assigned to whom, and how chats end.

use super::*;

#[test]
fn a_claim_gets_the_longest_waiting_student() {
    let mut rig = Rig::new();
    rig.row("a", 1, 1, teacher(1));
    rig.waits("b", 2, 20);
    rig.waits("b", 3, 10);
    let claim = rig.claim_input("a", 1);
    assert_eq!(rig.put(claim), none());
    assert_eq!(
        rig.batch().expect("a batch"),
        [
            "teacher.1 5 [\"x-1\"]",
            "student.20 Chatting #1 x-1",
            "queue.000000000001 -",
            "chat.x-1 Active false false None []",
        ]
    );
    assert_eq!(rig.commit(), ["6 done", "push a x-1[1]", "push b x-1[2]"]);
    assert_eq!((rig.queue(), rig.counts()), (vec!["10"], [1, 1, 1, 0]));
}

#[test]
fn an_idle_claim_is_answered_at_once_and_writes_nothing() {
    let mut rig = Rig::new();
    rig.row("a", 1, 1, teacher(1));
    let claim = rig.claim_input("a", 1);
    assert_eq!(rig.put(claim), ["4 done"]);
    assert_eq!(rig.batch(), None);
}

#[test]
fn only_teachers_claim() {
    let mut rig = Rig::new();
    rig.waits("a", 1, 5);
    for (gateway, chan, reason) in [("a", 1, "forbidden"), ("a", 9, "forbidden"), ("z", 1, "unavailable")] {
        let said = rig.claim(gateway, chan);
        assert!(said.concat().ends_with(reason), "{said:?}");
    }
    let part = rig.table("a", Vec::new(), Some(Whole { first: true, last: false }));
    rig.run(part);
    assert!(rig.claim("a", 9).concat().ends_with("unavailable"), "its row may be in the next part");
}

#[test]
fn no_teacher_gets_more_than_its_capacity_and_none_when_away() {
    let mut rig = Rig::new();
    rig.row("a", 1, 1, set(1, Some(2), None, None));
    for id in 10..15 {
        rig.waits("b", id, id);
    }
    (0..4).for_each(|_| drop(rig.claim("a", 1)));
    assert_eq!(rig.counts(), [1, 3, 2, 0]);
    rig.row("a", 1, 2, set(1, Some(1), None, None));
    assert_eq!(rig.counts(), [1, 3, 2, 0], "chats go on");
    rig.terminate("x-1");
    rig.claim("a", 1);
    assert_eq!(rig.counts(), [1, 3, 1, 1], "still full");
    rig.row("a", 1, 3, set(1, Some(5), None, Some(true)));
    rig.claim("a", 1);
    assert_eq!(rig.counts(), [1, 3, 1, 1], "away");
    rig.row("a", 1, 4, set(1, None, None, Some(false)));
    rig.claim("a", 1);
    assert_eq!(rig.counts(), [1, 2, 2, 1]);
}

#[test]
fn auto_teachers_get_students_without_asking_the_freest_first() {
    let mut rig = Rig::new();
    rig.row("a", 1, 1, set(1, Some(2), Some(true), None));
    rig.row("a", 2, 1, set(2, Some(2), Some(true), None));
    let chats = |rig: &Rig, id: u64| rig.core.teachers[&UserId::from(id)].record.chats.len();
    for (id, expected) in [(10, (1, 0)), (11, (1, 1)), (12, (2, 1)), (13, (2, 2)), (14, (2, 2))] {
        rig.waits("b", id, id);
        assert_eq!((chats(&rig, 1), chats(&rig, 2)), expected);
    }
    assert_eq!(rig.queue(), ["14"]);
    rig.terminate("x-1");
    assert_eq!(rig.counts(), [2, 0, 4, 1], "the free place is taken at once");
}

#[test]
fn a_student_who_is_assigned_at_once_leaves_no_place_to_purge() {
    let mut rig = Rig::new();
    rig.row("a", 1, 1, set(1, None, Some(true), None));
    let ready = rig.table("b", vec![(2, 1, student(2, true))], None);
    rig.put(ready);
    let batch = rig.batch().expect("a batch");
    assert_eq!(batch.len(), 3, "{batch:?}");
}

#[test]
fn a_teacher_without_any_channel_gets_nobody_by_itself() {
    let mut rig = Rig::new();
    rig.row("a", 1, 1, set(1, None, Some(true), None));
    rig.row("a", 1, 2, left(true));
    rig.waits("b", 2, 2);
    assert_eq!(rig.counts(), [1, 1, 0, 0]);
    rig.row("b", 9, 1, teacher(1));
    assert_eq!(rig.counts(), [1, 0, 1, 0], "back, and auto as before");
}

#[test]
fn both_enter_and_the_chat_is_ready_once() {
    let mut rig = Rig::chatting();
    assert_eq!(rig.row("a", 10, 1, member("x-1", Role::Teacher, false)), none());
    assert_eq!(rig.row("a", 10, 2, member("x-1", Role::Teacher, true)), none());
    let enters = rig.table("b", vec![(20, 1, member("x-1", Role::Student, true))], None);
    rig.put(enters);
    assert_eq!(rig.batch().expect("a batch"), ["chat.x-1 Active true true None [\"chat:ready\"]"]);
    assert_eq!(rig.commit(), ["reply 8 v128", "log x-1 chat:ready"]);
    assert_eq!(rig.logged("x-1", ChatEvent::Ready), none());
    rig.row("b", 21, 1, member("x-1", Role::Student, true));
    assert_eq!(rig.wait_ms(120_000), none(), "entering again, and time, change nothing");
    assert_eq!(rig.counts(), [1, 0, 1, 0]);
}

#[test]
fn a_side_that_never_enters_ends_the_chat() {
    let cases = [
        (None, "log x-1 chat:requeued", [1, 1, 0, 0]),
        (Some(Role::Student), "log x-1 chat:requeued", [1, 1, 0, 0]),
        (Some(Role::Teacher), "log x-1 chat:terminated", [1, 0, 0, 1]),
    ];
    for (entered, log, counts) in cases {
        let mut rig = Rig::chatting();
        if let Some(role) = entered {
            rig.row("a", 10, 1, member("x-1", role, true));
        }
        rig.wait_ms(59_000);
        assert_eq!(rig.counts(), [1, 0, 1, 0]);
        let said = rig.wait_ms(1_000);
        assert!(said.contains(&log.to_owned()), "{said:?}");
        assert_eq!(rig.counts(), counts, "the teacher keeps its place");
    }
}

#[test]
fn terminate_is_the_same_a_second_time() {
    let mut rig = Rig::chatting();
    assert_eq!(rig.terminate("x-9"), ["done 6 not_found"]);
    let terminate = rig.terminate_input("x-1");
    assert_eq!(rig.put(terminate), none());
    assert_eq!(
        rig.batch().expect("a batch"),
        [
            "teacher.1 5 []",
            "student.2 Finished #1 -",
            "chat.x-1 Finished false false Some(Terminated) [\"chat:terminated\"]"
        ]
    );
    assert!(!rig.commit().concat().contains("done"), "the log has to have it first");
    assert_eq!(rig.terminate("x-1"), none());
    assert_eq!(rig.counts(), [1, 0, 0, 1]);
    assert_eq!(rig.run(Input::Logged(chat_id("x-1"), ChatEvent::Terminated)), ["7 done", "8 done"]);
    let terminate = rig.terminate_input("x-1");
    assert_eq!(rig.run(terminate), ["9 done"], "the log has it");
}

#[test]
fn ready_is_logged_before_the_end() {
    let mut rig = Rig::chatting();
    rig.row("a", 10, 1, member("x-1", Role::Teacher, true));
    assert_eq!(rig.row("b", 20, 1, member("x-1", Role::Student, true)), ["log x-1 chat:ready"]);
    assert_eq!(rig.terminate("x-1"), none(), "one at a time");
    assert_eq!(rig.wait_ms(1_000), ["log x-1 chat:ready"], "again, as it is not acknowledged");
    assert_eq!(rig.logged("x-1", ChatEvent::Terminated), none(), "that is not what was sent");
    assert_eq!(rig.logged("x-1", ChatEvent::Ready), ["log x-1 chat:terminated"]);
}

#[test]
fn a_finished_chat_stays_while_somebody_is_there_and_then_a_while() {
    let mut rig = Rig::chatting();
    rig.row("a", 10, 1, member("x-1", Role::Teacher, true));
    rig.terminate("x-1");
    rig.logged("x-1", ChatEvent::Terminated);
    rig.row("b", 2, 2, left(false));
    rig.row("a", 1, 2, left(false));
    assert_eq!(rig.wait_ms(300_000), none());
    rig.row("a", 10, 2, left(true));
    rig.wait_ms(59_999);
    rig.row("b", 20, 1, member("x-1", Role::Student, false));
    rig.row("b", 20, 2, left(false));
    assert_eq!(rig.wait_ms(59_999), none());
    assert_eq!(rig.wait_ms(1), ["log x-1 tombstone"]);
    assert!(!rig.core.is_empty(), "the record stays until the log has it");
    assert_eq!(rig.put(Input::Logged(chat_id("x-1"), ChatEvent::Tombstone)), none());
    assert_eq!(rig.batch().expect("a batch"), ["chat.x-1 -"]);
    rig.commit();
    assert!(rig.core.is_empty());
    assert!(rig.terminate("x-1").concat().ends_with("not_found"));
}
