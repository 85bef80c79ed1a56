//! Whether what the members of a room saw can be. Pure.
//!
//! The members' receipts are not kept: each member has one place in the room's log, which is what all of them saw and
//! what was acknowledged. Whoever goes on to a later place must have had what is known to stand between; and when
//! something becomes known that stands before the place of others, they must have had it too. An entry costs 24 bytes,
//! a message that was sent 48.

mod log;
mod presence;
mod seat;
mod violation;

use std::collections::VecDeque;
use std::time::Duration;

use switchboard_contract::limits::{ANSWER_TIMEOUT, LOG_MESSAGES_MAX};

pub(in crate::load) use log::{Event, Said};
pub(in crate::load) use violation::{Broken, Violation};

use log::{Entry, Log};
use presence::count;
use seat::{Fate, Seat};

/// After the last change all lists are the same within this time: a gateway that has died is off them after 6 s.
pub(in crate::load) const QUIET: Duration = Duration::from_secs(7);
/// What was sent before a gap was shown, and is logged, is known after this time: it was answered.
const GAP_JUDGED_AFTER: Duration = ANSWER_TIMEOUT;

/// A gap that is still to be judged.
#[derive(Debug)]
struct Gap {
    at: Duration,
    member: u16,
    from: u64,
    to: u64,
}

/// A room, as its members see it.
#[derive(Debug)]
pub(in crate::load) struct Room {
    id: Box<str>,
    seats: Vec<Seat>,
    log: Log,
    gaps: VecDeque<Gap>,
    /// When somebody came or went, and whether lists were compared since.
    changed: Duration,
    compared: bool,
}

impl Room {
    /// One whose members have these keys; it remembers the last `keep` entries of its log.
    pub(in crate::load) fn new(id: &str, keys: &[Box<str>], keep: usize) -> Room {
        let seats = keys.iter().map(|key| Seat::new(key, keep)).collect();
        Room {
            id: id.into(),
            seats,
            log: Log::new(keep),
            gaps: VecDeque::new(),
            changed: Duration::ZERO,
            compared: false,
        }
    }

    /// A violation that this member saw.
    pub(in crate::load) fn broken(&self, member: u16, what: Broken) -> Violation {
        Violation { room: self.id.clone(), member, what }
    }

    fn seat(&mut self, member: u16) -> &mut Seat {
        &mut self.seats[usize::from(member)]
    }

    fn joined_seat(&mut self, member: u16, what: &'static str) -> Result<&mut Seat, Violation> {
        if self.seat(member).joined {
            Ok(&mut self.seats[usize::from(member)])
        } else {
            Err(self.broken(member, Broken::NotJoined { what }))
        }
    }

    /// The `last_seq` that a member joins with.
    pub(in crate::load) fn last_seq(&self, member: u16) -> Option<u64> {
        let seat = &self.seats[usize::from(member)];
        seat.start.map(|_| seat.had)
    }

    /// A join was answered.
    pub(in crate::load) fn joined(
        &mut self,
        member: u16,
        at: Duration,
        last_seq: u64,
        recovered: bool,
    ) -> Result<(), Violation> {
        self.change(at);
        let seat = self.seat(member);
        (seat.joined, seat.joined_at) = (true, at);
        seat.list.joined();
        if seat.start.is_none() {
            (seat.start, seat.had) = (Some(last_seq), last_seq);
            return if recovered {
                Ok(())
            } else {
                Err(self.broken(member, Broken::NoGap { what: "a first join", had: 0 }))
            };
        }
        seat.expects_gap = !recovered;
        let asked = seat.had;
        if last_seq < asked {
            return Err(self.broken(member, Broken::Behind { asked, last_seq }));
        }
        Ok(())
    }

    /// A member's channel is gone: left, or lost with its socket.
    pub(in crate::load) fn gone(&mut self, member: u16, at: Duration) {
        self.change(at);
        self.seat(member).lost();
    }

    /// Lists may differ for a while from now on.
    pub(in crate::load) fn change(&mut self, at: Duration) {
        (self.changed, self.compared) = (at, false);
    }

