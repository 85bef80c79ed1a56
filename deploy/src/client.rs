//! A Phoenix client, for load and tests.
//!
//! [`Socket`] is the lower layer: frames in, frames out, heartbeats, and no more; the load generator plays its users on
//! it. [`Client`] stands on it and is what tests write their stories with: joins and pushes that wait for their reply.
//! Neither runs a task: a socket lives as long as somebody waits on it.

mod codec;
mod session;
mod socket;
#[cfg(test)]
mod tests;

pub(crate) use codec::ReplyIn;
pub use codec::{DecodeError, Frame, Outgoing, Payload, Vsn};
pub use session::{Client, ClientError, Message, Reply};
pub use socket::{ConnectError, Incoming, Socket, SocketError};

/// How often a client says that it is there, as phoenix.js does.
pub const HEARTBEAT: std::time::Duration = std::time::Duration::from_secs(30);
