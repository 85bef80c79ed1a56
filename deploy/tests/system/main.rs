//! The system as its users meet it: real processes, a real nats-server, real sockets.

mod client_2015;
mod gaps;
mod harness;
mod killer;
mod lobby;
mod outages;
mod phoenix_js;
mod presence;
mod process;
mod repository;
mod rooms;
mod rooms_load;
mod runner;
mod session;
mod side;
mod siege;
mod support;
mod survival;
mod takeover;
mod tokens;