    /// `gap`; `excused`: nobody may have been there who could have been asked.
    pub(in crate::load) fn gap(
        &mut self,
        member: u16,
        at: Duration,
        (from, to): (u64, u64),
        excused: bool,
    ) -> Result<(), Violation> {
        let seat = self.joined_seat(member, "a gap")?;
        let (had, expected) = (seat.had, std::mem::take(&mut seat.expects_gap));
        if to < from || from <= had || (expected && from != had + 1) || (!expected && !excused) {
            return Err(self.broken(member, Broken::StrayGap { from, to, had }));
        }
        self.advance(member, from - 1)?;
        self.seat(member).misses(from, to);
        if !excused {
            self.gaps.push_back(Gap { at, member, from, to });
        }
        Ok(())
    }

    /// A member sends a message, or the same once more; one with an id of its own will be sent until it is answered.
    /// Whether it is a new one.
    pub(in crate::load) fn sends(&mut self, member: u16, n: u32, id: bool, at: Duration) -> bool {
        self.seat(member).sends(n, id, at)
    }

    /// A message was answered with `unavailable`.
    pub(in crate::load) fn unknown(&mut self, member: u16, n: u32) {
        if let Some(sent) = self.seat(member).sent(n) {
            sent.fate = Fate::Unknown;
        }
    }

    /// A message was answered with `ok` and this sequence. Everything before it was received by the same socket.
    pub(in crate::load) fn acked(&mut self, member: u16, said: Said, seq: u64) -> Result<(), Violation> {
        if let Some(sent) = self.seat(member).sent(said.n) {
            sent.fate = Fate::Acked;
        }
        match self.log.get_mut(seq) {
            Some(entry) if entry.said == said => {}
            Some(Entry { said: Said { by, n, .. }, .. }) => {
                let what = Broken::Differs { seq, by: *by, n: *n };
                return Err(self.broken(member, what));
            }
            None => self.store(member, Entry { seq, said, digest: 0 })?,
        }
        match said.event {
            Event::Broadcast => self.advance(member, seq),
            // The event itself takes the place.
            Event::Say => self.advance(member, seq.saturating_sub(1)),
        }
    }

    /// An event with a sequence came, whose payload has this digest, not 0. `read` says which message it is. How long
    /// it took from one side to the other, if that can be said.
    pub(in crate::load) fn heard(
        &mut self,
        member: u16,
        at: Duration,
        (seq, digest): (u64, u32),
        read: impl FnOnce() -> Result<Said, Broken>,
    ) -> Result<Option<Duration>, Violation> {
        let seat = self.joined_seat(member, "a message")?;
        let (had, joined_at) = (seat.had, seat.joined_at);
        if seat.expects_gap {
            return Err(self.broken(member, Broken::NoGap { what: "a message", had }));
        }
        if seq <= had {
            return Err(self.broken(member, Broken::Order { seq, had }));
        }
        if seq <= self.log.floor() {
            self.seat(member).had = seq;
            return Ok(None);
        }
        let said = match self.log.get_mut(seq) {
            Some(entry) if entry.digest == digest => entry.said,
            Some(entry) => {
                let known = *entry;
                let said = read().map_err(|what| self.broken(member, what))?;
                if known.digest != 0 || known.said != said {
                    let Said { by, n, .. } = known.said;
                    return Err(self.broken(member, Broken::Differs { seq, by, n }));
                }
                if let Some(entry) = self.log.get_mut(seq) {
                    entry.digest = digest;
                }
                said
            }
            None => {
                let said = read().map_err(|what| self.broken(member, what))?;
                self.store(member, Entry { seq, said, digest })?;
                said
            }
        };
        self.advance(member, seq)?;
        let Said { by, n, event } = said;
        let Some(sent) = self.seat(by).sent(n) else { return Ok(None) };
        if by == member && event == Event::Broadcast && !sent.was_lost {
            return Err(self.broken(member, Broken::Own { seq, n }));
        }
        let live = by != member && !sent.was_lost && sent.at > joined_at;
        Ok(live.then(|| at.saturating_sub(sent.at)))
    }

    /// Something becomes known: whoever has gone past it had to see it.
    fn store(&mut self, member: u16, entry: Entry) -> Result<(), Violation> {
        let Entry { seq, said: Said { by, n, .. }, .. } = entry;
        if usize::from(by) >= self.seats.len() {
            return Err(self.broken(member, Broken::Invented { seq, by, n }));
        }
        let forgot = self.seat(by).forgot(n);
        match self.seat(by).sent(n) {
            Some(sent) if sent.seq == 0 => sent.seq = seq,
            Some(sent) => {
                let first = sent.seq;
                return Err(self.broken(member, Broken::Twice { by, n, first, second: seq }));
            }
            None if forgot => {}
            None => return Err(self.broken(member, Broken::Invented { seq, by, n })),
        }
        if self.log.insert(entry) {
            for (other, seat) in (0..).zip(&self.seats) {
                if seat.has_passed(seq) && seat.is_shown(other == by, &entry) {
                    let (had, to) = (seq.saturating_sub(1), seat.had);
                    return Err(self.broken(other, Broken::Missed { seq, by, n, had, to }));
                }
            }
        }
        Ok(())
    }

