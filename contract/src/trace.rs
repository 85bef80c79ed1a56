//! Traces: what becomes of a client's push, over all services. Built in with the cargo feature `otel` alone.
//!
//! A [`Span`] begins where a push comes in. It travels along a future ([`Span::around`]), and from service to service
//! as the header `traceparent` (W3C Trace Context) of what is sent to NATS within such a future; who gets that goes on
//! with [`Span::received`]. Only what is sampled has the header, and nothing that a client sends is taken for one.
//!
//! Without the feature a [`Span`] has no size, and nothing here does anything.

#[cfg(feature = "otel")]
mod export;
#[cfg(not(feature = "otel"))]
mod off;
#[cfg(feature = "otel")]
mod on;

use std::fmt::Display;
use std::future::Future;

use async_nats::HeaderMap;
#[cfg(not(feature = "otel"))]
use off as imp;
#[cfg(feature = "otel")]
use on as imp;

pub use imp::{HELP, Traces};

/// Of a span: where something is sent.
const SUBJECT: &str = "messaging.destination.name";

/// Where traces are exported to: one of these has to be set. The first is for traces alone.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Where the environment wants traces exported to; `None`: it wants none.
fn wanted() -> Option<String> {
    let is = |name, value: &str| std::env::var(name).is_ok_and(|set| set.trim().eq_ignore_ascii_case(value));
    let endpoint = ENDPOINTS.iter().find_map(|name| std::env::var(name).ok().filter(|set| !set.is_empty()))?;
    (!is("OTEL_SDK_DISABLED", "true") && !is("OTEL_TRACES_EXPORTER", "none")).then_some(endpoint)
}

/// A part of a trace that goes on until the last of its clones is dropped; or nothing, where it is not sampled.
#[derive(Clone, Debug, Default)]
pub struct Span(imp::Span);

impl Span {
    /// A client pushed something: the beginning of a trace.
    pub fn pushed(name: &'static str) -> Span {
        Span(imp::Span::pushed(name))
    }

    /// Another service sent something; nothing where that belongs to no trace.
    pub fn received(name: &'static str, headers: Option<&HeaderMap>) -> Span {
        Span(imp::Span::received(name, headers))
    }

    /// Something is being sent to NATS; nothing where that is not within [`Span::around`]. The headers name the span.
    pub(crate) fn sending(name: &'static str, subject: &str, headers: &mut Option<HeaderMap>) -> Span {
        Span(imp::Span::sending(name, headers)).with(SUBJECT, subject)
    }

    /// With an attribute. Never what was said, and no token: who reads traces may read neither.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: &(impl Display + ?Sized)) -> Span {
        self.0.set(key, value);
        self
    }

    /// Whether there is nothing to be recorded.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Within this future requests belong to the span, and logs have its ids.
    pub fn around<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        self.0.around(future)
    }
}
