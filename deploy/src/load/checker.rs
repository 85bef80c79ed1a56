//! Judges a run of the lobby by what its clients sent and saw. Pure: no clock, no sockets.
//!
//! Events are told in one order, that of the load generator: what is sent is told before it leaves, what is received
//! after it came. So "A was received before B was sent" says that A happened before B, and nothing else does: every
//! rule rests on such pairs alone, and is never a false alarm because two clients saw the same instant differently.

mod chats;
mod queue;
mod replies;
mod status;
#[cfg(test)]
mod tests;
mod violation;

use std::time::Duration;

use switchboard_contract::lobby::Role;

use chats::Chats;
pub(super) use queue::{Moment, Queue};
use replies::{Asked, Replies};
pub use status::Counts;
use status::Statuses;
pub use violation::Violation;

/// A client: which side, and the how-many-eth of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Who {
    /// Which side.
    pub role: Role,
    /// Counted from 0.
    pub n: u32,
}

impl Who {
    /// A teacher.
    pub const fn teacher(n: u32) -> Who {
        Who { role: Role::Teacher, n }
    }

    /// A student.
    pub const fn student(n: u32) -> Who {
        Who { role: Role::Student, n }
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.role {
            Role::Teacher => write!(f, "teacher {}", self.n),
            Role::Student => write!(f, "student {}", self.n),
        }
    }
}

