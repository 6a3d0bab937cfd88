//! `switchman start|stop|restart|drain|scale`: asks for the work, then watches it until it is done.
//!
//! What counts as done is [`progress`], a pure function of the version before, the version now and the time
//! since switchman accepted.

use std::time::{Duration, Instant};

use http::Method;

use crate::admin::client::{Call, Client, ClientError};
use crate::admin::types::{Scale, Version};
use crate::cli::connect::Reach;
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::version::{VersionState, WorkerState};

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a state from before the command may still be shown after it was accepted.
const STALE_WITHIN: Duration = Duration::from_secs(3);

/// What all of these take.
#[derive(Debug, clap::Args)]
struct Common {
    /// The version: its name, at least 7 characters of it, or an alias
    version: String,
    /// Come back as soon as switchman accepts
    #[arg(long)]
    no_wait: bool,
    /// The longest wait until it is done, as in 30s or 5m
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    timeout: Duration,
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
    #[command(flatten)]
    common: Common,
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

/// What is to become of the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Started,
    Stopped,
    Restarted,
    Scaled(u32),
}

pub(super) async fn start(args: StartArgs) -> Result<(), Failure> {
    act(args.common, "start", false, Goal::Started).await
}

pub(super) async fn stop(args: StopArgs) -> Result<(), Failure> {
    act(args.common, "stop", args.force, Goal::Stopped).await
}

pub(super) async fn restart(args: RestartArgs) -> Result<(), Failure> {
    act(args.common, "restart", false, Goal::Restarted).await
}

pub(super) async fn drain(args: DrainArgs) -> Result<(), Failure> {
    act(args.common, "drain", args.force, Goal::Stopped).await
}

pub(super) async fn scale(args: ScaleArgs) -> Result<(), Failure> {
    act(args.common, "scale", false, Goal::Scaled(args.workers)).await
}

async fn act(common: Common, verb: &str, force: bool, goal: Goal) -> Result<(), Failure> {
    let client = common.reach.client()?;
    let service = common.reach.service(&client).await?;
    let before = look(&client, &service, &common.version).await?;
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
    if !common.no_wait {
        let waited = tokio::time::timeout(common.timeout, wait(&client, goal, &before, &mut now)).await;
        waited.unwrap_or_else(|_| {
            Err(Failure::failed(format!(
                "{version} is not done after {:?}: it is {}",
                common.timeout,
                stage(&now)
            ))
            .hint("the work goes on: look with switchman versions, or wait longer with --timeout"))
        })?;
    }
    if !common.reach.json {
        return Ok(());
    }
    output::data(&serde_json::to_string(&now).map_err(|e| Failure::failed(e.to_string()))?)
}

