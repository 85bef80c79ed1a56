//! The real service against a real nats-server.

mod chats;
mod keywords;
mod lives;
mod rooms;
mod service;
