//! Whether NATS carries a service: whether what it writes is stored. A server that is cut off from its cluster keeps
//! its connections, and no stream has a leader there; so a service that sits on it looks for another server.

use std::time::Instant;

use async_nats::{Client, Request, ServerAddr};
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{sleep, timeout};

use crate::limits::{
    CARRIED_INTERVAL, CARRIED_LOOK, CARRIED_PATIENCE, CARRIED_RETRY, CARRIED_SERVERS_MAX, CARRIED_TIMEOUT,
};
use crate::lobby::LeaseRecord;
use crate::names::{self, Incarnation};
use crate::nats::Nats;
use crate::wire::{self, V1};

/// Writes what `record` gives (a subject of a bucket, and the value) every [`CARRIED_INTERVAL`], for ever, and keeps
/// [`Nats::stored`]. Any answer counts, a refusal too: somebody leads the bucket.
///
/// Where nothing was stored for [`CARRIED_PATIENCE`] although the connection is up, all servers are tried beside it,
/// and it moves to one on which the write is answered. So it never leaves a server for one that is no better, and keeps
/// what it has while a cluster only chooses its leaders.
pub async fn keep(nats: Nats, mut record: impl FnMut() -> (String, Bytes)) {
    nats.stored.send_replace(Some(Instant::now()));
    let mut looked = Instant::now();
    loop {
        let (subject, value) = record();
        if write(&nats, &subject, &value).await {
            sleep(CARRIED_INTERVAL).await;
            continue;
        }
        let silent = nats.stored.borrow().is_none_or(|stored| stored.elapsed() >= CARRIED_PATIENCE);
        let looks = silent && nats.is_up() && looked.elapsed() >= CARRIED_LOOK;
        if looks {
            looked = Instant::now();
        }
        // Written once more at the end: the leader that the others have found may have been chosen just now.
        if looks
            && let Some(server) = look(&nats, &subject, &value).await
            && !write(&nats, &subject, &value).await
        {
            tracing::warn!(server = server.as_url_str(), "NATS stores nothing here; moving to another server");
            nats.move_to(server).await;
        }
        sleep(CARRIED_RETRY).await;
    }
}

/// As [`keep`], for a process of a service that has nothing else to write: its name, in KV `leases`.
pub async fn keep_any(nats: Nats, service: &'static str, me: Incarnation) {
    let (subject, value) = (names::carried_subject(service), wire::encode(&LeaseRecord { v: V1, holder: me }));
    keep(nats, || (subject.clone(), value.clone())).await;
}

async fn write(nats: &Nats, subject: &str, value: &Bytes) -> bool {
    let sent = Instant::now();
    let Ok(answer) = nats.request(subject.to_owned(), value.clone(), CARRIED_TIMEOUT).await else { return false };
    nats.stored.send_replace(Some(sent));
    // Who writes nothing else knows by this when there is room again.
    nats.refusals.read(&answer.payload);
    true
}

/// The first server on which the write is answered, of those that are known. That may be the one which it has: on a
/// new connection.
async fn look(nats: &Nats, subject: &str, value: &Bytes) -> Option<ServerAddr> {
    let servers = timeout(CARRIED_TIMEOUT, nats.client.server_pool()).await.ok()?.ok()?;
    let tries = servers.into_iter().take(CARRIED_SERVERS_MAX).map(|server| async move {
        let client = timeout(CARRIED_TIMEOUT, nats.scout(&server.addr)).await.ok()?.ok()?;
        answers(&client, subject, value).await.then_some(server.addr)
    });
    let mut tries: FuturesUnordered<_> = tries.collect();
    while let Some(tried) = tries.next().await {
        if tried.is_some() {
            return tried;
        }
    }
    None
}

async fn answers(client: &Client, subject: &str, value: &Bytes) -> bool {
    let request = Request::new().payload(value.clone()).timeout(None);
    let answer = timeout(CARRIED_TIMEOUT, client.send_request(subject.to_owned(), request)).await;
    matches!(answer, Ok(Ok(_)))
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::names::{LEASES_BUCKET, bucket_stream};
    use crate::nats::RequestError;
    use crate::streams::{self, Asset};
    use crate::testing::{NatsServer, eventually};

    #[tokio::test]
    async fn what_a_leader_says_counts_only_while_something_is_stored() {
        let Some(mut server) = NatsServer::start().await else { return };
        let me = Incarnation::new();
        let nats = Nats::connect(&server.common_args(), "test", &me).await.expect("a connection");
        streams::ensure(&nats, Asset::Leases, 1).await.expect("a bucket");
        let (stream, subject) = (bucket_stream(LEASES_BUCKET), names::carried_subject("test"));
        let read = async || nats.leader_get(&stream, &subject, CARRIED_TIMEOUT).await;
        assert!(read().await.is_ok(), "nobody looks");
        nats.stored.send_replace(Instant::now().checked_sub(CARRIED_PATIENCE));
        assert_eq!(read().await.err(), Some(RequestError::Timeout));
        let keeping = tokio::spawn(keep_any(nats.clone(), "test", me));
        eventually("it is written", async || read().await.is_ok_and(|stored| stored.is_some())).await;
        // It is known again soon after NATS is back.
        server.kill();
        eventually("the connection is down", async || !nats.is_up()).await;
        let back = Instant::now();
        server.restart().await;
        eventually("it is written", async || nats.stored.borrow().is_some_and(|stored| stored > back)).await;
        assert!(read().await.is_ok());
        keeping.abort();
    }
}
