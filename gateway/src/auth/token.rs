//! A token as clients send it, and where in a request it stands. Pure.

use std::fmt;

use axum::http::header::SEC_WEBSOCKET_PROTOCOL;
use axum::http::{HeaderMap, Uri};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

/// What a subprotocol that carries a token begins with. The name is Phoenix's, and misleads: what follows is standard
/// base64 without padding.
const SUBPROTOCOL: &str = "base64url.bearer.phx.";
const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// A token, not verified yet. It shows itself nowhere: neither in logs nor in error texts.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Token(Box<str>);

impl Token {
    /// A token from its text; `None` if that is empty.
    pub fn new(text: &str) -> Option<Token> {
        (!text.is_empty()).then(|| Token(text.into()))
    }

    /// The user token of a request for an upgrade: `user_token`, else `token`, else the subprotocol's. One that is
    /// empty is none; one that cannot be decoded is taken as it stands, and verifies as nothing.
    pub fn of_request(uri: &Uri, headers: &HeaderMap) -> Option<Token> {
        let query = uri.query().unwrap_or_default().as_bytes();
        let parameter = |wanted: &str| {
            let mut parameters = url::form_urlencoded::parse(query);
            parameters.find(|(name, _)| name == wanted).and_then(|(_, text)| Token::new(&text))
        };
        let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter().filter_map(|value| value.to_str().ok());
        let mut carried = offered.flat_map(|value| value.split(',')).filter_map(|name| {
            let text = name.trim().strip_prefix(SUBPROTOCOL)?;
            Token::new(&decoded(text).unwrap_or_else(|| text.to_owned()))
        });
        parameter("user_token").or_else(|| parameter("token")).or_else(|| carried.next())
    }

    /// The text itself: for verification alone.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

fn decoded(text: &str) -> Option<String> {
    let standard = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING).decode(text);
    let bytes = standard.or_else(|_| GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING).decode(text)).ok()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uri: &str, protocol: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        if !protocol.is_empty() {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol.parse().unwrap());
        }
        Token::of_request(&uri.parse().unwrap(), &headers).map(|token| token.as_str().to_owned())
    }

    #[test]
    fn where_a_token_may_stand() {
        assert_eq!(of("/ws?vsn=2.0.0", ""), None);
        assert_eq!(of("/ws?user_token=a.b.c&vsn=2.0.0", "").as_deref(), Some("a.b.c"));
        assert_eq!(of("/ws?token=a.b.c", "").as_deref(), Some("a.b.c"));
        assert_eq!(of("/ws?token=alias&user_token=first", "").as_deref(), Some("first"));
        assert_eq!(of("/ws?user_token=&token=", ""), None);
        // btoa("a.b-c_d~").replace(/=/g, ""), as phoenix.js has it.
        assert_eq!(of("/ws", "phoenix, base64url.bearer.phx.YS5iLWNfZH4").as_deref(), Some("a.b-c_d~"));
        assert_eq!(of("/ws", "phoenix,base64url.bearer.phx.YS5iLWNfZA==").as_deref(), Some("a.b-c_d"));
        assert_eq!(of("/ws?user_token=first", "phoenix, base64url.bearer.phx.YS5i").as_deref(), Some("first"));
        assert_eq!(of("/ws", "phoenix, base64url.bearer.phx."), None);
        assert_eq!(of("/ws", "phoenix, base64url.bearer.phx.!").as_deref(), Some("!"), "there, and bad");
    }

    #[test]
    fn a_token_is_not_shown() {
        let token = Token::new("a.b.c").unwrap();
        assert_eq!(format!("{token:?} {:?}", Some(&token)), "Token(…) Some(Token(…))");
    }
}
