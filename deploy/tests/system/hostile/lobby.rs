//! Users of the lobby who are killed, or who leave at the wrong moment.

use futures_util::future::join_all;
use serde_json::{Value, json};
use switchboard::client::Vsn;
use switchboard_contract::testing::eventually;

use crate::harness::{A_WHILE, SOON, Student, System, Teacher, meet};
use crate::raw;

const TEACHERS: usize = 3;
/// The chats that a teacher of the tests can have.
const CAPACITY: usize = 10;

/// All chats of three teachers lose their students, by a connection that ends and by one that is reset: after the
/// grace the teachers have room for as many others.
pub(super) async fn students_who_are_killed(system: &System) {
    let before = system.lobby_keys().await;
    let mut teachers = Vec::new();
    let mut killed = Vec::new();
    for t in 0..TEACHERS {
        let mut teacher = system.teacher(format!("busy-{t}")).await;
        for s in 0..CAPACITY {
            let gateway = system.gateway(s % 2);
            let client = match s % 3 {
                0 => raw::client_that_resets(&gateway, Vsn::V2).await,
                _ => raw::client(&gateway, Vsn::V2).await,
            };
            let mut student = Student::on(client, json!(format!("killed-{t}-{s}"))).await;
            student.ready().await;
            meet(&mut teacher, &mut student).await;
            killed.push(student);
        }
        teachers.push(teacher);
    }
    let mut next = Vec::new();
    for n in 0..TEACHERS * CAPACITY {
        next.push(system.student(format!("next-{n}")).await);
    }
    // They are full: a claim gives nobody.
    for teacher in &mut teachers {
        let payload = json!({"teacherId": teacher.id});
        assert!(teacher.client.push("presence:teachers", "claim:student", payload).await.expect("a reply").ok);
        let event = format!("new:chat:{}", teacher.id.as_str().expect("a text"));
        teacher.client.expect_none(&event, A_WHILE).await.expect("a full teacher gets nobody");
    }
    drop(killed);
    let served = join_all(teachers.iter_mut().map(async |teacher| {
        let mut served = Vec::new();
        for _ in 0..CAPACITY {
            served.push(teacher.claim().await["student_id"].as_str().expect("an id").to_owned());
        }
        served
    }))
    .await;
    let mut served: Vec<String> = served.into_iter().flatten().collect();
    served.sort_unstable();
    let mut expected: Vec<String> = (0..TEACHERS * CAPACITY).map(|n| format!("next-{n}")).collect();
    expected.sort_unstable();
    assert_eq!(served, expected);
    for teacher in &mut teachers {
        teacher.client.expect("chat:terminated", SOON).await.expect("the chat with one that was killed has ended");
    }
    // One after the other they go, and nothing of all that stays.
    for student in &mut next {
        student.new_chat().await;
        assert!(student.client.leave(&student.topic).await.expect("a reply").ok);
    }
    drop((teachers, next));
    eventually("nothing of them is left", async || system.lobby_keys().await.is_subset(&before)).await;
}

/// Its students are at the front again, in their order, before those who waited already.
pub(super) async fn a_teacher_who_is_killed(system: &System) {
    let before = system.lobby_keys().await;
    let client = raw::client_that_resets(&system.gateway(1), Vsn::V2).await;
    let mut killed = Teacher::on(client, json!("killed")).await;
    let mut chatting = Vec::new();
    let mut chats = Vec::new();
    for n in 0..5 {
        let mut student = system.student(format!("again-{n}")).await;
        chats.push(meet(&mut killed, &mut student).await);
        chatting.push(student);
    }
    let mut waiting = Vec::new();
    for n in 0..2 {
        waiting.push(system.student(format!("behind-{n}")).await);
    }
    let mut other = system.teacher("takes-over").await;
    drop(killed);
    for (student, chat) in chatting.iter_mut().zip(&chats) {
        student.client.expect_on(chat, "chat:requeued", SOON).await.expect("its teacher is gone");
    }
    let mut order: Vec<Value> = Vec::new();
    for _ in 0..7 {
        order.push(other.claim().await["student_id"].take());
    }
    let expected = ["again-0", "again-1", "again-2", "again-3", "again-4", "behind-0", "behind-1"];
    assert_eq!(order, expected);
    for student in chatting.iter_mut().chain(&mut waiting) {
        assert_eq!(student.new_chat().await["teacher_id"], "takes-over");
        assert!(student.client.leave(&student.topic).await.expect("a reply").ok);
    }
    drop((other, chatting, waiting));
    eventually("nothing of them is left", async || system.lobby_keys().await.is_subset(&before)).await;
}

/// The student leaves the lobby in the middle of its chat, which its teacher ends at the same time, before, and after.
pub(super) async fn a_student_who_leaves_before_the_end(system: &System) {
    let before = system.lobby_keys().await;
    for round in 0..6 {
        let mut teacher = system.teacher(format!("ends-{round}")).await;
        let client = raw::client(&system.gateway(0), Vsn::V2).await;
        let mut student = Student::on(client, json!(format!("leaves-{round}"))).await;
        student.ready().await;
        let chat = meet(&mut teacher, &mut student).await;
        let Student { client, topic, .. } = &mut student;
        let leave = client.leave(topic);
        let end = teacher.client.push(&chat, "chat:terminate", json!({}));
        let (left, ended) = match round % 3 {
            0 => tokio::join!(leave, end),
            1 => (leave.await, end.await),
            _ => {
                let ended = end.await;
                (leave.await, ended)
            }
        };
        assert!(left.expect("a reply").ok && ended.expect("a reply").ok, "round {round}");
        let late = [
            student.client.push(&chat, "student:send", json!({"message": 1})).await,
            teacher.client.push(&chat, "teacher:send", json!({"message": 1})).await,
        ];
        for reply in late {
            assert_eq!(reply.expect("a reply").reason(), Some("chat_finished"), "round {round}");
        }
        let again = teacher.client.push(&chat, "chat:terminate", json!({})).await.expect("a reply");
        assert!(again.ok, "round {round}: {again:?}");
        for client in [&mut student.client, &mut teacher.client] {
            client.expect_on(&chat, "chat:terminated", SOON).await.expect("the end");
        }
    }
    eventually("no ghost is left", async || system.lobby_keys().await.is_subset(&before)).await;
}
