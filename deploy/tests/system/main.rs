//! The system: real processes, a real nats-server, and clients over real sockets.

mod client_2015;
mod harness;
mod lobby;
mod phoenix_js;
mod session;
