//! The HTTP API for other servers, under `/api/v1`: events into rooms, what members see, disconnecting users. What it
//! can do is served as an OpenAPI document, which is made of the same lines as the routes.

mod answer;
pub(crate) mod cors;
pub(crate) mod disconnect;
mod push;
mod read;
// Nothing makes one of these: only their shape is used.
#[allow(dead_code)]
mod schema;
pub mod secret;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, MatchedPath, Request, State};
use axum::http::HeaderValue;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use switchboard_contract::nats::Nats;
use switchboard_contract::reason::Reason;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::answer::{Json, Refused};
use self::cors::SECRET;
use self::push::Turns;
use self::secret::Secret;
use crate::presence_task::PresenceHandle;
use crate::server::Gateway;

/// Under which operations stand in the document.
const TAG: &str = "switchboard";

/// What the API needs. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    nats: Nats,
    gateway: Arc<Gateway>,
    presence: PresenceHandle,
    /// Without one everybody is refused.
    secret: Option<Secret>,
    turns: Arc<Turns>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Switchboard",
        description = "The HTTP API of a gateway, for other servers. Every gateway serves all of it."
    ),
    security(("secret" = [])),
    modifiers(&Document)
)]
struct Document;

impl Modify for Document {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let value = ApiKeyValue::with_description(SECRET.as_str(), "`--api-secret` of the gateway");
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("secret", SecurityScheme::ApiKey(ApiKey::Header(value)));
    }
}

/// This document
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    tag = TAG,
    security(()),
    responses((status = 200, description = "OpenAPI 3.1.", body = Object))
)]
async fn document(Extension(document): Extension<Arc<str>>) -> Json {
    Json((*document).to_owned())
}

impl Api {
    /// The API of a gateway.
    pub fn new(nats: Nats, gateway: Arc<Gateway>, presence: PresenceHandle, secret: Option<Secret>) -> Self {
        let secret = secret.and_then(Secret::configured);
        Api { nats, gateway, presence, secret, turns: Arc::new(Turns::new()) }
    }

    /// Its routes, which browsers of these origins may use.
    pub fn router(self, origins: Vec<HeaderValue>) -> Router {
        let secured = OpenApiRouter::with_openapi(Document::openapi())
            .routes(routes!(push::push_room_event))
            .routes(routes!(read::health))
            .routes(routes!(disconnect::disconnect))
            .routes(routes!(read::room_history))
            .routes(routes!(read::room_presence))
            .routes(routes!(read::chat))
            .routes(routes!(read::lobby))
            .route_layer(from_fn_with_state(self.clone(), with_secret));
        let (routes, openapi) = secured.routes(routes!(document)).with_state(self).split_for_parts();
        // Nothing in it can fail to be JSON.
        let openapi: Arc<str> = openapi.to_json().unwrap_or_default().into();
        let mut routes = routes.layer(Extension(openapi));
        if let Some(cors) = cors::layer(origins) {
            routes = routes.layer(cors);
        }
        routes
            .route("/api", any(no_such_path))
            .route("/api/", any(no_such_path))
            .route("/api/{*path}", any(no_such_path))
            .layer(from_fn(counted))
    }
}

async fn no_such_path() -> Refused {
    Reason::NotFound.into()
}

/// Before anything else is looked at.
async fn with_secret(State(api): State<Api>, request: Request, next: Next) -> Response {
    let given = request.headers().get(SECRET);
    match (&api.secret, given) {
        (Some(secret), Some(given)) if secret.is(given.as_bytes()) => next.run(request).await,
        _ => Refused::from(Reason::Unauthorized).into_response(),
    }
}

async fn counted(request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    // Names of what is not there are not those of metrics.
    let route = path.filter(|path| !path.contains('*')).unwrap_or_else(|| "other".to_owned());
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    metrics::counter!("switchboard_gateway_api_requests_total", "route" => route, "status" => status).increment(1);
    response
}
