//! The system as a whole: the tool `switchboard`, and what its tests stand on.

pub mod client;
pub mod credentials;
pub mod load;
mod matchers;
pub mod runfile;
pub mod status;
pub mod token;
pub mod tools;
pub mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use switchboard_contract::process::{EXIT_FAILURE, EXIT_USAGE, UsageError};
use switchboard_contract::version::version;

/// Runs Switchboard on this machine, looks at it, and puts load on it.
#[derive(Debug, Parser)]
#[command(name = "switchboard", version = version(), propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole system on this machine: NATS, matchers, history and gateways.
    Up(up::Args),
    /// Show who leads, the gateways with their connections, and the lobby's counts.
    Status(status::Args),
    /// Mint a token with the development key, for a system that was started with `up --auth jwt`.
    Token(token::Args),
    /// Put load on a running system and check what comes back.
    Load(load::Args),
    /// Make the keys, certificates and users of a NATS that lets in nobody else, and rotate them.
    Credentials(credentials::Args),
    /// Install what runs and tests need (a pinned nats-server) under .switchboard/tools, and print where it is.
    Tools(tools::Args),
}

/// Parses the arguments and runs the command.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Up(args) => up::run(args),
        Command::Status(args) => status::run(args),
        Command::Token(args) => token::run(args),
        Command::Load(args) => load::run(args),
        Command::Credentials(args) => credentials::run(&args),
        Command::Tools(args) => tools::run(args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("switchboard: {error:#}");
            ExitCode::from(if error.is::<UsageError>() { EXIT_USAGE } else { EXIT_FAILURE })
        }
    }
}
