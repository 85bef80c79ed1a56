//! What operators ask of gateways on NATS: who is in a room, and how each gateway is. A micro-service, so that
//! `nats micro` shows the gateways.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use async_nats::service::endpoint::Endpoint;
use async_nats::service::{self, Service, ServiceExt as _};
use bytes::Bytes;
use futures_util::StreamExt as _;
use switchboard_contract::inside::GatewayInside;
use switchboard_contract::limits::LOOKS_INSIDE_MAX;
use switchboard_contract::names::{self, Incarnation};
use switchboard_contract::nats::Nats;
use switchboard_contract::reason::Reason;
use switchboard_contract::version::version;
use switchboard_contract::wire::{V1, encode};

use crate::presence_task::PresenceHandle;
use crate::server::Gateway;

/// The service's name, and the group of which one gateway answers.
const SERVICE: &str = "gateway";

/// What can be asked. The service lives for as long as this.
pub(crate) struct Inside {
    _service: Service,
    presence: Endpoint,
    look: Endpoint,
}

/// Listens.
///
/// # Errors
/// If the connection does not take it.
pub(crate) async fn start(nats: &Nats, me: &Incarnation) -> anyhow::Result<Inside> {
    let service = nats.client.service_builder().description("Clients' sockets, and who is in which room");
    let service = service.queue_group(SERVICE).start(SERVICE, version()).await;
    let service = service.map_err(anyhow::Error::from_boxed).context("cannot start the micro-service")?;
    let endpoint = async |name: &str, group: &str, subject: &str| {
        let endpoint = service.endpoint_builder().name(name).queue_group(group).add(subject).await;
        endpoint.map_err(anyhow::Error::from_boxed).context("cannot answer operators")
    };
    let presence = endpoint("presence", SERVICE, names::GATEWAYS_PRESENCE).await?;
    // A group of its own: each gateway answers.
    let look = endpoint("look", me.as_str(), names::GATEWAYS_LOOK).await?;
    Ok(Inside { _service: service, presence, look })
}

/// Answers while there is NATS.
pub(crate) async fn serve(inside: Inside, me: Incarnation, gateway: Arc<Gateway>, presence: PresenceHandle) {
    let Inside { _service, presence: asked, mut look } = inside;
    let rooms = asked.for_each_concurrent(LOOKS_INSIDE_MAX, |request| who_is_there(request, presence.clone()));
    let gateways = async {
        while let Some(request) = look.next().await {
            respond(&request, Ok(encode(&now(&me, &gateway)))).await;
        }
    };
    tokio::join!(rooms, gateways);
}

async fn who_is_there(request: service::Request, presence: PresenceHandle) {
    let seen = match names::room_of_presence(&request.message.subject) {
        Some(room) => presence.look(room).await.ok_or(Reason::Unavailable),
        None => Err(Reason::NotFound),
    };
    let answer = seen.map(Into::into).map_err(|reason| service::error::Error {
        status: reason.as_str().to_owned(),
        code: if reason == Reason::NotFound { 404 } else { 503 },
    });
    respond(&request, answer).await;
}

fn now(me: &Incarnation, gateway: &Gateway) -> GatewayInside {
    GatewayInside {
        v: V1,
        gateway: me.clone(),
        connections: gateway.connections() as u64,
        draining: gateway.is_draining(),
        joins: gateway.totals.joins.load(Ordering::Relaxed),
        messages: gateway.totals.messages.load(Ordering::Relaxed),
    }
}

async fn respond(request: &service::Request, answer: Result<Bytes, service::error::Error>) {
    if let Err(error) = request.respond(answer).await {
        tracing::debug!(%error, "an operator was not answered");
    }
}
