//! Rows come and go: places on the rosters and in the queue.

use super::*;

#[test]
fn a_student_is_on_the_roster_when_it_is_ready_and_not_before() {
    let mut rig = Rig::new();
    assert_eq!(rig.row("a", 1, 1, student(5, false)), none());
    assert_eq!(rig.counts(), [0, 0, 0, 0]);
    let ready = rig.table("a", vec![(1, 2, student(5, true))], None);
    assert_eq!(rig.put(ready), none(), "nothing before the commit");
    assert_eq!(rig.batch().expect("a batch"), ["student.5 Waiting #1 -", "queue.000000000001 5"]);
    assert_eq!(
        rig.commit(),
        ["status v109 0 1 0 0", "reply 4 v109", "push a of 1 pace None [(1, 1)]"],
        "the status before the reply"
    );
}

#[test]
fn ready_is_an_edge_that_counts_once() {
    let mut rig = Rig::new();
    rig.waits("a", 1, 5);
    rig.waits("a", 2, 6);
    for n in 2..4 {
        let again = rig.table("a", vec![(1, n, student(5, true))], None);
        let said = rig.put(again);
        assert!(said.last().expect("a reply").starts_with("reply"), "at once, as nothing changes: {said:?}");
        assert_eq!(rig.batch(), None);
    }
    assert_eq!(rig.queue(), ["5", "6"]);
}

#[test]
fn ready_while_chatting_changes_nothing_and_finished_is_a_new_place_at_the_end() {
    let mut rig = Rig::chatting();
    rig.row("b", 2, 2, student(2, true));
    assert_eq!(rig.counts(), [1, 0, 1, 0]);
    rig.terminate("x-1");
    assert_eq!(rig.counts(), [1, 0, 0, 1]);
    rig.row("b", 2, 2, student(2, true));
    assert_eq!(rig.counts(), [1, 0, 0, 1], "an old edge");
    rig.waits("b", 3, 3);
    rig.row("b", 2, 3, student(2, true));
    assert_eq!((rig.queue(), rig.counts()), (vec!["3", "2"], [1, 2, 0, 0]));
}

#[test]
fn a_lost_student_whose_chat_ends_is_off_at_once_and_one_that_is_not_confirmed_is_not() {
    let mut rig = Rig::chatting();
    rig.row("b", 2, 2, left(true));
    assert_eq!(rig.counts(), [1, 0, 1, 0], "its place is kept");
    rig.terminate("x-1");
    assert_eq!(rig.counts(), [1, 0, 0, 0], "there is none to be kept any more");

    let mut rig = Rig::chatting();
    rig.row("b", 2, 2, left(true));
    rig.row("b", 3, 1, student(2, false));
    rig.terminate("x-1");
    assert_eq!(rig.counts(), [1, 0, 0, 1], "it came back");
}

#[test]
fn an_older_row_is_acknowledged_and_ignored() {
    let mut rig = Rig::new();
    rig.row("a", 1, 5, set(1, Some(3), None, None));
    let old = rig.table("a", vec![(1, 4, set(1, Some(9), None, None))], None);
    let said = rig.run(old);
    assert_eq!(said, ["reply 4 v0"]);
    let old = rig.table("a", vec![(1, 5, left(false)), (9, 1, left(true))], None);
    rig.run(old);
    assert_eq!(rig.counts(), [1, 0, 0, 0], "a leaving that is no newer, and one of nobody");
}

#[test]
fn an_unknown_gateway_has_to_send_everything() {
    let mut rig = Rig::new();
    let table = rig.table("c", vec![(1, 1, student(5, true))], None);
    assert_eq!(rig.run(table), ["reply 3 v0 resend"]);
    let part = rig.table("c", vec![(1, 1, student(5, true))], Some(Whole { first: false, last: true }));
    assert_eq!(rig.run(part), ["reply 4 v0 resend"], "nor does it know the first part");
    let part = rig.table("a", vec![(1, 1, student(5, true))], Some(Whole { first: false, last: true }));
    assert_eq!(rig.run(part), ["reply 5 v0 resend"]);
    assert_eq!(rig.counts(), [0, 0, 0, 0]);
}

