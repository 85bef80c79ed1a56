//! Requests to NATS, each of which may be given up by who made it.
//!
//! async-nats keeps something of each request until its answer comes, and for ever where none does (0.51,
//! <https://github.com/nats-io/nats.rs/issues/1617>). Whether somebody is in a room is asked by requests that are not
//! answered if so; a history service grew by 200 bytes with each. Here nothing is left of a request that was given up.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::{Client, HeaderMap, Message, StatusCode, SubscribeError, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use crate::limits::REQUESTS_MAX;
use crate::nats::RequestError;

/// Requests that were not sent because too many waited.
const FULL: &str = "switchboard_nats_requests_full_total";

/// The requests of a connection.
#[derive(Debug)]
pub(crate) struct Requests {
    /// Answers come to this and the request's number.
    prefix: String,
    next: AtomicU64,
    waiting: Waiting,
    _answers: AbortOnDropHandle<()>,
}

/// Says what is counted here.
pub(crate) fn describe() {
    metrics::describe_counter!(FULL, "Requests that were not sent, because too many waited for an answer.");
}

/// Who waits for the answer to which request.
#[derive(Clone, Debug, Default)]
struct Waiting(Arc<Mutex<HashMap<u64, oneshot::Sender<Message>>>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Message>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that waits; it does so no more when this is dropped.
struct Asked<'a> {
    number: u64,
    waiting: &'a Waiting,
    answer: oneshot::Receiver<Message>,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.number);
    }
}

impl Requests {
    /// Of this connection.
    ///
    /// # Errors
    /// If it has ended.
    pub(crate) async fn over(client: &Client) -> Result<Requests, SubscribeError> {
        let prefix = format!("{}.", client.new_inbox());
        let answers = client.subscribe(format!("{prefix}*")).await?;
        let waiting = Waiting::default();
        let task = tokio::spawn(hand_on(answers, prefix.len(), waiting.clone()));
        Ok(Requests { prefix, next: AtomicU64::new(0), waiting, _answers: AbortOnDropHandle::new(task) })
    }

    /// Asks. Whoever no longer waits for this gives the request up.
    ///
    /// # Errors
    /// If nobody listens, the connection has ended, or too many wait.
    pub(crate) async fn ask(
        &self,
        client: &Client,
        subject: String,
        headers: Option<HeaderMap>,
        body: Bytes,
    ) -> Result<Message, RequestError> {
        let mut asked = self.note()?;
        let reply = format!("{}{}", self.prefix, asked.number);
        let sent = match headers {
            Some(headers) => client.publish_with_reply_and_headers(subject, reply, headers, body).await,
            None => client.publish_with_reply(subject, reply, body).await,
        };
        sent.map_err(|_| RequestError::Down)?;
        match (&mut asked.answer).await {
            Ok(answer) if answer.status == Some(StatusCode::NO_RESPONDERS) => Err(RequestError::NoResponders),
            Ok(answer) => Ok(answer),
            Err(_) => Err(RequestError::Timeout),
        }
    }

    fn note(&self) -> Result<Asked<'_>, RequestError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.len() >= REQUESTS_MAX {
            metrics::counter!(FULL).increment(1);
            return Err(RequestError::Down);
        }
        waiting.insert(number, sender);
        Ok(Asked { number, waiting: &self.waiting, answer })
    }
}

/// Gives each answer to who waits for it. The first one counts; nobody waits for a further one.
async fn hand_on(mut answers: Subscriber, prefix: usize, waiting: Waiting) {
    while let Some(answer) = answers.next().await {
        let number = answer.subject.get(prefix..).and_then(|number| number.parse().ok());
        let sender = number.and_then(|number| waiting.lock().remove(&number));
        if let Some(sender) = sender {
            // Who gave up this very moment takes nothing.
            let _ = sender.send(answer);
        }
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limits::REQUEST_TIMEOUT;
    use crate::names::Incarnation;
    use crate::nats::Nats;
    use crate::testing::{NatsServer, eventually};

    #[tokio::test]
    async fn nothing_is_left_of_requests_that_nobody_answers() {
        let Some(mut server) = NatsServer::start().await else { return };
        let nats = Nats::connect(&server.common_args(), "test", &Incarnation::new()).await.expect("a connection");
        let ask = async |subject: &str, timeout| nats.request(subject.to_owned(), Bytes::new(), timeout).await;
        let client = server.client().await;
        let silent = client.subscribe("silent").await.expect("a subscription");
        let mut asked = client.subscribe("asked").await.expect("a subscription");
        client.flush().await.expect("flushed");
        let answering = tokio::spawn(async move {
            while let Some(request) = asked.next().await {
                let reply = request.reply.expect("a request");
                for answer in ["first", "second"] {
                    client.publish(reply.clone(), answer.into()).await.expect("sent");
                }
            }
        });
        eventually("all listen", async || ask("asked", REQUEST_TIMEOUT).await.is_ok()).await;
        for round in 0..200 {
            let (late, none, answer) = tokio::join!(
                ask("silent", Duration::from_millis(1)),
                ask("nobody", REQUEST_TIMEOUT),
                ask("asked", REQUEST_TIMEOUT),
            );
            assert_eq!(late.err(), Some(RequestError::Timeout), "{round}");
            assert_eq!(none.err(), Some(RequestError::NoResponders), "{round}");
            assert_eq!(answer.expect("an answer").payload, "first", "{round}");
        }
        assert_eq!(nats.requests.waiting.lock().len(), 0);
        server.restart().await;
        eventually("it asks again after NATS was away", async || {
            ask("nobody", REQUEST_TIMEOUT).await.err() == Some(RequestError::NoResponders)
        })
        .await;
        drop(silent);
        answering.abort();
    }

    #[tokio::test]
    async fn no_more_requests_wait_than_may() {
        let Some(server) = NatsServer::start().await else { return };
        let requests = Requests::over(&server.client().await).await.expect("a connection");
        let asked: Vec<_> = (0..REQUESTS_MAX).map(|_| requests.note().expect("there is room")).collect();
        assert_eq!(requests.note().err(), Some(RequestError::Down));
        drop(asked);
        assert!(requests.note().is_ok());
    }
}