/// Something that a client sends and that wants a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push<'a> {
    /// Joins the lobby.
    Join,
    /// `student:ready`.
    Ready,
    /// `claim:student`.
    Claim,
    /// Joins a chat.
    JoinChat(&'a str),
    /// `teacher:joined` or `student:joined`.
    Enter(&'a str),
    /// Message `n` of this side, counted from 1.
    Say(&'a str, u32),
    /// `chat:terminate`.
    Terminate(&'a str),
    /// Leaves a chat's topic.
    LeaveChat(&'a str),
    /// Leaves the lobby.
    Leave,
}

/// What a client sent or saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// It is about to send this.
    Pushed(u64, Push<'a>),
    /// The reply to the push with this ref came: its `seq` if it has one, or why it was refused.
    Replied(u64, Result<Option<u64>, &'a str>),
    /// `new:chat` came, naming these two; `None`: somebody who does not take part.
    NewChat {
        /// Its id.
        chat: &'a str,
        /// Which teacher.
        teacher: Option<u32>,
        /// Which student.
        student: Option<u32>,
    },
    /// `chat:ready` came.
    ChatReady(&'a str),
    /// `teacher:receive` or `student:receive` came.
    Heard {
        /// On the topic of this chat.
        chat: &'a str,
        /// For this side, by the event's name.
        to: Role,
        /// Said in this chat, by its text.
        about: &'a str,
        /// The speaker's how-many-eth.
        n: u32,
        /// Its place in the chat's order.
        seq: u64,
    },
    /// `chat:terminated` came.
    Terminated(&'a str),
    /// `user:status` came.
    Status(Counts),
}

/// How long something took, as an event shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took {
    /// From saying a message to hearing it on the other side.
    Message(Duration),
    /// From saying a message to its `ok`.
    Ack(Duration),
}

/// What the run was meant to be.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Chats at once of each teacher.
    pub capacity: u32,
    /// Messages each way.
    pub messages: u32,
    /// An answer may take this long.
    pub answer_within: Duration,
}

/// Everything seen so far.
#[derive(Debug)]
pub struct Checker {
    plan: Plan,
    order: u64,
    replies: Replies,
    queue: Queue,
    chats: Chats,
    statuses: Statuses,
}

impl Checker {
    /// Nothing seen yet.
    pub fn new(plan: Plan) -> Checker {
        Checker {
            plan,
            order: 0,
            replies: Replies::default(),
            queue: Queue::default(),
            chats: Chats::default(),
            statuses: Statuses::default(),
        }
    }

    /// Takes the next event; `at` is the time since the run began.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn observe(&mut self, who: Who, at: Duration, event: Event<'_>) -> Result<Option<Took>, Violation> {
        self.order += 1;
        match event {
            Event::Pushed(reference, push) => {
                let what = self.pushed(who, at, push);
                self.replies.pushed(who, reference, at, what);
                Ok(None)
            }
            Event::Replied(reference, outcome) => self.replied(who, reference, at, outcome),
            Event::NewChat { chat, teacher, student } => self.new_chat(who, chat, teacher, student).map(|()| None),
            Event::ChatReady(chat) => self.chats.ready(who, chat).map(|()| None),
            Event::Heard { chat, to, about, n, seq } => {
                let said_at = self.chats.heard(who, chat, to, about, n, seq)?;
                Ok(Some(Took::Message(at.saturating_sub(said_at))))
            }
            Event::Terminated(chat) => self.chats.terminated(who, chat).map(|()| None),
            Event::Status(counts) => self.statuses.status(who, counts).map(|()| None),
        }
    }

    /// Whether a push is still unanswered though its time is over.
    ///
    /// # Errors
    /// If so.
    pub fn overdue(&mut self, now: Duration) -> Result<(), Violation> {
        self.replies.overdue(now, self.plan.answer_within)
    }

    /// Whether everybody got everything, now that all is over. `teachers` are those who must know that the last
    /// student has gone.
    ///
    /// # Errors
    /// The first thing that is missing.
    pub fn finish(&self, students: u32, teachers: u32) -> Result<(), Violation> {
        self.queue.finish(students)?;
        self.replies.finish()?;
        self.chats.finish(self.plan.messages)?;
        if students == 0 { Ok(()) } else { self.statuses.finish(teachers) }
    }

    /// Whether this client has been told that no student is left.
    pub fn knows_the_end(&self, who: Who) -> bool {
        self.statuses.knows_the_end(who)
    }

    fn pushed(&mut self, who: Who, at: Duration, push: Push<'_>) -> Asked {
        let order = self.order;
        match push {
            Push::Ready => {
                self.queue.ready_sent(who.n, order);
                self.statuses.ready_sent();
                Asked::Ready(order)
            }
            Push::Claim => {
                self.queue.claim_sent(who.n, order);
                Asked::Other("claim:student")
            }
            Push::Enter(chat) => {
                self.chats.enters(who, chat);
                Asked::Other("joined")
            }
            Push::Say(chat, n) => Asked::Say { chat: self.chats.says(who, chat, n, at), n },
            Push::Terminate(chat) => {
                if let Some((teacher, student)) = self.chats.ends(chat) {
                    self.queue.freed(teacher, student, self.plan.capacity, self.now(at));
                    self.queue.terminated(student, order);
                    self.queue.served(student);
                }
                Asked::Other("chat:terminate")
            }
            Push::Leave => {
                if who.role == Role::Student {
                    self.statuses.leaves(who.n);
                }
                Asked::Other("leave")
            }
            Push::Join => Asked::Other("join"),
            Push::JoinChat(_) => Asked::Other("join of a chat"),
            Push::LeaveChat(_) => Asked::Other("leave of a chat"),
        }
    }

    fn replied(
        &mut self,
        who: Who,
        reference: u64,
        at: Duration,
        outcome: Result<Option<u64>, &str>,
    ) -> Result<Option<Took>, Violation> {
        let (asked, after) = self.replies.replied(who, reference, at, self.plan.answer_within)?;
        let seq = outcome.map_err(|reason| Violation::Refused {
            who,
            what: asked.text(),
            reason: reason.chars().take(200).collect(),
        })?;
        match asked {
            Asked::Ready(sent) => {
                self.queue.ready_acked(who.n, sent, self.now(at));
                self.statuses.ready_acked(who.n);
                Ok(None)
            }
            Asked::Say { chat, n } => {
                let seq = seq.ok_or(Violation::NoSeq { who, n })?;
                self.chats.stored(who, chat, n, seq)?;
                Ok(Some(Took::Ack(after)))
            }
            Asked::Other(_) => Ok(None),
        }
    }

    fn new_chat(&mut self, who: Who, chat: &str, teacher: Option<u32>, student: Option<u32>) -> Result<(), Violation> {
        let (Some(teacher), Some(student)) = (teacher, student) else {
            return Err(Violation::Stranger { who, chat: chat.to_owned() });
        };
        if self.chats.shown(who, chat, teacher, student)? {
            if !self.queue.is_waiting(student) {
                return Err(Violation::NotWaiting { student, teacher });
            }
            self.queue.assigned(teacher, student, self.plan.capacity, true, self.order)?;
        }
        Ok(())
    }

    fn now(&self, at: Duration) -> Moment {
        Moment { order: self.order, at }
    }
}
