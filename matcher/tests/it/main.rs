//! Rings 2 and 3: the core against a naive model, and the service against a real nats-server.

mod crowd;
mod model;
mod nats_server;
mod peers;
mod reference;
mod service;
mod store;
mod takeover;
