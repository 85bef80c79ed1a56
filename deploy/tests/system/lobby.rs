//! Lobby and chats, with the traps that real clients set.

use std::time::Duration;

use serde_json::json;
use switchboard::client::Vsn;

use crate::harness::{A_WHILE, SOON, Shape, System, chat, enter, meet, ready, say};

/// A lobby whose deadlines are short enough to be waited for.
const SHORT: [&str; 4] = ["--grace-ms", "400", "--chat-linger-ms", "400"];

#[tokio::test]
async fn a_student_meets_a_teacher_and_both_part() {
    let Some(system) = System::of(Shape::matcher(&SHORT)).await else { return };
    let mut teacher = system.teacher(7).await;
    assert_eq!(
        teacher.counts,
        json!({"teachers": {"total": 1}, "students": {"total": 0, "waiting": 0, "chatting": 0, "finished": 0}})
    );
    let mut student = system.student("s").await;
    teacher.status_is(1, 0, 0).await;
    let position = student.client.expect("queue:position", SOON).await.expect("a position").payload;
    assert_eq!((&position["position"], &position["of"]), (&json!(1), &json!(1)));

    let new_chat = teacher.claim().await;
    let expected = json!({
        "id": new_chat["id"], "status": "active", "teacher_id": 7, "student_id": "s",
        "teacher_entered": false, "student_entered": false, "messages": [],
    });
    assert_eq!(new_chat, expected);
    assert_eq!(student.new_chat().await, expected);
    teacher.status_is(0, 1, 0).await;

    let topic = teacher.join(&new_chat).await;
    enter(&mut teacher.client, &topic, "teacher").await;
    let payload = json!({"userId": "s", "role": "student"});
    let joined = student.client.join(&topic, payload).await.expect("a reply").response;
    assert_eq!(joined["chat"]["teacher_entered"], true);
    assert_eq!(joined["recovered"], true);
    student.client.expect_none("chat:ready", A_WHILE).await.expect("only once both have entered");
    enter(&mut student.client, &topic, "student").await;
    ready(&mut teacher.client, &topic).await;
    ready(&mut student.client, &topic).await;

    let first = say(&mut teacher.client, &mut student.client, &topic, "teacher", "hello").await;
    let second = say(&mut student.client, &mut teacher.client, &topic, "student", "hi").await;
    assert!(second > first);
    let history = student.client.push(&topic, "history", json!({})).await.expect("a reply").response;
    assert_eq!(history["complete"], true);
    assert_eq!(history["messages"][0]["event"], "teacher:send");
    assert_eq!(history["messages"][0]["from"], json!({"role": "teacher", "user_id": 7}));
    assert_eq!(history["messages"][1]["payload"], json!({"message": "hi"}));
    assert_eq!(history["messages"][1]["seq"], second);

    assert!(teacher.client.push(&topic, "chat:terminate", json!({})).await.expect("a reply").ok);
    teacher.client.expect_on(&topic, "chat:terminated", SOON).await.expect("the end");
    student.client.expect_on(&topic, "chat:terminated", SOON).await.expect("the end");
    assert!(student.client.push(&topic, "chat:terminate", json!({})).await.expect("a reply").ok, "a second time");
    let late = student.client.push(&topic, "student:send", json!({"message": "late"})).await.expect("a reply");
    assert_eq!(late.reason(), Some("chat_finished"));
    teacher.status_is(0, 0, 1).await;
    assert_eq!(system.counts(0).await, json!({"teachers": 1, "students": 1, "chats": 0}));

    student.client.leave(&topic).await.expect("a reply");
    student.client.leave(&student.topic.clone()).await.expect("a reply");
    teacher.status_is(0, 0, 0).await;
    teacher.client.leave(&topic).await.expect("a reply");
    teacher.client.leave("presence:teachers").await.expect("a reply");
    system.nothing_is_left().await;
    let reply = student.client.join(&topic, json!({"userId": "s", "role": "student"})).await.expect("a reply");
    assert_eq!(reply.reason(), Some("not_found"));
}

