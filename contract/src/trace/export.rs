//! Sends traces over HTTP, with what every service speaks HTTP with.

use std::error::Error;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tokio::runtime::Handle;

/// For one request. Nothing waits for it but the thread that exports.
const TIMEOUT: Duration = Duration::from_secs(5);
/// An answer says at most why something was refused.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Sends on a runtime: the thread that exports has none.
#[derive(Debug)]
pub(super) struct Http<C> {
    client: Client<C, Full<Bytes>>,
    runtime: Handle,
    /// The last one failed, and that was logged.
    failing: AtomicBool,
}

/// For endpoints without TLS.
pub(super) fn plain() -> Http<HttpConnector> {
    Http::over(HttpConnector::new())
}

/// For any endpoint.
///
/// # Errors
/// If this machine has no certificates of CAs.
pub(super) fn secure() -> std::io::Result<Http<HttpsConnector<HttpConnector>>> {
    Ok(Http::over(HttpsConnectorBuilder::new().with_native_roots()?.https_or_http().enable_http1().build()))
}

impl<C: Connect + Clone> Http<C> {
    fn over(connector: C) -> Self {
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Http { client, runtime: Handle::current(), failing: AtomicBool::new(false) }
    }
}

impl<C> Http<C> {
    /// An endpoint that is away is said once, and once when it is back.
    fn note(&self, sent: &Result<Response<Bytes>, HttpError>) {
        let failure = match sent {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("HTTP status {}", answer.status())),
            Err(error) => Some(causes(&**error)),
        };
        let failed = self.failing.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(error) if !failed => tracing::warn!(%error, "traces cannot be exported"),
            None if failed => tracing::info!("traces are exported again"),
            Some(_) | None => {}
        }
    }
}

/// What went wrong, down to its first cause.
fn causes(error: &(dyn Error + 'static)) -> String {
    let (mut text, mut next) = (error.to_string(), error.source());
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}

impl<C: Connect + Clone + Debug + Send + Sync + 'static> HttpClient for Http<C> {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let sending = self.client.request(request.map(Full::new));
            let exchange = self.runtime.spawn(async move {
                let exchange = async {
                    let (head, body) = sending.await?.into_parts();
                    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
                    Ok(Response::from_parts(head, body))
                };
                // Its timer is the runtime's.
                tokio::time::timeout(TIMEOUT, exchange).await?
            });
            let sent = exchange.await.map_err(HttpError::from).flatten();
            self.note(&sent);
            sent
        })
    }
}
