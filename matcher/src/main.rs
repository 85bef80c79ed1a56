//! The matcher: rosters, queue and chats.

use std::process::ExitCode;

use switchboard_matcher::{Args, run};

fn main() -> ExitCode {
    switchboard_contract::process::main(|args: &Args| args.common.clone(), run)
}
