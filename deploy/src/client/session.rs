//! A client as tests want it: joins and pushes that wait for their reply, and events that are waited for.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::codec::{DecodeError, Frame, Outgoing, Payload, Vsn};
use super::socket::{ConnectError, Incoming, Socket, SocketError};

/// How long a reply is waited for: longer than the server may take.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages kept for a later `expect`; a test that leaves more unread has lost its way.
const WAITING_MAX: usize = 100_000;

/// Why a client did not get what it waited for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket is of no more use.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The server sent what is no frame.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It did not come in time.
    #[error("waited in vain for {what}; came instead: {came}")]
    Late {
        /// What was waited for.
        what: String,
        /// The events that came and were not asked for.
        came: String,
    },
    /// What should not come has come.
    #[error("came although it should not: {0:?}")]
    Unwanted(Box<Message>),
    /// Too many messages were left unread.
    #[error("more than {WAITING_MAX} messages unread")]
    Unread,
}

/// A message from the server.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Null in broadcasts, and never there in V1.
    pub join_ref: Option<String>,
    /// Of a reply: the ref of the push.
    pub reference: Option<String>,
    /// Where.
    pub topic: String,
    /// What.
    pub event: String,
    /// With what; null for binary data.
    pub payload: Value,
    /// Binary data.
    pub data: Option<Vec<u8>>,
}

/// The answer to a join or a push.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// `ok`, and not `error`.
    pub ok: bool,
    /// With what.
    pub response: Value,
}

impl Reply {
    /// Why it was refused; `None` for an `ok`.
    pub fn reason(&self) -> Option<&str> {
        if self.ok { None } else { self.response["reason"].as_str() }
    }
}

/// A client with its channels. Every wait reads the socket; what is not asked for yet is kept in order.
pub struct Client {
    socket: Socket,
    joined: HashMap<String, u64>,
    waiting: VecDeque<Message>,
}

impl Client {
    /// Connects, as [`Socket::connect`].
    ///
    /// # Errors
    /// If there is no connection or no upgrade.
    pub async fn connect(url: &str, vsn: Vsn) -> Result<Client, ConnectError> {
        Ok(Self::on(Socket::connect(url, vsn).await?))
    }

    /// A client on a socket that is open already.
    pub fn on(socket: Socket) -> Client {
        Client { socket, joined: HashMap::new(), waiting: VecDeque::new() }
    }

    /// The socket, to send what a decent client would not.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Joins a topic and waits for the reply. A topic joined already is joined again.
    ///
    /// # Errors
    /// If no reply comes.
    pub async fn join(&mut self, topic: &str, payload: impl Serialize) -> Result<Reply, ClientError> {
        let reference = self.send_join(topic, payload).await?;
        self.reply(reference).await
    }

    /// Sends a join; gives its ref.
    ///
    /// # Errors
    /// If the socket is broken.
    pub async fn send_join(&mut self, topic: &str, payload: impl Serialize) -> Result<u64, ClientError> {
        let reference = self.socket.next_ref();
        self.joined.insert(topic.to_owned(), reference);
        self.send_as(reference, topic, "phx_join", payload).await
    }

    /// Pushes an event and waits for the reply.
    ///
    /// # Errors
    /// If no reply comes.
    pub async fn push(&mut self, topic: &str, event: &str, payload: impl Serialize) -> Result<Reply, ClientError> {
        let reference = self.send(topic, event, payload).await?;
        self.reply(reference).await
    }

    /// Pushes an event; gives its ref.
    ///
    /// # Errors
    /// If the socket is broken.
    pub async fn send(&mut self, topic: &str, event: &str, payload: impl Serialize) -> Result<u64, ClientError> {
        let reference = self.socket.next_ref();
        self.send_as(reference, topic, event, payload).await
    }

    async fn send_as(
        &mut self,
        reference: u64,
        topic: &str,
        event: &str,
        payload: impl Serialize,
    ) -> Result<u64, ClientError> {
        let join_ref = self.joined.get(topic).copied();
        self.socket.send(&Outgoing { join_ref, reference: Some(reference), topic, event, payload })?;
        self.socket.flush().await?;
        Ok(reference)
    }

    /// Pushes binary data (V2) and waits for the reply.
    ///
    /// # Errors
    /// If no reply comes.
    pub async fn push_data(&mut self, topic: &str, event: &str, data: &[u8]) -> Result<Reply, ClientError> {
        let reference = self.socket.next_ref();
        let join_ref = self.joined.get(topic).copied();
        self.socket.send_data(&Outgoing { join_ref, reference: Some(reference), topic, event, payload: data })?;
        self.reply(reference).await
    }

