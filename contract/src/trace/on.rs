//! Spans of OpenTelemetry.

use std::fmt::Display;
use std::future::Future;
use std::sync::OnceLock;

use async_nats::HeaderMap;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{FutureExt as _, SpanKind, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tracing::Instrument as _;

use super::{export, wanted};
use crate::limits::TRACES_FLUSH_TIMEOUT;
use crate::names::random_token;
use crate::process::{UsageError, without_password};
use crate::version::version;

/// What `--help` says of traces.
pub const HELP: &str = "Traces: exported with OpenTelemetry (OTLP over HTTP) where OTEL_EXPORTER_OTLP_ENDPOINT is set, \
such as http://127.0.0.1:4318. Of pushes 1 % are traced, unless OTEL_TRACES_SAMPLER says otherwise. OTEL_SERVICE_NAME, \
OTEL_RESOURCE_ATTRIBUTES, OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_PROTOCOL (http/protobuf, http/json) and \
OTEL_BSP_* mean what they do everywhere.";

/// Of pushes, where the environment does not say it.
const RATIO: f64 = 0.01;
/// Set, the SDK chooses the sampler.
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const HEADER: &str = "traceparent";

/// Of this process; there is none where traces are not exported.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Recorded, in its context; `None`: nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Span(Option<Context>);

impl Span {
    fn begin(name: &'static str, kind: SpanKind, parent: &Context) -> Span {
        let Some(tracer) = TRACER.get() else { return Span(None) };
        let span = tracer.span_builder(name).with_kind(kind).start_with_context(tracer, parent);
        let context = Context::new().with_span(span);
        let recorded = context.span().is_recording();
        Span(recorded.then_some(context))
    }

    pub(super) fn pushed(name: &'static str) -> Span {
        Span::begin(name, SpanKind::Server, &Context::new())
    }

    pub(super) fn received(name: &'static str, headers: Option<&HeaderMap>) -> Span {
        let Some(headers) = headers.filter(|headers| TRACER.get().is_some() && headers.get(HEADER).is_some()) else {
            return Span(None);
        };
        let sender = TraceContextPropagator::new().extract_with_context(&Context::new(), &Received(headers));
        if sender.span().span_context().is_sampled() {
            Span::begin(name, SpanKind::Consumer, &sender)
        } else {
            Span(None)
        }
    }

    pub(super) fn sending(name: &'static str, headers: &mut Option<HeaderMap>) -> Span {
        if !Context::map_current(|context| context.has_active_span()) {
            return Span(None);
        }
        let span = Span::begin(name, SpanKind::Producer, &Context::current());
        if let Some(context) = &span.0 {
            TraceContextPropagator::new().inject_context(context, &mut Sent(headers.get_or_insert_default()));
        }
        span
    }

    pub(super) fn set(&mut self, key: &'static str, value: &(impl Display + ?Sized)) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(key, value.to_string()));
        }
    }

    pub(super) fn is_none(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn around<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        let logs = self.0.as_ref().map_or_else(tracing::Span::none, |context| {
            let span = context.span();
            let ids = span.span_context();
            // At any level at which something is logged its lines have the ids.
            tracing::error_span!("trace", trace_id = %ids.trace_id(), span_id = %ids.span_id())
        });
        future.with_context(self.0.clone().unwrap_or_default()).instrument(logs)
    }
}

/// Of `traceparent` alone: a state of others is not handed on.
struct Received<'a>(&'a HeaderMap);

impl Extractor for Received<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == HEADER).then(|| self.0.get(key).map(async_nats::HeaderValue::as_str)).flatten()
    }

    fn keys(&self) -> Vec<&str> {
        vec![HEADER]
    }
}

struct Sent<'a>(&'a mut HeaderMap);

impl Injector for Sent<'_> {
    fn set(&mut self, key: &str, value: String) {
        if key == HEADER {
            self.0.insert(HEADER, value);
        }
    }
}

