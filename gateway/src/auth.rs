//! Who a socket is: its token verified (`--auth jwt`), or believed (`--auth open`).
//!
//! `token`, `keys`, `claims` and `room` decide, and know neither tokio nor the clock; `jwks` keeps keys up to date;
//! here they meet, and the clock is read.

pub mod args;
pub mod claims;
pub mod jwks;
pub mod keys;
pub mod room;
pub mod token;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use switchboard_contract::lobby::Role;
use switchboard_contract::names::UserId;
use switchboard_contract::reason::Reason;
use switchboard_contract::room::RANK_MEMBER;

use claims::{Claim, ClaimNames, Claims, Either, Rules, TokenError, verify};
use jwks::Jwks;
use keys::Key;
use room::{RoomJoin, RoomUser};
use token::Token;

/// How this gateway treats tokens.
#[derive(Clone, Debug)]
pub enum Auth {
    /// Nothing is verified.
    Open(ClaimNames),
    /// Tokens are verified.
    Jwt(Arc<Verifier>),
}

/// Who a socket is.
#[derive(Clone, Debug, PartialEq)]
pub enum Identity {
    /// Anybody it says, with the token that it came with.
    Open(Option<Token>),
    /// Whom its token names.
    Verified(Box<Verified>),
}

/// What somebody has to show for itself who joins a feed: each is as good as those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pass {
    /// A token that says nothing of feeds.
    Nothing,
    /// A token that names the feed; or nothing is verified.
    Token,
    /// The secret of the HTTP API.
    Secret,
}

/// What is known of a socket whose token was verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// What the token says.
    pub claims: Claims,
    /// When the socket is closed unless the token is renewed; `None`: never.
    pub expires: Option<Instant>,
}

impl Verified {
    fn new(claims: Claims) -> Self {
        let expires = deadline(claims.until);
        Verified { claims, expires }
    }
}

impl Identity {
    /// Whether this may join as that user, in that role.
    ///
    /// # Errors
    /// [`Reason::Unauthorized`].
    pub fn check(&self, user: &UserId, role: Option<Role>) -> Result<(), Reason> {
        match self {
            Identity::Verified(verified) if !verified.claims.are_of(user, role) => Err(Reason::Unauthorized),
            Identity::Verified(_) | Identity::Open(_) => Ok(()),
        }
    }

    /// Whether this may be joined in that role.
    ///
    /// # Errors
    /// [`Reason::Unauthorized`].
    pub fn check_role(&self, role: Role) -> Result<(), Reason> {
        match self {
            Identity::Verified(verified) if !verified.claims.allow(role) => Err(Reason::Unauthorized),
            Identity::Verified(_) | Identity::Open(_) => Ok(()),
        }
    }

    /// Whose the verified token is.
    pub fn user(&self) -> Option<&UserId> {
        match self {
            Identity::Verified(verified) => Some(&verified.claims.user),
            Identity::Open(_) => None,
        }
    }

    /// What the token is for who joins the feed of this name.
    ///
    /// # Errors
    /// [`Reason::Unauthorized`]: it names other feeds.
    pub fn check_feed(&self, name: &str) -> Result<Pass, Reason> {
        let Identity::Verified(verified) = self else { return Ok(Pass::Token) };
        match &verified.claims.feeds {
            Some(feeds) if feeds.iter().any(|feed| feed == name) => Ok(Pass::Token),
            Some(_) => Err(Reason::Unauthorized),
            None => Ok(Pass::Nothing),
        }
    }

    /// When the socket is to be closed, if ever.
    pub fn expires(&self) -> Option<Instant> {
        match self {
            Identity::Verified(verified) => verified.expires,
            Identity::Open(_) => None,
        }
    }
}

/// What a token has renewed that came by `access_token`.
#[derive(Clone, Debug, PartialEq)]
pub enum Renewed {
    /// The socket's.
    User(Identity),
    /// That of the room's channel on which it came, which now ends at this time, if ever.
    Room(Option<Instant>),
}

/// The keys, and what tokens have to fulfil.
#[derive(Debug)]
pub struct Verifier {
    keys: Vec<Key>,
    jwks: Option<Jwks>,
    rules: Rules,
}

