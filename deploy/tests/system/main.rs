//! The system as its users meet it: real processes, a real nats-server, real sockets.

mod client_2015;
mod gaps;
mod harness;
mod killer;
mod lobby;
mod phoenix_js;
mod repository;
mod runner;
mod session;
mod support;
