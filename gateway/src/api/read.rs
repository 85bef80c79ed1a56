//! What the members of a topic see, for who is none: history and presence of rooms, chats, the lobby.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use switchboard_contract::limits;
use switchboard_contract::names::{ChatId, LogName, RoomId};
use switchboard_contract::reason::Reason;

use super::answer::{Away, Json, OfOne, Problem, Refused, Secured, in_time};
use super::{Api, TAG, schema};
use crate::payload::HistoryParams;
use crate::session::chat_json;
use crate::{life, log};

/// What cannot be the id of a room is that of none.
fn room_id(id: &str) -> Result<RoomId, Refused> {
    RoomId::new(id).map_err(|_| Reason::NotFound.into())
}

/// A room that lives.
async fn living(api: &Api, room: &RoomId) -> Result<(), Refused> {
    life::standing(&api.nats, room).await?.map(drop).ok_or_else(|| Reason::NotFound.into())
}

/// What was said in a room
///
/// As the push `history` answers it: the newest messages that were asked for and fit in 256 KiB, oldest first.
#[utoipa::path(
    get,
    path = "/api/v1/rooms/{id}/history",
    tag = TAG,
    params(("id" = String, Path, description = "The room's id.", example = "physics"), HistoryParams),
    responses(
        (status = 200, description = "The messages.", body = schema::History),
        (status = 422, description = "A parameter is not what it has to be.", body = Problem),
        OfOne,
        Secured,
        Away
    )
)]
pub(super) async fn room_history(
    State(api): State<Api>,
    Path(id): Path<String>,
    params: Result<Query<HistoryParams>, QueryRejection>,
) -> Result<Json, Refused> {
    let room = room_id(&id)?;
    let Query(params) = params.map_err(|error| Refused::invalid(error.body_text()))?;
    let read = log::history_read(LogName::Room(room.clone()), params.check()?);
    in_time(async {
        let (lives, reply) = tokio::join!(living(&api, &room), log::read_log(&api.nats, &read));
        lives.map(|()| Json(log::history_json(&reply)))
    })
    .await
}

/// Who is in a room
///
/// As `presence_state` says it, and also where a room has so many members that they are only told a count. What a
/// gateway does not answer within 0.3 s is missing. A room that is there, and in which nobody is, has `{}`.
#[utoipa::path(
    get,
    path = "/api/v1/rooms/{id}/presence",
    tag = TAG,
    params(("id" = String, Path, description = "The room's id.", example = "physics")),
    responses((status = 200, description = "Who is there, on every gateway.", body = schema::Presence), OfOne, Secured, Away)
)]
pub(super) async fn room_presence(State(api): State<Api>, Path(id): Path<String>) -> Result<Json, Refused> {
    let room = room_id(&id)?;
    in_time(async {
        living(&api, &room).await?;
        api.presence.look(room).await.map(Json).ok_or_else(|| Reason::Unavailable.into())
    })
    .await
}

/// A chat
///
/// As its two see it when they join, with its newest messages.
#[utoipa::path(
    get,
    path = "/api/v1/chats/{id}",
    tag = TAG,
    params(("id" = String, Path, description = "The chat's id, as `new:chat` has it.", example = "077bcf-4")),
    responses((status = 200, description = "The chat.", body = schema::Chat), OfOne, Secured, Away)
)]
pub(super) async fn chat(State(api): State<Api>, Path(id): Path<String>) -> Result<Json, Refused> {
    let chat = ChatId::new(&id).map_err(|_| Reason::NotFound)?;
    in_time(async {
        let loaded = log::load(&api.nats, chat, None).await?;
        let record = loaded.record.ok_or(Reason::NotFound)?;
        Ok(Json(chat_json(&record, loaded.log.messages.get())))
    })
    .await
}

/// The lobby's counts
///
/// As `user:status` has them; `teachers.total` may be as old as the last change of students.
#[utoipa::path(
    get,
    path = "/api/v1/lobby",
    tag = TAG,
    responses((status = 200, description = "The counts.", body = schema::Lobby), Secured, Away)
)]
pub(super) async fn lobby(State(api): State<Api>) -> Result<Json, Refused> {
    // What was heard last may be old while nothing can be heard.
    let heard =
        in_time(async { api.nats.round_trip(limits::API_TIMEOUT).await.map_err(|_| Reason::Unavailable.into()) });
    heard.await?;
    let status = api.gateway.lobby.view().borrow().status.ok_or(Reason::Unavailable)?;
    Ok(Json(status.counts()))
}

/// Whether the API answers
#[utoipa::path(
    get,
    path = "/api/v1/health",
    tag = TAG,
    responses((status = 200, description = "It does, and the secret is right.", body = schema::Nothing), Secured)
)]
pub(super) async fn health() -> Json {
    Json("{}".into())
}
