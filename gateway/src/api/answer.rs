//! How the HTTP API answers.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use switchboard_contract::limits;
use switchboard_contract::reason::Reason;
use tokio::time::timeout;
use utoipa::{IntoResponses, ToSchema};

use crate::payload::Refusal;

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Problem {
    /// One of the reasons that a socket's pushes are refused with: `unauthorized`, `invalid_payload`,
    /// `payload_too_large`, `not_found` or `unavailable`.
    #[schema(example = "invalid_payload")]
    error: &'static str,
    /// What exactly is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "missing field `payload` at line 1 column 2")]
    detail: Option<Box<str>>,
}

/// A request that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) refusal: Refusal,
}

impl Refused {
    pub(super) fn invalid(detail: impl Into<Box<str>>) -> Self {
        Refusal::invalid(detail).into()
    }

    /// The body did not come in time, or broke off.
    pub(super) fn incomplete(detail: &str) -> Self {
        Refused { status: StatusCode::REQUEST_TIMEOUT, refusal: Refusal::invalid(detail) }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.reason {
            Reason::Unauthorized => StatusCode::UNAUTHORIZED,
            Reason::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Reason::NotFound => StatusCode::NOT_FOUND,
            Reason::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Reason::InvalidPayload
            | Reason::UnmatchedTopic
            | Reason::UnmatchedEvent
            | Reason::TooManyChannels
            | Reason::TokenExpired
            | Reason::RateLimited
            | Reason::Quiet
            | Reason::Forbidden
            | Reason::ChatFinished
            | Reason::QueueFull => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Refused { status, refusal }
    }
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Refusal::from(reason).into()
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Refused { status, refusal: Refusal { reason, detail, .. } } = self;
        let mut response = (status, axum::Json(Problem { error: reason.as_str(), detail })).into_response();
        if reason == Reason::Unavailable {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// JSON that is text already.
pub(super) struct Json(pub(super) String);

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}

/// What is not there in time is unavailable.
pub(super) async fn in_time<T>(work: impl Future<Output = Result<T, Refused>>) -> Result<T, Refused> {
    timeout(limits::API_TIMEOUT, work).await.unwrap_or_else(|_| Err(Reason::Unavailable.into()))
}

/// What every request that needs the secret may be answered with.
#[derive(IntoResponses)]
#[allow(dead_code)]
pub(super) enum Secured {
    /// The header `secret` is missing or wrong, or the gateway has none configured.
    #[response(status = 401)]
    Unauthorized(Problem),
}

/// What every request that needs NATS may be answered with, too.
#[derive(IntoResponses)]
#[allow(dead_code)]
pub(super) enum Away {
    /// NATS, or a service behind it, does not answer; `Retry-After` says when to ask again.
    #[response(status = 503)]
    Unavailable(Problem),
}

/// What a request for one thing may be answered with, too.
#[derive(IntoResponses)]
#[allow(dead_code)]
pub(super) enum OfOne {
    /// There is no such thing, or no longer.
    #[response(status = 404)]
    NotFound(Problem),
}
