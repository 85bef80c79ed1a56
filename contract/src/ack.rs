//! What became of a write to a stream that expects something of what is there already.

use async_nats::HeaderMap;

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

/// Reads the answer to a write.
pub fn read_ack(body: &[u8]) -> Outcome {
    match serde_json::from_slice::<Ack>(body) {
        Ok(Ack { error: Some(error), .. }) if error.is_wrong_last_sequence() => Outcome::Fenced,
        Ok(Ack { error: Some(error), .. }) => {
            tracing::warn!(code = error.err_code, error = error.description, "a write was refused");
            Outcome::Unknown
        }
        Ok(Ack { error: None, seq }) => Outcome::Committed { seq },
        Err(error) => {
            tracing::warn!(%error, "the answer to a write is not understood");
            Outcome::Unknown
        }
    }
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
        assert_eq!(read_ack(stale), Outcome::Fenced);
        let incomplete = br#"{"error":{"code":400,"err_code":10176,"description":"incomplete"},"seq":0}"#;
        assert_eq!(read_ack(incomplete), Outcome::Unknown);
        assert_eq!(
            read_ack(br#"{"stream":"KV_lobby","seq":12,"batch":"b","count":5}"#),
            Outcome::Committed { seq: 12 }
        );
        assert_eq!(read_ack(b""), Outcome::Unknown);
    }
}
