//! What a token says, and whether that counts: signature, audience, time, claims. Pure.

use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use serde::Deserialize as _;
use serde_json::{Map, Value};
use switchboard_contract::limits::TOKEN_BYTES_MAX;
use switchboard_contract::lobby::Role;
use switchboard_contract::names::UserId;
use switchboard_contract::reason::Reason;

use super::keys::Key;
use super::token::Token;

/// Why a token does not count. Its texts are for clients and logs, and hold nothing of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error("missing")]
    Missing,
    /// It is larger than [`TOKEN_BYTES_MAX`].
    #[error("larger than {TOKEN_BYTES_MAX} bytes")]
    TooLarge,
    /// It is no JWT, or its `alg` is none that is known here; `none` is not.
    #[error("no JWT, or of an unknown alg")]
    Malformed,
    /// No key is for its `alg`.
    #[error("its alg is not allowed here")]
    Algorithm,
    /// It names a key that is not known.
    #[error("signed with an unknown key")]
    UnknownKey,
    /// The signature is another key's, or another text's.
    #[error("its signature does not fit")]
    Signature,
    /// It is for somebody else.
    #[error("for another audience")]
    Audience,
    /// Its time is over.
    #[error("expired")]
    Expired,
    /// Its time has not come.
    #[error("not valid yet")]
    NotYet,
    /// A claim is missing.
    #[error("without a claim that is needed: {0}")]
    Without(Claim),
    /// A claim is not of its type.
    #[error("a claim is malformed: {0}")]
    Claim(Claim),
    /// A room's token, where a user's is needed.
    #[error("a room's token, and no user's")]
    OfRoom,
    /// Another room's token.
    #[error("for another room")]
    OtherRoom,
    /// Another user's token.
    #[error("for another user")]
    OtherUser,
}

impl TokenError {
    /// What a join or a push is refused with.
    pub fn reason(self) -> Reason {
        if self == TokenError::Expired { Reason::TokenExpired } else { Reason::Unauthorized }
    }
}

/// A claim of a token, by its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// `exp`.
    Expires,
    /// `nbf`.
    NotBefore,
    /// Whose token it is.
    User,
    /// As what the user may join.
    Role,
    /// The user's rank.
    Rank,
    /// The feeds that the user may join.
    Feeds,
    /// The room that the token is for.
    Room,
}

impl std::fmt::Display for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Claim::Expires => "exp",
            Claim::NotBefore => "nbf",
            Claim::User => "user",
            Claim::Role => "role",
            Claim::Rank => "rank",
            Claim::Feeds => "feeds",
            Claim::Room => "room",
        })
    }
}

/// Under which names tokens carry their claims.
#[derive(Clone, Debug)]
pub struct ClaimNames {
    /// Whose token it is.
    pub user: String,
    /// As what the user may join.
    pub role: String,
    /// The user's rank.
    pub rank: String,
    /// The feeds that the user may join.
    pub feeds: String,
    /// The room that the token is for.
    pub room: String,
}

impl Default for ClaimNames {
    fn default() -> Self {
        let [user, role, rank, feeds, room] = ["sub", "role", "rank", "feeds", "room"].map(str::to_owned);
        ClaimNames { user, role, rank, feeds, room }
    }
}

/// What tokens have to fulfil.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// One of these must stand in `aud`; empty: `aud` is not looked at.
    pub audience: Vec<String>,
    /// Under which names tokens carry their claims.
    pub names: ClaimNames,
    /// How far clocks may differ.
    pub leeway: Duration,
}

/// What a user's token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Whose it is.
    pub user: UserId,
    /// As what the user may join; `None`: as anything.
    pub role: Option<Box<str>>,
    /// The rank in rooms.
    pub rank: Option<i64>,
    /// The feeds that may be joined; `None`: the token says nothing of feeds.
    pub feeds: Option<Vec<String>>,
    /// From when it does not count any more, leeway included. Unix time; `None`: never.
    pub until: Option<Duration>,
}

impl Claims {
    /// Whether these are this user's, in this role.
    pub fn are_of(&self, user: &UserId, role: Option<Role>) -> bool {
        self.user == *user && role.is_none_or(|role| self.allow(role))
    }

    /// Whether the user may join in this role.
    pub fn allow(&self, role: Role) -> bool {
        let name = match role {
            Role::Teacher => "teacher",
            Role::Student => "student",
        };
        self.role.as_deref().is_none_or(|only| only == name)
    }
}

/// What a room's token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomClaims {
    /// For which room.
    pub room: Box<str>,
    /// For whom; `None`: for whoever has it.
    pub user: Option<UserId>,
    /// The rank in this room; `None`: the user's.
    pub rank: Option<i64>,
    /// As [`Claims::until`].
    pub until: Option<Duration>,
}

/// A token of either kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Either {
    /// A user's.
    User(Claims),
    /// A room's.
    Room(RoomClaims),
}

/// What a token says, under the names that it has there.
pub(super) struct Said<'a> {
    claims: Map<String, Value>,
    names: &'a ClaimNames,
}

