//! What members of a room may push, and how often.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::Quota;
use switchboard_contract::room::{Change, Grant, RANK_MEMBER, RANK_MODERATOR};

use super::tests::{ADA, BOB, Topic, change, user};
use super::*;
use crate::commands::Recipient;
use crate::limiter::{Rates, Within};
use crate::payload::{HistoryParams, Message};

fn quota(rate: u32, burst: u32) -> Option<Quota> {
    let number = |n| NonZeroU32::new(n).expect("not 0");
    Some(Quota::per_second(number(rate)).allow_burst(number(burst)))
}

fn said(text: &str) -> RoomPush {
    RoomPush::Broadcast(Message { payload: format!("{{\"broadcast\":true,\"text\":\"{text}\"}}").into(), id: None })
}

fn refused(mut pushed: Vec<String>) -> bool {
    let refused = pushed.iter().any(|line| line.contains("rate_limited"));
    pushed.retain(|line| !line.contains("rate_limited"));
    assert!(!refused || pushed.is_empty(), "it is refused, and nothing else happens: {pushed:?}");
    refused
}

#[test]
fn what_members_push_has_its_rates_and_moderators_have_none() {
    let rates = Rates { broadcasts: quota(10, 2), directs: quota(10, 3), ..Rates::default() };
    let mut topic = Topic::joined_with(rates);
    let all = |topic: &mut Topic, chan| {
        let broadcasts = (0..6).filter(|n| {
            let body = RoomPush::Say(Message { payload: r#"{"body":"x"}"#.into(), id: None });
            refused(topic.push(chan, 1, if n % 2 == 0 { said("x") } else { body }))
        });
        let broadcasts = broadcasts.count();
        let directs = (0..6).filter(|n| {
            let push = match n % 3 {
                0 => RoomPush::Direct(vec![Recipient::User(user("bob"))], "{}".into()),
                1 => RoomPush::Typing("{}".into()),
                _ => RoomPush::Binary { event: "ink".into(), data: bytes::Bytes::from_static(b"x") },
            };
            refused(topic.push(chan, 1, push))
        });
        (broadcasts, directs.count())
    };
    assert_eq!(all(&mut topic, ADA), (4, 3));
    assert_eq!(all(&mut topic, BOB), (0, 0), "a moderator");
    for _ in 0..9 {
        assert!(!refused(topic.push(ADA, 1, RoomPush::History(HistoryParams::default()))));
        let quiet = Change { quiet: Some(true), ..Change::default() };
        assert!(!refused(topic.push(BOB, 1, RoomPush::Change { change: quiet, for_seconds: None })));
    }
    topic.now += Duration::from_secs(5);
    assert_eq!(all(&mut topic, ADA), (4, 3), "all that it had used up is there again");

    // Ranks count as the room has them.
    let grant = |name, rank| Change { grant: Some(Grant { user_id: user(name), rank }), ..Change::default() };
    topic.stored(5, &change(&grant("ada", RANK_MODERATOR), None));
    topic.stored(6, &change(&grant("bob", RANK_MEMBER), None));
    assert_eq!(all(&mut topic, ADA), (0, 0));
    assert_eq!(all(&mut topic, BOB), (4, 3));
}

#[test]
fn a_refused_push_says_when_and_one_too_many_closes_the_socket() {
    let rates = Rates {
        broadcasts: quota(10, 30),
        repeats: Some(Within { count: 5, window: Duration::from_secs(10) }),
        refusals: Some(Within { count: 2, window: Duration::from_secs(10) }),
        ban: Duration::from_secs(10),
        ..Rates::default()
    };
    let mut topic = Topic::joined_with(rates);
    for _ in 0..4 {
        assert!(!refused(topic.push(ADA, 1, said("buy"))));
        topic.now += Duration::from_secs(1);
    }
    topic.push(ADA, 7, said("other"));
    let stamp = || unreachable!("nothing is written");
    let request = Request { serial: 8, push: said("buy"), now: topic.now };
    topic.room.push(ADA, request, stamp, &mut topic.out);
    let Some(Effect::Send(_, event)) = topic.out.pop() else { panic!("an answer") };
    let Event::Done { chan: ADA, serial: 8, outcome: Outcome::Refused(refusal) } = &*event else { panic!("{event:?}") };
    assert_eq!(*refusal, Refusal::rate_limited(6_000));
    let pushed = topic.push(ADA, 9, said("buy"));
    assert_eq!(pushed, ["ada: 9 rate_limited", "ada: Close(Policy)"]);
}
