use proptest::prelude::*;
use serde_json::value::RawValue;
use switchboard_contract::limits::{HISTORY_REPLY_BYTES_MAX, LOG_MESSAGES_MAX};
use switchboard_contract::lobby::{ChatEnd, Role};
use switchboard_contract::log::{Message, Sender};
use switchboard_contract::names::{ChatId, UserId};

use super::*;
use crate::tail::Kept;

impl Logs {
    fn read_now(&mut self, read: &Read) -> ReadReply {
        self.read(read, 0)
    }
}

fn chat(id: usize) -> LogName {
    LogName::Chat(ChatId::new(&format!("c{id}")).expect("an id"))
}

fn entry<'a>(event: &'a str, payload: &'a RawValue) -> Entry<'a> {
    Entry {
        v: V1,
        event: event.into(),
        payload,
        from: Some(Sender { role: Some(Role::Teacher), user_id: UserId::from(5), session: None }),
        rank: None,
        id: "k".into(),
        at: "2023-11-14T22:13:20.050Z".into(),
    }
}

fn payload(bytes: usize) -> Box<RawValue> {
    RawValue::from_string(format!("\"{}\"", "x".repeat(bytes))).expect("JSON")
}

fn say(logs: &mut Logs, id: usize, seq: u64) -> Applied {
    logs.apply(chat(id), seq, &entry("teacher:send", &payload(2)))
}

fn note(logs: &mut Logs, id: usize, seq: u64, event: ChatEvent) -> Applied {
    logs.apply(chat(id), seq, &entry(event.as_str(), &payload(0)))
}

fn all(id: usize) -> Read {
    Read::of(chat(id))
}

fn seqs(reply: &ReadReply) -> Vec<u64> {
    assert!(reply.messages.get().len() <= HISTORY_REPLY_BYTES_MAX);
    let messages: Vec<Message<'_>> = serde_json::from_str(reply.messages.get()).expect("messages");
    messages.iter().map(|message| message.seq).collect()
}

#[test]
fn whoever_has_seen_less_than_the_last_entry_is_behind() {
    let mut logs = Logs::new(usize::MAX);
    say(&mut logs, 1, 7);
    say(&mut logs, 2, 8);
    note(&mut logs, 2, 9, ChatEvent::Terminated);
    note(&mut logs, 3, 10, ChatEvent::Tombstone);
    for (id, seen, last) in [(1, 6, Some(7)), (1, 7, None), (1, 9, None), (2, 8, Some(9)), (3, 0, None), (4, 0, None)] {
        let behind: Vec<Position> = last.map(|last| (chat(id), last)).into_iter().collect();
        assert_eq!(logs.behind(&[(chat(id), seen)]), behind, "{id} at {seen}");
    }
}

