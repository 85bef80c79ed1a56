//! Chats over all joins of their two: everything once, in order, to the right side, while they are active.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use switchboard_contract::lobby::Role;

use super::users::NEVER_ENTERED;
use super::{End, Violation, Who};

/// A chat by number, so that an open push need not carry its id.
pub(super) type ChatIndex = usize;

/// A message of one side.
#[derive(Clone, Copy, Debug)]
struct Said {
    /// When it was said first.
    at: Duration,
    order: u64,
    /// Its place, once it was acknowledged.
    seq: Option<u64>,
}

/// What one side of a chat did and saw.
#[derive(Debug, Default)]
struct Side {
    /// Shown on the present channel of the lobby.
    shown: bool,
    was_shown: bool,
    enters: bool,
    /// Told ready on the present channel.
    ready: bool,
    was_ready: bool,
    /// It was told the end, by an event.
    over: bool,
    /// It knows of the end, by an event or a refusal.
    knows_the_end: bool,
    gap: bool,
    said: Vec<Said>,
    /// The last message that it heard, and its place.
    heard: (u32, u64),
    /// The largest place of its own messages that it was told.
    acked: u64,
}

#[derive(Debug)]
struct Chat {
    id: Box<str>,
    /// Teacher and student.
    pair: (u32, u32),
    sides: [Side; 2],
    /// When a client was first shown it.
    seen: (Duration, u64),
    /// It was active at least until then: a message that was sent first at this point was stored.
    proven: u64,
    asked_to_end: bool,
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

    fn spans(&self, order: u64) -> bool {
        self.seen.1 <= order && order <= self.proven
    }

    /// The first message of the other side that was acknowledged and did not come, if no gap excuses it.
    fn missed(&self, by: usize) -> Option<u32> {
        let (listener, speaker) = (&self.sides[by], &self.sides[1 - by]);
        let mut later = (1..).zip(&speaker.said).skip_while(|(n, _)| *n <= listener.heard.0);
        let missed = later.find(|(_, said)| said.seq.is_some()).map(|(n, _)| n);
        missed.filter(|_| !listener.gap)
    }
}

/// What is known of a chat whose end is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) pair: (u32, u32),
    pub(super) seen_at: Duration,
    /// Both had been told that it is ready.
    pub(super) ready: bool,
    /// Somebody asked for its end.
    pub(super) asked: bool,
    /// Its end was known before.
    pub(super) known: bool,
    /// It is the last that its student was seen in.
    pub(super) latest: bool,
}

#[derive(Debug, Default)]
pub(super) struct Chats {
    index: HashMap<Box<str>, ChatIndex>,
    all: BTreeMap<ChatIndex, Chat>,
    /// The number of the next one.
    next: ChatIndex,
    of: HashMap<Who, Vec<ChatIndex>>,
    /// When each may be over if a side has not entered, in the order they were seen.
    entered_by: VecDeque<(Duration, ChatIndex)>,
    /// Messages that were said, and that were acknowledged, each counted once.
    pub(super) said: u64,
    pub(super) acked: u64,
}

impl Chats {
    /// Its number; that of no chat, if it is none.
    pub(super) fn at(&self, chat: &str) -> ChatIndex {
        self.index.get(chat).copied().unwrap_or(ChatIndex::MAX)
    }

    pub(super) fn id(&self, chat: ChatIndex) -> String {
        self.all.get(&chat).map_or_else(String::new, |chat| chat.id.to_string())
    }

    pub(super) fn pair(&self, chat: ChatIndex) -> Option<(u32, u32)> {
        self.all.get(&chat).map(|chat| chat.pair)
    }

    fn chats_of(&self, who: Who) -> impl Iterator<Item = &Chat> {
        self.of.get(&who).into_iter().flatten().filter_map(|at| self.all.get(at))
    }

    /// Those of a user's chats whose end is not known.
    pub(super) fn pairs(&self, who: Who) -> Vec<(u32, u32)> {
        self.chats_of(who).filter(|chat| !chat.ended).map(|chat| chat.pair).collect()
    }

    /// A chat that may be over because one side has not entered it for so long; each one once.
    pub(super) fn never_entered(&mut self, now: Duration) -> Option<(u32, u32)> {
        while let Some(&(by, at)) = self.entered_by.front()
            && by <= now
        {
            self.entered_by.pop_front();
            let Some(chat) = self.all.get(&at) else { continue };
            if !chat.sides.iter().all(|side| side.was_ready) {
                return Some(chat.pair);
            }
        }
        None
    }

    fn get(&mut self, chat: &str) -> Option<&mut Chat> {
        let at = self.at(chat);
        self.all.get_mut(&at)
    }

    fn own(&mut self, who: Who, chat: &str, what: &'static str) -> Result<&mut Chat, Violation> {
        let not_member = || Violation::NotMember { who, what, chat: chat.to_owned() };
        self.get(chat).filter(|found| found.has(who)).ok_or_else(not_member)
    }

