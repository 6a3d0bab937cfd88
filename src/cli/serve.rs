//! `switchman serve`: from the flags to a running switchman.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::app::{App, BuildError, Given};
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::signals::{self, Signals};
use crate::config::{self, Config};
use crate::handover::Predecessor;
use crate::hint::Problems;
use crate::systemd;

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

/// Serves until TERM or INT. A second signal while it drains ends it at once.
pub async fn run(args: ServeArgs) -> ExitCode {
    match serve(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn serve(args: ServeArgs) -> Result<(), Failure> {
    let given = match Predecessor::meet().await.map_err(|e| Failure::failed(e.to_string()))? {
        Some((predecessor, left)) => Given::Handed(predecessor, left),
        None => Given::Activated(systemd::sockets()),
    };
    let (config, warnings) = match &args.root {
        None => config::load(&config::find(args.config.as_deref())?)?,
        Some(root) => {
            let config = Config::from_flags(
                root,
                args.run.as_deref(),
                args.listen.as_deref(),
                args.admin_listen.as_deref(),
                args.state.as_deref(),
                args.rules.as_deref(),
            )?;
            (config, Problems::default())
        }
    };
    for warning in &warnings.0 {
        output::note(&warning.to_string());
    }
    let app = App::build(config, given).await.map_err(|e| failed(&e))?;
    for address in app.addresses() {
        tracing::info!(%address, "listening for requests");
    }
    if let Some(address) = app.admin_address() {
        tracing::info!(%address, "listening for the admin API");
    }
    let _following = signals::follow(&app.control())?;
    let [mut first, mut second] = [Signals::listen()?, Signals::listen()?];
    app.run(async move {
        first.recv().await;
        tokio::spawn(async move {
            // It has seen the first signal too.
            second.recv().await;
            second.recv().await;
            tracing::error!("told to end twice: ending at once, what still runs is cut");
            std::process::exit(1);
        });
    })
    .await
    .map_err(|e| failed(&e))
}

fn failed(error: &BuildError) -> Failure {
    Failure::failed(error.to_string()).hint(error.hint())
}
