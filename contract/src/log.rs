//! Logs: what is written to stream `ROOMS`, and how the history service is asked for it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::lobby::{ChatEnd, Role};
use crate::names::{LogName, SessionKey, UserId};
use crate::room::{Author, RANK_VISITOR, RoomView};
use crate::wire::{self, V1};

/// An entry of a log: a message of a client, or a change of state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry<'a> {
    /// Always 1.
    pub v: V1,
    /// The event's name: `teacher:send`, `student:send`, or one of [`crate::lobby::ChatEvent`]; in a room `new_msg`,
    /// `new_message`, an event of the HTTP API, or one of [`crate::room::RoomEvent`].
    #[serde(borrow)]
    pub event: Cow<'a, str>,
    /// As the client sent it, without reserved keys.
    #[serde(borrow)]
    pub payload: &'a RawValue,
    /// Who said it; `None` for the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Sender>,
    /// The sender's rank at the time, where ranks matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<i64>,
    /// The client's own id, or one made by the gateway.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// When it was accepted.
    #[serde(borrow)]
    pub at: Cow<'a, str>,
}

impl Entry<'_> {
    /// Who wrote it, as a room's rules see it: without a rank the lowest.
    pub fn author(&self) -> Author<'_> {
        self.from.as_ref().map(|from| (&from.user_id, self.rank.unwrap_or(RANK_VISITOR)))
    }
}

/// Who said something, as members see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// In a chat: which side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Who.
    pub user_id: UserId,
    /// In a room: with which session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionKey>,
}

/// A message as clients see it in `history`, and as a history replica keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Message<'a> {
    /// Its place in the log's order.
    pub seq: u64,
    /// As in [`Entry`].
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// As in [`Entry`].
    #[serde(borrow)]
    pub at: Cow<'a, str>,
    /// As in [`Entry`].
    #[serde(borrow)]
    pub event: Cow<'a, str>,
    /// As in [`Entry`].
    #[serde(borrow)]
    pub payload: &'a RawValue,
    /// As in [`Entry`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Sender>,
}

/// A request to `sb.history.read`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Read {
    /// Always 1.
    pub v: V1,
    /// Whose log.
    pub log: LogName,
    /// Answer only with everything that was stored before the request came in: the replica first reaches the log's
    /// last sequence, asked of the stream's leader.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fresh: bool,
    /// Answer only with everything up to here: the `last_seq` of a reply that this one goes on from. What a replica has
    /// applied, the stream's leader may still have to: `fresh` alone could then bring less than there was before.
    #[serde(default, skip_serializing_if = "wire::is_zero")]
    pub reach: u64,
    /// Only messages with a larger sequence. Together with `oldest_first`: page on from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Only messages with a smaller sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// At most this many, at most [`crate::limits::LOG_MESSAGES_MAX`]; `None`: as many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// If not all fit, the oldest ones; else the newest. In either case they come in the log's order.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oldest_first: bool,
    /// A room's `room:state` entries too, each with the whole state that it led to: what a member missed. Else
    /// messages alone, as `history` has them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub states: bool,
    /// Of a room: whether the entry of this sequence is void, also one that is kept no more: [`ReadReply::void`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<u64>,
}

impl Read {
    /// Of the newest messages, as many as fit, as far as whoever is asked has them.
    pub fn of(log: LogName) -> Read {
        Read {
            v: V1,
            log,
            fresh: false,
            reach: 0,
            after: None,
            before: None,
            limit: None,
            oldest_first: false,
            states: false,
            judge: None,
        }
    }
}

