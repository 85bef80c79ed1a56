//! A user's socket, with everything that goes over it told to the checker.

use std::rc::Rc;

use serde::Serialize;

use super::checker::{Event, Push, Violation, Who};
use super::world::{Halt, World};
use crate::client::{Frame, Incoming, Outgoing, ReplyIn, Socket, Vsn};

/// A user's socket.
pub(super) struct Link {
    pub(super) who: Who,
    pub(super) world: Rc<World>,
    socket: Socket,
}

/// A joined topic.
pub(super) struct Channel {
    pub(super) topic: Box<str>,
    pub(super) join_ref: u64,
}

/// `{}`.
#[derive(Serialize)]
pub(super) struct Empty {}

/// A frame's reply or event, with what a user decides by.
pub(super) enum Seen<'a> {
    /// The reply to the push with this ref, an `ok`.
    Reply(u64),
    /// Any other event: its name and its payload's JSON.
    Event(&'a str, &'a str),
}

impl Link {
    pub(super) async fn open(world: Rc<World>, who: Who, url: &str) -> Result<Link, Halt> {
        let socket = world.connect(who, url).await.map_err(|error| Halt::Connect(who, error))?;
        Ok(Link { who, world, socket })
    }

    /// Joins a topic.
    pub(super) fn join(&mut self, topic: String, payload: impl Serialize, what: Push<'_>) -> Result<Channel, Halt> {
        let join_ref = self.socket.next_ref();
        let channel = Channel { topic: topic.into(), join_ref };
        self.send(&channel, join_ref, "phx_join", payload, what)?;
        Ok(channel)
    }

    /// Pushes on a topic; gives the ref.
    pub(super) fn push(
        &mut self,
        channel: &Channel,
        event: &str,
        payload: impl Serialize,
        what: Push<'_>,
    ) -> Result<u64, Halt> {
        let reference = self.socket.next_ref();
        self.send(channel, reference, event, payload, what)?;
        Ok(reference)
    }

    fn send(
        &mut self,
        channel: &Channel,
        reference: u64,
        event: &str,
        payload: impl Serialize,
        what: Push<'_>,
    ) -> Result<(), Halt> {
        self.world.observe(self.who, Event::Pushed(reference, what))?;
        // Clients of V1 did not know join_ref.
        let join_ref = match self.world.vsn {
            Vsn::V1 => None,
            Vsn::V2 => Some(channel.join_ref),
        };
        let frame = Outgoing { join_ref, reference: Some(reference), topic: &channel.topic, event, payload };
        self.socket.send(&frame).map_err(|error| self.unexpected(error))
    }

    /// The next message, after sending what is queued. Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Incoming, Halt> {
        let next = self.socket.next().await;
        next.map_err(|error| self.unexpected(error))
    }

    /// A frame, after a reply in it was told to the checker.
    pub(super) fn seen<'a>(&self, frame: &'a Frame<'_>) -> Result<Seen<'a>, Halt> {
        let json = frame.payload.json().ok_or_else(|| self.unexpected("binary data came"))?;
        if frame.event != "phx_reply" {
            return Ok(Seen::Event(&frame.event, json));
        }
        let reference = frame.reference.as_deref().and_then(|r| r.parse().ok());
        let reference = reference.ok_or_else(|| self.unexpected("a reply without a ref of this client"))?;
        let outcome = match ReplyIn::read(json).map_err(|error| self.unexpected(error))? {
            Ok(response) => Ok(seq(response)),
            Err(response) => Err(response),
        };
        self.see(Event::Replied(reference, outcome))?;
        Ok(Seen::Reply(reference))
    }

    /// Tells the checker what came.
    pub(super) fn see(&self, event: Event<'_>) -> Result<(), Halt> {
        Ok(self.world.observe(self.who, event)?)
    }

    /// A frame that has no place here.
    pub(super) fn unexpected(&self, what: impl std::fmt::Display) -> Halt {
        Violation::Unexpected { who: self.who, what: what.to_string() }.into()
    }

    /// Closes as a browser does. Whether the server answers is not judged here.
    pub(super) async fn close(self) {
        let _answered = tokio::time::timeout(std::time::Duration::from_secs(5), self.socket.close()).await;
    }
}

/// The `seq` of an `ok`, if it has one.
fn seq(response: &str) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct WithSeq {
        seq: Option<u64>,
    }
    // Most replies are empty.
    if response == "{}" { None } else { serde_json::from_str::<WithSeq>(response).ok()?.seq }
}
