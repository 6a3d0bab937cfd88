//! `switchman reload` and `switchman upgrade`: another configuration, another binary, and nobody is cut.

use std::path::PathBuf;
use std::time::Duration;

use http::Method;

use crate::admin::client::{Answer, Call};
use crate::admin::types;
use crate::cli::connect::Reach;
use crate::cli::failure::Failure;
use crate::cli::output;

/// How long an upgrade may take until it is known how it went: both of its deadlines, and a little more.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(150);

#[derive(Debug, clap::Args)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, clap::Args)]
pub(super) struct UpgradeArgs {
    /// The new binary; else the file that the running one was started from, as it is now
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    #[command(flatten)]
    reach: Reach,
}

pub(super) async fn reload(args: ReloadArgs) -> Result<(), Failure> {
    let client = args.reach.client()?;
    let answer: Answer = client.send(Call::new(Method::POST, &["reload"])).await?;
    let done: types::Reloaded = answer.json()?;
    for warning in &done.warnings {
        output::note(&warning.to_string());
    }
    match done.changed.as_slice() {
        [] => output::note("nothing has changed"),
        keys => output::note(&format!("changed: {}", keys.join(", "))),
    }
    for types::RestartNeeded { service, version } in &done.restart_needed {
        output::note(&format!("{service}: the workers of {version} run as was configured before"));
        output::note(&format!("hint: switchman restart {version} --service {service}"));
    }
    if args.reach.json { output::data(&answer.text()) } else { Ok(()) }
}

pub(super) async fn upgrade(args: UpgradeArgs) -> Result<(), Failure> {
    let client = args.reach.client()?;
    // The running one has another working directory.
    let binary = args.binary.map(std::path::absolute).transpose();
    let binary = binary.map_err(|error| Failure::usage(format!("--binary leads nowhere: {error}")))?;
    let body = serde_json::to_vec(&types::Upgrade { binary })
        .map_err(|error| Failure::usage(format!("--binary cannot be sent: {error}")))?;
    let call = Call::new(Method::POST, &["upgrade"]).within(UPGRADE_TIMEOUT).body(body);
    let answer: Answer = client.send(call).await?;
    let types::Upgraded { pid, old_pid, binary, versions } = answer.json()?;
    output::note(&format!(
        "process {pid} ({}) serves now, with the workers of {versions} versions",
        binary.display()
    ));
    output::note(&format!("process {old_pid} ends when its last request has"));
    if args.reach.json { output::data(&answer.text()) } else { Ok(()) }
}
