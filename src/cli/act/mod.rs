//! `switchman start|stop|restart|drain|scale`: asks for the work, then watches it until it is done.
//!
//! What counts as done is `progress`, a pure function of the version before, the version now and the time
//! since switchman accepted.

use std::time::{Duration, Instant};

use http::Method;

use crate::admin::client::{Call, Client, ClientError};
use crate::admin::types::{Scale, Version};
use crate::cli::connect::Reach;
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::version::VersionState;

mod all;
mod progress;

use progress::{Goal, Progress, progress, ready};

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// What a version that drains waits for changes with each stream that ends; so often it is told.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What most of these take.
#[derive(Debug, clap::Args)]
struct Common {
    /// The version: its name, at least 7 characters of it, or an alias
    version: String,
    #[command(flatten)]
    waiting: Waiting,
}

/// How long to wait for what.
#[derive(Debug, clap::Args)]
struct Waiting {
    /// Come back as soon as switchman accepts
    #[arg(long)]
    no_wait: bool,
    /// The longest wait until it is done, as in 30s or 5m [default: start and scale 60s; stop, drain and restart
    /// as long as the configuration lets requests and streams go on]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, clap::Args)]
pub(super) struct StartArgs {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(super) struct RestartArgs {
    /// The version: its name, at least 7 characters of it, or an alias
    #[arg(required_unless_present = "all")]
    version: Option<String>,
    /// Every version that runs, of all services or of --service NAME; each service's one after the other
    #[arg(long, conflicts_with = "version")]
    all: bool,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, clap::Args)]
pub(super) struct StopArgs {
    /// Also when it carries traffic
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(super) struct DrainArgs {
    /// Also when it carries traffic
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(super) struct ScaleArgs {
    /// How many workers it shall have
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    workers: u32,
    #[command(flatten)]
    common: Common,
}

pub(super) async fn start(args: StartArgs) -> Result<(), Failure> {
    act(args.common, "start", false, Goal::Started).await
}

pub(super) async fn stop(args: StopArgs) -> Result<(), Failure> {
    act(args.common, "stop", args.force, Goal::Stopped).await
}

pub(super) async fn restart(args: RestartArgs) -> Result<(), Failure> {
    let RestartArgs { version, waiting, .. } = args;
    match version {
        Some(version) => act(Common { version, waiting }, "restart", false, Goal::Restarted).await,
        None => all::restart(waiting).await,
    }
}

pub(super) async fn drain(args: DrainArgs) -> Result<(), Failure> {
    act(args.common, "drain", args.force, Goal::Stopped).await
}

pub(super) async fn scale(args: ScaleArgs) -> Result<(), Failure> {
    act(args.common, "scale", false, Goal::Scaled(args.workers)).await
}

async fn act(common: Common, verb: &str, force: bool, goal: Goal) -> Result<(), Failure> {
    let Common { version, waiting } = common;
    let client = waiting.reach.client()?;
    let service = waiting.reach.service(&client).await?;
    let before = look(&client, &service, &version).await?;
    // From here on by its whole name: an alias may move while the work goes on.
    let version = before.version.as_str();

    let mut call = Call::new(Method::POST, &["services", &service, "versions", version, verb]);
    if force {
        call = call.query("force", "1");
    }
    if let Goal::Scaled(workers) = goal {
        let body = serde_json::to_vec(&Scale { workers }).map_err(|e| Failure::failed(e.to_string()))?;
        call = call.body(body);
    }
    let mut now: Version = client.json(call).await?;
    if !waiting.no_wait {
        finish(&client, goal, &before, &mut now, waiting.timeout.or(goal.within())).await?;
    }
    if !waiting.reach.json {
        return Ok(());
    }
    output::data(&serde_json::to_string(&now).map_err(|e| Failure::failed(e.to_string()))?)
}

/// Waits until the goal is reached, for no longer than `within`.
async fn finish(
    client: &Client,
    goal: Goal,
    before: &Version,
    now: &mut Version,
    within: Option<Duration>,
) -> Result<(), Failure> {
    let Some(within) = within else { return wait(client, goal, before, now).await };
    tokio::time::timeout(within, wait(client, goal, before, now)).await.unwrap_or_else(|_| {
        let (version, stage) = (&now.version, stage(now) + &waits_for(now));
        Err(Failure::failed(format!("{version} is not done after {within:?}: it is {stage}"))
            .hint("the work goes on: look with switchman versions, or wait longer with --timeout"))
    })
}

/// Looks until the goal is reached, telling each step.
async fn wait(client: &Client, goal: Goal, before: &Version, now: &mut Version) -> Result<(), Failure> {
    let accepted = Instant::now();
    let (mut told, mut told_at) = ((String::new(), String::new()), accepted);
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    loop {
        let stage = stage(now);
        let waits_for = waits_for(now);
        if stage != told.0 || waits_for != told.1 && told_at.elapsed() >= TELL_EVERY {
            output::note(&format!("{}: {stage}{waits_for}", now.version));
            (told, told_at) = ((stage, waits_for), Instant::now());
        }
        match progress(goal, before, now, accepted.elapsed()) {
            Progress::Done => return Ok(()),
            Progress::Failed(reason) => {
                return Err(Failure::failed(format!("{}: {reason}", now.version))
                    .hint(format!("look at what it wrote: switchman logs {}", now.version)));
            }
            Progress::GoingOn => {}
        }
        ticks.tick().await;
        *now = match look(client, &before.service, &before.version).await {
            Ok(version) => version,
            // Stopped, and its folder was gone already: it is listed no more.
            Err(ClientError::Problem(problem)) if problem.status == 404 && goal == Goal::Stopped => {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
    }
}

async fn look(client: &Client, service: &str, version: &str) -> Result<Version, ClientError> {
    client.json(Call::new(Method::GET, &["services", service, "versions", version])).await
}

/// How far it is, in words.
fn stage(version: &Version) -> String {
    match version.workers.len() {
        0 => version.state.to_string(),
        all => format!("{}, {} of {all} workers ready", version.state, ready(version)),
    }
}

/// What it waits for while it drains, as the end of a sentence about it.
fn waits_for(version: &Version) -> String {
    match &version.reason {
        Some(reason) if version.state == VersionState::Draining => format!("; {reason}"),
        _ => String::new(),
    }
}

/// `30s`, `5m`; a bare number has no unit and is refused.
fn duration(text: &str) -> Result<Duration, String> {
    let duration: jiff::SignedDuration =
        text.parse().map_err(|_| format!("`{text}` is no duration: write 30s or 5m"))?;
    Duration::try_from(duration).map_err(|_| format!("`{text}` lies in the past"))
}