#[tokio::test]
async fn no_status_because_of_a_teacher_nor_before_the_first_student() {
    let Some(system) = System::start().await else { return };
    let mut first = system.teacher("t1").await;
    let second = system.teacher("t2").await;
    assert_eq!(second.counts["teachers"]["total"], 2);
    first.client.push("presence:teachers", "teacher:update", json!({"away": true})).await.expect("a reply");
    let mut student = system.student_joined("s").await;
    first.client.expect_none("user:status", A_WHILE).await.expect("no student was ready");
    student.ready().await;
    first.status_is(1, 0, 0).await;
    drop(second);
    first.client.expect_none("user:status", A_WHILE).await.expect("a teacher's loss is no change of students");
}

#[tokio::test]
async fn the_last_status_arrives_once_and_a_finished_student_is_off_at_once_when_its_socket_closes() {
    let Some(system) = System::start().await else { return };
    let (mut teacher, mut student, topic) = chat(&system, "t", "s").await;
    assert!(student.client.push(&topic, "chat:terminate", json!({})).await.expect("a reply").ok);
    teacher.status_is(0, 0, 1).await;
    // The grace time is ten seconds: it does not apply.
    let closed = std::time::Instant::now();
    student.client.close().await.expect("a close");
    teacher.status_is(0, 0, 0).await;
    eprintln!("the last status came after {} ms", closed.elapsed().as_millis());
    let late = teacher.client.expect("user:status", Duration::from_millis(1_500)).await;
    assert!(late.is_err(), "a version comes once, also when it is repeated: {late:?}");
}

#[tokio::test]
async fn a_student_that_is_lost_and_then_finished_is_off_at_once() {
    let Some(system) = System::of(Shape::matcher(&["--grace-ms", "600000"])).await else { return };
    let (mut teacher, student, topic) = chat(&system, "t", "s").await;
    student.client.close().await.expect("a close");
    teacher.client.expect_none("chat:terminated", A_WHILE).await.expect("its place is kept");
    assert!(teacher.client.push(&topic, "chat:terminate", json!({})).await.expect("a reply").ok);
    teacher.status_is(0, 0, 0).await;
}

#[tokio::test]
async fn one_new_chat_per_channel_and_one_chat_ready_per_join() {
    let Some(system) = System::start().await else { return };
    let mut teacher = system.teacher("t").await;
    let mut student = system.student("s").await;
    let chat = teacher.claim().await;
    student.new_chat().await;
    // Nobody enters: the chat is told again each second, and shown once.
    let again = student.client.expect("new:chat", Duration::from_millis(2_500)).await;
    assert!(again.is_err(), "{again:?}");
    let topic = teacher.join(&chat).await;
    student.join(&chat).await;
    for _ in 0..2 {
        enter(&mut teacher.client, &topic, "teacher").await;
        enter(&mut student.client, &topic, "student").await;
    }
    ready(&mut teacher.client, &topic).await;
    ready(&mut student.client, &topic).await;
    teacher.client.expect_none("chat:ready", A_WHILE).await.expect("once");
    student.client.expect_none("chat:ready", A_WHILE).await.expect("once");
}

