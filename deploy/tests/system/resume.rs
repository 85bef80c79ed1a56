//! Whoever comes back gets what it missed: all of it, or a `gap` that says exactly what is not kept any more.

use std::cell::Cell;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::json;
use switchboard::client::{Client, Vsn};
use switchboard_contract::limits::LOG_MESSAGES_MAX;
use switchboard_contract::testing::eventually;

use crate::harness::{A_WHILE, SOON, System, chat};
use crate::rooms::{Member, ROOM};

/// Pushes so many messages, several at once on their way; gives their sequences.
async fn say(client: &mut Client, topic: &str, event: &str, messages: usize) -> Vec<u64> {
    let mut seqs = Vec::new();
    for batch in (0..messages).collect::<Vec<_>>().chunks(50) {
        let mut refs = Vec::new();
        for n in batch {
            let payload = json!({"broadcast": true, "message": n});
            refs.push(client.send(topic, event, payload).await.expect("sent"));
        }
        for reference in refs {
            let reply = client.reply(reference).await.expect("a reply");
            assert!(reply.ok, "{reply:?}");
            seqs.push(reply.response["seq"].as_u64().expect("a sequence"));
        }
    }
    seqs
}

/// What comes is a gap up to here, if one is expected, and then exactly this.
async fn gets(client: &mut Client, topic: &str, event: &str, gap: Option<RangeInclusive<u64>>, seqs: &[u64]) {
    let next = async |client: &mut Client| {
        let wanted = |m: &switchboard::client::Message| m.topic == topic && (m.event == event || m.event == "gap");
        client.expect_where(wanted, event, SOON).await.expect("what was missed")
    };
    if let Some(gap) = gap {
        let message = next(client).await;
        assert_eq!((message.event.as_str(), message.payload), ("gap", json!({"from": gap.start(), "to": gap.end()})));
    }
    for seq in seqs {
        let message = next(client).await;
        assert_eq!((message.event.as_str(), message.payload["seq"].as_u64()), (event, Some(*seq)));
    }
    client.expect_none(event, A_WHILE).await.expect("nothing more");
    client.expect_none("gap", Duration::ZERO).await.expect("no gap");
}

#[tokio::test]
async fn who_sleeps_in_a_room_gets_all_of_sixty_and_the_last_hundred_of_three_hundred() {
    let Some(system) = System::start().await else { return };
    let mut ada = Member::on(&system, 0, Vsn::V2, "ada", 100).await;
    for (vsn, elsewhere, name) in [(Vsn::V2, 0, "bob"), (Vsn::V1, 1, "eve")] {
        let mut sleeper = Member::on(&system, 1, vsn, name, 10).await;
        let first = say(&mut ada.client, ROOM, "new_msg", 1).await[0];
        assert_eq!(sleeper.event("new_msg").await["seq"], first);
        sleeper.client.close().await.expect("a close");
        let sixty = say(&mut ada.client, ROOM, "new_msg", 60).await;
        sleeper.client = system.client(elsewhere, vsn).await;
        assert_eq!(sleeper.rejoin().await.response["recovered"], true);
        gets(&mut sleeper.client, ROOM, "new_msg", None, &sixty).await;

        sleeper.client.close().await.expect("a close");
        sleeper.last_seq = sixty[59];
        let many = say(&mut ada.client, ROOM, "new_msg", 300).await;
        let (lost, kept) = many.split_at(300 - LOG_MESSAGES_MAX);
        sleeper.client = system.client(1 - elsewhere, vsn).await;
        assert_eq!(sleeper.rejoin().await.response["recovered"], false);
        let gap = sixty[59] + 1..=lost[lost.len() - 1];
        gets(&mut sleeper.client, ROOM, "new_msg", Some(gap), kept).await;
    }
}

#[tokio::test]
async fn who_sleeps_in_a_chat_gets_all_of_sixty_and_the_last_hundred_of_three_hundred() {
    let Some(system) = System::start().await else { return };
    let (mut teacher, mut student, topic) = chat(&system, "t", "s").await;
    let mut last_seq = say(&mut teacher.client, &topic, "teacher:send", 1).await[0];
    student.client.expect("student:receive", SOON).await.expect("a message");
    for (vsn, elsewhere, messages) in [(Vsn::V1, 1, 60), (Vsn::V2, 0, 300), (Vsn::V2, 1, 60), (Vsn::V1, 0, 300)] {
        student.client.close().await.expect("a close");
        let seqs = say(&mut teacher.client, &topic, "teacher:send", messages).await;
        student.client = system.client(elsewhere, vsn).await;
        let (lost, kept) = seqs.split_at(messages.saturating_sub(LOG_MESSAGES_MAX));
        let own = json!({"userId": "s", "role": "student"});
        assert!(student.client.join(&student.topic, own).await.expect("a reply").ok);
        let join = json!({"userId": "s", "role": "student", "last_seq": last_seq});
        let reply = student.client.join(&topic, join).await.expect("a reply");
        assert_eq!(reply.response["recovered"], lost.is_empty(), "{reply:?}");
        let gap = lost.last().map(|to| last_seq + 1..=*to);
        gets(&mut student.client, &topic, "student:receive", gap, kept).await;
        last_seq = kept[kept.len() - 1];
    }
}

