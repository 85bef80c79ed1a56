//! What operators ask of gateways on NATS: who is in a room. A micro-service, so that `nats micro` shows the gateways.

use anyhow::Context as _;
use async_nats::service::endpoint::Endpoint;
use async_nats::service::{self, Service, ServiceExt as _};
use futures_util::StreamExt as _;
use switchboard_contract::limits::LOOKS_INSIDE_MAX;
use switchboard_contract::names;
use switchboard_contract::nats::Nats;
use switchboard_contract::reason::Reason;
use switchboard_contract::version::version;

use crate::presence_task::PresenceHandle;

/// The service's name, and the group of which one gateway answers.
const SERVICE: &str = "gateway";

/// The service lives for as long as both.
pub(crate) async fn start(nats: &Nats) -> anyhow::Result<(Service, Endpoint)> {
    let service = nats.client.service_builder().description("Clients' sockets, and who is in which room");
    let service = service.queue_group(SERVICE).start(SERVICE, version()).await;
    let service = service.map_err(anyhow::Error::from_boxed).context("cannot start the micro-service")?;
    let endpoint = service.endpoint_builder().name("presence").add(names::GATEWAYS_PRESENCE).await;
    Ok((service, endpoint.map_err(anyhow::Error::from_boxed).context("cannot answer operators")?))
}

/// Answers while there is NATS.
pub(crate) async fn serve((_service, asked): (Service, Endpoint), presence: PresenceHandle) {
    let answer = async |request: service::Request| {
        let seen = match names::room_of_presence(&request.message.subject) {
            Some(room) => presence.look(room).await.ok_or(Reason::Unavailable),
            None => Err(Reason::NotFound),
        };
        let answer = seen.map(Into::into).map_err(|reason| service::error::Error {
            status: reason.as_str().to_owned(),
            code: if reason == Reason::NotFound { 404 } else { 503 },
        });
        if let Err(error) = request.respond(answer).await {
            tracing::debug!(%error, "an operator was not answered");
        }
    };
    asked.for_each_concurrent(LOOKS_INSIDE_MAX, answer).await;
}
