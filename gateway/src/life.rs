//! The life of a room, as a joiner's gateway sees to it: the room's record, and the log that decides.
//!
//! A room lives while its log has a `room:state` behind which no tombstone stands. A joiner reads record and log side by
//! side, makes what is missing, each write expecting what was read, and reads again: the log's order decides who was
//! first.

use std::pin::pin;
use std::time::SystemTime;

use async_nats::HeaderMap;
use bytes::Bytes;
use serde_json::value::RawValue;
use switchboard_contract::ack::Outcome;
use switchboard_contract::limits;
use switchboard_contract::log::{Entry, Message, Read, ReadReply};
use switchboard_contract::names::{self, LogName, ROOMS_STREAM, RoomId};
use switchboard_contract::nats::{Nats, RequestError, header};
use switchboard_contract::reason::Reason;
use switchboard_contract::room::{Phase, RoomEvent, RoomRecord, RoomState, RoomView};
use switchboard_contract::wire::{self, V1};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::log::{PAUSE, history_read, read_log, read_on};
use crate::observe;
use crate::payload::{HistoryParams, Refusal};
use crate::repair;
use crate::room::{Fact, Loaded, no_room};
use crate::topic::How;

/// The record of a room: its revision, or that of its deletion; 0 if there never was one.
struct Record {
    revision: u64,
    value: Option<RoomRecord>,
}

/// What is known of a room's log.
struct Sight {
    last_seq: u64,
    /// Where the room's life began; 0: it has none. `None`: whoever was asked does not know.
    since: Option<u64>,
    /// What history says; `None`: it does not answer.
    reply: Option<ReadReply>,
}

/// What a joiner has to do next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// It can join.
    Serve,
    /// Begin the room's life in the log, and write its record.
    Begin,
    /// Open the record, and say so in the log, so that whoever wipes the room gives up.
    Reopen,
    /// Write the record of a life that somebody else has begun.
    Record(u64),
}

fn next(record: Option<&RoomRecord>, since: Option<u64>) -> Next {
    match (record.map(|record| record.phase), since) {
        (_, Some(0)) | (None, None) => Next::Begin,
        (None, Some(since)) => Next::Record(since),
        (Some(Phase::Closing), _) => Next::Reopen,
        (Some(Phase::Open), _) => Next::Serve,
    }
}

/// Reads what a join needs; tried again until the caller's deadline.
pub(crate) async fn load(nats: &Nats, room: &RoomId, last_seq: Option<u64>) -> Result<Loaded, Refusal> {
    let log = LogName::Room(room.clone());
    // History may name a last entry that the stream has dropped meanwhile.
    let mut refused_at = None;
    loop {
        let (record, mut sight) = tokio::join!(read_record(nats, room), look(nats, &log, last_seq));
        let record = record?;
        if refused_at == Some(sight.last_seq) {
            sight.last_seq = last_entry(nats, &log).await.0;
        }
        let done = match next(record.value.as_ref(), sight.since) {
            Next::Serve => {
                let record = record.value.unwrap_or_else(|| fresh_record(0));
                return serve(nats, log, record, sight, last_seq).await;
            }
            Next::Begin => match first_entry(nats, &log, sight.last_seq).await {
                Outcome::Committed { seq } => write_record(nats, room, record.revision, &fresh_record(seq)).await,
                other @ (Outcome::Fenced | Outcome::Unknown) => other,
            },
            Next::Record(since) => write_record(nats, room, record.revision, &fresh_record(since)).await,
            Next::Reopen => {
                let value = record.value.unwrap_or_else(|| fresh_record(0));
                let open = RoomRecord { phase: Phase::Open, ..value };
                match write_record(nats, room, record.revision, &open).await {
                    Outcome::Committed { .. } => first_entry(nats, &log, sight.last_seq).await,
                    other @ (Outcome::Fenced | Outcome::Unknown) => other,
                }
            }
        };
        match done {
            Outcome::Committed { .. } => {}
            Outcome::Fenced => refused_at = Some(sight.last_seq),
            Outcome::Unknown => sleep(PAUSE).await,
        }
    }
}

/// A room that lives.
pub(crate) struct Standing {
    /// Where its life began.
    pub(crate) since: u64,
    /// Its log's last entry; 0: the stream has none any more.
    last_seq: u64,
}

/// Whether a room lives: it has a record, `closing` or not, and its log does not end with a tombstone. `None`: it does
/// not. Tried again until the caller's deadline.
///
/// # Errors
/// As [`read_record`].
pub(crate) async fn standing(nats: &Nats, room: &RoomId) -> Result<Option<Standing>, Reason> {
    let log = LogName::Room(room.clone());
    let (record, (last_seq, over)) = tokio::join!(read_record(nats, room), last_entry(nats, &log));
    Ok(record?.value.filter(|_| !over).map(|record| Standing { since: record.since, last_seq }))
}

