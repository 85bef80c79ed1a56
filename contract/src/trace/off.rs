//! Nothing: what a build without traces has of them.

use std::fmt::Display;
use std::future::Future;

use async_nats::HeaderMap;

use super::wanted;
use crate::process::UsageError;

/// What `--help` says of traces.
pub const HELP: &str = "Traces: this program was built without them (cargo feature `otel`).";

#[derive(Clone, Debug, Default)]
pub(super) struct Span;

impl Span {
    pub(super) fn pushed(_: &'static str) -> Span {
        Span
    }

    pub(super) fn received(_: &'static str, _: Option<&HeaderMap>) -> Span {
        Span
    }

    pub(super) fn sending(_: &'static str, _: &mut Option<HeaderMap>) -> Span {
        Span
    }

    pub(super) fn set(&mut self, _: &'static str, _: &(impl Display + ?Sized)) {}

    pub(super) fn is_none(&self) -> bool {
        true
    }

    pub(super) fn around<F: Future>(&self, future: F) -> F {
        future
    }
}

/// The export of traces, of which there are none.
#[derive(Debug)]
pub struct Traces(());

impl Traces {
    /// Says so, if traces are asked for.
    ///
    /// # Errors
    /// Never.
    pub fn start(_: &str) -> Result<Traces, UsageError> {
        if wanted().is_some() {
            tracing::warn!("an endpoint for traces is set, but this program was built without traces (feature `otel`)");
        }
        Ok(Traces(()))
    }

    /// Does nothing.
    pub fn finish(self) {}
}

/// It costs no room in queues and tasks either.
const _: () = assert!(size_of::<super::Span>() == 0);
