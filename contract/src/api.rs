//! What the HTTP API of one gateway tells all gateways.

use serde::{Deserialize, Serialize};

use crate::names::UserId;
use crate::wire::V1;

/// Close every socket of a user: [`crate::names::GATEWAYS_DISCONNECT`], without an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disconnect {
    /// Always 1.
    pub v: V1,
    /// Whose.
    pub user: UserId,
}
