//! The configuration of feeds: a TOML file. Every error names its line.
//!
//! ```toml
//! [sources.shop]                         # what feeds share: a database, and how many polls it takes at a time
//! postgres_env = "SHOP_URL"              # or postgres = "postgres://user@host/db?sslmode=verify-full"
//! connections = 4
//!
//! [[feed]]
//! name = "orders"
//! interval = "1s"                        # from 100ms to 1h
//! timeout = "500ms"                      # the interval at most; by default that, or 2s
//! argument = "[a-z]{1,20}"               # what may stand behind `feed:orders:`; without it nothing may
//! token = false                          # true: only for tokens with the name in their claim `feeds`
//! secret = false                         # true, and then without token: only for who has the API's secret
//! source = "shop"
//! sql = "select count(*) from orders where kind = $1"
//! # or: http = "https://host/path/{argument}", with headers = { … } and headers_env = { authorization = "VARIABLE" }
//! # or: nats = "subject", a request with the payload {"argument":…}; of this system's own subjects only three, and the
//! #     one for operators, sb.history.operator, only with secret = true
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use regex::Regex;
use serde::Deserialize;
use switchboard_contract::limits::{
    FEED_CONNECTIONS, FEED_CONNECTIONS_MAX, FEED_INTERVAL_MAX, FEED_INTERVAL_MIN, FEED_TIMEOUT, FEEDS_CONFIGURED_MAX,
    OPERATOR_TIMEOUT_MIN,
};
use switchboard_contract::names::{FEED_SOURCES, FeedId, HISTORY_OPERATOR, is_reserved};
use toml::Spanned;
use url::Url;

/// Where an argument goes in a URL.
pub const PLACE: &str = "{argument}";

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {what}")]
pub struct ConfigError {
    /// From 1.
    pub line: usize,
    /// In words.
    pub what: String,
}

/// All feeds that can be polled.
#[derive(Debug, Default)]
pub struct Catalogue {
    feeds: BTreeMap<Box<str>, Feed>,
    /// What feeds share; [`Feed::source`] counts in here.
    pub sources: Vec<Source>,
}

/// One of the configuration.
#[derive(Debug)]
pub struct Feed {
    /// As clients know it.
    pub name: Box<str>,
    /// Between two polls.
    pub interval: Duration,
    /// For one poll.
    pub timeout: Duration,
    /// Only for tokens that name it.
    pub token: bool,
    /// Only for who has shown the secret of the gateways' HTTP API.
    pub secret: bool,
    /// Where to ask.
    pub source: usize,
    /// What to ask.
    pub query: Query,
    argument: Option<Regex>,
}

/// What a poll asks.
#[derive(Debug)]
pub enum Query {
    /// A statement of PostgreSQL; `$1` is the argument.
    Sql(String),
    /// A URL with [`PLACE`] for the argument, and headers.
    Http(String, HeaderMap),
    /// A subject of NATS.
    Nats(String),
}

/// What feeds share.
#[derive(Debug)]
pub struct Source {
    /// Where it stands in the file.
    pub line: usize,
    /// Where to connect to, if it is a database.
    pub postgres: Option<Secret>,
    /// Polls at the same time.
    pub connections: usize,
}

/// A text that is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Catalogue {
    /// Reads a configuration; `env` gives the environment's variables.
    ///
    /// # Errors
    /// The first thing that is wrong in it.
    pub fn parse(text: &str, env: impl Fn(&str) -> Option<String>) -> Result<Catalogue, ConfigError> {
        let line_of = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
        let file: RawFile = toml::from_str(text).map_err(|error| ConfigError {
            line: line_of(error.span().map_or(0, |span| span.start)),
            what: error.message().to_owned(),
        })?;
        let mut reader = Reader { line_of: &line_of, env: &env, catalogue: Catalogue::default() };
        reader.read(file)?;
        Ok(reader.catalogue)
    }

    /// The names of all feeds.
    pub fn names(&self) -> Vec<Box<str>> {
        self.feeds.keys().cloned().collect()
    }

    /// All feeds.
    pub fn feeds(&self) -> impl Iterator<Item = &Feed> {
        self.feeds.values()
    }

    /// The configuration of a feed that a client names, if there is one and it takes this argument.
    pub fn find(&self, id: &FeedId) -> Option<&Feed> {
        let feed = self.feeds.get(id.name())?;
        let fits = match (&feed.argument, id.argument()) {
            (Some(pattern), Some(argument)) => pattern.is_match(argument) && feed.query.takes(argument),
            (argument, given) => argument.is_none() && given.is_none(),
        };
        fits.then_some(feed)
    }
}