#[test]
fn a_gateway_that_goes_while_its_first_table_waits_for_room_leaves_nothing() {
    let mut rig = Rig::new();
    let many = rig.table("a", (1..=500).map(|id| (id, 1, student(id, true))).collect(), None);
    rig.put(many);
    let first = rig.table("c", vec![(1, 1, student(900, true))], Some(Whole { first: true, last: true }));
    rig.put(first);
    assert!(rig.core.inbox_len() > 0, "there is no room for all of it");
    rig.put(Input::GatewayGone(name("c")));
    while rig.batch().is_some() {
        rig.commit();
    }
    assert!(rig.core.gateways().all(|gateway| *gateway != name("c")));
    rig.wait_ms(10_000);
    assert!(!rig.queue().contains(&"900"), "its grace time is over");
}

#[test]
fn what_a_whole_table_lacks_is_lost() {
    let mut rig = Rig::new();
    rig.waits("a", 1, 5);
    rig.waits("a", 2, 6);
    rig.row("a", 3, 1, teacher(7));
    let first = rig.table("a", vec![(1, 1, student(5, true))], Some(Whole { first: true, last: false }));
    rig.run(first);
    let last = rig.table("a", vec![(3, 1, teacher(7))], Some(Whole { first: false, last: true }));
    rig.run(last);
    assert_eq!(rig.counts(), [1, 2, 0, 0], "in grace");
    rig.wait_ms(10_000);
    assert_eq!((rig.counts(), rig.queue()), ([1, 1, 0, 0], vec!["5"]));
}

#[test]
fn a_channel_stays_what_it_is() {
    let mut rig = Rig::new();
    rig.waits("a", 1, 5);
    let other = rig.table("a", vec![(1, 2, student(6, true)), (2, 1, student(7, true))], None);
    let said = rig.run(other);
    assert!(said.contains(&"reply 4 v119 1 forbidden".to_owned()), "{said:?}");
    assert_eq!(rig.queue(), ["5", "7"]);
}

#[test]
fn a_lost_student_keeps_its_place_for_the_grace_time() {
    let mut rig = Rig::new();
    rig.waits("a", 1, 5);
    rig.waits("a", 2, 6);
    rig.row("a", 1, 2, left(true));
    rig.wait_ms(9_999);
    assert_eq!(rig.queue(), ["5", "6"]);
    rig.row("b", 1, 1, student(5, true));
    rig.wait_ms(60_000);
    assert_eq!(rig.queue(), ["5", "6"], "back in time, on another gateway");
    rig.row("b", 1, 2, left(true));
    rig.wait_ms(10_000);
    assert_eq!(rig.queue(), ["6"]);
}

#[test]
fn a_student_that_leaves_is_off_at_once_with_its_last_channel() {
    let mut rig = Rig::new();
    rig.waits("a", 1, 5);
    rig.row("b", 1, 1, student(5, false));
    rig.row("a", 1, 2, left(false));
    assert_eq!(rig.counts(), [0, 1, 0, 0], "another channel is there");
    let leave = rig.table("b", vec![(1, 2, left(false))], None);
    rig.put(leave);
    assert_eq!(rig.batch().expect("a batch"), ["student.5 -", "queue.000000000001 -"]);
    assert_eq!(rig.commit(), ["reply 6 v119"]);
    rig.at += Duration::from_millis(50);
    assert_eq!(rig.run(Input::Tick), ["status v119 0 0 0 0"], "the last state arrives");
    assert!(rig.core.is_empty());
}

#[test]
fn a_finished_student_is_off_at_once_however_it_goes() {
    for lost in [true, false] {
        let mut rig = Rig::chatting();
        rig.terminate("x-1");
        assert_eq!(rig.counts(), [1, 0, 0, 1]);
        rig.row("b", 2, 2, left(lost));
        assert_eq!(rig.counts(), [1, 0, 0, 0]);
    }
}

