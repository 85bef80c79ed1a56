//! Gaps in a chat's log as tables: what members see when something was lost on its way. And whatever is lost, they see
//! the log.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::tests::{STUDENT, TEACHER, Topic, log};
use super::*;
use crate::topic::{How, Part};

impl Topic {
    fn live(&mut self, seq: u64, previous: u64, from: Role) -> Vec<String> {
        self.stored_behind(seq, previous, "send", Some(from));
        self.shown()
    }

    fn repaired(&mut self, after: u64, entries: Vec<(u64, Fact)>, to: u64) -> Vec<String> {
        self.chat.repaired(after, How::History, Some(Part { entries, to }), &mut self.out);
        self.shown()
    }
}

fn said(seq: u64, from: Role) -> (u64, Fact) {
    (seq, Fact::Said(from, format!("{{\"message\":{seq},\"seq\":{seq}}}").into()))
}

fn received(to: &str, seq: u64) -> String {
    format!("{to}: [null,null,\"chats:c\",\"{to}:receive\",{{\"message\":{seq},\"seq\":{seq}}}]")
}

#[test]
fn what_is_missing_is_shown_before_what_came_behind_it() {
    let mut topic = Topic::joined();
    assert_eq!(topic.live(5, 0, Role::Teacher), [received("student", 5)]);
    assert_eq!(topic.live(8, 7, Role::Teacher), ["repair 5 7"]);
    assert!(topic.live(9, 8, Role::Student).is_empty(), "it waits too");
    topic.chat.acked(TEACHER, 2, Ok((7, false)), &mut topic.out);
    assert!(topic.shown().is_empty(), "stored, but it has not come by");
    let missing = vec![said(6, Role::Student), said(7, Role::Teacher)];
    assert_eq!(
        topic.repaired(5, missing, 7),
        [
            received("teacher", 6),
            received("student", 7),
            "teacher: 2 ok {\"seq\":7}".to_owned(),
            received("student", 8),
            received("teacher", 9),
            "repaired History".to_owned(),
        ]
    );
}

#[test]
fn the_first_entry_of_a_log_can_be_missing_too() {
    let mut topic = Topic::joined();
    assert_eq!(topic.live(5, 4, Role::Teacher), ["repair 0 4"]);
    let shown = topic.repaired(0, vec![(4, Fact::Ready)], 4);
    assert!(shown[0].contains("chat:ready") && shown[1].contains("chat:ready"), "{shown:?}");
    assert_eq!(shown[2], received("student", 5));
}

#[test]
fn a_loss_at_the_end_is_repaired_and_answers_whoever_waits() {
    let mut topic = Topic::joined();
    topic.chat.acked(TEACHER, 2, Ok((5, false)), &mut topic.out);
    topic.chat.behind(5, &mut topic.out);
    assert_eq!(topic.shown(), ["repair 0 5"]);
    let shown = topic.repaired(0, vec![said(5, Role::Teacher)], 5);
    assert_eq!(shown, [received("student", 5), "teacher: 2 ok {\"seq\":5}".into(), "repaired History".into()]);
    topic.chat.behind(5, &mut topic.out);
    assert!(topic.live(5, 0, Role::Teacher).is_empty(), "late, and known");
}

#[test]
fn a_repeated_id_is_answered_once_what_stands_before_it_was_shown() {
    let mut topic = Topic::joined();
    topic.chat.acked(TEACHER, 2, Ok((5, true)), &mut topic.out);
    assert_eq!(topic.shown(), ["repair 0 5"], "it was stored before, and has not come by");
    let missing = vec![said(4, Role::Student), said(5, Role::Teacher)];
    assert_eq!(
        topic.repaired(0, missing, 5),
        [
            received("teacher", 4),
            received("student", 5),
            "teacher: 2 ok {\"seq\":5}".to_owned(),
            "repaired History".to_owned(),
        ]
    );
}

