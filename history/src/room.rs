//! What a room's log says beside its messages: its life, its state, and its keywords. Pure.

use std::time::Duration;

use serde_json::value::RawValue;
use switchboard_contract::log::Entry;
use switchboard_contract::room::{Change, Keyword, RoomEvent, RoomRecord, RoomState, RoomView};
use switchboard_contract::voids::Voids;

use crate::keywords::{self, Heard, Word};
use crate::tail::Tail;

/// What the facts of a room cost, keywords included. Bytes.
const ROOM_OVERHEAD: usize = 1024;

/// The facts of a room's log.
#[derive(Debug, Default)]
pub struct Room {
    /// 0: no life has begun.
    pub(crate) since: u64,
    pub(crate) state: RoomState,
    /// The entry that `state` comes from.
    pub(crate) state_seq: u64,
    /// The last message that a user sent.
    pub(crate) said_by_user: u64,
    /// Up to here the state at each entry is not known: the snapshot that this began with is younger.
    unknown_to: u64,
    voids: Voids,
    heard_to: u64,
    words: Vec<Word>,
    /// As of which [`Tail::version`], and until when.
    words_as_of: u64,
    words_until: u64,
}

/// What an entry means.
#[derive(Debug)]
pub(crate) enum Verdict {
    Message,
    /// Members are shown this.
    State(Box<RawValue>),
    /// The same, and nothing before it belongs to this life.
    Begins(Box<RawValue>),
    Void,
    /// Nobody knows whether it is void.
    Unknown,
}

impl Room {
    /// As a snapshot has it, for a log whose beginning the stream has dropped.
    pub(crate) fn from_record(record: RoomRecord) -> Room {
        let RoomRecord { since, seq, state, .. } = record;
        let mut voids = Voids::default();
        voids.unknown_to(seq);
        Room { since, state, state_seq: seq, unknown_to: seq, voids, ..Room::default() }
    }

    pub(crate) fn apply(&mut self, seq: u64, entry: &Entry<'_>) -> Verdict {
        let verdict = self.judge(seq, entry);
        if matches!(verdict, Verdict::Void) {
            self.voids.note(seq);
        }
        verdict
    }

    /// Whether an entry of this life that has been applied was void; `None`: it is not known.
    pub(crate) fn is_void(&self, seq: u64) -> Option<bool> {
        self.voids.is_void(seq).filter(|_| self.since > 0 && seq >= self.since)
    }

    fn judge(&mut self, seq: u64, entry: &Entry<'_>) -> Verdict {
        let state = RoomEvent::parse(&entry.event) == Some(RoomEvent::State);
        if seq <= self.unknown_to {
            return if state { Verdict::Void } else { Verdict::Unknown };
        }
        let author = entry.author();
        if !state {
            if self.state.silences(author) {
                return Verdict::Void;
            }
            if author.is_some() {
                self.said_by_user = seq;
            }
            return Verdict::Message;
        }
        let Ok(change) = serde_json::from_str::<Change<'_>>(entry.payload.get()) else { return Verdict::Void };
        if !self.state.apply(author, &change) {
            return Verdict::Void;
        }
        self.state_seq = seq;
        let shown = self.state.shown(change.grant.as_ref());
        let Ok(shown) = RawValue::from_string(shown) else { return Verdict::Void };
        if self.since > 0 {
            return Verdict::State(shown);
        }
        self.since = seq;
        Verdict::Begins(shown)
    }

    pub(crate) fn cost(&self) -> usize {
        ROOM_OVERHEAD + self.state.heap_bytes() + self.voids.heap_bytes()
    }

    /// Brings the keywords up to date with what is kept and with the time: unix milliseconds.
    pub(crate) fn listen(&mut self, tail: &mut Tail, now: u64, window: Duration) {
        if tail.version() == self.words_as_of && now < self.words_until {
            return;
        }
        let newest = tail.iter().last().map_or(0, |kept| kept.seq);
        tail.hear(self.heard_to, |message| Heard::of(message, now, window));
        self.heard_to = newest.max(self.heard_to);
        let heard = tail.iter().filter_map(|kept| kept.heard.as_deref());
        (self.words, self.words_until) = keywords::keywords(heard, now, window);
        self.words_as_of = tail.version();
    }

    /// The keywords as of the last [`Room::listen`], and until when they hold.
    pub(crate) fn words(&self) -> (&[Word], u64) {
        (&self.words, self.words_until)
    }

    pub(crate) fn view(&self) -> RoomView {
        let keywords = self.words.iter().map(Keyword::from).collect();
        RoomView { since: self.since, state: self.state.clone(), keywords }
    }
}

#[cfg(test)]
#[path = "room_tests.rs"]
mod tests;
