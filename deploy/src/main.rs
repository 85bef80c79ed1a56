//! The tool `switchboard`: runs the whole system on one machine, looks at it, and puts load on it.

use std::process::ExitCode;

fn main() -> ExitCode {
    switchboard::main()
}