/// Verifies a token at this unix time, and reads what it says. A token with the claim `room` is a room's, and no
/// user's, whatever else stands in it: else a token for one room would open the lobby.
///
/// # Errors
/// See [`TokenError`].
pub fn verify<'a>(
    token: &Token,
    keys: impl Iterator<Item = &'a Key> + Clone,
    rules: &Rules,
    now: Duration,
) -> Result<Either, TokenError> {
    let claims = signed(token, keys)?;
    let said = Said { claims, names: &rules.names };
    if !rules.audience.is_empty() && !said.is_for(&rules.audience) {
        return Err(TokenError::Audience);
    }
    let until = said.time("exp", Claim::Expires)?.map(|exp| exp.saturating_add(rules.leeway));
    if until.is_some_and(|until| now >= until) {
        return Err(TokenError::Expired);
    }
    if said.time("nbf", Claim::NotBefore)?.is_some_and(|nbf| now.saturating_add(rules.leeway) < nbf) {
        return Err(TokenError::NotYet);
    }
    said.read(until)
}

/// What a token says if its signature fits one of the keys.
fn signed<'a>(token: &Token, keys: impl Iterator<Item = &'a Key> + Clone) -> Result<Map<String, Value>, TokenError> {
    if token.as_str().len() > TOKEN_BYTES_MAX {
        return Err(TokenError::TooLarge);
    }
    let header = decode_header(token.as_str()).map_err(|_| TokenError::Malformed)?;
    // Extensions that have to be understood: none is.
    if header.crit.is_some() {
        return Err(TokenError::Malformed);
    }
    let kid = header.kid.as_deref();
    let mut error = TokenError::Algorithm;
    for key in keys.clone().filter(|key| key.algorithm == header.alg && key.fits(kid)) {
        let mut validation = Validation::new(key.algorithm);
        validation.required_spec_claims.clear();
        // Looked at behind the signature, with a clock that is given.
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        match decode::<Map<String, Value>>(token.as_str(), &key.key, &validation) {
            Ok(data) => return Ok(data.claims),
            Err(failed) if matches!(failed.kind(), ErrorKind::InvalidSignature) => error = TokenError::Signature,
            Err(_) => error = TokenError::Malformed,
        }
    }
    let unknown = kid.is_some_and(|kid| !keys.clone().any(|key| key.kid.as_deref() == Some(kid)));
    Err(if unknown && error != TokenError::Malformed { TokenError::UnknownKey } else { error })
}

impl<'a> Said<'a> {
    /// What a token says that nobody has verified; `None` if it is no JWT.
    pub(super) fn unverified(token: &Token, names: &'a ClaimNames) -> Option<Self> {
        let small = token.as_str().len() <= TOKEN_BYTES_MAX;
        let claims = small.then(|| jsonwebtoken::dangerous::insecure_decode_claims(token.as_str()).ok())??;
        Some(Said { claims, names })
    }

    fn is_for(&self, audience: &[String]) -> bool {
        let one = |value: &Value| value.as_str().is_some_and(|name| audience.iter().any(|own| own == name));
        match self.claims.get("aud") {
            Some(Value::Array(names)) => names.iter().any(one),
            Some(name) => one(name),
            None => false,
        }
    }

    /// A time, in unix seconds that may have a fraction.
    fn time(&self, name: &str, claim: Claim) -> Result<Option<Duration>, TokenError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let seconds = value.as_f64().filter(|seconds| seconds.is_finite()).ok_or(TokenError::Claim(claim))?;
        Ok(Some(match value.as_u64() {
            Some(seconds) => Duration::from_secs(seconds),
            None => Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX),
        }))
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.claims.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn user(&self) -> Result<Option<UserId>, TokenError> {
        let user = self.get(&self.names.user).map(UserId::deserialize).transpose();
        user.map_err(|_| TokenError::Claim(Claim::User))
    }

    pub(super) fn rank(&self) -> Result<Option<i64>, TokenError> {
        let rank = self.get(&self.names.rank).map(|value| value.as_i64().ok_or(TokenError::Claim(Claim::Rank)));
        rank.transpose()
    }

    fn text(&self, name: &str, claim: Claim) -> Result<Option<Box<str>>, TokenError> {
        let text = self.get(name).map(|value| value.as_str().map(Into::into).ok_or(TokenError::Claim(claim)));
        text.transpose()
    }

    fn feeds(&self) -> Result<Option<Vec<String>>, TokenError> {
        let feeds = self.get(&self.names.feeds).map(Vec::deserialize).transpose();
        feeds.map_err(|_| TokenError::Claim(Claim::Feeds))
    }

    fn read(&self, until: Option<Duration>) -> Result<Either, TokenError> {
        let (user, rank) = (self.user()?, self.rank()?);
        // Ids of rooms are text; an issuer may still write 5 for "5".
        let room = match self.get(&self.names.room) {
            Some(Value::Number(number)) => Some(number.to_string().into()),
            Some(_) | None => self.text(&self.names.room, Claim::Room)?,
        };
        if let Some(room) = room {
            return Ok(Either::Room(RoomClaims { room, user, rank, until }));
        }
        let user = user.ok_or(TokenError::Without(Claim::User))?;
        let role = self.text(&self.names.role, Claim::Role)?;
        Ok(Either::User(Claims { user, role, rank, feeds: self.feeds()?, until }))
    }
}
