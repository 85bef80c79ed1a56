//! Three questions about the system itself, for feeds to ask: the lobby's counts, the live gateways, and all of it for
//! operators ([`crate::inside`]).
//!
//! A feed shows its source's answer to clients as it is, so the first two are made for everybody's eyes. Beside the
//! counts, the matcher would name who leads, and count epochs; a gateway's record has an address and a version. Those
//! are for operators. A gateway's name is in its answer, because nothing else tells two of them apart: who does not
//! want it seen gives the feed `token = true`.

use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use async_nats::service::endpoint::Endpoint;
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Serialize;
use switchboard_contract::limits::{FEED_GATEWAYS_MAX, FEED_QUESTIONS_MAX, REQUEST_TIMEOUT};
use switchboard_contract::lobby::{GatewayRecord, Leader};
use switchboard_contract::names::MatcherVerb;
use switchboard_contract::nats::Nats;
use switchboard_contract::wire::{decode, encode};
use tokio_util::sync::CancellationToken;

use crate::feeds::Questions;
use crate::serve::{refuse, respond};
use crate::{inside, records};

/// The live gateways, as clients see them. The same gateways are the same text: a feed tells what has changed.
#[derive(Debug, Serialize)]
struct Gateways {
    total: Total,
    /// The first [`FEED_GATEWAYS_MAX`] by name.
    gateways: Vec<Gateway>,
    /// How many more there are.
    left_out: usize,
}

/// Of all gateways.
#[derive(Debug, Serialize)]
struct Total {
    gateways: usize,
    connections: u64,
}

#[derive(Debug, Serialize)]
struct Gateway {
    name: Box<str>,
    connections: u64,
}

impl Gateways {
    fn of(mut records: Vec<GatewayRecord>) -> Gateways {
        records.sort_by(|a, b| a.gateway.cmp(&b.gateway));
        let connections = records.iter().map(|record| record.connections).sum();
        let gateways = records
            .iter()
            .take(FEED_GATEWAYS_MAX)
            .map(|record| Gateway { name: record.gateway.as_str().into(), connections: record.connections });
        Gateways {
            total: Total { gateways: records.len(), connections },
            gateways: gateways.collect(),
            left_out: records.len().saturating_sub(FEED_GATEWAYS_MAX),
        }
    }
}

/// What can be asked.
#[derive(Clone, Copy, Debug)]
enum About {
    Lobby,
    Gateways,
    Inside,
}

/// Answers all until `stop`.
///
/// # Errors
/// If an endpoint ends before.
pub(crate) async fn serve(
    nats: Nats,
    questions: Questions,
    [lobby, gateways, inside]: [Endpoint; 3],
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let known = (&nats, &questions);
    let lobby = answer(known, About::Lobby, lobby, stop.clone());
    let gateways = answer(known, About::Gateways, gateways, stop.clone());
    let inside = answer(known, About::Inside, inside, stop);
    tokio::try_join!(lobby, gateways, inside).map(|_| ())
}

async fn answer(
    known: (&Nats, &Questions),
    about: About,
    mut endpoint: Endpoint,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let asked = (&mut endpoint).take_until(stop.clone().cancelled_owned());
    asked
        .for_each_concurrent(FEED_QUESTIONS_MAX, |request| async move {
            match work_out(known, about).await {
                Ok(answer) => {
                    respond(&request, answer).await;
                }
                Err(error) => refuse(&request, 503, format!("{error:#}")).await,
            }
        })
        .await;
    if !stop.is_cancelled() {
        bail!("an endpoint for feeds ended");
    }
    let stopped = tokio::time::timeout(REQUEST_TIMEOUT, endpoint.stop()).await;
    tracing::debug!(?stopped, "an endpoint for feeds is closed");
    Ok(())
}

async fn work_out((nats, questions): (&Nats, &Questions), about: About) -> anyhow::Result<Bytes> {
    match about {
        About::Lobby => {
            let status = MatcherVerb::Status.subject();
            let answer = nats.request(status, Bytes::new(), REQUEST_TIMEOUT).await.context("the matcher")?;
            let Leader { status, waiting_since, .. } = decode("leader", &answer.payload)?;
            // Among the counts, as their last one.
            let mut json = status.counts();
            json.truncate(json.len() - 1);
            write!(json, ",\"waiting_since\":{}}}", serde_json::to_string(&waiting_since)?)?;
            Ok(json.into())
        }
        About::Inside => Ok(inside::look(nats, questions).await),
        About::Gateways => Ok(encode(&Gateways::of(records::gateways(nats).await?))),
    }
}

#[cfg(test)]
mod tests {
    use switchboard_contract::limits::{ID_BYTES_MAX, PAYLOAD_BYTES_MAX};
    use switchboard_contract::names::Incarnation;
    use switchboard_contract::wire::V1;

    use super::*;

    fn record(name: &str, connections: u64) -> GatewayRecord {
        GatewayRecord {
            v: V1,
            gateway: Incarnation::named(name).expect("a name"),
            address: "10.0.0.7:4000".into(),
            version: "0.1.0".into(),
            connections,
            since: "2026-11-21T19:04:22.720Z".into(),
        }
    }

    fn json(records: Vec<GatewayRecord>) -> String {
        String::from_utf8(encode(&Gateways::of(records)).into()).expect("text")
    }

    #[test]
    fn gateways_stand_by_name_and_without_what_is_for_operators() {
        let expected = r#"{"total":{"gateways":2,"connections":5},"gateways":[{"name":"a","connections":3},{"name":"b","connections":2}],"left_out":0}"#;
        assert_eq!(json(vec![record("b", 2), record("a", 3)]), expected);
        assert_eq!(json(vec![record("a", 3), record("b", 2)]), expected);
        assert_eq!(json(vec![]), r#"{"total":{"gateways":0,"connections":0},"gateways":[],"left_out":0}"#);
    }

    #[test]
    fn of_many_gateways_the_first_are_named_and_all_are_counted() {
        let name = |n: usize| format!("{}{n:03}", "x".repeat(ID_BYTES_MAX - 3));
        let all: Vec<GatewayRecord> = (0..FEED_GATEWAYS_MAX + 20).map(|n| record(&name(n), u64::MAX >> 8)).collect();
        let gateways = Gateways::of(all.clone());
        assert_eq!((gateways.gateways.len(), gateways.left_out), (FEED_GATEWAYS_MAX, 20));
        assert_eq!(gateways.total.gateways, FEED_GATEWAYS_MAX + 20);
        let size = json(all).len();
        assert!(size <= PAYLOAD_BYTES_MAX, "{size} bytes");
    }
}
