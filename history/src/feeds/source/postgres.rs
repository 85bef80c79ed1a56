//! Sources in PostgreSQL: a statement whose result the server itself turns into JSON, so that every type has one.
//!
//! One row with one column is that value; anything else is an array of objects. The argument is bound as text and read
//! by the server as whatever `$1` is where it stands: a number, a date, a text.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use rustls::ClientConfig;
use switchboard_contract::limits::{FEED_CONNECT_TIMEOUT, PAYLOAD_BYTES_MAX};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Config, NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;
use url::Url;

use super::{Failure, Fault, chain};
use crate::feeds::config::Feed;

/// The server ends a statement itself. It is given up here so much later, for a server that does not answer at all.
const MARGIN: Duration = Duration::from_millis(100);

/// A database.
pub(super) struct Postgres {
    pool: Pool,
    tls: Option<MakeRustlsConnect>,
    /// By the name of the feed.
    wrapped: Mutex<BTreeMap<Box<str>, Arc<str>>>,
}

impl Postgres {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// In words, without the URL, which may hold a password.
    pub(super) fn new(url: &str, connections: usize, tls: &Arc<ClientConfig>) -> Result<Postgres, String> {
        let mut config = configured(url)?;
        config.application_name("switchboard-history").connect_timeout(FEED_CONNECT_TIMEOUT);
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let plain = config.get_ssl_mode() == SslMode::Disable;
        let tls = (!plain).then(|| MakeRustlsConnect::new(ClientConfig::clone(tls)));
        let manager = match &tls {
            None => Manager::from_config(config, NoTls, recycling),
            Some(tls) => Manager::from_config(config, tls.clone(), recycling),
        };
        let timeout = Some(FEED_CONNECT_TIMEOUT);
        let pool = Pool::builder(manager).max_size(connections).runtime(Runtime::Tokio1);
        let pool = pool.wait_timeout(timeout).create_timeout(timeout).recycle_timeout(timeout).build();
        Ok(Postgres { pool: pool.map_err(|error| error.to_string())?, tls, wrapped: Mutex::default() })
    }

    /// One poll. Making a connection has a time of its own: a short timeout would never let it be made.
    pub(super) async fn ask(&self, feed: &Feed, sql: &str, argument: Option<&str>) -> Result<Bytes, Failure> {
        let client = self.pool.get().await.map_err(|error| Failure::new(Fault::Unreachable, chain(&error)))?;
        let cancel = client.cancel_token();
        match tokio::time::timeout(feed.timeout + MARGIN, self.query(&client, feed, sql, argument)).await {
            Ok(answer) => answer,
            Err(_) => {
                // Nothing is known of this connection any more.
                drop(Object::take(client));
                let cancelled = async {
                    match &self.tls {
                        Some(tls) => cancel.cancel_query(tls.clone()).await,
                        None => cancel.cancel_query(NoTls).await,
                    }
                };
                let _ = tokio::time::timeout(MARGIN, cancelled).await;
                Err(Failure::new(Fault::Late, ""))
            }
        }
    }

    async fn query(&self, client: &Object, feed: &Feed, sql: &str, arg: Option<&str>) -> Result<Bytes, Failure> {
        let answer = async {
            let limit = format!("set statement_timeout = {}", feed.timeout.as_millis().max(1));
            let sql = self.wrapped(client, feed, sql).await?;
            let statement = client.prepare_cached(&sql).await?;
            let text = arg.map(Text);
            let params: Vec<&(dyn ToSql + Sync)> = text.iter().map(|text| text as &(dyn ToSql + Sync)).collect();
            // Sent together, and carried out in this order.
            let limit = client.batch_execute(&limit);
            let (limited, row) = tokio::join!(limit, client.query_one(&statement, &params));
            limited.and(row)
        };
        let row = answer.await.map_err(|error| {
            // A table may have another form now: the statement is looked at anew.
            self.wrapped.lock().unwrap_or_else(PoisonError::into_inner).remove(&feed.name);
            client.statement_cache.clear();
            failure(&error)
        })?;
        let (size, json) = sized(&row).map_err(|error| failure(&error))?;
        json.map(Bytes::from).ok_or_else(|| Failure::new(Fault::TooLarge, format!("{size} bytes")))
    }

    async fn wrapped(&self, client: &Object, feed: &Feed, sql: &str) -> Result<Arc<str>, tokio_postgres::Error> {
        let known = self.wrapped.lock().unwrap_or_else(PoisonError::into_inner).get(&feed.name).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let statement = client.prepare(sql).await?;
        let columns: Vec<&str> = statement.columns().iter().map(|column| column.name()).collect();
        let wrapped: Arc<str> = wrap(sql, &columns).into();
        self.wrapped.lock().unwrap_or_else(PoisonError::into_inner).insert(feed.name.clone(), wrapped.clone());
        Ok(wrapped)
    }
}

