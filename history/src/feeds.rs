//! Feeds: a source is polled once for everybody, by one live replica, and by nobody when nobody listens.
//!
//! Each feed that somebody listens to has a record in KV `feeds`. Replicas hear each other's heartbeats, and each works
//! out by itself which records are its own ([`owner`]); it takes one by compare and set, counting its epoch up, so that
//! the owner before it is refused. [`board`] says what is to be begun, [`schedule`] when a feed is polled, [`config`]
//! what there is to poll; they are pure. One task (`task`) owns them, and has one task for each feed that it polls
//! (`poller`), which asks a `source`.

pub mod board;
pub mod config;
pub mod json;
mod metrics;
pub mod owner;
mod poller;
pub mod schedule;
mod source;
mod store;
mod task;
mod want;

use std::path::Path;

use switchboard_contract::process::UsageError;

use self::config::Catalogue;
use self::source::Sources;

pub(crate) use self::metrics::describe;
pub(crate) use self::task::{Feeds, Known, Questions};

/// A configuration, and its sources, none of them connected yet.
pub(crate) struct Configured {
    catalogue: Catalogue,
    sources: Sources,
}

/// Reads the configuration of feeds.
///
/// # Errors
/// If it cannot be read, or is wrong: file, line and what.
pub(crate) fn read(file: Option<&Path>) -> Result<Configured, UsageError> {
    let wrong =
        |what: &dyn std::fmt::Display| UsageError(format!("{}:{what}", file.unwrap_or(Path::new("")).display()));
    let text = match file {
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| UsageError(format!("--feeds {}: cannot be read: {error}", file.display())))?,
        None => String::new(),
    };
    let catalogue = Catalogue::parse(&text, |name| std::env::var(name).ok()).map_err(|error| wrong(&error))?;
    let sources = Sources::new(&catalogue).map_err(|error| wrong(&error))?;
    Ok(Configured { catalogue, sources })
}
