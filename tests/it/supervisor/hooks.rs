//! Commands at points of a version's life.

use switchman::config::{Hook, Hooks};

use super::*;

/// Appends its version and the hook's name to `ran` in the state folder.
const NOTE: &str = "echo \"$SWITCHMAN_HOOK $COMMIT\" >> \"$RAN\"";

fn hook(text: &str) -> Option<Hook> {
    Some(Hook { run: RunCommand::Shell(text.to_owned()), timeout: Duration::from_secs(20) })
}

/// A world with these hooks; they find the file `ran` in RAN.
fn world(hooks: Hooks) -> World {
    let state = Arc::new(TempDir::new().unwrap());
    let mut spec = spec();
    spec.env.insert("RAN".to_owned(), ran_file(&state).display().to_string());
    let upkeep = Upkeep { hooks, ..Upkeep::default() };
    World::start(Root::new(), state, spec, Extra { upkeep, ..Extra::default() }, &[])
}

fn ran_file(state: &TempDir) -> PathBuf {
    state.path().join("ran")
}

/// What the hooks have noted.
fn ran(world: &World) -> Vec<String> {
    let text = std::fs::read_to_string(ran_file(&world.state)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_migration_runs_once_before_the_first_worker_and_not_again() {
    let world = world(Hooks {
        before_start: hook(&format!("{NOTE}; pwd; sleep 0.3; touch migrated")),
        ..Hooks::default()
    });
    world.deploy("4f2a91c", "test -e migrated || exit 9; exec python3 server.py").await;
    let running = world.until("4f2a91c", "the migration runs", |v| v.reason.is_some()).await;
    assert_eq!(
        (running.state, running.reason.as_deref()),
        (VersionState::Starting, Some("before_start runs"))
    );
    let ready = world.until_state("4f2a91c", VersionState::Ready).await;
    assert_eq!((ready.workers[0].restarts, ready.reason.as_deref()), (0, None));
    let folder = world.folder("4f2a91c").canonicalize().unwrap();
    assert!(world.lines("4f2a91c").contains(&folder.display().to_string()), "{:?}", world.lines("4f2a91c"));

    world.ask("4f2a91c", Action::Restart).await.unwrap();
    world.until("4f2a91c", "it is restarted", |v| v.ready.len() == 1 && pids(v) != pids(&ready)).await;
    world.ask("4f2a91c", Action::Stop { force: true }).await.unwrap();
    world.until_state("4f2a91c", VersionState::Stopped).await;
    world.ask("4f2a91c", Action::Start).await.unwrap();
    world.until_state("4f2a91c", VersionState::Ready).await;
    let world = world.restarted().await;
    world.settle("4f2a91c").await;
    world.until_state("4f2a91c", VersionState::Ready).await;
    assert_eq!(ran(&world), ["before_start 4f2a91c"]);

    // Another folder of that name has a migration of its own to run.
    world.gone("4f2a91c").await;
    world.until_forgotten("4f2a91c").await;
    world.deploy("4f2a91c", SERVE).await;
    world.until_state("4f2a91c", VersionState::Ready).await;
    assert_eq!(ran(&world).len(), 2);
    world.end().await;
}

#[tokio::test]
async fn a_migration_that_fails_fails_its_version_and_nothing_else() {
    let failing = format!("{NOTE}; if [ -e broken ]; then echo no such column >&2; exit 3; fi");
    let world = world(Hooks { before_start: hook(&failing), ..Hooks::default() });
    world.deploy("4f2a91c", SERVE).await;
    let well = world.until_state("4f2a91c", VersionState::Ready).await;
    world.write("bad0bad", SERVE);
    std::fs::write(world.folder("bad0bad").join("broken"), "").unwrap();
    world.settle("bad0bad").await;
    let failed = world.until_state("bad0bad", VersionState::Failed).await;
    let reason = failed.reason.clone().unwrap();
    assert!(
        reason.starts_with("before_start exited with status 3; it printed last:\n  no such column"),
        "{reason}"
    );
    assert!(reason.contains("switchman start bad0bad"), "{reason}");
    assert!(failed.workers.is_empty(), "no worker was started");
    assert_eq!(pids(&world.version("4f2a91c").unwrap()), pids(&well));
    assert!(world.lines("bad0bad").contains(&"no such column".to_owned()));

    // A restart of switchman does not try it again; a person does.
    let world = world.restarted().await;
    world.settle("bad0bad").await;
    let failed = world.until_state("bad0bad", VersionState::Failed).await;
    assert!(failed.reason.as_deref().unwrap().contains("no such column"));
    assert_eq!(ran(&world).len(), 2);
    std::fs::remove_file(world.folder("bad0bad").join("broken")).unwrap();
    world.ask("bad0bad", Action::Start).await.unwrap();
    world.until_state("bad0bad", VersionState::Ready).await;
    assert_eq!(ran(&world).len(), 3);
    world.end().await;
}

#[tokio::test]
async fn a_hook_that_takes_too_long_is_ended_with_everything_it_has_started() {
    let slow = "setsid sleep 1000 & echo $! > child.new; mv child.new child; sleep 1000";
    let mut before_start = hook(slow);
    before_start.as_mut().unwrap().timeout = Duration::from_secs(1);
    let world = world(Hooks { before_start, ..Hooks::default() });
    world.deploy("4f2a91c", SERVE).await;
    let child: u32 = written(&world.folder("4f2a91c").join("child")).await.parse().unwrap();
    let failed = world.until_state("4f2a91c", VersionState::Failed).await;
    assert!(
        failed.reason.as_deref().unwrap().starts_with("before_start did not end within 1s"),
        "{failed:?}"
    );
    assert!(!exists(child), "what it has started is ended");
    world.end().await;
}

#[tokio::test]
async fn a_version_that_is_stopped_while_its_migration_runs_ends_that() {
    let world = world(Hooks {
        before_start: hook("echo $$ > pid.new; mv pid.new pid; exec sleep 1000"),
        ..Hooks::default()
    });
    world.deploy("4f2a91c", SERVE).await;
    let pid: u32 = written(&world.folder("4f2a91c").join("pid")).await.parse().unwrap();
    world.ask("4f2a91c", Action::Stop { force: false }).await.unwrap();
    let stopped = world.until_state("4f2a91c", VersionState::Stopped).await;
    assert_eq!(stopped.reason, None);
    eventually("the migration is ended", async || (!exists(pid)).then_some(())).await;
    // And switchman's own end waits for nothing that it has started.
    world.ask("4f2a91c", Action::Start).await.unwrap();
    eventually("another one runs", async || {
        let again = std::fs::read_to_string(world.folder("4f2a91c").join("pid")).ok()?;
        (again.trim() != pid.to_string()).then_some(())
    })
    .await;
    let again: u32 = written(&world.folder("4f2a91c").join("pid")).await.parse().unwrap();
    world.end().await;
    assert!(!exists(again));
}

#[tokio::test]
async fn what_follows_readiness_runs_once_and_its_failure_is_said_and_no_more() {
    let world =
        world(Hooks { after_ready: hook(&format!("{NOTE}; echo no cache; exit 4")), ..Hooks::default() });
    world.deploy("4f2a91c", SERVE).await;
    let ready = world.until("4f2a91c", "it is said", |v| v.reason.is_some()).await;
    assert_eq!(ready.state, VersionState::Ready);
    assert!(ready.reason.as_deref().unwrap().starts_with("after_ready exited with status 4"), "{ready:?}");
    world.ask("4f2a91c", Action::Restart).await.unwrap();
    world.until("4f2a91c", "it is restarted", |v| v.ready.len() == 1 && pids(v) != pids(&ready)).await;
    let world = world.restarted().await;
    world.settle("4f2a91c").await;
    world.until_state("4f2a91c", VersionState::Ready).await;
    assert_eq!(ran(&world), ["after_ready 4f2a91c"]);
    world.end().await;
}

#[tokio::test]
async fn before_a_stop_workers_are_told_nothing_until_the_hook_has_ended() {
    let said = "trap 'echo TERM >> \"$RAN\"; exit' TERM; python3 server.py & wait";
    let before_stop = hook(&format!("{NOTE}; while [ ! -e go ]; do sleep 0.02; done; echo over >> \"$RAN\""));
    let world = world(Hooks { before_stop, ..Hooks::default() });
    world.deploy("4f2a91c", said).await;
    world.until_state("4f2a91c", VersionState::Ready).await;
    world.ask("4f2a91c", Action::Stop { force: false }).await.unwrap();
    world.until_state("4f2a91c", VersionState::Draining).await;
    eventually("the hook runs", async || (ran(&world).len() == 1).then_some(())).await;
    std::fs::write(world.folder("4f2a91c").join("go"), "").unwrap();
    world.until_state("4f2a91c", VersionState::Stopped).await;
    assert_eq!(ran(&world), ["before_stop 4f2a91c", "over", "TERM"]);

    // The end of switchman is a stop, too.
    std::fs::remove_file(ran_file(&world.state)).unwrap();
    world.ask("4f2a91c", Action::Start).await.unwrap();
    world.until_state("4f2a91c", VersionState::Ready).await;
    world.end().await;
    assert_eq!(ran(&world), ["before_stop 4f2a91c", "over", "TERM"]);
}

#[tokio::test]
async fn a_switchman_that_leaves_its_workers_finishes_a_migration_first() {
    let before_start = hook(&format!("while [ ! -e go ]; do sleep 0.02; done; {NOTE}"));
    let world = world(Hooks { before_start, ..Hooks::default() });
    world.deploy("4f2a91c", SERVE).await;
    world.until("4f2a91c", "the migration runs", |v| v.reason.is_some()).await;
    let go = world.folder("4f2a91c").join("go");
    let (world, ()) = tokio::join!(world.succeeded(), async {
        // It is asked to leave, and cannot yet.
        tokio::task::yield_now().await;
        std::fs::write(go, "").unwrap();
    });
    world.settle("4f2a91c").await;
    world.until_state("4f2a91c", VersionState::Ready).await;
    assert_eq!(ran(&world), ["before_start 4f2a91c"]);
    world.end().await;
}

#[tokio::test]
async fn migrations_of_two_versions_run_one_after_the_other() {
    let alone = "mkdir \"$RAN.lock\" || exit 7; sleep 0.2; rmdir \"$RAN.lock\"";
    let world = world(Hooks { before_start: hook(alone), ..Hooks::default() });
    let versions = ["4f2a91c", "b001bee", "c0ffee0"];
    for version in versions {
        world.deploy(version, SERVE).await;
    }
    for version in versions {
        world.until_state(version, VersionState::Ready).await;
    }
    world.end().await;
}
