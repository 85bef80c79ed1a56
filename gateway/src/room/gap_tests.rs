//! Whatever is lost on its way, who may talk is decided by the room's log, the same for everybody.

use std::collections::VecDeque;

use proptest::prelude::*;
use switchboard_contract::room::{Change, RANK_MEMBER, RANK_MODERATOR};

use super::tests::{ADA, BOB, Topic, change, entry, fact, quiet, view};
use super::*;
use crate::topic::{How, Part};

/// A room's log, and its way to a gateway on which Ada, a member, and Bob, a moderator, are.
struct World {
    topic: Topic,
    /// Sequence, entry, and whether it counts by the log's own order.
    log: Vec<(u64, String, bool)>,
    quiet: bool,
    /// On their way: sequence, predecessor, entry.
    way: VecDeque<(u64, u64, String)>,
    repairs: Vec<(u64, u64)>,
    /// Ada's, whose acknowledgement is on its way or whose answer is: request and sequence.
    acks: VecDeque<(u32, u64)>,
    serials: u32,
    seen: Vec<String>,
}

impl World {
    fn new() -> Self {
        World {
            topic: Topic::joined(),
            log: Vec::new(),
            quiet: false,
            way: VecDeque::new(),
            repairs: Vec::new(),
            acks: VecDeque::new(),
            serials: 1,
            seen: Vec::new(),
        }
    }

    fn end(&self) -> u64 {
        self.log.last().map_or(1, |(seq, ..)| *seq)
    }

    fn log(&mut self, lost: bool, json: String, counts: bool) -> u64 {
        let previous = self.end();
        let seq = previous + 1 + previous % 3;
        self.log.push((seq, json.clone(), counts));
        if !lost {
            self.way.push_back((seq, previous, json));
        }
        seq
    }

    /// Somebody on another gateway.
    fn other(&mut self, lost: bool, rank: Rank) {
        let counts = !self.quiet || rank == RANK_MODERATOR;
        self.log(lost, entry("new_msg", "{}", "other", Some(("eve", rank))), counts);
    }

    /// A channel has one request on its way.
    fn ada(&mut self, lost: bool) {
        let answer = format!("ada: {} ", self.serials);
        if self.serials > 1 && !self.seen.iter().any(|line| line.starts_with(&answer)) {
            return;
        }
        self.serials += 1;
        let serial = self.serials;
        let message = crate::payload::Message { payload: "{}".into(), id: None };
        self.topic.push(ADA, serial, RoomPush::Broadcast(message));
        let json = entry("new_msg", "{}", &format!("id-{serial}"), Some(("ada", RANK_MEMBER)));
        let seq = self.log(lost, json, !self.quiet);
        self.acks.push_back((serial, seq));
    }

    fn turn(&mut self, lost: bool) {
        self.quiet = !self.quiet;
        self.log(lost, change(&quiet(self.quiet), Some(("eve", RANK_MODERATOR))), true);
    }

    fn deliver(&mut self) {
        if let Some((seq, previous, json)) = self.way.pop_front() {
            self.topic.stored_behind(seq, previous, &json);
        }
    }

    /// The stream repairs a gap.
    fn repair(&mut self) {
        if let Some((after, to)) = self.repairs.pop() {
            let asked = self.log.iter().filter(|(seq, ..)| *seq > after && *seq <= to);
            let part = Part { entries: asked.map(|(seq, json, _)| (*seq, fact(*seq, json))).collect(), to };
            self.topic.room.repaired(after, How::Stream, Some(part), &mut self.topic.out);
        }
    }

    fn note(&mut self) {
        for effect in &self.topic.out {
            if let Effect::Repair { after, to } = effect {
                self.repairs.push((*after, *to));
            }
        }
        self.seen.extend(self.topic.shown());
    }

    fn step(&mut self, what: u8) {
        match what {
            0 | 1 => self.ada(what == 1),
            2..=4 => self.other(what == 4, RANK_MEMBER),
            5 | 6 => self.other(what == 6, RANK_MODERATOR),
            7 | 8 => self.turn(what == 8),
            9..=11 => self.deliver(),
            12 => self.repair(),
            13 => self.topic.room.behind(self.end(), &mut self.topic.out),
            _ => self.ack(),
        }
        self.note();
    }

    fn ack(&mut self) {
        if let Some((serial, seq)) = self.acks.pop_front() {
            self.topic.room.acked(ADA, serial, Ok((seq, false)), &mut self.topic.out);
        }
    }

    /// Sequences of the messages that a member saw.
    fn seen_by(&self, name: &str) -> Vec<u64> {
        let mine = self.seen.iter().filter(|line| line.starts_with(&format!("{name}: [")) && line.contains("new_msg"));
        mine.map(|line| line.split("\"seq\":").nth(1).unwrap().split(',').next().unwrap().parse().unwrap()).collect()
    }
}

