//! `switchman rules get`: the document in force.

use http::Method;

use crate::admin::client::Call;
use crate::admin::types;
use crate::cli::connect::Reach;
use crate::cli::failure::Failure;
use crate::cli::output;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    reach: Reach,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let client = args.reach.client()?;
    let service = args.reach.service(&client).await?;
    let answer = client.send(Call::new(Method::GET, &["services", &service, "rules"])).await?;
    if args.reach.json {
        return output::data(&answer.text());
    }
    let rules: types::Rules = answer.json()?;
    for problem in &rules.problems {
        output::note(&problem.to_string());
    }
    if rules.rejected {
        output::note(&format!(
            "{} holds a newer document that was refused; this is the one in force",
            rules.origin
        ));
    }
    if let Some(since) = rules.stale_since {
        output::note(&format!(
            "{} cannot be reached since {since}; this is the last good document",
            rules.origin
        ));
    }
    if rules.document.is_empty() {
        output::note(&format!("there is no document in {}: every request goes to current", rules.origin));
    }
    output::data(&rules.document)
}
