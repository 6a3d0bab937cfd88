//! `switchman rules`: the rule document.

use std::io::Read;
use std::path::Path;

use clap::Subcommand;

use crate::cli::failure::Failure;

mod check;
mod explain;
mod get;
mod set;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the document in force
    Get(get::Args),
    /// Replace the document by a file, or by stdin
    Set(set::Args),
    /// Say what is wrong with a file; works without a running switchman
    Check(check::Args),
    /// Say where a request would go, and why
    Explain(explain::Args),
}

pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Get(args) => get::run(args).await,
        Command::Set(args) => set::run(args).await,
        Command::Check(args) => check::run(args).await,
        Command::Explain(args) => explain::run(args).await,
    }
}

/// A document from a file, or from stdin for `-`.
fn read(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    read.map_err(|error| Failure::failed(format!("{} cannot be read: {error}", shown(file))))
}

/// What problems call the document.
fn shown(file: &Path) -> String {
    if file == Path::new("-") { "stdin".to_owned() } else { file.display().to_string() }
}