    /// Leaves a topic and waits for the reply.
    ///
    /// # Errors
    /// If no reply comes.
    pub async fn leave(&mut self, topic: &str) -> Result<Reply, ClientError> {
        let reply = self.push(topic, "phx_leave", Value::Object(Default::default())).await?;
        self.joined.remove(topic);
        Ok(reply)
    }

    /// Waits for the reply to the push with this ref.
    ///
    /// # Errors
    /// If it does not come.
    pub async fn reply(&mut self, reference: u64) -> Result<Reply, ClientError> {
        let text = reference.to_string();
        let is = |m: &Message| m.event == "phx_reply" && m.reference.as_deref() == Some(&text);
        let what = format!("the reply to {reference}");
        let mut message = self.find(is, &what, REPLY_TIMEOUT).await?;
        Ok(Reply { ok: message.payload["status"] == "ok", response: message.payload["response"].take() })
    }

    /// Waits for the next event of this name on any topic; one that came already counts.
    ///
    /// # Errors
    /// If it does not come in time.
    pub async fn expect(&mut self, event: &str, within: Duration) -> Result<Message, ClientError> {
        self.find(|m| m.event == event, event, within).await
    }

    /// Waits for the next event of this name on one topic; one that came already counts.
    ///
    /// # Errors
    /// If it does not come in time.
    pub async fn expect_on(&mut self, topic: &str, event: &str, within: Duration) -> Result<Message, ClientError> {
        self.find(|m| m.event == event && m.topic == topic, &format!("{event} on {topic}"), within).await
    }

    /// Waits for the next message that `is` what is wanted; one that came already counts.
    ///
    /// # Errors
    /// If it does not come in time.
    pub async fn expect_where(
        &mut self,
        is: impl Fn(&Message) -> bool,
        what: &str,
        within: Duration,
    ) -> Result<Message, ClientError> {
        self.find(is, what, within).await
    }

    /// Checks that no event of this name comes for a while, nor has come unseen.
    ///
    /// # Errors
    /// If it does, or the socket is closed.
    pub async fn expect_none(&mut self, event: &str, during: Duration) -> Result<(), ClientError> {
        match self.find(|m| m.event == event, event, during).await {
            Ok(message) => Err(ClientError::Unwanted(Box::new(message))),
            Err(ClientError::Late { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Waits until the server closes; gives the code. Messages that come before it are kept.
    ///
    /// # Errors
    /// If it does not close in time.
    pub async fn expect_close(&mut self, within: Duration) -> Result<Option<u16>, ClientError> {
        match self.find(|_| false, "a close", within).await {
            Err(ClientError::Socket(SocketError::Closed { code })) => Ok(code),
            Err(error) => Err(error),
            Ok(message) => Err(ClientError::Unwanted(Box::new(message))),
        }
    }

    /// What came and was not asked for yet, in order.
    pub fn unread(&self) -> &VecDeque<Message> {
        &self.waiting
    }

    /// Closes as a browser does that is left.
    ///
    /// # Errors
    /// If the connection breaks instead.
    pub async fn close(self) -> Result<(), ClientError> {
        Ok(self.socket.close().await?)
    }

    async fn find(
        &mut self,
        is: impl Fn(&Message) -> bool,
        what: &str,
        within: Duration,
    ) -> Result<Message, ClientError> {
        if let Some(message) = self.waiting.iter().position(&is).and_then(|at| self.waiting.remove(at)) {
            return Ok(message);
        }
        let deadline = Instant::now() + within;
        loop {
            let incoming: Incoming = match timeout_at(deadline, self.socket.next()).await {
                Ok(next) => next?,
                Err(_) => return Err(self.late(what)),
            };
            let message = Message::from(incoming.frame()?);
            if is(&message) {
                return Ok(message);
            }
            if self.waiting.len() == WAITING_MAX {
                return Err(ClientError::Unread);
            }
            self.waiting.push_back(message);
        }
    }

    fn late(&self, what: &str) -> ClientError {
        let came: Vec<_> = self.waiting.iter().rev().take(20).map(|m| format!("{} on {}", m.event, m.topic)).collect();
        let came = if came.is_empty() { "nothing".to_owned() } else { came.join(", ") };
        ClientError::Late { what: what.to_owned(), came }
    }
}

impl From<Frame<'_>> for Message {
    fn from(frame: Frame<'_>) -> Self {
        let (payload, data) = match frame.payload {
            Payload::Json(raw) => (serde_json::from_str(raw.get()).unwrap_or_default(), None),
            Payload::Binary(data) => (Value::Null, Some(data.to_vec())),
            Payload::BinaryReply { status, data } => {
                (serde_json::json!({"status": status, "response": null}), Some(data.to_vec()))
            }
        };
        Message {
            join_ref: frame.join_ref.map(Into::into),
            reference: frame.reference.map(Into::into),
            topic: frame.topic.into(),
            event: frame.event.into(),
            payload,
            data,
        }
    }
}
