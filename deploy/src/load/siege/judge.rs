//! Judges a run in which processes are killed, by what its clients sent and saw. Pure: no clock, no sockets.
//!
//! As in `checker`, events are told in one order, and only what that order proves is held against the system. What
//! differs: a socket may be lost, and takes its open pushes and its channels with it; what comes once per channel may
//! come again on the next one; what was answered with `unavailable` may be asked again; a chat may end because one of
//! its two was away for the grace time. What does not differ: a message is heard once over all joins of a chat, in
//! order, and every one that was acknowledged is. Nor does the queue's order, as far as what was seen proves it.

mod chats;
#[cfg(test)]
mod tests;
mod users;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use switchboard_contract::lobby::Role;

use super::super::checker::{Counts, Moment, Plan, Push, Queue, Took, Violation, Who};
use chats::{ChatIndex, Chats};
use users::Users;

/// What may still come of a student that has left is over after this time.
const FORGET_AFTER: Duration = Duration::from_secs(60);
/// After so long a teacher has been told that the chat of a student that left is over, however often it was away.
const TOLD_WITHIN: Duration = Duration::from_secs(180);

/// How a chat's end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// `chat:terminated`.
    Terminated,
    /// `chat:requeued`.
    Requeued,
    /// A push or a join was refused: the chat is over, or no longer there.
    Refused,
}