    /// A new channel of the lobby may be shown every chat again.
    pub(super) fn lobby_joined(&mut self, who: Who) {
        for at in self.of.get(&who).into_iter().flatten() {
            if let Some(chat) = self.all.get_mut(at) {
                chat.side(who.role).shown = false;
            }
        }
    }

    /// `new:chat`; true if nobody has seen the chat before.
    pub(super) fn shown(
        &mut self,
        who: Who,
        chat: &str,
        pair: (u32, u32),
        at: Duration,
        order: u64,
    ) -> Result<bool, Violation> {
        let first = !self.index.contains_key(chat);
        if first {
            let index = self.next;
            self.next += 1;
            self.entered_by.push_back((at + NEVER_ENTERED, index));
            self.index.insert(chat.into(), index);
            for who in [Who::teacher(pair.0), Who::student(pair.1)] {
                self.of.entry(who).or_default().push(index);
            }
            let (id, sides) = (chat.into(), <[Side; 2]>::default());
            let chat = Chat { id, pair, sides, seen: (at, order), proven: 0, asked_to_end: false, ended: false };
            self.all.insert(index, chat);
        }
        let wrong = Violation::WrongPair { who, chat: chat.to_owned(), teacher: pair.0, student: pair.1 };
        let Some(it) = self.get(chat).filter(|it| it.pair == pair && it.has(who)) else { return Err(wrong) };
        let side = it.side(who.role);
        side.was_shown = true;
        if std::mem::replace(&mut side.shown, true) {
            return Err(Violation::ShownTwice { who, chat: chat.to_owned() });
        }
        Ok(first)
    }

    pub(super) fn joins(&mut self, who: Who, chat: &str) -> ChatIndex {
        if let Some(chat) = self.get(chat) {
            chat.side(who.role).ready = false;
        }
        self.at(chat)
    }

    pub(super) fn enters(&mut self, who: Who, chat: &str) -> ChatIndex {
        if let Some(chat) = self.get(chat) {
            chat.side(who.role).enters = true;
        }
        self.at(chat)
    }

    pub(super) fn terminates(&mut self, chat: &str) -> ChatIndex {
        if let Some(chat) = self.get(chat) {
            chat.asked_to_end = true;
        }
        self.at(chat)
    }

    pub(super) fn gap(&mut self, who: Who, chat: &str) -> Result<(), Violation> {
        self.own(who, chat, "gap")?.side(who.role).gap = true;
        Ok(())
    }

    pub(super) fn ready(&mut self, who: Who, chat: &str) -> Result<(), Violation> {
        let it = self.own(who, chat, "chat:ready")?;
        if !it.sides.iter().all(|side| side.enters) {
            return Err(Violation::ReadyEarly { who, chat: chat.to_owned() });
        }
        let side = it.side(who.role);
        side.was_ready = true;
        if std::mem::replace(&mut side.ready, true) {
            return Err(Violation::Twice { who, what: "chat:ready", chat: chat.to_owned() });
        }
        Ok(())
    }

    /// A message, for the first time or again: they are said in order, so the next number is a new one.
    pub(super) fn says(&mut self, who: Who, chat: &str, n: u32, at: Duration, order: u64) -> ChatIndex {
        if let Some(chat) = self.get(chat) {
            let said = &mut chat.side(who.role).said;
            if u32::try_from(said.len()).is_ok_and(|len| n == len + 1) {
                said.push(Said { at, order, seq: None });
                self.said += 1;
            }
        }
        self.at(chat)
    }

    /// A message's `ok`. Its place is the one the listener saw, the same each time, and fits its neighbours'.
    pub(super) fn stored(
        &mut self,
        who: Who,
        chat: ChatIndex,
        n: u32,
        seq: u64,
        capacity: u32,
    ) -> Result<(), Violation> {
        let Some(it) = self.all.get_mut(&chat) else { return Ok(()) };
        let heard = it.side(who.role.other()).heard;
        let id = it.id.to_string();
        let side = it.side(who.role);
        let at = usize::try_from(n).unwrap_or(usize::MAX).saturating_sub(1);
        let at = at.min(side.said.len());
        let (before, from) = side.said.split_at_mut(at);
        let Some((said, after)) = from.split_first_mut() else { return Ok(()) };
        let other = match said.seq {
            Some(first) => Some(first).filter(|first| *first != seq),
            None if heard.0 == n => Some(heard.1).filter(|heard| *heard != seq),
            None => {
                let below = before.iter().rev().find_map(|said| said.seq).filter(|below| *below >= seq);
                below.or_else(|| after.iter().find_map(|said| said.seq).filter(|above| *above <= seq))
            }
        };
        if let Some(other) = other {
            return Err(Violation::Seq { who, chat: id, n, seq, other });
        }
        let first = said.seq.replace(seq).is_none();
        let order = said.order;
        side.acked = side.acked.max(seq);
        self.acked += u64::from(first);
        self.proven(chat, order, capacity)
    }