/// Stores an entry that nobody in the room has written, if the room lives; whether it does. Tried again until the
/// caller's deadline: `message_id` makes, of where the life began, the id under which it is stored once.
///
/// A member's message needs no check, because whoever wipes a room asks first whether somebody is there. Here nobody
/// may be. An entry behind a tombstone would be kept by history, which judges what has no `room:state` before it by an
/// empty state, and shown to whoever asks; it would also keep the record from being deleted, because the log's end is
/// no tombstone then; so the room would seem to live, and take further entries. (It would not come back to life: only a
/// `room:state` begins one, and no caller can write that.) So the write expects the entry that was found at the log's
/// end, and the stream decides: it comes before a tombstone, which is refused then, and the room lives on for a while,
/// also where its record is `closing`; or behind one, and is refused.
///
/// Members' messages may be first as well; then it looks again. The room's life may have ended meanwhile, and another
/// begun: its members get it.
///
/// # Errors
/// As [`read_record`].
pub(crate) async fn add(
    nats: &Nats,
    room: &RoomId,
    entry: &Bytes,
    message_id: impl Fn(u64) -> String,
) -> Result<bool, Reason> {
    let subject = LogName::Room(room.clone()).log_subject();
    loop {
        let Some(standing) = standing(nats, room).await? else { return Ok(false) };
        // A write without an answer may be stored: under its id it is not stored again.
        let headers = header("Nats-Msg-Id", &message_id(standing.since));
        match nats.write(subject.clone(), standing.last_seq, headers, entry.clone(), limits::READ_TIMEOUT).await {
            Outcome::Committed { .. } => return Ok(true),
            Outcome::Fenced => {}
            Outcome::Unknown => sleep(PAUSE).await,
        }
    }
}

fn fresh_record(since: u64) -> RoomRecord {
    RoomRecord { v: V1, since, phase: Phase::Open, seq: since, state: RoomState::default() }
}

async fn serve(
    nats: &Nats,
    log: LogName,
    record: RoomRecord,
    sight: Sight,
    asked: Option<u64>,
) -> Result<Loaded, Refusal> {
    let Sight { last_seq, reply, .. } = sight;
    let Some(reply) = reply else {
        // Nobody can say what was missed, unless that is nothing.
        let replay = asked.is_none_or(|asked| asked == last_seq).then(Vec::new);
        let view = RoomView { since: record.since, state: record.state, keywords: Vec::new() };
        return Ok(Loaded { last_seq, dropped_to: 0, view, replay });
    };
    let (mut replay, mut dropped_to) = (Vec::new(), reply.dropped_to);
    if let Some(asked) = asked.filter(|asked| *asked < last_seq) {
        let read = Read { states: true, ..history_read(log, HistoryParams::default()) };
        let take = |message: &Message<'_>| replay.push((message.seq, Fact::kept(message)));
        let lost_to = read_on(nats, read, asked, last_seq, take).await?;
        dropped_to = dropped_to.max(lost_to);
    }
    let view = reply.room.unwrap_or_else(|| RoomView { since: record.since, ..no_room() });
    Ok(Loaded { last_seq, dropped_to, view, replay: Some(replay) })
}

/// The log, as history sees it once it has all of it; or else as the stream has it. Who has `asked` for what stands
/// behind a place, and has missed something, waits longer for history: nobody else can say what that was.
async fn look(nats: &Nats, log: &LogName, asked: Option<u64>) -> Sight {
    let params = HistoryParams { limit: Some(1), ..HistoryParams::default() };
    let read = Read { states: true, ..history_read(log.clone(), params) };
    let start = Instant::now();
    let mut reading = pin!(read_log(nats, &read));
    let mut reply = timeout(limits::REPAIR_HISTORY_TIMEOUT, &mut reading).await.ok();
    let known = |reply: &ReadReply| {
        let since = reply.room.as_ref()?.since;
        Some(Sight { last_seq: reply.last_seq, since: Some(since), reply: Some(reply.clone()) })
    };
    if let Some(sight) = reply.as_ref().and_then(known) {
        return sight;
    }
    // History is away, or knows nothing of the room: it is over, was never there, or was forgotten for want of memory.
    let (last_seq, over) = last_entry(nats, log).await;
    if reply.is_none() && !over && asked.is_some_and(|asked| asked < last_seq) {
        reply = timeout_at(start + limits::REJOIN_HISTORY_TIMEOUT, reading).await.ok();
        if let Some(sight) = reply.as_ref().and_then(known) {
            return sight;
        }
        observe::gap(How::Shown);
        tracing::warn!(room = log.room().map(display), asked, last_seq, "history does not say what a member missed");
    }
    Sight { last_seq, since: over.then_some(0), reply }
}

/// The sequence of the log's last entry, 0 if it has none; and whether it ends the room's life.
async fn last_entry(nats: &Nats, log: &LogName) -> (u64, bool) {
    let subject = log.log_subject();
    match insist(|| nats.leader_get(ROOMS_STREAM, &subject, limits::READ_TIMEOUT)).await {
        Some(stored) => {
            let entry = stored.body.as_deref().and_then(repair::entry);
            let over = entry.is_some_and(|entry| RoomEvent::parse(&entry.event) == Some(RoomEvent::Tombstone));
            (stored.seq, over)
        }
        None => (0, false),
    }
}

