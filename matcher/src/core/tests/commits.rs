//! Group commit: what waits for which batch, and what fits into one.

use switchboard_contract::limits::{BATCH_RECORDS_MAX, MATCHER_INBOX_MAX};

use super::*;

#[test]
fn while_a_batch_is_in_flight_inputs_collect_for_the_next() {
    let mut rig = Rig::new();
    rig.row("a", 1, 1, teacher(1));
    rig.wait_ms(500);
    let first = rig.table("b", vec![(2, 1, student(2, true))], None);
    rig.put(first);
    assert_eq!(rig.batch().expect("a batch"), ["student.2 Waiting #1 -", "queue.000000000001 2"]);
    let second = rig.table("b", vec![(3, 1, student(3, true))], None);
    assert_eq!(rig.put(second), none());
    let claim = rig.claim_input("a", 1);
    assert_eq!(rig.put(claim), none());
    assert_eq!(rig.batch(), None, "one at a time");
    assert_eq!(rig.commit(), ["status v119 1 1 0 0", "reply 4 v119", "push b of 1 pace None [(2, 1)]"]);
    let batch = rig.batch().expect("a batch");
    assert_eq!(batch.len(), 6, "{batch:?}");
    assert_eq!(rig.commit(), ["reply 5 v127", "6 done", "push a x-1[1]", "push b x-1[2]"]);
    assert_eq!(rig.batch(), None);
}

#[test]
fn an_answer_that_depends_on_what_is_in_flight_waits_for_it() {
    let mut rig = Rig::new();
    rig.row("a", 1, 1, teacher(1));
    let ready = rig.table("b", vec![(2, 1, student(2, true))], None);
    rig.put(ready);
    rig.batch();
    let again = rig.table("b", vec![(2, 2, student(2, true))], None);
    assert_eq!(rig.put(again), none());
    let said = rig.commit();
    assert!(said.contains(&"reply 4 v119".to_owned()) && said.contains(&"reply 5 v119".to_owned()), "{said:?}");
}

#[test]
fn the_last_state_of_a_record_wins_and_what_never_was_is_not_purged() {
    let mut rig = Rig::new();
    rig.row("a", 1, 1, teacher(1));
    let leave = rig.table("a", vec![(1, 2, left(false))], None);
    rig.put(leave);
    rig.batch();
    let hop = rig.table("b", vec![(2, 1, student(2, true)), (2, 2, left(false)), (3, 1, student(3, true))], None);
    rig.put(hop);
    rig.commit();
    assert_eq!(rig.batch().expect("a batch"), ["student.3 Waiting #2 -", "queue.000000000002 3"]);
    rig.commit();
    let hop = rig.table("b", vec![(4, 1, student(4, true)), (4, 2, left(false))], None);
    rig.put(hop);
    assert_eq!(rig.batch(), None);
}

#[test]
fn a_batch_never_grows_above_its_limit_and_takes_whole_decisions() {
    let mut rig = Rig::new();
    for id in 0..20 {
        rig.row("a", id, 1, set(id, Some(50), None, None));
    }
    for id in 0..1_000 {
        rig.waits("b", id, 10_000 + id);
    }
    for id in 0..20 {
        (0..50).for_each(|_| drop(rig.claim("a", id)));
    }
    assert_eq!(rig.counts(), [20, 0, 1_000, 0]);
    rig.put(Input::GatewayGone(name("a")));
    rig.at += Duration::from_secs(10);
    rig.put(Input::Tick);
    let mut batches = 0;
    while let Some(batch) = rig.batch() {
        batches += 1;
        assert!(batch.len() <= BATCH_RECORDS_MAX);
        let count = |kind: &str| batch.iter().filter(|line| line.starts_with(kind)).count();
        assert_eq!(
            (count("queue."), count("chat."), count("student.")),
            (count("teacher.") * 50, count("teacher.") * 50, count("teacher.") * 50)
        );
        rig.commit();
    }
    assert_eq!(batches, 4);
    assert_eq!(rig.counts(), [0, 1_000, 0, 0]);
    assert_eq!(rig.queue()[..2], ["10000", "10001"]);
}

#[test]
fn a_full_inbox_refuses_requests() {
    let mut rig = Rig::new();
    rig.put(Input::Tick);
    let rows = |from: u64| (from..from + 500).map(|chan| (chan, 1, student(chan, true))).collect::<Vec<_>>();
    let first = rig.table("a", rows(0), None);
    rig.put(first);
    rig.batch().expect("in flight");
    let mut from = 500;
    while rig.core.inbox_len() < MATCHER_INBOX_MAX {
        let next = rig.table("a", rows(from), None);
        assert_eq!(rig.put(next), none());
        from += 500;
    }
    let table = rig.table("a", rows(from), None);
    assert_eq!(rig.put(table), [format!("forget {}", rig.token)], "no answer: none of it holds");
    let claim = rig.claim_input("a", 1);
    assert_eq!(rig.put(claim), [format!("done {} unavailable", rig.token)]);
    assert_eq!(rig.core.counters().full, 2);
}

#[test]
fn nothing_is_left_when_everybody_has_gone() {
    let mut rig = Rig::chatting();
    rig.row("a", 10, 1, member("x-1", Role::Teacher, true));
    rig.row("b", 20, 1, member("x-1", Role::Student, true));
    rig.logged("x-1", ChatEvent::Ready);
    rig.terminate("x-1");
    rig.logged("x-1", ChatEvent::Terminated);
    for gateway in ["a", "b"] {
        rig.run(Input::GatewayGone(name(gateway)));
    }
    rig.wait_ms(60_000);
    rig.logged("x-1", ChatEvent::Tombstone);
    assert!(rig.core.is_empty());
}