proptest! {
    #[test]
    fn whatever_is_lost_quiet_is_decided_by_the_log_for_everybody(steps in prop::collection::vec(0u8..16, 0..120)) {
        let mut world = World::new();
        let mut said = Vec::new();
        for step in steps {
            let before = world.acks.len();
            world.step(step);
            if step < 2 && world.acks.len() > before {
                said.push(world.acks.back().copied().unwrap());
            }
        }
        while !world.way.is_empty()
            || !world.repairs.is_empty()
            || !world.acks.is_empty()
            || world.topic.room.position() < Some(world.end())
        {
            world.deliver();
            world.note();
            world.repair();
            world.note();
            world.ack();
            world.topic.room.behind(world.end(), &mut world.topic.out);
            world.note();
        }
        let counting: Vec<u64> =
            world.log.iter().filter(|(_, json, counts)| *counts && json.contains("new_msg")).map(|(seq, ..)| *seq).collect();
        prop_assert_eq!(world.seen_by("bob"), counting.clone());
        // Ada does not see her own.
        let others: Vec<u64> = counting.iter().copied().filter(|seq| said.iter().all(|(_, own)| own != seq)).collect();
        prop_assert_eq!(world.seen_by("ada"), others);
        for (serial, seq) in said {
            let answer = if counting.contains(&seq) { format!("ok {{\"seq\":{seq}}}") } else { "quiet".to_owned() };
            let at = world.seen.iter().position(|line| *line == format!("ada: {serial} {answer}"));
            prop_assert!(at.is_some(), "{serial} should be {answer}");
            // What stands before it in the log was shown before.
            let before = |line: &&String| line.starts_with("ada: [") && line.contains("new_msg");
            let shown = world.seen[..at.unwrap()].iter().filter(before).count();
            let due = world.log.iter().filter(|(s, json, counts)| {
                *s < seq && *counts && json.contains("new_msg") && json.contains("other")
            });
            prop_assert!(shown >= due.count());
        }
    }
}

#[test]
fn what_cannot_be_had_of_a_room_is_a_gap_and_what_stood_there_is_not_known() {
    let mut topic = Topic::joined();
    topic.acked(BOB, 2, 7);
    topic.stored_behind(9, 8, &entry("lesson", "{}", "h", None));
    assert_eq!(topic.shown(), ["repair 1 8"]);
    topic.room.repaired(1, How::Shown, None, &mut topic.out);
    let shown = topic.shown();
    assert!(shown.contains(&r#"ada: gap {"from":2,"to":8}"#.to_owned()), "{shown:?}");
    assert!(shown.contains(&"judge bob 2 7 quiet".to_owned()), "{shown:?}");
}

/// A gap up to 8, in which the room became quiet, that nobody could fill.
fn in_doubt() -> Topic {
    let mut topic = Topic::joined();
    topic.stored_behind(9, 8, &entry("lesson", "{}", "h", None));
    topic.room.repaired(1, How::Shown, None, &mut topic.out);
    let asked = topic.shown();
    assert_eq!(asked.iter().filter(|line| *line == "review").count(), 1, "{asked:?}");
    topic
}

fn review(topic: &mut Topic, last_seq: u64, change: Change<'static>) -> Vec<String> {
    let reply = ReadReply { last_seq, room: Some(view(1, Some(change))), ..ReadReply::default() };
    topic.room.reviewed(reply, &mut topic.out);
    topic.shown()
}

fn talks(topic: &mut Topic, seq: u64) -> bool {
    topic.stored_behind(seq, seq - 1, &entry("new_msg", "{}", "x", Some(("eve", RANK_MEMBER))));
    topic.shown().iter().any(|line| line.contains("new_msg"))
}

#[test]
fn behind_a_gap_the_state_is_asked_for_and_counts_from_then_on() {
    let mut topic = in_doubt();
    assert!(talks(&mut topic, 10), "nobody knows better yet");
    topic.push(ADA, 2, RoomPush::Broadcast(crate::payload::Message { payload: "{}".into(), id: None }));
    assert_eq!(topic.acked(ADA, 2, 10), ["judge ada 2 10 quiet"], "nor is it answered for");
    // Bob turns quiet off and on while history is asked, which has heard of the former only.
    topic.stored_behind(11, 10, &change(&quiet(false), Some(("bob", RANK_MODERATOR))));
    topic.stored_behind(12, 11, &change(&quiet(true), Some(("bob", RANK_MODERATOR))));
    topic.shown();
    let title = Change { title: Some("Tea".into()), quiet: Some(false), ..Change::default() };
    let shown = review(&mut topic, 11, title);
    let state = r#"[null,null,"room:r","room:state",{"quiet":true,"quiet_rank":50,"title":"Tea"}]"#;
    assert_eq!(shown, [format!("ada: {state}"), format!("bob: {state}")]);
    assert!(!talks(&mut topic, 13));
    assert_eq!(topic.acked(ADA, 2, 13), ["ada: 2 quiet"], "it is known again");
}

#[test]
fn an_answer_of_before_another_gap_or_of_what_has_not_come_is_asked_for_again() {
    let mut topic = in_doubt();
    assert_eq!(review(&mut topic, 10, quiet(true)), ["review"]);
    topic.stored_behind(15, 14, &entry("lesson", "{}", "h", None));
    topic.room.repaired(9, How::Shown, None, &mut topic.out);
    assert!(!topic.shown().contains(&"review".to_owned()), "it is being asked");
    assert_eq!(review(&mut topic, 9, quiet(false)), ["review"]);
    assert_eq!(review(&mut topic, 15, quiet(true)).len(), 2);
    assert!(!talks(&mut topic, 16));
    assert!(review(&mut topic, 16, quiet(false)).is_empty() && !talks(&mut topic, 17), "nothing was asked");
}

#[test]
fn a_room_that_was_wiped_in_a_gap_is_joined_again() {
    let mut topic = in_doubt();
    let reply = ReadReply { last_seq: 9, room: Some(view(5, None)), ..ReadReply::default() };
    topic.room.reviewed(reply, &mut topic.out);
    assert_eq!(topic.shown(), ["ada: failed", "bob: failed"]);
}
