//! The real service against a real nats-server.

mod about;
mod chats;
mod feed_metrics;
mod feed_owner;
mod feed_replicas;
mod feed_sources;
mod feeds;
mod keywords;
mod listener;
mod lives;
mod puppet;
mod rooms;
mod service;
