//! Asking the sources of feeds: PostgreSQL, HTTP, NATS.

mod http;
mod postgres;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::{ClientConfig, RootCertStore};
use serde_json::value::RawValue;
use switchboard_contract::limits::PAYLOAD_BYTES_MAX;
use switchboard_contract::nats::{Nats, RequestError};
use tokio::sync::Semaphore;

use self::http::{Http, Tag};
use self::postgres::Postgres;
use super::config::{Catalogue, ConfigError, Feed, Query};
use super::json::compact;

/// What a source answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// JSON of at most [`PAYLOAD_BYTES_MAX`] bytes, without spaces between.
    Value(Box<RawValue>),
    /// What it answered the last time.
    Unchanged,
}

/// Why a source gave no value. The text is shown to clients, so it says nothing of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Late,
    Unreachable,
    Refused,
    NoJson,
    TooLarge,
}

impl Fault {
    /// For clients.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Fault::Late => "no answer in time",
            Fault::Unreachable => "the source cannot be reached",
            Fault::Refused => "the source refused",
            Fault::NoJson => "the answer is no JSON",
            Fault::TooLarge => "the answer is too large",
        }
    }

    /// For metrics.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Fault::Late => "late",
            Fault::Unreachable => "unreachable",
            Fault::Refused => "refused",
            Fault::NoJson => "no_json",
            Fault::TooLarge => "too_large",
        }
    }
}

/// A poll that failed, with the source's own words, for our log alone.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) fault: Fault,
    pub(crate) words: String,
}

impl Failure {
    fn new(fault: Fault, words: impl ToString) -> Failure {
        Failure { fault, words: words.to_string() }
    }
}

/// What is remembered of a polled feed from one poll to the next.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    tag: Option<Tag>,
}

/// All sources.
pub(crate) struct Sources {
    http: Http,
    slots: Vec<Slot>,
}

struct Slot {
    polls: Semaphore,
    postgres: Option<Postgres>,
}

impl Sources {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// If a source of the configuration cannot be one.
    pub(crate) fn new(catalogue: &Catalogue) -> Result<Sources, ConfigError> {
        let tls = Arc::new(tls());
        let slots = catalogue.sources.iter().map(|source| {
            let wrong = |what| ConfigError { line: source.line, what };
            let url = source.postgres.as_ref();
            let postgres = url.map(|url| Postgres::new(&url.0, source.connections, &tls).map_err(wrong)).transpose()?;
            Ok(Slot { polls: Semaphore::new(source.connections), postgres })
        });
        Ok(Sources { http: Http::new(&tls), slots: slots.collect::<Result<_, ConfigError>>()? })
    }

    /// Asks once. `None`: others had the source's turns for the whole interval.
    pub(crate) async fn ask(
        &self,
        nats: &Nats,
        feed: &Feed,
        argument: Option<&str>,
        memory: &mut Memory,
    ) -> Option<Result<Answer, Failure>> {
        let slot = self.slots.get(feed.source)?;
        let Ok(Ok(_turn)) = tokio::time::timeout(feed.interval, slot.polls.acquire()).await else { return None };
        Some(match (&feed.query, &slot.postgres) {
            (Query::Sql(sql), Some(postgres)) => postgres.ask(feed, sql, argument).await.and_then(value),
            (Query::Sql(_), None) => return None,
            (Query::Http(url, headers), _) => {
                let asked = self.http.ask(url, headers, argument, &mut memory.tag);
                match in_time(feed.timeout, asked).await {
                    Ok(Some(body)) => value(body).inspect_err(|_| memory.tag = None),
                    Ok(None) => Ok(Answer::Unchanged),
                    Err(failure) => Err(failure),
                }
            }
            (Query::Nats(subject), _) => request(nats, subject, argument, feed.timeout).await.and_then(value),
        })
    }
}

async fn request(nats: &Nats, subject: &str, argument: Option<&str>, timeout: Duration) -> Result<Bytes, Failure> {
    let body = serde_json::json!({ "argument": argument }).to_string();
    match nats.request(subject.to_owned(), body.into(), timeout).await {
        Ok(answer) => match answer.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error")) {
            Some(error) => Err(Failure::new(Fault::Refused, error)),
            None => Ok(answer.payload),
        },
        Err(RequestError::Timeout) => Err(Failure::new(Fault::Late, "")),
        Err(error @ (RequestError::NoResponders | RequestError::Down)) => Err(Failure::new(Fault::Unreachable, error)),
    }
}

async fn in_time<T>(timeout: Duration, asked: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| Err(Failure::new(Fault::Late, "")))
}

/// A library's error may say only what was tried; what went wrong is behind it.
fn chain(error: &dyn std::error::Error) -> String {
    let words = error.to_string();
    match error.source().map(chain) {
        Some(behind) if !words.contains(&behind) => format!("{words}: {behind}"),
        Some(_) | None => words,
    }
}

fn value(body: Bytes) -> Result<Answer, Failure> {
    let Some(value) = compact(&body) else {
        let start = body.get(..80).unwrap_or(&body);
        return Err(Failure::new(Fault::NoJson, String::from_utf8_lossy(start)));
    };
    match value.get().len() {
        size if size > PAYLOAD_BYTES_MAX => Err(Failure::new(Fault::TooLarge, format!("{size} bytes"))),
        _ => Ok(Answer::Value(value)),
    }
}

/// Certificates are verified with the system's roots; without any, every TLS connection fails.
fn tls() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (_, unusable) = roots.add_parsable_certificates(found.certs);
    if roots.is_empty() || unusable > 0 {
        tracing::debug!(errors = ?found.errors, unusable, "root certificates");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    match ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions() {
        Ok(builder) => builder.with_root_certificates(roots).with_no_client_auth(),
        Err(error) => unreachable!("the default versions are those of the provider: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_json_within_its_size() {
        let text = |n: usize| Bytes::from(format!(" \"{}\" ", "x".repeat(n)));
        assert!(
            matches!(value(text(PAYLOAD_BYTES_MAX - 2)), Ok(Answer::Value(v)) if v.get().len() == PAYLOAD_BYTES_MAX)
        );
        let fault = |body: Bytes| value(body).expect_err("a failure").fault;
        assert_eq!(fault(text(PAYLOAD_BYTES_MAX - 1)), Fault::TooLarge);
        assert_eq!(fault("<html>".into()), Fault::NoJson);
    }
}
