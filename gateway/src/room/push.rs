//! What a room's members push.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde_json::value::{RawValue, to_raw_value};
use switchboard_contract::log::{self, Entry};
use switchboard_contract::names;
use switchboard_contract::reason::{CloseCode, Reason};
use switchboard_contract::room::{Change, RoomEvent};
use switchboard_contract::unlogged::{EVENT, UnloggedEvent};
use switchboard_contract::wire::{self, V1};

use super::fact::from_field;
use super::{RoomKind, RoomMember, Sent};
use crate::commands::{PresenceCommand, RoomPush};
use crate::frame::{Binary, encode_binary};
use crate::limiter::Refused;
use crate::mailbox::{Event, Outcome};
use crate::object;
use crate::payload::{Message, Refusal};
use crate::topic::{Effect, Member, Request, Stamp, To};

impl RoomKind {
    pub(super) fn pushed<M: Clone>(
        &mut self,
        members: &mut [Member<M, Self>],
        at: usize,
        Request { serial, push, now }: Request<RoomPush>,
        stamp: impl FnOnce() -> Stamp,
        out: &mut Vec<Effect<M>>,
    ) {
        let Member { chan, mailbox, who, .. } = &mut members[at];
        let chan = *chan;
        let mut to = To { mailbox: &*mailbox, chan, serial, out };
        if let Err(refused) = self.allowed(who, &push, now) {
            to.done(Outcome::Refused(refused.refusal()));
            if refused.out {
                to.send(Arc::new(Event::Close(CloseCode::Policy)));
            }
            return;
        }
        match push {
            RoomPush::Broadcast(message) => self.say("new_msg", who, &message, stamp(), &mut to),
            RoomPush::Say(message) => self.say("new_message", who, &message, stamp(), &mut to),
            RoomPush::Change { .. } if !self.moderates(who) => to.refuse(Reason::Forbidden),
            RoomPush::Change { change, for_seconds } => {
                let stamp = stamp();
                let until = for_seconds.map(|seconds| stamp.now + 1_000 * u64::from(seconds));
                let payload = raw(&Change { until, ..change });
                let event = RoomEvent::State.as_str();
                let entry = entry(event, who, &payload, &stamp.id, &stamp.at);
                who.sends(Sent { serial, id: stamp.id.into(), void: Reason::Forbidden });
                to.out.push(Effect::Publish { chan, serial, entry, message_id: None });
            }
            RoomPush::Typing(_) | RoomPush::Binary { .. } if self.silences(who) => to.refuse(Reason::Quiet),
            RoomPush::Typing(payload) => {
                let payload = json(&payload);
                let event = UnloggedEvent {
                    v: V1,
                    kind: EVENT.into(),
                    event: "typing".into(),
                    payload,
                    from: who.sender(),
                    gateway: (*stamp().gateway).to_owned().into(),
                    chan,
                };
                let body = wire::encode(&event);
                to.out.push(Effect::Tell { to: to.mailbox.clone(), chan, serial, body });
            }
            RoomPush::Binary { event, data } => match encode_binary(Binary::Broadcast, &self.topic, &event, &data) {
                Some(frame) => {
                    to.out.push(Effect::Tell { to: to.mailbox.clone(), chan, serial, body: frame.into() });
                }
                None => to.done(Outcome::Refused(Refusal::invalid("a name is too long for a binary frame"))),
            },
            RoomPush::History(params) => {
                to.out.push(Effect::History { to: to.mailbox.clone(), chan, serial, params });
            }
            // Presence knows where they are, on whichever gateway.
            RoomPush::Direct(recipients, payload) => {
                let payload = object::with(&payload, &from_field(&who.sender())).into();
                let mailbox = to.mailbox.clone();
                let direct = PresenceCommand::Direct { chan, serial, to: recipients, payload, mailbox };
                to.out.push(Effect::Presence(self.id.clone(), direct));
            }
        }
    }

    /// Whether a member may push this now. Moderators may: those that are known here, as in what they change.
    fn allowed(&self, who: &RoomMember, push: &RoomPush, now: Instant) -> Result<(), Refused> {
        match push {
            RoomPush::Change { .. } | RoomPush::History(_) => Ok(()),
            _ if self.moderates(who) => Ok(()),
            RoomPush::Broadcast(message) | RoomPush::Say(message) => {
                let text = if self.limiter.hears() { log::text(&message.payload) } else { None };
                self.limiter.say(&who.user, text.as_deref(), message.id.as_deref(), now)
            }
            RoomPush::Direct(..) | RoomPush::Typing(_) | RoomPush::Binary { .. } => self.limiter.direct(&who.user, now),
        }
    }

    /// Writes a message to the log. Whether it counts is decided there.
    fn say<M: Clone>(
        &self,
        event: &'static str,
        who: &mut RoomMember,
        message: &Message,
        stamp: Stamp,
        to: &mut To<'_, M>,
    ) {
        let own = message.id.as_deref();
        let message_id = own.map(|id| names::room_message_id(&self.id, self.view.since, &who.session, id));
        let id = own.unwrap_or(&stamp.id);
        let entry = entry(event, who, message.raw(), id, &stamp.at);
        who.sends(Sent { serial: to.serial, id: id.into(), void: Reason::Quiet });
        to.out.push(Effect::Publish { chan: to.chan, serial: to.serial, entry, message_id });
    }
}

fn entry(event: &str, who: &RoomMember, payload: &RawValue, id: &str, at: &str) -> Bytes {
    wire::encode(&Entry {
        v: V1,
        event: event.into(),
        payload,
        from: Some(who.sender()),
        rank: Some(who.rank),
        id: id.into(),
        at: at.into(),
    })
}

fn raw(change: &Change<'_>) -> Box<RawValue> {
    match to_raw_value(change) {
        Ok(raw) => raw,
        Err(error) => unreachable!("a change is always JSON: {error}"),
    }
}

fn json(payload: &str) -> &RawValue {
    match serde_json::from_str(payload) {
        Ok(payload) => payload,
        Err(error) => unreachable!("a checked payload is JSON: {error}"),
    }
}
