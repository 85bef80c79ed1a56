//! A question that many answer.

use std::future::ready;

use async_nats::StatusCode;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use switchboard_contract::nats::Nats;

/// Asks all who listen to a subject. The answers come until nobody waits for more; they end where nobody listens.
///
/// # Errors
/// If NATS is away.
pub(crate) async fn ask_all(nats: &Nats, subject: &str) -> anyhow::Result<impl Stream<Item = Bytes> + Unpin> {
    anyhow::ensure!(nats.is_up(), "NATS is away");
    let inbox = nats.client.new_inbox();
    let answers = nats.client.subscribe(inbox.clone()).await?;
    nats.client.publish_with_reply(subject.to_owned(), inbox, Bytes::new()).await?;
    let somebody = answers.take_while(|answer| ready(answer.status != Some(StatusCode::NO_RESPONDERS)));
    Ok(somebody.map(|answer| answer.payload))
}
