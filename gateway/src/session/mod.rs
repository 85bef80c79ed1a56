//! The rules of a session: frames and events in, effects out. Pure.
//!
//! A channel has at most one request on its way; frames of its topic that come meanwhile wait behind it, so each
//! topic is handled in order and topics do not wait for each other. `claim:student` alone does not wait.

mod events;
mod joins;
mod kind;
mod rooms;
mod tokens;
mod topics;

pub(crate) use rooms::{RESERVED, is_servers, joiner};
pub use topics::chat_json;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use axum::extract::ws::Utf8Bytes;
use bytes::Bytes;
use switchboard_contract::limits;
use switchboard_contract::lobby::ChannelId;
use switchboard_contract::names::{ChatId, FeedId, RoomId};
use switchboard_contract::reason::{CloseCode, Reason};

use crate::api::secret::Secret;
use crate::auth::Identity;
use crate::auth::token::Token;
use crate::commands::{ChatCommand, ChatPush, FeedCommand, LobbyCommand, RoomCommand, RoomJoining, RoomPush};
use crate::frame::{self, Frame, Ref, Vsn};
use crate::limiter::Limiter;
use crate::mailbox::Outcome;
use crate::observe;
use crate::payload::Refusal;
use topics::{Channel, Pending};

/// What a session wants done.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Send a text frame to the client.
    Send(Utf8Bytes),
    /// Send a binary frame to the client.
    SendBinary(Bytes),
    /// Close the socket.
    Close(CloseCode),
    /// Tell the lobby's task.
    Lobby(LobbyCommand),
    /// Tell the task of a chat's topic.
    Chat(ChatId, ChatCommand),
    /// Verify a token; [`crate::mailbox::Event::Renewed`] follows.
    Verify {
        /// On which channel it came.
        chan: ChannelId,
        /// Which of its requests.
        serial: u32,
        /// It came on this room's topic, and may be the room's.
        room: Option<RoomId>,
        /// The token.
        token: Token,
    },
    /// Find out who this is in a room, and then join it.
    JoinRoom(RoomId, Box<RoomJoining>),
    /// Tell the task of a room's topic.
    Room(RoomId, RoomCommand),
    /// Tell the feeds' task.
    Feed(FeedId, FeedCommand),
    /// Tell presence that a room's channel has failed.
    Failed(RoomId, ChannelId),
}

/// What is configurable of a session.
#[derive(Clone, Debug)]
pub struct SessionLimits {
    /// Channels of one socket.
    pub channels: usize,
    /// The largest capacity a teacher may name.
    pub capacity: u32,
    /// Silence after which the socket is closed.
    pub idle: Duration,
    /// What each user may do.
    pub users: Arc<Limiter>,
    /// The secret of the HTTP API, without which nobody joins what asks for it; `None`: nobody does.
    pub secret: Option<Secret>,
}

/// What all sessions of a gateway count together, since it started.
#[derive(Debug, Default)]
pub struct Totals {
    /// Numbers the channels.
    pub channels: AtomicU64,
    /// See [`switchboard_contract::inside::GatewayInside::joins`].
    pub joins: AtomicU64,
    /// See [`switchboard_contract::inside::GatewayInside::messages`].
    pub messages: AtomicU64,
}

/// A frame that waits behind a pending request of its topic.
#[derive(Debug)]
enum Waiting {
    Text(Utf8Bytes),
    Binary(Bytes),
}

impl Waiting {
    fn len(&self) -> usize {
        match self {
            Waiting::Text(text) => text.len(),
            Waiting::Binary(bytes) => bytes.len(),
        }
    }

    fn decode(&self, vsn: Vsn) -> Option<Frame<'_>> {
        match self {
            Waiting::Text(text) => frame::decode_text(vsn, text).ok(),
            Waiting::Binary(bytes) => frame::decode_binary(vsn, bytes).ok(),
        }
    }
}

/// The state of one socket.
pub struct Session {
    vsn: Vsn,
    identity: Identity,
    limits: Arc<SessionLimits>,
    totals: Arc<Totals>,
    channels: Vec<Channel>,
    serial: u32,
    waiting_bytes: usize,
    heard: Instant,
    wake: Instant,
}

