//! One task per socket: frames and events in, what the session decides out. It never waits for NATS.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::{SinkExt as _, StreamExt as _};
use switchboard_contract::limits;
use switchboard_contract::names::RoomId;
use switchboard_contract::reason::CloseCode;
use switchboard_contract::trace::Span;
use tokio::time::Sleep;
use tokio_tungstenite::tungstenite;

use crate::auth::room::RoomUser;
use crate::auth::{self, Identity, Renewed};
use crate::chat::ChatKind;
use crate::commands::{RoomCommand, RoomJoining};
use crate::frame::Vsn;
use crate::mailbox::{Event, Events, Mailbox, Outcome};
use crate::observe;
use crate::room::RoomKind;
use crate::server::Gateway;
use crate::session::{Effect, Session, joiner};

/// Events sent before the socket is read again.
const EVENTS_PER_TURN: usize = 256;

/// Events that come within this time of each other are sent together.
const EVENTS_TOGETHER: Duration = Duration::from_millis(1);

/// What a socket's task wakes up for.
enum Turn {
    Event(Option<Arc<Event>>),
    Message(Option<Result<Message, axum::Error>>),
    Time,
}

/// Events come first, unless the socket was not read for long because of them: most often there is one, and then
/// nothing else need be looked at.
fn turn(
    context: &mut Context<'_>,
    ws: &mut WebSocket,
    events: &Events,
    timer: Pin<&mut Sleep>,
    reads: bool,
    read_first: bool,
) -> Poll<Turn> {
    if reads
        && read_first
        && let Poll::Ready(message) = ws.poll_next_unpin(context)
    {
        return Poll::Ready(Turn::Message(message));
    }
    if let Poll::Ready(event) = events.poll_next(context) {
        return Poll::Ready(Turn::Event(event));
    }
    if reads
        && !read_first
        && let Poll::Ready(message) = ws.poll_next_unpin(context)
    {
        return Poll::Ready(Turn::Message(message));
    }
    timer.poll(context).map(|()| Turn::Time)
}

/// How a socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It broke.
    Gone,
    /// The client closes it.
    Closed,
    /// We close it.
    Close(CloseCode),
}

/// Serves a socket until it ends, and then tells lobby and topics. Boxed parts keep the task of an idle socket small.
pub async fn serve(mut ws: Box<WebSocket>, vsn: Vsn, identity: Identity, gateway: Arc<Gateway>) {
    let (mailbox, mut events) = Mailbox::new();
    let registered = gateway.register(&mailbox);
    let mut socket = Socket {
        session: Session::new(vsn, identity, gateway.limits.clone(), gateway.totals.clone(), Instant::now()),
        gateway: gateway.clone(),
        mailbox,
        flow: Flow::new(Instant::now()),
        event_at: Instant::now(),
    };
    let end = socket.run(&mut ws, &mut events).await;
    // Nothing is delivered any more; what is still on its way finds no channel.
    drop(events);
    let mut left = Vec::new();
    socket.session.gone(&mut left);
    for effect in left {
        Box::pin(socket.tell(effect)).await;
    }
    match end {
        End::Gone => {}
        // The answer to the client's close frame is queued already.
        End::Closed => drop(tokio::time::timeout(limits::CLOSE_TIMEOUT, ws.flush()).await),
        End::Close(code) => {
            metrics::counter!("switchboard_gateway_closes_total", "code" => code.code().to_string()).increment(1);
            Box::pin(close(ws, code)).await;
        }
    }
    drop(registered);
}

struct Socket {
    session: Session,
    gateway: Arc<Gateway>,
    mailbox: Mailbox,
    flow: Flow,
    /// When it was woken for an event last.
    event_at: Instant,
}

