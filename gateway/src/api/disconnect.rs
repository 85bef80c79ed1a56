//! `POST /api/v1/users/{id}/disconnect`: every socket of a user, on every gateway, is closed.

use std::sync::Arc;

use async_nats::Subscriber;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use futures_util::StreamExt as _;
use switchboard_contract::api::Disconnect;
use switchboard_contract::limits;
use switchboard_contract::names::{self, UserId};
use switchboard_contract::reason::Reason;
use switchboard_contract::wire::{self, V1};

use super::answer::{Away, Json, Problem, Refused, Secured, in_time};
use super::{Api, TAG};
use crate::lobby_task::understood;
use crate::mailbox::Event;
use crate::server::Gateway;

/// Disconnect a user
///
/// Every open socket of that user, on every gateway, is closed with 1001: those with a verified token of that user, and
/// those with a channel that is joined as that user. Nothing keeps the user from coming back. It is answered when NATS
/// has it; sockets are closed a moment later. A gateway that is cut off from NATS at that moment does not learn of it.
#[utoipa::path(
    post,
    path = "/api/v1/users/{id}/disconnect",
    tag = TAG,
    params(("id" = String, Path, description = "The user's id, 1 to 128 bytes.", example = "ada")),
    responses(
        (status = 200, description = "All gateways are being told; also where the user has no socket.",
            body = super::schema::Nothing),
        (status = 422, description = "This cannot be an id.", body = Problem),
        Secured,
        Away
    )
)]
pub(super) async fn disconnect(State(api): State<Api>, Path(id): Path<String>) -> Result<(StatusCode, Json), Refused> {
    let user = UserId::text(&id).map_err(|error| Refused::invalid(error.to_string()))?;
    tracing::info!(%user, "the API disconnects a user");
    let told = wire::encode(&Disconnect { v: V1, user });
    in_time(async {
        let link = api.nats.link();
        let before = *link.borrow();
        // What follows on the same connection is answered behind it. While that is down nothing is sent.
        api.nats.publish(names::GATEWAYS_DISCONNECT.to_owned(), told).await;
        api.nats.round_trip(limits::API_TIMEOUT).await.map_err(|_| Reason::Unavailable)?;
        if *link.borrow() == before { Ok(()) } else { Err(Reason::Unavailable.into()) }
    })
    .await?;
    Ok((StatusCode::OK, Json("{}".into())))
}

/// Closes sockets as the API of any gateway asks, while there is NATS.
pub(crate) async fn listen(mut asked: Subscriber, gateway: Arc<Gateway>) {
    while let Some(message) = asked.next().await {
        if let Some(Disconnect { user, .. }) = understood(wire::decode("disconnect", &message.payload)) {
            gateway.tell_all(&Arc::new(Event::Disconnect(user))).await;
        }
    }
}
