//! A student or teacher who comes back: what it asks for, whatever happens to its socket. Pure: time is told.
//!
//! A join that is refused is tried again as phoenix.js does. phoenix.js also gives up one without an answer after 10 s;
//! nothing of that is here, as the judge ends the run after the protocol's 5 s, unless the socket is lost before.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use switchboard_contract::lobby::Role;

use super::backoff;
use super::judge::End;
use super::talk::{Joined, Talk};

/// After `unavailable`, a push is sent again after this time.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Chats that a user remembers to be over: of a long life, the last ones.
const PAST_MAX: usize = 256;

/// Something to be asked of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Join,
    Ready,
    Claim,
    Leave,
    /// Joins a chat; with `last_seq` if it has done so before.
    JoinChat(Rc<str>, Option<u64>),
    Enter(Rc<str>),
    Say(Rc<str>, u32),
    Terminate(Rc<str>),
    LeaveChat(Rc<str>),
}

/// How an ask was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// `ok`, with this `seq` or 0.
    Ok(u64),
    /// Unknown whether it happened.
    Unavailable,
    /// The chat is over or gone.
    Gone,
}

#[derive(Clone, Debug)]
enum Timer {
    Rejoin,
    RejoinChat(Rc<str>),
    Ready,
    Leave,
    Again(Rc<str>),
    Say(Rc<str>, u32),
    Terminate(Rc<str>),
}

/// One user.
#[derive(Debug)]
pub(super) struct Player {
    role: Role,
    messages: u32,
    pace: Duration,
    joined: Joined,
    tries: usize,
    talks: BTreeMap<Rc<str>, Talk>,
    /// Chats that are over for it: one that is shown late is not joined again.
    past: VecDeque<Rc<str>>,
    timers: Vec<(Duration, Timer)>,
    leaving: bool,
    left: bool,
    /// It was told that it waits, or that it is on the roster.
    pub(super) arrived: bool,
    /// Pushes that it sent again.
    pub(super) repeated: u64,
    /// What is to be sent now.
    pub(super) asks: Vec<Ask>,
}

impl Player {
    pub(super) fn new(role: Role, messages: u32, pace: Duration) -> Player {
        Player {
            role,
            messages,
            pace,
            joined: Joined::No,
            tries: 0,
            talks: BTreeMap::new(),
            past: VecDeque::new(),
            timers: Vec::new(),
            leaving: false,
            left: false,
            arrived: false,
            repeated: 0,
            asks: Vec::new(),
        }
    }

    /// A socket is open: joins everything again.
    pub(super) fn opened(&mut self) {
        self.join();
        for talk in self.talks.values_mut() {
            talk.tries = 0;
            talk.join(&mut self.asks);
        }
    }

    /// The socket is lost. Who was leaving has left by that.
    pub(super) fn lost(&mut self) {
        self.joined = Joined::No;
        self.tries = 0;
        self.asks.clear();
        self.talks.retain(|_, talk| !talk.over);
        self.talks.values_mut().for_each(Talk::lost);
        // Joining does again what these would have done.
        self.timers.retain(|(_, timer)| matches!(timer, Timer::Say(..) | Timer::Terminate(_)));
        self.left |= self.leaving;
    }

    /// Whether it has left for good.
    pub(super) fn has_left(&self) -> bool {
        self.left
    }

    /// Whether it is about to leave, or has.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Whether it may claim a student.
    pub(super) fn may_claim(&self, capacity: u32) -> bool {
        let active = self.talks.values().filter(|talk| !talk.over).count();
        self.joined == Joined::Yes && !self.leaving && u32::try_from(active).is_ok_and(|active| active < capacity)
    }

    /// Leaves the lobby, now or once it has joined it.
    pub(super) fn leave(&mut self) {
        if !self.leaving {
            self.leaving = true;
            if self.joined == Joined::Yes {
                self.asks.push(Ask::Leave);
            }
        }
    }

