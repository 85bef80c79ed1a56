//! What each kind of topic does with a join and with its events. Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ws::Utf8Bytes;
use switchboard_contract::limits::{self, SHOWN_CHATS_MAX};
use switchboard_contract::lobby::{At, ChannelId, ChatRecord, Role, TeacherSettings};
use switchboard_contract::names::{ChatId, UserId};
use switchboard_contract::reason::Reason;

use super::kind::{Kind, Topic};
use super::{Effect, SessionLimits, WaitingFrames, rooms};
use crate::auth::{Identity, Pass};
use crate::commands::{ChatCommand, ChatJoin, ChatPush, FeedCommand, LobbyCommand, RoomCommand};
use crate::frame::{self, Frame, Ref, Vsn};
use crate::payload::{self, HistoryParams, JoinUser, Named, Refusal};

/// A chat that a lobby channel was told of.
#[derive(Debug)]
pub(super) struct Told {
    chat: ChatId,
    /// Not shown yet: until when it is kept back.
    held: Option<(Instant, Arc<ChatRecord>)>,
}

/// A request whose answer is not there yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) serial: u32,
    pub(super) reference: Option<Ref>,
    pub(super) deadline: Instant,
    /// Something is said to others.
    pub(super) says: bool,
}

impl Pending {
    /// How long it has waited. Its deadline is made from when it came.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        limits::ANSWER_TIMEOUT.saturating_sub(self.deadline.saturating_duration_since(now))
    }
}

/// A topic joined on a socket, or being joined.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) chan: ChannelId,
    pub(super) topic: Box<str>,
    pub(super) join_ref: Option<Ref>,
    pub(super) kind: Kind,
    pub(super) joined: bool,
    pub(super) pending: Option<Pending>,
    pub(super) claim: Option<Box<Pending>>,
    pub(super) waiting: WaitingFrames,
}

impl Channel {
    pub(super) fn new(chan: ChannelId, topic: &str, join_ref: Option<Ref>, kind: Kind) -> Self {
        Channel {
            chan,
            topic: topic.into(),
            join_ref,
            kind,
            joined: false,
            pending: None,
            claim: None,
            waiting: VecDeque::new(),
        }
    }

    pub(super) fn wait_for(&mut self, serial: u32, reference: Option<Ref>, says: bool, now: Instant) {
        self.pending = Some(Pending { serial, reference, deadline: now + limits::ANSWER_TIMEOUT, says });
    }

    /// Whether the matcher was not asked for a while.
    pub(super) fn claims_again(&self, now: Instant) -> bool {
        match self.kind {
            Kind::Teachers { claimed, .. } => claimed.is_none_or(|at| now >= at + limits::CLAIM_INTERVAL),
            Kind::Student { .. } | Kind::Chat { .. } | Kind::Room { .. } | Kind::Feed { .. } => false,
        }
    }

    pub(super) fn claim_on_its_way(&mut self, serial: u32, reference: Option<Ref>, now: Instant) {
        if let Kind::Teachers { claimed, .. } = &mut self.kind {
            *claimed = Some(now);
        }
        let deadline = now + limits::ANSWER_TIMEOUT;
        self.claim = Some(Box::new(Pending { serial, reference, deadline, says: false }));
    }

    pub(super) fn is_teachers(&self) -> bool {
        matches!(self.kind, Kind::Teachers { .. })
    }

    /// As what the user has joined.
    pub(super) fn role(&self) -> Option<Role> {
        match self.kind {
            Kind::Teachers { .. } => Some(Role::Teacher),
            Kind::Student { .. } => Some(Role::Student),
            Kind::Chat { role, .. } => Some(role),
            Kind::Room { .. } | Kind::Feed { .. } => None,
        }
    }

    pub(super) fn chat_id(&self) -> Option<&ChatId> {
        match &self.kind {
            Kind::Chat { chat, .. } => Some(chat),
            Kind::Teachers { .. } | Kind::Student { .. } | Kind::Room { .. } | Kind::Feed { .. } => None,
        }
    }

