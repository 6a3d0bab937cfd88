//! `switchman demo`: a whole running example in a temporary folder.

use std::process::ExitCode;

use crate::cli::failure::Failure;

/// How long the example runs.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Go through the steps once and end; the exit status says whether all went well
    #[arg(long)]
    pub once: bool,
}

/// Goes through the steps.
pub async fn run(args: DemoArgs) -> ExitCode {
    Failure::failed(format!("this build has no demo yet: {args:?}")).report()
}
