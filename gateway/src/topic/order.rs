//! The order in which a topic takes what its log brings: gap-free, each entry once. Pure.
//!
//! Each live entry names its predecessor. Where that is not the last one taken, something is missing: what comes live
//! waits until a repair has brought it, or has failed.

use std::collections::VecDeque;

use switchboard_contract::limits::REPAIR_BUFFER_MAX;

use crate::observe;

/// The place of a topic in its log, and what waits for its turn.
#[derive(Debug)]
pub(super) struct Order<T> {
    last: u64,
    state: State,
    waiting: VecDeque<Waiting<T>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody has read the log yet.
    Unplaced,
    /// Everything up to `last` has been taken.
    Following,
    /// What stands between `last` and this, inclusive, is being fetched.
    Repairing { to: u64 },
}

#[derive(Debug)]
struct Waiting<T> {
    seq: u64,
    previous: u64,
    item: T,
}

/// What is to be done, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<T> {
    /// The entry has its turn.
    Take(u64, T),
    /// These sequences, inclusive, are given up.
    GiveUp(u64, u64),
    /// Fetch what stands behind `after`, up to `to` at least; [`Order::repaired`] follows.
    Repair {
        /// The last one taken.
        after: u64,
        /// What is known to exist.
        to: u64,
    },
}

/// A part of the log without holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<T> {
    /// Its entries, in order.
    pub entries: Vec<(u64, T)>,
    /// There is nothing else up to here.
    pub to: u64,
}

impl<T> Order<T> {
    /// A topic that does not know its place in the log yet.
    pub(super) fn new() -> Self {
        Order { last: 0, state: State::Unplaced, waiting: VecDeque::new() }
    }

    /// The sequence up to which all has been taken or given up; `None` before the log was first read.
    pub(super) fn position(&self) -> Option<u64> {
        (self.state != State::Unplaced).then_some(self.last)
    }

    /// The log was read up to `last`. The first time that is the topic's place.
    pub(super) fn place(&mut self, last: u64, out: &mut Vec<Step<T>>) {
        if self.state == State::Unplaced {
            self.last = last;
            self.drain(out);
        }
    }

    /// The log brought an entry live; `previous` is the one before it in this log, or 0.
    pub(super) fn live(&mut self, seq: u64, previous: u64, item: T, out: &mut Vec<Step<T>>) {
        match self.state {
            State::Following if seq <= self.last => {}
            // Sequences are those of the whole stream: between neighbours there is nothing.
            State::Following if previous == self.last || seq == self.last + 1 => {
                self.last = seq;
                out.push(Step::Take(seq, item));
            }
            State::Following => {
                // Without a predecessor nobody knows: all that can be missing stands before this one.
                let to = if previous > self.last { previous } else { seq - 1 };
                self.waiting.push_back(Waiting { seq, previous, item });
                self.repair(to, out);
            }
            State::Unplaced | State::Repairing { .. } => self.wait(seq, previous, item, out),
        }
    }

    /// Somebody knows that the log reaches to `to`.
    pub(super) fn behind(&mut self, to: u64, out: &mut Vec<Step<T>>) {
        if self.state == State::Following && to > self.last {
            self.repair(to, out);
        }
    }

    /// The repair behind `after` has brought this, or nothing can be had: whether that has closed the gap.
    pub(super) fn repaired(&mut self, after: u64, part: Option<Part<T>>, out: &mut Vec<Step<T>>) -> bool {
        let State::Repairing { to } = self.state else { return false };
        if after != self.last {
            return false;
        }
        match part {
            Some(part) if part.to >= to => {
                for (seq, item) in part.entries {
                    if seq > self.last {
                        self.last = seq;
                        out.push(Step::Take(seq, item));
                    }
                }
                self.last = self.last.max(part.to);
                self.drain(out);
                true
            }
            Some(_) | None => {
                self.give_up(to, out);
                false
            }
        }
    }

    fn repair(&mut self, to: u64, out: &mut Vec<Step<T>>) {
        self.state = State::Repairing { to };
        out.push(Step::Repair { after: self.last, to });
    }

    fn wait(&mut self, seq: u64, previous: u64, item: T, out: &mut Vec<Step<T>>) {
        if seq <= self.waiting.back().map_or(0, |newest| newest.seq) {
            return;
        }
        if self.waiting.len() >= REPAIR_BUFFER_MAX {
            observe::full("repair_buffer");
            match self.state {
                State::Repairing { to } => {
                    self.give_up(to, out);
                    return self.live(seq, previous, item, out);
                }
                // Nobody has seen anything yet: once the place is known, this is a gap like any other.
                State::Unplaced | State::Following => self.waiting.clear(),
            }
        }
        self.waiting.push_back(Waiting { seq, previous, item });
    }