/// The answer to a [`Read`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReadReply {
    /// Always 1.
    pub v: V1,
    /// The sequence of the log's last entry, state changes included; 0 if it has none. What stands behind the end
    /// of a chat does count here.
    pub last_seq: u64,
    /// The sequence of the last message that the log had and has no more; 0 if it has all. A `last_seq` below it is a
    /// gap.
    pub dropped_to: u64,
    /// Nothing more in that direction: nothing older than the messages if the newest were asked for, nothing newer
    /// if the oldest.
    pub complete: bool,
    /// Where `chat:ready` stands, if it was logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<u64>,
    /// Where the end of the chat stands, and which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<(u64, ChatEnd)>,
    /// Of a room that has been heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomView>,
    /// What was asked with [`Read::judge`]; `None`: it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub void: Option<bool>,
    /// The sequence of the last message (of a client); 0 if there was none.
    pub said: u64,
    /// An array of [`Message`], in the log's order; at most [`crate::limits::HISTORY_REPLY_BYTES_MAX`] in all.
    /// Void ones are not in it.
    pub messages: Box<RawValue>,
}

/// Of a log that has nothing.
impl Default for ReadReply {
    fn default() -> Self {
        let messages = match to_raw_value(&[(); 0]) {
            Ok(messages) => messages,
            Err(error) => unreachable!("nothing is always JSON: {error}"),
        };
        ReadReply {
            v: V1,
            last_seq: 0,
            dropped_to: 0,
            complete: true,
            ready: None,
            end: None,
            room: None,
            void: None,
            said: 0,
            messages,
        }
    }
}

/// A log, and a sequence in it.
pub type Position = (LogName, u64);

/// A request to `sb.history.behind`: how far somebody has seen these logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Always 1.
    pub v: V1,
    /// At most [`crate::limits::BEHIND_LOGS_MAX`], each with the sequence of the last entry that was seen.
    pub logs: Vec<Position>,
}

/// The answer to [`Seen`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// Always 1.
    pub v: V1,
    /// The logs that have more, each with [`ReadReply::last_seq`], as far as the replica knows.
    pub logs: Vec<Position>,
}

/// The text of a message, for keywords and repetitions: of its payload, a JSON object, the first string among `body`,
/// `text` and `message`.
pub fn text(payload: &str) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Texts<'a> {
        #[serde(borrow)]
        body: Option<&'a RawValue>,
        #[serde(borrow)]
        text: Option<&'a RawValue>,
        #[serde(borrow)]
        message: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let texts: Texts<'_> = serde_json::from_str(payload).ok()?;
    let texts = [texts.body, texts.text, texts.message].into_iter().flatten();
    texts.filter_map(|value| serde_json::from_str::<Text<'_>>(value.get()).ok()).map(|text| text.0).next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{BEHIND_LOGS_MAX, ID_BYTES_MAX, MESSAGE_BYTES_MAX};
    use crate::names::ChatId;

    #[test]
    fn as_many_logs_as_may_be_asked_for_fit_into_a_message() {
        let longest = ChatId::new(&"\u{1}".repeat(ID_BYTES_MAX)).expect("an id");
        let logs = vec![(LogName::Chat(longest), u64::MAX); BEHIND_LOGS_MAX];
        assert!(crate::wire::encode(&Seen { v: V1, logs }).len() < MESSAGE_BYTES_MAX);
    }

    #[test]
    fn an_entry_keeps_its_payload_to_the_letter() {
        let json = r#"{"v":1,"event":"teacher:send","payload":{"b": 1, "a":[ ]},"from":{"role":"teacher","user_id":5},"id":"k-1","at":"2023-11-14T22:13:20.050Z"}"#;
        let entry: Entry<'_> = serde_json::from_str(json).expect("an entry");
        assert_eq!(entry.payload.get(), r#"{"b": 1, "a":[ ]}"#);
        assert_eq!(serde_json::to_string(&entry).expect("JSON"), json);
    }

    #[test]
    fn the_text_is_the_first_string_among_three() {
        for (payload, expected) in [
            (r#"{"message":"c","text":"b","body":"a"}"#, Some("a")),
            (r#"{"message":"c\n","text":5,"body":{"text":"x"}}"#, Some("c\n")),
            (r#"{"other":"x"}"#, None),
            (r#"["a"]"#, None),
            (r#"{"body":null}"#, None),
        ] {
            assert_eq!(text(payload).as_deref(), expected, "{payload}");
        }
    }
}
