//! Telling that is owed: requests whose answers go back into the core. One that is not answered is asked again by it.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::time::SystemTime;

use async_nats::HeaderMap;
use serde_json::value::RawValue;
use switchboard_contract::limits::REQUEST_TIMEOUT;
use switchboard_contract::lobby::{ChannelId, ChatEvent, Push, Pushed};
use switchboard_contract::log::Entry;
use switchboard_contract::names::{self, ChatId, Incarnation, LogName};
use switchboard_contract::nats::Nats;
use switchboard_contract::wire::{V1, decode, encode, timestamp};

/// What a request came to.
pub(crate) enum Answer {
    /// The gateway has delivered these, or has no such channel.
    Told(Incarnation, Vec<(ChatId, ChannelId)>),
    /// The log has the entry.
    Logged(ChatId, ChatEvent),
    /// NATS carries our own words.
    RoundTrip,
    /// Nothing that is known.
    None,
}

/// A request on its way.
pub(crate) type Asked = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Pushes `new:chat`s to a gateway.
pub(crate) fn push(nats: Nats, gateway: Incarnation, push: Push) -> Asked {
    Box::pin(async move {
        let answer = nats.request(names::gateway_subject(&gateway), encode(&push), REQUEST_TIMEOUT).await;
        match answer.map(|message| decode::<Pushed>("pushed", &message.payload)) {
            // A channel that is gone needs no telling: its row will say so.
            Ok(Ok(_)) => {
                let told = push.new_chats.into_iter();
                let told = told.flat_map(|new| new.chans.into_iter().map(move |chan| (new.chat.id.clone(), chan)));
                Answer::Told(gateway, told.collect())
            }
            Ok(Err(error)) => {
                tracing::warn!(%gateway, %error, "the answer to a push was refused");
                Answer::None
            }
            Err(error) => {
                tracing::debug!(%gateway, %error, "a push was not answered");
                Answer::None
            }
        }
    })
}

/// Writes an entry into a chat's log. Its message id makes a second one a duplicate.
pub(crate) fn log(nats: Nats, chat: ChatId, event: ChatEvent) -> Asked {
    Box::pin(async move {
        let entry = Entry {
            v: V1,
            event: Cow::Borrowed(event.as_str()),
            payload: &no_payload(),
            from: None,
            rank: None,
            id: format!("{chat}-{}", event.as_str().trim_start_matches("chat:")).into(),
            at: timestamp(SystemTime::now()).into(),
        };
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("{chat}:{}", event.as_str()));
        let subject = LogName::Chat(chat.clone()).log_subject();
        match nats.request_with(subject, Some(headers), encode(&entry), REQUEST_TIMEOUT).await {
            Ok(answer) if is_stored(&answer.payload) => Answer::Logged(chat, event),
            Ok(answer) => {
                tracing::warn!(%chat, answer = %String::from_utf8_lossy(&answer.payload), "a log entry was refused");
                Answer::None
            }
            Err(error) => {
                tracing::debug!(%chat, %error, "a log entry was not acknowledged");
                Answer::None
            }
        }
    })
}

fn no_payload() -> Box<RawValue> {
    match RawValue::from_string("{}".to_owned()) {
        Ok(payload) => payload,
        Err(error) => unreachable!("a literal object: {error}"),
    }
}

/// Asks whether NATS carries anything at all.
pub(crate) fn round_trip(nats: Nats) -> Asked {
    Box::pin(async move {
        match nats.round_trip(REQUEST_TIMEOUT).await {
            Ok(()) => Answer::RoundTrip,
            Err(_) => Answer::None,
        }
    })
}

fn is_stored(ack: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Ack {
        error: Option<serde::de::IgnoredAny>,
        #[serde(default)]
        seq: u64,
    }
    serde_json::from_slice::<Ack>(ack).is_ok_and(|ack| ack.error.is_none() && ack.seq > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duplicate_is_stored_and_a_refusal_is_not() {
        assert!(is_stored(br#"{"stream":"ROOMS","seq":7,"duplicate":true}"#));
        assert!(!is_stored(br#"{"error":{"code":503},"stream":"ROOMS","seq":0}"#));
        assert!(!is_stored(b""));
    }
}
