//! What NATS holds when everybody has left: nothing of the lobby and of feeds, and in the log each message once, in the
//! order in which its sender said it, with all that were answered among them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use async_nats::jetstream::{self, consumer::pull::OrderedConfig};
use futures_util::StreamExt as _;
use serde::Deserialize;
use switchboard_contract::lobby::ChatEvent;
use switchboard_contract::log::Entry;
use switchboard_contract::names::{LOG_SUBJECTS, LogName, ROOMS_STREAM};
use switchboard_contract::testing::{NatsServer, eventually};

use crate::harness::{SOON, System};
use crate::traffic::Seen;

/// An entry of the log, as far as it is looked at.
#[derive(Clone, Debug)]
struct Stored {
    log: LogName,
    /// Of what its sender may send again.
    message_id: Option<String>,
    event: String,
    /// `None`: the system.
    from: Option<String>,
    words: Option<Words>,
}

/// What the load says: its `n`th message; in a room that of member `m`, of whom some share an id.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Words {
    m: Option<u16>,
    n: u32,
}

/// How much the log holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Held {
    in_chats: u64,
    in_rooms: u64,
    /// Chats, each of which has ended once.
    chats: u64,
}

/// The whole log, in its order.
async fn log(nats: &NatsServer) -> Vec<Stored> {
    let context = jetstream::new(nats.client().await);
    let stream = context.get_stream(ROOMS_STREAM).await.expect("the stream");
    let entries = usize::try_from(stream.cached_info().state.messages).expect("fewer");
    let all = OrderedConfig { filter_subject: LOG_SUBJECTS.into(), ..OrderedConfig::default() };
    let consumer = stream.create_consumer(all).await.expect("a consumer");
    let read = consumer.messages().await.expect("messages").take(entries).map(|message| {
        let message = message.expect("a message");
        let entry: Entry<'_> = serde_json::from_slice(&message.payload).expect("an entry");
        Stored {
            log: LogName::from_subject(&message.subject).expect("a log"),
            message_id: message.headers.as_ref().and_then(|h| h.get("Nats-Msg-Id")).map(|id| id.to_string()),
            event: entry.event.clone().into_owned(),
            from: entry.from.as_ref().map(|from| serde_json::to_string(from).expect("JSON")),
            words: serde_json::from_str(entry.payload.get()).ok(),
        }
    });
    tokio::time::timeout(SOON, read.collect()).await.expect("all of the log in time")
}

/// Counts what the log holds; an error, if it cannot be so.
fn held(log: &[Stored]) -> Result<Held, String> {
    let mut held = Held::default();
    let (mut ids, mut said, mut last, mut events) = (HashSet::new(), HashSet::new(), HashMap::new(), HashSet::new());
    let mut ends = BTreeMap::new();
    for Stored { log, message_id, event, from, words } in log {
        if message_id.as_ref().is_some_and(|id| !ids.insert(id)) {
            return Err(format!("{log:?}: two entries have the id {message_id:?}"));
        }
        let chat = matches!(log, LogName::Chat(_));
        if chat {
            ends.entry(log).or_insert(0);
        }
        match (from, words) {
            (Some(from), Some(Words { m, n })) => {
                if !said.insert((log, from, m, n)) {
                    return Err(format!("{log:?}: message {n} of {from} stands there twice"));
                }
                // What cannot be sent again may come behind what its sender said after it was `unavailable`.
                let before = message_id.as_ref().and_then(|_| last.insert((log, from, m), n));
                if let Some(before) = before.filter(|before| *before > n) {
                    return Err(format!("{log:?}: message {n} of {from} stands behind message {before}"));
                }
                if chat {
                    held.in_chats += 1;
                } else {
                    held.in_rooms += 1;
                }
            }
            (None, _) if chat => {
                if !events.insert((log, event)) {
                    return Err(format!("{log:?}: {event} stands there twice"));
                }
                let end = ChatEvent::parse(event).and_then(ChatEvent::end).is_some();
                *ends.entry(log).or_insert(0) += u8::from(end);
            }
            (_, _) => {}
        }
    }
    let wrong: BTreeSet<_> = ends.iter().filter(|(_, ends)| **ends != 1).collect();
    if !wrong.is_empty() {
        return Err(format!("chats that did not end once: {wrong:?}"));
    }
    held.chats = ends.len() as u64;
    Ok(held)
}

