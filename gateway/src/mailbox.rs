//! What reaches a socket's task from the tasks of topics and lobby: a bounded queue of shared events.
//!
//! Senders never wait. A full queue means that the client is too slow to read: its socket is closed with 1008, and
//! nobody else notices.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

use axum::extract::ws::Utf8Bytes;
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use switchboard_contract::limits::MAILBOX_MAX;
use switchboard_contract::lobby::{ChannelId, ChatRecord, Status};
use switchboard_contract::names::UserId;
use switchboard_contract::reason::CloseCode;

use crate::auth::Renewed;
use crate::frame::{Vsn, encode_text};
use crate::observe;
use crate::payload::Refusal;

/// Places that an empty queue keeps.
const QUEUE_KEPT: usize = 8;

/// Something for a socket.
#[derive(Debug)]
pub enum Event {
    /// A join or push of this channel has come to its end.
    Done {
        /// Which channel.
        chan: ChannelId,
        /// Which of its requests.
        serial: u32,
        /// How.
        outcome: Outcome,
    },
    /// The token of an `access_token` was verified, or not.
    Renewed {
        /// On which channel it came.
        chan: ChannelId,
        /// Which of its requests.
        serial: u32,
        /// What it has renewed.
        renewed: Result<Renewed, Refusal>,
    },
    /// An event for all members of a topic.
    Broadcast(Broadcast),
    /// Binary data for all members of a topic who speak V2.
    Binary {
        /// On which topic.
        topic: Box<str>,
        /// The frame.
        frame: Bytes,
    },
    /// An event of a topic that each channel is shown at most once, and none that is older than one it was shown:
    /// `user:status`, and those of feeds.
    Once {
        /// Grows along what the topic's members are shown.
        version: u64,
        /// The event.
        broadcast: Broadcast,
    },
    /// Who is in a room, for one channel; from then on it gets what is newer.
    PresenceState {
        /// Which channel.
        chan: ChannelId,
        /// Grows with whatever is told of presence.
        version: u64,
        /// The payload of `presence_state`.
        payload: Box<str>,
    },
    /// What has changed in a room's presence, for channels that have got a state of a smaller version, once each.
    Presence {
        /// As above.
        version: u64,
        /// The event.
        broadcast: Broadcast,
    },
    /// An event for this channel alone.
    Push {
        /// Which channel.
        chan: ChannelId,
        /// The event's name.
        event: Cow<'static, str>,
        /// Its payload, JSON.
        payload: Box<str>,
    },
    /// `new:chat` for this channel, shown once per chat.
    NewChat {
        /// Which channel.
        chan: ChannelId,
        /// The chat.
        chat: Arc<ChatRecord>,
        /// The chat is older than the channel: see [`switchboard_contract::lobby::NewChat::hold`].
        hold: bool,
    },
    /// What serves this channel has failed: the client gets `phx_error`, and joins again.
    Failed {
        /// Which channel.
        chan: ChannelId,
    },
    /// The socket is to be closed.
    Close(CloseCode),
    /// The socket is to be closed with 1001 if it is this user's.
    Disconnect(UserId),
}

/// How a join or a push ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `ok` with this response, JSON.
    Ok(Box<str>),
    /// `ok` to a teacher's join, with the lobby's counts.
    Status(Status),
    /// `error`.
    Refused(Refusal),
}

/// An event for many sockets, encoded once per serializer.
#[derive(Debug)]
pub struct Broadcast {
    topic: Box<str>,
    event: Cow<'static, str>,
    payload: Box<str>,
    v1: OnceLock<Utf8Bytes>,
    v2: OnceLock<Utf8Bytes>,
}

impl Broadcast {
    /// An event with its payload, JSON.
    pub fn new(topic: &str, event: impl Into<Cow<'static, str>>, payload: impl Into<Box<str>>) -> Self {
        Broadcast {
            topic: topic.into(),
            event: event.into(),
            payload: payload.into(),
            v1: OnceLock::new(),
            v2: OnceLock::new(),
        }
    }

    /// On which topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The frame, the same bytes for everybody who speaks this serializer.
    pub fn frame(&self, vsn: Vsn) -> Utf8Bytes {
        let cell = match vsn {
            Vsn::V1 => &self.v1,
            Vsn::V2 => &self.v2,
        };
        cell.get_or_init(|| encode_text(vsn, None, None, &self.topic, &self.event, &self.payload).into()).clone()
    }
}

