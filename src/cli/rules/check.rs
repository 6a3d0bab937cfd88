//! `switchman rules check`: what is wrong with a document, before it is used.
//!
//! The document is compiled here. Where a switchman runs, it is asked too: it also knows which versions and
//! aliases exist now.

use std::path::PathBuf;

use http::Method;

use super::{read, shown};
use crate::admin::client::Call;
use crate::admin::types::Checked;
use crate::cli::connect::Reach;
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::rules::{self, Context};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The document; `-` reads stdin
    file: PathBuf,
    #[command(flatten)]
    reach: Reach,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let text = read(&args.file)?;
    let name = shown(&args.file);
    let checked = match ask(&args.reach, &name, &text).await {
        Ok(checked) => checked,
        Err(why) => {
            output::note(&format!("checked without a running switchman, which knows the versions: {why}"));
            here(&name, args.reach.service.as_deref().unwrap_or_default(), &text)
        }
    };
    for problem in &checked.problems {
        output::note(&problem.to_string());
    }
    if args.reach.json {
        let json = serde_json::to_string(&checked).map_err(|e| Failure::failed(e.to_string()))?;
        output::data(&json)?;
    }
    if !checked.ok {
        return Err(Failure::failed(format!("{name} has errors, and would be refused")));
    }
    output::note(&format!("{name} is in order"));
    Ok(())
}

/// What a running switchman says, or in one sentence why none does.
async fn ask(reach: &Reach, name: &str, text: &str) -> Result<Checked, String> {
    let client = reach.client().map_err(|failure| failure.message().to_owned())?;
    let service = reach.service(&client).await.map_err(|failure| failure.message().to_owned())?;
    let call = Call::new(Method::POST, &["services", &service, "rules", "check"]).query("name", name);
    client.json(call.body(text.to_owned())).await.map_err(|error| error.to_string())
}

fn here(name: &str, service: &str, text: &str) -> Checked {
    match rules::compile(text, &Context { file: name, service, extra_routes: &[] }) {
        Ok(compiled) => Checked { ok: true, problems: compiled.warnings.0 },
        Err(problems) => Checked { ok: false, problems: problems.0 },
    }
}
