//! What reaches the gateways of a room's members without being logged: published to the room's `sb.out` subject, beside
//! what the stream republishes there. A body that begins with [`BINARY`] is a binary frame for the members as it is.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::lobby::ChannelId;
use crate::log::Sender;
use crate::wire::V1;

/// The first byte of a broadcast in V2's binary form. No JSON begins with it.
pub const BINARY: u8 = 2;

/// What a message says at first: the rest depends on its kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Head<'a> {
    /// Always 1.
    pub v: V1,
    /// [`EVENT`], `keywords`, or one that a newer service knows.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
}

/// The kind of an [`UnloggedEvent`].
pub const EVENT: &str = "event";
/// The kind of the message that says which keywords a room has now.
pub const KEYWORDS: &str = "keywords";

/// An event of a member for all others.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UnloggedEvent<'a> {
    /// Always 1.
    pub v: V1,
    /// Always [`EVENT`].
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// The event's name.
    #[serde(borrow)]
    pub event: Cow<'a, str>,
    /// As the client sent it, without reserved keys.
    #[serde(borrow)]
    pub payload: &'a RawValue,
    /// Who sent it.
    pub from: Sender,
    /// Which socket is not to get it: the gateway's own name for itself,
    #[serde(borrow)]
    pub gateway: Cow<'a, str>,
    /// and the channel there.
    pub chan: ChannelId,
}
