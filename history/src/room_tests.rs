use proptest::prelude::*;
use serde_json::value::RawValue;
use switchboard_contract::limits::{LOG_MESSAGES_MAX, LOG_STATES_MAX};
use switchboard_contract::log::{Entry, Message, Read, ReadReply, Sender};
use switchboard_contract::names::{LogName, RoomId, UserId};
use switchboard_contract::room::{Phase, RANK_MEMBER, RANK_MODERATOR, RANK_VIP, Rank, RoomRecord, RoomState};
use switchboard_contract::wire::V1;

use crate::log::{Applied, Logs};

fn room() -> LogName {
    LogName::Room(RoomId::new("r").expect("an id"))
}

fn apply(logs: &mut Logs, seq: u64, event: &str, payload: &str, from: Option<(u64, Rank)>) -> Applied {
    let payload = RawValue::from_string(payload.to_owned()).expect("JSON");
    let entry = Entry {
        v: V1,
        event: event.into(),
        payload: &payload,
        from: from.map(|(user, _)| Sender { role: None, user_id: UserId::from(user), session: None }),
        rank: from.map(|(_, rank)| rank),
        id: "k".into(),
        at: "2023-11-14T22:13:20.050Z".into(),
    };
    logs.apply(room(), seq, &entry)
}

fn say(logs: &mut Logs, seq: u64, rank: Rank) -> Applied {
    apply(logs, seq, "new_msg", r#"{"body":"tram"}"#, Some((seq % 2, rank)))
}

fn state(logs: &mut Logs, seq: u64, change: &str) -> Applied {
    apply(logs, seq, "room:state", change, None)
}

fn read(logs: &mut Logs, states: bool) -> ReadReply {
    logs.read(&Read { states, ..Read::of(room()) }, 1_700_000_000_100)
}

fn seqs(reply: &ReadReply) -> Vec<u64> {
    let messages: Vec<Message<'_>> = serde_json::from_str(reply.messages.get()).expect("messages");
    messages.iter().map(|message| message.seq).collect()
}

fn since(reply: &ReadReply) -> Option<u64> {
    reply.room.as_ref().map(|room| room.since)
}

#[test]
fn a_life_begins_with_a_state_and_ends_with_a_tombstone() {
    let mut logs = Logs::new(usize::MAX);
    assert_eq!(since(&read(&mut logs, true)), None);
    assert_eq!(state(&mut logs, 5, "{}"), Applied::State);
    assert_eq!(say(&mut logs, 6, RANK_MEMBER), Applied::Message);
    state(&mut logs, 7, r#"{"quiet":true}"#);
    let reply = read(&mut logs, false);
    assert_eq!((since(&reply), seqs(&reply), reply.last_seq, reply.said), (Some(5), vec![6], 7, 6));
    assert_eq!((reply.dropped_to, reply.complete), (0, true));
    assert_eq!(apply(&mut logs, 8, "phx_tombstone", "{}", None), Applied::State);
    assert_eq!((logs.count(), logs.bytes(), since(&read(&mut logs, true))), (0, 0, None));
    // What came too late for the old life is no part of the new one.
    say(&mut logs, 9, RANK_MEMBER);
    let stray = read(&mut logs, true);
    assert_eq!((since(&stray), stray.dropped_to), (Some(0), 8));
    state(&mut logs, 10, "{}");
    let reply = read(&mut logs, true);
    assert_eq!((since(&reply), seqs(&reply), reply.dropped_to, reply.said), (Some(10), vec![10], 0, 0));
    assert!(!reply.room.expect("a room").state.silences(Some((&UserId::from(1), 0))));
}

#[test]
fn states_are_shown_whole_and_only_to_who_asks() {
    let mut logs = Logs::new(usize::MAX);
    state(&mut logs, 1, r#"{"title":"Tea"}"#);
    state(&mut logs, 2, r#"{"quiet":true}"#);
    let reply = read(&mut logs, true);
    let messages: Vec<Message<'_>> = serde_json::from_str(reply.messages.get()).expect("messages");
    assert_eq!(messages[1].payload.get(), r#"{"quiet":true,"quiet_rank":50,"title":"Tea"}"#);
    assert_eq!(seqs(&read(&mut logs, false)), Vec::<u64>::new());
}

#[test]
fn who_may_not_change_it_does_not() {
    let mut logs = Logs::new(usize::MAX);
    state(&mut logs, 1, "{}");
    assert_eq!(apply(&mut logs, 2, "room:state", r#"{"quiet":true}"#, Some((1, RANK_VIP))), Applied::Void);
    assert_eq!(apply(&mut logs, 3, "room:state", "1", None), Applied::Void);
    assert_eq!(say(&mut logs, 4, RANK_MEMBER), Applied::Message);
    assert_eq!(apply(&mut logs, 5, "room:state", r#"{"quiet":true}"#, Some((1, RANK_MODERATOR))), Applied::State);
    assert_eq!(say(&mut logs, 6, RANK_MEMBER), Applied::Void);
    assert_eq!(seqs(&read(&mut logs, true)), [1, 4, 5]);
}

#[test]
fn whether_an_entry_is_void_is_known_when_it_is_kept_no_more() {
    let mut logs = Logs::new(usize::MAX);
    let judge = |logs: &mut Logs, seq| logs.read(&Read { judge: Some(seq), ..Read::of(room()) }, 0).void;
    assert_eq!(judge(&mut logs, 1), None, "no room");
    state(&mut logs, 5, "{}");
    say(&mut logs, 6, RANK_MEMBER);
    state(&mut logs, 7, r#"{"quiet":true}"#);
    say(&mut logs, 8, RANK_MEMBER);
    state(&mut logs, 9, r#"{"quiet":false}"#);
    (10..=10 + 2 * LOG_MESSAGES_MAX as u64).for_each(|seq| assert_eq!(say(&mut logs, seq, 10), Applied::Message));
    let asked = [4, 5, 6, 8, 10, 210, 211].map(|seq| judge(&mut logs, seq));
    assert_eq!(asked, [None, Some(false), Some(false), Some(true), Some(false), Some(false), None]);
    assert_eq!(apply(&mut logs, 300, "phx_tombstone", "{}", None), Applied::State);
    state(&mut logs, 301, "{}");
    assert_eq!([8, 301].map(|seq| judge(&mut logs, seq)), [None, Some(false)], "an earlier life's is not");
}

#[test]
fn states_are_counted_apart_and_dropping_one_is_no_gap() {
    let mut logs = Logs::new(usize::MAX);
    (1..=300).for_each(|seq| assert_eq!(state(&mut logs, seq, "{}"), Applied::State));
    (301..=305).for_each(|seq| assert_eq!(say(&mut logs, seq, RANK_MEMBER), Applied::Message));
    (306..=500).for_each(|seq| assert_eq!(state(&mut logs, seq, "{}"), Applied::State));
    let all = |after| Read { after, oldest_first: true, states: true, ..Read::of(room()) };
    let (first, second) = (logs.read(&all(None), 0), logs.read(&all(Some(495)), 0));
    assert_eq!((first.dropped_to, first.complete), (0, false));
    assert_eq!(seqs(&first)[..6], [301, 302, 303, 304, 305, 501 - LOG_STATES_MAX as u64]);
    assert_eq!(seqs(&second).last(), Some(&500));
    (501..=700).for_each(|seq| assert_eq!(say(&mut logs, seq, RANK_MEMBER), Applied::Message));
    let reply = read(&mut logs, false);
    assert_eq!((seqs(&reply).len(), reply.dropped_to), (LOG_MESSAGES_MAX, 600));
}

#[test]
fn a_room_lives_on_when_the_stream_has_dropped_all_of_it() {
    let mut logs = Logs::new(usize::MAX);
    state(&mut logs, 1, r#"{"quiet":true}"#);
    say(&mut logs, 2, RANK_VIP);
    logs.drop_before(100);
    let reply = read(&mut logs, true);
    assert_eq!((since(&reply), seqs(&reply), reply.last_seq, reply.dropped_to), (Some(1), vec![], 0, 2));
    assert_eq!(logs.behind(&[(room(), 0)]), []);
    assert_eq!(say(&mut logs, 100, RANK_MEMBER), Applied::Void);
    assert_eq!(read(&mut logs, true).last_seq, 100);
}

fn record(since: u64, seq: u64, quiet: bool) -> RoomRecord {
    let mut state = RoomState::default();
    let change = serde_json::from_str(if quiet { r#"{"quiet":true}"# } else { "{}" }).expect("a change");
    state.apply(None, &change);
    RoomRecord { v: V1, since, phase: Phase::Open, seq, state }
}

#[test]
fn a_snapshot_stands_for_what_the_stream_has_dropped() {
    let LogName::Room(id) = room() else { unreachable!() };
    let mut logs = Logs::new(usize::MAX);
    logs.seed(id.clone(), record(10, 60, true), 50);
    logs.drop_before(50);
    let reply = read(&mut logs, true);
    assert_eq!((since(&reply), reply.last_seq, reply.dropped_to), (Some(10), 0, 49));
    // Up to the snapshot nobody knows what was void; from there on it is known.
    assert_eq!(say(&mut logs, 55, RANK_MODERATOR), Applied::Void);
    assert_eq!(state(&mut logs, 60, r#"{"quiet":true}"#), Applied::Void);
    assert_eq!(say(&mut logs, 61, RANK_MEMBER), Applied::Void);
    assert_eq!(say(&mut logs, 62, RANK_VIP), Applied::Message);
    let reply = read(&mut logs, true);
    assert_eq!((since(&reply), seqs(&reply), reply.dropped_to), (Some(10), vec![62], 55));
    // Where the stream has the beginning, it is enough.
    let mut logs = Logs::new(usize::MAX);
    logs.seed(id, record(50, 60, true), 50);
    assert_eq!(logs.count(), 0);
}

#[test]
fn memory_drops_what_was_said_before_what_a_room_is() {
    let mut logs = Logs::new(8 * 1024);
    state(&mut logs, 1, r#"{"quiet":true}"#);
    (2..=200).for_each(|seq| assert_eq!(say(&mut logs, seq, RANK_VIP), Applied::Message));
    let reply = read(&mut logs, true);
    assert!(logs.bytes() <= 8 * 1024 && reply.dropped_to > 100, "{}", reply.dropped_to);
    assert_eq!(since(&reply), Some(1));
    // Nothing of it is left, and who reads what comes then is told so.
    let mut logs = Logs::new(0);
    state(&mut logs, 1, "{}");
    assert_eq!((logs.count(), logs.bytes()), (0, 0));
}

#[test]
fn a_log_without_its_beginning_does_not_claim_to_be_complete() {
    let mut logs = Logs::new(usize::MAX);
    say(&mut logs, 70, RANK_MEMBER);
    let reply = read(&mut logs, true);
    assert_eq!((since(&reply), seqs(&reply), reply.dropped_to), (Some(0), vec![70], 69));
}

#[test]
fn keywords_come_with_a_read() {
    let mut logs = Logs::new(usize::MAX);
    state(&mut logs, 1, "{}");
    say(&mut logs, 2, RANK_MEMBER);
    assert_eq!(read(&mut logs, true).room.expect("a room").keywords, []);
    say(&mut logs, 3, RANK_MEMBER);
    let keywords = read(&mut logs, true).room.expect("a room").keywords;
    assert_eq!(keywords.len(), 1);
    assert_eq!((&*keywords[0].keyword, &*keywords[0].expires_at), ("tram", "2023-11-14T22:18:20.050Z"));
}

/// What happens in a room, as a test makes it up.
#[derive(Clone, Debug)]
enum Happens {
    Say(u64, Rank),
    Quiet(bool, u64, Rank),
    Grant(u64, Rank),
    Tombstone,
    Read,
}

fn happens() -> impl Strategy<Value = Happens> {
    let rank = || prop_oneof![Just(RANK_MEMBER), Just(RANK_VIP), Just(RANK_MODERATOR)];
    prop_oneof![
        10 => (0..3u64, rank()).prop_map(|(user, rank)| Happens::Say(user, rank)),
        3 => (any::<bool>(), 0..3u64, rank()).prop_map(|(quiet, user, rank)| Happens::Quiet(quiet, user, rank)),
        1 => (0..3u64, rank()).prop_map(|(user, rank)| Happens::Grant(user, rank)),
        1 => Just(Happens::Tombstone),
        2 => Just(Happens::Read),
    ]
}

proptest! {
    #[test]
    fn quiet_voids_exactly_what_the_order_says(
        story in proptest::collection::vec(happens(), 1..90),
        bytes_max in prop_oneof![Just(usize::MAX), 0..20_000usize],
    ) {
        let (mut logs, mut bounded) = (Logs::new(usize::MAX), Logs::new(bytes_max));
        state(&mut logs, 1, "{}");
        state(&mut bounded, 1, "{}");
        // By definition: quiet or not, who has which rank here, what is heard.
        let (mut quiet, mut ranks, mut alive, mut heard) = (false, [None; 3], true, Vec::new());
        for (seq, happens) in (2u64..).zip(&story) {
            let (event, payload, from) = match happens {
                Happens::Say(user, rank) => {
                    ("new_message", r#"{"body":"some words here"}"#.to_owned(), Some((*user, *rank)))
                }
                Happens::Quiet(quiet, user, rank) => {
                    ("room:state", format!(r#"{{"quiet":{quiet}}}"#), Some((*user, *rank)))
                }
                Happens::Grant(user, rank) => {
                    ("room:state", format!(r#"{{"grant":{{"user_id":{user},"rank":{rank}}}}}"#), None)
                }
                Happens::Tombstone => ("phx_tombstone", "{}".to_owned(), None),
                Happens::Read => {
                    read(&mut logs, true);
                    read(&mut bounded, true);
                    continue;
                }
            };
            apply(&mut logs, seq, event, &payload, from);
            apply(&mut bounded, seq, event, &payload, from);
            prop_assert!(bounded.bytes() <= bytes_max);
            let rank = |user: u64, own: Rank, ranks: &[Option<Rank>; 3]| ranks[user as usize].unwrap_or(own);
            match happens {
                Happens::Say(user, own) if !quiet || rank(*user, *own, &ranks) >= RANK_VIP => heard.push(seq),
                Happens::Quiet(now, user, own) if rank(*user, *own, &ranks) >= RANK_MODERATOR => {
                    if !std::mem::replace(&mut alive, true) {
                        heard.clear();
                    }
                    quiet = *now;
                }
                Happens::Grant(user, rank) => {
                    if !std::mem::replace(&mut alive, true) {
                        heard.clear();
                    }
                    ranks[*user as usize] = Some(*rank);
                }
                Happens::Tombstone => (quiet, ranks, alive, heard) = (false, [None; 3], false, Vec::new()),
                Happens::Say(..) | Happens::Quiet(..) | Happens::Read => {}
            }
        }
        prop_assert_eq!(seqs(&read(&mut logs, false)), heard);
        let kept: Vec<u64> = seqs(&read(&mut logs, true));
        prop_assert!(seqs(&read(&mut bounded, true)).iter().all(|seq| bytes_max < 20_000 || kept.contains(seq)));
    }
}
