//! A TCP connection's way through the test's hands: it can be cut, held, or made slow, while it is in use.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// What is read at once. Bytes.
const CHUNK: usize = 16 * 1024;
/// Such chunks on their way in one direction; then the sender waits.
const CHUNKS: usize = 64;

/// What happens to the bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    /// They pass.
    Open,
    /// Connections are closed, and new ones as soon as they are made.
    Cut,
    /// Nothing passes, and nobody is told, as where a network loses all packets. What was sent comes later.
    Held,
    /// They pass so much later in each direction, and at most so many in a second.
    Slow { delay: Duration, rate: u32 },
}

/// A port that leads to another one of this machine. It ends when it is dropped, with all its connections.
pub(crate) struct Link {
    pub(crate) port: u16,
    mode: watch::Sender<Mode>,
    task: JoinHandle<()>,
}

impl Link {
    /// An open link.
    pub(crate) fn to(target: u16) -> Link {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let mode = watch::Sender::new(Mode::Open);
        let task = tokio::spawn(accept(listener, target, mode.subscribe()));
        Link { port, mode, task }
    }

    /// From now on.
    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, target: u16, mode: watch::Receiver<Mode>) {
    listener.set_nonblocking(true).expect("a socket");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted.expect("a connection");
                connections.spawn(serve(client, target, mode.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(client: TcpStream, target: u16, mode: watch::Receiver<Mode>) {
    let passing = async {
        released(&mut mode.clone()).await;
        let server = TcpStream::connect(("127.0.0.1", target)).await?;
        server.set_nodelay(true)?;
        client.set_nodelay(true)?;
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        tokio::try_join!(pass(from_client, to_server, mode.clone()), pass(from_server, to_client, mode.clone()))
    };
    let mut cut = mode.clone();
    tokio::select! {
        // Either side may close whenever it likes.
        _ = passing => {}
        _ = cut.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

/// Waits while nothing passes.
async fn released(mode: &mut watch::Receiver<Mode>) {
    // The link's end ends the task too.
    let _ = mode.wait_for(|mode| *mode != Mode::Held).await;
}

/// One direction. Its end is the other one's too: whoever closes one closes both.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mode: watch::Receiver<Mode>) -> io::Result<()> {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    let of_reader = mode.clone();
    let read = async {
        let mut busy_until = Instant::now();
        loop {
            let mut chunk = vec![0; CHUNK];
            let length = from.read(&mut chunk).await?;
            chunk.truncate(length);
            let mut at = Instant::now();
            if let Mode::Slow { delay, rate } = *of_reader.borrow() {
                busy_until = at.max(busy_until) + Duration::from_secs_f64(length as f64 / f64::from(rate));
                at = busy_until + delay;
            }
            if sender.send((at, chunk)).await.is_err() || length == 0 {
                return io::Result::Ok(());
            }
        }
    };
    let write = async {
        while let Some((at, chunk)) = chunks.recv().await {
            sleep_until(at).await;
            released(&mut mode).await;
            if chunk.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            to.write_all(&chunk).await?;
        }
        io::Result::Ok(())
    };
    tokio::try_join!(read, write).map(|_| ())
}

#[tokio::test]
async fn a_link_passes_holds_slows_and_cuts() {
    let echo = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let target = echo.local_addr().expect("an address").port();
    echo.set_nonblocking(true).expect("a socket");
    let echo = tokio::net::TcpListener::from_std(echo).expect("a socket");
    tokio::spawn(async move {
        let (stream, _) = echo.accept().await.expect("a connection");
        let (mut from, mut to) = stream.into_split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    });
    let link = Link::to(target);
    let mut client = TcpStream::connect(("127.0.0.1", link.port)).await.expect("a connection");
    let mut there_and_back = async |text: &[u8], within: Duration| {
        client.write_all(text).await.expect("written");
        let mut answer = vec![0; text.len()];
        let start = Instant::now();
        let read = tokio::time::timeout(within, client.read_exact(&mut answer)).await;
        (read.map(|read| read.map(|_| answer).ok()), start.elapsed())
    };
    let soon = Duration::from_secs(10);
    assert_eq!(there_and_back(b"open", soon).await.0, Ok(Some(b"open".to_vec())));
    link.set(Mode::Slow { delay: Duration::from_millis(50), rate: 1_000 });
    let (answer, took) = there_and_back(b"slow", soon).await;
    assert_eq!(answer, Ok(Some(b"slow".to_vec())));
    assert!(took >= Duration::from_millis(100), "{took:?}");
    link.set(Mode::Held);
    assert!(there_and_back(b"1", Duration::from_millis(300)).await.0.is_err(), "held");
    link.set(Mode::Open);
    assert_eq!(there_and_back(b"2", soon).await.0, Ok(Some(b"1".to_vec())), "what was held comes, in order");
    link.set(Mode::Cut);
    assert_eq!(
        there_and_back(b"3", soon).await.0.map(|answer| answer.is_none() || answer == Some(b"2".to_vec())),
        Ok(true)
    );
    let mut late = TcpStream::connect(("127.0.0.1", link.port)).await.expect("accepted");
    assert_eq!(late.read(&mut [0]).await.unwrap_or(0), 0, "and closed");
}
