//! Sources that speak HTTP: one GET for each poll, over connections that stay open.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::ClientConfig;
use switchboard_contract::limits::{FEED_CONNECT_TIMEOUT, FEED_CONNECTIONS_MAX, PAYLOAD_BYTES_MAX};

use super::{Failure, Fault, chain};
use crate::feeds::config::PLACE;

/// All but what is unreserved in URLs: an argument stays within its part of the path or the query.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What the server called its last answer.
pub(super) type Tag = HeaderValue;

/// Asks; proxies are not used, and redirects not followed: who is asked is decided by the configuration alone.
pub(super) struct Http(Client<HttpsConnector<HttpConnector>, Empty<Bytes>>);

impl Http {
    pub(super) fn new(tls: &Arc<ClientConfig>) -> Http {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(FEED_CONNECT_TIMEOUT));
        tcp.set_nodelay(true);
        let tls = HttpsConnectorBuilder::new().with_tls_config(ClientConfig::clone(tls));
        let connector = tls.https_or_http().enable_http1().wrap_connector(tcp);
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_max_idle_per_host(FEED_CONNECTIONS_MAX).pool_timer(TokioTimer::new());
        Http(client.build(connector))
    }

    /// `None`: it is what it was when it was called `tag`.
    pub(super) async fn ask(
        &self,
        url: &str,
        headers: &HeaderMap,
        argument: Option<&str>,
        tag: &mut Option<Tag>,
    ) -> Result<Option<Bytes>, Failure> {
        let argument = utf8_percent_encode(argument.unwrap_or_default(), ESCAPED).to_string();
        let uri: Uri = url.replace(PLACE, &argument).parse().map_err(|e| Failure::new(Fault::Refused, e))?;
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        request.headers_mut().extend(headers.clone());
        if let Some(tag) = tag.as_ref() {
            request.headers_mut().insert(IF_NONE_MATCH, tag.clone());
        }
        let response =
            self.0.request(request).await.map_err(|error| Failure::new(Fault::Unreachable, chain(&error)))?;
        match response.status() {
            StatusCode::NOT_MODIFIED if tag.is_some() => return Ok(None),
            StatusCode::OK => {}
            other => {
                *tag = None;
                return Err(Failure::new(Fault::Refused, format!("HTTP status {other}")));
            }
        }
        *tag = None;
        let called = response.headers().get(ETAG).cloned();
        match Limited::new(response.into_body(), PAYLOAD_BYTES_MAX).collect().await {
            Ok(body) => {
                *tag = called;
                Ok(Some(body.to_bytes()))
            }
            Err(error) if error.is::<LengthLimitError>() => {
                Err(Failure::new(Fault::TooLarge, format!("more than {PAYLOAD_BYTES_MAX} bytes")))
            }
            Err(error) => Err(Failure::new(Fault::Unreachable, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_stays_within_its_part_of_the_url() {
        for (argument, escaped) in
            [("a/b?c#d&e=f", "a%2Fb%3Fc%23d%26e%3Df"), ("ä %2F", "%C3%A4%20%252F"), ("a-b_c.d~", "a-b_c.d~")]
        {
            assert_eq!(utf8_percent_encode(argument, ESCAPED).to_string(), escaped);
        }
    }
}
