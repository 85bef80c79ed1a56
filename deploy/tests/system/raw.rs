//! Connections from an address that nobody else has, below what a WebSocket library lets one send.

use std::net::{Ipv4Addr, SocketAddr};

use switchboard::client::{Client, Socket, Vsn};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::harness::SOON;

/// Where hostile clients come from. Everybody else comes from 127.0.0.1.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A connection from elsewhere, without a word yet.
pub(crate) async fn connect(gateway: &str) -> std::io::Result<TcpStream> {
    let address: SocketAddr = gateway.strip_prefix("http://").expect("a URL").parse().expect("an address");
    let socket = TcpSocket::new_v4()?;
    socket.bind((ELSEWHERE, 0).into())?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A client from elsewhere.
pub(crate) async fn client(gateway: &str, vsn: Vsn) -> Client {
    over(connect(gateway).await.expect("a connection"), gateway, vsn).await
}

/// The same; when it is dropped its connection is reset, as that of a machine that has crashed.
pub(crate) async fn client_that_resets(gateway: &str, vsn: Vsn) -> Client {
    let stream = connect(gateway).await.expect("a connection");
    stream.set_zero_linger().expect("a socket");
    over(stream, gateway, vsn).await
}

async fn over(stream: TcpStream, gateway: &str, vsn: Vsn) -> Client {
    Client::on(Socket::over(stream, gateway, vsn, &[]).await.expect("an upgrade"))
}

/// A frame as clients send it, with a mask of zeros; `first` is its first byte: FIN, reserved bits and opcode.
pub(crate) fn masked(first: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match (u8::try_from(data.len()), u16::try_from(data.len())) {
        (Ok(length @ 0..=125), _) => frame.push(0x80 | length),
        (_, Ok(length)) => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
        (_, Err(_)) => {
            frame.push(0x80 | 127);
            frame.extend(u64::try_from(data.len()).expect("a length").to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(data);
    frame
}

/// A connection behind the upgrade.
pub(crate) struct Raw {
    stream: TcpStream,
}

impl Raw {
    /// From elsewhere.
    pub(crate) async fn upgraded(gateway: &str, vsn: Vsn) -> Raw {
        let mut stream = connect(gateway).await.expect("a connection");
        stream.write_all(request(gateway, vsn).as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.expect("an answer"));
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
        Raw { stream }
    }

    /// Sends bytes as they stand. Those that the gateway does not read any more are of no interest.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// A text message.
    pub(crate) async fn text(&mut self, text: &str) {
        self.send(&masked(0x81, text.as_bytes())).await;
    }

    /// The next frame: its first byte, and its data. `None`: the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        timeout(SOON, self.read()).await.expect("a frame, or the end").ok()
    }

    async fn read(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        let first = self.stream.read_u8().await?;
        let length = match self.stream.read_u8().await? {
            126 => self.stream.read_u16().await?.into(),
            127 => self.stream.read_u64().await?,
            length => length.into(),
        };
        let mut data = vec![0; usize::try_from(length).expect("a length")];
        self.stream.read_exact(&mut data).await?;
        Ok((first, data))
    }

    /// Reads until the close frame, and then until the connection has ended; gives the code, 0 if there is none in it.
    pub(crate) async fn closed(&mut self) -> Option<u16> {
        let mut code = None;
        while let Some((first, data)) = self.next().await {
            if first == 0x88 {
                code = Some(data.first_chunk().map_or(0, |code| u16::from_be_bytes(*code)));
            }
        }
        code
    }
}

/// The request for an upgrade.
pub(crate) fn request(gateway: &str, vsn: Vsn) -> String {
    let host = gateway.strip_prefix("http://").expect("a URL");
    format!(
        "GET /socket/websocket?vsn={} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        vsn.as_str()
    )
}

/// Sends bytes behind the upgrade; gives the code of the close frame that follows at once.
pub(crate) async fn closed_by_bytes(gateway: &str, vsn: Vsn, bytes: &[u8]) -> u16 {
    let mut raw = Raw::upgraded(gateway, vsn).await;
    raw.send(bytes).await;
    raw.closed().await.unwrap_or_else(|| panic!("no close frame behind {bytes:?}"))
}
