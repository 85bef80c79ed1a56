//! What operators are shown of the system inside: what the leading matcher and the gateways answer to history, which
//! puts it together for the feed of operators. Nothing of it is kept, and nothing is worked out unless somebody asks.

use serde::{Deserialize, Serialize};

use crate::lobby::Status;
use crate::names::{ChatId, Incarnation, UserId};
use crate::wire::V1;

/// The lobby as its leader has committed it: the answer of `sb.matcher.look`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LobbyInside {
    /// Always 1.
    pub v: V1,
    /// Who leads.
    pub leader: Incarnation,
    /// Since when. RFC 3339.
    pub since: Box<str>,
    /// The counts.
    pub status: Status,
    /// The first of the queue, at most [`crate::limits::OPERATOR_QUEUE_MAX`].
    pub queue: Vec<Waiting>,
    /// The active chats that began last, at most [`crate::limits::OPERATOR_CHATS_MAX`], the newest first.
    pub chats: Vec<Talk>,
}

/// A place in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// As its owner wrote it.
    pub student: UserId,
    /// Since when, as the record of the place says. RFC 3339.
    pub since: Box<str>,
}

/// An active chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Talk {
    /// Which.
    pub id: ChatId,
    /// As its owner wrote it.
    pub teacher: UserId,
    /// As its owner wrote it.
    pub student: UserId,
    /// Since when. RFC 3339.
    pub since: Box<str>,
}

/// A gateway now: the answer of each to [`crate::names::GATEWAYS_LOOK`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayInside {
    /// Always 1.
    pub v: V1,
    /// Which.
    pub gateway: Incarnation,
    /// Open sockets.
    pub connections: u64,
    /// It stops, and closes its sockets.
    pub draining: bool,
    /// Joins of any topic that were answered with `ok`, since it started.
    pub joins: u64,
    /// Messages that clients pushed and that were answered with `ok`, since it started: in chats `teacher:send` and
    /// `student:send`, in rooms `new_msg`, to all or to some, and `new_message`. One that was sent again counts again.
    /// Neither `typing` nor binary data, nor what the HTTP API pushes.
    pub messages: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{ID_BYTES_MAX, MESSAGE_BYTES_MAX, OPERATOR_CHATS_MAX, OPERATOR_QUEUE_MAX};
    use crate::wire::encode;

    #[test]
    fn the_answer_of_a_matcher_is_no_larger_than_messages_may_be() {
        // Each byte of such an id is six in JSON.
        let id = "\u{1}".repeat(ID_BYTES_MAX);
        let user = UserId::text(&id).expect("an id");
        let since: Box<str> = "2026-11-21T19:04:22.720Z".into();
        let talk = Talk {
            id: ChatId::new(&id).expect("an id"),
            teacher: user.clone(),
            student: user.clone(),
            since: since.clone(),
        };
        let inside = LobbyInside {
            v: V1,
            leader: Incarnation::named(&id).expect("a name"),
            since: since.clone(),
            status: Status { epoch: u64::MAX, waiting: u64::MAX, ..Status::default() },
            queue: vec![Waiting { student: user, since }; OPERATOR_QUEUE_MAX],
            chats: vec![talk; OPERATOR_CHATS_MAX],
        };
        let size = encode(&inside).len();
        assert!(size > MESSAGE_BYTES_MAX / 4 && size <= MESSAGE_BYTES_MAX, "{size} bytes");
    }
}
