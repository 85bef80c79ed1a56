//! What became of a write to a stream that expects something of what is there already; and whether streams refuse all
//! that is written.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use async_nats::HeaderMap;

use crate::limits::REFUSALS_OVER;

/// A stored message is behind the one that a write expects. In a batch, and in a single write.
const WRONG_LAST_SEQUENCE: [u64; 2] = [10071, 10164];

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is stored; the last sequence it has.
    Committed {
        /// In the stream.
        seq: u64,
    },
    /// None of it is stored: another write was first.
    Fenced,
    /// It may be stored or not, now or in a moment.
    Unknown,
}

/// The answer of a stream to a write.
#[derive(Debug, serde::Deserialize)]
pub struct Ack {
    /// Where it is stored. A refusal carries one too, so look at `error` first.
    #[serde(default)]
    pub seq: u64,
    /// Why it is not.
    pub error: Option<AckError>,
}

/// Why a stream refused a write.
#[derive(Debug, serde::Deserialize)]
pub struct AckError {
    /// As nats-server numbers its errors.
    #[serde(default)]
    pub err_code: u64,
    /// In words.
    #[serde(default)]
    pub description: String,
}

impl AckError {
    /// Whether another write was first.
    pub fn is_wrong_last_sequence(&self) -> bool {
        WRONG_LAST_SEQUENCE.contains(&self.err_code)
    }
}

const REFUSED: &str = "switchboard_nats_writes_refused_total";

/// Writes that streams refuse for another reason than that another one was first, such as that there is no room on
/// disk. For as long as that lasts it is each write, several times a second: so the log has its beginning and its end.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Option<Trouble>>);

/// One such time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trouble {
    since: Instant,
    last: Instant,
    refused: u64,
}

impl Refusals {
    /// Reads the answer to a write.
    pub fn read(&self, body: &[u8]) -> Outcome {
        match serde_json::from_slice::<Ack>(body) {
            Ok(Ack { error: Some(error), .. }) if error.is_wrong_last_sequence() => Outcome::Fenced,
            Ok(Ack { error: Some(error), .. }) => {
                self.refused(error.err_code, &error.description);
                Outcome::Unknown
            }
            Ok(Ack { error: None, seq }) => {
                self.stored();
                Outcome::Committed { seq }
            }
            Err(error) => {
                tracing::warn!(%error, "the answer to a write is not understood");
                Outcome::Unknown
            }
        }
    }

    /// A write was refused: with this number of nats-server's, in these words.
    pub fn refused(&self, code: u64, error: &str) {
        metrics::counter!(REFUSED, "code" => code.to_string()).increment(1);
        if self.begins(Instant::now()) {
            tracing::warn!(code, error, "NATS refuses what is written");
        } else {
            tracing::debug!(code, error, "NATS still refuses what is written");
        }
    }

    fn stored(&self) {
        if let Some(trouble) = self.ends(Instant::now()) {
            let seconds = trouble.since.elapsed().as_secs();
            tracing::info!(refused = trouble.refused, seconds, "NATS stores what is written again");
        }
    }

    fn begins(&self, now: Instant) -> bool {
        let mut present = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let trouble = present.get_or_insert(Trouble { since: now, last: now, refused: 0 });
        (trouble.last, trouble.refused) = (now, trouble.refused + 1);
        trouble.refused == 1
    }

    /// Something was stored. Where there is little room, some writes find it and others do not: that is no end yet.
    fn ends(&self, now: Instant) -> Option<Trouble> {
        let mut present = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        present.take_if(|trouble| now.saturating_duration_since(trouble.last) >= REFUSALS_OVER)
    }
}

/// Says what is counted here.
pub(crate) fn describe() {
    metrics::describe_counter!(REFUSED, "Writes that a stream refused though no other write was first, by code.");
}

/// Whether a message of a bucket says that its key is gone: deleted, or expired.
pub fn is_marker(headers: Option<&HeaderMap>) -> bool {
    headers.is_some_and(|h| h.get("KV-Operation").is_some() || h.get("Nats-Marker-Reason").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_not_mistaken_for_a_sequence() {
        let stale = br#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 7"},"seq":0}"#;
        let read_ack = |body: &[u8]| Refusals::default().read(body);
        assert_eq!(read_ack(stale), Outcome::Fenced);
        let incomplete = br#"{"error":{"code":400,"err_code":10176,"description":"incomplete"},"seq":0}"#;
        assert_eq!(read_ack(incomplete), Outcome::Unknown);
        assert_eq!(
            read_ack(br#"{"stream":"KV_lobby","seq":12,"batch":"b","count":5}"#),
            Outcome::Committed { seq: 12 }
        );
        assert_eq!(read_ack(b""), Outcome::Unknown);
    }

    #[test]
    fn a_time_of_refusals_begins_once_and_ends_when_none_came_for_a_while() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        let at = |ms| start + std::time::Duration::from_millis(ms);
        let over = u64::try_from(REFUSALS_OVER.as_millis()).expect("a time");
        assert_eq!(refusals.ends(at(0)), None);
        assert_eq!([0, 100, 200].map(|ms| refusals.begins(at(ms))), [true, false, false]);
        assert_eq!(refusals.ends(at(200 + over - 1)), None, "one write of many was small enough");
        let trouble = refusals.ends(at(200 + over)).expect("its end");
        assert_eq!((trouble.since, trouble.refused), (start, 3));
        assert_eq!(refusals.ends(at(300 + over)), None);
        assert!(refusals.begins(at(400 + over)), "another one");
    }
}
