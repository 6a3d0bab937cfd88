//! Versions that nobody asks for, and what wakes them. Requests that wait are in `e2e`.

use super::*;

fn idle(spec: RunSpec) -> World {
    World::keeping(Upkeep { idle: Some(Duration::from_secs(1)), ..Upkeep::default() }, spec)
}

/// Waits until a version sleeps, without a process.
async fn asleep(world: &World, version: &str) -> Arc<registry::Version> {
    let asleep = world.until_state(version, VersionState::Asleep).await;
    assert!(pids(&asleep).is_empty() && asleep.wake.is_some(), "{asleep:?}");
    asleep
}

#[tokio::test]
async fn a_version_proves_itself_then_sleeps_and_is_woken_by_a_ring() {
    let world = idle(spec());
    world.deploy("4f2a91c", SERVE).await;
    let ready = world.until_state("4f2a91c", VersionState::Ready).await;
    let sleeping = asleep(&world, "4f2a91c").await;
    assert!(pids(&ready).iter().all(|pid| !exists(*pid)));

    // Many rings at once are one.
    let wake = sleeping.wake.clone().unwrap();
    (0..100).for_each(|_| wake.ring());
    let awake = world.until_state("4f2a91c", VersionState::Ready).await;
    assert_eq!((pids(&awake).len(), awake.workers[0].restarts), (1, 0));
    assert!(awake.wake.is_none());
    asleep(&world, "4f2a91c").await;
    world.end().await;
}

#[tokio::test]
async fn open_requests_keep_it_awake() {
    let world = idle(spec());
    world.deploy("4f2a91c", SERVE).await;
    let ready = world.until_state("4f2a91c", VersionState::Ready).await;
    let slot = switchman::metrics::ThreadSlot(0);
    ready.ready[0].in_flight.begin(slot);
    let begun = std::time::Instant::now();
    // Three times what an unused version has.
    eventually("three seconds have passed", async || {
        assert_eq!(world.version("4f2a91c").unwrap().state, VersionState::Ready);
        (begun.elapsed() > Duration::from_secs(3)).then_some(())
    })
    .await;
    ready.ready[0].in_flight.end(slot);
    asleep(&world, "4f2a91c").await;
    world.end().await;
}

#[tokio::test]
async fn people_can_start_and_stop_what_sleeps() {
    let world = idle(spec());
    world.deploy("4f2a91c", SERVE).await;
    asleep(&world, "4f2a91c").await;
    world.ask("4f2a91c", Action::Start).await.unwrap();
    world.until_state("4f2a91c", VersionState::Ready).await;
    asleep(&world, "4f2a91c").await;
    world.ask("4f2a91c", Action::Stop { force: false }).await.unwrap();
    let stopped = world.until_state("4f2a91c", VersionState::Stopped).await;
    assert!(stopped.wake.is_none(), "no request wakes what a person has stopped");
    world.end().await;
}

#[tokio::test]
async fn it_sleeps_on_over_a_restart_of_switchman_unless_its_folder_is_another() {
    let world = idle(spec());
    world.deploy("4f2a91c", SERVE).await;
    asleep(&world, "4f2a91c").await;
    let world = world.restarted().await;
    world.settle("4f2a91c").await;
    let sleeping = asleep(&world, "4f2a91c").await;
    assert!(world.lines("4f2a91c").is_empty(), "nothing was started");
    sleeping.wake.as_ref().unwrap().ring();
    world.until_state("4f2a91c", VersionState::Ready).await;
    asleep(&world, "4f2a91c").await;

    let world = world.restarted().await;
    std::fs::rename(world.folder("4f2a91c"), world.root.path().join("old")).unwrap();
    world.deploy("4f2a91c", SERVE).await;
    world.until_state("4f2a91c", VersionState::Ready).await;
    world.end().await;
}

#[tokio::test]
async fn one_that_cannot_start_any_more_says_so_as_soon_as_its_worker_ends() {
    let world = idle(spec());
    world.deploy("4f2a91c", SERVE).await;
    let sleeping = asleep(&world, "4f2a91c").await;
    world.write("4f2a91c", "echo no database; exit 1");
    sleeping.wake.as_ref().unwrap().ring();
    let failing = world.until("4f2a91c", "nobody waits any more", |v| v.wake.is_none()).await;
    assert!(failing.reason.as_deref().unwrap().contains("exited with status 1"), "{failing:?}");
    world.until_state("4f2a91c", VersionState::Failed).await;
    world.end().await;
}

#[tokio::test]
async fn a_promote_wakes_it() {
    let world = idle(spec());
    world.deploy("4f2a91c", SERVE).await;
    world.promote("4f2a91c").await;
    world.deploy("b001bee", SERVE).await;
    asleep(&world, "4f2a91c").await;
    asleep(&world, "b001bee").await;
    world.promote("b001bee").await;
    world.until_state("b001bee", VersionState::Ready).await;
    assert_eq!(world.version("4f2a91c").unwrap().state, VersionState::Asleep);
    world.end().await;
}
