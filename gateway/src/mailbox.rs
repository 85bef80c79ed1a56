//! What reaches a socket's task from the tasks of topics and lobby: a bounded queue of shared events.
//!
//! Senders never wait. A full queue means that the client is too slow to read: its socket is closed with 1008, and
//! nobody else notices.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use axum::extract::ws::Utf8Bytes;
use switchboard_contract::limits::MAILBOX_MAX;
use switchboard_contract::lobby::{ChannelId, ChatRecord, Status};
use switchboard_contract::reason::CloseCode;
use tokio::sync::{Notify, mpsc};

use crate::frame::{Vsn, encode_text};
use crate::payload::Refusal;

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
    /// An event for all members of a topic.
    Broadcast(Broadcast),
    /// `user:status`, for the teachers' channel; shown once per version.
    Status {
        /// See [`Status::version`].
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
    /// The socket is to be closed.
    Close(CloseCode),
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

#[derive(Debug)]
struct Inner {
    queue: mpsc::Sender<Arc<Event>>,
    overflow: Notify,
}

impl Mailbox {
    /// A queue of [`MAILBOX_MAX`] events. Its items are one pointer wide: tokio allocates 32 places at a time.
    pub fn new() -> (Mailbox, mpsc::Receiver<Arc<Event>>) {
        let (queue, events) = mpsc::channel(MAILBOX_MAX);
        (Mailbox(Arc::new(Inner { queue, overflow: Notify::new() })), events)
    }

    /// Hands an event over. If the queue is full the socket is closed instead; if it is gone, nothing happens.
    pub fn send(&self, event: Arc<Event>) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.0.queue.try_send(event) {
            self.0.overflow.notify_one();
        }
    }

    /// Ends when the queue has overflowed.
    pub async fn overflowed(&self) {
        self.0.overflow.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_is_noticed_and_nobody_waits() {
        let (mailbox, mut events) = Mailbox::new();
        for _ in 0..MAILBOX_MAX {
            mailbox.send(Arc::new(Event::Close(CloseCode::Draining)));
        }
        assert!(tokio::time::timeout(std::time::Duration::from_millis(10), mailbox.overflowed()).await.is_err());
        mailbox.send(Arc::new(Event::Close(CloseCode::Draining)));
        mailbox.overflowed().await;
        assert!(events.recv().await.is_some());
    }

    #[test]
    fn a_broadcast_is_encoded_once_per_serializer() {
        let broadcast = Broadcast::new("t", "e", "{\"a\":1}");
        assert_eq!(broadcast.frame(Vsn::V2).as_str(), r#"[null,null,"t","e",{"a":1}]"#);
        assert_eq!(broadcast.frame(Vsn::V1).as_str(), r#"{"topic":"t","event":"e","payload":{"a":1},"ref":null}"#);
        assert_eq!(broadcast.frame(Vsn::V2).as_str().as_ptr(), broadcast.frame(Vsn::V2).as_str().as_ptr());
    }
}
