//! Who joins a room: the one place that decides it. Pure.

use switchboard_contract::names::{UserId, random_token};
use switchboard_contract::room::{RANK_MEMBER, Rank};

/// Who a joiner says it is.
#[derive(Debug, Default)]
pub(crate) struct Claimed<'a> {
    /// The join's own.
    pub(crate) user: Option<UserId>,
    /// The join's own.
    pub(crate) rank: Option<Rank>,
    /// The socket's user token.
    pub(crate) user_token: Option<&'a str>,
}

/// The user and its rank, nothing being verified. A token that cannot be an id in a room counts as none.
pub(crate) fn identify(claimed: Claimed<'_>) -> (UserId, Rank) {
    let Claimed { user, rank, user_token } = claimed;
    let token = || user_token.filter(|token| !token.contains(':')).and_then(|token| UserId::text(token).ok());
    let user = user.or_else(token).unwrap_or_else(anonymous);
    (user, rank.unwrap_or(RANK_MEMBER))
}

fn anonymous() -> UserId {
    match UserId::text(&format!("anon-{}", random_token(8))) {
        Ok(user) => user,
        Err(error) => unreachable!("a short name is an id: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_joins_own_goes_before_the_token_and_nobody_is_anonymous() {
        let user = |user: Option<u64>, user_token| {
            let claimed = Claimed { user: user.map(UserId::from), rank: None, user_token };
            identify(claimed).0.as_str().to_owned()
        };
        assert_eq!(user(Some(5), Some("ada")), "5");
        assert_eq!(user(None, Some("ada")), "ada");
        for none in [None, Some(""), Some("a:b")] {
            assert!(user(None, none).starts_with("anon-"), "{none:?}");
        }
        assert_eq!(identify(Claimed::default()).1, RANK_MEMBER);
        assert_eq!(identify(Claimed { rank: Some(100), ..Claimed::default() }).1, 100);
    }
}
