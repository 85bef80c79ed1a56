//! Reads and writes logs, and reads a chat's record.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use switchboard_contract::limits;
use switchboard_contract::lobby::ChatRecord;
use switchboard_contract::log::{Message, Read, ReadReply};
use switchboard_contract::names::{self, ChatId, LobbyKey, LogName};
use switchboard_contract::nats::{Nats, RequestError, header};
use switchboard_contract::reason::Reason;
use switchboard_contract::wire;
use tokio::time::{Duration, Instant};

use crate::chat::Loaded;
use crate::mailbox::Outcome;
use crate::payload::{HistoryParams, Refusal};

/// How long to wait before something that failed is tried again.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

pub(crate) fn history_read(log: LogName, params: HistoryParams) -> Read {
    let HistoryParams { before, after, limit } = params;
    Read { fresh: true, after, before, limit, ..Read::of(log) }
}

/// Reads a chat's record and its log, side by side; tried again until the caller's deadline.
pub(crate) async fn load(nats: &Nats, chat: ChatId, last_seq: Option<u64>) -> Result<Loaded, Refusal> {
    let read = history_read(LogName::Chat(chat.clone()), HistoryParams::default());
    let (record, mut log) = tokio::join!(read_record(nats, chat), read_log(nats, &read));
    let mut replay = Vec::new();
    if let Some(last_seq) = last_seq.filter(|last_seq| *last_seq < log.said) {
        let lost_to = read_on(nats, read, last_seq, log.last_seq, |message| {
            if let Some(role) = message.from.as_ref().and_then(|from| from.role) {
                replay.push((message.seq, role, message.payload.to_owned()));
            }
        })
        .await?;
        log.dropped_to = log.dropped_to.max(lost_to);
    }
    Ok(Loaded { record: record?, log, replay })
}

