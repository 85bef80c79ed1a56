//! The inbox: inputs are cut into steps, and a step is taken only while the batch has room for all it can touch.

use switchboard_contract::limits::MATCHER_INBOX_MAX;
use switchboard_contract::lobby::{At, ChannelId, ChatEnd, ChatEvent, Claim, Done, Row, Table, Terminate, Whole};
use switchboard_contract::names::{ChatId, Incarnation};
use switchboard_contract::reason::Reason;
use switchboard_contract::wire::V1;

use super::table::{Addr, GatewayNo, Member, Seen};
use super::timers::Timer;
use super::types::{Effect, Input, Token};
use super::{Core, Now, Reply};

/// An input of which something is left to do.
#[derive(Debug)]
pub(super) enum Job {
    Table(TableJob),
    Claim(Token, Claim),
    Terminate(Token, Terminate),
    /// By name: a gateway whose first table is still in the inbox has no number yet.
    Gone(Incarnation),
    Told(GatewayNo, Vec<(ChatId, ChannelId)>),
    Logged(ChatId, ChatEvent),
}

/// A message with rows.
#[derive(Debug)]
pub(super) struct TableJob {
    token: Token,
    name: Incarnation,
    whole: Option<Whole>,
    stage: Stage,
    rows: std::vec::IntoIter<Row>,
    refused: Vec<(ChannelId, Reason)>,
}

#[derive(Debug)]
enum Stage {
    Unopened,
    Rows(GatewayNo),
    /// Rows that a whole table did not have.
    Sweep(GatewayNo, std::vec::IntoIter<ChannelId>),
}

impl Core {
    /// Puts an input into the inbox. A request that finds it full is refused; of a table's rows nothing would hold,
    /// so it gets no answer at all, and the gateway sends them again.
    pub(super) fn accept(&mut self, input: Input, effects: &mut Vec<Effect>) {
        let full = self.inbox_rows >= MATCHER_INBOX_MAX;
        if full && matches!(input, Input::Claim(..) | Input::Terminate(..) | Input::Table(..)) {
            self.counters.full += 1;
        }
        let unavailable = Done { v: V1, epoch: self.epoch, refused: Some(Reason::Unavailable) };
        let job = match input {
            Input::Tick => return,
            // It changes nothing, and so waits behind nothing but the batch that is being collected.
            Input::Look(token) => {
                self.pending.looks.push(token);
                return;
            }
            Input::Claim(token, _) | Input::Terminate(token, _) if full => {
                effects.push(Effect::Done(token, unavailable));
                return;
            }
            Input::Claim(token, claim) => Job::Claim(token, claim),
            Input::Terminate(token, terminate) => Job::Terminate(token, terminate),
            Input::Table(token, _) if full => {
                effects.push(Effect::Forget(token));
                return;
            }
            Input::Table(token, table) => Job::Table(TableJob::new(token, table)),
            Input::GatewayGone(name) => Job::Gone(name),
            Input::Told(name, told) => match self.gateways.no(&name) {
                Some(no) => Job::Told(no, told),
                None => return,
            },
            Input::Logged(chat, event) => Job::Logged(chat, event),
        };
        self.inbox_rows += job.rows();
        self.inbox.push_back(job);
    }

    /// Takes steps while there is room: students for teachers that want them without asking, then what came in, then
    /// what is due.
    pub(super) fn work(&mut self, now: Now) {
        while self.has_room() && (self.assign_auto(now) || self.step(now) || self.expire(now)) {}
    }

    /// One step of the first job.
    fn step(&mut self, now: Now) -> bool {
        let Some(job) = self.inbox.pop_front() else { return false };
        self.inbox_rows -= job.rows();
        let rest = match job {
            Job::Table(job) => self.step_table(now, job).map(Job::Table),
            Job::Gone(name) => {
                let more = self.gateways.no(&name).is_some_and(|no| self.step_gone(now, no));
                more.then_some(Job::Gone(name))
            }
            Job::Claim(token, claim) => {
                let refused = self.claim(now, &claim).err();
                self.pending.replies.push(Reply::Done { token, refused });
                None
            }
            Job::Terminate(token, terminate) => {
                match self.terminate(now, &terminate.chat) {
                    Ok(()) => self.answer_ended(&terminate.chat, token),
                    Err(reason) => self.pending.replies.push(Reply::Done { token, refused: Some(reason) }),
                }
                None
            }
            Job::Told(gateway, told) => {
                for (chat, chan) in told {
                    self.untell(&chat, Addr { gateway, chan });
                }
                None
            }
            Job::Logged(chat, event) => {
                self.logged(now, &chat, event);
                None
            }
        };
        if let Some(job) = rest {
            self.inbox_rows += job.rows();
            self.inbox.push_front(job);
        }
        true
    }

    /// One deadline that is due.
    fn expire(&mut self, now: Now) -> bool {
        let Some(timer) = self.timers.pop(now.at) else { return false };
        match timer {
            Timer::Grace(role, id) => self.grace_over(now, role, &id),
            Timer::Enter(chat) => self.enter_over(now, &chat),
            Timer::Linger(chat) => self.linger_over(&chat),
            Timer::Tell(chat) => {
                self.pending.tells.insert(chat);
            }
            Timer::Log(chat) => self.log_again(&chat),
            Timer::Clear(chat) => self.clear_owed(&chat),
        }
        true
    }