    /// Notes that this version of [`crate::mailbox::Event::Once`] is shown; false if it, or a newer one, was before.
    pub(super) fn takes(&mut self, version: u64) -> bool {
        match &mut self.kind {
            Kind::Teachers { status_version: shown, .. } | Kind::Feed { shown, .. } if *shown < version => {
                *shown = version;
                true
            }
            Kind::Teachers { .. }
            | Kind::Student { .. }
            | Kind::Chat { .. }
            | Kind::Room { .. }
            | Kind::Feed { .. } => false,
        }
    }

    fn presence(&mut self) -> Option<&mut u64> {
        match &mut self.kind {
            Kind::Room { presence, .. } => Some(presence),
            Kind::Teachers { .. } | Kind::Student { .. } | Kind::Chat { .. } | Kind::Feed { .. } => None,
        }
    }

    /// Notes that a state of presence is shown; false on a topic without presence.
    pub(super) fn takes_presence_state(&mut self, version: u64) -> bool {
        self.presence().map(|shown| *shown = version).is_some()
    }

    /// Notes that a change of presence is shown; false before the state, and if it was shown or is in the state. What is
    /// for an earlier join of the same topic on this socket comes here too.
    pub(super) fn takes_presence(&mut self, version: u64) -> bool {
        match self.presence() {
            Some(shown) if *shown > 0 && *shown < version => {
                *shown = version;
                true
            }
            Some(_) | None => false,
        }
    }

    /// An event for this channel alone carries its join_ref.
    pub(super) fn encode(&self, vsn: Vsn, event: &str, payload: &str) -> Utf8Bytes {
        frame::encode_text(vsn, self.join_ref.as_ref(), None, &self.topic, event, payload).into()
    }

    fn told(&mut self) -> Option<&mut Vec<Told>> {
        match &mut self.kind {
            Kind::Teachers { told, .. } | Kind::Student { told, .. } => Some(told),
            Kind::Chat { .. } | Kind::Room { .. } | Kind::Feed { .. } => None,
        }
    }

    /// The frame of `new:chat`, unless this channel has shown the chat already.
    pub(super) fn show(&mut self, vsn: Vsn, chat: &ChatRecord) -> Option<Utf8Bytes> {
        let told = self.told()?;
        let held = told.iter().position(|told| told.chat == chat.id);
        match held.and_then(|at| told.get_mut(at)) {
            Some(Told { held: None, .. }) => return None,
            Some(told) => told.held = None,
            None => {
                if told.len() >= SHOWN_CHATS_MAX {
                    told.remove(0);
                }
                told.push(Told { chat: chat.id.clone(), held: None });
            }
        }
        let event = match &mut self.kind {
            Kind::Teachers { id, claimed, .. } => {
                *claimed = None;
                format!("new:chat:{id}")
            }
            Kind::Student { .. } | Kind::Chat { .. } | Kind::Room { .. } | Kind::Feed { .. } => "new:chat".to_owned(),
        };
        Some(self.encode(vsn, &event, &chat_json(chat, "[]")))
    }

    /// Keeps a chat back that the client may rejoin by itself.
    pub(super) fn hold(&mut self, chat: Arc<ChatRecord>, until: Instant) {
        let Some(told) = self.told() else { return };
        if told.len() < SHOWN_CHATS_MAX && !told.iter().any(|told| told.chat == chat.id) {
            told.push(Told { chat: chat.id.clone(), held: Some((until, chat)) });
        }
    }

    /// The chats that have been kept back long enough. They are kept back no longer: shown now, or never.
    pub(super) fn held_until(&mut self, now: Instant) -> Vec<Arc<ChatRecord>> {
        let Some(told) = self.told() else { return Vec::new() };
        let due = |told: &mut Told| told.held.as_ref().is_some_and(|(until, _)| *until <= now);
        told.extract_if(.., due).filter_map(|told| told.held).map(|(_, chat)| chat).collect()
    }