impl Session {
    /// A socket that has just been opened. `totals` are those of the whole gateway.
    pub fn new(vsn: Vsn, identity: Identity, limits: Arc<SessionLimits>, totals: Arc<Totals>, now: Instant) -> Self {
        let idle = now + limits.idle;
        let wake = identity.expires().map_or(idle, |expires| expires.min(idle));
        let channels = Vec::new();
        Session { vsn, identity, limits, totals, channels, serial: 0, waiting_bytes: 0, heard: now, wake }
    }

    /// Who this socket is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When [`Session::tick`] wants to be called.
    pub fn wake(&self) -> Instant {
        self.wake
    }

    /// How many frames wait in the fullest channel: up to [`limits::WAITING_FRAMES_MAX`]. All their bytes count as if
    /// that many were [`limits::WAITING_BYTES_MAX`].
    pub fn crowd(&self) -> usize {
        let frames = self.channels.iter().map(|channel| channel.waiting.len()).max().unwrap_or(0);
        frames.max(self.waiting_bytes * limits::WAITING_FRAMES_MAX / limits::WAITING_BYTES_MAX)
    }

    /// Any frame came, also one that is no message.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// A text frame came. `nobody_waits`: the last status says that the queue is empty.
    pub fn text(&mut self, text: Utf8Bytes, nobody_waits: bool, now: Instant, out: &mut Vec<Effect>) {
        self.heard = now;
        match frame::decode_text(self.vsn, &text) {
            Ok(frame) => self.frame(&frame, || Waiting::Text(text.clone()), nobody_waits, now, out),
            Err(error) => {
                tracing::debug!(%error, "malformed text frame");
                out.push(Effect::Close(CloseCode::MalformedText));
            }
        }
    }

    /// A binary frame came.
    pub fn binary(&mut self, bytes: Bytes, nobody_waits: bool, now: Instant, out: &mut Vec<Effect>) {
        self.heard = now;
        match frame::decode_binary(self.vsn, &bytes) {
            Ok(frame) => self.frame(&frame, || Waiting::Binary(bytes.clone()), nobody_waits, now, out),
            Err(error) => {
                tracing::debug!(%error, "malformed binary frame");
                out.push(Effect::Close(CloseCode::MalformedBinary));
            }
        }
    }

    fn frame(
        &mut self,
        frame: &Frame<'_>,
        keep: impl FnOnce() -> Waiting,
        nobody_waits: bool,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        if frame.topic.len() > limits::NAME_BYTES_MAX || frame.event.len() > limits::NAME_BYTES_MAX {
            let detail = format!("topic and event have at most {} bytes", limits::NAME_BYTES_MAX);
            return self.answer(frame, Err(Refusal::invalid(detail)), out);
        }
        let found = self.channels.iter().position(|c| *c.topic == *frame.topic);
        match (frame.event.as_ref(), found) {
            ("heartbeat", None) if frame.topic == "phoenix" => self.answer(frame, Ok("{}"), out),
            ("phx_join", found) => self.join(frame, found, now, out),
            ("phx_leave", None) => self.answer(frame, Ok("{}"), out),
            (_, None) => self.answer(frame, Err(Reason::UnmatchedTopic.into()), out),
            (_, Some(at)) if self.is_stale(at, frame) => {}
            ("claim:student", Some(at)) if self.channels[at].is_teachers() => {
                self.claim(at, frame, nobody_waits, now, out);
            }
            (_, Some(at)) if self.channels[at].pending.is_some() => self.wait(at, frame, keep(), now, out),
            (_, Some(at)) => self.push(at, frame, now, out),
        }
    }

    /// A frame of an earlier join of the topic. V1 clients do not send a `join_ref`, so theirs never are.
    fn is_stale(&self, at: usize, frame: &Frame<'_>) -> bool {
        let same = |join_ref: &Ref| self.channels[at].join_ref.as_ref().is_some_and(|joined| joined.is_same(join_ref));
        frame.join_ref.as_ref().is_some_and(|join_ref| !same(join_ref))
    }

    fn answer(&self, frame: &Frame<'_>, result: Result<&str, Refusal>, out: &mut Vec<Effect>) {
        let join_ref = frame.join_ref.as_ref().or_else(|| {
            self.channels.iter().find(|c| *c.topic == *frame.topic).and_then(|channel| channel.join_ref.as_ref())
        });
        self.reply(join_ref, frame.reference.as_ref(), &frame.topic, result, out);
    }

