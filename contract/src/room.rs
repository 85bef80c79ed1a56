//! Rooms: their state as the log's order decides it, their record in KV `rooms`, and their keywords.
//!
//! A log entry `room:state` holds a change and not the whole state: two moderators at two gateways cannot undo each
//! other. Gateways and history apply the same entries in the same order, so they agree on who is quiet, and when.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::{GRANTS_MAX, TITLE_BYTES_MAX};
use crate::names::UserId;
use crate::wire::V1;

/// What a user may do in a room. Larger is more.
pub type Rank = i64;

/// Who looks in.
pub const RANK_VISITOR: Rank = 0;
/// Who takes part; the default.
pub const RANK_MEMBER: Rank = 10;
/// Who may talk in a quiet room, unless it says otherwise.
pub const RANK_VIP: Rank = 50;
/// Who may change the room's state, and whom no limit holds back.
pub const RANK_MODERATOR: Rank = 100;

/// An entry of a room's log that is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomEvent {
    /// A [`Change`] of the state; the first one begins the room's life.
    State,
    /// The room's life is over: everybody forgets it.
    Tombstone,
}

impl RoomEvent {
    /// The event's name in the log. No client and no user of the HTTP API can send one of these.
    pub const fn as_str(self) -> &'static str {
        match self {
            RoomEvent::State => "room:state",
            RoomEvent::Tombstone => "phx_tombstone",
        }
    }

    /// Reads an event's name; `None`: a message.
    pub fn parse(event: &str) -> Option<Self> {
        [RoomEvent::State, RoomEvent::Tombstone].into_iter().find(|known| known.as_str() == event)
    }
}

/// A change of a room's state: the payload of a log entry `room:state`. What is missing stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change<'a> {
    /// At most [`TITLE_BYTES_MAX`].
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub title: Option<Cow<'a, str>>,
    /// Whether only some may talk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<bool>,
    /// From which rank on one may talk while it is quiet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_rank: Option<Rank>,
    /// A user's rank in this room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<Grant>,
    /// The change ends by itself: unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// What ends at this time, or before, has ended: unix milliseconds. Only history says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired: Option<u64>,
}

/// What a grant takes in memory beyond the user's id, estimated. Bytes.
const GRANT_BYTES: usize = 96;

/// A user's rank in a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Whose.
    pub user_id: UserId,
    /// Instead of the one in the user's token.
    pub rank: Rank,
}

/// A value, and what it goes back to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Timed<T> {
    value: T,
    /// When, in unix milliseconds, and to what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    back: Option<(u64, T)>,
}

impl<T: Clone> Timed<T> {
    fn set(&mut self, value: T, until: Option<u64>) {
        let before = std::mem::replace(&mut self.value, value);
        // A second change with a time does not go back to the first one, which is over by then.
        self.back = until.map(|until| (until, self.back.take().map_or(before, |(_, base)| base)));
    }

    fn expire(&mut self, now: u64) -> bool {
        match self.back.take_if(|(until, _)| *until <= now) {
            Some((_, base)) => {
                self.value = base;
                true
            }
            None => false,
        }
    }

    fn until(&self) -> Option<u64> {
        self.back.as_ref().map(|(until, _)| *until)
    }
}

/// A room's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomState {
    title: Timed<Option<Box<str>>>,
    quiet: Timed<bool>,
    quiet_rank: Timed<Rank>,
    /// At most [`GRANTS_MAX`]; one whose rank is `None` is about to go.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    grants: BTreeMap<UserId, Timed<Option<Rank>>>,
}

impl Default for RoomState {
    fn default() -> Self {
        RoomState {
            title: Timed::default(),
            quiet: Timed::default(),
            quiet_rank: Timed { value: RANK_VIP, back: None },
            grants: BTreeMap::new(),
        }
    }
}

/// Who wrote an entry: the user, and the rank of its token. `None`: the system, or the HTTP API.
pub type Author<'a> = Option<(&'a UserId, Rank)>;

impl RoomState {
    /// The rank that a user has here; `own` is that of its token.
    pub fn rank(&self, user: &UserId, own: Rank) -> Rank {
        self.grants.get(user).and_then(|grant| grant.value).unwrap_or(own)
    }

    /// Whether what this author says now is void, because the room is quiet.
    pub fn silences(&self, author: Author<'_>) -> bool {
        self.quiet.value && author.is_some_and(|(user, own)| self.rank(user, own) < self.quiet_rank.value)
    }