    /// The chat was active at this point: with how many others of its two at the same time?
    fn proven(&mut self, chat: ChatIndex, until: u64, capacity: u32) -> Result<(), Violation> {
        let Some(it) = self.all.get_mut(&chat) else { return Ok(()) };
        let (from, pair) = (it.proven.max(it.seen.1), it.pair);
        if until <= it.proven {
            return Ok(());
        }
        it.proven = until;
        for (who, limit) in [(Who::teacher(pair.0), capacity), (Who::student(pair.1), 1)] {
            // The most are active at once where one begins.
            let begins = self.chats_of(who).map(|chat| chat.seen.1).filter(|begin| (from..=until).contains(begin));
            let most =
                begins.map(|begin| self.chats_of(who).filter(|chat| chat.spans(begin)).count()).max().unwrap_or(0);
            let most = u32::try_from(most).unwrap_or(u32::MAX);
            if most > limit {
                return Err(match who.role {
                    Role::Teacher => Violation::AboveCapacity { teacher: who.n, chats: most, capacity },
                    Role::Student => Violation::TwoChats { student: who.n, chats: most },
                });
            }
        }
        Ok(())
    }

    /// A message; gives the time at which it was said first.
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
        let at = usize::try_from(n).unwrap_or(usize::MAX).wrapping_sub(1);
        let said = it.side(who.role.other()).said.get(at).copied();
        let listener = it.side(who.role);
        if listener.over {
            return Err(Violation::AfterEnd { who, chat: id(), n });
        }
        let expected = listener.heard.0 + 1;
        if n < expected || (n > expected && !listener.gap) {
            return Err(Violation::Sequence { who, chat: id(), n, expected });
        }
        let Some(said) = said else { return Err(Violation::Invented { who, chat: id(), n }) };
        // What stands below the seq of an own `ok` was sent before that `ok`, and is not sent again behind a join.
        let below = listener.heard.1.max(listener.acked);
        let contradicted = match said.seq {
            Some(stored) if stored != seq => Some(stored),
            Some(_) | None => (seq <= below).then_some(below),
        };
        if let Some(other) = contradicted {
            return Err(Violation::Seq { who, chat: id(), n, seq, other });
        }
        listener.heard = (n, seq);
        Ok(said.at)
    }

    /// The end is told to one of the two. By an event, it comes once and behind all that was acknowledged.
    pub(super) fn over(&mut self, who: Who, chat: &str, how: End) -> Result<Told, Violation> {
        let number = self.at(chat);
        let it = self.own(who, chat, "its end")?;
        let by = match who.role {
            Role::Teacher => 0,
            Role::Student => 1,
        };
        match how {
            End::Terminated | End::Requeued => {
                if let Some(n) = it.missed(by) {
                    return Err(Violation::Missed { who, chat: chat.to_owned(), n });
                }
                if std::mem::replace(&mut it.sides[by].over, true) {
                    return Err(Violation::Twice { who, what: "the end", chat: chat.to_owned() });
                }
            }
            // Another push that was on its way is refused too, and the event may still come.
            End::Refused => {}
        }
        it.sides[by].knows_the_end = true;
        let known = std::mem::replace(&mut it.ended, true);
        let ready = it.sides.iter().all(|side| side.was_ready);
        let (pair, seen_at, asked) = (it.pair, it.seen.0, it.asked_to_end);
        let latest = self.of.get(&Who::student(pair.1)).is_some_and(|of| of.last() == Some(&number));
        Ok(Told { pair, seen_at, ready, asked, known, latest })
    }

    /// Whether this student has had a whole chat.
    pub(super) fn served(&self, student: u32, messages: u32) -> bool {
        self.chats_of(Who::student(student))
            .any(|chat| chat.ended && chat.sides.iter().all(|side| side.heard.0 == messages))
    }

    /// A chat of this student whose teacher was shown it, and does not know of its end.
    pub(super) fn untold(&self, student: u32) -> Option<(Who, String)> {
        let mut chats = self.chats_of(Who::student(student));
        let chat = chats.find(|chat| chat.sides[0].was_shown && !chat.sides[0].knows_the_end)?;
        Some((Who::teacher(chat.pair.0), chat.id.to_string()))
    }

    /// Forgets all chats of a student.
    pub(super) fn forget(&mut self, student: u32) {
        for at in self.of.remove(&Who::student(student)).unwrap_or_default() {
            let Some(chat) = self.all.remove(&at) else { continue };
            self.index.remove(&chat.id);
            if let Some(of) = self.of.get_mut(&Who::teacher(chat.pair.0)) {
                of.retain(|other| *other != at);
            }
        }
    }

    /// How many are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.len() + self.index.len() + self.of.values().map(Vec::len).sum::<usize>()
    }

    /// Whether anything acknowledged was never heard, though no end came between.
    pub(super) fn finish(&self) -> Result<(), Violation> {
        for chat in self.all.values().filter(|chat| !chat.ended) {
            for (by, who) in [Who::teacher(chat.pair.0), Who::student(chat.pair.1)].into_iter().enumerate() {
                if let Some(n) = chat.missed(by) {
                    return Err(Violation::Missed { who, chat: chat.id.to_string(), n });
                }
            }
        }
        Ok(())
    }
}
