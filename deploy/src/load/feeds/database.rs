//! The source's side: a table with a row for each poll.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio_postgres::{Client, NoTls};

use super::polls::Row;

/// The longest that the database may take for anything.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Made anew; `deploy/load-feeds.toml` names it, too.
const MAKE: &str = "drop table if exists switchboard_load_polls;
create table switchboard_load_polls (n bigserial primary key, at timestamptz not null default clock_timestamp())";
const NOW: &str = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint";
const ROWS: &str = "select n, (extract(epoch from at) * 1000000)::bigint from switchboard_load_polls order by at, n";

/// The table of a run.
pub(super) struct Table {
    client: Client,
    /// When the run began, by the database's clock. Microseconds since 1970.
    began_us: i64,
}

impl Table {
    /// Connects, and makes the table anew.
    ///
    /// # Errors
    /// If the database does not let us, or does not answer.
    pub(super) async fn make(url: &str, began: Instant) -> anyhow::Result<Table> {
        in_time(async {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            tokio::task::spawn_local(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "the connection to the database ended");
                }
            });
            client.batch_execute(MAKE).await?;
            let now_us: i64 = client.query_one(NOW, &[]).await?.get(0);
            let elapsed_us = i64::try_from(began.elapsed().as_micros()).unwrap_or(0);
            Ok(Table { client, began_us: now_us - elapsed_us })
        })
        .await
    }

    /// All polls so far, in their order.
    ///
    /// # Errors
    /// If the database does not answer.
    pub(super) async fn rows(&self) -> anyhow::Result<Vec<Row>> {
        let rows = in_time(self.client.query(ROWS, &[])).await?;
        let row = |row: tokio_postgres::Row| {
            let since_us = row.get::<_, i64>(1).saturating_sub(self.began_us);
            Row { n: row.get(0), at: Duration::from_micros(u64::try_from(since_us).unwrap_or(0)) }
        };
        Ok(rows.into_iter().map(row).collect())
    }
}

async fn in_time<T>(asked: impl Future<Output = Result<T, tokio_postgres::Error>>) -> anyhow::Result<T> {
    let answered = tokio::time::timeout(ANSWER_WITHIN, asked).await;
    answered.context("the database does not answer")?.context("the database")
}
