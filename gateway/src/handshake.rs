//! What is checked before a connection becomes a WebSocket. Pure.

use std::borrow::Cow;

use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode, Uri};

use crate::frame::Vsn;

/// Why there is no WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The `vsn` parameter names a serializer that is not spoken.
    #[error("unknown vsn: this server speaks 1.0.0 and 2.0.0")]
    Vsn,
    /// The `Origin` is another host's, and not allowed.
    #[error("this Origin is not allowed")]
    Origin,
}

impl HandshakeError {
    /// The answer to the upgrade.
    pub const fn status(self) -> StatusCode {
        match self {
            HandshakeError::Vsn | HandshakeError::Origin => StatusCode::FORBIDDEN,
        }
    }
}

/// Checks a request for an upgrade, and says which serializer it asks for.
///
/// # Errors
/// See [`HandshakeError`].
pub fn check(uri: &Uri, headers: &HeaderMap, allowed: &[String]) -> Result<Vsn, HandshakeError> {
    let vsn = parameter(uri, "vsn");
    let vsn = Vsn::parse(vsn.as_deref()).ok_or(HandshakeError::Vsn)?;
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match text(ORIGIN) {
        Some(origin) if !origin_allowed(origin, text(HOST), allowed) => Err(HandshakeError::Origin),
        Some(_) | None => Ok(vsn),
    }
}

/// The socket's `user_token`, also called `token`.
pub fn user_token(uri: &Uri) -> Option<Box<str>> {
    parameter(uri, "user_token").or_else(|| parameter(uri, "token")).map(|token| token.into_owned().into())
}

fn parameter<'a>(uri: &'a Uri, name: &str) -> Option<Cow<'a, str>> {
    let query = uri.query().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value)
}

/// The same host name as `Host`, ports apart; or on the list, as a whole origin or as a host name.
fn origin_allowed(origin: &str, host: Option<&str>, allowed: &[String]) -> bool {
    let name = origin.split_once("://").map(|(_, authority)| host_name(authority));
    let listed = |entry: &String| {
        entry == "*" || entry.eq_ignore_ascii_case(origin) || name.is_some_and(|name| entry.eq_ignore_ascii_case(name))
    };
    let same = match (name, host.map(host_name)) {
        (Some(name), Some(host)) => !name.is_empty() && name.eq_ignore_ascii_case(host),
        _ => false,
    };
    same || allowed.iter().any(listed)
}

/// An authority without its port.
fn host_name(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(address, _)| address),
        None => authority.rsplit_once(':').map_or(authority, |(name, _)| name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(uri: &str, headers: &[(&str, &str)], allowed: &[&str]) -> Result<Vsn, HandshakeError> {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let allowed: Vec<String> = allowed.iter().map(|origin| (*origin).to_owned()).collect();
        check(&uri.parse().unwrap(), &headers, &allowed)
    }

    #[test]
    fn versions() {
        assert_eq!(handshake("/ws", &[], &[]), Ok(Vsn::V1));
        assert_eq!(handshake("/socket/websocket?user_token=x&vsn=2.0.0", &[], &[]), Ok(Vsn::V2));
        assert_eq!(handshake("/socket/websocket?vsn=1.0.0", &[], &[]), Ok(Vsn::V1));
        assert_eq!(handshake("/socket/websocket?vsn=3.0.0", &[], &[]), Err(HandshakeError::Vsn));
    }

    #[test]
    fn user_tokens() {
        let token = |uri: &str| user_token(&uri.parse().unwrap());
        assert_eq!(token("/ws?token=b&user_token=a%20b&vsn=2.0.0").as_deref(), Some("a b"));
        assert_eq!(token("/ws?token=b").as_deref(), Some("b"));
        assert_eq!(token("/ws"), None);
    }

    #[test]
    fn origins() {
        let origin = |origin, host, allowed: &[&str]| handshake("/ws", &[("origin", origin), ("host", host)], allowed);
        assert!(origin("http://localhost:3000", "localhost:4000", &[]).is_ok());
        assert!(origin("https://EXAMPLE.com", "example.com", &[]).is_ok());
        assert!(origin("http://[::1]:3000", "[::1]:4000", &[]).is_ok());
        for bad in ["http://evil.com", "http://localhost.evil.com", "null", "", "localhost:4000", "http://"] {
            assert_eq!(origin(bad, "localhost:4000", &[]), Err(HandshakeError::Origin), "{bad}");
        }
        assert!(origin("https://app.example", "gw:4000", &["https://app.example"]).is_ok());
        assert!(origin("https://app.example:8443", "gw:4000", &["app.example"]).is_ok());
        assert!(origin("null", "gw:4000", &["*"]).is_ok());
        assert!(handshake("/ws", &[("origin", "http://a")], &[]).is_err(), "without Host nothing is the same");
    }
}
