//! `switchman versions`: what runs, once or (`--watch`) for as long as somebody looks.

use std::time::Duration;

use http::Method;
use jiff::Timestamp;

use crate::admin::client::{Answer, Call, Client};
use crate::admin::types;
use crate::cli::connect::Reach;
use crate::cli::failure::Failure;
use crate::cli::{output, table};

/// Time between two looks under `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Moves to the top left and clears what is below: one screen, drawn again.
const CLEAR: &str = "\x1b[H\x1b[J";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Follow: on a terminal each second, else whenever something changes; ends with Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Also list what is ignored under the deploy roots, and what is wrong
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    reach: Reach,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let client = args.reach.client()?;
    if !args.watch {
        let answer = client.send(call(&args)).await?;
        return output::data(&render(&args, &client, &answer).await?);
    }
    tokio::select! {
        done = watch(&args, &client) => done,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

fn call(args: &Args) -> Call {
    let mut call = Call::new(Method::GET, &["versions"]);
    if let Some(service) = &args.reach.service {
        call = call.query("service", service);
    }
    if args.all { call.query("all", "1") } else { call }
}

async fn render(args: &Args, client: &Client, answer: &Answer) -> Result<String, Failure> {
    if args.reach.json {
        return Ok(answer.text());
    }
    let versions: types::Versions = answer.json()?;
    let mut text = table::render(&versions, Timestamp::now());
    if versions.versions.is_empty() {
        let services: types::Services = client.json(Call::new(Method::GET, &["services"])).await?;
        let wanted = |s: &&types::Service| args.reach.service.as_ref().is_none_or(|name| *name == s.service);
        let lines: Vec<String> = services.services.iter().filter(wanted).map(nothing_yet).collect();
        text = lines.join("\n") + &text;
    }
    Ok(text)
}

fn nothing_yet(service: &types::Service) -> String {
    format!("{}: no versions yet: rsync a build into {}/<sha>", service.service, service.root)
}

/// Shows the versions until the end of time. The first failure ends it; later ones are shown, and it goes on
/// asking: a switchman that is restarted comes back.
async fn watch(args: &Args, client: &Client) -> Result<(), Failure> {
    let redraw = output::is_terminal() && !args.reach.json;
    let mut shown = None;
    let mut lost = false;
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = match client.send(call(args)).await {
            Ok(answer) => answer,
            Err(error) if shown.is_none() => return Err(error.into()),
            Err(error) => {
                if !lost {
                    output::note(&format!("{error}; trying again"));
                }
                lost = true;
                continue;
            }
        };
        let generation = answer.json::<types::Versions>()?.generation;
        if redraw || lost || shown != Some(generation) {
            let text = render(args, client, &answer).await?;
            output::data(&if redraw { format!("{CLEAR}{text}") } else { text })?;
        }
        shown = Some(generation);
        lost = false;
    }
}