/// Looks until the goal is reached, telling each step.
async fn wait(client: &Client, goal: Goal, before: &Version, now: &mut Version) -> Result<(), Failure> {
    let accepted = Instant::now();
    let mut told = String::new();
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    loop {
        let stage = stage(now);
        if stage != told {
            output::note(&format!("{}: {stage}", now.version));
            told = stage;
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

fn ready(version: &Version) -> usize {
    version.workers.iter().filter(|w| w.state == WorkerState::Ready).count()
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Done,
    Failed(String),
    GoingOn,
}

/// Whether the goal is reached. A failure that was there before the command counts only when it is still shown
/// after [`STALE_WITHIN`]; a reason that was there before never counts.
fn progress(goal: Goal, before: &Version, now: &Version, since_accepted: Duration) -> Progress {
    let all_ready =
        now.state == VersionState::Ready && !now.workers.is_empty() && ready(now) == now.workers.len();
    let is_old = |pid: Option<u32>| pid.is_some() && before.workers.iter().any(|w| w.pid == pid);
    let done = match goal {
        Goal::Started => all_ready,
        Goal::Stopped => now.state == VersionState::Stopped,
        Goal::Restarted => all_ready && !now.workers.iter().any(|w| is_old(w.pid)),
        Goal::Scaled(workers) => all_ready && now.workers.len() == workers as usize,
    };
    if done {
        return Progress::Done;
    }
    let is_news = (now.since, now.state, &now.reason) != (before.since, before.state, &before.reason);
    let failed = goal != Goal::Stopped && now.state == VersionState::Failed;
    if failed && (is_news || since_accepted > STALE_WITHIN) {
        return Progress::Failed(now.reason.clone().unwrap_or_else(|| "it failed".to_owned()));
    }
    // A restart that is given up leaves the old workers ready, and says why.
    let given_up = goal == Goal::Restarted && all_ready && now.reason != before.reason;
    match &now.reason {
        Some(reason) if given_up => Progress::Failed(reason.clone()),
        _ => Progress::GoingOn,
    }
}

/// `30s`, `5m`; a bare number has no unit and is refused.
fn duration(text: &str) -> Result<Duration, String> {
    let duration: jiff::SignedDuration =
        text.parse().map_err(|_| format!("`{text}` is no duration: write 30s or 5m"))?;
    Duration::try_from(duration).map_err(|_| format!("`{text}` lies in the past"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::types::{Traffic, Worker};

    fn version(state: VersionState, reason: Option<&str>, workers: &[(u32, WorkerState)]) -> Version {
        Version {
            service: "app".into(),
            version: "4f2a91c".into(),
            state,
            dark: false,
            aliases: Vec::new(),
            routes: Vec::new(),
            path: "/srv/app/4f2a91c".into(),
            since: jiff::Timestamp::UNIX_EPOCH,
            reason: reason.map(str::to_owned),
            workers: workers
                .iter()
                .zip(0..)
                .map(|(&(pid, state), id)| Worker {
                    id,
                    pid: Some(pid),
                    address: None,
                    state,
                    in_flight: 0,
                    restarts: 0,
                })
                .collect(),
            traffic: Traffic {
                requests: 0,
                in_flight: 0,
                rps: 0.0,
                errors: 0,
                p50_ms: None,
                p99_ms: None,
                last_hit: None,
            },
        }
    }

    #[test]
    fn what_counts_as_done() {
        use VersionState as V;
        use WorkerState as W;
        let failed = |why: &str| Progress::Failed(why.into());
        let stopped = version(V::Stopped, None, &[]);
        let broken = version(V::Failed, Some("exit 1"), &[]);
        let ready = version(V::Ready, None, &[(1, W::Ready), (2, W::Ready)]);
        let half = version(V::Ready, None, &[(3, W::Ready), (2, W::Ready)]);
        let renewed = version(V::Ready, None, &[(3, W::Ready), (4, W::Ready)]);
        let starting = version(V::Starting, None, &[(1, W::Starting)]);
        let cases = [
            ("start", Goal::Started, &stopped, starting.clone(), Progress::GoingOn),
            (
                "start",
                Goal::Started,
                &stopped,
                version(V::Ready, None, &[(1, W::Ready), (2, W::Starting)]),
                Progress::GoingOn,
            ),
            ("start", Goal::Started, &stopped, ready.clone(), Progress::Done),
            ("start fails", Goal::Started, &stopped, broken.clone(), failed("exit 1")),
            ("the old failure", Goal::Started, &broken, broken.clone(), Progress::GoingOn),
            (
                "another failure",
                Goal::Started,
                &broken,
                version(V::Failed, Some("exit 2"), &[]),
                failed("exit 2"),
            ),
            (
                "stop",
                Goal::Stopped,
                &ready,
                version(V::Draining, None, &[(1, W::Draining)]),
                Progress::GoingOn,
            ),
            ("stop", Goal::Stopped, &ready, stopped.clone(), Progress::Done),
            ("stop a failed one", Goal::Stopped, &broken, broken.clone(), Progress::GoingOn),
            ("restart", Goal::Restarted, &ready, ready.clone(), Progress::GoingOn),
            ("restart", Goal::Restarted, &ready, half, Progress::GoingOn),
            ("restart", Goal::Restarted, &ready, renewed, Progress::Done),
            (
                "restart given up",
                Goal::Restarted,
                &ready,
                Version { reason: Some("exit 1".into()), ..ready.clone() },
                failed("exit 1"),
            ),
            ("scale up", Goal::Scaled(3), &ready, ready.clone(), Progress::GoingOn),
            (
                "scale down",
                Goal::Scaled(1),
                &ready,
                version(V::Ready, None, &[(1, W::Ready)]),
                Progress::Done,
            ),
        ];
        for (name, goal, before, now, expected) in cases {
            assert_eq!(progress(goal, before, &now, Duration::ZERO), expected, "{name}: {}", stage(&now));
        }
        assert_eq!(progress(Goal::Started, &broken, &broken, Duration::from_secs(5)), failed("exit 1"));
    }
}
