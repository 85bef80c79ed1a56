//! What one member has, and has said. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use super::log::{Entry, Event};
use super::presence::List;

/// Ranges that a member was told it will not see. More than these are forgotten, and judged no more.
const GAPS_MAX: usize = 10_000;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was sent on the channel that is there now.
    Open,
    /// It was answered with `ok`.
    Acked,
    /// It was answered with `unavailable`.
    Unknown,
    /// Its channel went before the answer came, when the member had everything up to here.
    Lost(u64),
}

/// A message that a member has sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// 0: not known yet.
    pub(super) seq: u64,
    /// When it was sent first.
    pub(super) at: Duration,
    pub(super) fate: Fate,
    /// It has an id of its own.
    id: bool,
    /// A channel of its went before it was stored for certain: the next one may be shown it.
    pub(super) was_lost: bool,
}

/// A member.
#[derive(Debug)]
pub(super) struct Seat {
    /// `<user>:<session>`.
    pub(super) key: Box<str>,
    pub(super) joined: bool,
    /// When its present join was answered.
    pub(super) joined_at: Duration,
    /// It has, or was told that it will not get, everything behind `start` up to here.
    pub(super) had: u64,
    /// Where its first join began; `None`: it has not joined yet.
    pub(super) start: Option<u64>,
    /// `recovered` was false: a gap is next.
    pub(super) expects_gap: bool,
    pub(super) list: List,
    gaps: VecDeque<(u64, u64)>,
    /// The messages that it has sent, of which the first is `first`.
    sent: VecDeque<Sent>,
    first: u32,
    keep: usize,
}

impl Seat {
    /// One who has never joined; of whose messages the last `keep` are remembered.
    pub(super) fn new(key: &str, keep: usize) -> Seat {
        Seat {
            key: key.into(),
            joined: false,
            joined_at: Duration::ZERO,
            had: 0,
            start: None,
            expects_gap: false,
            list: List::default(),
            gaps: VecDeque::new(),
            sent: VecDeque::new(),
            first: 0,
            keep,
        }
    }

    /// Its `n`th message, if it was sent and is remembered.
    pub(super) fn sent(&mut self, n: u32) -> Option<&mut Sent> {
        let at = n.checked_sub(self.first)?;
        self.sent.get_mut(usize::try_from(at).ok()?)
    }

    /// When it sent its `n`th message; `None`: so long ago that it is forgotten.
    pub(super) fn sent_at(&self, n: u32) -> Option<Duration> {
        let at = n.checked_sub(self.first)?;
        self.sent.get(usize::try_from(at).ok()?).map(|sent| sent.at)
    }

    /// Whether its `n`th message was sent so long ago that it is forgotten.
    pub(super) fn forgot(&self, n: u32) -> bool {
        n < self.first
    }

    /// Sends its next message, or the same again; whether it is a new one.
    pub(super) fn sends(&mut self, n: u32, id: bool, at: Duration) -> bool {
        if let Some(sent) = self.sent(n) {
            sent.fate = Fate::Open;
            return false;
        }
        self.sent.push_back(Sent { seq: 0, at, fate: Fate::Open, id, was_lost: false });
        if self.sent.len() > self.keep {
            self.sent.pop_front();
            self.first += 1;
        }
        true
    }

    /// The message whose answer it waits for, or will.
    pub(super) fn awaits(&self) -> Option<u32> {
        let newest = self.sent.back()?;
        let awaits = match newest.fate {
            Fate::Open => true,
            Fate::Acked => false,
            Fate::Unknown | Fate::Lost(_) => newest.id,
        };
        awaits.then(|| self.first + u32::try_from(self.sent.len() - 1).unwrap_or(u32::MAX))
    }

    /// Its channel is gone.
    pub(super) fn lost(&mut self) {
        self.joined = false;
        self.expects_gap = false;
        let had = self.had;
        // What was `unavailable` may have been stored, or may still be; the next socket is another one than its sender.
        let unknown = self.sent.iter_mut().filter(|sent| sent.fate == Fate::Unknown);
        unknown.for_each(|sent| sent.was_lost = true);
        // Only the newest can be open: the one before it was answered, or lost earlier.
        if let Some(sent) = self.sent.back_mut().filter(|sent| sent.fate == Fate::Open) {
            (sent.fate, sent.was_lost) = (Fate::Lost(had), true);
        }
    }

    /// It will not see these, inclusive.
    pub(super) fn misses(&mut self, from: u64, to: u64) {
        if self.gaps.len() >= GAPS_MAX {
            self.gaps.pop_front();
            self.start = self.gaps.front().map(|gap| gap.0).or(self.start);
        }
        self.gaps.push_back((from, to));
        self.had = self.had.max(to);
    }

    /// Whether it has gone past this sequence, and was to see what stands there.
    pub(super) fn has_passed(&self, seq: u64) -> bool {
        self.start.is_some_and(|start| seq > start)
            && seq <= self.had
            && !self.gaps.iter().rev().any(|(from, to)| (*from..=*to).contains(&seq))
    }

    /// Whether it is shown this entry: always another's, and its own `new_msg` only if the channel that sent it is
    /// gone, and had not got to it.
    pub(super) fn is_shown(&self, own: bool, entry: &Entry) -> bool {
        if !own || entry.said.event == Event::Say {
            return true;
        }
        let at = entry.said.n.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        match at.and_then(|at| self.sent.get(at)).map(|sent| sent.fate) {
            Some(Fate::Lost(had)) => entry.seq > had,
            Some(Fate::Open | Fate::Acked | Fate::Unknown) | None => false,
        }
    }
}
