//! What is sent without waiting for an answer, in the order in which it was put in. The core's task never waits for
//! NATS: while the connection is down, what is put in is dropped, as nobody could receive it in time.

use std::time::Duration;

use async_nats::service::{Request, error};
use bytes::Bytes;
use switchboard_contract::limits::MATCHER_INBOX_MAX;
use switchboard_contract::nats::Nats;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::observe;

/// How long the last of it may take when the process stops.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Something to be sent.
pub(crate) enum Out {
    /// The answer to a request.
    Reply(Box<Request>, Bytes),
    /// A request was not understood.
    Refuse(Box<Request>, String),
    /// To a subject.
    Publish(String, Bytes),
}

/// The queue, and the task that empties it; dropping it ends the task.
pub(crate) struct Outbox {
    queue: mpsc::Sender<Out>,
    task: JoinHandle<()>,
    nats: Nats,
}

impl Outbox {
    pub(crate) fn new(nats: Nats) -> Self {
        let (queue, outs) = mpsc::channel(MATCHER_INBOX_MAX);
        let task = tokio::spawn(send_all(nats.clone(), outs));
        Outbox { queue, task, nats }
    }

    pub(crate) fn send(&self, out: Out) {
        if !self.nats.is_up() {
            observe::dropped();
        } else if self.queue.try_send(out).is_err() {
            observe::full("outbox");
        }
    }

    /// Sends the rest of it.
    pub(crate) async fn close(self) {
        drop(self.queue);
        let rest = async {
            let _ = self.task.await;
            let _ = self.nats.client.flush().await;
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, rest).await.is_err() {
            tracing::warn!("the last replies were not sent");
        }
    }
}

async fn send_all(nats: Nats, mut outs: mpsc::Receiver<Out>) {
    while let Some(out) = outs.recv().await {
        let sent = match out {
            Out::Reply(request, body) => request.respond(Ok(body)).await,
            Out::Refuse(request, why) => request.respond(Err(error::Error { status: why, code: 400 })).await,
            Out::Publish(subject, body) => nats.client.publish(subject, body).await,
        };
        if let Err(error) = sent {
            observe::dropped();
            tracing::debug!(%error, "not sent");
        }
    }
}
