//! Restarts, of one version and of all that runs, and how many workers start at the same moment.

use switchman::config::RestartOrder;
use switchman::version::WorkerState;

use super::*;

fn stop_first(workers: u32) -> RunSpec {
    let mut spec = RunSpec { workers, ..spec() };
    spec.life.restart = RestartOrder::StopFirst;
    spec
}

/// A worker that can exist once for each number: it refuses to start while another one of its number runs.
const ONCE: &str = "mkdir lock-$SWITCHMAN_WORKER || { echo twice >&2; exit 1; }
    trap 'kill $server; wait $server; rmdir lock-$SWITCHMAN_WORKER; exit 0' TERM
    python3 server.py & server=$!
    wait $server";

#[tokio::test]
async fn with_stop_first_no_worker_exists_twice_and_one_is_replaced_at_a_time() {
    let mut spec = stop_first(2);
    spec.stop.grace = Duration::from_secs(10);
    let mut world = World::new(spec);
    world.deploy("4f2a91c", ONCE).await;
    let before = world.until_state("4f2a91c", VersionState::Ready).await;
    world.ask("4f2a91c", Action::Restart).await.unwrap();
    let old = pids(&before);
    loop {
        world.registry.changed().await.unwrap();
        let now = world.version("4f2a91c").unwrap();
        assert!(!now.ready.is_empty(), "the other one serves: {now:#?}");
        assert!(pids(&now).len() <= 2, "{now:#?}");
        if now.ready.len() == 2 && pids(&now).iter().all(|pid| !old.contains(pid)) {
            break;
        }
    }
    assert!(!world.lines("4f2a91c").contains(&"twice".to_owned()), "{:?}", world.lines("4f2a91c"));
    assert!(world.version("4f2a91c").unwrap().workers.iter().all(|w| w.restarts == 0));
    world.end().await;
}

#[tokio::test]
async fn with_stop_first_a_new_worker_that_fails_leaves_the_others_alone() {
    let world = World::new(stop_first(3));
    world.deploy("4f2a91c", SERVE).await;
    let before = world.until_state("4f2a91c", VersionState::Ready).await;
    world.write("4f2a91c", "echo no database; exit 1");
    world.ask("4f2a91c", Action::Restart).await.unwrap();
    let given_up = world
        .until("4f2a91c", "it is given up", |v| v.reason.as_ref().is_some_and(|r| r.contains("given up")))
        .await;
    assert!(given_up.reason.as_ref().unwrap().contains("the new worker 0"), "{:?}", given_up.reason);
    let after = world.until("4f2a91c", "it is tried again", |v| v.workers[0].restarts > 0).await;
    assert_eq!((after.state, after.ready.len()), (VersionState::Ready, 2));
    assert!(after.workers[1..].iter().zip(&before.workers[1..]).all(|(now, then)| now.pid == then.pid));
    // The next try works, and the version is whole again.
    world.write("4f2a91c", SERVE);
    world.until("4f2a91c", "all three are ready", |v| v.ready.len() == 3 && v.reason.is_none()).await;
    world.end().await;
}

#[tokio::test]
async fn everything_that_runs_is_restarted_one_version_after_the_other() {
    let mut world = World::new(spec());
    let names = ["4f2a91c", "b001bee", "c0ffee1"];
    for name in names {
        world.deploy(name, SERVE).await;
        world.until_state(name, VersionState::Ready).await;
    }
    world.promote("b001bee").await;
    world.ask("c0ffee1", Action::Stop { force: false }).await.unwrap();
    world.until_state("c0ffee1", VersionState::Stopped).await;
    let before = [names[0], names[1]].map(|name| pids(&world.version(name).unwrap())[0]);

    let restarting = world.handle.restart_all(None).await.unwrap();
    let order: Vec<&str> = restarting.iter().map(|r| r.version.as_str()).collect();
    assert_eq!(order, ["b001bee", "4f2a91c"], "what carries traffic first, and nothing that is stopped");
    let is_new = |v: &registry::Version, old: u32| v.ready.len() == 1 && pids(v) != [old];
    loop {
        let [first, second] = [names[1], names[0]].map(|name| world.version(name).unwrap());
        let of = |v: &registry::Version| v.workers.iter().any(|w| w.state == WorkerState::Starting);
        assert!(!(of(&first) && of(&second)), "two versions at once");
        if is_new(&second, before[0]) {
            assert!(is_new(&first, before[1]), "the first one was first");
            break;
        }
        world.registry.changed().await.unwrap();
    }
    assert_eq!(world.version("c0ffee1").unwrap().state, VersionState::Stopped);
    let unknown = world.handle.restart_all(Some("nobody".into())).await.unwrap_err();
    assert_eq!(unknown.message, "no service is called `nobody`");
    world.end().await;
}

