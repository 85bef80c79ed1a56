//! The rules, each by how it is broken.

use switchboard_contract::lobby::Role;

use super::Who;

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A push was not answered in time, or only after it.
    #[error("{who}: {what} (ref {reference}) was not answered within {seconds} s")]
    Unanswered {
        /// Whose.
        who: Who,
        /// Of what.
        what: &'static str,
        /// Its ref.
        reference: u64,
        /// The time it had.
        seconds: u64,
    },
    /// A reply to nothing, or a second one.
    #[error("{who}: a reply to ref {reference}, which is not open: a second one, or one to nothing")]
    StrayReply {
        /// To whom.
        who: Who,
        /// The ref in it.
        reference: u64,
    },
    /// An `error` where nothing was wrong.
    #[error("{who}: {what} was refused: {reason}")]
    Refused {
        /// Whose.
        who: Who,
        /// What.
        what: &'static str,
        /// The response.
        reason: String,
    },
    /// The `ok` of a message carries no `seq`.
    #[error("{who}: the ok of message {n} has no seq")]
    NoSeq {
        /// Whose.
        who: Who,
        /// Which.
        n: u32,
    },
    /// A chat with somebody who does not take part, or whose id was changed on the way.
    #[error("{who}: new:chat {chat} names an id that nobody has")]
    Stranger {
        /// Who was told.
        who: Who,
        /// Which.
        chat: String,
    },
    /// A chat was shown to somebody who is not one of its two, or the two differ by who is told.
    #[error(
        "{who}: new:chat {chat} between teacher {teacher} and student {student} is not its own, or not as told before"
    )]
    WrongPair {
        /// Who was told.
        who: Who,
        /// Which.
        chat: String,
        /// Named in it.
        teacher: u32,
        /// Named in it.
        student: u32,
    },
    /// A chat was shown twice on one channel.
    #[error("{who}: new:chat {chat} came twice")]
    ShownTwice {
        /// To whom.
        who: Who,
        /// Which.
        chat: String,
    },
    /// A student was assigned that was not in the queue: never ready, or in another chat.
    #[error("student {student} got teacher {teacher} though it was not waiting")]
    NotWaiting {
        /// Who.
        student: u32,
        /// By whom.
        teacher: u32,
    },
    /// More chats than the teacher's capacity.
    #[error("teacher {teacher} has {chats} chats at once, {capacity} are allowed")]
    AboveCapacity {
        /// Who.
        teacher: u32,
        /// Chats that were active at the same time.
        chats: u32,
        /// Chats allowed.
        capacity: u32,
    },
    /// A later student was assigned while an earlier one waited.
    #[error(
        "student {later} was assigned before student {earlier}, whose place in the queue was acknowledged before the later one asked"
    )]
    QueueOrder {
        /// Who should have been first.
        earlier: u32,
        /// Who was first.
        later: u32,
    },
    /// `chat:ready` before both have entered.
    #[error("{who}: chat:ready in {chat} before both had entered")]
    ReadyEarly {
        /// Who was told.
        who: Who,
        /// Which.
        chat: String,
    },
    /// Something came a second time that comes once per channel.
    #[error("{who}: {what} in {chat} came twice")]
    Twice {
        /// To whom.
        who: Who,
        /// What.
        what: &'static str,
        /// Where.
        chat: String,
    },
    /// An event of a chat that this client has not been shown.
    #[error("{who}: {what} in chat {chat}, which is not its own")]
    NotMember {
        /// Who got it.
        who: Who,
        /// What.
        what: &'static str,
        /// Where.
        chat: String,
    },
    /// A message that is for the other side, or was said in another chat.
    #[error("{who}: a message for a {to:?} about chat {about} came in chat {chat}")]
    Astray {
        /// Who got it.
        who: Who,
        /// Where.
        chat: String,
        /// For which side.
        to: Role,
        /// Where it was said.
        about: String,
    },
    /// A message came again, or one is missing before it.
    #[error("{who}: message {n} in chat {chat} came where message {expected} was due")]
    Sequence {
        /// Who got it.
        who: Who,
        /// Where.
        chat: String,
        /// What came.
        n: u32,
        /// What was due.
        expected: u32,
    },
    /// A message that was not said.
    #[error("{who}: message {n} in chat {chat} was never said")]
    Invented {
        /// Who got it.
        who: Who,
        /// Where.
        chat: String,
        /// What came.
        n: u32,
    },
    /// A `seq` that does not grow, or is another for the speaker than for the listener.
    #[error("{who}: message {n} in chat {chat} has seq {seq}, which does not fit {other}")]
    Seq {
        /// Who got it.
        who: Who,
        /// Where.
        chat: String,
        /// Which.
        n: u32,
        /// Its place.
        seq: u64,
        /// The one it contradicts.
        other: u64,
    },
    /// The end of a chat that nobody ended.
    #[error("{who}: chat:terminated in {chat}, which nobody had terminated")]
    EndedByNobody {
        /// Who was told.
        who: Who,
        /// Which.
        chat: String,
    },
    /// A message behind the end.
    #[error("{who}: message {n} in chat {chat} came after chat:terminated")]
    AfterEnd {
        /// Who got it.
        who: Who,
        /// Where.
        chat: String,
        /// What came.
        n: u32,
    },
    /// An acknowledged message that the other side did not get before the chat's end, or at all.
    #[error("{who}: message {n} in chat {chat} was acknowledged to its speaker and never came")]
    Missed {
        /// Who should have got it.
        who: Who,
        /// Where.
        chat: String,
        /// Which.
        n: u32,
    },
    /// A chat was over though nobody ended it, and nobody was away for the grace time.
    #[error("{who}: chat {chat} was over ({how}), but nobody ended it or was away for so long")]
    EndedWithoutCause {
        /// Who was told.
        who: Who,
        /// Which.
        chat: String,
        /// How it was told.
        how: &'static str,
    },
    /// A student whose two chats took messages at the same time.
    #[error("student {student} was in {chats} active chats at once")]
    TwoChats {
        /// Who.
        student: u32,
        /// How many.
        chats: u32,
    },
    /// Counts that do not add up, or count more than there can be.
    #[error("{who}: user:status {counts:?} cannot be: {why}")]
    Counts {
        /// Who got it.
        who: Who,
        /// The counts.
        counts: super::Counts,
        /// Why.
        why: &'static str,
    },
    /// The last status did not come.
    #[error("{who} was not told that the last student has gone")]
    NoLastStatus {
        /// Who.
        who: Who,
    },
    /// A chat ended with something missing.
    #[error("{who}: chat {chat} ended without {what}")]
    Incomplete {
        /// Who missed it.
        who: Who,
        /// Where.
        chat: String,
        /// What.
        what: &'static str,
    },
    /// A student was never served.
    #[error("{missing} of {students} students were not served, student {first} among them")]
    NotServed {
        /// How many.
        missing: u32,
        /// Of how many.
        students: u32,
        /// The first of them.
        first: u32,
    },
    /// A frame that a client does not expect here.
    #[error("{who}: {what}")]
    Unexpected {
        /// Who got it.
        who: Who,
        /// What came.
        what: String,
    },
}