    fn give_up(&mut self, to: u64, out: &mut Vec<Step<T>>) {
        out.push(Step::GiveUp(self.last + 1, to));
        self.last = to;
        self.drain(out);
    }

    /// Takes what waits, up to the next gap.
    fn drain(&mut self, out: &mut Vec<Step<T>>) {
        self.state = State::Following;
        while let Some(next) = self.waiting.pop_front() {
            if next.previous > self.last {
                let to = next.previous;
                self.waiting.push_front(next);
                return self.repair(to, out);
            }
            if next.seq > self.last {
                self.last = next.seq;
                out.push(Step::Take(next.seq, next.item));
            }
        }
        self.waiting = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Topic {
        order: Order<u64>,
        out: Vec<Step<u64>>,
    }

    impl Topic {
        fn at(last: u64) -> Topic {
            let mut topic = Topic { order: Order::new(), out: Vec::new() };
            topic.order.place(last, &mut topic.out);
            topic
        }

        fn live(&mut self, seq: u64, previous: u64) -> Vec<Step<u64>> {
            self.order.live(seq, previous, seq, &mut self.out);
            std::mem::take(&mut self.out)
        }

        fn repaired(&mut self, after: u64, part: Option<(&[u64], u64)>) -> Vec<Step<u64>> {
            let part = part.map(|(seqs, to)| Part { entries: seqs.iter().map(|seq| (*seq, *seq)).collect(), to });
            self.order.repaired(after, part, &mut self.out);
            std::mem::take(&mut self.out)
        }

        fn behind(&mut self, to: u64) -> Vec<Step<u64>> {
            self.order.behind(to, &mut self.out);
            std::mem::take(&mut self.out)
        }
    }

    fn take(seqs: &[u64]) -> Vec<Step<u64>> {
        seqs.iter().map(|seq| Step::Take(*seq, *seq)).collect()
    }

    #[test]
    fn each_entry_has_its_turn_once() {
        let mut topic = Topic::at(5);
        assert_eq!(topic.live(7, 5), take(&[7]));
        assert_eq!(topic.live(7, 5), []);
        assert_eq!(topic.live(6, 5), []);
        assert_eq!(topic.live(9, 7), take(&[9]));
    }

    #[test]
    fn what_comes_before_the_place_is_known_waits_for_it() {
        let mut topic = Topic { order: Order::new(), out: Vec::new() };
        assert_eq!(topic.live(4, 3), []);
        assert_eq!(topic.live(6, 4), []);
        assert_eq!(topic.order.position(), None);
        topic.order.place(4, &mut topic.out);
        assert_eq!(std::mem::take(&mut topic.out), take(&[6]));
        topic.order.place(9, &mut topic.out);
        assert_eq!(topic.order.position(), Some(6), "it knows its place");
    }

    #[test]
    fn a_gap_is_repaired_before_anything_newer_has_its_turn() {
        let mut topic = Topic::at(5);
        assert_eq!(topic.live(9, 8), [Step::Repair { after: 5, to: 8 }]);
        assert_eq!(topic.live(10, 9), []);
        assert_eq!(topic.live(9, 8), []);
        assert_eq!(topic.repaired(5, Some((&[5, 6, 8, 8, 9], 9))), take(&[6, 8, 9, 10]));
        assert_eq!(topic.repaired(5, Some((&[6], 9))), [], "once");
    }

    #[test]
    fn a_second_gap_among_what_waits_is_repaired_next() {
        let mut topic = Topic::at(5);
        assert_eq!(topic.live(7, 6), [Step::Repair { after: 5, to: 6 }]);
        assert_eq!(topic.live(12, 11), []);
        let steps = topic.repaired(5, Some((&[6], 6)));
        assert_eq!(steps, [Step::Take(6, 6), Step::Take(7, 7), Step::Repair { after: 7, to: 11 }]);
        assert_eq!(topic.repaired(7, Some((&[11], 11))), take(&[11, 12]));
    }

    #[test]
    fn a_log_whose_last_entry_is_not_known_any_more_is_read_again() {
        let mut topic = Topic::at(5);
        assert_eq!(topic.live(9, 0), [Step::Repair { after: 5, to: 8 }]);
        assert_eq!(topic.repaired(5, Some((&[], 9))), []);
        assert_eq!(topic.live(10, 9), take(&[10]));
        let mut topic = Topic::at(0);
        assert_eq!(topic.live(9, 0), take(&[9]), "the first of its log");
    }

    #[test]
    fn what_cannot_be_had_is_given_up() {
        for part in [None, Some((&[6][..], 7))] {
            let mut topic = Topic::at(5);
            topic.live(9, 8);
            assert_eq!(topic.repaired(5, part), [Step::GiveUp(6, 8), Step::Take(9, 9)]);
            assert_eq!(topic.live(10, 9), take(&[10]));
        }
    }

    #[test]
    fn a_loss_at_the_end_is_repaired_when_it_is_known() {
        let mut topic = Topic::at(5);
        assert_eq!(topic.behind(5), []);
        assert_eq!(topic.behind(8), [Step::Repair { after: 5, to: 8 }]);
        assert_eq!(topic.behind(9), [], "one repair at a time");
        assert_eq!(topic.repaired(5, Some((&[7, 8], 8))), take(&[7, 8]));
        assert_eq!(topic.behind(8), []);
    }

    #[test]
    fn more_than_may_wait_is_a_gap_and_life_goes_on() {
        let mut topic = Topic::at(5);
        topic.live(9, 8);
        let most = 9 + REPAIR_BUFFER_MAX as u64;
        (10..most).for_each(|seq| assert_eq!(topic.live(seq, seq - 1), []));
        let steps = topic.live(most, most - 1);
        assert_eq!(steps[0], Step::GiveUp(6, 8));
        assert_eq!(steps[1..], take(&(9..=most).collect::<Vec<_>>()));
        assert_eq!(topic.repaired(5, Some((&[6], 8))), [], "too late");

        let mut topic = Topic { order: Order::new(), out: Vec::new() };
        (1..=most).for_each(|seq| assert_eq!(topic.live(seq, seq - 1), []));
        topic.order.place(1, &mut topic.out);
        assert!(
            matches!(topic.out[..], [Step::Repair { after: 1, .. }]),
            "before its place is known, nothing is shown"
        );
    }

    proptest! {
        /// Entries are lost, repeated and repaired late; whatever happens, the log is taken whole and in order.
        #[test]
        fn whatever_is_lost_the_log_is_taken_in_order(
            log in prop::collection::vec((1u64..4, 0u8..4), 1..60),
            start in 0usize..4,
        ) {
            let mut at = 10;
            let seqs: Vec<u64> = log.iter().map(|(step, _)| { at += step; at }).collect();
            let start = start.min(seqs.len());
            let placed = if start == 0 { 10 } else { seqs[start - 1] };
            let (mut topic, mut taken) = (Topic::at(placed), Vec::new());
            let mut asked = Vec::new();
            for (i, (_, fate)) in log.iter().enumerate().skip(start) {
                let previous = if i == 0 { 10 } else { seqs[i - 1] };
                let mut steps = Vec::new();
                if *fate != 0 {
                    steps = topic.live(seqs[i], previous);
                }
                if *fate == 1 {
                    steps.extend(topic.live(seqs[i], previous));
                }
                if *fate == 2 {
                    steps.extend(topic.behind(seqs[i]));
                }
                if *fate >= 2 && let Some(after) = asked.pop() {
                    let entries: Vec<u64> = seqs[..=i].iter().copied().filter(|seq| *seq > after).collect();
                    steps.extend(topic.repaired(after, Some((&entries, seqs[i]))));
                }
                note(steps, &mut taken, &mut asked);
            }
            // In the end it is known how far the log reaches, and every repair is answered.
            let end = *seqs.last().unwrap();
            for _ in 0..3 {
                note(topic.behind(end), &mut taken, &mut asked);
                while let Some(after) = asked.pop() {
                    let entries: Vec<u64> = seqs.iter().copied().filter(|seq| *seq > after).collect();
                    note(topic.repaired(after, Some((&entries, end))), &mut taken, &mut asked);
                }
            }
            prop_assert_eq!(&taken[..], &seqs[start..]);
        }
    }

    fn note(steps: Vec<Step<u64>>, taken: &mut Vec<u64>, asked: &mut Vec<u64>) {
        for step in steps {
            match step {
                Step::Take(seq, _) => taken.push(seq),
                Step::Repair { after, .. } => asked.push(after),
                Step::GiveUp(from, to) => panic!("{from} to {to} were given up"),
            }
        }
    }
}
