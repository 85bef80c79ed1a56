//! The topic of a room on one gateway: what its members see, and who may say what. Pure.
//!
//! The room's state is applied in the order of its log, where it is followed; so what is void is void for everybody,
//! and whoever sent it learns of it when the log has brought it here.

mod doubt;
mod fact;
mod push;
mod unlogged;

use std::sync::Arc;

use switchboard_contract::lobby::ChannelId;
use switchboard_contract::log::{self, Entry, ReadReply, Sender};
use switchboard_contract::names::{RoomId, SessionKey, UserId};
use switchboard_contract::reason::Reason;
use switchboard_contract::room::{Rank, RoomState, RoomView};
use switchboard_contract::voids::Voids;

use crate::commands::{PresenceCommand, RoomJoin, RoomPush};
use crate::limiter::Limiter;
use crate::mailbox::{Broadcast, Event, Outcome};
use crate::payload::{Refusal, with_seq};
use crate::topic::{Effect, Kind, Member, Request, Reviewed, Stamp, To, Topic};

use doubt::{Answer, Doubt};
use fact::What;
pub use fact::{Fact, Live};

/// A room's topic.
pub type Room<M> = Topic<M, RoomKind>;

/// What is known of a room.
pub struct RoomKind {
    id: RoomId,
    topic: String,
    /// As of the entry that had its turn last.
    view: RoomView,
    voids: Voids,
    doubt: Doubt,
    limiter: Arc<Limiter>,
}

/// A member of a room.
#[derive(Debug)]
pub struct RoomMember {
    user: UserId,
    session: SessionKey,
    /// As its token has it.
    rank: Rank,
    /// The last ones: what the log may still bring, at most [`SENT_MAX`].
    sent: Vec<Sent>,
}

/// A channel has one request on its way; the others are those that were answered with `unavailable`, and may still come.
const SENT_MAX: usize = 8;

#[derive(Debug)]
struct Sent {
    serial: u32,
    id: Box<str>,
    /// What it is answered with if it is void.
    void: Reason,
}

/// What a member's join needs.
#[derive(Debug)]
pub struct Loaded {
    /// Up to where the log was read.
    pub last_seq: u64,
    /// What the log had and has no more reaches to here.
    pub dropped_to: u64,
    /// How the room is there.
    pub view: RoomView,
    /// What the log has behind the joiner's `last_seq`, if it gave one. `None`: nobody could be asked.
    pub replay: Option<Vec<(u64, Fact)>>,
}

impl RoomMember {
    /// One that has sent nothing yet.
    pub fn new(RoomJoin { user, session, rank }: RoomJoin) -> Self {
        RoomMember { user, session, rank, sent: Vec::new() }
    }

    fn sender(&self) -> Sender {
        Sender { role: None, user_id: self.user.clone(), session: Some(self.session.clone()) }
    }

    fn sends(&mut self, sent: Sent) {
        if self.sent.len() >= SENT_MAX {
            self.sent.remove(0);
        }
        self.sent.push(sent);
    }
}

impl<M: Clone> Room<M> {
    /// A topic without members, whose users may do as much as `limiter` says.
    pub fn new(id: RoomId, limiter: Arc<Limiter>) -> Self {
        let topic = format!("room:{id}");
        Topic::of(RoomKind { topic, id, view: no_room(), voids: Voids::default(), doubt: Doubt::default(), limiter })
    }
}

/// How a room is that has no life.
pub(crate) fn no_room() -> RoomView {
    RoomView { since: 0, state: RoomState::default(), keywords: Vec::new() }
}

impl RoomKind {
    fn event(&self, event: &str, payload: impl Into<Box<str>>) -> Arc<Event> {
        Arc::new(Event::Broadcast(Broadcast::new(&self.topic, event.to_owned(), payload)))
    }

    /// What follows the answer to a join: who is here.
    fn welcome<M: Clone>(&self, who: &RoomMember, to: &mut To<'_, M>) {
        let join = PresenceCommand::Join { chan: to.chan, key: who.session.clone(), mailbox: to.mailbox.clone() };
        to.out.push(Effect::Presence(self.id.clone(), join));
    }

