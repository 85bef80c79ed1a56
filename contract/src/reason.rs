//! The one table of error reasons and of close codes, each with whether a client should try again.

use serde::{Deserialize, Serialize};

/// Why a join or a push was refused: the `reason` of an `error` reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// The topic is unknown, or not joined on this socket.
    #[serde(rename = "unmatched topic")]
    UnmatchedTopic,
    /// The topic does not know this event.
    #[serde(rename = "unmatched event")]
    UnmatchedEvent,
    /// The socket holds as many channels as it may.
    #[serde(rename = "too many channels joined")]
    TooManyChannels,
    /// Not a member, or not who the token says.
    #[serde(rename = "unauthorized")]
    Unauthorized,
    /// The token's time is over.
    #[serde(rename = "token_expired")]
    TokenExpired,
    /// The payload is not what the event needs; `detail` says what is wrong.
    #[serde(rename = "invalid_payload")]
    InvalidPayload,
    /// The payload is larger than [`crate::limits::PAYLOAD_BYTES_MAX`].
    #[serde(rename = "payload_too_large")]
    PayloadTooLarge,
    /// Too much at once; `retry_after_ms` says when to try again.
    #[serde(rename = "rate_limited")]
    RateLimited,
    /// The room is quiet for this rank.
    #[serde(rename = "quiet")]
    Quiet,
    /// Known, but not allowed to do this.
    #[serde(rename = "forbidden")]
    Forbidden,
    /// There is no such thing, or no longer.
    #[serde(rename = "not_found")]
    NotFound,
    /// The chat is over.
    #[serde(rename = "chat_finished")]
    ChatFinished,
    /// The queue holds [`crate::limits::QUEUE_MAX`] students.
    #[serde(rename = "queue_full")]
    QueueFull,
    /// Unknown whether it happened: send it again, with the same `id`.
    #[serde(rename = "unavailable")]
    Unavailable,
}

impl Reason {
    /// Every reason there is.
    pub const ALL: [Reason; 14] = [
        Reason::UnmatchedTopic,
        Reason::UnmatchedEvent,
        Reason::TooManyChannels,
        Reason::Unauthorized,
        Reason::TokenExpired,
        Reason::InvalidPayload,
        Reason::PayloadTooLarge,
        Reason::RateLimited,
        Reason::Quiet,
        Reason::Forbidden,
        Reason::NotFound,
        Reason::ChatFinished,
        Reason::QueueFull,
        Reason::Unavailable,
    ];

    /// The text in the reply, and whether the same push may succeed later.
    const fn row(self) -> (&'static str, bool) {
        match self {
            Reason::UnmatchedTopic => ("unmatched topic", false),
            Reason::UnmatchedEvent => ("unmatched event", false),
            Reason::TooManyChannels => ("too many channels joined", false),
            Reason::Unauthorized => ("unauthorized", false),
            Reason::TokenExpired => ("token_expired", false),
            Reason::InvalidPayload => ("invalid_payload", false),
            Reason::PayloadTooLarge => ("payload_too_large", false),
            Reason::RateLimited => ("rate_limited", true),
            Reason::Quiet => ("quiet", true),
            Reason::Forbidden => ("forbidden", false),
            Reason::NotFound => ("not_found", false),
            Reason::ChatFinished => ("chat_finished", false),
            Reason::QueueFull => ("queue_full", true),
            Reason::Unavailable => ("unavailable", true),
        }
    }

    /// The text that clients see.
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// Whether a client should send the same thing again later.
    pub const fn retry(self) -> bool {
        self.row().1
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// With which code a socket is closed by the gateway. 1000 is not among them: phoenix.js before 1.7 does not
/// reconnect after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// 1001: nothing was heard for the idle timeout, or the API disconnected the user.
    GoingAway,
    /// 1002: a violation of RFC 6455.
    Protocol,
    /// 1003: a binary frame that is no Phoenix frame.
    MalformedBinary,
    /// 1007: a text frame that is no Phoenix frame.
    MalformedText,
    /// 1008: too slow to read, flooding, or the token expired.
    Policy,
    /// 1009: a frame larger than [`crate::limits::FRAME_BYTES_MAX`].
    TooLarge,
    /// 1012: this gateway drains; connect again, to another.
    Draining,
}

impl CloseCode {
    /// Every close code there is.
    pub const ALL: [CloseCode; 7] = [
        CloseCode::GoingAway,
        CloseCode::Protocol,
        CloseCode::MalformedBinary,
        CloseCode::MalformedText,
        CloseCode::Policy,
        CloseCode::TooLarge,
        CloseCode::Draining,
    ];

    /// The code on the wire, its text, and whether a client should reconnect as it was.
    const fn row(self) -> (u16, &'static str, bool) {
        match self {
            CloseCode::GoingAway => (1001, "going away", true),
            CloseCode::Protocol => (1002, "protocol error", false),
            CloseCode::MalformedBinary => (1003, "malformed binary frame", false),
            CloseCode::MalformedText => (1007, "malformed frame", false),
            CloseCode::Policy => (1008, "policy", true),
            CloseCode::TooLarge => (1009, "frame too large", false),
            CloseCode::Draining => (1012, "draining", true),
        }
    }

    /// The number of RFC 6455.
    pub const fn code(self) -> u16 {
        self.row().0
    }

    /// The reason text sent beside the number.
    pub const fn text(self) -> &'static str {
        self.row().1
    }

    /// Whether a client that behaves should connect again.
    pub const fn retry(self) -> bool {
        self.row().2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_written_as_its_text() {
        for reason in Reason::ALL {
            let json = serde_json::to_string(&reason).expect("a reason is JSON");
            assert_eq!(json, format!("\"{}\"", reason.as_str()));
        }
    }

    #[test]
    fn all_reasons_are_listed() {
        // Serde names each variant in the error about one that it does not know.
        let error = serde_json::from_str::<Reason>("\"x\"").expect_err("no reason").to_string();
        let named: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert_eq!(named, Reason::ALL.map(Reason::as_str));
    }

    #[test]
    fn only_what_may_pass_is_worth_a_retry() {
        let again: Vec<_> = Reason::ALL.into_iter().filter(|r| r.retry()).map(Reason::as_str).collect();
        assert_eq!(again, ["rate_limited", "quiet", "queue_full", "unavailable"]);
    }
}