    /// Applies an entry `room:state`. `false`: it is void, for its author is no moderator, or there is no room for
    /// another grant.
    pub fn apply(&mut self, author: Author<'_>, change: &Change<'_>) -> bool {
        if author.is_some_and(|(user, own)| self.rank(user, own) < RANK_MODERATOR) {
            return false;
        }
        if let Some(grant) = &change.grant {
            if !self.grants.contains_key(&grant.user_id) && self.grants.len() >= GRANTS_MAX {
                return false;
            }
            self.grants.entry(grant.user_id.clone()).or_default().set(Some(grant.rank), change.until);
        }
        if let Some(title) = &change.title {
            let mut end = title.len().min(TITLE_BYTES_MAX);
            while !title.is_char_boundary(end) {
                end -= 1;
            }
            self.title.set(Some(title[..end].into()), change.until);
        }
        if let Some(quiet) = change.quiet {
            self.quiet.set(quiet, change.until);
        }
        if let Some(rank) = change.quiet_rank {
            self.quiet_rank.set(rank, change.until);
        }
        if let (Some(now), None) = (change.expired, author) {
            self.title.expire(now);
            self.quiet.expire(now);
            self.quiet_rank.expire(now);
            self.grants.retain(|_, grant| !(grant.expire(now) && grant.value.is_none()));
        }
        true
    }

    /// When the next change ends by itself, in unix milliseconds. Whoever leads history then logs a [`Change`] with
    /// that time as `expired`.
    pub fn next_end(&self) -> Option<u64> {
        let fields = [self.title.until(), self.quiet.until(), self.quiet_rank.until()];
        fields.into_iter().chain(self.grants.values().map(Timed::until)).flatten().min()
    }

    /// What it takes in memory beyond itself, estimated. Bytes.
    pub fn heap_bytes(&self) -> usize {
        let title = |title: &Option<Box<str>>| title.as_ref().map_or(0, |title| title.len());
        let base = self.title.back.as_ref().map_or(0, |(_, base)| title(base));
        let grants: usize = self.grants.keys().map(|user| GRANT_BYTES + user.as_str().len()).sum();
        title(&self.title.value) + base + grants
    }

    /// The state as clients see it in `room:state`, with what was `granted` by the entry that led to it.
    pub fn shown(&self, granted: Option<&Grant>) -> String {
        let mut shown = serde_json::json!({
            "title": self.title.value,
            "quiet": self.quiet.value,
            "quiet_rank": self.quiet_rank.value,
        });
        if let (Some(granted), Some(shown)) = (granted, shown.as_object_mut()) {
            shown.insert("granted".to_owned(), serde_json::json!(granted));
        }
        shown.to_string()
    }
}

/// A room in KV `rooms`: its life, and a snapshot of its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomRecord {
    /// Always 1.
    pub v: V1,
    /// The sequence of the `room:state` that began this life.
    pub since: u64,
    /// Whether it is about to be wiped.
    pub phase: Phase,
    /// The sequence of the last entry that is in `state`.
    pub seq: u64,
    /// The snapshot. The log is the truth.
    pub state: RoomState,
}

/// Where a room is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is in use, or was a moment ago.
    Open,
    /// Nobody was there for the linger time: unless somebody comes, it is wiped.
    Closing,
}

/// A keyword of a room, as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyword {
    /// The word, in lower case.
    pub keyword: Box<str>,
    /// When it goes, unless it is used again: RFC 3339.
    pub expires_at: Box<str>,
}

/// What reaches the gateways of a room's members without being logged: published to its `sb.out` subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Live {
    /// The keywords have changed.
    Keywords {
        /// Always 1.
        v: V1,
        /// All of them; at most [`crate::limits::KEYWORDS_MAX`].
        keywords: Vec<Keyword>,
    },
}

