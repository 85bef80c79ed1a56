//! What the keeper of rooms wants done, done: requests to NATS, each with its outcome. Every write is a compare and
//! set, so that a holder of the lease that was paused, and a joiner, cannot undo each other.

use std::time::SystemTime;

use async_nats::HeaderMap;
use bytes::Bytes;
use serde_json::value::RawValue;
use switchboard_contract::ack::Outcome;
use switchboard_contract::limits::{REQUEST_TIMEOUT, ROOM_PROBE_TIMEOUT};
use switchboard_contract::log::Entry;
use switchboard_contract::names::{LogName, ROOMS_STREAM, RoomId, room_expiry_id};
use switchboard_contract::nats::{Nats, RequestError};
use switchboard_contract::room::{Change, Phase, RoomEvent, RoomRecord, RoomState};
use switchboard_contract::wire::{V1, decode, encode, timestamp};

use crate::keeper::Came;
use crate::tail::raw_json;

/// One errand for a room.
#[derive(Debug)]
pub(crate) enum Errand {
    /// `applied`: the stream is known up to here.
    Snapshot {
        since: u64,
        seq: u64,
        state: RoomState,
        applied: u64,
    },
    Expire {
        since: u64,
        at: u64,
    },
    Probe,
    Close {
        since: u64,
    },
    Wipe {
        last_seq: u64,
    },
    Delete,
}

impl Errand {
    pub(crate) async fn run(self, nats: &Nats, room: &RoomId) -> Came {
        let came = match self {
            Errand::Probe => return probe(nats, room).await,
            Errand::Snapshot { since, seq, state, applied } => snapshot(nats, room, (since, seq), state, applied).await,
            Errand::Expire { since, at } => Ok(expire(nats, room, since, at).await),
            Errand::Close { since } => close(nats, room, since).await,
            Errand::Wipe { last_seq } => Ok(wipe(nats, room, last_seq).await),
            Errand::Delete => delete(nats, room).await,
        };
        came.unwrap_or_else(|error| {
            tracing::debug!(%room, error = format!("{error:#}"), "an errand failed");
            Came::Failed
        })
    }
}

fn came(outcome: Outcome) -> Came {
    match outcome {
        Outcome::Committed { .. } => Came::Done,
        Outcome::Fenced => Came::Refused,
        Outcome::Unknown => Came::Failed,
    }
}

/// Whoever is there does not answer; if nobody is, the server says so at once.
async fn probe(nats: &Nats, room: &RoomId) -> Came {
    let subject = LogName::Room(room.clone()).out_subject();
    match nats.request(subject, Bytes::new(), ROOM_PROBE_TIMEOUT).await {
        Err(RequestError::NoResponders) => Came::Done,
        Ok(_) | Err(RequestError::Timeout) => Came::Somebody,
        Err(RequestError::Down) => Came::Failed,
    }
}

/// Two joiners may both begin a life: the second sees the first one's entry, but no record yet, and writes a record that
/// begins with its own entry. As the log has no tombstone between them, that is this life, and the record is put right.
async fn snapshot(
    nats: &Nats,
    room: &RoomId,
    (since, seq): (u64, u64),
    state: RoomState,
    applied: u64,
) -> anyhow::Result<Came> {
    let (revision, before) = crate::records::get_room(nats, room).await?;
    let phase = match before {
        // A life that has not come by here yet.
        Some(before) if before.since > applied => return Ok(Came::Failed),
        Some(before) if before.since == since && before.seq >= seq => return Ok(Came::Done),
        Some(before) if before.since >= since => before.phase,
        Some(_) | None => Phase::Open,
    };
    let record = RoomRecord { v: V1, since, phase, seq, state };
    Ok(came(crate::records::put_room(nats, room, revision, Some(&record)).await))
}

async fn close(nats: &Nats, room: &RoomId, since: u64) -> anyhow::Result<Came> {
    let (revision, record) = crate::records::get_room(nats, room).await?;
    let Some(record) = record.filter(|record| record.since == since) else { return Ok(Came::Refused) };
    let record = RoomRecord { phase: Phase::Closing, ..record };
    Ok(came(crate::records::put_room(nats, room, revision, Some(&record)).await))
}

async fn wipe(nats: &Nats, room: &RoomId, last_seq: u64) -> Came {
    let log = LogName::Room(room.clone()).log_subject();
    let entry = entry(RoomEvent::Tombstone, &Change::default(), "tombstone");
    came(nats.write(log, last_seq, HeaderMap::new(), entry, REQUEST_TIMEOUT).await)
}

/// Two holders of the lease write the same entry, and the stream stores it once.
async fn expire(nats: &Nats, room: &RoomId, since: u64, at: u64) -> Came {
    let log = LogName::Room(room.clone()).log_subject();
    let headers = switchboard_contract::nats::header("Nats-Msg-Id", &room_expiry_id(room, since, at));
    let entry = entry(RoomEvent::State, &Change { expired: Some(at), ..Change::default() }, "expired");
    match nats.request_with(log, Some(headers), entry, REQUEST_TIMEOUT).await {
        Ok(answer) => came(nats.refusals.read(&answer.payload)),
        Err(_) => Came::Failed,
    }
}

/// The log's end says whether the room has no life: a tombstone, or nothing at all.
async fn delete(nats: &Nats, room: &RoomId) -> anyhow::Result<Came> {
    let log = LogName::Room(room.clone()).log_subject();
    let end = nats.leader_get(ROOMS_STREAM, &log, REQUEST_TIMEOUT).await?;
    let ended = match &end {
        Some(end) => {
            let body = end.body.clone().unwrap_or_default();
            let entry: Option<Entry<'_>> = decode("entry", &body).ok();
            entry.is_some_and(|entry| RoomEvent::parse(&entry.event) == Some(RoomEvent::Tombstone))
        }
        None => true,
    };
    let (revision, record) = crate::records::get_room(nats, room).await?;
    match record {
        None => Ok(Came::Done),
        Some(record) if !ended || end.is_some_and(|end| end.seq < record.since) => Ok(Came::Refused),
        Some(_) => Ok(came(crate::records::put_room(nats, room, revision, None).await)),
    }
}

fn entry(event: RoomEvent, change: &Change<'_>, id: &str) -> Bytes {
    let payload: Box<RawValue> = raw_json(change);
    encode(&Entry {
        v: V1,
        event: event.as_str().into(),
        payload: &payload,
        from: None,
        rank: None,
        id: id.into(),
        at: timestamp(SystemTime::now()).into(),
    })
}