impl Socket {
    async fn run(&mut self, ws: &mut WebSocket, events: &mut Events) -> End {
        let timer = tokio::time::sleep_until(self.session.wake().into());
        tokio::pin!(timer);
        let mut read_first = false;
        loop {
            // Not kept between turns: most sockets are idle most of the time.
            let mut effects = Vec::new();
            let reads = self.flow.open();
            match poll_fn(|context| turn(context, ws, events, timer.as_mut(), reads, read_first)).await {
                Turn::Event(event) => {
                    let Some(event) = event else { return End::Close(CloseCode::Policy) };
                    let now = Instant::now();
                    self.session.event(&event, now, &mut effects);
                    // Where one follows the other, yield once, so that what else is being sent to this socket arrives,
                    // and goes out in one write. To be woken for it again costs more than one that comes alone gains.
                    if now.duration_since(self.event_at) < EVENTS_TOGETHER {
                        tokio::task::yield_now().await;
                    }
                    self.event_at = now;
                    let more = std::iter::from_fn(|| events.try_next()).take(EVENTS_PER_TURN);
                    let more = more.inspect(|event| self.session.event(event, now, &mut effects)).count();
                    read_first = more == EVENTS_PER_TURN;
                    self.flow.eased(self.session.crowd());
                }
                Turn::Message(message) => {
                    read_first = false;
                    if let Some(end) = self.message(message, &mut effects) {
                        return end;
                    }
                }
                Turn::Time => {
                    let now = Instant::now();
                    self.flow.reopen(now);
                    self.session.tick(now, &mut effects);
                }
            }
            // Boxed, and there only while something is sent: an idle socket does not hold the room for it.
            if !effects.is_empty()
                && let Some(end) = Box::pin(self.send(ws, events, effects)).await
            {
                return end;
            }
            let wake = self.flow.until().map_or(self.session.wake(), |until| until.min(self.session.wake())).into();
            if timer.is_elapsed() || wake < timer.deadline() {
                timer.as_mut().reset(wake);
            }
        }
    }

    fn message(&mut self, message: Option<Result<Message, axum::Error>>, effects: &mut Vec<Effect>) -> Option<End> {
        let now = Instant::now();
        let nobody_waits = self.gateway.lobby.nobody_waits();
        self.flow.count(now);
        match message {
            Some(Ok(Message::Text(text))) => self.session.text(text, nobody_waits, now, effects),
            Some(Ok(Message::Binary(bytes))) => self.session.binary(bytes, nobody_waits, now, effects),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => self.session.heard(now),
            Some(Ok(Message::Close(_))) => return Some(End::Closed),
            None => return Some(End::Gone),
            Some(Err(error)) => return Some(end_of(error)),
        }
        observe::FRAMES.increment(1);
        self.flow.crowded(self.session.crowd(), now);
        None
    }

    /// Carries the effects out: frames are collected and flushed once. What is for others is told also where the socket
    /// has failed meanwhile: the session has done with it.
    async fn send(&mut self, ws: &mut WebSocket, events: &Events, effects: Vec<Effect>) -> Option<End> {
        let (mut sent, mut end) = (0, None);
        for effect in effects {
            match effect {
                Effect::Send(text) if end.is_none() => {
                    sent += 1;
                    end = within_deadline(events, ws.feed(Message::Text(text))).await.err();
                }
                Effect::SendBinary(bytes) if end.is_none() => {
                    sent += 1;
                    end = within_deadline(events, ws.feed(Message::Binary(bytes))).await.err();
                }
                Effect::Close(code) if end.is_none() => {
                    let _ = within_deadline(events, ws.flush()).await;
                    end = Some(End::Close(code));
                }
                Effect::Send(_) | Effect::SendBinary(_) | Effect::Close(_) => {}
                effect @ (Effect::Lobby(_)
                | Effect::Chat(..)
                | Effect::Room(..)
                | Effect::Feed(..)
                | Effect::Failed(..)
                | Effect::JoinRoom(..)
                | Effect::Verify { .. }) => Box::pin(self.tell(effect)).await,
            }
        }
        observe::FRAMES_SENT.increment(sent);
        if sent > 0 && end.is_none() {
            end = within_deadline(events, ws.flush()).await.err();
        }
        end
    }

    /// In place, so that what the channel asks for next comes behind it. A key that is not known is fetched first, but
    /// not often.
    async fn join_room(&mut self, room: RoomId, joining: RoomJoining) {
        let RoomJoining { chan, serial, says, session, last_seq } = joining;
        let joined = self.gateway.auth.join_room(self.session.identity(), room.as_str(), &says).await;
        let joined = joined.map_err(|error| {
            tracing::info!(%room, %error, "a room's token does not count");
            error.reason().into()
        });
        let mut too_loud = false;
        let who = joined.and_then(|RoomUser { user, rank, until }| {
            let admitted = self.session.admitted(chan, &user, auth::deadline(until), Instant::now());
            admitted.map_err(|refused| {
                too_loud = refused.out;
                refused.refusal()
            })?;
            joiner(user, rank, &session)
        });
        match who {
            Ok(who) => {
                let join = RoomCommand::Join { chan, serial, who, last_seq };
                self.gateway.hub.send::<RoomKind>(&room, join, &self.mailbox).await;
            }
            Err(refusal) => {
                let outcome = Outcome::Refused(refusal);
                self.mailbox.send(Arc::new(Event::Done { chan, serial, outcome }));
                if too_loud {
                    self.mailbox.send(Arc::new(Event::Close(CloseCode::Policy)));
                }
            }
        }
    }

