//! What a gateway does not know of a room behind a gap that nobody could fill: who may talk, for what stood in the gap
//! may have changed it. History is asked; the log goes on meanwhile. Pure.

use switchboard_contract::log::ReadReply;
use switchboard_contract::room::{Change, RoomView};

use super::fact::Author;
use crate::observe;

/// Changes of the state that are remembered while history is asked; with more it is asked once more.
const CHANGES_MAX: usize = 64;

/// Whether the state is in doubt, and what came since.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// History is being asked.
    asked: bool,
    /// Its answer will be too old.
    again: bool,
    /// It was known otherwise meanwhile: its answer is not needed.
    settled: bool,
    /// What came since it was asked, each with its sequence: at most [`CHANGES_MAX`].
    changes: Vec<(u64, Author, Change<'static>)>,
}

/// What history's answer is good for.
pub(super) enum Answer {
    /// Nothing: nobody knows more than is known here.
    Nothing,
    /// It is too old, or of what has not come yet.
    Again,
    /// So the room is now.
    View(RoomView),
}

impl Doubt {
    /// Whether the state is in doubt.
    pub(super) fn is_there(&self) -> bool {
        self.asked && !self.settled
    }

    /// A part of the log was given up: whether history has to be asked, and is not being asked already.
    pub(super) fn missed(&mut self) -> bool {
        let asks = !self.asked;
        *self = Doubt { asked: true, again: !asks, ..Doubt::default() };
        asks
    }

    /// The state is known.
    pub(super) fn settle(&mut self) {
        self.settled = true;
        self.changes = Vec::new();
    }

    /// A change has its turn.
    pub(super) fn note(&mut self, seq: u64, author: &Author, change: &Change<'static>) {
        if self.is_there() && self.changes.len() < CHANGES_MAX {
            self.changes.push((seq, author.clone(), change.clone()));
        } else if self.is_there() {
            observe::full("doubt");
            self.again = true;
        }
    }

    /// History has answered; `at` is the sequence up to which all has had its turn.
    pub(super) fn reviewed(&mut self, at: u64, reply: ReadReply) -> Answer {
        let Doubt { asked, again, settled, changes } = std::mem::take(self);
        if settled || !asked {
            return Answer::Nothing;
        }
        if again || reply.last_seq > at {
            self.asked = true;
            return Answer::Again;
        }
        // It may have forgotten the room, for want of memory.
        let Some(mut view) = reply.room else { return Answer::Nothing };
        for (_, author, change) in changes.iter().filter(|(seq, ..)| *seq > reply.last_seq) {
            view.state.apply(author.as_ref().map(|(user, rank)| (user, *rank)), change);
        }
        Answer::View(view)
    }
}