    pub(super) fn deadlines(&self) -> impl Iterator<Item = Instant> {
        let held = match &self.kind {
            Kind::Teachers { told, .. } | Kind::Student { told, .. } => told.as_slice(),
            Kind::Chat { .. } | Kind::Room { .. } | Kind::Feed { .. } => &[],
        };
        let requests = self.pending.iter().chain(self.claim.as_deref()).map(|p| p.deadline);
        let requests = requests.chain(self.kind.until());
        requests.chain(held.iter().filter_map(|told| told.held.as_ref()).map(|(until, _)| *until))
    }

    /// The channel is gone: what the others have to be told.
    pub(super) fn gone(&self, lost: bool, out: &mut Vec<Effect>) {
        out.push(match &self.kind {
            Kind::Teachers { .. } | Kind::Student { .. } => {
                Effect::Lobby(LobbyCommand::Set { chan: self.chan, at: At::Left { lost }, serial: None })
            }
            Kind::Chat { chat, .. } => Effect::Chat(chat.clone(), ChatCommand::Leave { chan: self.chan, lost }),
            Kind::Room { room, .. } => Effect::Room(room.clone(), RoomCommand::Leave { chan: self.chan, lost }),
            Kind::Feed { feed, .. } => Effect::Feed(feed.clone(), FeedCommand::Leave { chan: self.chan }),
        });
    }

    /// As [`Channel::gone`], for a join that nobody answered.
    pub(super) fn leave_effects(&self) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.gone(true, &mut effects);
        effects
    }
}

/// Joins a topic, with the API's secret or without: its kind, and what to do before [`crate::mailbox::Event::Done`]
/// with this serial comes. A student's too: were it answered before the matcher knows of it, another socket of the same
/// user could leave meanwhile, as the last one.
pub(super) fn join(
    topic: Topic,
    frame: &Frame<'_>,
    chan: ChannelId,
    serial: u32,
    identity: &Identity,
    secret: bool,
    limits: &SessionLimits,
) -> Result<(Kind, Effect), Refusal> {
    let set = |at| Effect::Lobby(LobbyCommand::Set { chan, at, serial: Some(serial) });
    let named = || {
        let user: JoinUser = payload::read(frame.payload)?;
        identity.check(&user.user_id, user.role)?;
        Ok::<JoinUser, Refusal>(user)
    };
    match topic {
        Topic::Teachers => {
            let user = named()?;
            expect_role(user.role, Role::Teacher)?;
            let effect = set(teacher_at(&user.user_id, user.settings, limits)?);
            Ok((Kind::Teachers { id: user.user_id, status_version: 0, claimed: None, told: Vec::new() }, effect))
        }
        Topic::Student(id) => {
            let user = named()?;
            expect_role(user.role, Role::Student)?;
            if user.user_id != id {
                return Err(Reason::Forbidden.into());
            }
            let effect = set(At::Student { id: user.user_id.clone(), ready: false });
            Ok((Kind::Student { id: user.user_id, told: Vec::new() }, effect))
        }
        Topic::Chat(chat) => {
            let user = named()?;
            let chat = chat.map_err(|_| Reason::NotFound)?;
            let role = user.role.ok_or_else(|| Refusal::invalid("missing field `role`"))?;
            let JoinUser { user_id: user, last_seq, .. } = user;
            let who = ChatJoin { role, user: user.clone() };
            let join = ChatCommand::Join { chan, serial, who, last_seq };
            Ok((Kind::Chat { chat: chat.clone(), role, user }, Effect::Chat(chat, join)))
        }
        Topic::Room(room) => {
            let joining = rooms::join(frame.payload, chan, serial)?;
            let kind = Kind::Room { room: room.clone(), user: None, until: None, presence: 0 };
            Ok((kind, Effect::JoinRoom(room, Box::new(joining))))
        }
        Topic::Feed(feed) => {
            let pass = if secret { Pass::Secret } else { identity.check_feed(feed.name())? };
            let kind = Kind::Feed { feed: feed.clone(), user: identity.user().cloned(), pass, shown: 0 };
            Ok((kind, Effect::Feed(feed, FeedCommand::Join { chan, serial, pass })))
        }
    }
}

fn expect_role(role: Option<Role>, expected: Role) -> Result<(), Refusal> {
    match role {
        Some(role) if role != expected => Err(Reason::Forbidden.into()),
        Some(_) => Ok(()),
        None => Err(Refusal::invalid("missing field `role`")),
    }
}

