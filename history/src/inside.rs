//! The system as operators are shown it: asked of all its parts at once when somebody asks, and kept nowhere.
//!
//! Whoever may see it sees ids of users, so the feed of it is only for who has shown the API's secret. A part that does
//! not answer within [`OPERATOR_WAIT`] is null, and the rest is told. Lists are cut so that all of it is one value of a
//! feed, however long the ids are.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use switchboard_contract::feed::{FeedRecord, Stale};
use switchboard_contract::inside::{GatewayInside, LobbyInside, Talk, Waiting};
use switchboard_contract::limits::{
    OPERATOR_CHATS_MAX, OPERATOR_FEEDS_MAX, OPERATOR_GATEWAYS_MAX, OPERATOR_LIST_BYTES_MAX, OPERATOR_NAMES_BYTES_MAX,
    OPERATOR_NAMES_MAX, OPERATOR_QUEUE_MAX, OPERATOR_WAIT,
};
use switchboard_contract::lobby::{GatewayRecord, Status};
use switchboard_contract::names::{
    FeedId, GATEWAYS_LOOK, Incarnation, MATCHER_STANDBY_NAME, MATCHER_STANDBY_PING, MatcherVerb,
};
use switchboard_contract::nats::Nats;
use switchboard_contract::wire::{decode, encode, timestamp};
use tokio::time::{Instant, timeout, timeout_at};

use crate::feeds::{Known, Questions};
use crate::gather::ask_all;
use crate::records;

/// Matchers that stand by; there is no use in more than one or two.
const STANDBYS_MAX: usize = 100;

/// All of it.
#[derive(Debug, Serialize)]
struct System {
    /// When the parts were asked.
    at: String,
    matcher: Matchers,
    lobby: Option<Counts>,
    queue: Option<Queue>,
    chats: Option<Chats>,
    gateways: Option<List<Gateway>>,
    histories: Option<Vec<Incarnation>>,
    histories_left_out: usize,
    feeds: Option<List<Feed>>,
}

#[derive(Debug, Serialize)]
struct Matchers {
    leader: Option<Incarnation>,
    epoch: Option<u64>,
    since: Option<Box<str>>,
    standbys: Vec<Incarnation>,
    /// Of the standbys.
    left_out: usize,
}

#[derive(Debug, Serialize)]
struct Counts {
    teachers: u64,
    waiting: u64,
    chatting: u64,
    finished: u64,
}

#[derive(Debug, Serialize)]
struct Queue {
    first: Vec<Waiting>,
    left_out: u64,
}

#[derive(Debug, Serialize)]
struct Chats {
    newest: Vec<Talk>,
    left_out: u64,
}

#[derive(Debug, Serialize)]
struct List<T> {
    /// By name.
    all: Vec<T>,
    left_out: usize,
}

