//! The system as its users meet it: real processes, a real nats-server, real sockets.

mod api;
mod api_seen;
mod client_2015;
mod forgery;
mod gaps;
mod harness;
mod http;
mod killer;
mod lobby;
mod outages;
mod phoenix_js;
mod presence;
mod process;
mod quiet;
mod reasons;
mod repository;
mod resume;
mod rooms;
mod runner;
mod session;
mod side;
mod siege;
mod support;
mod survival;
mod takeover;
mod tokens;