    fn join(&mut self) {
        self.joined = Joined::Asked;
        self.asks.push(Ask::Join);
    }

    /// An ask was answered.
    pub(super) fn answered(&mut self, ask: Ask, answer: Answer, now: Duration) {
        match (ask, answer) {
            (Ask::Join, Answer::Ok(_)) => {
                (self.joined, self.tries) = (Joined::Yes, 0);
                match self.role {
                    Role::Student | Role::Teacher if self.leaving => self.asks.push(Ask::Leave),
                    Role::Student => self.asks.push(Ask::Ready),
                    Role::Teacher => self.arrived = true,
                }
            }
            (Ask::Join, Answer::Unavailable | Answer::Gone) => {
                self.joined = Joined::No;
                self.timers.push((now + backoff::join(self.tries), Timer::Rejoin));
                self.tries += 1;
            }
            (Ask::Ready, Answer::Ok(_)) => self.arrived = true,
            (Ask::Ready, Answer::Unavailable | Answer::Gone) => self.timers.push((now + AGAIN_AFTER, Timer::Ready)),
            (Ask::Claim, _) => {}
            (Ask::Leave, Answer::Ok(_)) => self.left = true,
            (Ask::Leave, Answer::Unavailable | Answer::Gone) => self.timers.push((now + AGAIN_AFTER, Timer::Leave)),
            (Ask::LeaveChat(id), _) => {
                self.talks.remove(&id);
            }
            (Ask::JoinChat(id, _) | Ask::Enter(id) | Ask::Terminate(id), Answer::Gone) => self.over(&id, End::Refused),
            // The end comes on the channel, behind what is before it.
            (Ask::Say(..), Answer::Gone) => {}
            (Ask::JoinChat(id, _), Answer::Ok(_)) => {
                if let Some(talk) = self.talks.get_mut(&id) {
                    self.repeated += talk.entered(&mut self.asks);
                }
            }
            (Ask::JoinChat(id, _), Answer::Unavailable) => self.rejoin_chat(id, now),
            (Ask::Enter(id), Answer::Ok(_)) => self.talk(&id, Talk::is_in),
            (Ask::Say(id, n), Answer::Ok(seq)) => self.talk(&id, |talk| talk.stored(n, seq)),
            (Ask::Terminate(id), Answer::Ok(_)) => self.talk(&id, Talk::ending),
            (Ask::Enter(id) | Ask::Say(id, _) | Ask::Terminate(id), Answer::Unavailable) => {
                self.timers.push((now + AGAIN_AFTER, Timer::Again(id)));
            }
        }
    }

    fn talk(&mut self, id: &str, change: impl FnOnce(&mut Talk)) {
        if let Some(talk) = self.talks.get_mut(id) {
            change(talk);
        }
    }

    fn rejoin_chat(&mut self, id: Rc<str>, now: Duration) {
        if let Some(talk) = self.talks.get_mut(&id) {
            talk.lost();
            let after = backoff::join(talk.tries);
            talk.tries += 1;
            self.timers.push((now + after, Timer::RejoinChat(id)));
        }
    }

    /// `phx_error`: the channel is to be joined again.
    pub(super) fn channel_failed(&mut self, chat: Option<&str>, now: Duration) {
        match chat {
            Some(chat) => self.rejoin_chat(chat.into(), now),
            None => self.answered(Ask::Join, Answer::Unavailable, now),
        }
    }

    /// `new:chat`; whether it is one that it had not been shown.
    pub(super) fn shown(&mut self, chat: &str) -> bool {
        if self.leaving || self.talks.contains_key(chat) || self.past.iter().any(|past| **past == *chat) {
            return false;
        }
        let id: Rc<str> = chat.into();
        let mut talk = Talk::new(Rc::clone(&id));
        talk.join(&mut self.asks);
        self.talks.insert(id, talk);
        true
    }

