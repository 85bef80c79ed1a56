//! Topics, and what a channel of each kind has to know. Pure.

use std::time::Instant;

use switchboard_contract::lobby::Role;
use switchboard_contract::names::{ChatId, FeedId, IdError, RoomId, UserId};

use super::topics::Told;
use crate::auth::Pass;

/// A topic that can be joined.
pub(super) enum Topic {
    Teachers,
    Student(UserId),
    Chat(Result<ChatId, IdError>),
    Room(RoomId),
    Feed(FeedId),
}

impl Topic {
    pub(super) fn parse(topic: &str) -> Option<Topic> {
        if topic == "presence:teachers" {
            return Some(Topic::Teachers);
        }
        if let Some(id) = topic.strip_prefix("presence:student:") {
            return UserId::text(id).ok().map(Topic::Student);
        }
        if let Some(id) = topic.strip_prefix("room:") {
            return RoomId::new(id).ok().map(Topic::Room);
        }
        if let Some(feed) = topic.strip_prefix("feed:") {
            return FeedId::new(feed).ok().map(Topic::Feed);
        }
        match topic.strip_prefix("chats:")? {
            "" => None,
            id => Some(Topic::Chat(ChatId::new(id))),
        }
    }
}

/// What a channel is joined to.
#[derive(Debug)]
pub(super) enum Kind {
    Teachers {
        id: UserId,
        status_version: u64,
        claimed: Option<Instant>,
        told: Vec<Told>,
    },
    Student {
        id: UserId,
        told: Vec<Told>,
    },
    Chat {
        chat: ChatId,
        role: Role,
        user: UserId,
    },
    Room {
        room: RoomId,
        /// As whom; `None`: it is being found out.
        user: Option<UserId>,
        /// When its token's time is over, if ever.
        until: Option<Instant>,
        /// Up to which version presence has been shown; 0: it has no state yet.
        presence: u64,
    },
    Feed {
        feed: FeedId,
        /// As whom, where that is verified.
        user: Option<UserId>,
        /// What it had to show.
        pass: Pass,
        /// Up to which version its events have been shown.
        shown: u64,
    },
}

impl Kind {
    /// As whom the channel is joined, or is about to be; `None`: nobody in particular, or that is being
    /// found out.
    pub(super) fn user(&self) -> Option<&UserId> {
        match self {
            Kind::Teachers { id, .. } | Kind::Student { id, .. } => Some(id),
            Kind::Chat { user, .. } => Some(user),
            Kind::Room { user, .. } | Kind::Feed { user, .. } => user.as_ref(),
        }
    }

    /// Its number, as metrics count it.
    pub(super) fn number(&self) -> usize {
        match self {
            Kind::Teachers { .. } => 0,
            Kind::Student { .. } => 1,
            Kind::Chat { .. } => 2,
            Kind::Room { .. } => 3,
            Kind::Feed { .. } => 4,
        }
    }

    /// Which feed it is, and what it was joined with.
    pub(super) fn feed(&self) -> Option<(&FeedId, Pass)> {
        let Kind::Feed { feed, pass, .. } = self else { return None };
        Some((feed, *pass))
    }

    pub(super) fn room(&self) -> Option<&RoomId> {
        let Kind::Room { room, .. } = self else { return None };
        Some(room)
    }

    /// When the time of a room's token is over, if ever.
    pub(super) fn until(&self) -> Option<Instant> {
        let Kind::Room { until, .. } = self else { return None };
        *until
    }

    pub(super) fn admitted(&mut self, who: UserId) {
        if let Kind::Room { user, .. } = self {
            *user = Some(who);
        }
    }

    pub(super) fn ends(&mut self, at: Option<Instant>) {
        if let Kind::Room { until, .. } = self {
            *until = at;
        }
    }
}