#[tokio::test]
async fn callbacks_run_again_after_a_rejoin() {
    let Some(system) = System::start().await else { return };
    let (mut teacher, mut student, topic) = chat(&system, "t", "s").await;
    let own = student.topic.clone();
    // phoenix.js on a new socket: it joins all its topics again, and each join's callback runs.
    let rejoin = async |old: &mut crate::harness::Student| {
        let fresh = system.student_joined("s").await;
        let old = std::mem::replace(old, fresh);
        old.client.close().await.expect("a close");
    };
    rejoin(&mut student).await;
    student.client.join(&topic, json!({"userId": "s", "role": "student"})).await.expect("a reply");
    student.ready().await;
    enter(&mut student.client, &topic, "student").await;
    ready(&mut student.client, &topic).await;
    student.client.expect_none("new:chat", Duration::from_millis(800)).await.expect("it has the chat already");
    teacher.client.expect_none("chat:ready", A_WHILE).await.expect("the other side is not told again");

    say(&mut student.client, &mut teacher.client, &topic, "student", "one").await;
    rejoin(&mut student).await;
    student.client.join(&topic, json!({"userId": "s", "role": "student"})).await.expect("a reply");
    enter(&mut student.client, &topic, "student").await;
    student.client.expect_none("chat:ready", A_WHILE).await.expect("something was said since");
    say(&mut teacher.client, &mut student.client, &topic, "teacher", "two").await;

    let counts = teacher.client.unread().iter().rfind(|m| m.event == "user:status").cloned();
    if let Some(status) = counts {
        assert_eq!(status.payload["students"]["chatting"], 1, "student:ready while chatting changes nothing");
    }
    assert!(student.client.leave(&own).await.expect("a reply").ok);
    teacher.client.expect_on(&topic, "chat:terminated", SOON).await.expect("its last channel: the chat is over");
}

#[tokio::test]
async fn a_second_socket_of_a_student_is_shown_its_chat() {
    let Some(system) = System::start().await else { return };
    let (_teacher, mut student, topic) = chat(&system, "t", 5).await;
    let mut second = system.client(1, Vsn::V2).await;
    second.join("presence:student:5", json!({"userId": "5", "role": "student"})).await.expect("a reply");
    let shown = second.expect("new:chat", SOON).await.expect("a chat").payload;
    assert_eq!(topic, format!("chats:{}", shown["id"].as_str().expect("an id")));
    assert_eq!(shown["student_entered"], true);
    // Only one of its two sockets goes: nothing happens to the chat.
    assert!(second.leave("presence:student:5").await.expect("a reply").ok);
    student.client.expect_none("chat:terminated", A_WHILE).await.expect("the other socket is still there");
}

#[tokio::test]
async fn a_socket_whose_join_was_answered_counts_when_another_one_leaves() {
    let Some(system) = System::start().await else { return };
    let (mut teacher, mut student, topic) = chat(&system, "t", "s").await;
    let own = student.topic.clone();
    // From one gateway to the other, with nothing between the answer to the join and the leave.
    for gateway in [1, 0, 1, 0, 1] {
        let mut next = system.client(gateway, Vsn::V2).await;
        next.join(&own, json!({"userId": "s", "role": "student"})).await.expect("a reply");
        assert!(student.client.leave(&own).await.expect("a reply").ok);
        student.client = next;
    }
    teacher.client.expect_none("chat:terminated", A_WHILE).await.expect("it was there all the time");
    assert!(student.client.leave(&own).await.expect("a reply").ok);
    teacher.client.expect_on(&topic, "chat:terminated", SOON).await.expect("its last channel");
}

#[tokio::test]
async fn what_is_sent_after_the_answer_to_a_terminate_is_refused() {
    let Some(system) = System::start().await else { return };
    for n in 0..20 {
        let (mut teacher, mut student, topic) = chat(&system, format!("t{n}"), format!("s{n}")).await;
        assert!(teacher.client.push(&topic, "chat:terminate", json!({})).await.expect("a reply").ok);
        let late = teacher.client.push(&topic, "teacher:send", json!({"message": "late"})).await.expect("a reply");
        assert_eq!(late.reason(), Some("chat_finished"));
        let late = student.client.push(&topic, "student:send", json!({"message": "late"})).await.expect("a reply");
        assert_eq!(late.reason(), Some("chat_finished"), "on the other gateway too");
    }
}