/// The export of traces, from its start to its end.
#[derive(Debug)]
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Begins to export, if the environment names an endpoint, in a thread of its own; within a runtime, which sends.
    /// Spans wait for the next export in a queue of 2,048, or as `OTEL_BSP_MAX_QUEUE_SIZE` says; when it is full the
    /// next are dropped, and whatever they are about goes on as ever.
    ///
    /// # Errors
    /// If the environment has something that cannot be.
    pub fn start(service: &str) -> Result<Traces, UsageError> {
        let Some(endpoint) = wanted() else { return Ok(Traces(None)) };
        let wrong = |error: &dyn Display| UsageError(format!("traces (OTEL_EXPORTER_OTLP_…): {error}"));
        let exporter = SpanExporter::builder().with_http();
        let exporter = match endpoint.starts_with("https:") {
            true => exporter.with_http_client(export::secure().map_err(|error| wrong(&error))?),
            false => exporter.with_http_client(export::plain()),
        };
        let exporter = exporter.build().map_err(|error| wrong(&error))?;
        let mut provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource(service));
        if std::env::var_os(SAMPLER).is_none() {
            provider = provider.with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(RATIO))));
        }
        let provider = provider.build();
        // Only the first one counts, of a process that would begin twice.
        let _ = TRACER.set(provider.tracer("switchboard"));
        let (endpoint, sampler) = (without_password(&endpoint), std::env::var(SAMPLER));
        let sampler = sampler.unwrap_or_else(|_| format!("parentbased_traceidratio, {RATIO}"));
        tracing::info!(endpoint, sampler, "traces are exported");
        Ok(Traces(Some(provider)))
    }

    /// Exports what is left, within [`TRACES_FLUSH_TIMEOUT`]. Blocks; the runtime has still to be there.
    pub fn finish(self) {
        let Some(provider) = self.0 else { return };
        if let Err(error) = provider.shutdown_with_timeout(TRACES_FLUSH_TIMEOUT) {
            tracing::warn!(%error, "the last traces are not exported");
        }
    }
}

/// Who this is; what the environment says of it comes first.
fn resource(service: &str) -> Resource {
    let own = Resource::builder_empty().with_attributes([
        KeyValue::new("service.name", service.to_owned()),
        KeyValue::new("service.version", version()),
        KeyValue::new("service.instance.id", random_token(8)),
    ]);
    let own = own.build();
    let given = Resource::builder().build();
    let unnamed = |value: &opentelemetry::Value| value.as_str().starts_with("unknown_service");
    let given = given.iter().filter(|(_, value)| !unnamed(value));
    let all = own.iter().chain(given).map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Resource::builder_empty().with_attributes(all).build()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use futures_util::FutureExt as _;

    use super::*;

    /// What was logged.
    #[derive(Clone, Default)]
    struct Logged(Arc<Mutex<Vec<u8>>>);

    impl Write for Logged {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// All is sampled, and exported nowhere.
    fn trace_all() {
        let provider = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOn).build();
        let _ = TRACER.set(provider.tracer("test"));
    }

    fn ids(span: &Span) -> (String, String) {
        let context = span.0.as_ref().expect("a span").span().span_context().clone();
        (context.trace_id().to_string(), context.span_id().to_string())
    }

    /// What a request within this span, or within none, has for headers.
    fn sent(within: &Span) -> Option<HeaderMap> {
        let mut headers = None;
        let sending = within.around(async { drop(Span::sending("log", &mut headers)) });
        sending.now_or_never().expect("at once");
        headers
    }

    #[test]
    fn a_span_travels_in_one_header_and_only_from_within() {
        trace_all();
        let push = Span::pushed("new_msg");
        let headers = sent(&push).expect("a header");
        assert_eq!(headers.len(), 1, "{headers:?}");
        let delivery = Span::received("deliver", Some(&headers));
        assert_eq!(ids(&delivery).0, ids(&push).0);
        assert_ne!(ids(&Span::pushed("new_msg")).0, ids(&push).0);
        assert!(sent(&Span::default()).is_none());
        assert!(Span::sending("log", &mut None).is_none());
    }

    #[test]
    fn what_is_not_sampled_or_not_understood_is_no_parent() {
        trace_all();
        let id = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
        let received = |header: &str| Span::received("deliver", Some(&crate::nats::header(HEADER, header)));
        assert!(!received(&format!("00-{id}-01")).is_none());
        for header in [format!("00-{id}-00"), id.to_owned(), format!("00-{id}"), "x".repeat(9_000), String::new()] {
            assert!(received(&header).is_none(), "{header}");
        }
        assert!(Span::received("deliver", None).is_none());
        assert!(Span::received("deliver", Some(&HeaderMap::new())).is_none());
    }

    #[test]
    fn logs_within_a_span_have_its_ids_for_people_and_as_json() {
        trace_all();
        let push = Span::pushed("new_msg");
        let (trace, span) = ids(&push);
        let say = async { tracing::warn!("refused") };
        let logged = Logged::default();
        let writer = logged.clone();
        let logs = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        tracing::subscriber::with_default(logs.finish(), || push.around(say).now_or_never());
        let writer = logged.clone();
        let logs = tracing_subscriber::fmt().with_writer(move || writer.clone()).json().flatten_event(true);
        let say = async { tracing::warn!("refused") };
        tracing::subscriber::with_default(logs.finish(), || push.around(say).now_or_never());
        let logged = String::from_utf8(logged.0.lock().expect("no panic").clone()).expect("text");
        let [text, json] = logged.lines().collect::<Vec<_>>()[..] else { panic!("{logged}") };
        assert!(text.contains(&format!("trace_id={trace} span_id={span}")), "{text}");
        let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
        assert_eq!((json["span"]["trace_id"].as_str(), json["message"].as_str()), (Some(&*trace), Some("refused")));
    }
}
