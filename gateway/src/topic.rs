//! A topic that follows a log on one gateway: its members here, what they see, and in which order. Pure.
//!
//! The log is the topic's one order. A member's join is answered with the log up to a sequence; what the log brings
//! behind it is live. `ok` to a message waits until the log has brought it, so everything below it was sent before.
//! `order` notices what is missing; until that is there, nothing newer is shown. What chats and rooms do each in its
//! own way is their [`Kind`].

mod effect;
mod order;

use std::collections::VecDeque;
use std::sync::Arc;

use switchboard_contract::limits::JOIN_BUFFER_MAX;
use switchboard_contract::lobby::ChannelId;
use switchboard_contract::log::{Entry, Message, ReadReply};
use switchboard_contract::reason::Reason;

use crate::mailbox::Event;
use crate::observe;
use crate::payload::Refusal;

pub use effect::{Effect, How, Request, Stamp, To};
pub use order::Part;
use order::{Order, Step};

/// What one kind of topic does in its own way.
pub trait Kind: Sized {
    /// What it knows of a member.
    type Member;
    /// What an entry of its log says; by default nothing that members see.
    type Fact: Default;
    /// What members see of it.
    type Live: Clone;
    /// What a member can push.
    type Push;
    /// What a join needs.
    type Loaded;

