//! What gateways ask, as it comes.

use std::pin::Pin;

use anyhow::Context as _;
use async_nats::service::{Request, Service, ServiceExt as _};
use futures_util::stream::{SelectAll, Stream, StreamExt as _};
use switchboard_contract::names::MatcherVerb;
use switchboard_contract::nats::Nats;
use switchboard_contract::version::version;

use crate::store::Epoch;

pub(crate) type Requests = SelectAll<Pin<Box<dyn Stream<Item = (MatcherVerb, Box<Request>)> + Send>>>;

/// Listens as a micro-service. The queue group carries the epoch, so that a paused leader of an earlier epoch takes no
/// request away.
pub(crate) async fn listen(nats: &Nats, epoch: Epoch) -> anyhow::Result<(Service, Requests)> {
    let service = nats
        .client
        .service_builder()
        .description("The lobby: rosters, queue and chats")
        .queue_group(format!("matcher-{}", epoch.number))
        .start("matcher", version())
        .await
        .map_err(anyhow::Error::from_boxed)
        .context("cannot start the service")?;
    let mut requests: Requests = SelectAll::new();
    for verb in MatcherVerb::ALL {
        let endpoint = service.endpoint_builder().name(verb.as_str()).add(verb.subject()).await;
        let endpoint = endpoint.map_err(anyhow::Error::from_boxed).context("cannot start an endpoint")?;
        requests.push(Box::pin(endpoint.map(move |request| (verb, Box::new(request)))));
    }
    Ok((service, requests))
}