#[tokio::test]
async fn a_version_that_cannot_be_restarted_says_so_and_the_next_one_has_its_turn() {
    let world = World::new(spec());
    for name in ["4f2a91c", "b001bee"] {
        world.deploy(name, SERVE).await;
    }
    let first = world.until_state("4f2a91c", VersionState::Ready).await;
    let second = world.until_state("b001bee", VersionState::Ready).await;
    std::fs::write(world.folder("4f2a91c").join("switchman.yaml"), "workers: none").unwrap();
    world.handle.restart_all(Some(APP.into())).await.unwrap();
    let stays = world.until("4f2a91c", "it says why", |v| v.reason.is_some()).await;
    let reason = stays.reason.as_ref().unwrap();
    assert!(reason.contains("given up") && reason.contains("`none` is not a whole number"), "{reason}");
    assert_eq!(pids(&stays), pids(&first));
    world.until("b001bee", "it is restarted", |v| v.ready.len() == 1 && pids(v) != pids(&second)).await;
    world.end().await;
}

#[tokio::test]
async fn forty_versions_at_once_start_no_more_workers_than_may() {
    let mut slow = spec();
    slow.ready.check = ReadyCheck::After(Duration::from_millis(150));
    let mut world = World::starting(5, slow);
    let names: Vec<String> = (0..40).map(|n| format!("{n:07x}")).collect();
    for name in &names {
        world.write(name, "exec sleep 1000");
    }
    // Those that run and are not ready; one that waits for its turn has no process.
    let count = |world: &World| {
        let all = names.iter().filter_map(|name| world.version(name));
        let workers: Vec<registry::Worker> = all.flat_map(|v| v.workers.clone()).collect();
        let starts = |w: &&registry::Worker| w.state == WorkerState::Starting && w.pid.is_some();
        let ready = workers.iter().filter(|w| w.state == WorkerState::Ready).count();
        (workers.iter().filter(starts).count(), ready)
    };
    for name in &names {
        world.settle(name).await;
    }
    let mut most = 0;
    loop {
        let (starting, ready) = count(&world);
        most = most.max(starting);
        assert!(starting <= 4, "one of the five turns is kept for what carries traffic: {starting} start");
        if ready == names.len() {
            break;
        }
        world.registry.changed().await.unwrap();
    }
    assert_eq!(most, 4, "as many as may");
    world.end().await;
}

#[tokio::test]
async fn what_carries_traffic_does_not_wait_behind_new_versions() {
    let mut spec = spec();
    spec.ready.deadline = Duration::from_secs(60);
    let world = World::starting(2, spec);
    world.deploy("4f2a91c", SERVE).await;
    let before = world.until_state("4f2a91c", VersionState::Ready).await;
    world.promote("4f2a91c").await;
    // They use the processor for as long as they live, and are never ready.
    let busy: Vec<String> = (0..3).map(|n| format!("bad000{n}")).collect();
    for name in &busy {
        world.deploy(name, "while :; do :; done").await;
    }
    world.until("bad0000", "it starts", |v| v.workers.iter().any(|w| w.pid.is_some())).await;
    kill(pids(&before)[0]);
    world
        .until("4f2a91c", "it runs again", |v| v.state == VersionState::Ready && pids(v) != pids(&before))
        .await;
    let running = busy.iter().filter(|name| world.version(name).is_some_and(|v| !pids(&v).is_empty()));
    assert_eq!(running.count(), 1, "the others wait for their turn");
    world.end().await;
}