/// Reads what a log has behind `after`, page by page, up to `reach` at least: that is what an earlier reply had, perhaps
/// of another replica. Up to where that was dropped before it could be read; 0: nothing.
pub(crate) async fn read_on(
    nats: &Nats,
    read: Read,
    after: u64,
    reach: u64,
    mut take: impl FnMut(&Message<'_>),
) -> Result<u64, Refusal> {
    let mut page = Read { after: Some(after), reach, limit: None, oldest_first: true, ..read };
    let mut lost_to = 0;
    loop {
        let reply = read_log(nats, &page).await;
        if page.after.is_some_and(|after| reply.dropped_to > after) {
            lost_to = reply.dropped_to;
        }
        let messages = messages(&reply).ok_or(Reason::Unavailable)?;
        messages.iter().for_each(&mut take);
        match messages.last() {
            Some(last) if !reply.complete => page.after = Some(last.seq),
            Some(_) | None => return Ok(lost_to),
        }
    }
}

/// The answer to `history`, as JSON.
pub(crate) fn history_json(reply: &ReadReply) -> String {
    format!(r#"{{"messages":{},"complete":{}}}"#, reply.messages.get(), reply.complete)
}

/// The messages of a page; `None` if it is not understood.
fn messages(reply: &ReadReply) -> Option<Vec<Message<'_>>> {
    serde_json::from_str(reply.messages.get())
        .inspect_err(|error| tracing::warn!(%error, "a page of the history was not understood"))
        .ok()
}

/// Whether the entry of this sequence in a room's log counts, as history has it: `ok`, or refused with `void`.
pub(crate) async fn judge(nats: &Nats, log: LogName, seq: u64, void: Reason) -> Outcome {
    let params = HistoryParams { limit: Some(1), ..HistoryParams::default() };
    match read_log(nats, &Read { judge: Some(seq), ..history_read(log, params) }).await.void {
        Some(false) => Outcome::Ok(format!("{{\"seq\":{seq}}}").into()),
        Some(true) => Outcome::Refused(void.into()),
        None => Outcome::Refused(Reason::Unavailable.into()),
    }
}

/// # Errors
/// `unavailable` if it is not understood: it is there, and another service may understand it.
async fn read_record(nats: &Nats, chat: ChatId) -> Result<Option<ChatRecord>, Reason> {
    let stream = names::bucket_stream(names::LOBBY_BUCKET);
    let subject = LobbyKey::Chat(chat).subject();
    loop {
        match nats.leader_get(&stream, &subject, limits::READ_TIMEOUT).await {
            Ok(stored) => {
                let Some(body) = stored.and_then(|stored| stored.body) else { return Ok(None) };
                return wire::decode("chat", &body).map(Some).map_err(|error| {
                    tracing::warn!(%error, "a chat's record");
                    Reason::Unavailable
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a chat's record could not be read yet");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// What a stream of several replicas says of a message whose id an earlier one has that is being replicated.
const DUPLICATE_IN_PROCESS: u64 = 10158;

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
        error: Option<ApiError>,
    }
    #[derive(Deserialize)]
    struct ApiError {
        #[serde(default)]
        err_code: u64,
        #[serde(default)]
        description: String,
    }
    let deadline = Instant::now() + limits::LOG_ACK_TIMEOUT;
    loop {
        let headers = message_id.as_deref().map(|id| header("Nats-Msg-Id", id));
        let left = deadline.saturating_duration_since(Instant::now());
        match nats.request_with(subject.clone(), headers, entry.clone(), left).await {
            Ok(reply) => {
                match serde_json::from_slice(&reply.payload) {
                    Ok(Ack { seq, duplicate, error: None }) => return Ok((seq, duplicate)),
                    // The same message was sent before, and nobody knows yet what becomes of that.
                    Ok(Ack { error: Some(ApiError { err_code: DUPLICATE_IN_PROCESS, .. }), .. }) if !left.is_zero() => {
                        tokio::time::sleep(PAUSE.min(left)).await;
                    }
                    Ok(Ack { error: Some(ApiError { err_code, description }), .. }) => {
                        nats.refusals.refused(err_code, &description);
                        return Err(());
                    }
                    Err(error) => {
                        tracing::warn!(%error, "an acknowledgement was not understood");
                        return Err(());
                    }
                }
            }
            // Not stored: the stream has no leader just now. Tried again within the deadline.
            Err(RequestError::NoResponders) => tokio::time::sleep(PAUSE).await,
            Err(RequestError::Down | RequestError::Timeout) => return Err(()),
        }
    }
}

/// Reads a log; tried again until the caller's deadline. One replica is asked first, and then all of them: NATS goes on
/// giving requests to one that is paused, or cut off.
pub(crate) async fn read_log(nats: &Nats, read: &Read) -> ReadReply {
    let first = ask(nats, names::HISTORY_READ, read, "read reply", limits::READ_FIRST_TIMEOUT).await;
    if let Some(reply) = first {
        return reply;
    }
    loop {
        if let Some(reply) = ask(nats, names::HISTORY_READ_ALL, read, "read reply", limits::READ_TIMEOUT).await {
            return reply;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks any replica of history, once; `kind` names its answer where it is not understood. A replica that is paused may
/// have got the question, and answers nothing.
pub(crate) async fn ask<A: DeserializeOwned>(
    nats: &Nats,
    subject: &'static str,
    question: &impl Serialize,
    kind: &'static str,
    timeout: Duration,
) -> Option<A> {
    match nats.request(subject.to_owned(), wire::encode(question), timeout).await {
        Ok(reply) => {
            wire::decode(kind, &reply.payload).inspect_err(|error| tracing::warn!(%error, "from history")).ok()
        }
        Err(error) => {
            tracing::debug!(%error, subject, "history did not answer");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures_util::StreamExt as _;
    use serde_json::value::RawValue;
    use switchboard_contract::names::Incarnation;
    use switchboard_contract::testing::NatsServer;

    use super::*;

    #[tokio::test]
    async fn each_page_has_to_reach_what_was_answered_before() {
        let Some(server) = NatsServer::start().await else { return };
        let history = server.client().await;
        let mut asked = history.subscribe(names::HISTORY_READ).await.expect("a subscription");
        history.flush().await.expect("the server has it");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let answering = tokio::spawn({
            let seen = seen.clone();
            async move {
                while let Some(request) = asked.next().await {
                    let read: Read = wire::decode("read", &request.payload).expect("a read");
                    let seq = read.after.unwrap_or(0) + 1;
                    seen.lock().expect("not poisoned").push((read.fresh, read.reach, seq));
                    let message = format!(r#"[{{"seq":{seq},"id":"i","at":"","event":"e","payload":{{}}}}]"#);
                    let messages = RawValue::from_string(message).expect("JSON");
                    let reply = ReadReply { last_seq: 9, messages, complete: seq == 9, ..ReadReply::default() };
                    history
                        .publish(request.reply.expect("it wants an answer"), wire::encode(&reply))
                        .await
                        .expect("up");
                }
            }
        });
        let nats = Nats::connect(&server.common_args(), "test", &Incarnation::new()).await.expect("a connection");
        let read = history_read(LogName::Chat(ChatId::new("a-1").expect("an id")), HistoryParams::default());
        let mut taken = Vec::new();
        let lost_to = read_on(&nats, read, 6, 9, |message| taken.push(message.seq)).await;
        assert_eq!((lost_to, taken), (Ok(0), vec![7, 8, 9]));
        assert_eq!(*seen.lock().expect("not poisoned"), [(true, 9, 7), (true, 9, 8), (true, 9, 9)]);
        answering.abort();
    }
}
