//! A socket in a room, as `fanout` and `churn` play it, or in a feed: cheap, and without a checker.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Map, Value, json};
use switchboard_contract::limits;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::world::{TOKEN_TTL, key};
use crate::client::{Incoming, Outgoing, ReplyIn, Socket, Vsn};
use crate::token::Key;

/// Whatever a guest does has to be answered within this time: the protocol's bound, and a little for a busy machine.
const ANSWER_WITHIN: Duration = limits::ANSWER_TIMEOUT.saturating_add(Duration::from_secs(5));

/// A rule that was seen to be broken: exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Broken(pub(super) String);

/// Lets guests into rooms and feeds.
pub(super) struct Door {
    /// Signs tokens for a system that verifies them.
    key: Option<Key>,
}

/// A member of a room or of a feed.
pub(super) struct Guest {
    socket: Socket,
    topic: String,
    join_ref: Option<u64>,
}

/// The outcome of a push: the response of an `ok`, or that of an `error`.
pub(super) type Answer = Result<Value, Value>;

impl Door {
    pub(super) fn new(folder: &Path) -> anyhow::Result<Door> {
        Ok(Door { key: key(folder)? })
    }

    /// Connects and joins a room; what comes behind the answer is still to be read.
    ///
    /// # Errors
    /// If there is no connection, or the join is not answered with `ok`: that is [`Broken`].
    pub(super) async fn enter(&self, vsn: Vsn, url: &str, room: &str, user: &str) -> anyhow::Result<Guest> {
        let room_token = self.mint(&[("room", json!(room)), ("sub", json!(user))])?;
        let payload = json!({"userId": user, "room_token": room_token});
        let (guest, _) = self.join(vsn, url, format!("room:{room}"), user, payload).await?;
        Ok(guest)
    }

    /// Connects and joins a topic; gives the join's response.
    ///
    /// # Errors
    /// As those of [`Door::enter`].
    pub(super) async fn join(
        &self,
        vsn: Vsn,
        url: &str,
        topic: String,
        user: &str,
        payload: Value,
    ) -> anyhow::Result<(Guest, Value)> {
        // Where tokens count, a feed may ask for one that names it.
        let feed = topic.strip_prefix("feed:").map(|feed| ("feeds", json!([feed])));
        let claims: Vec<_> = [("sub", json!(user))].into_iter().chain(feed).collect();
        let token = self.mint(&claims)?;
        let connecting = Socket::connect_as(url, vsn, token.as_deref()).await;
        let socket = connecting.with_context(|| format!("{user} cannot come"))?;
        let mut guest = Guest { socket, topic, join_ref: None };
        let reference = guest.socket.next_ref();
        // Clients of V1 did not know join_ref.
        guest.join_ref = (vsn == Vsn::V2).then_some(reference);
        guest.send(reference, "phx_join", payload)?;
        match guest.answer(reference).await? {
            Ok(response) => Ok((guest, response)),
            Err(refused) => Err(Broken(format!("{user} may not join {}: {refused}", guest.topic)).into()),
        }
    }

    fn mint(&self, claims: &[(&str, Value)]) -> anyhow::Result<Option<String>> {
        let claims: Map<String, Value> = claims.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
        self.key.as_ref().map(|key| key.mint(claims, TOKEN_TTL)).transpose()
    }
}

/// Waits until all guests have ended, or the first of them failed.
pub(super) async fn first_failure(guests: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = guests.join_next().await {
        ended.context("a member's task failed")??;
    }
    Ok(())
}

impl Guest {
    /// Queues a push; gives its ref.
    pub(super) fn push(&mut self, event: &str, payload: impl Serialize) -> anyhow::Result<u64> {
        let reference = self.socket.next_ref();
        self.send(reference, event, payload)?;
        Ok(reference)
    }

    fn send(&mut self, reference: u64, event: &str, payload: impl Serialize) -> anyhow::Result<()> {
        let Guest { socket, topic, join_ref } = self;
        let frame = Outgoing { join_ref: *join_ref, reference: Some(reference), topic, event, payload };
        socket.send(&frame).map_err(|error| Broken(error.to_string()).into())
    }

    /// The next message, after sending what is queued. Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> anyhow::Result<Incoming> {
        self.socket.next().await.map_err(|error| Broken(error.to_string()).into())
    }

    /// Reads on until the answer to this push; what comes before it is passed over.
    pub(super) async fn answer(&mut self, reference: u64) -> anyhow::Result<Answer> {
        let answered = timeout(ANSWER_WITHIN, async {
            loop {
                let incoming = self.next().await?;
                if let Some((to, answer)) = reply(&incoming)?
                    && to == reference
                {
                    return anyhow::Ok(answer);
                }
            }
        });
        answered.await.unwrap_or_else(|_| Err(Broken(format!("no answer on {} in time", self.topic)).into()))
    }

    /// Closes as a browser does. Whether the server answers is not judged here.
    pub(super) async fn close(self) {
        let _answered = timeout(ANSWER_WITHIN, self.socket.close()).await;
    }
}

/// The ref and the outcome of a reply; `None`: something else.
///
/// # Errors
/// If it is no frame, or the end of the channel.
pub(super) fn reply(incoming: &Incoming) -> anyhow::Result<Option<(u64, Answer)>> {
    let frame = incoming.frame().map_err(|error| Broken(error.to_string()))?;
    match &*frame.event {
        "phx_reply" => {}
        "phx_error" | "gap" => return Err(Broken(format!("{} came on {}", frame.event, frame.topic)).into()),
        _ => return Ok(None),
    }
    let reference = frame.reference.as_deref().and_then(|reference| reference.parse().ok());
    let payload = frame.payload.json().context("a binary reply")?;
    let reference = reference.ok_or_else(|| Broken(format!("a reply without a ref of this client: {payload}")))?;
    let json = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
    let answer = ReplyIn::read(payload).map_err(|error| Broken(error.to_string()))?;
    Ok(Some((reference, answer.map(json).map_err(json))))
}