    /// One row of a message. Gives back what is left of it.
    fn step_table(&mut self, now: Now, mut job: TableJob) -> Option<TableJob> {
        match &mut job.stage {
            Stage::Unopened => match self.gateways.open(&job.name, job.whole) {
                Some(no) => job.stage = Stage::Rows(no),
                None => {
                    let reply = Reply::Table { token: job.token, resend: true, refused: Vec::new() };
                    self.pending.replies.push(reply);
                    return None;
                }
            },
            Stage::Rows(no) => match job.rows.next() {
                Some(row) => {
                    let chan = row.chan;
                    if let Err(reason) = self.row(now, *no, row) {
                        job.refused.push((chan, reason));
                    }
                }
                None if job.whole.is_some_and(|w| w.last) => {
                    job.stage = Stage::Sweep(*no, self.gateways.close(*no).into_iter());
                }
                None => job.stage = Stage::Sweep(*no, Vec::new().into_iter()),
            },
            Stage::Sweep(no, unseen) => match unseen.next() {
                Some(chan) => self.remove_row(now, Addr { gateway: *no, chan }, true),
                None => {
                    let reply = Reply::Table { token: job.token, resend: false, refused: job.refused };
                    self.pending.replies.push(reply);
                    return None;
                }
            },
        }
        Some(job)
    }

    /// Loses one row of a gateway that is gone. Whether there may be more.
    fn step_gone(&mut self, now: Now, no: GatewayNo) -> bool {
        let Some(gateway) = self.gateways.get(no) else { return false };
        match gateway.rows.keys().next().copied() {
            Some(chan) => {
                self.remove_row(now, Addr { gateway: no, chan }, true);
                true
            }
            None => {
                self.gateways.remove(no);
                false
            }
        }
    }

    fn row(&mut self, now: Now, no: GatewayNo, row: Row) -> Result<(), Reason> {
        let addr = Addr { gateway: no, chan: row.chan };
        let Some(gateway) = self.gateways.get_mut(no) else { return Ok(()) };
        if let Some(seen) = &mut gateway.whole {
            seen.insert(row.chan);
        }
        let member = match &row.at {
            At::Teacher { id, .. } => Member::Teacher(id.clone()),
            At::Student { id, .. } => Member::Student(id.clone()),
            At::Chat { chat, .. } if !self.chats.contains_key(chat) => return Ok(()),
            At::Chat { chat, role, .. } => Member::Chat(chat.clone(), *role),
            At::Left { lost } => {
                if gateway.rows.get(&row.chan).is_some_and(|seen| seen.n < row.n) {
                    self.remove_row(now, addr, *lost);
                }
                return Ok(());
            }
        };
        match gateway.rows.get_mut(&row.chan) {
            Some(seen) if seen.n >= row.n => return Ok(()),
            // A channel is one user's on one topic for its whole life.
            Some(seen) if seen.member != member => return Err(Reason::Forbidden),
            Some(seen) => seen.n = row.n,
            None => {
                gateway.rows.insert(row.chan, Seen { n: row.n, member });
            }
        }
        match row.at {
            At::Teacher { id, says, said } => self.teacher_row(now, addr, &id, says, said),
            At::Student { id, ready } => return self.student_row(now, addr, &id, ready),
            At::Chat { chat, role, entered } => self.chat_row(addr, &chat, role, entered),
            At::Left { .. } => unreachable!("handled above"),
        }
        Ok(())
    }

    fn remove_row(&mut self, now: Now, addr: Addr, lost: bool) {
        let row = self.gateways.get_mut(addr.gateway).and_then(|gateway| gateway.rows.remove(&addr.chan));
        if let Some(row) = row {
            self.row_left(now, addr, row.member, lost);
        }
    }

    /// # Errors
    /// `unavailable` while the gateway's table is not complete, `forbidden` if the channel is no teacher's.
    fn claim(&mut self, now: Now, claim: &Claim) -> Result<(), Reason> {
        let gateway = self.gateways.no(&claim.gateway);
        let row = gateway.and_then(|no| self.gateways.row(Addr { gateway: no, chan: claim.chan }));
        let complete = gateway.and_then(|no| self.gateways.get(no)).is_some_and(|g| g.whole.is_none());
        match row.map(|row| row.member.clone()) {
            Some(Member::Teacher(id)) => {
                // It was asked before, perhaps of an earlier leader, and done.
                if !self.claims.contains(&claim.id) {
                    self.assign_next(now, &id, claim.id);
                }
                Ok(())
            }
            Some(Member::Student(_) | Member::Chat(..)) => Err(Reason::Forbidden),
            None if complete => Err(Reason::Forbidden),
            None => Err(Reason::Unavailable),
        }
    }

    /// # Errors
    /// `not_found` if there is no such chat.
    fn terminate(&mut self, now: Now, chat: &ChatId) -> Result<(), Reason> {
        if !self.chats.contains_key(chat) {
            return Err(Reason::NotFound);
        }
        self.end_chat(now, chat, ChatEnd::Terminated);
        Ok(())
    }
}

impl TableJob {
    fn new(token: Token, table: Table) -> Self {
        TableJob {
            token,
            name: table.gateway,
            whole: table.whole,
            stage: Stage::Unopened,
            rows: table.rows.into_iter(),
            refused: Vec::new(),
        }
    }
}

impl Job {
    /// What it counts in the inbox.
    fn rows(&self) -> usize {
        match self {
            Job::Table(job) => 1 + job.rows.len(),
            Job::Claim(..) | Job::Terminate(..) | Job::Gone(_) | Job::Told(..) | Job::Logged(..) => 1,
        }
    }
}
