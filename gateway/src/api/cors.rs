//! From which origins browsers may use the HTTP API.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// The header of the secret.
pub(super) const SECRET: HeaderName = HeaderName::from_static("secret");
/// The header under whose value an event is stored once.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How long a browser remembers what it may.
const MAX_AGE: Duration = Duration::from_secs(600);

/// An origin as browsers send it, or `*`.
///
/// # Errors
/// If it is none: what is wrong.
pub(crate) fn origin(text: &str) -> Result<HeaderValue, String> {
    if text == "*" {
        return Ok(HeaderValue::from_static("*"));
    }
    let url = url::Url::parse(text).map_err(|error| format!("no origin such as https://example.org: {error}"))?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    let origin = url.origin();
    if !bare || !origin.is_tuple() {
        return Err("an origin is a scheme, a host and perhaps a port, and nothing else".into());
    }
    HeaderValue::from_str(&origin.ascii_serialization()).map_err(|error| error.to_string())
}

/// What lets browsers in; `None`: none may.
pub(super) fn layer(origins: Vec<HeaderValue>) -> Option<CorsLayer> {
    let origins = match origins {
        none if none.is_empty() => return None,
        any if any.iter().any(|origin| origin == "*") => AllowOrigin::any(),
        some => AllowOrigin::list(some),
    };
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([SECRET, header::CONTENT_TYPE, IDEMPOTENCY_KEY])
        .expose_headers([header::RETRY_AFTER])
        .max_age(MAX_AGE);
    Some(layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_send_them() {
        for (text, origin_of) in [
            ("*", "*"),
            ("https://Example.org", "https://example.org"),
            ("https://example.org/", "https://example.org"),
            ("http://localhost:80", "http://localhost"),
            ("http://[::1]:3000", "http://[::1]:3000"),
        ] {
            assert_eq!(origin(text), Ok(HeaderValue::from_static(origin_of)), "{text}");
        }
        for bad in ["", "null", "example.org", "https://example.org/app", "https://a@example.org", "file:///x"] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }
}