    /// What an entry says that came with the log or was read from the stream.
    fn of_entry(seq: u64, entry: &Entry<'_>) -> Self::Fact;
    /// What an entry says that history has kept.
    fn of_message(message: &Message<'_>) -> Self::Fact;
    /// Adds what history says beside the messages behind `after`, at the end of what was asked of it.
    fn beside(reply: &ReadReply, after: u64, entries: &mut Vec<(u64, Self::Fact)>);

    /// Up to where the log was read.
    fn last_seq(loaded: &Self::Loaded) -> u64;
    /// Answers a join, and tells what follows the answer; `first`: nobody has read the log before.
    ///
    /// # Errors
    /// If it is refused.
    fn admit<M: Clone>(
        &mut self,
        who: &mut Self::Member,
        loaded: Self::Loaded,
        last_seq: Option<u64>,
        first: bool,
        to: &mut To<'_, M>,
    ) -> Result<(), Refusal>;
    /// A member whose join was answered has gone.
    fn left<M: Clone>(&mut self, member: Member<M, Self>, lost: bool, out: &mut Vec<Effect<M>>);
    /// A member pushed something: the one at this place.
    fn push<M: Clone>(
        &mut self,
        members: &mut [Member<M, Self>],
        at: usize,
        request: Request<Self::Push>,
        stamp: impl FnOnce() -> Stamp,
        out: &mut Vec<Effect<M>>,
    );
    /// Answers a member whose entry has this sequence, now that the log has brought it.
    fn answer<M: Clone>(&self, who: &Self::Member, seq: u64, to: &mut To<'_, M>);

    /// What an entry means for those who see it, now that it has its turn; `None`: nothing.
    fn apply(&mut self, seq: u64, fact: Self::Fact) -> Option<Self::Live>;
    /// What a member sees of it.
    fn show(who: &mut Self::Member, chan: ChannelId, live: &Self::Live) -> Option<Arc<Event>>;
    /// Whether it ends every membership.
    fn ends(live: &Self::Live) -> bool;
    /// What stands up to here was missed: whether history has to be asked how the topic is, [`Effect::Review`].
    fn missed(&mut self, to: u64) -> bool;
    /// What history says of that, where all up to `at` has had its turn.
    fn reviewed(&mut self, at: u64, reply: ReadReply) -> Reviewed<Self::Live>;
}

/// What a [`Effect::Review`] leads to.
pub enum Reviewed<L> {
    /// Nothing that members see.
    Nothing,
    /// They see this.
    Changed(L),
    /// More was missed meanwhile: ask once more.
    Again,
}

/// A member of a topic.
pub struct Member<M, K: Kind> {
    /// Its channel.
    pub chan: ChannelId,
    /// Where it is reached.
    pub mailbox: M,
    /// What is known of it.
    pub who: K::Member,
    state: State,
}

impl<M, K: Kind> Member<M, K> {
    /// Whether its join was answered.
    pub fn is_live(&self) -> bool {
        matches!(self.state, State::Live { .. })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The join is not answered yet.
    Loading {
        serial: u32,
        last_seq: Option<u64>,
        /// What was loaded is too old, live messages have been dropped since.
        again: bool,
        /// It was loaded again because it ended before the topic's first place.
        repeated: bool,
    },
    /// It sees what is behind the sequence of its join.
    Live { since: u64 },
}

/// A message that is stored, and whose reply waits until the log has brought it here.
struct Awaited {
    chan: ChannelId,
    serial: u32,
    seq: u64,
}

/// A topic.
pub struct Topic<M, K: Kind> {
    kind: K,
    members: Vec<Member<M, K>>,
    order: Order<K::Fact>,
    /// Empty between calls.
    steps: Vec<Step<K::Fact>>,
    /// The order began behind this.
    placed: u64,
    awaited: Vec<Awaited>,
    /// What joins that are not answered yet will have to see.
    recent: VecDeque<(u64, K::Live)>,
}

impl<M: Clone, K: Kind> Topic<M, K> {
    /// A topic without members.
    pub fn of(kind: K) -> Self {
        Topic {
            kind,
            members: Vec::new(),
            order: Order::new(),
            steps: Vec::new(),
            placed: 0,
            awaited: Vec::new(),
            recent: VecDeque::new(),
        }
    }

    /// Its kind, and who is here or about to be.
    pub fn parts(&mut self) -> (&mut K, &mut [Member<M, K>]) {
        (&mut self.kind, &mut self.members)
    }

    /// Whether nobody is here.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Who is here, or about to be.
    pub fn members(&self) -> impl Iterator<Item = (&M, ChannelId)> {
        self.members.iter().map(|member| (&member.mailbox, member.chan))
    }

    /// A socket wants to join.
    pub fn join(
        &mut self,
        mailbox: M,
        chan: ChannelId,
        serial: u32,
        who: K::Member,
        last_seq: Option<u64>,
        out: &mut Vec<Effect<M>>,
    ) {
        let state = State::Loading { serial, last_seq, again: false, repeated: false };
        self.members.push(Member { chan, mailbox, who, state });
        out.push(Effect::Load { chan, last_seq });
    }

    /// A member left, or its socket is gone.
    pub fn leave(&mut self, chan: ChannelId, lost: bool, out: &mut Vec<Effect<M>>) {
        let Some(at) = self.members.iter().position(|m| m.chan == chan) else { return };
        let member = self.members.remove(at);
        self.awaited.retain(|a| a.chan != chan);
        self.forget_recent();
        if member.is_live() {
            self.kind.left(member, lost, out);
        }
    }

    /// What a join needs is there, or could not be had.
    pub fn loaded(&mut self, chan: ChannelId, loaded: Result<K::Loaded, Refusal>, out: &mut Vec<Effect<M>>) {
        let Some(at) = self.members.iter().position(|m| m.chan == chan) else { return };
        let member = &mut self.members[at];
        let State::Loading { serial, last_seq, again, repeated } = member.state else { return };
        if again && loaded.is_ok() {
            member.state = State::Loading { serial, last_seq, again: false, repeated };
            return out.push(Effect::Load { chan, last_seq });
        }
        // Another join has read further, and what stands between was not kept for this one.
        if !repeated && loaded.as_ref().is_ok_and(|loaded| K::last_seq(loaded) < self.placed) {
            member.state = State::Loading { serial, last_seq, again: false, repeated: true };
            return out.push(Effect::Load { chan, last_seq });
        }
        let first = self.order.position().is_none();
        let mut to = To { mailbox: &member.mailbox, chan, serial, out };
        let admitted = loaded.and_then(|loaded| {
            let last = K::last_seq(&loaded);
            self.kind.admit(&mut member.who, loaded, last_seq, first, &mut to).map(|()| last)
        });
        let last = match admitted {
            Ok(last) => last,
            Err(refusal) => {
                to.done(crate::mailbox::Outcome::Refused(refusal));
                self.members.remove(at);
                return self.forget_recent();
            }
        };
        member.state = State::Live { since: last };
        for (seq, live) in &self.recent {
            show(member, *seq, live, out);
        }
        self.forget_recent();
        if first {
            self.placed = last;
        }
        self.advance(out, |order, steps| order.place(last, steps));
    }

    /// A member pushed something.
    pub fn push(
        &mut self,
        chan: ChannelId,
        request: Request<K::Push>,
        stamp: impl FnOnce() -> Stamp,
        out: &mut Vec<Effect<M>>,
    ) {
        if let Some(at) = self.members.iter().position(|m| m.chan == chan) {
            self.kind.push(&mut self.members, at, request, stamp, out);
        }
    }

    /// A member's message is stored under a sequence, as a `duplicate` of an earlier one or not; or nobody knows.
    pub fn acked(&mut self, chan: ChannelId, serial: u32, result: Result<(u64, bool), ()>, out: &mut Vec<Effect<M>>) {
        match result {
            Ok((seq, duplicate)) if self.order.position().is_none_or(|at| seq > at) => {
                self.awaited.push(Awaited { chan, serial, seq });
                // The log does not bring it a second time, and the first time was perhaps lost.
                if duplicate {
                    self.behind(seq, out);
                }
            }
            Ok((seq, _)) => self.answer(&Awaited { chan, serial, seq }, out),
            Err(()) => {
                let Some(member) = self.members.iter().find(|m| m.chan == chan) else { return };
                To { mailbox: &member.mailbox, chan, serial, out }.refuse(Reason::Unavailable);
            }
        }
    }

    fn answer(&self, awaited: &Awaited, out: &mut Vec<Effect<M>>) {
        let Some(member) = self.members.iter().find(|m| m.chan == awaited.chan) else { return };
        let mut to = To { mailbox: &member.mailbox, chan: awaited.chan, serial: awaited.serial, out };
        self.kind.answer(&member.who, awaited.seq, &mut to);
    }

    /// The log brought an entry, or one that was not understood; `previous` is the one before it, or 0.
    pub fn stored(&mut self, seq: u64, previous: u64, entry: Option<&Entry<'_>>, out: &mut Vec<Effect<M>>) {
        let fact = entry.map(|entry| K::of_entry(seq, entry)).unwrap_or_default();
        self.advance(out, |order, steps| order.live(seq, previous, fact, steps));
    }

    /// The log reaches to `to`, and what it had to bring has had its time.
    pub fn behind(&mut self, to: u64, out: &mut Vec<Effect<M>>) {
        if !self.is_empty() {
            self.advance(out, |order, steps| order.behind(to, steps));
        }
    }

    /// What stands behind `after`; `None` if nobody has it.
    pub fn repaired(&mut self, after: u64, how: How, part: Option<Part<K::Fact>>, out: &mut Vec<Effect<M>>) {
        let mut closed = false;
        self.advance(out, |order, steps| closed = order.repaired(after, part, steps));
        if closed {
            out.push(Effect::Repaired(how));
        }
    }

    /// The sequence up to which all has been shown; `None` before the first join.
    pub fn position(&self) -> Option<u64> {
        self.order.position()
    }

    fn advance(&mut self, out: &mut Vec<Effect<M>>, change: impl FnOnce(&mut Order<K::Fact>, &mut Vec<Step<K::Fact>>)) {
        let mut steps = std::mem::take(&mut self.steps);
        change(&mut self.order, &mut steps);
        for step in steps.drain(..) {
            match step {
                Step::Take(seq, fact) => {
                    self.take(seq, fact, out);
                    self.answer_up_to(seq, out);
                }
                Step::GiveUp(from, to) => self.give_up(from, to, out),
                Step::Repair { after, to } => out.push(Effect::Repair { after, to }),
            }
        }
        self.steps = steps;
        if let Some(at) = self.order.position() {
            self.answer_up_to(at, out);
        }
    }

    fn take(&mut self, seq: u64, fact: K::Fact, out: &mut Vec<Effect<M>>) {
        if let Some(live) = self.kind.apply(seq, fact) {
            self.tell(seq, live, out);
        }
    }

    /// What history says of the topic, asked behind a gap that nobody could fill.
    pub fn reviewed(&mut self, reply: ReadReply, out: &mut Vec<Effect<M>>) {
        let Some(at) = self.order.position() else { return };
        match self.kind.reviewed(at, reply) {
            Reviewed::Nothing => {}
            Reviewed::Changed(live) => self.tell(at, live, out),
            Reviewed::Again => out.push(Effect::Review),
        }
    }

    fn tell(&mut self, seq: u64, live: K::Live, out: &mut Vec<Effect<M>>) {
        for member in &mut self.members {
            show(member, seq, &live, out);
        }
        if K::ends(&live) {
            self.end(seq);
        } else {
            self.remember(seq, live);
        }
    }

    fn answer_up_to(&mut self, seq: u64, out: &mut Vec<Effect<M>>) {
        let ready: Vec<Awaited> = self.awaited.extract_if(.., |a| a.seq <= seq).collect();
        for awaited in ready {
            self.answer(&awaited, out);
        }
    }

    /// Members are told what they will not see; a join on its way reads the log once more.
    fn give_up(&mut self, from: u64, to: u64, out: &mut Vec<Effect<M>>) {
        out.push(Effect::Repaired(How::Shown));
        if self.kind.missed(to) {
            out.push(Effect::Review);
        }
        for member in &mut self.members {
            match &mut member.state {
                State::Loading { again, .. } => *again = true,
                State::Live { since } if *since >= to => {}
                State::Live { since } => {
                    let payload = format!("{{\"from\":{},\"to\":{to}}}", from.max(*since + 1)).into();
                    let event = Event::Push { chan: member.chan, event: "gap".into(), payload };
                    out.push(Effect::Send(member.mailbox.clone(), Arc::new(event)));
                }
            }
        }
    }

    /// Who saw the end is no member any more; a join on its way reads the log once more.
    fn end(&mut self, seq: u64) {
        self.members.retain_mut(|member| match &mut member.state {
            State::Loading { again, .. } => {
                *again = true;
                true
            }
            State::Live { since } => *since >= seq,
        });
        let members = &self.members;
        self.awaited.retain(|a| members.iter().any(|m| m.chan == a.chan));
        self.recent = VecDeque::new();
    }

    /// Keeps what joins that are not answered yet will have to see.
    fn remember(&mut self, seq: u64, live: K::Live) {
        let mut loading = false;
        let overflow = self.recent.len() >= JOIN_BUFFER_MAX;
        for member in &mut self.members {
            if let State::Loading { again, .. } = &mut member.state {
                loading = true;
                *again |= overflow;
            }
        }
        if overflow {
            observe::full("join_buffer");
            self.recent.clear();
        }
        if loading {
            self.recent.push_back((seq, live));
        }
    }

    fn forget_recent(&mut self) {
        if self.members.iter().all(Member::is_live) {
            self.recent = VecDeque::new();
        }
    }
}

/// Shows an entry to a member that is to see it, and has not.
fn show<M: Clone, K: Kind>(member: &mut Member<M, K>, seq: u64, live: &K::Live, out: &mut Vec<Effect<M>>) {
    match member.state {
        State::Live { since } if seq > since => {
            if let Some(event) = K::show(&mut member.who, member.chan, live) {
                out.push(Effect::Send(member.mailbox.clone(), event));
            }
        }
        State::Live { .. } | State::Loading { .. } => {}
    }
}
