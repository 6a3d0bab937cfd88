//! `switchman demo`: a whole running example in a temporary folder, driven the way a person would.
//!
//! It starts the real `switchman serve` as a process, copies builds in as rsync does, types the real commands
//! and sends real requests all the while. One line a step says what was done and what was seen; a step that
//! does not come true ends the demo with exit status 1.

mod load;
mod sample;
mod stage;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

pub use sample::{SampleArgs, serve as serve_sample};

use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::signals::Signals;
use load::Load;
use stage::{Stage, StepError};

/// Three commits of the sample application.
const BUILDS: [&str; 3] = ["3f9a1c2", "7b20d4e", "c5e88f0"];

/// Cookies that the load's users carry: enough for a percentage to show.
const USERS: usize = 1_000;

/// How long the example runs.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Go through the steps once and end; the exit status says whether all went well
    #[arg(long)]
    pub once: bool,
}

/// Goes through the steps; then, on a terminal and without `--once`, goes on until Ctrl-C.
pub async fn run(args: DemoArgs) -> ExitCode {
    let stay = !args.once && std::io::stdout().is_terminal();
    match demo(stay).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Whatever happens in between, the stage is struck: no process and no folder is left.
async fn demo(stay: bool) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let mut stage = Stage::set().await?;
    let shown = tokio::select! {
        shown = steps(&mut stage) => shown,
        () = signals.recv() => Err(StepError::new("told to end before the last step")),
    };
    if stay && let Ok(load) = &shown {
        tell(&stage.by_hand());
        load.keep_up(Duration::from_millis(50));
        signals.recv().await;
    }
    let total = match shown {
        Ok(load) => Ok(load.stop().await),
        Err(error) => Err(error),
    };
    let struck = stage.strike().await;
    let total = total?;
    struck?;
    say("end", &format!("{total}; every process ended, the temporary folder is removed"));
    Ok(expect(total.failures() == 0, || format!("no failure, but: {}", total.first_failure()))?)
}

/// Shows everything, a line each; answers with the load, which goes on.
async fn steps(stage: &mut Stage) -> Result<Load, StepError> {
    let [first, second, third] = BUILDS;
    say(
        "serve",
        &format!(
            "switchman runs: {}/ answers, {} tells all, deploy root {}",
            stage.url(),
            stage.versions_url(),
            stage.root().display()
        ),
    );

    stage.deploy(first)?;
    stage.wait(first, "state", "ready").await?;
    stage.wait_alias(first, "current").await?;
    say(
        "rsync",
        &format!("{first} arrived and started; the first version of all becomes `current` by itself"),
    );

    stage.deploy(second)?;
    stage.deploy(third)?;
    stage.wait(second, "state", "ready").await?;
    stage.wait(third, "state", "ready").await?;
    stage.expect_dark(second).await?;
    stage.expect_dark(third).await?;
    say("rsync", &format!("{second} and {third} arrived and started dark: they run and get no request"));

    let load = Load::start(stage.address(), USERS);
    load.seen_after(200).await?;
    let seen = load.tally();
    expect(seen.only(first), || format!("all requests at {first}, seen: {seen}"))?;
    say("load", &format!("a steady load of {USERS} users begins: {seen}"));

    let began = Instant::now();
    stage.command(&["promote", second]).await?;
    load.until("the promoted version answers", |t| t.of(second) > 0).await?;
    let took = began.elapsed();
    load.fresh(300).await?;
    let seen = load.tally();
    expect(seen.only(second), || format!("all requests at {second}, seen: {seen}"))?;
    say("promote", &format!("`switchman promote {second}` in force after {} ms: {seen}", took.as_millis()));

    let took = edit_rules(stage, &split(third), &load, third).await?;
    load.fresh(4_000).await?;
    let seen = load.tally();
    let share = seen.share(third);
    expect((5.0..=15.0).contains(&share), || format!("about 10 % at {third}, seen: {seen}"))?;
    say(
        "canary",
        &format!("a rule sends 10 % (by cookie) to {third}, in force {took} ms after the edit: {seen}"),
    );

    let pinned = load::version_for(stage.address(), Some(("x-qa", "yes"))).await?;
    expect(pinned != third, || format!("x-qa means nothing yet, {pinned} answered"))?;
    edit_rules(stage, &format!("{}{}", qa(third), split_routes(third)), &load, third).await?;
    let pinned = load.until_version(stage.address(), ("x-qa", "yes"), third).await?;
    say(
        "rule edit",
        &format!(
            "the file is edited again: requests with `x-qa: yes` now get {pinned}, all others as before"
        ),
    );

    stage.write_rules("routes: [{name: broken, to: }, {when: {headers.x: 1}, split: {a: 500%}}]\n")?;
    stage.wait_refused().await?;
    load.fresh(300).await?;
    let pinned = load::version_for(stage.address(), Some(("x-qa", "yes"))).await?;
    expect(pinned == third, || format!("the last good rules stay in force, {pinned} answered"))?;
    say("bad edit", "a broken document is refused with all its problems; the last good rules stay in force");

    stage.write_rules("routes: []\n")?;
    load.until_version(stage.address(), ("x-qa", "yes"), second).await?;
    stage.command(&["rollback"]).await?;
    load.until("the earlier version answers", |t| t.latest_is(first)).await?;
    load.fresh(500).await?;
    let seen = load.tally();
    expect(seen.only(first), || format!("all requests at {first} again, seen: {seen}"))?;
    say("rollback", &format!("`switchman rollback`: {seen}"));

    Ok(load)
}

/// Edits the rule file and waits until `version` is seen in the load; answers with the milliseconds.
async fn edit_rules(stage: &Stage, document: &str, load: &Load, version: &str) -> Result<u128, StepError> {
    let before = load.total().of(version);
    let began = Instant::now();
    stage.write_rules(document)?;
    load.until(&format!("{version} answers"), |_| load.total().of(version) > before).await?;
    Ok(began.elapsed().as_millis())
}

fn split(version: &str) -> String {
    format!("key: cookie.uid\nroutes:\n{}", split_routes(version))
}

fn split_routes(version: &str) -> String {
    format!("  - name: canary\n    split: {{{version}: 10%}}\n")
}

fn qa(version: &str) -> String {
    format!("key: cookie.uid\nroutes:\n  - name: qa\n    when: {{header.x-qa: \"yes\"}}\n    to: {version}\n")
}

fn expect(held: bool, wanted: impl FnOnce() -> String) -> Result<(), StepError> {
    if held { Ok(()) } else { Err(StepError::new(format!("expected {}", wanted()))) }
}

fn say(step: &str, what: &str) {
    tell(&format!("{step:>10}  {what}"));
}

fn tell(text: &str) {
    // A reader that went away ends nothing: the demo's exit status still tells.
    let _ = output::data(text);
}