/// What somebody saw who came and went: sequences, and what it was told to have missed.
#[derive(Default)]
struct Chain {
    seqs: Vec<u64>,
    gaps: Vec<RangeInclusive<u64>>,
}

impl Chain {
    fn last(&self) -> u64 {
        self.seqs.last().copied().unwrap_or(0).max(self.gaps.last().map_or(0, |gap| *gap.end()))
    }

    /// Takes the next message or gap that comes in time.
    async fn hear(&mut self, member: &mut Member, within: Duration) -> bool {
        let wanted = |m: &switchboard::client::Message| m.event == "new_msg" || m.event == "gap";
        let Ok(message) = member.client.expect_where(wanted, "a message", within).await else { return false };
        let number = |key: &str| message.payload[key].as_u64().expect("a sequence");
        if message.event == "gap" {
            let (from, to) = (number("from"), number("to"));
            assert!(from > self.last() && from <= to, "{from} to {to} behind {}", self.last());
            self.gaps.push(from..=to);
        } else {
            let seq = number("seq");
            assert!(seq > self.last(), "{seq} behind {}", self.last());
            self.seqs.push(seq);
        }
        member.last_seq = self.last();
        true
    }
}

#[tokio::test]
async fn who_comes_and_goes_while_others_talk_at_full_speed_sees_the_same_chain() {
    let Some(system) = System::start().await else { return };
    let mut speakers =
        [Member::on(&system, 0, Vsn::V2, "ada", 100).await, Member::on(&system, 1, Vsn::V1, "bob", 100).await];
    let mut stays = Member::on(&system, 0, Vsn::V1, "stays", 10).await;
    let mut moves = Member::on(&system, 1, Vsn::V2, "moves", 10).await;
    let (said, done) = (Cell::new(0), Cell::new(false));
    let talk = async |member: &mut Member| {
        let mut seqs = Vec::new();
        while !done.get() {
            seqs.push(member.say("x").await);
            said.set(said.get() + 1);
        }
        seqs
    };
    let coming_and_going = async {
        let mut chain = Chain::default();
        for round in 0..6 {
            for _ in 0..20 {
                assert!(chain.hear(&mut moves, SOON).await, "others talk");
            }
            let vsn = if round % 2 == 0 { Vsn::V1 } else { Vsn::V2 };
            moves.client = system.client(round % 2, vsn).await;
            // Once it is away for more than is kept.
            let awake = said.get() + if round == 3 { 2 * LOG_MESSAGES_MAX } else { 0 };
            eventually("enough was said", async || said.get() >= awake).await;
            let joined = moves.rejoin().await;
            assert!(joined.ok, "{joined:?}");
        }
        done.set(true);
        chain
    };
    let [ada, bob] = &mut speakers;
    let (first, second, mut chain) = tokio::join!(talk(ada), talk(bob), coming_and_going);
    let mut all = [first, second].concat();
    all.sort_unstable();
    let last = all[all.len() - 1];
    let mut stayed = Chain::default();
    for (chain, member) in [(&mut stayed, &mut stays), (&mut chain, &mut moves)] {
        while chain.last() < last {
            assert!(chain.hear(member, SOON).await, "{last} never came");
        }
        assert!(!chain.hear(member, A_WHILE).await, "that was all");
    }
    assert!(stayed.gaps.is_empty());
    assert_eq!(stayed.seqs, all, "who stays sees all");
    assert!(!chain.gaps.is_empty(), "it was away for more than is kept");
    let missed = |seq: &&u64| chain.gaps.iter().any(|gap| gap.contains(seq));
    let seen: Vec<u64> = all.iter().filter(|seq| !missed(seq)).copied().collect();
    assert_eq!(chain.seqs, seen, "all but what it was told to have missed");
    for gap in &chain.gaps {
        // Nothing is called missed that is not: it ends at a message that somebody who was away has not seen.
        assert!(all.contains(gap.end()), "{gap:?}");
    }
}
