//! `switchman logs`: the last lines that the workers of a version wrote.

use http::Method;

use crate::admin::client::Call;
use crate::cli::connect::Reach;
use crate::cli::failure::Failure;
use crate::cli::output;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The version: its name, at least 7 characters of it, or an alias
    version: String,
    #[command(flatten)]
    reach: Reach,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let client = args.reach.client()?;
    let service = args.reach.service(&client).await?;
    let call = Call::new(Method::GET, &["services", &service, "versions", &args.version, "logs"]);
    let text = client.send(call).await?.text();
    if args.reach.json {
        let lines: Vec<&str> = text.lines().collect();
        return output::data(&serde_json::json!({ "lines": lines }).to_string());
    }
    if text.is_empty() {
        output::note("its workers have written nothing");
    }
    output::data(&text)
}
