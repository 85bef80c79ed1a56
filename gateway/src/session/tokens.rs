//! The token of a socket, and the one that takes its place. Pure.

use super::topics::Channel;
use super::{Effect, Session};
use crate::auth::Identity;
use crate::frame::Frame;
use crate::mailbox::Outcome;
use crate::payload::{self, AccessToken, Refusal};

impl Session {
    /// `access_token` on a joined topic: what to do before [`crate::mailbox::Event::Renewed`] comes. Nothing where
    /// nothing is verified: a client that renews in time need not know.
    pub(super) fn access_token(&self, at: usize, frame: &Frame<'_>, serial: u32) -> Result<Option<Effect>, Refusal> {
        let AccessToken { token } = payload::read(frame.payload)?;
        Ok(match self.identity {
            Identity::Open(_) => None,
            Identity::Verified(_) => Some(Effect::Verify { chan: self.channels[at].chan, serial, token }),
        })
    }

    /// The token was verified, or not: the answer to `access_token`.
    pub(super) fn renewed(&mut self, identity: Result<Identity, Refusal>) -> Outcome {
        match identity.and_then(|identity| self.renew(identity)) {
            Ok(()) => Outcome::Ok("{}".into()),
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    /// Takes a token in the place of the one before it: the same user's, and for the roles of all that is joined, or
    /// being joined.
    fn renew(&mut self, renewed: Identity) -> Result<(), Refusal> {
        if let Identity::Verified(now) = &self.identity {
            renewed.check(&now.claims.user, None)?;
        }
        for role in self.channels.iter().filter_map(Channel::role) {
            renewed.check_role(role)?;
        }
        // A token that ends sooner counts as well: whoever has it wants that.
        self.wake = renewed.expires().map_or(self.wake, |expires| expires.min(self.wake));
        self.identity = renewed;
        Ok(())
    }
}