/// The sending end of a socket's queue. One pointer; cheap to clone.
#[derive(Clone, Debug)]
pub struct Mailbox(Arc<Inner>);

/// The receiving end: the socket's task has it.
#[derive(Debug)]
pub struct Events(Arc<Inner>);

/// Smaller than a tokio channel by 700 bytes, which an idle socket would hold.
#[derive(Debug, Default)]
struct Inner {
    queue: Mutex<Queue>,
    task: AtomicWaker,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Arc<Event>>,
    overflowed: bool,
    closed: bool,
}

impl Inner {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mailbox {
    /// A queue of [`MAILBOX_MAX`] events.
    pub fn new() -> (Mailbox, Events) {
        let inner = Arc::new(Inner::default());
        (Mailbox(inner.clone()), Events(inner))
    }

    /// Hands an event over. If the queue is full the socket is closed instead; if it is gone, nothing happens.
    pub fn send(&self, event: Arc<Event>) {
        self.send_all(std::iter::once(event));
    }

    /// Hands several over, of which the socket sees all or none.
    pub fn send_all(&self, events: impl Iterator<Item = Arc<Event>>) {
        let mut queue = self.0.queue();
        if queue.closed {
            return;
        }
        for event in events {
            if queue.events.len() < MAILBOX_MAX {
                queue.events.push_back(event);
            } else if !std::mem::replace(&mut queue.overflowed, true) {
                observe::full("mailbox");
            }
        }
        drop(queue);
        self.0.task.wake();
    }

    /// Which queue it is, for as long as somebody has it.
    pub fn address(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}

impl Events {
    /// The next event; `None` once the queue has overflowed. Who waits is woken by the next one.
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<Arc<Event>>> {
        let ready = |queue: &mut Queue| match queue.events.pop_front() {
            _ if queue.overflowed => Poll::Ready(None),
            Some(event) => Poll::Ready(Some(event)),
            None => Poll::Pending,
        };
        if let ready @ Poll::Ready(_) = ready(&mut self.0.queue()) {
            return ready;
        }
        self.0.task.register(context.waker());
        // What came before it was registered has woken nobody.
        ready(&mut self.0.queue())
    }

    /// As [`Events::poll_next`].
    pub async fn next(&self) -> Option<Arc<Event>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// The next event, if there is one already.
    pub fn try_next(&self) -> Option<Arc<Event>> {
        let mut queue = self.0.queue();
        let event = queue.events.pop_front();
        if event.is_none() && queue.events.capacity() > QUEUE_KEPT {
            queue.events = VecDeque::new();
        }
        event
    }

    /// Ends when the queue has overflowed.
    pub async fn overflowed(&self) {
        poll_fn(|context| {
            self.0.task.register(context.waker());
            if self.0.queue().overflowed { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closed = true;
        queue.events = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn a_full_queue_is_noticed_and_nobody_waits() {
        let (mailbox, events) = Mailbox::new();
        let send = || mailbox.send(Arc::new(Event::Close(CloseCode::Draining)));
        for _ in 0..MAILBOX_MAX {
            send();
        }
        assert!(events.overflowed().now_or_never().is_none());
        assert!(events.next().now_or_never().flatten().is_some());
        send();
        send();
        assert!(events.overflowed().now_or_never().is_some());
        assert!(events.next().await.is_none());
    }

    #[tokio::test]
    async fn an_event_wakes_who_waits_and_a_closed_queue_keeps_nothing() {
        let (mailbox, events) = Mailbox::new();
        let waiting = tokio::spawn(async move { (events.next().await.is_some(), events) });
        tokio::task::yield_now().await;
        let event = Arc::new(Event::Close(CloseCode::Draining));
        mailbox.send(event.clone());
        let (came, events) = waiting.await.unwrap();
        assert!(came);
        mailbox.send(event.clone());
        drop(events);
        mailbox.send(event.clone());
        assert_eq!(Arc::strong_count(&event), 1);
    }

    #[test]
    fn a_broadcast_is_encoded_once_per_serializer() {
        let broadcast = Broadcast::new("t", "e", "{\"a\":1}");
        assert_eq!(broadcast.frame(Vsn::V2).as_str(), r#"[null,null,"t","e",{"a":1}]"#);
        assert_eq!(broadcast.frame(Vsn::V1).as_str(), r#"{"topic":"t","event":"e","payload":{"a":1},"ref":null}"#);
        assert_eq!(broadcast.frame(Vsn::V2).as_str().as_ptr(), broadcast.frame(Vsn::V2).as_str().as_ptr());
    }
}
