//! Switchboard's history: follows the room stream and keeps the last messages of every room and chat.

use std::process::ExitCode;

use switchboard_history::{Args, run};

fn main() -> ExitCode {
    switchboard_contract::process::main(|args: &Args| args.common.clone(), run)
}