/// What history knows of a room beside its messages: part of [`crate::log::ReadReply`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomView {
    /// The sequence of the `room:state` that began the room's life; 0: it has none.
    pub since: u64,
    /// As of the reply's `last_seq`.
    pub state: RoomState,
    /// At most [`crate::limits::KEYWORDS_MAX`].
    pub keywords: Vec<Keyword>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::text(name).expect("an id")
    }

    fn quiet(quiet: bool, until: Option<u64>) -> Change<'static> {
        Change { quiet: Some(quiet), until, ..Change::default() }
    }

    fn expired(now: u64) -> Change<'static> {
        Change { expired: Some(now), ..Change::default() }
    }

    fn grant(name: &str, rank: Rank, until: Option<u64>) -> Change<'static> {
        Change { grant: Some(Grant { user_id: user(name), rank }), until, ..Change::default() }
    }

    #[test]
    fn only_moderators_change_it_and_a_grant_counts() {
        let mut state = RoomState::default();
        let (a, b) = (user("a"), user("b"));
        assert!(!state.apply(Some((&a, RANK_VIP)), &quiet(true, None)));
        assert_eq!(state, RoomState::default());
        assert!(state.apply(Some((&b, RANK_MODERATOR)), &grant("a", RANK_MODERATOR, None)));
        assert!(state.apply(Some((&a, RANK_VIP)), &quiet(true, None)));
        assert!(state.apply(Some((&a, RANK_VIP)), &grant("b", RANK_VISITOR, None)));
        assert!(!state.apply(Some((&b, RANK_MODERATOR)), &quiet(false, None)), "its rank was taken away");
    }

    #[test]
    fn quiet_silences_who_is_below_its_rank() {
        let mut state = RoomState::default();
        let a = user("a");
        assert!(!state.silences(Some((&a, RANK_VISITOR))));
        state.apply(None, &quiet(true, None));
        assert!(state.silences(Some((&a, RANK_MEMBER))) && !state.silences(Some((&a, RANK_VIP))));
        assert!(!state.silences(None), "the HTTP API talks on");
        state.apply(None, &grant("a", RANK_VIP, None));
        assert!(!state.silences(Some((&a, RANK_MEMBER))));
        state.apply(None, &Change { quiet_rank: Some(RANK_MODERATOR), ..Change::default() });
        assert!(state.silences(Some((&a, RANK_MEMBER))));
    }

    #[test]
    fn what_has_a_time_goes_back_to_what_was_before_it() {
        let mut state = RoomState::default();
        state.apply(None, &quiet(true, Some(100)));
        state.apply(None, &quiet(false, Some(300)));
        state.apply(None, &grant("a", RANK_VIP, Some(200)));
        assert_eq!(state.next_end(), Some(200));
        state.apply(None, &expired(199));
        assert_eq!(state.rank(&user("a"), RANK_MEMBER), RANK_VIP);
        state.apply(None, &expired(200));
        assert_eq!((state.rank(&user("a"), RANK_MEMBER), state.next_end()), (RANK_MEMBER, Some(300)));
        state.apply(None, &quiet(true, None));
        state.apply(None, &expired(300));
        assert!(state.silences(Some((&user("a"), RANK_MEMBER))), "a later change without a time stays");
        assert_eq!(state.next_end(), None);
    }

    #[test]
    fn a_member_cannot_end_what_has_a_time() {
        let mut state = RoomState::default();
        state.apply(None, &quiet(true, Some(100)));
        state.apply(Some((&user("m"), RANK_MODERATOR)), &expired(100));
        assert_eq!(state.next_end(), Some(100), "only history says that time is over");
    }

    #[test]
    fn titles_and_grants_have_a_bound() {
        let mut state = RoomState::default();
        let long = "é".repeat(TITLE_BYTES_MAX);
        state.apply(None, &Change { title: Some(long.into()), ..Change::default() });
        assert!(state.title.value.as_ref().is_some_and(|title| title.len() <= TITLE_BYTES_MAX));
        for n in 0..GRANTS_MAX as u64 {
            assert!(state.apply(None, &grant(&n.to_string(), 1, None)));
        }
        assert!(!state.apply(None, &grant("one-more", 1, None)));
        assert!(state.apply(None, &grant("0", 2, None)));
    }

    #[test]
    fn live_messages_have_a_kind_and_a_version() {
        let live = Live::Keywords { v: V1, keywords: vec![Keyword { keyword: "tea".into(), expires_at: "t".into() }] };
        let json = r#"{"kind":"keywords","v":1,"keywords":[{"keyword":"tea","expires_at":"t"}]}"#;
        assert_eq!(serde_json::to_string(&live).expect("JSON"), json);
        assert_eq!(serde_json::from_str::<Live>(json).expect("it comes back"), live);
    }

    #[test]
    fn clients_see_the_whole_state() {
        let mut state = RoomState::default();
        assert_eq!(state.shown(None), r#"{"quiet":false,"quiet_rank":50,"title":null}"#);
        let change = grant("a", RANK_VIP, None);
        state.apply(None, &change);
        let shown: serde_json::Value = serde_json::from_str(&state.shown(change.grant.as_ref())).expect("JSON");
        assert_eq!(shown["granted"], serde_json::json!({"user_id": "a", "rank": 50}));
        let json = serde_json::to_string(&state).expect("JSON");
        assert_eq!(serde_json::from_str::<RoomState>(&json).expect("it comes back"), state);
    }
}
