//! What users notice when processes die: a pause, and no more.

use std::time::Duration;

use serde_json::{Value, json};
use switchboard::client::{Message, Vsn};

use crate::harness::{A_WHILE, SOON, Shape, Student, System, Teacher, enter};
use crate::side::{Side, agree, sides, talk};

/// Students with these numbers, who wait on gateway 0 in this order.
async fn queue(system: &System, numbers: std::ops::Range<u64>) -> Vec<Student> {
    let mut students = Vec::new();
    for n in numbers {
        students.push(system.student(n).await);
    }
    students
}

/// The teacher gets these students, in this order.
async fn served(teacher: &mut Teacher, students: impl IntoIterator<Item = u64>) {
    for n in students {
        assert_eq!(teacher.claim_in_trouble().await["student_id"], n);
    }
}

/// None of them has been shown another position than that in this list, and all sockets are open.
async fn in_place(students: &mut [Student]) {
    for (at, student) in (1_u64..).zip(students) {
        student.client.expect_none("phx_close", Duration::ZERO).await.expect("an open socket");
        let positions: Vec<&Value> = positions(student.client.unread()).collect();
        assert!(positions.iter().all(|position| **position == at), "{}: {positions:?}", student.id);
    }
}

fn positions<'a>(messages: impl IntoIterator<Item = &'a Message>) -> impl Iterator<Item = &'a Value> {
    messages.into_iter().filter(|m| m.event == "queue:position").map(|m| &m.payload["position"])
}

#[tokio::test]
async fn a_student_that_reloads_again_and_again_keeps_its_place() {
    let Some(system) = System::start().await else { return };
    let mut students = queue(&system, 0..5).await;
    for n in 0..20 {
        let old = students.remove(2).client;
        assert!(positions(old.unread()).all(|position| *position == 3));
        let fresh = system.student_on(n % 2, 2);
        // A page closes its socket before the new one opens, or late, or just breaks.
        let fresh = if n % 3 == 0 {
            old.close().await.expect("a close");
            fresh.await
        } else {
            let fresh = fresh.await;
            if n % 3 == 1 {
                old.close().await.expect("a close");
            }
            fresh
        };
        students.insert(2, fresh);
    }
    students.push(system.student(5).await);
    for (at, student) in (1..).zip(&mut students) {
        loop {
            let told = student.client.expect("queue:position", SOON).await.expect("a position").payload;
            assert_eq!(told["position"], at, "{}", student.id);
            if told["of"] == 6 {
                break;
            }
        }
    }
    served(&mut system.teacher("t").await, 0..6).await;
}

#[tokio::test]
async fn a_teacher_whose_gateway_dies_comes_back_on_another_and_its_student_sees_a_pause() {
    let Some(mut system) = System::start().await else { return };
    let (mut teacher, mut student) = sides(&system).await;
    let (broken, ()) = tokio::join!(teacher.talk(10_000), async {
        student.talk(15).await.expect("its socket is open");
        system.kill_gateway(1);
    });
    broken.expect_err("the teacher's socket breaks");
    student.talk(3).await.expect("nothing has happened to it");
    teacher.come_back(&system.gateway(0)).await;
    talk(&mut teacher, &mut student, 10).await;
    agree(&mut teacher, &mut student).await;
    // Longer than it takes to judge the old gateway dead: the chat goes on.
    student.client.expect_none("chat:requeued", Duration::from_secs(7)).await.expect("its teacher is there");
    talk(&mut teacher, &mut student, 1).await;
    agree(&mut teacher, &mut student).await;
}

#[tokio::test]
async fn the_students_of_a_teacher_that_never_returns_are_at_the_front_in_their_old_order() {
    let Some(mut system) = System::of(Shape::matcher(&["--grace-ms", "500"])).await else { return };
    let mut teacher = system.teacher("gone").await;
    let mut students = queue(&system, 0..5).await;
    let mut topics = Vec::new();
    for student in &mut students {
        teacher.claim().await;
        let chat = student.new_chat().await;
        topics.push(student.join(&chat).await);
    }
    // Neither the order of entering nor that of the ends is what counts.
    for (student, topic) in students.iter_mut().zip(&topics).rev() {
        enter(&mut student.client, topic, "student").await;
    }
    let behind = queue(&system, 5..7).await;
    system.kill_gateway(1);
    for (student, topic) in students.iter_mut().zip(&topics) {
        student.client.expect_on(topic, "chat:requeued", SOON).await.expect("its teacher is gone");
    }
    let last = queue(&system, 7..8).await;
    served(&mut system.teacher_on(0, "next").await, 0..8).await;
    for mut student in students.into_iter().chain(behind).chain(last) {
        assert_eq!(student.new_chat().await["teacher_id"], "next");
    }
}

#[tokio::test]
async fn a_leading_matcher_that_dies_costs_nobody_a_place_or_a_chat() {
    let Some(mut system) = System::of(Shape { matchers: 2, ..Shape::default() }).await else { return };
    let (mut teacher, mut student) = sides(&system).await;
    let mut waiting = queue(&system, 0..4).await;
    let mut other = system.teacher("other").await;
    for round in 0..2 {
        let ((), killed) = tokio::join!(talk(&mut teacher, &mut student, 20), system.kill_leader());
        served(&mut other, [2 * round, 2 * round + 1]).await;
        agree(&mut teacher, &mut student).await;
        assert_ne!(system.leader().await, killed);
        system.start_matcher(killed).await;
    }
    for student in &mut waiting {
        student.new_chat().await;
    }
    over(&mut teacher, &mut student).await;
}