fn teacher_at(id: &UserId, says: TeacherSettings, limits: &SessionLimits) -> Result<At, Refusal> {
    let says = payload::check_capacity(says, limits.capacity)?;
    Ok(At::Teacher { id: id.clone(), says, said: TeacherSettings::default() })
}

/// Whether a claim names nobody else.
pub(super) fn check_claim(channel: &Channel, frame: &Frame<'_>) -> Result<(), Refusal> {
    let named: Named = payload::read(frame.payload)?;
    match (&channel.kind, named.teacher_id) {
        (Kind::Teachers { id, .. }, Some(named)) if named != *id => Err(Reason::Forbidden.into()),
        (Kind::Teachers { .. }, _) => Ok(()),
        (Kind::Student { .. } | Kind::Chat { .. } | Kind::Room { .. } | Kind::Feed { .. }, _) => {
            Err(Reason::UnmatchedEvent.into())
        }
    }
}

/// An event on a joined topic: what to do, before [`crate::mailbox::Event::Done`] with this serial comes.
pub(super) fn push(
    channel: &mut Channel,
    frame: &Frame<'_>,
    serial: u32,
    limits: &SessionLimits,
) -> Result<Effect, Refusal> {
    let chan = channel.chan;
    let set = |at| Ok(Effect::Lobby(LobbyCommand::Set { chan, at, serial: Some(serial) }));
    match (&mut channel.kind, frame.event.as_ref()) {
        (Kind::Teachers { id, .. }, "teacher:update") => set(teacher_at(id, payload::read(frame.payload)?, limits)?),
        (Kind::Student { id, .. }, "student:ready") => {
            let named: Named = payload::read(frame.payload)?;
            if named.user_id.is_some_and(|named| named != *id) {
                return Err(Reason::Forbidden.into());
            }
            set(At::Student { id: id.clone(), ready: true })
        }
        (Kind::Chat { chat, role, .. }, event) => {
            let push = chat_push(*role, event, frame)?;
            let push = ChatCommand::Push { chan, serial, push };
            Ok(Effect::Chat(chat.clone(), push))
        }
        (Kind::Room { room, .. }, _) => {
            let push = RoomCommand::Push { chan, serial, push: rooms::push(frame)? };
            Ok(Effect::Room(room.clone(), push))
        }
        (Kind::Teachers { .. } | Kind::Student { .. } | Kind::Feed { .. }, _) => Err(Reason::UnmatchedEvent.into()),
    }
}

fn chat_push(role: Role, event: &str, frame: &Frame<'_>) -> Result<ChatPush, Refusal> {
    let only = |side: Role| if role == side { Ok(()) } else { Err(Refusal::from(Reason::Forbidden)) };
    match event {
        "teacher:joined" => only(Role::Teacher).map(|()| ChatPush::Enter),
        "student:joined" => only(Role::Student).map(|()| ChatPush::Enter),
        "teacher:send" => {
            only(Role::Teacher)?;
            payload::message(frame.payload).map(ChatPush::Send)
        }
        "student:send" => {
            only(Role::Student)?;
            payload::message(frame.payload).map(ChatPush::Send)
        }
        "history" => {
            let params: HistoryParams = payload::read(frame.payload)?;
            params.check().map(ChatPush::History)
        }
        "chat:terminate" => Ok(ChatPush::Terminate),
        _ => Err(Reason::UnmatchedEvent.into()),
    }
}

/// A chat as clients see it; `messages` is a JSON array.
pub fn chat_json(chat: &ChatRecord, messages: &str) -> String {
    let json = serde_json::json!({
        "id": chat.id,
        "status": chat.status,
        "teacher_id": chat.teacher_id,
        "student_id": chat.student_id,
        "teacher_entered": chat.teacher_entered,
        "student_entered": chat.student_entered,
    });
    let mut text = json.to_string();
    text.truncate(text.len() - 1);
    text.push_str(",\"messages\":");
    text.push_str(messages);
    text.push('}');
    text
}