/// What a client sent or saw.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event<'a> {
    /// It is about to send this.
    Pushed(u64, Push<'a>),
    /// The reply to the push with this ref came: its `seq` if it has one, or the reason of an error.
    Replied(u64, Result<Option<u64>, &'a str>),
    /// Its socket is lost.
    Lost,
    /// `new:chat` came, naming these two; `None`: somebody who does not take part.
    NewChat { chat: &'a str, teacher: Option<u32>, student: Option<u32> },
    /// `chat:ready` came.
    ChatReady(&'a str),
    /// A message came, on the topic of `chat`, for the side `to`, said in the chat `about`.
    Heard { chat: &'a str, to: Role, about: &'a str, n: u32, seq: u64 },
    /// The chat's end came.
    Ended(&'a str, End),
    /// `gap` came: what it spans is not held against the system, but counted.
    Gap(&'a str),
    /// `user:status` came.
    Status(Counts),
    /// The reply to a teacher's join said that so many students are there.
    Students(u64),
}

/// What an answer leads to.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Join,
    /// With when it was sent.
    Ready(u64),
    Claim,
    Leave,
    Say {
        chat: ChatIndex,
        n: u32,
    },
    Chat(&'static str, ChatIndex),
}

impl Asked {
    fn text(self) -> &'static str {
        match self {
            Asked::Join => "join",
            Asked::Ready(_) => "student:ready",
            Asked::Claim => "claim:student",
            Asked::Leave => "leave",
            Asked::Chat(text, _) => text,
            Asked::Say { .. } => "a message",
        }
    }
}

/// Everything seen so far.
#[derive(Debug)]
pub(super) struct Judge {
    plan: Plan,
    order: u64,
    open: HashMap<Who, BTreeMap<u64, (Duration, Asked)>>,
    users: Users,
    chats: Chats,
    queue: Queue,
    /// Students that asked for a place.
    asked: BTreeSet<u32>,
    /// Students that have left for good, when, in that order; and how many were forgotten.
    done: VecDeque<(Duration, u32)>,
    forgotten: u64,
    /// The last count of students that each teacher was told.
    told: BTreeMap<Who, u64>,
    gaps: u64,
}

impl Judge {
    /// Nothing seen yet.
    pub(super) fn new(plan: Plan) -> Judge {
        Judge {
            plan,
            order: 0,
            open: HashMap::new(),
            users: Users::default(),
            chats: Chats::default(),
            queue: Queue::default(),
            asked: BTreeSet::new(),
            done: VecDeque::new(),
            forgotten: 0,
            told: BTreeMap::new(),
            gaps: 0,
        }
    }

    /// Takes the next event; `at` is the time since the run began.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub(super) fn observe(&mut self, who: Who, at: Duration, event: Event<'_>) -> Result<Option<Took>, Violation> {
        self.order += 1;
        self.settle(at);
        match event {
            Event::Pushed(reference, push) => {
                let asked = self.pushed(who, at, push);
                self.open.entry(who).or_default().insert(reference, (at, asked));
            }
            Event::Replied(reference, outcome) => return self.replied(who, reference, at, outcome),
            Event::Lost => {
                // Whether what was on its way has happened is not known: the client asks again.
                let open = self.open.remove(&who).unwrap_or_default();
                for _ in open.values().filter(|(_, asked)| matches!(asked, Asked::Claim)) {
                    self.queue.claim_unknown(who.n, at);
                }
                self.users.lost(who, at);
            }
            Event::NewChat { chat, teacher, student } => self.new_chat(who, at, chat, teacher, student)?,
            Event::ChatReady(chat) => self.chats.ready(who, chat)?,
            Event::Heard { chat, to, about, n, seq } => {
                let said_at = self.chats.heard(who, chat, to, about, n, seq)?;
                return Ok(Some(Took::Message(at.saturating_sub(said_at))));
            }
            Event::Ended(chat, how) => self.ended(who, at, chat, how)?,
            Event::Gap(chat) => {
                self.gaps += 1;
                self.chats.gap(who, chat)?;
            }
            Event::Status(counts) => self.status(who, counts)?,
            Event::Students(students) => {
                self.told.insert(who, students);
            }
        }
        Ok(None)
    }

    /// Whether a push is still unanswered though its time is over.
    ///
    /// # Errors
    /// If so.
    pub(super) fn overdue(&self, now: Duration) -> Result<(), Violation> {
        let within = self.plan.answer_within;
        for (who, open) in &self.open {
            // Refs grow, so the first is the oldest.
            if let Some((reference, (sent, asked))) = open.first_key_value()
                && now.saturating_sub(*sent) > within
            {
                return Err(unanswered(*who, *asked, *reference, within));
            }
        }
        Ok(())
    }

    /// Whether everybody got everything, now that all is over. `teachers` are those who must know that the last
    /// student has gone.
    ///
    /// # Errors
    /// The first thing that is missing.
    pub(super) fn finish(&self, students: u32, teachers: u32) -> Result<(), Violation> {
        self.chats.finish()?;
        let mut missing = (0..students).filter(|n| !self.chats.served(*n, self.plan.messages));
        if let Some(first) = missing.next() {
            let missing = u32::try_from(missing.count()).unwrap_or(u32::MAX).saturating_add(1);
            return Err(Violation::NotServed { missing, students, first });
        }
        match (0..teachers).map(Who::teacher).find(|who| !self.knows_the_end(*who)) {
            None => Ok(()),
            Some(who) => Err(Violation::NoLastStatus { who }),
        }
    }

    /// Whether this client has been told that no student is left.
    pub(super) fn knows_the_end(&self, who: Who) -> bool {
        self.told.get(&who) == Some(&0)
    }

    /// This student has left, and its client is gone.
    pub(super) fn done(&mut self, student: u32, at: Duration) {
        self.done.push_back((at, student));
    }

    /// Forgets students that have been gone for a while, so that a run may last as long as it likes.
    ///
    /// # Errors
    /// If a teacher was never told that such a student's chat is over: it would keep its place for ever.
    pub(super) fn forget(&mut self, now: Duration) -> Result<(), Violation> {
        while let Some((left, student)) = self.done.front().copied()
            && now.saturating_sub(left) >= FORGET_AFTER
        {
            if let Some((who, chat)) = self.chats.untold(student) {
                let late = now.saturating_sub(left) >= TOLD_WITHIN;
                let untold = Violation::Incomplete { who, chat, what: "its teacher's being told" };
                return if late { Err(untold) } else { Ok(()) };
            }
            self.done.pop_front();
            let who = Who::student(student);
            self.chats.forget(student);
            self.users.forget(who);
            self.queue.forget(student, self.order);
            self.open.remove(&who);
            self.forgotten += u64::from(self.asked.remove(&student));
        }
        Ok(())
    }

    /// The student that certainly waits for longest, and since when.
    pub(super) fn waits_longest(&self) -> Option<(u32, Duration)> {
        self.queue.waits_longest()
    }

    /// Gaps that clients were shown.
    pub(super) fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Messages that were said, and that were acknowledged, each counted once.
    pub(super) fn said_and_acked(&self) -> (u64, u64) {
        (self.chats.said, self.chats.acked)
    }

    fn pushed(&mut self, who: Who, at: Duration, push: Push<'_>) -> Asked {
        match push {
            Push::Join => {
                self.chats.lobby_joined(who);
                Asked::Join
            }
            Push::Ready => {
                self.asked.insert(who.n);
                self.queue.ready_sent(who.n, self.order);
                Asked::Ready(self.order)
            }
            Push::Claim => {
                self.queue.claim_sent(who.n, self.order);
                Asked::Claim
            }
            Push::Leave => {
                self.users.leaves(who);
                self.gone(who, at, at);
                Asked::Leave
            }
            Push::JoinChat(chat) => Asked::Chat("join of a chat", self.chats.joins(who, chat)),
            Push::Enter(chat) => Asked::Chat("joined", self.chats.enters(who, chat)),
            Push::Say(chat, n) => Asked::Say { chat: self.chats.says(who, chat, n, at, self.order), n },
            Push::Terminate(chat) => {
                let chat = self.chats.terminates(chat);
                if let Some(pair) = self.chats.pair(chat) {
                    self.freed(pair, at);
                }
                Asked::Chat("chat:terminate", chat)
            }
            Push::LeaveChat(chat) => Asked::Chat("leave of a chat", self.chats.at(chat)),
        }
    }

    fn replied(
        &mut self,
        who: Who,
        reference: u64,
        at: Duration,
        outcome: Result<Option<u64>, &str>,
    ) -> Result<Option<Took>, Violation> {
        let open = self.open.get_mut(&who).and_then(|open| open.remove(&reference));
        let (sent, asked) = open.ok_or(Violation::StrayReply { who, reference })?;
        let after = at.saturating_sub(sent);
        if after > self.plan.answer_within {
            return Err(unanswered(who, asked, reference, self.plan.answer_within));
        }
        match (outcome, asked) {
            (Ok(_), Asked::Join) => {
                self.users.joined(who, at);
                Ok(None)
            }
            (Ok(_), Asked::Ready(sent)) => {
                self.queue.ready_acked(who.n, sent, self.now(at));
                Ok(None)
            }
            (Ok(_), Asked::Claim) => {
                self.queue.claim_done(who.n);
                Ok(None)
            }
            (Err("unavailable"), Asked::Claim) => {
                self.queue.claim_unknown(who.n, at);
                Ok(None)
            }
            (Ok(seq), Asked::Say { chat, n }) => {
                let seq = seq.ok_or(Violation::NoSeq { who, n })?;
                self.chats.stored(who, chat, n, seq, self.plan.capacity)?;
                Ok(Some(Took::Ack(after)))
            }
            (Ok(_), Asked::Leave | Asked::Chat(..)) | (Err("unavailable"), _) => Ok(None),
            (Err("not_found" | "chat_finished"), Asked::Say { chat, .. } | Asked::Chat(_, chat)) => {
                let chat = self.chats.id(chat);
                self.ended(who, at, &chat, End::Refused).map(|()| None)
            }
            (Err(reason), _) => {
                let reason = reason.chars().take(200).collect();
                Err(Violation::Refused { who, what: asked.text(), reason })
            }
        }
    }

    fn new_chat(
        &mut self,
        who: Who,
        at: Duration,
        chat: &str,
        teacher: Option<u32>,
        student: Option<u32>,
    ) -> Result<(), Violation> {
        let (Some(teacher), Some(student)) = (teacher, student) else {
            return Err(Violation::Stranger { who, chat: chat.to_owned() });
        };
        if !self.asked.contains(&student) {
            return Err(Violation::NotWaiting { student, teacher });
        }
        if !self.chats.shown(who, chat, (teacher, student), at, self.order)? {
            return Ok(());
        }
        let unsure = |who| self.users.was_away_since(who, at.saturating_sub(users::SHOWN_WITHIN), at);
        let certain = !unsure(Who::teacher(teacher)) && !unsure(Who::student(student));
        self.queue.assigned(teacher, student, self.plan.capacity, certain, self.order)
    }

    fn ended(&mut self, who: Who, at: Duration, chat: &str, how: End) -> Result<(), Violation> {
        let told = self.chats.over(who, chat, how)?;
        let away = |who| self.users.was_away_since(who, told.seen_at, at);
        let (teacher, student) = (away(Who::teacher(told.pair.0)), away(Who::student(told.pair.1)));
        let never_entered = !told.ready && at.saturating_sub(told.seen_at) >= users::NEVER_ENTERED;
        let now = self.now(at);
        self.freed(told.pair, at);
        match how {
            // An older chat says nothing of the student's place.
            _ if !told.latest => {}
            End::Terminated => self.queue.terminated(told.pair.1, now.order),
            End::Requeued => self.queue.requeued(told.pair.1, now),
            End::Refused => self.queue.over(told.pair.1, now.order),
        }
        let (how, cause) = match how {
            End::Terminated => ("chat:terminated", told.asked || student),
            End::Requeued => ("chat:requeued", teacher),
            End::Refused => ("refused", told.asked || student || teacher || told.known),
        };
        if cause || never_entered {
            Ok(())
        } else {
            Err(Violation::EndedWithoutCause { who, chat: chat.to_owned(), how })
        }
    }

    /// Takes note of what time alone has brought: users that may have been given up, chats that may have ended.
    fn settle(&mut self, at: Duration) {
        while let Some((who, lost)) = self.users.given_up(at) {
            self.gone(who, lost, at);
        }
        while let Some(pair) = self.chats.never_entered(at) {
            self.freed(pair, at);
        }
    }

    /// The server may give up this user from here on: its chats end, and its place is lost.
    fn gone(&mut self, who: Who, lost: Duration, at: Duration) {
        for pair in self.chats.pairs(who) {
            self.freed(pair, at);
        }
        match who.role {
            Role::Teacher => self.queue.teacher_gone(lost),
            Role::Student => self.queue.student_gone(who.n, self.order),
        }
    }

    fn freed(&mut self, (teacher, student): (u32, u32), at: Duration) {
        self.queue.freed(teacher, student, self.plan.capacity, self.now(at));
    }

    fn now(&self, at: Duration) -> Moment {
        Moment { order: self.order, at }
    }

    fn status(&mut self, who: Who, counts: Counts) -> Result<(), Violation> {
        let wrong = |why| Err(Violation::Counts { who, counts, why });
        if counts.waiting + counts.chatting + counts.finished != counts.students {
            return wrong("the total is not the sum");
        }
        if counts.students > self.forgotten.saturating_add(u64::try_from(self.asked.len()).unwrap_or(u64::MAX)) {
            return wrong("more students than were ever ready");
        }
        self.told.insert(who, counts.students);
        Ok(())
    }
}

fn unanswered(who: Who, asked: Asked, reference: u64, within: Duration) -> Violation {
    Violation::Unanswered { who, what: asked.text(), reference, seconds: within.as_secs() }
}