impl System {
    /// NATS holds what these users were told, and they have left nothing else behind.
    pub(crate) async fn holds(&self, seen: &Seen) {
        self.nothing_is_left().await;
        eventually("no feed is left", async || self.feeds().await.is_empty()).await;
        let held = held(&log(&self.nats).await).unwrap_or_else(|wrong| panic!("{wrong}"));
        // What was not answered may be stored or not; the rest is.
        let (acked, heard) = (seen.count("lobby", "acked"), seen.count("lobby", "messages"));
        let each = [
            ("messages in chats", held.in_chats, acked.max(heard), seen.count("lobby", "said")),
            ("messages in rooms", held.in_rooms, seen.count("rooms", "messages"), seen.count("rooms", "said")),
        ];
        for (what, stored, answered, said) in each {
            eprintln!("{what}: {said} said, {stored} stored, {answered} answered or heard");
            assert!((answered..=said).contains(&stored), "{what}: {said} said, {stored} stored, {answered} answered");
        }
        let chats = seen.count("lobby", "chats");
        assert!(chats <= held.chats, "{chats} chats were shown, and the log has {} of them", held.chats);
    }
}

#[cfg(test)]
mod tests {
    use switchboard_contract::names::ChatId;

    use super::*;

    const ENTRIES: [(&str, Option<&str>, Option<&str>, u32); 5] = [
        ("chat:ready", Some("ready"), None, 0),
        ("student:send", Some("s1"), Some("s"), 1),
        ("teacher:send", Some("t1"), Some("t"), 1),
        ("student:send", Some("s2"), Some("s"), 2),
        ("chat:terminated", Some("end"), None, 0),
    ];

    /// As JSON, with its message id.
    fn json((event, id, from, n): (&str, Option<&str>, Option<&str>, u32)) -> (String, String) {
        let from = from.map_or_else(|| "null".to_owned(), |from| format!(r#"{{"user_id":"{from}"}}"#));
        let entry = format!(r#"{{"v":1,"event":"{event}","payload":{{"n":{n}}},"from":{from},"id":"","at":""}}"#);
        (entry, id.unwrap_or_default().to_owned())
    }

    fn stored(entries: &[(&str, Option<&str>, Option<&str>, u32)]) -> Vec<Stored> {
        let one = |(event, id, from, n): &(&str, Option<&str>, Option<&str>, u32)| Stored {
            log: LogName::Chat(ChatId::new("c").expect("an id")),
            message_id: id.map(str::to_owned),
            event: (*event).to_owned(),
            from: from.map(str::to_owned),
            words: Some(Words { m: None, n: *n }),
        };
        entries.iter().map(one).collect()
    }

    #[test]
    fn what_stands_twice_out_of_order_or_has_no_end_is_seen() {
        assert_eq!(held(&stored(&ENTRIES)), Ok(Held { in_chats: 3, in_rooms: 0, chats: 1 }));
        let [ready, one, _, two, end] = ENTRIES;
        let wrong = |entries: &[_]| held(&stored(entries)).expect_err("it cannot be so");
        assert!(wrong(&[ready, one, ("student:send", Some("s1"), Some("s"), 3), end]).contains("have the id"));
        assert!(wrong(&[ready, one, ("student:send", Some("again"), Some("s"), 1), end]).contains("twice"));
        assert!(wrong(&[ready, ("chat:ready", None, None, 0), end]).contains("twice"));
        assert!(wrong(&[ready, two, one, end]).contains("behind"));
        assert!(wrong(&[ready, one]).contains("did not end once"));
        assert!(wrong(&[ready, one, end, ("chat:requeued", None, None, 0)]).contains("did not end once"));
    }

    #[tokio::test]
    async fn the_log_is_read_as_it_is_and_what_is_doubled_or_lost_by_hand_is_seen() {
        let Some(system) = System::start().await else { return };
        let context = jetstream::new(system.nats.client().await);
        let publish = async |entry| {
            let (json, id) = json(entry);
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Nats-Msg-Id", id);
            let ack = context.publish_with_headers("sb.log.chat.c", headers, json.into()).await.expect("sent");
            ack.await.expect("stored").sequence
        };
        let mut seqs = Vec::new();
        for entry in ENTRIES {
            seqs.push(publish(entry).await);
        }
        assert_eq!(held(&log(&system.nats).await), Ok(Held { in_chats: 3, in_rooms: 0, chats: 1 }));
        let stream = context.get_stream(ROOMS_STREAM).await.expect("the stream");
        stream.delete_message(seqs[2]).await.expect("deleted");
        assert_eq!(held(&log(&system.nats).await), Ok(Held { in_chats: 2, in_rooms: 0, chats: 1 }));
        publish(("student:send", Some("another id"), Some("s"), 2)).await;
        assert!(held(&log(&system.nats).await).expect_err("it is doubled").contains("twice"));
    }
}
