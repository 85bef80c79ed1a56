//! One WebSocket: frames in, frames out, heartbeats.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use futures_util::{Sink as _, Stream as _};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Error as WsError, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use url::Url;

use super::HEARTBEAT;
use super::codec::{self, DecodeError, Frame, Outgoing, Vsn};

/// What an idle client costs in memory, and more than most messages need. Bytes.
const BUFFER_BYTES: usize = 4 * 1024;
/// What may wait for a server that does not read. Bytes.
const WRITE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A message from the server: as large as a `history` reply can be, and a little. Bytes.
const MESSAGE_BYTES_MAX: usize = 512 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is none that a socket can be opened to.
    #[error("{0:?} is no http:// or ws:// URL with a host")]
    Url(String),
    /// A header that HTTP does not allow.
    #[error("no HTTP header: {0}")]
    Header(String),
    /// No TCP connection.
    #[error("cannot connect to {0}: {1}")]
    Tcp(String, std::io::Error),
    /// The server answered with this HTTP status.
    #[error("refused with HTTP status {0}")]
    Refused(u16),
    /// The upgrade failed otherwise.
    #[error("no WebSocket: {0}")]
    Upgrade(WsError),
}

/// Why a socket is of no more use, or a frame of none.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Closed by the server, with this code; `None` where it just went away.
    #[error("closed by the server{}", code.map(|c| format!(" with code {c}")).unwrap_or_default())]
    Closed {
        /// The close code.
        code: Option<u16>,
    },
    /// A heartbeat was not answered until the next one was due.
    #[error("a heartbeat was not answered")]
    HeartbeatLost,
    /// The connection broke.
    #[error("the socket failed: {0}")]
    Ws(WsError),
    /// A payload that cannot be written.
    #[error("not sent: {0}")]
    Encode(#[from] DecodeError),
}

impl From<WsError> for SocketError {
    fn from(error: WsError) -> Self {
        if matches!(error, WsError::ConnectionClosed | WsError::AlreadyClosed) {
            SocketError::Closed { code: None }
        } else {
            SocketError::Ws(error)
        }
    }
}

/// A message from the server, of which frames are borrowed.
#[derive(Debug)]
pub struct Incoming {
    vsn: Vsn,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Text(Utf8Bytes),
    Binary(Bytes),
}

impl Incoming {
    /// The frame.
    ///
    /// # Errors
    /// If the message is none.
    pub fn frame(&self) -> Result<Frame<'_>, DecodeError> {
        match &self.data {
            Data::Text(text) => codec::decode(self.vsn, text),
            Data::Binary(bytes) => codec::decode_binary(bytes),
        }
    }

    /// The text of a text message.
    pub fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            Data::Binary(_) => None,
        }
    }
}

/// One WebSocket. Sending only queues; what is queued leaves as soon as [`Socket::next`] finds nothing to read, all at
/// once. Heartbeats are sent, and their replies swallowed, in [`Socket::next`].
pub struct Socket {
    ws: WebSocketStream<TcpStream>,
    vsn: Vsn,
    next_ref: u64,
    unflushed: bool,
    heartbeat: Pin<Box<Sleep>>,
    heartbeat_ref: Option<u64>,
}

impl Socket {
    /// Connects. A URL without a path gets `/socket/websocket?vsn=…`; one with a path is taken as it stands.
    ///
    /// # Errors
    /// If there is no connection or no upgrade.
    pub async fn connect(url: &str, vsn: Vsn) -> Result<Socket, ConnectError> {
        Self::connect_with(url, vsn, &[]).await
    }

    /// Connects with a user token, if there is one, carried as phoenix.js carries its `authToken`.
    ///
    /// # Errors
    /// If there is no connection or no upgrade.
    pub async fn connect_as(url: &str, vsn: Vsn, token: Option<&str>) -> Result<Socket, ConnectError> {
        let protocol = token.map(|token| format!("phoenix, base64url.bearer.phx.{}", STANDARD_NO_PAD.encode(token)));
        let header = protocol.as_deref().map(|protocol| ("Sec-WebSocket-Protocol", protocol));
        Self::connect_with(url, vsn, header.as_slice()).await
    }

