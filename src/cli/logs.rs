//! `switchman logs`: the last lines that the workers of a version wrote, and with `-f` those that come.

use http::Method;

use crate::admin::client::Call;
use crate::cli::connect::Reach;
use crate::cli::failure::Failure;
use crate::cli::output;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The version: its name, at least 7 characters of it, or an alias
    version: String,
    /// Go on with the lines that come; ends with Ctrl-C
    #[arg(short, long, conflicts_with = "json")]
    follow: bool,
    #[command(flatten)]
    reach: Reach,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let client = args.reach.client()?;
    let service = args.reach.service(&client).await?;
    let call = Call::new(Method::GET, &["services", &service, "versions", &args.version, "logs"]);
    if args.follow {
        let lines = client.follow(call.query("follow", "1"), output::raw);
        return tokio::select! {
            done = lines => done,
            _ = tokio::signal::ctrl_c() => Ok(()),
        };
    }
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
