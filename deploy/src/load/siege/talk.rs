//! One side of a chat over all its joins: what is to be asked next. Pure.

use std::collections::BTreeMap;
use std::rc::Rc;

use switchboard_contract::lobby::Role;

use super::player::Ask;

/// How far a channel is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Joined {
    /// Not joined, or refused.
    #[default]
    No,
    /// Asked for.
    Asked,
    /// Joined.
    Yes,
}

/// How far something is that is asked until it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Want {
    /// Not wanted yet.
    #[default]
    No,
    /// To be asked; `again`: it was before.
    Due { again: bool },
    /// On its way.
    Asked,
    /// It has happened.
    Done,
}

impl Want {
    /// What was on its way has to be asked again.
    fn lost(&mut self) {
        if *self == Want::Asked {
            *self = Want::Due { again: true };
        }
    }

    /// Takes what is due; whether it is a repetition.
    fn take(&mut self) -> Option<bool> {
        match *self {
            Want::Due { again } => {
                *self = Want::Asked;
                Some(again)
            }
            Want::No | Want::Asked | Want::Done => None,
        }
    }
}

/// One side of a chat.
#[derive(Debug)]
pub(super) struct Talk {
    id: Rc<str>,
    pub(super) joined: Joined,
    pub(super) tries: usize,
    /// It has asked to join before: then it says how far it has read.
    pub(super) resumes: bool,
    /// The largest place that it saw.
    pub(super) last_seq: u64,
    pub(super) heard: u32,
    pub(super) said: u32,
    enter: Want,
    /// What was said and is not acknowledged.
    outbox: BTreeMap<u32, Want>,
    end: Want,
    pub(super) over: bool,
}

impl Talk {
    pub(super) fn new(id: Rc<str>) -> Talk {
        Talk {
            id,
            joined: Joined::No,
            tries: 0,
            resumes: false,
            last_seq: 0,
            heard: 0,
            said: 0,
            enter: Want::No,
            outbox: BTreeMap::new(),
            end: Want::No,
            over: false,
        }
    }

    /// Asks to join.
    pub(super) fn join(&mut self, asks: &mut Vec<Ask>) {
        self.joined = Joined::Asked;
        let last_seq = std::mem::replace(&mut self.resumes, true).then_some(self.last_seq);
        asks.push(Ask::JoinChat(Rc::clone(&self.id), last_seq));
    }

    /// The join was answered: enters, and says again what was not acknowledged.
    pub(super) fn entered(&mut self, asks: &mut Vec<Ask>) -> u64 {
        (self.joined, self.tries) = (Joined::Yes, 0);
        self.enter = Want::Due { again: false };
        self.flush(asks)
    }

    /// The channel is lost, and what was on its way with it.
    pub(super) fn lost(&mut self) {
        self.joined = Joined::No;
        self.unanswered();
    }

    /// What is on its way was answered with `unavailable`, or not at all.
    pub(super) fn unanswered(&mut self) {
        self.enter.lost();
        self.outbox.values_mut().for_each(Want::lost);
        self.end.lost();
    }

    /// Says message `n`.
    pub(super) fn say(&mut self, n: u32, asks: &mut Vec<Ask>) {
        self.said = n;
        self.outbox.insert(n, Want::Due { again: false });
        self.flush(asks);
    }

    /// Ends the chat.
    pub(super) fn terminate(&mut self, asks: &mut Vec<Ask>) {
        self.end = Want::Due { again: false };
        self.flush(asks);
    }

    /// Asks for all that is due; how much of it was asked before.
    pub(super) fn flush(&mut self, asks: &mut Vec<Ask>) -> u64 {
        let mut again = 0;
        if self.joined != Joined::Yes || self.over {
            return again;
        }
        let id = || Rc::clone(&self.id);
        if let Some(repeated) = self.enter.take() {
            again += u64::from(repeated);
            asks.push(Ask::Enter(id()));
        }
        for (n, want) in &mut self.outbox {
            if let Some(repeated) = want.take() {
                again += u64::from(repeated);
                asks.push(Ask::Say(id(), *n));
            }
        }
        if let Some(repeated) = self.end.take() {
            again += u64::from(repeated);
            asks.push(Ask::Terminate(id()));
        }
        again
    }

    /// A message of its own is stored.
    pub(super) fn stored(&mut self, n: u32, seq: u64) {
        self.outbox.remove(&n);
        self.last_seq = self.last_seq.max(seq);
    }

    /// It is in.
    pub(super) fn is_in(&mut self) {
        self.enter = Want::Done;
    }

    /// The end that it asked for was granted.
    pub(super) fn ending(&mut self) {
        self.end = Want::Done;
    }

    /// Whether this side has had its whole chat.
    pub(super) fn whole(&self, role: Role, messages: u32) -> bool {
        match role {
            Role::Teacher => self.heard == messages,
            Role::Student => self.said == messages && self.heard == messages,
        }
    }
}