/// Size and JSON, as [`wrap`] has them.
fn sized(row: &Row) -> Result<(i32, Option<String>), tokio_postgres::Error> {
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// The statement around the feed's own: the size of the result as JSON, and the JSON, if it is not too large. The
/// feed's own is run once, whatever it calls.
fn wrap(sql: &str, columns: &[&str]) -> String {
    let rows = "coalesce(json_agg(row_to_json(q)), '[]')::text";
    let json = match columns {
        [one] => {
            let one = format!("q.\"{}\"", one.replace('"', "\"\""));
            let value = format!("coalesce((json_agg(to_json({one})) -> 0)::text, 'null')");
            format!("case count(*) when 1 then {value} else {rows} end")
        }
        _ => rows.to_owned(),
    };
    format!(
        "with q as materialized (\n{sql}\n), j as materialized (select {json} as t from q) \
         select octet_length(t), case when octet_length(t) <= {PAYLOAD_BYTES_MAX} then t end from j"
    )
}

/// TLS is verified or not used at all: without `sslmode` it is used for hosts that are not this one.
fn configured(url: &str) -> Result<Config, String> {
    let mut parsed = Url::parse(url).map_err(|error| format!("postgres is no URL: {error}"))?;
    if !matches!(parsed.scheme(), "postgres" | "postgresql") {
        return Err("postgres must begin with postgres://".to_owned());
    }
    let mut mode = None;
    let mut others = Vec::new();
    for (key, value) in parsed.query_pairs() {
        match (&*key, &*value) {
            ("sslmode", "disable") => mode = Some(SslMode::Disable),
            ("sslmode", "require" | "verify-full") => mode = Some(SslMode::Require),
            ("sslmode", _) => return Err("sslmode must be disable, require or verify-full".to_owned()),
            _ => others.push((key.into_owned(), value.into_owned())),
        }
    }
    parsed.set_query(None);
    if !others.is_empty() {
        parsed.query_pairs_mut().extend_pairs(others);
    }
    let mut config: Config = parsed.as_str().parse().map_err(|error: tokio_postgres::Error| chain(&error))?;
    if config.get_hosts().is_empty() {
        return Err("postgres names no host".to_owned());
    }
    let local = config.get_hosts().iter().all(is_local);
    config.ssl_mode(mode.unwrap_or(if local { SslMode::Disable } else { SslMode::Require }));
    Ok(config)
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        }
        Host::Unix(_) => true,
    }
}

fn failure(error: &tokio_postgres::Error) -> Failure {
    let fault = match error.code() {
        Some(code) if *code == SqlState::QUERY_CANCELED => Fault::Late,
        Some(_) => Fault::Refused,
        None if error.is_closed() || is_lost(error) => Fault::Unreachable,
        None => Fault::Refused,
    };
    Failure::new(fault, chain(error))
}

/// Whether the connection itself failed: reset, or broken. What could not be said or understood is an io error of the
/// library too, and no failure of the connection.
fn is_lost(error: &tokio_postgres::Error) -> bool {
    std::iter::successors(error.source(), |&error| error.source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| !matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData))
}

/// An argument in text form, which the server reads as the type that it takes the parameter for.
#[derive(Debug)]
struct Text<'a>(&'a str);

impl ToSql for Text<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.put_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_verified_or_off() {
        for (url, mode) in [
            ("postgres://u:p@localhost/db", SslMode::Disable),
            ("postgres://u@127.0.0.1:5433/db?connect_timeout=1", SslMode::Disable),
            ("postgresql://u@[::1]/db", SslMode::Disable),
            ("postgres:///db?host=/run/postgresql", SslMode::Disable),
            ("postgres://u@db.example/db", SslMode::Require),
            ("postgres://u@db.example/db?sslmode=disable", SslMode::Disable),
            ("postgres://u@localhost/db?sslmode=verify-full", SslMode::Require),
            ("postgres://u@localhost,db.example/db", SslMode::Require),
        ] {
            assert_eq!(configured(url).expect(url).get_ssl_mode(), mode, "{url}");
        }
        for url in ["postgres://h/db?sslmode=prefer", "mysql://h/db", "h", "postgres:///db", "postgres://h?colour=red"]
        {
            let error = configured(url).expect_err(url);
            assert!(!error.is_empty());
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_reset_is_a_source_that_cannot_be_reached() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            let (socket, _) = listener.accept().await.expect("a connection");
            socket.readable().await.expect("the client speaks first");
            // What came is not read, so that the end is a reset.
            drop(socket);
        });
        let config = configured(&format!("postgres://u@127.0.0.1:{port}/db")).expect("a URL");
        let error = config.connect(NoTls).await.err().expect("a failure");
        assert!(!error.is_closed(), "{error:?}");
        assert_eq!(failure(&error).fault, Fault::Unreachable, "{error:?}");
    }

    #[tokio::test]
    async fn what_cannot_be_said_is_refused() {
        let config = configured("postgres://u%00@127.0.0.1:1/db").expect("a URL");
        let (client, _server) = tokio::io::duplex(1024);
        let error = config.connect_raw(client, NoTls).await.err().expect("a failure");
        assert_eq!(failure(&error).fault, Fault::Refused, "{error:?}");
    }

    #[test]
    fn the_name_of_a_column_is_quoted() {
        assert!(wrap("select 1", &["a\"b"]).contains("q.\"a\"\"b\""));
        assert!(!wrap("select 1, 2", &["a", "b"]).contains("count(*)"));
    }
}