    fn reply(
        &self,
        join_ref: Option<&Ref>,
        reference: Option<&Ref>,
        topic: &str,
        result: Result<&str, Refusal>,
        out: &mut Vec<Effect>,
    ) {
        let text = match result {
            Ok(response) => frame::encode_reply(self.vsn, join_ref, reference, topic, true, response),
            Err(refusal) => {
                metrics::counter!("switchboard_gateway_refusals_total", "reason" => refusal.reason.as_str())
                    .increment(1);
                frame::encode_reply(self.vsn, join_ref, reference, topic, false, &refusal.to_json())
            }
        };
        out.push(Effect::Send(text.into()));
    }

    /// A request whose channel goes before the answer is there.
    fn refuse_request(&self, channel: &Channel, request: &Pending, reason: Reason, out: &mut Vec<Effect>) {
        let (join_ref, reference) = (channel.join_ref.as_ref(), request.reference.as_ref());
        self.reply(join_ref, reference, &channel.topic, Err(reason.into()), out);
    }

    /// The server's last word on a channel.
    fn end_channel(&self, channel: &Channel, event: &str, out: &mut Vec<Effect>) {
        let join_ref = channel.join_ref.as_ref();
        let text = frame::encode_text(self.vsn, join_ref, join_ref, &channel.topic, event, "{}");
        out.push(Effect::Send(text.into()));
    }

    fn remove(&mut self, at: usize) -> Channel {
        let channel = self.channels.remove(at);
        self.waiting_bytes -= channel.waiting.iter().map(|(_, w)| w.len()).sum::<usize>();
        channel
    }