#[test]
fn a_chatting_student_that_leaves_ends_its_chat() {
    let mut rig = Rig::chatting();
    let leave = rig.table("b", vec![(2, 2, left(false))], None);
    rig.put(leave);
    assert_eq!(
        rig.batch().expect("a batch"),
        ["teacher.1 5 []", "student.2 -", "chat.x-1 Finished false false Some(Terminated) [\"chat:terminated\"]"]
    );
    assert_eq!(rig.commit(), ["reply 6 v139", "log x-1 chat:terminated"]);
    assert_eq!(rig.counts(), [1, 0, 0, 0]);
}

#[test]
fn a_lost_chatting_student_ends_its_chat_after_the_grace_time() {
    let mut rig = Rig::chatting();
    rig.row("b", 2, 2, left(true));
    assert_eq!(rig.wait_ms(9_999), none());
    assert_eq!(rig.wait_ms(1), ["log x-1 chat:terminated"]);
    assert_eq!(rig.counts(), [1, 0, 0, 0]);
}

#[test]
fn students_of_a_teacher_that_goes_are_at_the_front_with_their_old_tickets() {
    for lost in [true, false] {
        let mut rig = Rig::new();
        rig.row("a", 1, 1, teacher(1));
        for id in [10, 11, 12, 13] {
            rig.waits("b", id, id);
        }
        rig.claim("a", 1);
        rig.claim("a", 1);
        assert_eq!(rig.queue(), ["12", "13"]);
        let said = rig.row("a", 1, 2, left(lost));
        let said = if lost { rig.wait_ms(10_000) } else { said };
        let logs: Vec<_> = said.iter().filter(|line| line.starts_with("log")).collect();
        assert_eq!(logs, ["log x-1 chat:requeued", "log x-2 chat:requeued"]);
        assert_eq!((rig.queue(), rig.counts()), (vec!["10", "11", "12", "13"], [0, 4, 0, 0]));
    }
}

#[test]
fn a_dead_gateways_rows_are_lost() {
    let mut rig = Rig::new();
    rig.row("a", 1, 1, teacher(1));
    rig.waits("a", 2, 2);
    rig.waits("b", 3, 3);
    rig.run(Input::GatewayGone(name("a")));
    let table = rig.table("a", Vec::new(), None);
    assert!(rig.run(table).concat().contains("resend"), "it has to begin anew");
    rig.wait_ms(10_000);
    assert_eq!(rig.counts(), [0, 1, 0, 0]);
}

#[test]
fn the_queue_has_an_end() {
    let mut rig = Rig::with(Config { max_waiting: 2, ..Config::default() });
    rig.waits("a", 1, 5);
    rig.waits("a", 2, 6);
    let third = rig.table("a", vec![(3, 1, student(7, true)), (4, 1, teacher(1))], None);
    let said = rig.run(third);
    assert!(said.iter().any(|line| line.ends_with(" 3 queue_full")), "{said:?}");
    assert_eq!(rig.counts(), [1, 2, 0, 0], "the other row holds");
    rig.row("a", 1, 2, left(false));
    rig.row("a", 3, 2, student(7, true));
    assert_eq!(rig.queue(), ["6", "7"]);
}

#[test]
fn a_teacher_sets_what_it_names_and_keeps_the_rest() {
    let mut rig = Rig::with(Config { max_capacity: 10, ..Config::default() });
    let rows = [
        (set(1, None, None, None), "teacher.1 5 []"),
        (set(1, Some(3), None, None), "teacher.1 3 []"),
        (set(1, None, Some(true), None), "teacher.1 3 auto []"),
        (set(1, None, None, Some(true)), "teacher.1 3 auto away []"),
        (set(1, Some(99), Some(false), Some(false)), "teacher.1 10 []"),
    ];
    for (n, (at, record)) in (1..).zip(rows) {
        let row = rig.table("a", vec![(1, n, at)], None);
        rig.put(row);
        assert_eq!(rig.batch().expect("a batch"), [record]);
        rig.commit();
    }
    let same = rig.table("b", vec![(1, 1, set(1, Some(10), None, None))], None);
    rig.put(same);
    assert_eq!(rig.batch(), None, "nothing changes");
}
