//! The rules of a room, each by how it is broken.

/// A broken rule, and who saw it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("room {room}, member {member}: {what}")]
pub(in crate::load) struct Violation {
    /// The room's id.
    pub(in crate::load) room: Box<str>,
    /// Counted from 0.
    pub(in crate::load) member: u16,
    /// What.
    pub(in crate::load) what: Broken,
}

/// How a rule is broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::load) enum Broken {
    /// Out of order, or a second time.
    #[error("seq {seq} came when it had everything up to {had}: seqs grow, and none comes twice")]
    Order { seq: u64, had: u64 },
    /// Others have it, or it was acknowledged, and this one has gone past it.
    #[error("seq {seq} (message {n} of member {by}) was not received, though the member has gone from {had} to {to}")]
    Missed { seq: u64, by: u16, n: u32, had: u64, to: u64 },
    /// Two members see different things under one sequence.
    #[error("seq {seq} is not what others saw under it: message {n} of member {by} was expected")]
    Differs { seq: u64, by: u16, n: u32 },
    /// One message under two sequences.
    #[error("message {n} of member {by} is stored twice, as seq {first} and seq {second}")]
    Twice { by: u16, n: u32, first: u64, second: u64 },
    /// Its own message came back to the socket that sent it.
    #[error("seq {seq}, its own message {n}, came to the socket that had sent it")]
    Own { seq: u64, n: u32 },
    /// A message that nobody sent.
    #[error("seq {seq} is message {n} of member {by}, who has not sent it")]
    Invented { seq: u64, by: u16, n: u32 },
    /// Something that only members get.
    #[error("{what} came while it was not joined")]
    NotJoined { what: &'static str },
    /// A join's reply that does not fit what the member had.
    #[error("the join with last_seq {asked} was answered with last_seq {last_seq}")]
    Behind { asked: u64, last_seq: u64 },
    /// `recovered` is false exactly if a gap follows.
    #[error("recovered was false, and {what} came instead of a gap behind {had}")]
    NoGap { what: &'static str, had: u64 },
    /// A gap that begins elsewhere than at what the member had.
    #[error("gap {from} to {to} came when it had everything up to {had}, and did not expect one")]
    StrayGap { from: u64, to: u64, had: u64 },
    /// The log cannot have dropped what the gap leaves out.
    #[error(
        "gap {from} to {to}, though only {behind} messages were logged from {from} on, and the last {kept} are kept"
    )]
    Gap { from: u64, to: u64, behind: usize, kept: usize },
    /// A push was not answered in time, or only after it.
    #[error("{what} (ref {reference}) was not answered within {seconds} s")]
    Unanswered { what: &'static str, reference: u64, seconds: u64 },
    /// A reply to nothing, or a second one.
    #[error("a reply to ref {reference}, which is not open: a second one, or one to nothing")]
    StrayReply { reference: u64 },
    /// An `error` where nothing was wrong.
    #[error("{what} was refused: {reason}")]
    Refused { what: &'static str, reason: String },
    /// A diff before the state, or a second state.
    #[error("{what} came, and the join had {had}")]
    PresenceOrder { what: &'static str, had: &'static str },
    /// A meta that was told before, or one that left without having been there.
    #[error("presence: {phx_ref} of {key} {what}")]
    Meta { phx_ref: Box<str>, key: Box<str>, what: &'static str },
    /// In a quiet room all lists are the same.
    #[error("presence: {quiet_ms} ms after the last change it lists {has}, and {expected} was expected")]
    Presence { quiet_ms: u128, has: String, expected: String },
    /// It never got to the end.
    #[error("it has everything up to {had}, and the room's last seq is {last}: nothing more came in time")]
    NotThere { had: u64, last: u64 },
    /// A message with an id that was never answered with `ok`.
    #[error("message {n} was sent again and again, and not acknowledged in time")]
    Unacknowledged { n: u32 },
    /// Anything that has no place here.
    #[error("{0}")]
    Unexpected(String),
}
