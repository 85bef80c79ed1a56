//! What the services of Switchboard share: the names of everything in NATS, the messages between services,
//! limits, error reasons and close codes; and the shell that every process runs in.
//!
//! Nothing here decides anything for one service. `PROTOCOL.md` beside this crate says what clients see.

pub mod ack;
pub mod admin;
pub mod alive;
pub mod api;
pub mod carried;
pub mod credentials;
pub mod feed;
pub mod inside;
pub mod lease;
pub mod limits;
pub mod lobby;
pub mod log;
pub mod names;
pub mod nats;
pub mod presence;
pub mod process;
pub mod reason;
mod requests;
pub mod room;
pub mod streams;
#[cfg(feature = "testing")]
pub mod testing;
pub mod trace;
pub mod unlogged;
pub mod version;
pub mod voids;
pub mod wire;