#[tokio::test]
async fn a_teacher_that_is_assigned_in_the_moment_of_its_join_is_told() {
    let Some(system) = System::start().await else { return };
    for n in 0..20 {
        let mut student = system.student(n).await;
        let mut teacher = system.client(1, Vsn::V2).await;
        let payload = json!({"userId": format!("t{n}"), "role": "teacher", "auto": true});
        assert!(teacher.join("presence:teachers", payload).await.expect("a reply").ok);
        let chat = teacher.expect(&format!("new:chat:t{n}"), SOON).await.expect("a chat").payload;
        assert_eq!(student.new_chat().await, chat);
        assert!(teacher.leave("presence:teachers").await.expect("a reply").ok);
        assert!(student.client.leave(&student.topic.clone()).await.expect("a reply").ok);
    }
}

#[tokio::test]
async fn one_claim_right_behind_a_ready_is_enough() {
    let Some(system) = System::start().await else { return };
    let mut teacher = system.teacher("t").await;
    for n in 0..30 {
        let mut student = system.student(n).await;
        let claim = json!({"teacherId": "t"});
        assert!(teacher.client.push("presence:teachers", "claim:student", claim).await.expect("a reply").ok);
        let chat = teacher.client.expect("new:chat:t", SOON).await.expect("a chat").payload;
        assert_eq!(chat["student_id"], n);
        student.new_chat().await;
        assert!(student.client.leave(&student.topic.clone()).await.expect("a reply").ok);
    }
}

#[tokio::test]
async fn capacity_auto_and_away() {
    let Some(system) = System::start().await else { return };
    let mut teacher = system.client(1, Vsn::V2).await;
    let payload = json!({"userId": "t", "role": "teacher", "capacity": 2, "auto": true, "away": true});
    teacher.join("presence:teachers", payload).await.expect("a reply");
    let mut students = Vec::new();
    for n in 0..3 {
        students.push(system.student(n).await);
    }
    teacher.expect_none("new:chat:t", A_WHILE).await.expect("it is away");
    let reply = teacher.push("presence:teachers", "teacher:update", json!({"away": false})).await.expect("a reply");
    assert!(reply.ok, "{reply:?}");
    let mut chats = Vec::new();
    for student in [0, 1] {
        let chat = teacher.expect("new:chat:t", SOON).await.expect("a chat").payload;
        assert_eq!(chat["student_id"], student, "longest wait first");
        chats.push(chat);
    }
    teacher.expect_none("new:chat:t", A_WHILE).await.expect("two are its capacity");
    let claim = teacher.push("presence:teachers", "claim:student", json!({"teacherId": "t"})).await.expect("a reply");
    assert!(claim.ok, "{claim:?}");
    teacher.expect_none("new:chat:t", A_WHILE).await.expect("not by asking either");
    let topic = format!("chats:{}", chats[0]["id"].as_str().expect("an id"));
    teacher.join(&topic, json!({"userId": "t", "role": "teacher"})).await.expect("a reply");
    assert!(teacher.push(&topic, "chat:terminate", json!({})).await.expect("a reply").ok);
    assert_eq!(teacher.expect("new:chat:t", SOON).await.expect("a chat").payload["student_id"], 2);
    let bad = teacher.push("presence:teachers", "teacher:update", json!({"capacity": 0})).await.expect("a reply");
    assert_eq!(bad.reason(), Some("invalid_payload"));
}

#[tokio::test]
async fn the_queue_is_served_in_order_and_a_finished_student_may_queue_again() {
    let Some(system) = System::start().await else { return };
    let mut first = system.student("first").await;
    let mut second = system.student("second").await;
    let mut teacher = system.teacher("t").await;
    first.ready().await;
    assert_eq!(teacher.claim().await["student_id"], "first", "ready again while waiting changes nothing");
    let chat = first.new_chat().await;
    let topic = first.join(&chat).await;
    assert!(first.client.push(&topic, "chat:terminate", json!({})).await.expect("a reply").ok);
    teacher.status_is(1, 0, 1).await;
    first.ready().await;
    assert_eq!(teacher.claim().await["student_id"], "second");
    assert_eq!(teacher.claim().await["student_id"], "first", "a new place at the end");
    second.new_chat().await;
}

