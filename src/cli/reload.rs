//! `switchman reload` and `switchman upgrade`: another configuration, another binary, and nobody is cut.

use std::path::PathBuf;
use std::time::Duration;

use http::Method;

use crate::admin::client::{Answer, Call};
use crate::admin::types;
use crate::cli::act;
use crate::cli::connect::Reach;
use crate::cli::failure::Failure;
use crate::cli::output;

/// What an upgrade may take beyond its two deadlines: to end a new process that failed, and to take workers back.
const FAILING_MAX: Duration = Duration::from_secs(60);

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
    /// How long the new process may take to build everything, and again until it serves
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = act::duration)]
    timeout: Duration,
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
    for types::Named { service, version } in &done.restart_needed {
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
    let timeout_ms = u64::try_from(args.timeout.as_millis()).ok();
    let body = serde_json::to_vec(&types::Upgrade { binary, timeout_ms })
        .map_err(|error| Failure::usage(format!("--binary cannot be sent: {error}")))?;
    let within = args.timeout * 2 + FAILING_MAX;
    let call = Call::new(Method::POST, &["upgrade"]).within(within).body(body);
    let answer: Answer = client.send(call).await?;
    let types::Upgraded { pid, old_pid, binary, versions } = answer.json()?;
    output::note(&format!(
        "process {pid} ({}) serves now, with the workers of {versions} versions",
        binary.display()
    ));
    output::note(&format!("process {old_pid} ends when its last request has"));
    if args.reach.json { output::data(&answer.text()) } else { Ok(()) }
}