    /// How the room is, from somebody who knows: what members see of it that they have not seen.
    fn know(&mut self, view: RoomView) -> Option<Live> {
        let before = std::mem::replace(&mut self.view, view);
        if before.since != 0 && before.since != self.view.since {
            return Some(Live::Over);
        }
        let shown = self.view.state.shown(None);
        (before.state.shown(None) != shown).then(|| Live::All(self.event("room:state", shown)))
    }

    /// Whether a member may change the room, as far as is known here.
    fn moderates(&self, who: &RoomMember) -> bool {
        self.view.state.rank(&who.user, who.rank) >= switchboard_contract::room::RANK_MODERATOR
    }

    fn silences(&self, who: &RoomMember) -> bool {
        self.view.state.silences(Some((&who.user, who.rank)))
    }
}

impl Kind for RoomKind {
    type Member = RoomMember;
    type Fact = Fact;
    type Live = Live;
    type Push = RoomPush;
    type Loaded = Loaded;

    fn of_entry(seq: u64, entry: &Entry<'_>) -> Fact {
        Fact::of(seq, entry)
    }

    fn of_message(message: &log::Message<'_>) -> Fact {
        Fact::kept(message)
    }

    fn beside(reply: &ReadReply, after: u64, entries: &mut Vec<(u64, Fact)>) {
        let view = reply.room.clone().map(Box::new);
        match entries.last_mut() {
            Some((seq, last)) if *seq == reply.last_seq => last.view = view,
            // The last entry is void, or was dropped.
            _ if reply.last_seq > after => entries.push((reply.last_seq, Fact { what: What::Nothing, view })),
            _ => {}
        }
    }

    fn last_seq(loaded: &Loaded) -> u64 {
        loaded.last_seq
    }

    fn admit<M: Clone>(
        &mut self,
        who: &mut RoomMember,
        loaded: Loaded,
        asked: Option<u64>,
        first: bool,
        to: &mut To<'_, M>,
    ) -> Result<(), Refusal> {
        let Loaded { last_seq, dropped_to, view, replay } = loaded;
        let lost_to = match &replay {
            // What was dropped behind `last_seq` while the log was read follows live.
            Some(_) if last_seq > 0 => dropped_to.min(last_seq).max(view.since.saturating_sub(1)),
            Some(_) => dropped_to.max(view.since.saturating_sub(1)),
            None => last_seq,
        };
        // What is below the room's life belongs to an earlier one; what is above the log was not kept.
        let gap = asked.filter(|asked| *asked < lost_to || *asked < view.since || *asked > last_seq);
        let gap = gap.map(|asked| (asked.saturating_add(1), lost_to.max(asked.saturating_add(1))));
        let response = format!(
            "{{\"room\":{},\"rank\":{},\"last_seq\":{last_seq},\"recovered\":{},\"keywords\":{}}}",
            view.state.shown(None),
            view.state.rank(&who.user, who.rank),
            gap.is_none(),
            serde_json::json!(view.keywords),
        );
        to.done(Outcome::Ok(response.into()));
        if let Some((from, lost_to)) = gap {
            to.push("gap", format!("{{\"from\":{from},\"to\":{lost_to}}}"));
        }
        for (seq, fact) in replay.into_iter().flatten() {
            let lost = gap.is_some_and(|(_, lost_to)| seq <= lost_to);
            if seq <= last_seq && !lost && asked.is_some_and(|asked| seq > asked) {
                match fact.what {
                    What::Counted(said) | What::Said(_, said) => to.push(String::from(said.event), said.payload),
                    What::State(state) => to.push("room:state", with_seq(&state, seq)),
                    What::Nothing | What::Change(..) | What::Over => {}
                }
            }
        }
        if first {
            self.voids.unknown_to(last_seq);
            self.view = view;
        }
        self.welcome(who, to);
        Ok(())
    }