    /// Connects with further HTTP headers.
    ///
    /// # Errors
    /// If there is no connection or no upgrade.
    pub async fn connect_with(url: &str, vsn: Vsn, headers: &[(&str, &str)]) -> Result<Socket, ConnectError> {
        let (_, address) = target(url, vsn).ok_or_else(|| ConnectError::Url(url.to_owned()))?;
        let tcp = |error| ConnectError::Tcp(address.clone(), error);
        let stream = TcpStream::connect(&address).await.map_err(tcp)?;
        stream.set_nodelay(true).map_err(tcp)?;
        Self::over(stream, url, vsn, headers).await
    }

    /// Upgrades a connection that is there already, whatever address it comes from.
    ///
    /// # Errors
    /// If there is no upgrade.
    pub async fn over(
        stream: TcpStream,
        url: &str,
        vsn: Vsn,
        headers: &[(&str, &str)],
    ) -> Result<Socket, ConnectError> {
        let (url, _) = target(url, vsn).ok_or_else(|| ConnectError::Url(url.to_owned()))?;
        let mut request = url.as_str().into_client_request().map_err(ConnectError::Upgrade)?;
        for (name, value) in headers {
            let header = HeaderName::try_from(*name).ok().zip(HeaderValue::try_from(*value).ok());
            let (name, value) = header.ok_or_else(|| ConnectError::Header(format!("{name}: {value}")))?;
            request.headers_mut().append(name, value);
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(BUFFER_BYTES)
            .max_write_buffer_size(WRITE_BYTES_MAX)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        match client_async_with_config(request, stream, Some(config)).await {
            Ok((ws, _)) => Ok(Socket {
                ws,
                vsn,
                next_ref: 0,
                unflushed: false,
                heartbeat: Box::pin(sleep_until(Instant::now() + HEARTBEAT)),
                heartbeat_ref: None,
            }),
            Err(WsError::Http(response)) => Err(ConnectError::Refused(response.status().as_u16())),
            Err(error) => Err(ConnectError::Upgrade(error)),
        }
    }

    /// Its serializer.
    pub fn vsn(&self) -> Vsn {
        self.vsn
    }

    /// The next ref, counted from 1.
    pub fn next_ref(&mut self) -> u64 {
        self.next_ref += 1;
        self.next_ref
    }

    /// Queues a frame.
    ///
    /// # Errors
    /// If the payload is not JSON, or the socket is broken.
    pub fn send<P: Serialize>(&mut self, push: &Outgoing<'_, P>) -> Result<(), SocketError> {
        let text = codec::encode(self.vsn, push).map_err(DecodeError::from)?;
        self.send_text(text)
    }

    /// Queues a push with binary data, as V2 has it.
    ///
    /// # Errors
    /// If a name is too long for it, or the socket is broken.
    pub fn send_data(&mut self, push: &Outgoing<'_, &[u8]>) -> Result<(), SocketError> {
        let bytes = codec::encode_binary(push)?;
        self.send_binary(bytes)
    }

    /// Queues a text message as it stands, whatever it is.
    ///
    /// # Errors
    /// If the socket is broken.
    pub fn send_text(&mut self, text: String) -> Result<(), SocketError> {
        self.queue(Message::Text(text.into()))
    }

    /// Queues a binary message as it stands, whatever it is.
    ///
    /// # Errors
    /// If the socket is broken.
    pub fn send_binary(&mut self, bytes: Vec<u8>) -> Result<(), SocketError> {
        self.queue(Message::Binary(bytes.into()))
    }

    fn queue(&mut self, message: Message) -> Result<(), SocketError> {
        self.unflushed = true;
        Ok(Pin::new(&mut self.ws).start_send(message)?)
    }

    /// Sends what is queued without reading anything.
    ///
    /// # Errors
    /// If the socket is broken.
    pub async fn flush(&mut self) -> Result<(), SocketError> {
        poll_fn(|cx| Pin::new(&mut self.ws).poll_flush(cx)).await?;
        self.unflushed = false;
        Ok(())
    }

    /// The next message. Sends what is queued before it waits. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// If the socket was closed or is broken.
    pub async fn next(&mut self) -> Result<Incoming, SocketError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, SocketError>> {
        loop {
            match Pin::new(&mut self.ws).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    if let Some(incoming) = self.take(message)? {
                        return Poll::Ready(Ok(incoming));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error.into())),
                Poll::Ready(None) => return Poll::Ready(Err(SocketError::Closed { code: None })),
                Poll::Pending => {
                    if self.heartbeat.as_mut().poll(cx).is_ready() {
                        self.beat()?;
                        continue;
                    }
                    if self.unflushed && Pin::new(&mut self.ws).poll_flush(cx)?.is_ready() {
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// What of a message is for the caller.
    fn take(&mut self, message: Message) -> Result<Option<Incoming>, SocketError> {
        let incoming = match message {
            Message::Text(text) => Incoming { vsn: self.vsn, data: Data::Text(text) },
            Message::Binary(bytes) => Incoming { vsn: self.vsn, data: Data::Binary(bytes) },
            Message::Close(frame) => return Err(SocketError::Closed { code: frame.map(|f| f.code.into()) }),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                // The answer to a ping is queued by reading it.
                self.unflushed = true;
                return Ok(None);
            }
        };
        Ok(if self.heartbeat_ref.is_some() && self.answers_heartbeat(&incoming) {
            self.heartbeat_ref = None;
            None
        } else {
            Some(incoming)
        })
    }

    fn answers_heartbeat(&self, incoming: &Incoming) -> bool {
        let Ok(frame) = incoming.frame() else { return false };
        let expected = self.heartbeat_ref.map(|r| r.to_string());
        frame.topic == "phoenix" && frame.reference.as_deref() == expected.as_deref()
    }

    fn beat(&mut self) -> Result<(), SocketError> {
        if self.heartbeat_ref.is_some() {
            return Err(SocketError::HeartbeatLost);
        }
        let reference = self.next_ref();
        self.heartbeat_ref = Some(reference);
        self.heartbeat.as_mut().reset(Instant::now() + HEARTBEAT);
        self.send(&Outgoing {
            join_ref: None,
            reference: Some(reference),
            topic: "phoenix",
            event: "heartbeat",
            payload: Empty {},
        })
    }

    /// Closes, and waits until the server has done so too; the caller bounds the wait.
    ///
    /// # Errors
    /// If the connection breaks instead.
    pub async fn close(mut self) -> Result<(), SocketError> {
        self.ws.close(None).await?;
        loop {
            match self.next().await {
                Ok(_) => {}
                Err(SocketError::Closed { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// `{}`.
#[derive(Clone, Copy, Debug, Serialize)]
struct Empty {}

/// The URL to ask for, and the address to connect to.
fn target(url: &str, vsn: Vsn) -> Option<(Url, String)> {
    let mut url = match url.strip_prefix("http://") {
        Some(rest) => Url::parse(&format!("ws://{rest}")).ok()?,
        None => Url::parse(url).ok()?,
    };
    if url.scheme() != "ws" {
        return None;
    }
    if url.path() == "/" && url.query().is_none() {
        url.set_path("/socket/websocket");
        url.set_query(Some(&format!("vsn={}", vsn.as_str())));
    }
    let address = format!("{}:{}", url.host_str()?, url.port_or_known_default()?);
    Some((url, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gets_the_path_that_it_lacks() {
        let of = |url: &str| target(url, Vsn::V2).map(|(url, address)| (url.to_string(), address));
        let full = ("ws://127.0.0.1:4000/socket/websocket?vsn=2.0.0".to_owned(), "127.0.0.1:4000".to_owned());
        assert_eq!(of("http://127.0.0.1:4000"), Some(full.clone()));
        assert_eq!(of("ws://127.0.0.1:4000/"), Some(full));
        assert_eq!(of("ws://host/ws"), Some(("ws://host/ws".into(), "host:80".into())));
        assert_eq!(of("wss://host/ws"), None);
        assert_eq!(of("127.0.0.1:4000"), None);
    }
}
