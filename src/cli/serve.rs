//! `switchman serve`: from the flags to a running switchman.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::failure::Failure;

/// A run from a configuration file, or (with `--root`) from flags alone.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// The configuration; else ./switchman.yaml, else /etc/switchman/switchman.yaml
    #[arg(long, value_name = "FILE", conflicts_with = "root")]
    pub config: Option<PathBuf>,
    /// Without a file: the deploy root
    #[arg(long, value_name = "FOLDER")]
    pub root: Option<PathBuf>,
    /// Without a file: how a version is run, by `sh -c`, with its port in $PORT
    #[arg(long, value_name = "COMMAND", requires = "root")]
    pub run: Option<String>,
    /// Without a file: the public address
    #[arg(long, value_name = "ADDRESS", requires = "root")]
    pub listen: Option<String>,
    /// Without a file: the admin address, or `off`
    #[arg(long, value_name = "ADDRESS", requires = "root")]
    pub admin_listen: Option<String>,
    /// Without a file: the folder for what survives a restart
    #[arg(long, value_name = "FOLDER", requires = "root")]
    pub state: Option<PathBuf>,
    /// Without a file: the rule document
    #[arg(long, value_name = "FILE", requires = "root")]
    pub rules: Option<PathBuf>,
}

/// Serves until it is told to end.
pub async fn run(args: ServeArgs) -> ExitCode {
    Failure::failed(format!("this build cannot serve yet: {args:?}")).report()
}
