//! The system: real processes, real NATS.
//!
//! Needs the services' binaries beside this one's: `cargo build --workspace --bins` first, as `make test` does.

mod runner;
mod support;
