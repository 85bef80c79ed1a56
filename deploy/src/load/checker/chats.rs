//! Chats: exactly two in each, everything once, in order, to the right side.

use std::collections::HashMap;
use std::time::Duration;

use switchboard_contract::lobby::Role;

use super::{Violation, Who};

/// A chat by number, so that an open push need not carry its id.
pub(super) type ChatIndex = usize;

/// What one side of a chat did and saw.
#[derive(Clone, Copy, Debug, Default)]
struct Side {
    shown: bool,
    enters: bool,
    ready: bool,
    terminated: bool,
    said: u32,
    said_at: Duration,
    /// The last message of this side that was acknowledged, and its place.
    stored: (u32, u64),
    /// The last message that this side heard, and its place.
    heard: (u32, u64),
}

#[derive(Debug)]
struct Chat {
    id: Box<str>,
    /// Teacher and student.
    pair: (u32, u32),
    sides: [Side; 2],
    ended: bool,
}

impl Chat {
    fn side(&mut self, role: Role) -> &mut Side {
        match role {
            Role::Teacher => &mut self.sides[0],
            Role::Student => &mut self.sides[1],
        }
    }

    fn has(&self, who: Who) -> bool {
        match who.role {
            Role::Teacher => self.pair.0 == who.n,
            Role::Student => self.pair.1 == who.n,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Chats {
    index: HashMap<Box<str>, ChatIndex>,
    all: Vec<Chat>,
}

impl Chats {
    fn get(&mut self, chat: &str) -> Option<&mut Chat> {
        self.index.get(chat).map(|at| &mut self.all[*at])
    }

    /// The chat of one of its two, to whom it was shown.
    fn own(&mut self, who: Who, chat: &str, what: &'static str) -> Result<&mut Chat, Violation> {
        let not_member = || Violation::NotMember { who, what, chat: chat.to_owned() };
        let found = self.get(chat).filter(|found| found.has(who)).ok_or_else(not_member)?;
        if found.side(who.role).shown { Ok(found) } else { Err(not_member()) }
    }

    /// `new:chat`; true if nobody has seen the chat before.
    pub(super) fn shown(&mut self, who: Who, chat: &str, teacher: u32, student: u32) -> Result<bool, Violation> {
        let at = self.index.get(chat).copied();
        let first = at.is_none();
        let at = at.unwrap_or_else(|| {
            self.index.insert(chat.into(), self.all.len());
            let sides = [Side::default(); 2];
            self.all.push(Chat { id: chat.into(), pair: (teacher, student), sides, ended: false });
            self.all.len() - 1
        });
        let it = &mut self.all[at];
        if it.pair != (teacher, student) || !it.has(who) {
            return Err(Violation::WrongPair { who, chat: chat.to_owned(), teacher, student });
        }
        if std::mem::replace(&mut it.side(who.role).shown, true) {
            return Err(Violation::ShownTwice { who, chat: chat.to_owned() });
        }
        Ok(first)
    }

    pub(super) fn enters(&mut self, who: Who, chat: &str) {
        if let Some(chat) = self.get(chat) {
            chat.side(who.role).enters = true;
        }
    }

    pub(super) fn ready(&mut self, who: Who, chat: &str) -> Result<(), Violation> {
        let it = self.own(who, chat, "chat:ready")?;
        if !it.sides.iter().all(|side| side.enters) {
            return Err(Violation::ReadyEarly { who, chat: chat.to_owned() });
        }
        if std::mem::replace(&mut it.side(who.role).ready, true) {
            return Err(Violation::Twice { who, what: "chat:ready", chat: chat.to_owned() });
        }
        Ok(())
    }

    pub(super) fn says(&mut self, who: Who, chat: &str, n: u32, at: Duration) -> ChatIndex {
        // A client speaks in chats that it was shown: there is one.
        let index = self.index.get(chat).copied().unwrap_or(ChatIndex::MAX);
        if let Some(chat) = self.all.get_mut(index) {
            let side = chat.side(who.role);
            (side.said, side.said_at) = (n, at);
        }
        index
    }

    /// A message's `ok`: its place is the one the listener saw, and grows.
    pub(super) fn stored(&mut self, who: Who, chat: ChatIndex, n: u32, seq: u64) -> Result<(), Violation> {
        let Some(it) = self.all.get_mut(chat) else { return Ok(()) };
        let (before, heard) = (it.side(who.role).stored, it.side(who.role.other()).heard);
        let other = match heard {
            (heard_n, heard_seq) if heard_n == n && heard_seq != seq => Some(heard_seq),
            _ if seq <= before.1 => Some(before.1),
            _ => None,
        };
        if let Some(other) = other {
            return Err(Violation::Seq { who, chat: it.id.to_string(), n, seq, other });
        }
        it.side(who.role).stored = (n, seq);
        Ok(())
    }

    /// A message; gives the time at which it was said.
    pub(super) fn heard(
        &mut self,
        who: Who,
        chat: &str,
        to: Role,
        about: &str,
        n: u32,
        seq: u64,
    ) -> Result<Duration, Violation> {
        let it = self.own(who, chat, "a message")?;
        let id = || chat.to_owned();
        if to != who.role || about != chat {
            return Err(Violation::Astray { who, chat: id(), to, about: about.to_owned() });
        }
        let (speaker, listener) = (*it.side(who.role.other()), it.side(who.role));
        if listener.terminated {
            return Err(Violation::AfterEnd { who, chat: id(), n });
        }
        let expected = listener.heard.0 + 1;
        if n != expected {
            return Err(Violation::Sequence { who, chat: id(), n, expected });
        }
        if n > speaker.said {
            return Err(Violation::Invented { who, chat: id(), n });
        }
        // What stands below the seq of an own `ok` was sent to this socket before that `ok`.
        let below = listener.heard.1.max(listener.stored.1);
        let contradicted = if speaker.stored.0 == n && speaker.stored.1 != seq {
            Some(speaker.stored.1)
        } else {
            (seq <= below).then_some(below)
        };
        if let Some(other) = contradicted {
            return Err(Violation::Seq { who, chat: id(), n, seq, other });
        }
        listener.heard = (n, seq);
        Ok(speaker.said_at)
    }

    /// Somebody is about to end the chat; gives teacher and student if it was active till now.
    pub(super) fn ends(&mut self, chat: &str) -> Option<(u32, u32)> {
        let it = self.get(chat)?;
        (!std::mem::replace(&mut it.ended, true)).then_some(it.pair)
    }

    pub(super) fn terminated(&mut self, who: Who, chat: &str) -> Result<(), Violation> {
        let it = self.own(who, chat, "chat:terminated")?;
        if !it.ended {
            return Err(Violation::EndedByNobody { who, chat: chat.to_owned() });
        }
        if std::mem::replace(&mut it.side(who.role).terminated, true) {
            return Err(Violation::Twice { who, what: "chat:terminated", chat: chat.to_owned() });
        }
        Ok(())
    }

    pub(super) fn finish(&self, messages: u32) -> Result<(), Violation> {
        for chat in &self.all {
            let whos = [Who::teacher(chat.pair.0), Who::student(chat.pair.1)];
            for (side, who) in chat.sides.iter().zip(whos) {
                let missing = [
                    (side.shown, "new:chat"),
                    (side.ready, "chat:ready"),
                    (side.said == messages, "all that this side had to say"),
                    (side.heard.0 == messages, "all messages heard"),
                    (side.stored.0 == messages, "all messages acknowledged"),
                    (side.terminated, "chat:terminated"),
                ];
                if let Some((_, what)) = missing.into_iter().find(|(there, _)| !there) {
                    return Err(Violation::Incomplete { who, chat: chat.id.to_string(), what });
                }
            }
        }
        Ok(())
    }
}
