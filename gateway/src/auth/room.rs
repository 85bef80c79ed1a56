//! Who somebody is in a room: what room tokens add to user tokens, and who people are where nothing is verified. Pure.

use std::time::Duration;

use switchboard_contract::names::UserId;
use switchboard_contract::room::{RANK_MEMBER, Rank};

use super::claims::{ClaimNames, Claims, RoomClaims, Said, TokenError};
use super::token::Token;

/// Who somebody is in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomUser {
    /// The user.
    pub user: UserId,
    /// The rank there.
    pub rank: Rank,
    /// Until when the room token counts, leeway included. Unix time; `None`: for ever.
    pub until: Option<Duration>,
}

/// What a join of a room says by itself. Only believed where nothing is verified.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoomJoin {
    /// `userId`, or `user_id`.
    pub user: Option<UserId>,
    /// `rank`.
    pub rank: Option<Rank>,
    /// `room_token`, or `token`.
    pub token: Option<Token>,
}

/// Who a user is in a room for which a verified token was given. The room's rank counts more than the user's.
///
/// # Errors
/// If the token is another room's, or another user's.
pub fn verified(user: &Claims, token: &RoomClaims, room: &str) -> Result<RoomUser, TokenError> {
    if *token.room != *room {
        return Err(TokenError::OtherRoom);
    }
    if token.user.as_ref().is_some_and(|of| *of != user.user) {
        return Err(TokenError::OtherUser);
    }
    let rank = token.rank.or(user.rank).unwrap_or(RANK_MEMBER);
    Ok(RoomUser { user: user.user.clone(), rank, until: token.until })
}

/// Who somebody is where nothing is verified: what the join says, else what the tokens say if they are JWTs, else the
/// user token itself, else nobody in particular, with `anybody` in the name.
pub fn believed(user_token: Option<&Token>, join: &RoomJoin, names: &ClaimNames, anybody: &str) -> RoomUser {
    let said = |token: Option<&Token>| token.and_then(|token| Said::unverified(token, names));
    let (user, room) = (said(user_token), said(join.token.as_ref()));
    let told = || [&user, &room].into_iter().flatten().find_map(|said| said.user().ok().flatten());
    let as_it_stands =
        || UserId::text(user_token?.as_str()).ok().filter(|id| user.is_none() && !id.as_str().contains(':'));
    let anon = || UserId::text(&format!("anon-{anybody}")).unwrap_or_else(|_| UserId::from(0));
    let ranks = || [&room, &user].into_iter().flatten().find_map(|said| said.rank().ok().flatten());
    RoomUser {
        user: join.user.clone().or_else(told).or_else(as_it_stands).unwrap_or_else(anon),
        rank: join.rank.or_else(ranks).unwrap_or(RANK_MEMBER),
        until: None,
    }
}
