//! `switchboard-gateway`: see the library.

use std::process::ExitCode;

use switchboard_gateway::{Args, run};

fn main() -> ExitCode {
    switchboard_contract::process::main(|args: &Args| args.common.clone(), run)
}
