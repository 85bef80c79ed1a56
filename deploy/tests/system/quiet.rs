//! Quiet mode falls at one place of the room's order, for everybody on every gateway.

use serde_json::{Value, json};
use switchboard::client::Vsn;

use crate::harness::{Shape, System};
use crate::rooms::{Member, ROOM};

/// Talks at full speed until it was silenced that often; gives what counted.
async fn until_silenced(member: &mut Member) -> Vec<u64> {
    let (mut kept, mut void) = (Vec::new(), 0);
    while void < 20 {
        assert!(kept.len() < 5_000, "never silenced");
        let reply = member.push("new_msg", json!({"broadcast": true})).await;
        match reply.reason() {
            None => kept.push(reply.response["seq"].as_u64().expect("a sequence")),
            Some(reason) => {
                assert_eq!(reason, "quiet");
                void += 1;
            }
        }
    }
    kept
}

async fn turn(moderator: &mut Member, change: Value) -> u64 {
    let reply = moderator.push("room:update", change).await;
    assert!(reply.ok, "{reply:?}");
    reply.response["seq"].as_u64().expect("a sequence")
}

/// The messages that somebody is shown are these and no others, in this order.
async fn sees(member: &mut Member, seqs: &[u64]) {
    for seq in seqs {
        assert_eq!(member.event("new_msg").await["seq"], *seq);
    }
    member.none("new_msg").await;
}

#[tokio::test]
async fn quiet_falls_at_one_place_for_a_sender_at_full_speed_on_the_other_gateway() {
    let Some(system) = System::of(Shape::gateway(&["--broadcast-rate", "0", "--repeats", "0"])).await else { return };
    let mut bob = Member::on(&system, 1, Vsn::V2, "bob", 100).await;
    let mut ada = Member::on(&system, 0, Vsn::V2, "ada", 10).await;
    let mut old = Member::on(&system, 0, Vsn::V1, "old", 10).await;
    let mut near = Member::on(&system, 1, Vsn::V1, "near", 49).await;
    let mut vip = Member::on(&system, 0, Vsn::V1, "vip", 50).await;
    let mut ears = [Member::on(&system, 1, Vsn::V1, "eve", 10).await, Member::on(&system, 0, Vsn::V2, "joe", 10).await];
    let speech = async {
        let mut seqs = Vec::new();
        for _ in 0..60 {
            seqs.push(vip.say("x").await);
        }
        seqs
    };
    let quieting = async {
        for _ in 0..20 {
            bob.event("new_msg").await;
        }
        turn(&mut bob, json!({"quiet": true})).await
    };
    let (of_ada, of_old, of_near, of_vip, quiet_at) =
        tokio::join!(until_silenced(&mut ada), until_silenced(&mut old), until_silenced(&mut near), speech, quieting);
    let mut all = [of_ada, of_old, of_near].concat();
    assert!(all.iter().all(|seq| *seq < quiet_at), "what was kept stands before the change");
    all.extend(of_vip);
    all.push(vip.say("still").await);
    assert!(all.last() > Some(&quiet_at), "who may talk does");
    all.sort_unstable();
    for ear in &mut ears {
        sees(ear, &all).await;
        assert_eq!(ear.event("room:state").await["quiet"], true);
        // History has the same: what it keeps of it.
        let history = ear.push("history", json!({})).await.response;
        let messages = history["messages"].as_array().expect("messages").iter();
        let seqs: Vec<u64> = messages.filter_map(|message| message["seq"].as_u64()).collect();
        assert!(all.ends_with(&seqs) && !seqs.is_empty(), "{seqs:?}");
    }

    for silenced in [&mut ada, &mut old, &mut near] {
        assert_eq!(silenced.push("typing", json!({})).await.reason(), Some("quiet"));
        assert_eq!(silenced.push("new_message", json!({"body": "x"})).await.reason(), Some("quiet"));
        assert_eq!(silenced.push("room:update", json!({"quiet": false})).await.reason(), Some("forbidden"));
        // Direct messages pass.
        let direct = silenced.push("new_msg", json!({"to": [{"userId": "eve"}], "text": "psst"})).await;
        assert_eq!(direct.response, json!({"recipients": 1}));
        assert_eq!(ears[0].event("new_msg").await["text"], "psst");
    }
    assert_eq!(ada.client.push_data(ROOM, "ink", b"x").await.expect("a reply").reason(), Some("quiet"));
    for ear in &mut ears {
        for event in ["typing", "ink", "new_message"] {
            ear.none(event).await;
        }
    }
    assert!(vip.push("typing", json!({})).await.ok, "who may talk may type");
    ears[0].event("typing").await;
}

#[tokio::test]
async fn who_is_granted_a_rank_talks_in_a_quiet_room_until_that_ends() {
    let Some(system) = System::start().await else { return };
    for (bobs, adas, vsn) in [(0, 1, Vsn::V1), (1, 0, Vsn::V2)] {
        let mut bob = Member::on(&system, bobs, vsn, "bob", 100).await;
        let mut ada = Member::on(&system, adas, vsn, "ada", 10).await;
        let quiet_at = turn(&mut bob, json!({"quiet": true})).await;
        assert_eq!(ada.event("room:state").await["quiet"], true);
        assert_eq!(ada.push("new_msg", json!({"broadcast": true})).await.reason(), Some("quiet"));
        let grant = json!({"user_id": "ada", "rank": 50, "for_seconds": 1});
        let granted = bob.push("room:grant", grant).await;
        assert_eq!(ada.event("room:state").await["granted"], json!({"user_id": "ada", "rank": 50}));
        let said = ada.say("for a second").await;
        assert!(said > granted.response["seq"].as_u64().expect("a sequence") && said > quiet_at);
        assert_eq!(bob.event("new_msg").await["seq"], said);
        // Its end is told, and counts.
        ada.event("room:state").await;
        assert_eq!(ada.push("new_msg", json!({"broadcast": true})).await.reason(), Some("quiet"));
        turn(&mut bob, json!({"quiet": true, "for_seconds": 1})).await;
        assert_eq!(ada.event("room:state").await["quiet"], true);
        turn(&mut bob, json!({"quiet": false})).await;
        assert_eq!(ada.event("room:state").await["quiet"], false);
        let said = ada.say("to all").await;
        assert_eq!(bob.event("new_msg").await["seq"], said);
        bob.none("new_msg").await;
    }
}