#[tokio::test]
async fn a_student_that_leaves_while_chatting_ends_the_chat_and_a_teacher_that_leaves_gives_it_back() {
    let Some(system) = System::start().await else { return };
    let (mut teacher, mut student, topic) = chat(&system, "t", "s").await;
    let mut waiting = system.student("w").await;
    assert!(student.client.leave(&student.topic.clone()).await.expect("a reply").ok);
    teacher.client.expect_on(&topic, "chat:terminated", SOON).await.expect("the end");

    let topic = meet(&mut teacher, &mut waiting).await;
    let mut behind = system.student("b").await;
    assert!(teacher.client.leave("presence:teachers").await.expect("a reply").ok);
    waiting.client.expect_on(&topic, "chat:requeued", SOON).await.expect("the end");
    let mut other = system.teacher("t2").await;
    assert_eq!(other.claim().await["student_id"], "w", "its old ticket: at the front");
    assert_eq!(other.claim().await["student_id"], "b");
    behind.new_chat().await;
}

#[tokio::test]
async fn a_lost_student_keeps_its_place_for_the_grace_time() {
    let Some(system) = System::of(Shape::matcher(&["--grace-ms", "1500"])).await else { return };
    let student = system.student("s").await;
    let mut behind = system.student("b").await;
    student.client.close().await.expect("a close");
    let mut student = system.student("s").await;
    let mut teacher = system.teacher("t").await;
    assert_eq!(teacher.claim().await["student_id"], "s");
    student.new_chat().await;
    behind.client.expect_none("new:chat", A_WHILE).await.expect("it waits");
    behind.client.close().await.expect("a close");
    teacher.status_is(0, 1, 0).await;
}

#[tokio::test]
async fn a_message_that_is_sent_again_is_stored_once() {
    let Some(system) = System::start().await else { return };
    let (mut teacher, mut student, topic) = chat(&system, "t", "s").await;
    let message = json!({"message": "once", "id": "k.1 *", "seq": 4, "extra": {"a": [1.50]}});
    let first = teacher.client.push(&topic, "teacher:send", &message).await.expect("a reply");
    let again = teacher.client.push(&topic, "teacher:send", &message).await.expect("a reply");
    assert!(first.ok && first == again, "{first:?} {again:?}");
    let received = student.client.expect("student:receive", SOON).await.expect("a message").payload;
    let seq = &first.response["seq"];
    assert_eq!(received, json!({"message": "once", "id": "k.1 *", "extra": {"a": [1.50]}, "seq": seq}));
    student.client.expect_none("student:receive", A_WHILE).await.expect("once");
}

#[tokio::test]
async fn a_side_that_comes_back_gets_what_it_missed() {
    let Some(system) = System::start().await else { return };
    let (mut teacher, mut student, topic) = chat(&system, "t", "s").await;
    let last = say(&mut teacher.client, &mut student.client, &topic, "teacher", "seen").await;
    student.client.leave(&topic).await.expect("a reply");
    for text in ["one", "two"] {
        assert!(teacher.client.push(&topic, "teacher:send", json!({"message": text})).await.expect("a reply").ok);
    }
    let mut other = system.client(1, Vsn::V1).await;
    let payload = json!({"userId": "s", "role": "student", "last_seq": last});
    let joined = other.join(&topic, payload).await.expect("a reply").response;
    assert_eq!(joined["chat"]["messages"].as_array().map(Vec::len), Some(3));
    for text in ["one", "two"] {
        let message = other.expect("student:receive", SOON).await.expect("a message");
        assert_eq!(message.payload["message"], text);
    }
    other.expect_none("student:receive", A_WHILE).await.expect("each once");
}