    fn left<M: Clone>(&mut self, member: Member<M, Self>, _: bool, out: &mut Vec<Effect<M>>) {
        out.push(Effect::Presence(self.id.clone(), PresenceCommand::Leave { chan: member.chan }));
    }

    fn push<M: Clone>(
        &mut self,
        members: &mut [Member<M, Self>],
        at: usize,
        request: Request<RoomPush>,
        stamp: impl FnOnce() -> Stamp,
        out: &mut Vec<Effect<M>>,
    ) {
        self.pushed(members, at, request, stamp, out);
    }

    fn answer<M: Clone>(&self, who: &RoomMember, seq: u64, to: &mut To<'_, M>) {
        let void = who.sent.iter().find(|sent| sent.serial == to.serial).map_or(Reason::Quiet, |sent| sent.void);
        match self.voids.is_void(seq).filter(|_| !self.doubt.is_there()) {
            Some(false) => to.done(Outcome::Ok(format!("{{\"seq\":{seq}}}").into())),
            Some(true) => to.refuse(void),
            None => {
                let (chan, serial) = (to.chan, to.serial);
                to.out.push(Effect::Judge { to: to.mailbox.clone(), chan, serial, seq, void });
            }
        }
    }

    fn apply(&mut self, seq: u64, Fact { what, view }: Fact) -> Option<Live> {
        let live = match what {
            What::Nothing => None,
            What::Said(Some((user, rank)), _) if self.view.state.silences(Some((&user, rank))) => {
                self.voids.note(seq);
                None
            }
            What::Said(_, said) | What::Counted(said) => {
                let event = self.event(&said.event, said.payload);
                Some(
                    said.own.map_or_else(|| Live::All(event.clone()), |own| Live::Others(Arc::new(own), event.clone())),
                )
            }
            What::Change(author, change) => {
                self.doubt.note(seq, &author, &change);
                let author = author.as_ref().map(|(user, rank)| (user, *rank));
                if self.view.state.apply(author, &change) {
                    if self.view.since == 0 {
                        self.view.since = seq;
                    }
                    let shown = self.view.state.shown(change.grant.as_ref());
                    Some(Live::All(self.event("room:state", with_seq(&shown, seq))))
                } else {
                    self.voids.note(seq);
                    None
                }
            }
            What::State(shown) => Some(Live::All(self.event("room:state", with_seq(&shown, seq)))),
            What::Over => {
                self.doubt.settle();
                self.view = no_room();
                Some(Live::Over)
            }
        };
        let Some(view) = view else { return live };
        // What was void among what history has not told is not known here.
        self.voids.unknown_to(seq);
        self.doubt.settle();
        let over = self.view.since != 0 && self.view.since != view.since;
        self.view = *view;
        if over { Some(Live::Over) } else { live }
    }

    fn show(who: &mut RoomMember, chan: ChannelId, live: &Live) -> Option<Arc<Event>> {
        match live {
            Live::All(event) => Some(event.clone()),
            Live::Others(own, event) => {
                let mine = own.session == who.session && who.sent.iter().any(|sent| sent.id == own.id);
                (!mine).then(|| event.clone())
            }
            Live::Over => Some(Arc::new(Event::Failed { chan })),
        }
    }

    fn ends(live: &Live) -> bool {
        matches!(live, Live::Over)
    }

    fn missed(&mut self, to: u64) -> bool {
        self.voids.unknown_to(to);
        self.doubt.missed()
    }

    fn reviewed(&mut self, at: u64, reply: ReadReply) -> Reviewed<Live> {
        match self.doubt.reviewed(at, reply) {
            Answer::Nothing => Reviewed::Nothing,
            Answer::Again => Reviewed::Again,
            Answer::View(view) => {
                self.voids.unknown_to(at);
                self.know(view).map_or(Reviewed::Nothing, Reviewed::Changed)
            }
        }
    }
}

#[cfg(test)]
mod gap_tests;
#[cfg(test)]
mod limit_tests;
#[cfg(test)]
mod tests;