impl Verifier {
    /// Verifies with all of these keys.
    pub fn new(keys: Vec<Key>, jwks: Option<Jwks>, rules: Rules) -> Verifier {
        Verifier { keys, jwks, rules }
    }

    /// Verifies a token. Where it names a key that is not known, the JWKS is read once more.
    async fn verify(&self, token: Option<&Token>) -> Result<Either, TokenError> {
        let token = token.ok_or(TokenError::Missing)?;
        let outcome = match (self.verify_now(token), &self.jwks) {
            (Err(TokenError::UnknownKey), Some(jwks)) if jwks.read_again().await => self.verify_now(token),
            (outcome, _) => outcome,
        };
        if let Err(error) = outcome {
            metrics::counter!("switchboard_gateway_tokens_refused_total", "reason" => error.reason().as_str())
                .increment(1);
        }
        outcome
    }

    fn verify_now(&self, token: &Token) -> Result<Either, TokenError> {
        let published = self.jwks.as_ref().map(Jwks::keys);
        let published = published.iter().flat_map(|keys| keys.iter());
        verify(token, self.keys.iter().chain(published), &self.rules, unix_now())
    }
}

impl Auth {
    /// Who a socket is that comes with this token, or with none.
    ///
    /// # Errors
    /// If the token does not count.
    pub async fn admit(&self, token: Option<Token>) -> Result<Identity, TokenError> {
        match self {
            Auth::Open(_) => Ok(Identity::Open(token)),
            Auth::Jwt(verifier) => match verifier.verify(token.as_ref()).await? {
                Either::User(claims) => Ok(Identity::Verified(Box::new(Verified::new(claims)))),
                Either::Room(_) => Err(TokenError::OfRoom),
            },
        }
    }

    /// Who a socket is in a room that it joins: with `--auth jwt`, it needs that room's token.
    ///
    /// # Errors
    /// If a token does not count there.
    pub async fn join_room(&self, socket: &Identity, room: &str, join: &RoomJoin) -> Result<RoomUser, TokenError> {
        match (self, socket) {
            (Auth::Jwt(verifier), Identity::Verified(user)) => match verifier.verify(join.token.as_ref()).await? {
                Either::Room(token) => room::verified(&user.claims, &token, room),
                Either::User(_) => Err(TokenError::Without(Claim::Room)),
            },
            (Auth::Jwt(_), Identity::Open(_)) => Err(TokenError::Missing),
            (Auth::Open(names), Identity::Open(token)) => {
                Ok(room::believed(token.as_ref(), join, names, &format!("{:08x}", rand::random::<u32>())))
            }
            (Auth::Open(_), Identity::Verified(user)) => Ok(RoomUser {
                user: user.claims.user.clone(),
                rank: user.claims.rank.unwrap_or(RANK_MEMBER),
                until: None,
            }),
        }
    }

    /// What a token renews that comes on a room's topic: the room's, or the socket's.
    ///
    /// # Errors
    /// If it does not count there; and where nothing is verified, as there is nothing to renew.
    pub async fn renew_in_room(&self, socket: &Identity, room: &str, token: &Token) -> Result<Renewed, TokenError> {
        let (Auth::Jwt(verifier), Identity::Verified(user)) = (self, socket) else { return Err(TokenError::Missing) };
        match verifier.verify(Some(token)).await? {
            Either::Room(token) => {
                room::verified(&user.claims, &token, room).map(|who| Renewed::Room(deadline(who.until)))
            }
            Either::User(claims) if claims.user != user.claims.user => Err(TokenError::OtherUser),
            Either::User(claims) => Ok(Renewed::User(Identity::Verified(Box::new(Verified::new(claims))))),
        }
    }
}

/// When what counts until this unix time is over; `None`: never. The deadline is what is left now: a clock that is set
/// later does not move it.
pub fn deadline(until: Option<Duration>) -> Option<Instant> {
    until.and_then(|until| Instant::now().checked_add(until.saturating_sub(unix_now())))
}

/// The time since 1970; a clock that stands before it is at its beginning.
fn unix_now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