    async fn tell(&mut self, effect: Effect) {
        match effect {
            Effect::Lobby(command) => self.gateway.lobby.send(command, &self.mailbox, Span::default()).await,
            Effect::Chat(chat, command) => self.gateway.hub.send::<ChatKind>(&chat, command, &self.mailbox).await,
            Effect::Failed(room, chan) => self.gateway.hub.failed(room, chan).await,
            Effect::Room(room, command) => self.gateway.hub.send::<RoomKind>(&room, command, &self.mailbox).await,
            Effect::Feed(feed, command) => self.gateway.feeds.send(feed, command, &self.mailbox).await,
            Effect::JoinRoom(room, joining) => self.join_room(room, *joining).await,
            Effect::Verify { chan, serial, room, token } => {
                let (gateway, mailbox) = (self.gateway.clone(), self.mailbox.clone());
                let identity = self.session.identity().clone();
                // Not here: a key that is not known may have to be fetched first. A channel has one on its way.
                tokio::spawn(async move {
                    let renewed = match &room {
                        Some(room) => gateway.auth.renew_in_room(&identity, room.as_str(), &token).await,
                        None => gateway.auth.admit(Some(token)).await.map(Renewed::User),
                    };
                    let renewed = renewed.map_err(|error| {
                        tracing::info!(room = room.as_ref().map(display), %error, "a token was not renewed");
                        error.reason().into()
                    });
                    mailbox.send(Arc::new(Event::Renewed { chan, serial, renewed }));
                });
            }
            Effect::Send(_) | Effect::SendBinary(_) | Effect::Close(_) => {}
        }
    }
}

/// A write that takes too long, or during which the queue overflows, is a client too slow to read.
async fn within_deadline(events: &Events, write: impl Future<Output = Result<(), axum::Error>>) -> Result<(), End> {
    tokio::select! {
        biased;
        written = tokio::time::timeout(limits::WRITE_TIMEOUT, write) => match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                if let Some(tungstenite::Error::WriteBufferFull(_)) = error.into_inner().downcast_ref() {
                    observe::full("write_buffer");
                }
                Err(End::Gone)
            }
            Err(_) => {
                observe::full("write_time");
                Err(End::Close(CloseCode::Policy))
            }
        },
        () = events.overflowed() => Err(End::Close(CloseCode::Policy)),
    }
}

/// Reads a socket more slowly that sends more than [`limits::FRAMES_PER_SECOND_MAX`], or more than is being done: so
/// what comes in a burst waits with the client, where nothing is refused.
struct Flow {
    since: Instant,
    frames: u32,
    stopped: bool,
    pause: Option<Pause>,
}

/// Nothing is read until then, or until fewer frames wait.
#[derive(Clone, Copy)]
struct Pause {
    until: Instant,
    crowd: usize,
}

impl Flow {
    fn new(now: Instant) -> Self {
        Flow { since: now, frames: 0, stopped: false, pause: None }
    }