/// The chat can be ended: it is known.
async fn over(teacher: &mut Side, student: &mut Side) {
    assert!(teacher.client.push(&teacher.chat, "chat:terminate", json!({})).await.expect("a reply").ok);
    student.client.expect_on(&student.chat, "chat:terminated", SOON).await.expect("the end");
}

#[tokio::test]
async fn while_both_matchers_are_away_claims_are_answered_and_then_all_goes_on() {
    let Some(mut system) = System::of(Shape { matchers: 2, ..Shape::default() }).await else { return };
    let mut waiting = queue(&system, 0..2).await;
    let mut teacher = system.teacher("t").await;
    system.kill_matchers();
    for _ in 0..2 {
        let mut claims = Vec::new();
        for _ in 0..5 {
            let claim = json!({"teacherId": "t"});
            claims.push(teacher.client.send("presence:teachers", "claim:student", claim).await.expect("sent"));
        }
        // While one is on its way, the others are `ok` at once.
        let mut unavailable = 0;
        for claim in claims {
            let reply = teacher.client.reply(claim).await.expect("each is answered");
            assert!(reply.ok || reply.reason() == Some("unavailable"), "{reply:?}");
            unavailable += usize::from(!reply.ok);
        }
        assert!(unavailable > 0, "somebody waits, and nobody could be asked");
    }
    let mut late = system.client(0, Vsn::V2).await;
    let reply = late.join("presence:student:2", json!({"userId": 2, "role": "student"})).await.expect("a reply");
    assert_eq!(reply.reason(), Some("unavailable"));
    system.start_matcher(1).await;
    served(&mut teacher, 0..2).await;
    waiting.push(system.student(2).await);
    served(&mut teacher, 2..3).await;
    for student in &mut waiting {
        student.new_chat().await;
    }
}

#[tokio::test]
async fn nats_killed_and_restarted_closes_no_socket_and_the_queue_keeps_its_order() {
    let Some(mut system) = System::start().await else { return };
    let (mut teacher, mut student) = sides(&system).await;
    let mut other = system.teacher("other").await;
    let mut waiting = queue(&system, 0..4).await;
    talk(&mut teacher, &mut student, 5).await;
    system.nats.kill();
    let claim = other.client.push("presence:teachers", "claim:student", json!({"teacherId": "other"}));
    let ready = waiting[0].client.push("presence:student:0", "student:ready", json!({"userId": 0}));
    let (said, claim, ready) = tokio::join!(teacher.send(), claim, ready);
    assert_eq!(said.expect("a reply").reason(), Some("unavailable"));
    for reply in [claim, ready] {
        let reply = reply.expect("a reply");
        assert!(reply.ok || reply.reason() == Some("unavailable"), "{reply:?}");
    }
    // What was answered with `unavailable` is said again; the rest waits for NATS, or is said again too.
    tokio::join!(talk(&mut teacher, &mut student, 20), system.nats.restart());
    agree(&mut teacher, &mut student).await;
    in_place(&mut waiting).await;
    served(&mut other, 0..4).await;
    for student in &mut waiting {
        student.new_chat().await;
    }
    other.client.expect_none("phx_close", A_WHILE).await.expect("an open socket");
    over(&mut teacher, &mut student).await;
}

#[tokio::test]
async fn after_everything_was_killed_everybody_comes_back_to_place_and_chat() {
    let Some(mut system) = System::of(Shape { matchers: 2, ..Shape::default() }).await else { return };
    let (mut teacher, mut student) = sides(&system).await;
    let waiting = queue(&system, 0..4).await;
    let (broken, ()) = tokio::join!(teacher.talk(10_000), async {
        student.talk(15).await.expect("its socket is open");
        system.kill_everything();
    });
    broken.expect_err("sockets break");
    drop(waiting);
    system.start_everything().await;
    teacher.come_back(&system.gateway(0)).await;
    student.come_back(&system.gateway(1)).await;
    // Who is back first is not who waited longest.
    let mut waiting = Vec::new();
    for n in (0..4).rev() {
        waiting.push(system.student_on(n % 2, n).await);
    }
    talk(&mut teacher, &mut student, 10).await;
    agree(&mut teacher, &mut student).await;
    served(&mut system.teacher("other").await, 0..4).await;
    for student in &mut waiting {
        student.new_chat().await;
    }
    over(&mut teacher, &mut student).await;
}

#[tokio::test]
async fn who_had_left_before_everything_was_killed_does_not_come_back() {
    let flags = ["--chat-linger-ms", "400"];
    let Some(mut system) = System::of(Shape::matcher(&flags)).await else { return };
    let (mut teacher, mut student) = sides(&system).await;
    over(&mut teacher, &mut student).await;
    teacher.client.leave("presence:teachers").await.expect("a reply");
    for side in [teacher, student] {
        side.client.close().await.expect("a close");
    }
    for mut student in queue(&system, 0..10).await {
        assert!(student.client.leave(&student.topic.clone()).await.expect("a reply").ok);
    }
    system.no_marker_is_left().await;
    system.kill_everything();
    system.start_everything().await;
    let mut teacher = system.teacher("t").await;
    let _student = system.student(99).await;
    assert_eq!((&teacher.counts["teachers"]["total"], &teacher.counts["students"]["total"]), (&json!(1), &json!(0)));
    loop {
        let students = teacher.status().await["students"].take();
        assert!(students["total"].as_u64() <= Some(1), "one is here: {students}");
        if students["waiting"] == 1 {
            break;
        }
    }
    served(&mut teacher, 99..100).await;
    teacher.client.expect_none("new:chat:t", A_WHILE).await.expect("nobody else waits");
}