/// Null is what only the gateway knows that does not answer.
#[derive(Debug, Serialize)]
struct Gateway {
    name: Incarnation,
    version: String,
    connections: u64,
    draining: Option<bool>,
    since: String,
    joins: Option<u64>,
    messages: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Feed {
    name: FeedId,
    owner: Incarnation,
    polls: u64,
    failed: u64,
    stale: Option<Stale>,
}

/// The first of a list, as many as may be and have room; the number of others.
fn cut<T: Serialize>(list: impl IntoIterator<Item = T>, most: usize, bytes: usize) -> (Vec<T>, usize) {
    let (mut first, mut left_out, mut room) = (Vec::new(), 0, bytes);
    for item in list {
        let size = encode(&item).len() + 1;
        if left_out == 0 && first.len() < most && size <= room {
            room -= size;
            first.push(item);
        } else {
            left_out += 1;
        }
    }
    (first, left_out)
}

impl<T: Serialize> List<T> {
    fn of(all: impl IntoIterator<Item = T>, most: usize) -> List<T> {
        let (all, left_out) = cut(all, most, OPERATOR_LIST_BYTES_MAX);
        List { all, left_out }
    }
}

impl Matchers {
    fn of(lobby: Option<&LobbyInside>, standbys: BTreeSet<Incarnation>) -> Matchers {
        let (standbys, left_out) = cut(standbys, OPERATOR_NAMES_MAX, OPERATOR_NAMES_BYTES_MAX);
        Matchers {
            leader: lobby.map(|lobby| lobby.leader.clone()),
            epoch: lobby.map(|lobby| lobby.status.epoch),
            since: lobby.map(|lobby| lobby.since.clone()),
            standbys,
            left_out,
        }
    }
}

impl Counts {
    fn of(&Status { teachers, waiting, chatting, finished, .. }: &Status) -> Counts {
        Counts { teachers, waiting, chatting, finished }
    }
}

impl Queue {
    fn of(lobby: &LobbyInside) -> Queue {
        let (first, _) = cut(lobby.queue.clone(), OPERATOR_QUEUE_MAX, OPERATOR_LIST_BYTES_MAX);
        let left_out = lobby.status.waiting.saturating_sub(first.len() as u64);
        Queue { first, left_out }
    }
}

impl Chats {
    fn of(lobby: &LobbyInside) -> Chats {
        let (newest, _) = cut(lobby.chats.clone(), OPERATOR_CHATS_MAX, OPERATOR_LIST_BYTES_MAX);
        let left_out = lobby.status.chatting.saturating_sub(newest.len() as u64);
        Chats { newest, left_out }
    }
}

impl List<Gateway> {
    fn of_gateways(mut records: Vec<GatewayRecord>, answers: &BTreeMap<Incarnation, GatewayInside>) -> Self {
        records.sort_by(|a, b| a.gateway.cmp(&b.gateway));
        let gateway = |record: GatewayRecord| {
            let now = answers.get(&record.gateway);
            Gateway {
                connections: now.map_or(record.connections, |now| now.connections),
                draining: now.map(|now| now.draining),
                joins: now.map(|now| now.joins),
                messages: now.map(|now| now.messages),
                name: record.gateway,
                version: record.version,
                since: record.since,
            }
        };
        List::of(records.into_iter().map(gateway), OPERATOR_GATEWAYS_MAX)
    }
}

impl List<Feed> {
    /// `beyond`: how many more there are, whose records were not read.
    fn of_feeds(mut records: Vec<FeedRecord>, beyond: usize) -> Self {
        records.sort_by(|a, b| a.feed.cmp(&b.feed));
        let feed = |FeedRecord { feed, owner, polled, stale, .. }: FeedRecord| {
            let polled = polled.unwrap_or_default();
            Feed { name: feed, owner, polls: polled.polls, failed: polled.failed, stale }
        };
        let mut list = List::of(records.into_iter().map(feed), OPERATOR_FEEDS_MAX);
        list.left_out += beyond;
        list
    }
}

/// What can be seen of the system now.
pub(crate) async fn look(nats: &Nats, questions: &Questions) -> Bytes {
    let at = timestamp(SystemTime::now());
    let (lobby, standbys, gateways, known) =
        tokio::join!(lobby(nats), standbys(nats), gateways(nats), known(nats, questions));
    let (histories, feeds) = known;
    let histories = histories.map(|names| cut(names, OPERATOR_NAMES_MAX, OPERATOR_NAMES_BYTES_MAX));
    encode(&System {
        at,
        matcher: Matchers::of(lobby.as_ref(), standbys),
        lobby: lobby.as_ref().map(|lobby| Counts::of(&lobby.status)),
        queue: lobby.as_ref().map(Queue::of),
        chats: lobby.as_ref().map(Chats::of),
        gateways,
        histories_left_out: histories.as_ref().map_or(0, |(_, left_out)| *left_out),
        histories: histories.map(|(names, _)| names),
        feeds,
    })
}

async fn lobby(nats: &Nats) -> Option<LobbyInside> {
    let answer = nats.request(MatcherVerb::Look.subject(), Bytes::new(), OPERATOR_WAIT).await.ok()?;
    decode("lobby_inside", &answer.payload).ok()
}

/// Nobody knows how many there are, so they have all of the time.
async fn standbys(nats: &Nats) -> BTreeSet<Incarnation> {
    #[derive(Deserialize)]
    struct Pong {
        metadata: BTreeMap<String, Incarnation>,
    }
    let mut standbys = BTreeSet::new();
    let gathering = async {
        let answers = ask_all(nats, MATCHER_STANDBY_PING).await?;
        let names = answers.filter_map(|answer| {
            let pong = serde_json::from_slice::<Pong>(&answer).ok();
            ready(pong.and_then(|mut pong| pong.metadata.remove(MATCHER_STANDBY_NAME)))
        });
        let mut names = names.take(STANDBYS_MAX);
        while let Some(name) = names.next().await {
            standbys.insert(name);
        }
        anyhow::Ok(())
    };
    // Without NATS there are none.
    let _ = timeout(OPERATOR_WAIT, gathering).await;
    standbys
}

/// Those with a record; what each says itself, if it does.
async fn gateways(nats: &Nats) -> Option<List<Gateway>> {
    let until = Instant::now() + OPERATOR_WAIT;
    let records = timeout_at(until, records::gateways(nats)).await.ok()?.ok()?;
    let mut silent: BTreeSet<&Incarnation> = records.iter().map(|record| &record.gateway).collect();
    let mut answers = BTreeMap::new();
    let gathering = async {
        let mut all = ask_all(nats, GATEWAYS_LOOK).await?;
        while !silent.is_empty()
            && let Some(answer) = all.next().await
        {
            if let Ok(now) = decode::<GatewayInside>("gateway_inside", &answer)
                && silent.remove(&now.gateway)
            {
                answers.insert(now.gateway.clone(), now);
            }
        }
        anyhow::Ok(())
    };
    // Who has not answered by then is shown as its record has it.
    let _ = timeout_at(until, gathering).await;
    Some(List::of_gateways(records, &answers))
}

/// The history replicas, and the feeds.
async fn known(nats: &Nats, questions: &Questions) -> (Option<Vec<Incarnation>>, Option<List<Feed>>) {
    let until = Instant::now() + OPERATOR_WAIT;
    let Ok(Some(Known { histories, feeds, count })) = timeout_at(until, questions.ask()).await else {
        return (None, None);
    };
    let read = timeout_at(until, records::feeds(nats, &feeds)).await;
    let beyond = count.saturating_sub(feeds.len());
    (Some(histories), read.ok().and_then(Result::ok).map(|records| List::of_feeds(records, beyond)))
}

#[cfg(test)]
#[path = "inside_tests.rs"]
mod tests;
