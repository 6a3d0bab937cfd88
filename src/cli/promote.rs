//! `switchman promote` and `switchman rollback`: which version is `current`.

use http::Method;

use crate::admin::client::{Answer, Call};
use crate::admin::types;
use crate::cli::connect::Reach;
use crate::cli::failure::Failure;
use crate::cli::output;

#[derive(Debug, clap::Args)]
pub(super) struct PromoteArgs {
    /// The version: its name, at least 7 characters of it, or an alias
    version: String,
    /// Also when it is not ready
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, clap::Args)]
pub(super) struct RollbackArgs {
    /// Also when `previous` is not ready
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    reach: Reach,
}

pub(super) async fn promote(args: PromoteArgs) -> Result<(), Failure> {
    turn(&args.reach, &["versions", &args.version, "promote"], args.force).await
}

pub(super) async fn rollback(args: RollbackArgs) -> Result<(), Failure> {
    turn(&args.reach, &["rollback"], args.force).await
}

async fn turn(reach: &Reach, path: &[&str], force: bool) -> Result<(), Failure> {
    let client = reach.client()?;
    let service = reach.service(&client).await?;
    let mut call = Call::new(Method::POST, &[&["services", &service], path].concat());
    if force {
        call = call.query("force", "1");
    }
    let answer: Answer = client.send(call).await?;
    let version: types::Version = answer.json()?;
    let aliases: types::Aliases =
        client.json(Call::new(Method::GET, &["services", &service, "aliases"])).await?;
    let previous = aliases.aliases.get(crate::version::PREVIOUS).map_or("not set", String::as_str);
    output::note(&format!("{service}: current -> {}, previous -> {previous}", version.version));
    if reach.json { output::data(&answer.text()) } else { Ok(()) }
}
