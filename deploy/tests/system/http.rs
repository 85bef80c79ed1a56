//! Requests to the HTTP API of a system's gateways.

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::harness::{SOON, Shape, System};

/// The secret of the gateways.
pub(crate) const SECRET: &str = "hush";

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_str(&self.body).expect("JSON")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}

impl System {
    /// Two gateways with an API.
    pub(crate) async fn start_api(gateway: &[&str]) -> Option<System> {
        Self::of(Shape::gateway(&[&["--api-secret", SECRET], gateway].concat())).await
    }

    /// Sends a request to a gateway as it is, and expects text.
    pub(crate) async fn ask(
        &self,
        gateway: usize,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let (status, headers, body) = self.ask_bytes(gateway, method, path, headers, body).await;
        Answer { status, headers, body: String::from_utf8(body.into()).expect("text") }
    }

    /// As [`System::ask`], of anything.
    pub(crate) async fn ask_bytes(
        &self,
        gateway: usize,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> (u16, HeaderMap, Bytes) {
        let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let uri = format!("{}{path}", self.gateway(gateway));
        let request = Request::builder().method(method).uri(uri);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(Full::new(body.into())).expect("a request");
        let exchange = async {
            let response = client.request(request).await.expect("an answer");
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            (status, headers, response.into_body().collect().await.expect("a body").to_bytes())
        };
        tokio::time::timeout(SOON, exchange).await.expect("in time")
    }

    /// `GET` with the secret.
    pub(crate) async fn get(&self, gateway: usize, path: &str) -> Answer {
        self.ask(gateway, "GET", path, &[("secret", SECRET)], "").await
    }

    /// An event for a room, which is answered with 200.
    pub(crate) async fn push_event(&self, gateway: usize, key: Option<&str>, event: &Value) {
        let secret = ("secret", SECRET);
        let headers: Vec<_> = [secret].into_iter().chain(key.map(|key| ("idempotency-key", key))).collect();
        let answer = self.ask(gateway, "POST", "/api/v1/push_room_event", &headers, event.to_string()).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{answer:?}");
    }

    /// How many messages the stream of logs has.
    pub(crate) async fn logged(&self) -> u64 {
        let context = async_nats::jetstream::new(self.nats.client().await);
        context.get_stream("ROOMS").await.expect("the stream").cached_info().state.messages
    }
}
