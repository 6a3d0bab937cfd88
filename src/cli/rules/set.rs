//! `switchman rules set`: replaces the document, if it has no errors.

use std::path::PathBuf;

use http::{Method, header};

use super::read;
use crate::admin::client::Call;
use crate::admin::types;
use crate::cli::connect::Reach;
use crate::cli::failure::Failure;
use crate::cli::output;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The new document; `-` reads stdin
    file: PathBuf,
    /// Refuse if the document has another revision than this (see `rules get --json`)
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u64>,
    #[command(flatten)]
    reach: Reach,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let text = read(&args.file)?;
    let client = args.reach.client()?;
    let service = args.reach.service(&client).await?;
    let mut call = Call::new(Method::PUT, &["services", &service, "rules"]).body(text);
    if let Some(revision) = args.if_revision {
        call = call.header(header::IF_MATCH, format!("\"{revision}\""));
    }
    let answer = client.send(call).await?;
    let rules: types::Rules = answer.json()?;
    for problem in &rules.problems {
        output::note(&problem.to_string());
    }
    output::note(&format!("{service}: {} is in force, revision {}", rules.origin, rules.revision));
    if args.reach.json { output::data(&answer.text()) } else { Ok(()) }
}