#[test]
fn what_cannot_be_had_is_shown_as_a_gap_and_life_goes_on() {
    let mut topic = Topic::joined();
    topic.join("late", 3, Role::Student, 5, None);
    topic.live(5, 0, Role::Teacher);
    topic.live(8, 7, Role::Teacher);
    topic.chat.acked(TEACHER, 2, Ok((7, false)), &mut topic.out);
    topic.chat.repaired(5, How::Shown, None, &mut topic.out);
    let gap = r#"gap {"from":6,"to":7}"#;
    assert_eq!(
        topic.shown(),
        [
            "repaired Shown".to_owned(),
            format!("teacher: {gap}"),
            format!("student: {gap}"),
            received("student", 8),
            "teacher: 2 ok {\"seq\":7}".to_owned(),
        ]
    );
    topic.loaded(3, log(6));
    assert_eq!(topic.shown(), ["load 3 None"], "a join on its way reads again instead");
    topic.loaded(3, log(8));
    assert!(topic.shown().iter().all(|line| !line.contains("gap")));
    assert_eq!(topic.live(9, 8, Role::Teacher).len(), 2);
}

#[test]
fn a_gap_is_shown_only_to_those_who_have_not_read_over_it() {
    let mut topic = Topic::joined();
    topic.live(5, 0, Role::Teacher);
    topic.live(9, 8, Role::Teacher);
    for (name, chan, read) in [("over", 3, 9), ("half", 4, 7)] {
        topic.join(name, chan, Role::Student, 5, None);
        topic.loaded(chan, log(read));
    }
    topic.shown();
    topic.chat.repaired(5, How::Shown, None, &mut topic.out);
    let shown = topic.shown();
    assert!(shown.contains(&r#"half: gap {"from":8,"to":8}"#.to_owned()), "{shown:?}");
    assert!(shown.iter().all(|line| !line.starts_with("over")), "{shown:?}");
}

#[test]
fn what_a_join_was_answered_with_is_not_shown_to_it_again() {
    let mut topic = Topic::joined();
    topic.live(5, 0, Role::Teacher);
    topic.live(8, 7, Role::Teacher);
    topic.join("late", 3, Role::Student, 5, None);
    topic.loaded(3, ReadReply { said: 7, ..log(7) });
    topic.shown();
    let shown = topic.repaired(5, vec![said(6, Role::Teacher), said(7, Role::Teacher)], 7);
    let late: Vec<&String> = shown.iter().filter(|line| line.starts_with("late")).collect();
    assert_eq!(late.len(), 1, "{shown:?}");
    assert!(late[0].contains("\"seq\":8"), "{late:?}");
}

#[test]
fn behind_an_end_that_was_missing_everything_is_void() {
    let mut topic = Topic::joined();
    topic.chat.acked(TEACHER, 2, Ok((7, false)), &mut topic.out);
    assert_eq!(topic.live(8, 7, Role::Student), ["repair 0 7"]);
    let missing = vec![(6, Fact::End(ChatEnd::Terminated)), said(7, Role::Teacher)];
    let shown = topic.repaired(0, missing, 7);
    assert_eq!(shown.len(), 4, "{shown:?}");
    assert!(shown[0].contains("chat:terminated") && shown[1].contains("chat:terminated"), "{shown:?}");
    assert!(shown[2].contains("ChatFinished"), "{shown:?}");
}

#[test]
fn of_two_first_joins_the_one_that_read_less_reads_again_and_not_for_ever() {
    let mut topic = Topic::new();
    topic.join("teacher", TEACHER, Role::Teacher, 7, None);
    topic.join("student", STUDENT, Role::Student, 5, None);
    topic.loaded(TEACHER, log(9));
    topic.shown();
    topic.loaded(STUDENT, log(8));
    assert_eq!(topic.shown(), ["load 2 None"]);
    topic.loaded(STUDENT, log(0));
    assert!(topic.shown()[0].starts_with("student: 1 ok"), "its log has been forgotten meanwhile");
}

#[test]
fn an_entry_that_is_not_understood_has_its_place() {
    let mut topic = Topic::joined();
    topic.chat.stored(5, 0, None, &mut topic.out);
    assert_eq!(topic.live(6, 5, Role::Teacher), [received("student", 6)]);
}

/// A log, its way to the topic, and what each member saw of it.
struct World {
    topic: Topic,
    log: Vec<(u64, Role)>,
    /// On their way: sequence, predecessor, side.
    way: VecDeque<(u64, u64, Role)>,
    /// Asked for, and not answered yet: behind what, and up to where at least.
    repairs: Vec<(u64, u64)>,
    /// What the late member's join was answered with.
    late: Option<u64>,
    seen: Vec<String>,
}

impl World {
    fn end(&self) -> u64 {
        self.log.last().map_or(0, |(seq, _)| *seq)
    }

    fn say(&mut self, lost: bool, from: Role) {
        let previous = self.end();
        let seq = previous + 1 + previous % 3;
        self.log.push((seq, from));
        if !lost {
            self.way.push_back((seq, previous, from));
        }
    }

    fn deliver(&mut self) {
        if let Some((seq, previous, from)) = self.way.pop_front() {
            self.topic.stored_behind(seq, previous, "send", Some(from));
        }
    }

    /// From somebody who knows the whole log, or no more than has to be known.
    fn answer(&mut self, whole: bool) {
        if let Some((after, to)) = self.repairs.pop() {
            let to = if whole { self.end() } else { to };
            let asked = self.log.iter().filter(|(seq, _)| *seq > after && *seq <= to);
            let part = Part { entries: asked.map(|(seq, from)| said(*seq, *from)).collect(), to };
            self.topic.chat.repaired(after, How::Stream, Some(part), &mut self.topic.out);
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
            0..=2 => self.say(false, Role::Teacher),
            3 | 4 => self.say(false, Role::Student),
            5 | 6 => self.say(true, Role::Teacher),
            7 => self.say(true, Role::Student),
            8..=10 => self.deliver(),
            11 => self.answer(false),
            12 => self.answer(true),
            13 => self.topic.chat.behind(self.end(), &mut self.topic.out),
            14 if self.late.is_none() => {
                self.topic.join("late", 3, Role::Student, 5, None);
                self.late = Some(self.end());
            }
            _ => {
                let last = self.late.unwrap_or(0);
                self.topic.loaded(3, log(last));
            }
        }
        self.note();
    }

    fn seen_by(&self, name: &str) -> Vec<u64> {
        let mine = self.seen.iter().filter(|line| line.starts_with(&format!("{name}: [")));
        mine.map(|line| line.rsplit("\"seq\":").next().unwrap().trim_end_matches("}]").parse().unwrap()).collect()
    }

    fn said_by(&self, role: Role, after: u64) -> Vec<u64> {
        self.log.iter().filter(|(seq, from)| *from == role && *seq > after).map(|(seq, _)| *seq).collect()
    }
}

proptest! {
    #[test]
    fn whatever_is_lost_delayed_or_repaired_members_see_the_log_in_order(
        steps in prop::collection::vec(0u8..16, 0..120),
    ) {
        let mut world = World {
            topic: Topic::joined(),
            log: Vec::new(),
            way: VecDeque::new(),
            repairs: Vec::new(),
            late: None,
            seen: Vec::new(),
        };
        steps.into_iter().for_each(|step| world.step(step));
        // In the end all that is on its way arrives, and the hub asks whether that was all.
        while !world.way.is_empty() || !world.repairs.is_empty() || world.topic.chat.position() < Some(world.end()) {
            world.deliver();
            world.note();
            world.answer(false);
            world.note();
            world.topic.chat.behind(world.end(), &mut world.topic.out);
            world.note();
        }
        if let Some(last) = world.late {
            world.topic.loaded(3, log(last));
            world.note();
            prop_assert_eq!(world.seen_by("late"), world.said_by(Role::Teacher, last));
        }
        prop_assert_eq!(world.seen_by("student"), world.said_by(Role::Teacher, 0));
        prop_assert_eq!(world.seen_by("teacher"), world.said_by(Role::Student, 0));
        prop_assert!(world.seen.iter().all(|line| !line.contains("gap") && !line.contains("Shown")));
    }
}
