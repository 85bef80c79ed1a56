//! The real service against a real nats-server.

mod about;
mod chats;
mod feed_sources;
mod feeds;
mod keywords;
mod listener;
mod lives;
mod rooms;
mod service;
