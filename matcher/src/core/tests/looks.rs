//! What somebody sees who looks at the lobby.

use switchboard_contract::limits::{OPERATOR_CHATS_MAX, OPERATOR_QUEUE_MAX};

use super::*;

fn look(rig: &mut Rig) -> Input {
    rig.token += 1;
    Input::Look(rig.token)
}

#[test]
fn who_looks_sees_what_is_committed_and_not_before() {
    let mut rig = Rig::new();
    rig.row("a", 1, 1, teacher(1));
    let seen = look(&mut rig);
    assert_eq!(rig.put(seen), ["[4] see [] []"], "there is nothing to wait for");
    let ready = rig.table("b", vec![(2, 1, student(2, true)), (3, 1, student(3, true))], None);
    rig.put(ready);
    rig.batch();
    let claim = rig.claim_input("a", 1);
    let looks = [look(&mut rig), claim, look(&mut rig)];
    looks.into_iter().for_each(|input| assert_eq!(rig.put(input), none()));
    assert_eq!(rig.core.waiting_since(), None);
    let said = rig.commit();
    assert!(!said.iter().any(|line| line.contains("see")), "it holds nothing of what the next one has: {said:?}");
    assert_eq!(rig.core.waiting_since(), Some("1970-01-01T00:01:40.500Z"));
    rig.batch();
    let said = rig.commit();
    assert!(said.contains(&"[7, 8] see [\"3\"] [\"x-1\"]".to_owned()), "{said:?}");
}

#[test]
fn of_a_crowd_the_front_of_the_queue_is_seen_and_the_newest_chats() {
    let mut rig = Rig::new();
    rig.row("a", 1, 1, set(1, Some(50), None, None));
    for id in 0..OPERATOR_QUEUE_MAX as u64 + 60 {
        rig.waits("b", id, 1_000 + id);
    }
    for _ in 0..50 {
        rig.wait_ms(10);
        rig.claim("a", 1);
    }
    rig.terminate("x-50");
    let seen = look(&mut rig);
    let token = rig.token;
    let effects = rig.core.handle(rig.now(), seen);
    let [Effect::Looked(tokens, view)] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(*tokens, [token]);
    let status = view.status;
    assert_eq!([status.waiting, status.chatting, status.finished], [OPERATOR_QUEUE_MAX as u64 + 10, 49, 1]);
    let queue: Vec<String> = view.queue.iter().map(|waiting| waiting.student.to_string()).collect();
    let front: Vec<String> = (1_050..1_050 + OPERATOR_QUEUE_MAX as u64).map(|id| id.to_string()).collect();
    assert_eq!(queue, front);
    assert_eq!(rig.core.waiting_since(), Some(&*view.queue[0].since));
    let chats: Vec<&str> = view.chats.iter().map(|talk| talk.id.as_str()).collect();
    let newest: Vec<String> = (1..50).rev().take(OPERATOR_CHATS_MAX).map(|n| format!("x-{n}")).collect();
    assert_eq!(chats, newest, "without the one that is over");
    assert_eq!((view.chats[0].teacher.as_str(), view.chats[0].student.as_str()), ("1", "1048"));

    // Their teacher goes: they are at the front again, in their order, and wait since then.
    rig.row("a", 1, 2, left(false));
    let seen = look(&mut rig);
    let effects = rig.core.handle(rig.now(), seen);
    let [Effect::Looked(_, view)] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!((view.queue[0].student.as_str(), view.queue[1].student.as_str(), view.chats.len()), ("1000", "1001", 0));
    assert!(view.queue[0].since > view.queue[60].since);
}
