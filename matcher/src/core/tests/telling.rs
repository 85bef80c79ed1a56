//! What is owed to channels and logs, and told again.

use super::*;

#[test]
fn a_new_chat_is_told_to_every_channel_of_both_until_it_is_acknowledged() {
    let mut rig = Rig::new();
    rig.row("a", 1, 1, teacher(1));
    rig.row("b", 3, 1, teacher(1));
    rig.waits("b", 2, 2);
    rig.wait_ms(2_000);
    assert_eq!(rig.claim("a", 1), ["push a x-1[1]", "push b x-1[3] x-1[2]"]);
    rig.told("a", "x-1", &[1]);
    assert_eq!(rig.wait_ms(1_000), ["push b x-1[3] x-1[2]"]);
    rig.told("b", "x-1", &[2]);
    assert_eq!(rig.wait_ms(1_000), ["push b x-1[3]"]);
    rig.row("a", 10, 1, member("x-1", Role::Teacher, true));
    assert_eq!(rig.wait_ms(10_000), none(), "that side has entered");
}

#[test]
fn nobody_is_told_of_a_chat_whose_channel_is_gone_or_which_has_ended() {
    let mut rig = Rig::new();
    rig.row("a", 1, 1, teacher(1));
    rig.waits("b", 2, 2);
    rig.claim("a", 1);
    rig.row("b", 2, 2, left(true));
    assert_eq!(rig.wait_ms(1_000), ["push a x-1[1]"]);
    rig.terminate("x-1");
    rig.logged("x-1", ChatEvent::Terminated);
    assert_eq!(rig.wait_ms(5_000), none());
}

#[test]
fn a_channel_that_comes_later_is_told_of_the_chats_there_are_held_back() {
    let mut rig = Rig::chatting();
    rig.waits("b", 3, 3);
    rig.claim("a", 1);
    rig.told("a", "x-2", &[1]);
    rig.told("b", "x-2", &[3]);
    assert_eq!(rig.row("b", 9, 1, student(2, false)), ["push b x-1[9] hold"]);
    assert_eq!(rig.row("b", 8, 1, teacher(1)), ["push b x-1[8] hold x-2[8] hold"]);
    rig.told("b", "x-1", &[8, 9]);
    rig.told("b", "x-2", &[8]);
    assert_eq!(rig.wait_ms(5_000), none());
}

#[test]
fn a_new_channel_is_told_also_where_that_side_has_entered() {
    let mut rig = Rig::chatting();
    rig.row("b", 20, 1, member("x-1", Role::Student, true));
    assert_eq!(rig.row("b", 9, 1, student(2, false)), ["push b x-1[9] hold"]);
}

#[test]
fn what_the_log_has_is_cleared_from_the_record_in_time() {
    let mut rig = Rig::chatting();
    rig.row("a", 10, 1, member("x-1", Role::Teacher, true));
    rig.row("b", 20, 1, member("x-1", Role::Student, true));
    rig.put(Input::Logged(chat_id("x-1"), ChatEvent::Ready));
    assert_eq!(rig.batch(), None, "not a batch of its own");
    rig.at += Duration::from_secs(10);
    rig.put(Input::Tick);
    assert_eq!(rig.batch().expect("a batch"), ["chat.x-1 Active true true None []"]);
    rig.commit();
    assert_eq!(rig.wait_ms(100_000), none());
}

#[test]
fn positions_are_told_at_most_once_a_second_and_only_what_changed() {
    let mut rig = Rig::new();
    rig.row("a", 1, 1, teacher(1));
    let ready = rig.table("b", vec![(2, 1, student(2, true))], None);
    assert_eq!(rig.quiet(ready), ["push b of 1 pace None [(2, 1)]"], "at once");
    assert_eq!(rig.row("b", 3, 1, student(3, true)), none());
    assert_eq!(rig.row("a", 4, 1, student(4, true)), none());
    assert_eq!(rig.wait_ms(999), none());
    assert_eq!(rig.wait_ms(1), ["push a of 3 pace None [(4, 3)]", "push b of 3 pace None [(2, 1), (3, 2)]"]);
    assert_eq!(rig.wait_ms(10_000), none());
    rig.row("b", 9, 1, student(3, false));
    assert_eq!(rig.wait_ms(1_000), none(), "it was told at once");
    rig.claim("a", 1);
    rig.told("a", "x-1", &[1]);
    rig.told("b", "x-1", &[2]);
    rig.wait_ms(3_000);
    rig.claim("a", 1);
    rig.told("a", "x-2", &[1]);
    rig.told("b", "x-2", &[3, 9]);
    assert_eq!(rig.core.positions(Duration::ZERO), []);
    rig.row("b", 5, 1, student(5, true));
    let said = rig.wait_ms(1_000);
    assert_eq!(said, ["push a of 2 pace Some(3000) [(4, 1)]", "push b of 2 pace Some(3000) [(5, 2)]"]);
}

#[test]
fn only_students_raise_the_version_and_teachers_are_published_all_the_same() {
    let mut rig = Rig::new();
    let join = rig.table("a", vec![(1, 1, teacher(1))], None);
    assert_eq!(rig.run(join), ["status v0 1 0 0 0", "reply 3 v0"]);
    rig.wait_ms(5_000);
    rig.waits("b", 2, 2);
    assert_eq!(rig.core.status().version, 119);
    rig.wait_ms(2_000);
    rig.row("a", 1, 2, set(1, Some(2), None, None));
    rig.claim("a", 1);
    assert_eq!(rig.core.status().version, 138);
    rig.row("a", 10, 1, member("x-1", Role::Teacher, true));
    rig.row("a", 3, 1, teacher(3));
    assert_eq!((rig.core.status().version, rig.counts()), (138, [2, 0, 1, 0]));
    rig.row("a", 1, 3, left(false));
    assert_eq!((rig.core.status().version, rig.counts()), (168, [1, 1, 0, 0]));
}

#[test]
fn the_status_is_coalesced_repeated_and_the_last_one_arrives() {
    let mut rig = Rig::new();
    rig.wait_ms(60);
    let ready = rig.table("b", vec![(2, 1, student(2, true)), (3, 1, student(3, true))], None);
    assert_eq!(rig.run(ready)[0], "status v108 0 2 0 0");
    let leave = rig.table("b", vec![(2, 2, left(false))], None);
    assert_eq!(rig.run(leave), ["reply 4 v119"]);
    let leave = rig.table("b", vec![(3, 2, left(false))], None);
    assert_eq!(rig.run(leave), ["reply 5 v129"]);
    let due = rig.core.next_deadline();
    assert_eq!(due, rig.at + Duration::from_millis(50));
    rig.at = due;
    assert_eq!(rig.run(Input::Tick), ["status v129 0 0 0 0"]);
    rig.at += Duration::from_millis(999);
    assert_eq!(rig.run(Input::Tick), none());
    rig.at += Duration::from_millis(1);
    assert_eq!(rig.run(Input::Tick), ["status v129 0 0 0 0"]);
}