#[test]
fn a_message_is_read_as_it_was_written() {
    let mut logs = Logs::new(usize::MAX);
    let said = RawValue::from_string(r#"{"message": "hi",  "n":[1 ]}"#.to_owned()).expect("JSON");
    logs.apply(chat(1), 7, &entry("teacher:send", &said));
    let reply = logs.read_now(&all(1));
    assert_eq!(
        reply.messages.get(),
        r#"[{"seq":7,"id":"k","at":"2023-11-14T22:13:20.050Z","event":"teacher:send","payload":{"message": "hi",  "n":[1 ]},"from":{"role":"teacher","user_id":5}}]"#
    );
}

#[test]
fn an_unknown_log_is_empty_and_complete() {
    let reply = Logs::new(usize::MAX).read_now(&all(1));
    assert_eq!((reply.last_seq, reply.dropped_to, reply.said, reply.complete), (0, 0, 0, true));
    assert_eq!(seqs(&reply), Vec::<u64>::new());
}

#[test]
fn the_last_hundred_are_kept_and_what_was_dropped_is_told() {
    let mut logs = Logs::new(usize::MAX);
    (1..=130).for_each(|seq| assert_eq!(say(&mut logs, 1, seq * 10), Applied::Message));
    let reply = logs.read_now(&all(1));
    assert_eq!(seqs(&reply), (31..=130).map(|n| n * 10).collect::<Vec<_>>());
    assert_eq!((reply.last_seq, reply.dropped_to, reply.said, reply.complete), (1300, 300, 1300, true));
}

#[test]
fn what_stands_behind_the_end_is_void_but_counts_as_last() {
    let mut logs = Logs::new(usize::MAX);
    assert_eq!(note(&mut logs, 1, 1, ChatEvent::Ready), Applied::State);
    say(&mut logs, 1, 2);
    assert_eq!(note(&mut logs, 1, 3, ChatEvent::Terminated), Applied::State);
    assert_eq!(say(&mut logs, 1, 4), Applied::Void);
    assert_eq!(note(&mut logs, 1, 5, ChatEvent::Requeued), Applied::Void);
    let reply = logs.read_now(&all(1));
    assert_eq!(seqs(&reply), [2]);
    assert_eq!((reply.last_seq, reply.said, reply.ready), (5, 2, Some(1)));
    assert_eq!(reply.end, Some((3, ChatEnd::Terminated)));
}

#[test]
fn the_first_ready_is_the_one() {
    let mut logs = Logs::new(usize::MAX);
    [1, 2].into_iter().for_each(|seq| assert_eq!(note(&mut logs, 1, seq, ChatEvent::Ready), Applied::State));
    assert_eq!(logs.read_now(&all(1)).ready, Some(1));
}

#[test]
fn a_tombstone_leaves_nothing() {
    let mut logs = Logs::new(usize::MAX);
    (1..=3).for_each(|seq| assert_eq!(say(&mut logs, 1, seq), Applied::Message));
    note(&mut logs, 1, 4, ChatEvent::Tombstone);
    assert_eq!((logs.count(), logs.bytes(), logs.applied()), (0, 0, 4));
    assert_eq!(logs.read_now(&all(1)).last_seq, 0);
    say(&mut logs, 1, 5);
    assert_eq!(seqs(&logs.read_now(&all(1))), [5]);
}

#[test]
fn an_entry_that_comes_again_does_nothing() {
    let mut logs = Logs::new(usize::MAX);
    say(&mut logs, 1, 5);
    for seq in [4, 5] {
        assert_eq!(say(&mut logs, 1, seq), Applied::Known);
        logs.pass(Some(chat(1)), seq);
    }
    assert_eq!((seqs(&logs.read_now(&all(1))), logs.applied()), (vec![5], 5));
}

#[test]
fn an_entry_passed_over_has_its_place() {
    let mut logs = Logs::new(usize::MAX);
    say(&mut logs, 1, 1);
    logs.pass(Some(chat(1)), 2);
    logs.pass(None, 3);
    let reply = logs.read_now(&all(1));
    assert_eq!((seqs(&reply), reply.last_seq, reply.said, logs.applied()), (vec![1], 2, 1, 3));
}

#[test]
fn pages_go_both_ways() {
    let mut logs = Logs::new(usize::MAX);
    (1..=10).for_each(|seq| assert_eq!(say(&mut logs, 1, seq), Applied::Message));
    let mut page = |after, before, limit, oldest_first| {
        let reply = logs.read_now(&Read { after, before, limit, oldest_first, ..all(1) });
        (seqs(&reply), reply.complete)
    };
    assert_eq!(page(None, None, Some(3), false), (vec![8, 9, 10], false));
    assert_eq!(page(None, Some(8), Some(3), false), (vec![5, 6, 7], false));
    assert_eq!(page(None, Some(5), Some(4), false), (vec![1, 2, 3, 4], true));
    assert_eq!(page(Some(6), None, Some(3), false), (vec![8, 9, 10], false));
    assert_eq!(page(Some(6), None, None, false), (vec![7, 8, 9, 10], true));
    assert_eq!(page(Some(6), None, Some(3), true), (vec![7, 8, 9], false));
    assert_eq!(page(Some(9), None, Some(3), true), (vec![10], true));
    assert_eq!(page(Some(3), Some(6), None, true), (vec![4, 5], true));
    assert_eq!(page(Some(6), Some(3), None, true), (vec![], true));
    assert_eq!(page(Some(10), None, None, true), (vec![], true));
    assert_eq!(page(None, None, Some(0), false), (vec![], false));
    assert_eq!(page(None, None, Some(1000), false).0.len(), 10);
}

#[test]
fn a_reply_is_as_full_as_its_bytes_allow() {
    let mut logs = Logs::new(usize::MAX);
    let big = payload(32 * 1024);
    (1..=20).for_each(|seq| assert_eq!(logs.apply(chat(1), seq, &entry("teacher:send", &big)), Applied::Message));
    let newest = logs.read_now(&all(1));
    assert_eq!((seqs(&newest), newest.complete), ((14..=20).collect(), false));
    let oldest = logs.read_now(&Read { after: Some(2), oldest_first: true, ..all(1) });
    assert_eq!((seqs(&oldest), oldest.complete), ((3..=9).collect(), false));
}

#[test]
fn a_message_that_fills_a_reply_is_kept_and_a_larger_one_is_a_gap() {
    let overhead = logs_of_one(0).read_now(&all(1)).messages.get().len();
    let mut logs = logs_of_one(HISTORY_REPLY_BYTES_MAX - overhead);
    assert_eq!(logs.read_now(&all(1)).messages.get().len(), HISTORY_REPLY_BYTES_MAX);
    let larger = payload(HISTORY_REPLY_BYTES_MAX - overhead + 1);
    assert_eq!(logs.apply(chat(1), 2, &entry("teacher:send", &larger)), Applied::TooLarge);
    let reply = logs.read_now(&all(1));
    assert_eq!((seqs(&reply), reply.last_seq, reply.dropped_to), (vec![], 2, 2));
}

fn logs_of_one(bytes: usize) -> Logs {
    let mut logs = Logs::new(usize::MAX);
    assert_eq!(logs.apply(chat(1), 1, &entry("teacher:send", &payload(bytes))), Applied::Message);
    logs
}

#[test]
fn what_the_stream_dropped_goes_and_idle_logs_with_it() {
    let mut logs = Logs::new(usize::MAX);
    note(&mut logs, 1, 1, ChatEvent::Ready);
    say(&mut logs, 2, 2);
    say(&mut logs, 1, 3);
    say(&mut logs, 1, 4);
    logs.drop_before(4);
    assert_eq!(logs.count(), 1);
    let reply = logs.read_now(&all(1));
    assert_eq!((seqs(&reply), reply.dropped_to, reply.ready), (vec![4], 3, Some(1)));
    logs.drop_before(100);
    assert_eq!((logs.count(), logs.bytes(), logs.applied()), (0, 0, 99));
}

#[test]
fn beyond_the_memory_the_oldest_of_all_go_first() {
    let mut logs = Logs::new(0);
    say(&mut logs, 1, 1);
    assert_eq!((logs.count(), logs.bytes(), logs.evicted()), (0, 0, 1));

    let mut logs = Logs::new(4096);
    (1..=100).for_each(|seq| assert_eq!(say(&mut logs, (seq % 2) as usize, seq), Applied::Message));
    assert!(logs.bytes() <= 4096 && logs.bytes() > 3500, "{}", logs.bytes());
    let mut kept: Vec<u64> = [0, 1].iter().flat_map(|id| seqs(&logs.read_now(&all(*id)))).collect();
    kept.sort_unstable();
    assert_eq!(kept, (101 - kept.len() as u64..=100).collect::<Vec<_>>());
    assert_eq!(logs.evicted(), 100 - kept.len() as u64);
    assert_eq!(logs.read_now(&all(0)).dropped_to.max(logs.read_now(&all(1)).dropped_to), 100 - kept.len() as u64);
}

#[test]
fn one_log_that_talks_for_ever_does_not_grow_the_order() {
    let mut logs = Logs::new(usize::MAX);
    (1..=100_000).for_each(|seq| assert_eq!(say(&mut logs, 1, seq), Applied::Message));
    assert!(logs.order.len() <= 2 * 101 + ORDER_SLACK, "{}", logs.order.len());
}

/// What happens to the logs, as a test makes it up.
#[derive(Clone, Debug)]
enum Happens {
    Say { chat: usize, bytes: usize },
    Note { chat: usize, event: ChatEvent },
    DropBefore { back: u64 },
}

fn happens() -> impl Strategy<Value = Happens> {
    let event = prop_oneof![
        4 => Just(ChatEvent::Ready),
        1 => Just(ChatEvent::Terminated),
        1 => Just(ChatEvent::Requeued),
        2 => Just(ChatEvent::Tombstone),
    ];
    prop_oneof![
        40 => (0..3usize, prop_oneof![9 => 0..50usize, 1 => 0..60_000usize])
            .prop_map(|(chat, bytes)| Happens::Say { chat, bytes }),
        2 => (0..3usize, event).prop_map(|(chat, event)| Happens::Note { chat, event }),
        1 => (0..300u64).prop_map(|back| Happens::DropBefore { back }),
    ]
}

/// The same by definition: every entry of a log in a list, and each question answered by going through it.
#[derive(Default)]
struct Naive {
    entries: Vec<(u64, Option<ChatEvent>)>,
    first: u64,
}

impl Naive {
    fn end(&self) -> Option<(u64, ChatEnd)> {
        self.entries.iter().find_map(|(seq, event)| Some((*seq, (*event)?.end()?)))
    }

    fn messages(&self) -> Vec<u64> {
        let end = self.end().map_or(u64::MAX, |(seq, _)| seq);
        self.entries.iter().filter(|(seq, event)| event.is_none() && *seq < end).map(|(seq, _)| *seq).collect()
    }

    fn kept(&self) -> Vec<u64> {
        let messages = self.messages();
        let last = &messages[messages.len().saturating_sub(LOG_MESSAGES_MAX)..];
        last.iter().copied().filter(|seq| *seq >= self.first).collect()
    }

    fn ready(&self) -> Option<u64> {
        let end = self.end().map_or(u64::MAX, |(seq, _)| seq);
        self.entries.iter().find(|(seq, event)| *event == Some(ChatEvent::Ready) && *seq < end).map(|(seq, _)| *seq)
    }
}

proptest! {
    #[test]
    fn logs_answer_as_the_definition_says(
        story in proptest::collection::vec(happens(), 1..600),
        after in proptest::option::of(0..600u64),
        before in proptest::option::of(0..600u64),
        limit in proptest::option::of(0..150usize),
        oldest_first in any::<bool>(),
    ) {
        let mut logs = Logs::new(usize::MAX);
        let mut naive: [Naive; 3] = Default::default();
        let mut lengths = HashMap::new();
        for (seq, happens) in (1u64..).zip(&story) {
            match happens {
                Happens::Say { chat: id, bytes } => {
                    logs.apply(chat(*id), seq, &entry("student:send", &payload(*bytes)));
                    naive[*id].entries.push((seq, None));
                    lengths.insert(seq, bytes);
                }
                Happens::Note { chat: id, event } => {
                    note(&mut logs, *id, seq, *event);
                    match event {
                        ChatEvent::Tombstone => naive[*id] = Naive::default(),
                        ChatEvent::Ready | ChatEvent::Terminated | ChatEvent::Requeued => {
                            naive[*id].entries.push((seq, Some(*event)));
                        }
                    }
                }
                Happens::DropBefore { back } => {
                    let first = seq.saturating_sub(*back);
                    logs.drop_before(first);
                    for log in &mut naive {
                        if log.entries.last().is_some_and(|(last, _)| *last < first) {
                            *log = Naive::default();
                        }
                        log.first = log.first.max(first);
                    }
                }
            }
        }
        for (id, naive) in naive.iter().enumerate() {
            let reply = logs.read_now(&Read { after, before, limit, oldest_first, ..all(id) });
            let kept = naive.kept();
            let dropped_to = naive.messages().into_iter().rfind(|seq| !kept.contains(seq)).unwrap_or(0);
            prop_assert_eq!(reply.last_seq, naive.entries.last().map_or(0, |(seq, _)| *seq));
            prop_assert_eq!(reply.said, naive.messages().last().copied().unwrap_or(0));
            prop_assert_eq!(reply.dropped_to, dropped_to);
            prop_assert_eq!((reply.ready, reply.end), (naive.ready(), naive.end()));

            let mut asked: Vec<u64> = kept
                .into_iter()
                .filter(|seq| after.is_none_or(|after| *seq > after) && before.is_none_or(|before| *seq < before))
                .collect();
            let answer = seqs(&reply);
            prop_assert_eq!(reply.complete, answer.len() == asked.len());
            if !oldest_first {
                asked.reverse();
            }
            let mut first: Vec<u64> = asked[..answer.len()].to_vec();
            if !oldest_first {
                first.reverse();
            }
            prop_assert_eq!(&answer, &first);
            if let Some(next) = asked.get(answer.len()) {
                let size = reply.messages.get().len() + lengths[next] + 200;
                let full = answer.len() == limit.unwrap_or(LOG_MESSAGES_MAX).min(LOG_MESSAGES_MAX);
                prop_assert!(full || size > HISTORY_REPLY_BYTES_MAX, "one more would have fitted: {size}");
            }
        }
    }

    #[test]
    fn the_memory_is_bounded_and_its_sums_are_true(
        story in proptest::collection::vec(happens(), 1..400),
        bytes_max in 0..20_000usize,
    ) {
        let mut logs = Logs::new(bytes_max);
        for (seq, happens) in (1u64..).zip(story) {
            match happens {
                Happens::Say { chat: id, bytes } => {
                    logs.apply(chat(id), seq, &entry("student:send", &payload(bytes)));
                }
                Happens::Note { chat: id, event } => {
                    note(&mut logs, id, seq, event);
                }
                Happens::DropBefore { back } => logs.drop_before(seq.saturating_sub(back)),
            }
            prop_assert!(logs.bytes <= bytes_max);
            let of_log = |(name, log): (&Arc<LogName>, &Log)| {
                let messages: usize = log.tail.iter().map(Kept::cost).sum();
                assert_eq!(messages, log.tail.bytes());
                let room = match &log.facts {
                    Facts::Chat(_) => 0,
                    Facts::Room(room) => room.cost(),
                };
                assert_eq!(messages + room, log.bytes);
                log_cost(name) + log.bytes
            };
            prop_assert_eq!(logs.bytes, logs.logs.iter().map(of_log).sum::<usize>());
            prop_assert_eq!(logs.kept, logs.logs.values().map(|log| log.tail.len()).sum::<usize>());
        }
    }
}