    /// A member has everything before `to`, and has got to it.
    fn advance(&mut self, member: u16, to: u64) -> Result<(), Violation> {
        let seat = &self.seats[usize::from(member)];
        if to <= seat.had {
            return Ok(());
        }
        let missed = |entry: &&Entry| seat.is_shown(entry.said.by == member, entry);
        if let Some(Entry { seq, said: Said { by, n, .. }, .. }) = self.log.between(seat.had, to).find(missed) {
            let what = Broken::Missed { seq: *seq, by: *by, n: *n, had: seat.had, to };
            return Err(self.broken(member, what));
        }
        self.seat(member).had = to;
        Ok(())
    }

    /// `presence_state` came.
    pub(in crate::load) fn state(&mut self, member: u16, json: &str) -> Result<(), Violation> {
        let told = self.joined_seat(member, "presence_state")?.list.state(json);
        told.map_err(|what| self.broken(member, what))
    }

    /// `presence_diff` came.
    pub(in crate::load) fn diff(&mut self, member: u16, json: &str) -> Result<(), Violation> {
        let told = self.joined_seat(member, "presence_diff")?.list.diff(json);
        told.map_err(|what| self.broken(member, what))
    }

    /// Judges what is due: gaps, and the lists of a room that has been quiet for long enough. How many lists were
    /// compared.
    pub(in crate::load) fn look(&mut self, now: Duration) -> Result<usize, Violation> {
        let due = self.gaps.iter().take_while(|gap| gap.at + GAP_JUDGED_AFTER <= now).count();
        for gap in self.gaps.drain(..due).collect::<Vec<_>>() {
            self.judge(&gap)?;
        }
        let quiet = now.saturating_sub(self.changed);
        if self.compared || quiet < QUIET {
            return Ok(0);
        }
        self.compared = true;
        self.compare(quiet)
    }

    /// Whether lists were compared since somebody came or went.
    pub(in crate::load) fn is_compared(&self) -> bool {
        self.compared
    }

    /// The last `LOG_MESSAGES_MAX` are kept: what a gap leaves out must stand before them. Of those only that had been
    /// sent when it was shown: later ones push nothing out.
    fn judge(&self, gap: &Gap) -> Result<(), Violation> {
        let Gap { member, from, to, at } = *gap;
        let was_sent = |said: Said| self.seats[usize::from(said.by)].sent_at(said.n).is_none_or(|sent| sent <= at);
        let behind = self.log.from(from).filter(|entry| was_sent(entry.said)).count();
        if behind <= LOG_MESSAGES_MAX && from > self.log.floor() {
            return Err(self.broken(member, Broken::Gap { from, to, behind, kept: LOG_MESSAGES_MAX }));
        }
        Ok(())
    }

    fn compare(&self, quiet: Duration) -> Result<usize, Violation> {
        let here = || (0..).zip(&self.seats).filter(|(_, seat)| seat.joined);
        let expected = count(here().map(|(_, seat)| &*seat.key));
        let Some((_, first)) = here().next() else { return Ok(0) };
        for (member, seat) in here() {
            if seat.list.sockets() != expected || !seat.list.agrees(&first.list) {
                let expected = format!("{expected:?}, as member 0 has it: {}", first.list.text());
                let (quiet_ms, has) = (quiet.as_millis(), seat.list.text());
                return Err(self.broken(member, Broken::Presence { quiet_ms, has, expected }));
            }
        }
        Ok(here().count())
    }

    /// Who is not there in the end: it has not joined, or not everything, or waits for an answer.
    pub(in crate::load) fn behind(&self) -> Option<Violation> {
        let last = self.log.last();
        (0..).zip(&self.seats).find_map(|(member, seat)| {
            if !seat.joined || seat.had < last {
                return Some(self.broken(member, Broken::NotThere { had: seat.had, last }));
            }
            seat.awaits().map(|n| self.broken(member, Broken::Unacknowledged { n }))
        })
    }
}

#[cfg(test)]
mod tests;
