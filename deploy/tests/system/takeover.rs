//! The matcher is killed: who asks waits for the next leader, nothing is lost and nothing doubled.

use serde_json::{Value, json};
use switchboard::client::Vsn;
use switchboard_contract::testing::eventually;

use crate::harness::{A_WHILE, SOON, System, Teacher, chat};

/// Claims that gateway 1 has asked the matcher for.
async fn claims(system: &System) -> u64 {
    let metrics = system.gateway_metrics(1).await;
    let count = metrics.lines().find_map(|line| line.strip_prefix("switchboard_gateway_claims_total ")?.parse().ok());
    count.unwrap_or(0)
}

/// One claim; its reply.
async fn claim(teacher: &mut Teacher) -> switchboard::client::Reply {
    let payload = json!({"teacherId": teacher.id});
    teacher.client.push("presence:teachers", "claim:student", payload).await.expect("a reply")
}

fn user(id: &str, role: &str) -> Value {
    json!({"userId": id, "role": role})
}

#[tokio::test]
async fn between_two_leaders_who_asks_waits() {
    let Some(mut system) = System::start().await else { return };
    let (mut teacher, mut student, topic) = chat(&system, "t", "s").await;
    let mut claimer = system.teacher("claimer").await;
    let mut waiting = system.student("waiting").await;
    let mut ready = system.student_joined("ready").await;
    let mut joining = system.client(0, Vsn::V2).await;
    let mut teaching = system.client(1, Vsn::V2).await;
    let before = claims(&system).await;
    system.kill_matchers_and_lease().await;
    let leader = async {
        eventually("the claim is on its way", async || claims(&system).await > before).await;
        system.matchers[0].start_again();
    };
    let named = json!({"userId": "ready"});
    let (claimed, terminated, is_ready, joined, teaches, ()) = tokio::join!(
        claim(&mut claimer),
        student.client.push(&topic, "chat:terminate", json!({})),
        ready.client.push(&ready.topic, "student:ready", named),
        joining.join("presence:student:new", user("new", "student")),
        teaching.join("presence:teachers", user("new", "teacher")),
        leader
    );
    assert!(claimed.ok, "{claimed:?}");
    for reply in [terminated, is_ready, joined, teaches] {
        let reply = reply.expect("a reply");
        assert!(reply.ok, "{reply:?}");
    }
    teacher.client.expect_on(&topic, "chat:terminated", SOON).await.expect("the end");
    let new = waiting.new_chat().await;
    assert_eq!(new["teacher_id"], "claimer");
    let told = claimer.client.expect("new:chat:claimer", SOON).await.expect("a chat");
    assert_eq!(told.payload["id"], new["id"]);
    claimer.client.expect_none("new:chat:claimer", A_WHILE).await.expect("one student for one claim");
    ready.client.expect("queue:position", SOON).await.expect("a place in the queue");
}

#[tokio::test]
async fn without_a_leader_it_is_unavailable_and_what_was_said_counts_later() {
    let Some(mut system) = System::start().await else { return };
    let mut teacher = system.teacher("t").await;
    let mut student = system.student_joined("s").await;
    let mut joining = system.client(0, Vsn::V2).await;
    system.kill_matchers_and_lease().await;
    let named = json!({"userId": "s"});
    let (claimed, ready, joined) = tokio::join!(
        claim(&mut teacher),
        student.client.push(&student.topic, "student:ready", named),
        joining.join("presence:student:new", user("new", "student")),
    );
    for reply in [claimed, ready.expect("a reply"), joined.expect("a reply")] {
        assert_eq!(reply.reason(), Some("unavailable"), "{reply:?}");
    }
    system.matchers[0].start_again();
    student.client.expect("queue:position", SOON).await.expect("a place in the queue");
    teacher.client.expect_none("new:chat:t", A_WHILE).await.expect("a claim that was refused is not done later");
    let chat = teacher.claim().await;
    assert_eq!(student.new_chat().await["id"], chat["id"]);
}