/// # Errors
/// `unavailable` if it is not understood: a newer service has written it, and what that means is not known here. It is
/// not taken for none, because then it would be overwritten.
async fn read_record(nats: &Nats, room: &RoomId) -> Result<Record, Reason> {
    let stream = names::bucket_stream(names::ROOMS_BUCKET);
    let subject = names::room_record_subject(room);
    match insist(|| nats.leader_get(&stream, &subject, limits::READ_TIMEOUT)).await {
        Some(stored) => {
            let value = stored.body.map(|body| wire::decode("room_record", &body)).transpose().map_err(|error| {
                tracing::warn!(%room, %error, "a room's record");
                Reason::Unavailable
            })?;
            Ok(Record { revision: stored.seq, value })
        }
        None => Ok(Record { revision: 0, value: None }),
    }
}

/// Asks until there is an answer: the caller has the deadline.
async fn insist<T, F: Future<Output = Result<T, RequestError>>>(ask: impl Fn() -> F) -> T {
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => tracing::debug!(%error, "a room could not be read yet"),
        }
        sleep(PAUSE).await;
    }
}

/// An entry that changes nothing: it begins a life, or goes before whoever wants to end it.
async fn first_entry(nats: &Nats, log: &LogName, expected: u64) -> Outcome {
    let at = wire::timestamp(SystemTime::now());
    let empty: &RawValue = match serde_json::from_str("{}") {
        Ok(empty) => empty,
        Err(error) => unreachable!("an empty object is JSON: {error}"),
    };
    let entry = Entry {
        v: V1,
        event: RoomEvent::State.as_str().into(),
        payload: empty,
        from: None,
        rank: None,
        id: names::random_token(12).into(),
        at: at.into(),
    };
    nats.write(log.log_subject(), expected, HeaderMap::new(), wire::encode(&entry), limits::READ_TIMEOUT).await
}

/// A record drops the one before it, so that a crash of NATS does not bring that back.
async fn write_record(nats: &Nats, room: &RoomId, revision: u64, record: &RoomRecord) -> Outcome {
    let (subject, rollup) = (names::room_record_subject(room), header("Nats-Rollup", "sub"));
    nats.write(subject, revision, rollup, wire::encode(record), limits::READ_TIMEOUT).await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::StreamExt as _;
    use switchboard_contract::names::Incarnation;
    use switchboard_contract::streams;
    use switchboard_contract::testing::NatsServer;

    use super::*;

    #[tokio::test]
    async fn who_has_missed_something_waits_longer_for_history() {
        let Some(server) = NatsServer::start().await else { return };
        let nats = Nats::connect(&server.common_args(), "test", &Incarnation::new()).await.expect("a connection");
        streams::ensure_log(&nats, 1, Duration::from_secs(60)).await.expect("a stream");
        let log = LogName::Room(RoomId::new("tea").expect("an id"));
        let Outcome::Committed { seq } = first_entry(&nats, &log, 0).await else { panic!("not stored") };

        let history = server.client().await;
        let mut asked = history.subscribe(names::HISTORY_READ_ALL).await.expect("a subscription");
        history.flush().await.expect("the server has it");
        for (who, told) in [(None, false), (Some(seq), false), (Some(seq - 1), true)] {
            // The first question's time passes without an answer.
            let answering = async {
                asked.next().await;
                let second = asked.next().await.expect("a question");
                let room = Some(RoomView { since: seq, ..no_room() });
                let reply = ReadReply { last_seq: seq, room, ..ReadReply::default() };
                let to = second.reply.expect("it wants an answer");
                history.publish(to, wire::encode(&reply)).await.expect("up");
                std::future::pending::<()>().await;
            };
            let sight = tokio::select! {
                sight = look(&nats, &log, who) => sight,
                () = answering => unreachable!("it waits for ever"),
            };
            assert_eq!((sight.last_seq, sight.reply.is_some()), (seq, told), "{who:?}");
        }
    }

    #[test]
    fn what_a_joiner_finds_decides_what_it_does() {
        let record = |phase| RoomRecord { phase, ..fresh_record(5) };
        let (open, closing) = (record(Phase::Open), record(Phase::Closing));
        for (record, since, expected) in [
            (None, Some(0), Next::Begin),
            (None, None, Next::Begin),
            (None, Some(5), Next::Record(5)),
            (Some(&open), Some(5), Next::Serve),
            (Some(&open), None, Next::Serve),
            (Some(&open), Some(0), Next::Begin),
            (Some(&closing), Some(5), Next::Reopen),
            (Some(&closing), None, Next::Reopen),
            (Some(&closing), Some(0), Next::Begin),
        ] {
            assert_eq!(next(record, since), expected, "{record:?} {since:?}");
        }
    }
}