impl Query {
    /// A path of `.` or `..` means another place, also where it is escaped; a zero byte is no text for PostgreSQL.
    fn takes(&self, argument: &str) -> bool {
        match self {
            Query::Sql(_) => !argument.contains('\0'),
            Query::Http(..) => argument != "." && argument != "..",
            Query::Nats(_) => true,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    sources: BTreeMap<String, Spanned<RawSource>>,
    #[serde(default)]
    feed: Vec<Spanned<RawFeed>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSource {
    postgres: Option<Spanned<String>>,
    postgres_env: Option<Spanned<String>>,
    connections: Option<Spanned<usize>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFeed {
    name: Spanned<String>,
    interval: Spanned<String>,
    timeout: Option<Spanned<String>>,
    argument: Option<Spanned<String>>,
    #[serde(default)]
    token: bool,
    secret: Option<Spanned<bool>>,
    source: Option<Spanned<String>>,
    sql: Option<Spanned<String>>,
    http: Option<Spanned<String>>,
    nats: Option<Spanned<String>>,
    #[serde(default)]
    headers: BTreeMap<Spanned<String>, Spanned<String>>,
    #[serde(default)]
    headers_env: BTreeMap<Spanned<String>, Spanned<String>>,
}

struct Reader<'a> {
    line_of: &'a dyn Fn(usize) -> usize,
    env: &'a dyn Fn(&str) -> Option<String>,
    catalogue: Catalogue,
}

type Read<T> = Result<T, ConfigError>;

impl Reader<'_> {
    fn line<T>(&self, at: &Spanned<T>) -> usize {
        (self.line_of)(at.span().start)
    }

    fn wrong<T, R>(&self, at: &Spanned<T>, what: impl Into<String>) -> Read<R> {
        Err(ConfigError { line: self.line(at), what: what.into() })
    }

    fn read(&mut self, file: RawFile) -> Read<()> {
        let mut sources = BTreeMap::new();
        for (name, source) in &file.sources {
            sources.insert(name.as_str(), self.catalogue.sources.len());
            let source = self.source(source)?;
            self.catalogue.sources.push(source);
        }
        let mut names = BTreeSet::new();
        for raw in &file.feed {
            let name = &raw.get_ref().name;
            if !names.insert(name.get_ref().clone()) {
                return self.wrong(name, format!("there are two feeds {:?}", name.get_ref()));
            }
            if names.len() > FEEDS_CONFIGURED_MAX {
                return self.wrong(name, format!("there are more than {FEEDS_CONFIGURED_MAX} feeds"));
            }
            let feed = self.feed(raw, &sources)?;
            self.catalogue.feeds.insert(feed.name.clone(), feed);
        }
        Ok(())
    }

    fn source(&self, raw: &Spanned<RawSource>) -> Read<Source> {
        let RawSource { postgres, postgres_env, connections } = raw.get_ref();
        let postgres = match (postgres, postgres_env) {
            (Some(url), None) => Some(Secret(url.get_ref().clone())),
            (None, Some(variable)) => Some(Secret(self.variable(variable)?)),
            (None, None) => None,
            (Some(_), Some(both)) => return self.wrong(both, "postgres and postgres_env exclude each other"),
        };
        let connections = match connections {
            None => FEED_CONNECTIONS,
            Some(n) if (1..=FEED_CONNECTIONS_MAX).contains(n.get_ref()) => *n.get_ref(),
            Some(n) => return self.wrong(n, format!("connections must be from 1 to {FEED_CONNECTIONS_MAX}")),
        };
        Ok(Source { line: self.line(raw), postgres, connections })
    }

    fn variable(&self, name: &Spanned<String>) -> Read<String> {
        match (self.env)(name.get_ref()) {
            Some(value) => Ok(value),
            None => self.wrong(name, format!("the environment has no variable {}", name.get_ref())),
        }
    }

    fn feed(&mut self, at: &Spanned<RawFeed>, sources: &BTreeMap<&str, usize>) -> Read<Feed> {
        let raw = at.get_ref();
        let name = raw.name.get_ref();
        if !FeedId::new(name).is_ok_and(|id| id.argument().is_none()) {
            return self.wrong(&raw.name, "a feed's name has 1 to 64 bytes [A-Za-z0-9_-]");
        }
        let interval = self.duration(&raw.interval)?;
        if !(FEED_INTERVAL_MIN..=FEED_INTERVAL_MAX).contains(&interval) {
            return self.wrong(&raw.interval, "an interval is from 100ms to 1h");
        }
        let timeout = match &raw.timeout {
            None => interval.min(FEED_TIMEOUT),
            Some(text) => match self.duration(text)? {
                zero if zero.is_zero() => return self.wrong(text, "a timeout is longer than that"),
                timeout if timeout > interval => return self.wrong(text, "a timeout is no longer than the interval"),
                timeout => timeout,
            },
        };
        let argument = match &raw.argument {
            None => None,
            // By itself first: what is no pattern may be one between the brackets.
            Some(pattern) => {
                let whole = Regex::new(pattern.get_ref()).and(Regex::new(&format!(r"\A(?:{})\z", pattern.get_ref())));
                match whole {
                    Ok(regex) => Some(regex),
                    Err(error) => return self.wrong(pattern, format!("the argument's pattern is wrong: {error}")),
                }
            }
        };
        let source = match &raw.source {
            Some(named) => match sources.get(named.get_ref().as_str()) {
                Some(source) => *source,
                None => return self.wrong(named, format!("there is no source {:?}", named.get_ref())),
            },
            None if raw.sql.is_some() => return self.wrong(at, format!("feed {name:?} needs a source for its sql")),
            None => {
                let line = self.line(at);
                self.catalogue.sources.push(Source { line, postgres: None, connections: FEED_CONNECTIONS });
                self.catalogue.sources.len() - 1
            }
        };
        let secret = raw.secret.as_ref().is_some_and(|secret| *secret.get_ref());
        if let Some(both) = raw.secret.as_ref().filter(|_| secret && raw.token) {
            return self.wrong(both, "token and secret exclude each other: who has the secret needs no token");
        }
        let is_database = self.catalogue.sources.get(source).is_some_and(|source| source.postgres.is_some());
        let query = match (&raw.sql, &raw.http, &raw.nats) {
            (Some(sql), None, None) if is_database => self.sql(sql, argument.is_some())?,
            (Some(sql), None, None) => return self.wrong(sql, "the source of this sql has no postgres"),
            (None, Some(url), None) if !is_database => self.http(url, raw, argument.is_some())?,
            (None, None, Some(subject)) if !is_database => {
                self.for_operators(subject, secret, timeout)?;
                self.nats(subject, argument.is_some())?
            }
            (None, Some(other), None) | (None, None, Some(other)) => {
                return self.wrong(other, "the source of this feed is a database: it takes sql");
            }
            (None, None, None) => return self.wrong(at, format!("feed {name:?} has no sql, http or nats to ask")),
            (Some(_) | None, Some(_), Some(_)) | (Some(_), Some(_) | None, _) => {
                return self.wrong(at, format!("feed {name:?} has more than one of sql, http and nats"));
            }
        };
        if let Some(header) = raw.headers.keys().chain(raw.headers_env.keys()).next()
            && !matches!(query, Query::Http(..))
        {
            return self.wrong(header, "headers go with http");
        }
        let token = raw.token;
        Ok(Feed { name: name.as_str().into(), interval, timeout, token, secret, source, query, argument })
    }

    fn duration(&self, text: &Spanned<String>) -> Read<Duration> {
        match humantime::parse_duration(text.get_ref()) {
            Ok(duration) => Ok(duration),
            Err(error) => self.wrong(text, format!("{:?} is no time such as 500ms or 1s: {error}", text.get_ref())),
        }
    }

    /// An argument that changes nothing would poll the same thing many times; one that is not there cannot be bound.
    fn used(&self, at: &Spanned<String>, place: &str, argument: bool) -> Read<()> {
        match (at.get_ref().contains(place), argument) {
            (true, false) => self.wrong(at, format!("{place} needs an argument = \"<pattern>\"")),
            (false, true) => self.wrong(at, format!("the argument is not used: there is no {place}")),
            (true, true) | (false, false) => Ok(()),
        }
    }

    fn sql(&self, sql: &Spanned<String>, argument: bool) -> Read<Query> {
        self.used(sql, "$1", argument)?;
        let text = sql.get_ref().trim().trim_end_matches(';').trim_end();
        if text.is_empty() { self.wrong(sql, "the sql is empty") } else { Ok(Query::Sql(text.to_owned())) }
    }

    fn http(&self, url: &Spanned<String>, raw: &RawFeed, argument: bool) -> Read<Query> {
        self.used(url, PLACE, argument)?;
        let with = |argument: &str| Url::parse(&url.get_ref().replace(PLACE, argument));
        let (one, other) = match (with("a"), with("b")) {
            (Ok(one), Ok(other)) => (one, other),
            (Err(error), _) | (_, Err(error)) => return self.wrong(url, format!("this is no URL: {error}")),
        };
        if !matches!(one.scheme(), "http" | "https") || !one.has_host() {
            return self.wrong(url, "the URL must begin with http:// or https://");
        }
        if one[..url::Position::BeforePath] != other[..url::Position::BeforePath] {
            return self.wrong(url, "clients must not choose the host: {argument} goes behind it");
        }
        if !one.username().is_empty() || one.password().is_some() {
            return self.wrong(url, "secrets do not go into the URL: use headers_env");
        }
        let mut headers = HeaderMap::new();
        let plain = raw.headers.iter().map(|(name, value)| (name, value, Ok(value.get_ref().clone())));
        let secret = raw.headers_env.iter().map(|(name, value)| (name, value, self.variable(value)));
        for (name, at, value) in plain.chain(secret) {
            let Ok(key) = HeaderName::from_bytes(name.get_ref().as_bytes()) else {
                return self.wrong(name, format!("{:?} is no header's name", name.get_ref()));
            };
            let Ok(mut value) = HeaderValue::from_str(&value?) else {
                return self.wrong(at, "this is no header's value");
            };
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        Ok(Query::Http(url.get_ref().clone(), headers))
    }

    /// What operators are shown names users, and takes its time.
    fn for_operators(&self, subject: &Spanned<String>, secret: bool, timeout: Duration) -> Read<()> {
        if subject.get_ref() != HISTORY_OPERATOR {
            return Ok(());
        }
        if !secret {
            return self.wrong(subject, format!("{HISTORY_OPERATOR} is for operators: it needs secret = true"));
        }
        if timeout < OPERATOR_TIMEOUT_MIN {
            let least = humantime::format_duration(OPERATOR_TIMEOUT_MIN);
            return self
                .wrong(subject, format!("{HISTORY_OPERATOR} asks the whole system: it needs a timeout of {least}"));
        }
        Ok(())
    }

    /// The subjects of this system are refused: a feed would show what is said in rooms to everybody, or do something
    /// at each poll. [`FEED_SOURCES`] are made for feeds, and know no argument.
    fn nats(&self, subject: &Spanned<String>, argument: bool) -> Read<Query> {
        let text = subject.get_ref();
        if FEED_SOURCES.contains(&text.as_str()) {
            return match argument {
                true => self.wrong(subject, format!("{text} takes no argument")),
                false => Ok(Query::Nats(text.clone())),
            };
        }
        let plain =
            |token: &str| !token.is_empty() && !token.contains(['*', '>']) && !token.contains(char::is_whitespace);
        if is_reserved(text) || !text.split('.').all(plain) {
            let but = FEED_SOURCES.join(", ");
            let what = format!("this is no subject to ask on: no wildcards, and not below sb. or $, but for {but}");
            return self.wrong(subject, what);
        }
        Ok(Query::Nats(text.clone()))
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
