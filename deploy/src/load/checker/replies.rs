//! Every push is answered, in time and once.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::chats::ChatIndex;
use super::{Violation, Who};

/// What was asked, as far as its answer matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A place in the queue, at this point.
    Ready(u64),
    /// A message.
    Say { chat: ChatIndex, n: u32 },
    /// Anything else.
    Other(&'static str),
}

impl Asked {
    pub(super) fn text(self) -> &'static str {
        match self {
            Asked::Ready(_) => "student:ready",
            Asked::Say { .. } => "a message",
            Asked::Other(text) => text,
        }
    }
}

/// Open pushes.
#[derive(Debug, Default)]
pub(super) struct Replies {
    open: HashMap<(Who, u64), (Duration, Asked)>,
    /// In the order they were sent; answered ones are dropped when they come to the front.
    oldest: VecDeque<(Duration, Who, u64)>,
}

impl Replies {
    pub(super) fn pushed(&mut self, who: Who, reference: u64, at: Duration, asked: Asked) {
        self.open.insert((who, reference), (at, asked));
        self.oldest.push_back((at, who, reference));
        self.drop_answered();
    }

    fn drop_answered(&mut self) {
        while self.oldest.front().is_some_and(|(_, who, reference)| !self.open.contains_key(&(*who, *reference))) {
            self.oldest.pop_front();
        }
    }

    /// What a reply answers, and how long it took.
    pub(super) fn replied(
        &mut self,
        who: Who,
        reference: u64,
        at: Duration,
        within: Duration,
    ) -> Result<(Asked, Duration), Violation> {
        let (sent, asked) = self.open.remove(&(who, reference)).ok_or(Violation::StrayReply { who, reference })?;
        let after = at.saturating_sub(sent);
        if after > within {
            return Err(Violation::Unanswered { who, what: asked.text(), reference, seconds: within.as_secs() });
        }
        Ok((asked, after))
    }

    pub(super) fn overdue(&mut self, now: Duration, within: Duration) -> Result<(), Violation> {
        self.drop_answered();
        match self.oldest.front() {
            Some((sent, ..)) if now.saturating_sub(*sent) > within => self.oldest_open(within.as_secs()),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn finish(&self) -> Result<(), Violation> {
        self.oldest_open(0)
    }

    fn oldest_open(&self, seconds: u64) -> Result<(), Violation> {
        for (_, who, reference) in &self.oldest {
            if let Some((_, asked)) = self.open.get(&(*who, *reference)) {
                return Err(Violation::Unanswered { who: *who, what: asked.text(), reference: *reference, seconds });
            }
        }
        Ok(())
    }
}
