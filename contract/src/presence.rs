//! Presence: who is in a room, as gateways tell each other.
//!
//! The gateway that holds a socket is the only authority on it. What it says of a room is its *part* of it, which has a
//! version: a number that grows with each change and, within one incarnation, is never used twice, in no room.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::lobby::ChannelId;
use crate::names::{Incarnation, RoomId, SessionKey};
use crate::wire::V1;

/// A socket in a room.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    /// As whom.
    pub key: SessionKey,
    /// Its channel on the gateway. Never used again there.
    pub chan: ChannelId,
    /// Since when. Unix seconds.
    pub online_at: u64,
}

/// The kind of a [`Delta`] among what comes unlogged on a room's subject.
pub const PRESENCE: &str = "presence";

/// Some sockets of a gateway came to a room or left it: unlogged, on the room's subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// Always 1.
    pub v: V1,
    /// Always [`PRESENCE`].
    pub kind: Cow<'static, str>,
    /// Whose.
    pub gateway: Incarnation,
    /// The version that this changes; 0: it had no members there, and `joins` is all.
    pub from: u64,
    /// The version that it leads to.
    pub to: u64,
    /// Who came. Together with `leaves` at most [`crate::limits::PRESENCE_MEMBERS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joins: Vec<Member>,
    /// Who left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaves: Vec<(SessionKey, ChannelId)>,
}

/// What one gateway tells another about rooms: `sb.gateway.<incarnation>.rooms`, without an answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Peer {
    /// Always 1.
    pub v: V1,
    /// Who says it.
    pub gateway: Incarnation,
    /// It wants the parts of these rooms; it has them up to this version, 0: not at all. Each is answered with
    /// [`Part`], also if nobody is there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asks: Vec<(RoomId, u64)>,
    /// Its parts of rooms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// A message for sockets of the receiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct: Option<Direct>,
}

impl Delta {
    /// One in which nothing has changed yet.
    pub fn new(gateway: Incarnation, from: u64, to: u64) -> Self {
        Delta { v: V1, kind: PRESENCE.into(), gateway, from, to, joins: Vec::new(), leaves: Vec::new() }
    }
}

impl Peer {
    /// One that says nothing yet.
    pub fn new(gateway: Incarnation) -> Self {
        Peer { v: V1, gateway, asks: Vec::new(), parts: Vec::new(), direct: None }
    }
}

/// Members of a room on one gateway: all of them, or one piece of several, which come in their order and count once
/// all are there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Which room.
    pub room: RoomId,
    /// As of this version. Where nobody is: any that is not smaller than those used for this room.
    pub version: u64,
    /// The piece's number, from 0.
    pub piece: u32,
    /// How many there are.
    pub of: u32,
    /// `None`: as the one who asks has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<Member>>,
}

/// A direct message of a member of a room.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Direct {
    /// In which room.
    pub room: RoomId,
    /// To these channels; those that are gone do not get it. At most [`crate::limits::DIRECT_CHANNELS_MAX`].
    pub chans: Vec<ChannelId>,
    /// The payload of `new_msg` as they get it.
    pub payload: Box<RawValue>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{
        DIGEST_ROOMS_MAX, DIRECT_CHANNELS_MAX, ID_BYTES_MAX, MESSAGE_BYTES_MAX, PAYLOAD_BYTES_MAX,
        PRESENCE_MEMBERS_MAX, SESSION_BYTES_MAX,
    };
    use crate::lobby::Heartbeat;
    use crate::names::UserId;
    use crate::wire::encode;

    fn longest() -> (Incarnation, RoomId, Member) {
        let (id, session) = ("\u{1}".repeat(ID_BYTES_MAX), "\u{1}".repeat(SESSION_BYTES_MAX));
        let key = SessionKey::new(&UserId::text(&id).expect("an id"), &session).expect("a key");
        let gateway = Incarnation::named(&id).expect("a name");
        (gateway, RoomId::new(&id).expect("an id"), Member { key, chan: u64::MAX, online_at: u64::MAX })
    }

    #[test]
    fn as_much_as_may_be_said_at_once_fits_into_a_message() {
        let (gateway, room, member) = longest();
        let n = PRESENCE_MEMBERS_MAX;
        let delta = Delta { joins: vec![member.clone(); n], ..Delta::new(gateway.clone(), 1, 2) };
        assert!(encode(&delta).len() < MESSAGE_BYTES_MAX);
        let part = Part { room: room.clone(), version: u64::MAX, piece: 0, of: 1, members: Some(vec![]) };
        let parts = Peer { parts: vec![part.clone(); n], ..Peer::new(gateway.clone()) };
        assert!(encode(&parts).len() < MESSAGE_BYTES_MAX);
        let whole = Part { members: Some(vec![member; n]), ..part };
        assert!(encode(&Peer { parts: vec![whole], ..Peer::new(gateway.clone()) }).len() < MESSAGE_BYTES_MAX);
        let asks = Peer { asks: vec![(room.clone(), u64::MAX); n], ..Peer::new(gateway.clone()) };
        assert!(encode(&asks).len() < MESSAGE_BYTES_MAX);
        let rooms = vec![(room.clone(), u64::MAX); DIGEST_ROOMS_MAX];
        let beat = Heartbeat { v: V1, gateway: gateway.clone(), n: u64::MAX, bye: false, rooms };
        assert!(encode(&beat).len() < MESSAGE_BYTES_MAX);
        let payload = RawValue::from_string(format!("\"{}\"", "x".repeat(2 * PAYLOAD_BYTES_MAX))).expect("JSON");
        let direct = Some(Direct { room, chans: vec![u64::MAX; DIRECT_CHANNELS_MAX], payload });
        assert!(encode(&Peer { direct, ..Peer::new(gateway) }).len() < MESSAGE_BYTES_MAX);
    }

    #[test]
    fn a_direct_message_keeps_its_payload_to_the_letter() {
        let json = r#"{"v":1,"gateway":"g-1","direct":{"room":"r","chans":[1,2],"payload":{"b": 1, "a":[ ]}}}"#;
        let peer: Peer = serde_json::from_str(json).expect("a message");
        assert_eq!(serde_json::to_string(&peer).expect("JSON"), json);
    }
}