    /// `chat:ready`: the teacher has the first word.
    pub(super) fn ready(&mut self, chat: &str, now: Duration) {
        let silent = self.talks.get(chat).is_some_and(|talk| talk.said == 0);
        let planned = |timer: &Timer| matches!(timer, Timer::Say(of, _) if **of == *chat);
        if self.role == Role::Teacher && silent && !self.timers.iter().any(|(_, timer)| planned(timer)) {
            self.later(Timer::Say(chat.into(), 1), now);
        }
    }

    /// A message of the other side.
    pub(super) fn heard(&mut self, chat: &str, n: u32, seq: u64, now: Duration) {
        let id: Rc<str> = chat.into();
        self.talk(chat, |talk| (talk.heard, talk.last_seq) = (n, talk.last_seq.max(seq)));
        match self.role {
            Role::Student => self.later(Timer::Say(id, n), now),
            Role::Teacher if n < self.messages => self.later(Timer::Say(id, n + 1), now),
            Role::Teacher => self.later(Timer::Terminate(id), now),
        }
    }

    /// A chat is over. A student goes on with the next one, unless it has had its whole chat.
    pub(super) fn over(&mut self, chat: &str, how: End) {
        let Some(talk) = self.talks.get_mut(chat).filter(|talk| !talk.over) else { return };
        talk.over = true;
        let whole = talk.whole(self.role, self.messages);
        self.past.push_back(chat.into());
        if self.past.len() > PAST_MAX {
            self.past.pop_front();
        }
        if talk.joined == Joined::Yes {
            self.asks.push(Ask::LeaveChat(chat.into()));
        } else {
            self.talks.remove(chat);
        }
        match (self.role, how) {
            (Role::Teacher, End::Terminated | End::Requeued | End::Refused) => {}
            (Role::Student, End::Terminated | End::Requeued | End::Refused) if whole => self.leave(),
            // It is in the queue already.
            (Role::Student, End::Requeued) => {}
            (Role::Student, End::Terminated | End::Refused) => {
                if self.joined == Joined::Yes && !self.leaving {
                    self.asks.push(Ask::Ready);
                }
            }
        }
    }

    fn later(&mut self, timer: Timer, now: Duration) {
        if self.pace.is_zero() { self.fire(timer) } else { self.timers.push((now + self.pace, timer)) }
    }

    /// When the next timer ends.
    pub(super) fn next_timer(&self) -> Option<Duration> {
        self.timers.iter().map(|(at, _)| *at).min()
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Duration) {
        let (due, later) = std::mem::take(&mut self.timers).into_iter().partition(|(at, _)| *at <= now);
        self.timers = later;
        let due: Vec<(Duration, Timer)> = due;
        due.into_iter().for_each(|(_, timer)| self.fire(timer));
    }

    fn fire(&mut self, timer: Timer) {
        let asks = &mut self.asks;
        match timer {
            Timer::Rejoin => self.join(),
            Timer::Ready if self.leaving => {}
            Timer::Ready => {
                self.repeated += 1;
                asks.push(Ask::Ready);
            }
            Timer::Leave => {
                self.repeated += 1;
                asks.push(Ask::Leave);
            }
            Timer::RejoinChat(id) => {
                if let Some(talk) = self.talks.get_mut(&id).filter(|talk| !talk.over && talk.joined == Joined::No) {
                    talk.join(asks);
                }
            }
            Timer::Again(id) => {
                if let Some(talk) = self.talks.get_mut(&id) {
                    talk.unanswered();
                    self.repeated += talk.flush(asks);
                }
            }
            Timer::Say(id, n) => {
                if let Some(talk) = self.talks.get_mut(&id).filter(|talk| !talk.over) {
                    talk.say(n, asks);
                }
            }
            Timer::Terminate(id) => {
                if let Some(talk) = self.talks.get_mut(&id).filter(|talk| !talk.over) {
                    talk.terminate(asks);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