    fn next_serial(&mut self) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }

    fn wait(&mut self, at: usize, frame: &Frame<'_>, kept: Waiting, now: Instant, out: &mut Vec<Effect>) {
        let full = self.channels[at].waiting.len() >= limits::WAITING_FRAMES_MAX
            || self.waiting_bytes + kept.len() > limits::WAITING_BYTES_MAX;
        if full {
            observe::full("waiting_frames");
            return self.answer(frame, Err(Refusal::rate_limited(100)), out);
        }
        self.waiting_bytes += kept.len();
        self.channels[at].waiting.push_back((now, kept));
    }

    /// One claim at a time goes on; the others are answered at once. While nobody waits most are: the last status may be
    /// a moment old, so now and then one goes on all the same, and a single claim always does.
    fn claim(&mut self, at: usize, frame: &Frame<'_>, nobody_waits: bool, now: Instant, out: &mut Vec<Effect>) {
        if let Err(refusal) = topics::check_claim(&self.channels[at], frame) {
            return self.answer(frame, Err(refusal), out);
        }
        let channel = &mut self.channels[at];
        let known = nobody_waits && !channel.claims_again(now);
        if known || channel.claim.is_some() || !channel.joined {
            return self.answer(frame, Ok("{}"), out);
        }
        let serial = self.next_serial();
        self.channels[at].claim_on_its_way(serial, frame.reference.clone(), now);
        self.wake = self.wake.min(now + limits::ANSWER_TIMEOUT);
        out.push(Effect::Lobby(LobbyCommand::Claim { chan: self.channels[at].chan, serial }));
    }

    fn push(&mut self, at: usize, frame: &Frame<'_>, now: Instant, out: &mut Vec<Effect>) {
        if frame.event == "phx_leave" {
            if let Some(claim) = &self.channels[at].claim {
                self.refuse_request(&self.channels[at], claim, Reason::Unavailable, out);
            }
            self.answer(frame, Ok("{}"), out);
            let channel = self.remove(at);
            self.end_channel(&channel, "phx_close", out);
            // What was sent behind the leave is on a topic that is not joined.
            for frame in channel.waiting.iter().filter_map(|(_, w)| w.decode(self.vsn)) {
                let result = if frame.event == "phx_leave" { Ok("{}") } else { Err(Reason::UnmatchedTopic.into()) };
                self.answer(&frame, result, out);
            }
            return channel.gone(false, out);
        }
        let serial = self.next_serial();
        let pushed = match frame.event.as_ref() {
            "access_token" => self.access_token(at, frame, serial),
            _ => topics::push(&mut self.channels[at], frame, serial, &self.limits).map(Some),
        };
        match pushed {
            Ok(None) => self.answer(frame, Ok("{}"), out),
            Ok(Some(effect)) => {
                self.channels[at].wait_for(serial, frame.reference.clone(), says(&effect), now);
                self.wake = self.wake.min(now + limits::ANSWER_TIMEOUT);
                out.push(effect);
            }
            Err(refusal) => self.answer(frame, Err(refusal), out),
        }
    }

    /// Handles what waited, until something is on its way again.
    fn resume(&mut self, at: usize, now: Instant, out: &mut Vec<Effect>) {
        let chan = self.channels[at].chan;
        while let Some(at) = self.channels.iter().position(|c| c.chan == chan && c.pending.is_none()) {
            let Some((since, kept)) = self.channels[at].waiting.pop_front() else { return };
            self.waiting_bytes -= kept.len();
            let Some(frame) = kept.decode(self.vsn) else { continue };
            // Its time began when it came, and not when what it waited for was done.
            if now < since + limits::ANSWER_TIMEOUT || frame.event == "phx_leave" {
                self.push(at, &frame, since, out);
            } else {
                self.answer(&frame, Err(Reason::Unavailable.into()), out);
            }
        }
    }

    /// A deadline passed: unanswered requests become `unavailable`, held chats are shown, silence closes the socket.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if now >= self.heard + self.limits.idle {
            out.push(Effect::Close(CloseCode::GoingAway));
        }
        if self.identity.expires().is_some_and(|expires| expires <= now) {
            tracing::debug!("a token has expired");
            out.push(Effect::Close(CloseCode::Policy));
        }
        self.expire(now, out);
        let unavailable = Outcome::Refused(Reason::Unavailable.into());
        let overdue: Vec<(ChannelId, u32)> = self
            .channels
            .iter()
            .flat_map(|c| c.pending.iter().chain(c.claim.as_deref()).map(move |p| (c.chan, p.serial, p.deadline)))
            .filter(|(_, _, deadline)| *deadline <= now)
            .map(|(chan, serial, _)| (chan, serial))
            .collect();
        for (chan, serial) in overdue {
            tracing::debug!(chan, serial, "a request was not answered in time");
            let joining = self.channels.iter().find(|c| c.chan == chan && !c.joined).map(Channel::leave_effects);
            self.done(chan, serial, &unavailable, now, out);
            out.extend(joining.unwrap_or_default());
        }
        let joined: Vec<ChatId> = self.channels.iter().filter_map(Channel::chat_id).cloned().collect();
        for channel in &mut self.channels {
            for chat in channel.held_until(now) {
                if !joined.contains(&chat.id) {
                    out.extend(channel.show(self.vsn, &chat).map(Effect::Send));
                }
            }
        }
        let deadlines = self.channels.iter().flat_map(Channel::deadlines);
        self.wake = deadlines
            .chain([self.heard + self.limits.idle])
            .chain(self.identity.expires())
            .min()
            .unwrap_or(now + self.limits.idle);
    }

    /// The socket is gone, and all its channels with it.
    pub fn gone(&mut self, out: &mut Vec<Effect>) {
        for channel in self.channels.drain(..) {
            channel.gone(true, out);
        }
        self.waiting_bytes = 0;
    }
}

/// Whether somebody says something to others: what counts as a message ([`Totals::messages`]).
fn says(effect: &Effect) -> bool {
    let chat = matches!(effect, Effect::Chat(_, ChatCommand::Push { push: ChatPush::Send(_), .. }));
    let room = matches!(effect, Effect::Room(_, RoomCommand::Push { push, .. })
        if matches!(push, RoomPush::Broadcast(_) | RoomPush::Direct(..) | RoomPush::Say(_)));
    chat || room
}

/// Frames that wait, each with the time at which it came.
type WaitingFrames = VecDeque<(Instant, Waiting)>;

#[cfg(test)]
mod feed_tests;
#[cfg(test)]
mod limit_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod token_tests;
#[cfg(test)]
mod total_tests;
