//! What a topic has missed of its log: asked of history, then of the stream.

use switchboard_contract::limits;
use switchboard_contract::log::{Behind, Entry, Message, Position, Read, ReadReply, Seen};
use switchboard_contract::names::{self, LogName, ROOMS_STREAM};
use switchboard_contract::nats::Nats;
use switchboard_contract::wire::{self, V1};
use tokio::time::timeout;
use tracing::field::display;

use crate::log::{PAUSE, read_log};
use crate::topic::{How, Kind, Part};

/// Fetches what a log has behind `after`, up to `to` at least.
pub(crate) async fn fetch<K: Kind>(nats: &Nats, log: LogName, after: u64, to: u64) -> (How, Option<Part<K::Fact>>) {
    let history = timeout(limits::REPAIR_HISTORY_TIMEOUT, from_history::<K>(nats, &log, after, to)).await;
    if let Ok(Some(part)) = history {
        return (How::History, Some(part));
    }
    let stream = timeout(limits::REPAIR_STREAM_TIMEOUT, from_stream::<K>(nats, &log, after, to)).await;
    match stream {
        Ok(Some(part)) => (How::Stream, Some(part)),
        Ok(None) | Err(_) => {
            let (chat, room) = (log.chat().map(display), log.room().map(display));
            tracing::warn!(chat, room, after, to, "entries that were missed cannot be had");
            (How::Shown, None)
        }
    }
}

/// What history has is good enough if it reaches far enough; only else it has to ask the stream first.
async fn from_history<K: Kind>(nats: &Nats, log: &LogName, after: u64, to: u64) -> Option<Part<K::Fact>> {
    for fresh in [false, true] {
        let mut pages = Pages::<K> { after, to, at: after, entries: Vec::new() };
        loop {
            let after = Some(pages.at);
            let read = Read { fresh, after, oldest_first: true, states: true, ..Read::of(log.clone()) };
            match pages.add(&read_log(nats, &read).await) {
                Next::Ask => {}
                Next::Done(part) => return Some(part),
                Next::Useless => break,
            }
        }
    }
    None
}

/// Pages of history, being put together.
struct Pages<K: Kind> {
    after: u64,
    to: u64,
    at: u64,
    entries: Vec<(u64, K::Fact)>,
}

#[derive(Debug, PartialEq)]
enum Next<T> {
    Ask,
    Done(Part<T>),
    /// It has not all of it.
    Useless,
}

impl<K: Kind> Pages<K> {
    fn add(&mut self, reply: &ReadReply) -> Next<K::Fact> {
        if reply.dropped_to > self.at || reply.last_seq < self.to {
            return Next::Useless;
        }
        let Ok(messages) = serde_json::from_str::<Vec<Message<'_>>>(reply.messages.get()) else {
            return Next::Useless;
        };
        for message in &messages {
            self.at = message.seq;
            self.entries.push((message.seq, K::of_message(message)));
        }
        if !reply.complete {
            // An empty page that is not the last one leads nowhere.
            let more = !messages.is_empty() && self.entries.len() < limits::REPAIR_ENTRIES_MAX;
            return if more { Next::Ask } else { Next::Useless };
        }
        let mut entries = std::mem::take(&mut self.entries);
        K::beside(reply, self.after, &mut entries);
        Next::Done(Part { entries, to: reply.last_seq })
    }
}

/// What the stream has of a log behind `after`, and behind `to` if there is more.
pub(crate) async fn from_stream<K: Kind>(nats: &Nats, log: &LogName, after: u64, to: u64) -> Option<Part<K::Fact>> {
    let subject = log.log_subject();
    let mut part = Part { entries: Vec::new(), to };
    let mut from = after + 1;
    while part.entries.len() < limits::REPAIR_ENTRIES_MAX {
        match nats.leader_next(ROOMS_STREAM, &subject, from, limits::REPAIR_STREAM_TIMEOUT).await {
            Ok(Some(stored)) => {
                let entry = stored.body.as_deref().and_then(entry);
                let fact = entry.map(|entry| K::of_entry(stored.seq, &entry)).unwrap_or_default();
                part.entries.push((stored.seq, fact));
                from = stored.seq + 1;
                part.to = part.to.max(stored.seq);
            }
            Ok(None) => return Some(part),
            Err(error) => {
                tracing::debug!(%error, "the stream could not be read yet");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    None
}

/// An entry of a log; `None` if it is not understood.
pub(crate) fn entry(json: &[u8]) -> Option<Entry<'_>> {
    wire::decode("entry", json).inspect_err(|error| tracing::warn!(%error, "in a log")).ok()
}

/// Asks history which of these logs have more, and tells: whether all of it was answered.
pub(crate) async fn behind(nats: &Nats, seen: &[Position], tell: impl Fn(&[Position])) -> bool {
    for logs in seen.chunks(limits::BEHIND_LOGS_MAX) {
        let asked = wire::encode(&Seen { v: V1, logs: logs.to_vec() });
        match nats.request(names::HISTORY_BEHIND.to_owned(), asked, limits::REQUEST_TIMEOUT).await {
            Ok(reply) => match wire::decode::<Behind>("behind", &reply.payload) {
                Ok(behind) => tell(&behind.logs),
                Err(error) => {
                    tracing::warn!(%error, "from history");
                    return false;
                }
            },
            Err(error) => {
                tracing::debug!(%error, "history did not say what is behind");
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;
    use switchboard_contract::lobby::{ChatEnd, Role};

    use super::*;
    use crate::chat::{ChatKind, Fact};

    fn reply(last_seq: u64, seqs: &[u64]) -> ReadReply {
        let message = |seq: &u64| {
            let from = r#""from":{"role":"student","user_id":1}"#;
            format!(r#"{{"seq":{seq},"id":"i","at":"","event":"student:send","payload":{{}},{from}}}"#)
        };
        let messages = format!("[{}]", seqs.iter().map(message).collect::<Vec<_>>().join(","));
        ReadReply { last_seq, messages: RawValue::from_string(messages).expect("JSON"), ..ReadReply::default() }
    }

    fn said(seq: u64) -> (u64, Fact) {
        (seq, Fact::Said(Role::Student, format!("{{\"seq\":{seq}}}").into()))
    }

    fn pages() -> Pages<ChatKind> {
        Pages { after: 5, to: 9, at: 5, entries: Vec::new() }
    }

    #[test]
    fn pages_of_history_make_one_part_with_what_is_no_message() {
        let mut pages = pages();
        assert_eq!(pages.add(&ReadReply { complete: false, ..reply(9, &[6]) }), Next::Ask);
        assert_eq!(pages.at, 6);
        let last = ReadReply { ready: Some(7), end: Some((10, ChatEnd::Terminated)), ..reply(11, &[8]) };
        let entries = vec![said(6), (7, Fact::Ready), said(8), (10, Fact::End(ChatEnd::Terminated))];
        assert_eq!(pages.add(&last), Next::Done(Part { entries, to: 11 }));
    }

    #[test]
    fn what_stands_before_the_gap_is_not_told_again() {
        let known = ReadReply { ready: Some(5), ..reply(9, &[]) };
        assert_eq!(pages().add(&known), Next::Done(Part { entries: vec![], to: 9 }));
    }

    #[test]
    fn history_that_has_not_all_of_it_is_of_no_use() {
        for useless in [
            ReadReply { dropped_to: 6, ..reply(9, &[7]) },
            reply(8, &[7]),
            reply(0, &[]),
            ReadReply { complete: false, ..reply(9, &[]) },
        ] {
            assert_eq!(pages().add(&useless), Next::Useless);
        }
    }
}
