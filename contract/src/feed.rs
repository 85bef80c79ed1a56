//! Feeds: what gateways and history replicas say to each other, and the record of a feed.
//!
//! A gateway subscribes to [`FeedId::out_subject`] and then asks for the feed: [`Want`]. Whichever replica answers
//! writes the feed's record; its owner, by rendezvous hash among the live replicas, sees the record and polls. Before
//! each poll the owner sends [`Told`] as a request on the feed's subject: gateways that hold it answer, and where
//! nobody does the feed ends.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::names::{FeedId, Incarnation};
use crate::reason::Reason;
use crate::wire::V1;

/// Which value it is: the epoch of the feed's owner, and a number that grows with each value of that epoch. Versions of
/// one feed only grow, also over the end of its record: see [`FeedRecord::epoch`].
pub type Version = (u64, u64);

/// The record of a feed in KV `feeds`. It is there while somebody listens; each write is a compare and set, and a new
/// owner counts the epoch up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FeedRecord {
    /// Always 1.
    pub v: V1,
    /// Which feed, readable.
    pub feed: FeedId,
    /// Who polls it.
    pub owner: Incarnation,
    /// Grows with each owner. A new record begins with the last sequence of the bucket's stream: each epoch of an
    /// earlier record cost at least one write, so it is below that. Clocks play no part.
    pub epoch: u64,
    /// Grows with each gateway that asks for the feed, so that an owner that is about to end it is refused.
    pub asked: u64,
    /// The last value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Value>,
    /// Since when the source has not answered, if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<Stale>,
    /// How the source was asked in this epoch, for people; `None`: not yet. It goes with every write, and is otherwise
    /// repeated each [`crate::limits::FEED_POLLED_REPEAT`] at most, so it may be that old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polled: Option<Polled>,
}

/// How a feed's owner has asked the source since its epoch began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Polled {
    /// The last time. RFC 3339.
    pub at: Box<str>,
    /// How often.
    pub polls: u64,
    /// How often there was no value.
    pub failed: u64,
}

/// A value of a feed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Value {
    /// What the source answered: JSON of at most [`crate::limits::PAYLOAD_BYTES_MAX`] bytes.
    pub value: Box<RawValue>,
    /// Which one.
    pub version: Version,
    /// When the source answered so. RFC 3339.
    pub at: Box<str>,
}

/// A source that does not answer as it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stale {
    /// Since when. RFC 3339.
    pub since: Box<str>,
    /// Why, in words that may be shown to clients: nothing of the source's own text, which may hold secrets.
    pub reason: Box<str>,
}

/// A gateway has members of a feed: request on [`crate::names::HISTORY_FEED`], answered with [`Wanted`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Want {
    /// Always 1.
    pub v: V1,
    /// Which.
    pub feed: FeedId,
    /// The gateway keeps who has not shown the API's secret out of a feed that wants it ([`Fed::secret`]). One of an
    /// older version, which would let anybody in, is told that there is no such feed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_secrets: bool,
}

/// The answer to [`Want`]: one of both.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Wanted {
    /// Always 1.
    pub v: V1,
    /// It is polled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feed: Option<Fed>,
    /// [`Reason::NotFound`]: no such feed, or not with this argument; [`Reason::Unavailable`]: to be asked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Reason>,
}

/// A feed that is polled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fed {
    /// How often it is polled. Milliseconds.
    pub interval_ms: u64,
    /// Only members whose user token has the feed's name in its claim `feeds` may join.
    pub token: bool,
    /// Only members who have shown the secret of the gateways' HTTP API may join.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secret: bool,
    /// The last value; none before the first poll.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Value>,
    /// The source does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<Stale>,
}

/// What its owner says on a feed's subject: before each poll, without a value and as a request that each gateway with
/// members answers with nothing; and when there is a new value, or the source begins to fail, without a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Told {
    /// Always 1.
    pub v: V1,
    /// The last value's; (0, 0): there is none yet. Whoever has an older one, and is not told it here, has lost
    /// something and asks again.
    pub version: Version,
    /// The value, if it is a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Value>,
    /// The source does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<Stale>,
}

/// Heartbeat of a history replica, on [`crate::names::alive_history`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HistoryBeat {
    /// Always 1.
    pub v: V1,
    /// Whose.
    pub replica: Incarnation,
    /// The names of the feeds that it can poll: only who knows a feed can be its owner.
    #[serde(default)]
    pub feeds: Vec<Box<str>>,
    /// Its last one: it stops, and its feeds are to be taken at once.
    #[serde(default)]
    pub leaving: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{decode, encode};

    #[test]
    fn a_record_of_an_older_version_says_nothing_of_polls() {
        let older = r#"{"v":1,"feed":"n","owner":"host-a1b2c3","epoch":3,"asked":1}"#;
        let record: FeedRecord = decode("record", older.as_bytes()).expect("a record");
        assert_eq!(record.polled, None);
        assert_eq!(encode(&record), older.as_bytes());
        let polled = Some(Polled { at: "2023-11-14T22:13:10.000Z".into(), polls: 7, failed: 2 });
        let record = FeedRecord { polled: polled.clone(), ..record };
        assert_eq!(decode::<FeedRecord>("record", &encode(&record)).expect("a record").polled, polled);
    }
}
