//! Joins: new ones, those that replace an earlier one, and what waited behind one that is refused. Pure.

use std::sync::atomic::Ordering;
use std::time::Instant;

use switchboard_contract::limits;
use switchboard_contract::reason::{CloseCode, Reason};

use super::kind::Topic;
use super::topics::{self, Channel};
use super::{Effect, Session};
use crate::frame::{Frame, Vsn};
use crate::payload::{self, FeedJoin, Refusal};

impl Session {
    pub(super) fn join(&mut self, frame: &Frame<'_>, joined: Option<usize>, now: Instant, out: &mut Vec<Effect>) {
        let join_ref = match self.vsn {
            Vsn::V1 => frame.reference.clone(),
            Vsn::V2 => frame.join_ref.clone().or_else(|| frame.reference.clone()),
        };
        let refuse = |session: &Self, refusal, out: &mut Vec<Effect>| {
            session.reply(join_ref.as_ref(), frame.reference.as_ref(), &frame.topic, Err(refusal), out);
        };
        let Some(topic) = Topic::parse(&frame.topic) else {
            return refuse(self, Reason::UnmatchedTopic.into(), out);
        };
        // What a rejoin replaces is told of its loss behind the new join, so that nobody else sees a leave.
        let mut replaced = Vec::new();
        if let Some(at) = joined {
            let old = self.remove(at);
            self.refuse_replaced(&old, out);
            if self.vsn == Vsn::V2 {
                self.end_channel(&old, "phx_close", out);
            }
            old.gone(true, &mut replaced);
        }
        if self.channels.len() >= self.limits.channels {
            out.append(&mut replaced);
            return refuse(self, Reason::TooManyChannels.into(), out);
        }
        let chan = self.totals.channels.fetch_add(1, Ordering::Relaxed) + 1;
        let serial = self.next_serial();
        let mut too_loud = false;
        let joining = self.secret(&topic, frame, now, &mut too_loud).and_then(|secret| {
            let (kind, effect) = topics::join(topic, frame, chan, serial, &self.identity, secret, &self.limits)?;
            // Who joins a room is found out first.
            let allowed = kind.user().map_or(Ok(()), |user| self.limits.users.join(user, now));
            allowed.map_err(|refused| {
                too_loud = refused.out;
                refused.refusal()
            })?;
            Ok((kind, effect))
        });
        match joining {
            Ok((kind, effect)) => {
                metrics::counter!("switchboard_gateway_joins_total").increment(1);
                let mut channel = Channel::new(chan, &frame.topic, join_ref.clone(), kind);
                out.push(effect);
                channel.wait_for(serial, frame.reference.clone(), false, now);
                self.wake = self.wake.min(now + limits::ANSWER_TIMEOUT);
                // Most sockets have one or two; growing by doubling would begin with room for four.
                self.channels.reserve_exact(1);
                self.channels.push(channel);
            }
            Err(refusal) => refuse(self, refusal, out),
        }
        if too_loud {
            out.push(Effect::Close(CloseCode::Policy));
        }
        out.append(&mut replaced);
    }

    /// Whether a join of a feed comes with the API's secret.
    ///
    /// # Errors
    /// If it comes with a wrong one: that counts, so that nobody tries many. After too many, with any: then the answer
    /// says nothing of it.
    fn secret(&self, topic: &Topic, frame: &Frame<'_>, now: Instant, too_loud: &mut bool) -> Result<bool, Refusal> {
        let Topic::Feed(_) = topic else { return Ok(false) };
        let FeedJoin { secret: Some(given) } = payload::read(frame.payload)? else { return Ok(false) };
        let right = self.limits.secret.as_ref() == Some(&given);
        match self.limits.users.guess(self.identity.user(), right, now) {
            Ok(_) if right => Ok(true),
            Ok(out) => {
                *too_loud = out;
                Err(Reason::Unauthorized.into())
            }
            Err(refused) => {
                *too_loud = refused.out;
                Err(refused.refusal())
            }
        }
    }

    /// What a rejoin replaces: an earlier join is answered if it was not yet, and so are V1's frames, which are never
    /// stale. V2's are, unless they name no join.
    fn refuse_replaced(&self, channel: &Channel, out: &mut Vec<Effect>) {
        let v1 = self.vsn == Vsn::V1;
        let pending = channel.pending.iter().filter(|_| v1 || !channel.joined);
        for request in pending.chain(channel.claim.as_deref().filter(|_| v1)) {
            self.refuse_request(channel, request, Reason::Unavailable, out);
        }
        for frame in channel.waiting.iter().filter_map(|(_, w)| w.decode(self.vsn)) {
            if v1 || frame.join_ref.is_none() {
                let leave = frame.event == "phx_leave";
                let result = if leave { Ok("{}") } else { Err(Reason::Unavailable.into()) };
                let (join_ref, reference) = (channel.join_ref.as_ref(), frame.reference.as_ref());
                self.reply(join_ref, reference, &channel.topic, result, out);
            }
        }
    }

    /// What waited behind a join that was refused stands on a topic that is not joined.
    pub(super) fn refuse_unjoined(&self, channel: &Channel, out: &mut Vec<Effect>) {
        for frame in channel.waiting.iter().filter_map(|(_, w)| w.decode(self.vsn)) {
            let result = if frame.event == "phx_leave" { Ok("{}") } else { Err(Reason::UnmatchedTopic.into()) };
            self.answer(&frame, result, out);
        }
    }
}
