//! `switchman tag` and `switchman untag`: names for versions.

use http::Method;

use crate::admin::client::Call;
use crate::admin::types::{Alias, SetAlias};
use crate::cli::connect::Reach;
use crate::cli::failure::Failure;
use crate::cli::output;

#[derive(Debug, clap::Args)]
pub(super) struct TagArgs {
    /// The alias
    alias: String,
    /// The version: its name, at least 7 characters of it, or another alias
    version: String,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, clap::Args)]
pub(super) struct UntagArgs {
    /// The alias
    alias: String,
    #[command(flatten)]
    reach: Reach,
}

pub(super) async fn tag(args: TagArgs) -> Result<(), Failure> {
    let client = args.reach.client()?;
    let service = args.reach.service(&client).await?;
    let body = serde_json::to_vec(&SetAlias { version: args.version })
        .map_err(|error| Failure::failed(error.to_string()))?;
    let call = Call::new(Method::PUT, &["services", &service, "aliases", &args.alias]).body(body);
    let answer = client.send(call).await?;
    let alias: Alias = answer.json()?;
    output::note(&format!("{service}: {} -> {}", alias.name, alias.version));
    if args.reach.json { output::data(&answer.text()) } else { Ok(()) }
}

pub(super) async fn untag(args: UntagArgs) -> Result<(), Failure> {
    let client = args.reach.client()?;
    let service = args.reach.service(&client).await?;
    client.send(Call::new(Method::DELETE, &["services", &service, "aliases", &args.alias])).await?;
    output::note(&format!("{service}: {} is removed", args.alias));
    Ok(())
}
