//! A web server of one's own that answers everybody with the same, and remembers what it was asked for.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// The server, on a port of 127.0.0.1.
pub(crate) struct Web {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<(String, Bytes)>>>,
    answer: Arc<Mutex<Bytes>>,
}

impl Web {
    pub(crate) async fn start(answer: &'static str) -> Web {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let web = Web { port, asked: Arc::default(), answer: Arc::new(Mutex::new(answer.into())) };
        let (asked, answer) = (web.asked.clone(), web.answer.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (asked, answer) = (asked.clone(), answer.clone());
                let serve = service_fn(move |request: Request<Incoming>| {
                    let (asked, answer) = (asked.clone(), answer.lock().expect("no panic").clone());
                    async move {
                        let uri = request.uri().to_string();
                        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                        asked.lock().expect("no panic").push((uri, body));
                        Ok::<_, Infallible>(Response::new(Full::new(answer)))
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), serve));
            }
        });
        web
    }

    /// What it answers from now on.
    pub(crate) fn set(&self, answer: impl Into<Bytes>) {
        *self.answer.lock().expect("no panic") = answer.into();
    }

    /// Path and query of each request, as they came.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").iter().map(|(uri, _)| uri.clone()).collect()
    }

    /// The body of each request, as they came.
    pub(crate) fn told(&self) -> Vec<Bytes> {
        self.asked.lock().expect("no panic").iter().map(|(_, body)| body.clone()).collect()
    }
}
