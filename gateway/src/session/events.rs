//! What reaches a session from other tasks. Pure.

use std::sync::atomic::Ordering;
use std::time::Instant;

use switchboard_contract::limits;
use switchboard_contract::lobby::{At, ChannelId};
use switchboard_contract::names::ChatId;
use switchboard_contract::reason::{CloseCode, Reason};

use super::kind::Kind;
use super::{Effect, Session};
use crate::commands::{FeedCommand, LobbyCommand};
use crate::frame::{Ref, Vsn};
use crate::mailbox::{Event, Outcome};
use crate::observe::{self, Answered};

impl Session {
    /// Something came from another task.
    pub fn event(&mut self, event: &Event, now: Instant, out: &mut Vec<Effect>) {
        match event {
            Event::Done { chan, serial, outcome } => self.done(*chan, *serial, outcome, now, out),
            Event::Renewed { chan, serial, renewed } => {
                let outcome = self.renewed(*chan, renewed.clone());
                self.done(*chan, *serial, &outcome, now, out);
            }
            Event::Broadcast(broadcast) => {
                if self.channels.iter().any(|c| c.joined && *c.topic == *broadcast.topic()) {
                    out.push(Effect::Send(broadcast.frame(self.vsn)));
                }
            }
            Event::Binary { topic, frame } => {
                if self.vsn == Vsn::V2 && self.channels.iter().any(|c| c.joined && c.topic == *topic) {
                    out.push(Effect::SendBinary(frame.clone()));
                }
            }
            Event::Once { version, broadcast } => {
                let channel = self.channels.iter_mut().find(|c| c.joined && *c.topic == *broadcast.topic());
                if channel.is_some_and(|channel| channel.takes(*version)) {
                    out.push(Effect::Send(broadcast.frame(self.vsn)));
                }
            }
            Event::PresenceState { chan, version, payload } => {
                let Some(channel) = self.channels.iter_mut().find(|c| c.chan == *chan && c.joined) else { return };
                if channel.takes_presence_state(*version) {
                    out.push(Effect::Send(channel.encode(self.vsn, "presence_state", payload)));
                }
            }
            Event::Presence { version, broadcast } => {
                let channel = self.channels.iter_mut().find(|c| c.joined && *c.topic == *broadcast.topic());
                if channel.is_some_and(|channel| channel.takes_presence(*version)) {
                    out.push(Effect::Send(broadcast.frame(self.vsn)));
                }
            }
            Event::Push { chan, event, payload } => {
                if let Some(channel) = self.channels.iter().find(|c| c.chan == *chan && c.joined) {
                    out.push(Effect::Send(channel.encode(self.vsn, event, payload)));
                }
            }
            Event::NewChat { chan, chat, hold } => {
                let joined = self.has_chat(&chat.id);
                let vsn = self.vsn;
                let Some(channel) = self.channels.iter_mut().find(|c| c.chan == *chan && c.joined) else { return };
                if !*hold {
                    out.extend(channel.show(vsn, chat).map(Effect::Send));
                } else if !joined {
                    let until = now + limits::NEW_CHAT_HOLD;
                    channel.hold(chat.clone(), until);
                    self.wake = self.wake.min(until);
                }
            }
            Event::Failed { chan } => {
                if let Some(at) = self.channels.iter().position(|c| c.chan == *chan) {
                    let channel = self.remove(at);
                    for request in channel.pending.iter().chain(channel.claim.as_deref()) {
                        self.refuse_request(&channel, request, Reason::Unavailable, out);
                    }
                    for frame in channel.waiting.iter().filter_map(|(_, w)| w.decode(self.vsn)) {
                        self.answer(&frame, Err(Reason::Unavailable.into()), out);
                    }
                    self.end_channel(&channel, "phx_error", out);
                    out.push(match channel.kind {
                        Kind::Room { room, .. } => Effect::Failed(room, *chan),
                        Kind::Feed { feed, .. } => Effect::Feed(feed, FeedCommand::Leave { chan: *chan }),
                        Kind::Teachers { .. } | Kind::Student { .. } | Kind::Chat { .. } => {
                            let at = At::Left { lost: true };
                            Effect::Lobby(LobbyCommand::Set { chan: *chan, at, serial: None })
                        }
                    });
                }
            }
            Event::Close(code) => out.push(Effect::Close(*code)),
            Event::Disconnect(user) if self.is(user) => out.push(Effect::Close(CloseCode::GoingAway)),
            Event::Disconnect(_) => {}
        }
    }

    fn has_chat(&self, chat: &ChatId) -> bool {
        self.channels.iter().any(|c| matches!(&c.kind, Kind::Chat { chat: id, .. } if id == chat))
    }

    pub(super) fn done(
        &mut self,
        chan: ChannelId,
        serial: u32,
        outcome: &Outcome,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let Some(at) = self.channels.iter().position(|c| c.chan == chan) else { return };
        if let Some(claim) = self.channels[at].claim.take_if(|c| c.serial == serial) {
            observe::answered(Answered::Claim, claim.waited(now));
            return self.finish(at, claim.reference, outcome, out);
        }
        let Some(pending) = self.channels[at].pending.take_if(|p| p.serial == serial) else { return };
        let (joining, kind) = (!self.channels[at].joined, self.channels[at].kind.number());
        observe::answered(if joining { Answered::Join(kind) } else { Answered::Push(kind) }, pending.waited(now));
        let ok = matches!(outcome, Outcome::Ok(_) | Outcome::Status(_));
        if joining {
            self.channels[at].joined = ok;
        }
        if ok && joining {
            self.totals.joins.fetch_add(1, Ordering::Relaxed);
        } else if ok && pending.says {
            self.totals.messages.fetch_add(1, Ordering::Relaxed);
        }
        if let Outcome::Status(status) = outcome {
            self.channels[at].takes(status.version);
        }
        self.finish(at, pending.reference, outcome, out);
        if joining && !self.channels[at].joined {
            let channel = self.remove(at);
            return self.refuse_unjoined(&channel, out);
        }
        self.resume(at, now, out);
    }

    fn finish(&self, at: usize, reference: Option<Ref>, outcome: &Outcome, out: &mut Vec<Effect>) {
        let channel = &self.channels[at];
        let status;
        let result = match outcome {
            Outcome::Ok(response) => Ok(&**response),
            Outcome::Status(counts) => {
                status = counts.counts();
                Ok(&*status)
            }
            Outcome::Refused(refusal) => Err(refusal.clone()),
        };
        self.reply(channel.join_ref.as_ref(), reference.as_ref(), &channel.topic, result, out);
    }
}
