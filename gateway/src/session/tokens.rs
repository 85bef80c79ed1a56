//! The tokens of a socket and of its rooms, those that take their place, and how a room's comes to its end. Pure.

use std::time::Instant;

use switchboard_contract::lobby::ChannelId;
use switchboard_contract::names::UserId;
use switchboard_contract::reason::Reason;

use super::topics::Channel;
use super::{Effect, Session};
use crate::auth::{Identity, Pass, Renewed};
use crate::frame::Frame;
use crate::limiter::Refused;
use crate::mailbox::Outcome;
use crate::payload::{self, AccessToken, Refusal};

impl Session {
    /// `access_token` on a joined topic: what to do before [`crate::mailbox::Event::Renewed`] comes. Nothing where
    /// nothing is verified: a client that renews in time need not know.
    pub(super) fn access_token(&self, at: usize, frame: &Frame<'_>, serial: u32) -> Result<Option<Effect>, Refusal> {
        let AccessToken { token } = payload::read(frame.payload)?;
        Ok(match self.identity {
            Identity::Open(_) => None,
            Identity::Verified(_) => {
                let Channel { chan, kind, .. } = &self.channels[at];
                Some(Effect::Verify { chan: *chan, serial, room: kind.room().cloned(), token })
            }
        })
    }

    /// It is known as whom a room's channel joins, and until when its token counts.
    ///
    /// # Errors
    /// If the user joins too much.
    pub fn admitted(
        &mut self,
        chan: ChannelId,
        user: &UserId,
        until: Option<Instant>,
        now: Instant,
    ) -> Result<(), Refused> {
        if let Some(channel) = self.channels.iter_mut().find(|c| c.chan == chan) {
            channel.kind.admitted(user.clone());
            self.ends(chan, until);
        }
        self.limits.users.join(user, now)
    }

    /// Whether this socket is that user's: as its token says, or as it has joined anything, or is about to.
    pub fn is(&self, user: &UserId) -> bool {
        let verified = matches!(&self.identity, Identity::Verified(verified) if verified.claims.user == *user);
        verified || self.channels.iter().any(|channel| channel.kind.user() == Some(user))
    }

    /// A room's channel ends at this time, if ever. One that ends sooner than before does so: whoever renews wants that.
    fn ends(&mut self, chan: ChannelId, until: Option<Instant>) {
        if let Some(channel) = self.channels.iter_mut().find(|c| c.chan == chan) {
            channel.kind.ends(until);
        }
        self.wake = until.map_or(self.wake, |until| until.min(self.wake));
    }

    /// Ends the channels of rooms whose tokens' time is over. The socket lives on.
    pub(super) fn expire(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let over = |channel: &Channel| channel.kind.until().is_some_and(|until| until <= now);
        while let Some(at) = self.channels.iter().position(over) {
            let channel = self.remove(at);
            tracing::debug!(topic = &*channel.topic, "a room's token has expired");
            // A push may have happened all the same; a join has not, nor what has only waited.
            let reason = if channel.joined { Reason::Unavailable } else { Reason::TokenExpired };
            if let Some(request) = &channel.pending {
                self.refuse_request(&channel, request, reason, out);
            }
            for frame in channel.waiting.iter().filter_map(|(_, w)| w.decode(self.vsn)) {
                let result = if frame.event == "phx_leave" { Ok("{}") } else { Err(Reason::TokenExpired.into()) };
                let join_ref = channel.join_ref.as_ref();
                self.reply(join_ref, frame.reference.as_ref(), &channel.topic, result, out);
            }
            if channel.joined {
                self.end_channel(&channel, "phx_close", out);
            }
            channel.gone(false, out);
        }
    }

    /// The token was verified, or not: the answer to `access_token`.
    pub(super) fn renewed(&mut self, chan: ChannelId, renewed: Result<Renewed, Refusal>) -> Outcome {
        let outcome = renewed.and_then(|renewed| match renewed {
            Renewed::User(identity) => self.renew(identity),
            Renewed::Room(until) => {
                self.ends(chan, until);
                Ok(())
            }
        });
        match outcome {
            Ok(()) => Outcome::Ok("{}".into()),
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    /// Takes a token in the place of the one before it: the same user's, and for the roles and feeds of all that is
    /// joined, or being joined.
    fn renew(&mut self, renewed: Identity) -> Result<(), Refusal> {
        if let Identity::Verified(now) = &self.identity {
            renewed.check(&now.claims.user, None)?;
        }
        for role in self.channels.iter().filter_map(Channel::role) {
            renewed.check_role(role)?;
        }
        for (feed, pass) in self.channels.iter().filter_map(|channel| channel.kind.feed()) {
            // It is not known here whether the feed asks for a token that names it; who has shown the secret needs none.
            if pass < Pass::Secret && renewed.check_feed(feed.name())? < pass {
                return Err(Reason::Unauthorized.into());
            }
        }
        // A token that ends sooner counts as well: whoever has it wants that.
        self.wake = renewed.expires().map_or(self.wake, |expires| expires.min(self.wake));
        self.identity = renewed;
        Ok(())
    }
}
