//! Reads and writes a chat's log, and reads its record.

use bytes::Bytes;
use serde::Deserialize;
use switchboard_contract::limits;
use switchboard_contract::lobby::{ChatRecord, Role};
use switchboard_contract::log::{Message, Read, ReadReply};
use switchboard_contract::names::{self, ChatId, LobbyKey, LogName};
use switchboard_contract::nats::{Nats, RequestError, header};
use switchboard_contract::reason::Reason;
use switchboard_contract::wire::{self, V1};
use tokio::time::{Duration, Instant};

use crate::chat::Loaded;
use crate::payload::{HistoryParams, Refusal};

/// How long to wait before something that failed is tried again.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

pub(crate) fn history_read(log: LogName, params: HistoryParams) -> Read {
    let HistoryParams { before, after, limit } = params;
    Read { v: V1, log, fresh: true, after, before, limit, oldest_first: false, states: false }
}

/// Reads a chat's record and its log, side by side; tried again until the caller's deadline.
pub(crate) async fn load(nats: &Nats, chat: ChatId, log: LogName, last_seq: Option<u64>) -> Result<Loaded, Refusal> {
    let read = history_read(log, HistoryParams::default());
    let (record, log) = tokio::join!(read_record(nats, chat), read_log(nats, &read));
    let mut replay = Vec::new();
    if let Some(last_seq) = last_seq.filter(|last_seq| *last_seq < log.said) {
        let mut page = Read { after: Some(last_seq), oldest_first: true, ..read };
        loop {
            let reply = read_log(nats, &page).await;
            let before = replay.len();
            collect(&reply, &mut replay)?;
            if reply.complete || replay.len() == before {
                break;
            }
            page.after = replay.last().map(|(seq, _, _)| *seq);
        }
    }
    Ok(Loaded { record, log, replay })
}

fn collect(reply: &ReadReply, replay: &mut Vec<(u64, Role, Box<serde_json::value::RawValue>)>) -> Result<(), Refusal> {
    let messages: Vec<Message<'_>> = serde_json::from_str(reply.messages.get()).map_err(|error| {
        tracing::warn!(%error, "a page of the history was not understood");
        Reason::Unavailable
    })?;
    for message in messages {
        if let Some(role) = message.from.and_then(|from| from.role) {
            replay.push((message.seq, role, message.payload.to_owned()));
        }
    }
    Ok(())
}

async fn read_record(nats: &Nats, chat: ChatId) -> Option<ChatRecord> {
    let stream = names::bucket_stream(names::LOBBY_BUCKET);
    let subject = LobbyKey::Chat(chat).subject();
    loop {
        match nats.leader_get(&stream, &subject, limits::READ_TIMEOUT).await {
            Ok(stored) => {
                let body = stored.and_then(|stored| stored.body)?;
                return wire::decode("chat record", &body).ok();
            }
            Err(error) => {
                tracing::debug!(%error, "a chat's record could not be read yet");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Stores an entry, within [`limits::LOG_ACK_TIMEOUT`]: its sequence, and whether it had been stored before.
pub(crate) async fn publish(
    nats: &Nats,
    subject: String,
    entry: Bytes,
    message_id: Option<String>,
) -> Result<(u64, bool), ()> {
    #[derive(Deserialize)]
    struct Ack {
        #[serde(default)]
        seq: u64,
        #[serde(default)]
        duplicate: bool,
        error: Option<serde_json::Value>,
    }
    let deadline = Instant::now() + limits::LOG_ACK_TIMEOUT;
    loop {
        let headers = message_id.as_deref().map(|id| header("Nats-Msg-Id", id));
        let left = deadline.saturating_duration_since(Instant::now());
        match nats.request_with(subject.clone(), headers, entry.clone(), left).await {
            Ok(reply) => {
                return match serde_json::from_slice(&reply.payload) {
                    Ok(Ack { seq, duplicate, error: None }) => Ok((seq, duplicate)),
                    Ok(Ack { error: Some(error), .. }) => {
                        tracing::warn!(%error, "the room stream refused a message");
                        Err(())
                    }
                    Err(error) => {
                        tracing::warn!(%error, "an acknowledgement was not understood");
                        Err(())
                    }
                };
            }
            // Not stored: the stream has no leader just now. Tried again within the deadline.
            Err(RequestError::NoResponders) => tokio::time::sleep(PAUSE).await,
            Err(RequestError::Down | RequestError::Timeout) => return Err(()),
        }
    }
}

/// Reads a log; tried again until the caller's deadline.
pub(crate) async fn read_log(nats: &Nats, read: &Read) -> ReadReply {
    loop {
        let reply = nats.request(names::HISTORY_READ.to_owned(), wire::encode(read), limits::READ_TIMEOUT).await;
        match reply.map(|reply| wire::decode("read reply", &reply.payload)) {
            Ok(Ok(reply)) => return reply,
            Ok(Err(error)) => tracing::warn!(%error, "from history"),
            Err(error) => tracing::debug!(%error, "history did not answer"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
