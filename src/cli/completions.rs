//! `switchman completions`: a script that a shell reads to complete commands.

use clap_complete::Shell;

use crate::cli::failure::Failure;
use crate::cli::output;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &Args, command: &mut clap::Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "switchman", &mut script);
    output::data(&String::from_utf8_lossy(&script))
}