    fn count(&mut self, now: Instant) {
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            *self = Flow { pause: self.pause, ..Flow::new(now) };
        }
        self.frames += 1;
        self.stopped = self.frames >= limits::FRAMES_PER_SECOND_MAX;
        if self.frames == limits::FRAMES_PER_SECOND_MAX {
            observe::full("frames");
        }
    }

    /// A frame came, and so many wait now: the more, the longer the pause.
    fn crowded(&mut self, crowd: usize, now: Instant) {
        let beyond = (crowd + 1).checked_sub(limits::WAITING_FRAMES_MANY).and_then(|n| u32::try_from(n).ok());
        self.pause = beyond.filter(|n| *n > 0).map(|n| Pause { until: now + limits::WAITING_PAUSE * n, crowd });
    }

    /// So many still wait.
    fn eased(&mut self, crowd: usize) {
        self.pause = self.pause.filter(|pause| crowd >= pause.crowd);
    }

    fn open(&self) -> bool {
        !self.stopped && self.pause.is_none()
    }

    /// When to read on, if reading has stopped.
    fn until(&self) -> Option<Instant> {
        let flood = self.stopped.then(|| self.since + Duration::from_secs(1));
        flood.into_iter().chain(self.pause.map(|pause| pause.until)).min()
    }

    fn reopen(&mut self, now: Instant) {
        self.pause = self.pause.filter(|pause| pause.until > now);
        if self.stopped && self.since + Duration::from_secs(1) <= now {
            *self = Flow { pause: self.pause, ..Flow::new(now) };
        }
    }
}

fn end_of(error: axum::Error) -> End {
    use tungstenite::Error;
    let error = error.into_inner();
    match error.downcast_ref::<Error>() {
        Some(Error::Utf8(_)) => End::Close(CloseCode::MalformedText),
        Some(Error::Capacity(_)) => End::Close(CloseCode::TooLarge),
        Some(Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => End::Gone,
        Some(Error::Protocol(_)) => End::Close(CloseCode::Protocol),
        Some(_) => End::Gone,
        None => {
            tracing::warn!(%error, "a WebSocket error of an unknown kind");
            End::Gone
        }
    }
}

/// Sends the close frame, and keeps the connection until the client has closed it too, or a while: a reset because of
/// unread data would overtake the frame. A client that goes without a word is not waited for: a gateway that drains
/// would be away for so much longer.
async fn close(mut ws: Box<WebSocket>, code: CloseCode) {
    let frame = CloseFrame { code: code.code(), reason: code.text().into() };
    let closing = async {
        if ws.send(Message::Close(Some(frame))).await.is_err() {
            return;
        }
        while let Some(message) = ws.recv().await {
            match message.map_err(end_of) {
                Ok(_) => {}
                Err(End::Gone) => return,
                // What is left unread cannot be read as frames any more.
                Err(End::Closed | End::Close(_)) => tokio::time::sleep(limits::CLOSE_TIMEOUT).await,
            }
        }
    };
    let _ = tokio::time::timeout(limits::CLOSE_TIMEOUT, closing).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_read_more_slowly() {
        let start = Instant::now();
        let mut flow = Flow::new(start);
        for _ in 1..limits::FRAMES_PER_SECOND_MAX {
            flow.count(start);
        }
        assert!(flow.open());
        flow.count(start);
        assert_eq!((flow.open(), flow.until()), (false, Some(start + Duration::from_secs(1))));
        flow.reopen(start + Duration::from_millis(999));
        assert!(!flow.open());
        flow.reopen(start + Duration::from_secs(1));
        assert!(flow.open());
        flow.count(start + Duration::from_secs(3));
        assert!(flow.open());
    }

    #[test]
    fn while_much_waits_the_next_frame_is_read_later_or_when_less_waits() {
        let now = Instant::now();
        let many = limits::WAITING_FRAMES_MANY;
        let mut flow = Flow::new(now);
        flow.crowded(many - 1, now);
        assert_eq!((flow.open(), flow.until()), (true, None));
        flow.crowded(many, now);
        assert_eq!((flow.open(), flow.until()), (false, Some(now + limits::WAITING_PAUSE)));
        flow.eased(many);
        assert!(!flow.open(), "something came, but nothing was done");
        flow.eased(many - 1);
        assert!(flow.open());
        flow.crowded(many + 9, now);
        let until = now + 10 * limits::WAITING_PAUSE;
        assert_eq!(flow.until(), Some(until), "the more wait, the longer");
        flow.reopen(until - Duration::from_nanos(1));
        assert!(!flow.open());
        flow.reopen(until);
        assert!(flow.open());
        // A pause does not end a longer one, that of a flood.
        let mut flow = Flow::new(now);
        for _ in 0..limits::FRAMES_PER_SECOND_MAX {
            flow.count(now);
        }
        flow.crowded(many, now);
        flow.reopen(now + limits::WAITING_PAUSE);
        assert_eq!((flow.open(), flow.until()), (false, Some(now + Duration::from_secs(1))));
    }
}
