//! The binary: everything is in `switchman::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    switchman::cli::main()
}
