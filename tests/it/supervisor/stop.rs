//! Ends: stop, drain, shutdown, and that nothing of a process tree is left.

use switchman::metrics::ThreadSlot;
use switchman::version::WorkerState;

use super::*;

/// Ignores TERM, and leaves behind: a child in a session of its own, and a daemon that no longer has a parent.
const CLINGING: &str = "trap '' TERM
    setsid sh -c 'echo $$ > child.new; mv child.new child; exec sleep 1000' &
    (setsid sh -c 'echo $$ > daemon.new; mv daemon.new daemon; exec sleep 1000' &)
    python3 server.py";

async fn clinging_pids(world: &World, version: &str) -> Vec<u32> {
    let ready = world.until_state(version, VersionState::Ready).await;
    let mut all = pids(&ready);
    for file in ["child", "daemon"] {
        all.push(written(&world.folder(version).join(file)).await.parse().unwrap());
    }
    assert!(all.iter().all(|pid| exists(*pid)));
    all
}

#[tokio::test]
async fn nothing_of_a_process_tree_is_left_after_stop() {
    let world = World::new(spec());
    world.deploy("4f2a91c", CLINGING).await;
    let all = clinging_pids(&world, "4f2a91c").await;
    world.ask("4f2a91c", Action::Stop { force: false }).await.unwrap();
    let stopped = world.until_state("4f2a91c", VersionState::Stopped).await;
    assert!(all.iter().all(|pid| !exists(*pid)), "no process and no zombie of {all:?}");
    assert_eq!((stopped.workers[0].state, stopped.workers[0].pid), (WorkerState::Stopped, None));
    world.end().await;
}

#[tokio::test]
async fn every_process_of_the_group_is_told_once_and_may_tidy_up() {
    let mut patient = spec();
    patient.stop.grace = Duration::from_secs(20);
    let world = World::new(patient);
    let tidy = "python3 server.py &
        server=$!
        trap 'echo told; sleep 0.2; echo tidy; exit 0' TERM
        wait $server; wait $server";
    world.deploy("4f2a91c", tidy).await;
    world.until_state("4f2a91c", VersionState::Ready).await;
    world.ask("4f2a91c", Action::Stop { force: false }).await.unwrap();
    world.until_state("4f2a91c", VersionState::Stopped).await;
    let lines = world.lines("4f2a91c");
    let said = |word: &str| lines.iter().filter(|line| *line == word).count();
    assert_eq!((said("told"), said("tidy")), (1, 1), "{lines:?}");
    world.end().await;
}

#[tokio::test]
async fn nothing_of_a_process_tree_is_left_after_a_crash() {
    let world = World::new(spec());
    world.deploy("4f2a91c", CLINGING).await;
    let all = clinging_pids(&world, "4f2a91c").await;
    kill(all[0]);
    world.until("4f2a91c", "it is started again", |v| v.workers[0].restarts == 1).await;
    assert!(all.iter().all(|pid| !exists(*pid)), "no process and no zombie of {all:?}");
    world.end().await;
}

#[tokio::test]
async fn shutdown_ends_every_version_at_once_and_leaves_no_process() {
    let world = World::new(spec());
    world.deploy("4f2a91c", CLINGING).await;
    world.deploy("b001bee", CLINGING).await;
    world.deploy("bad0bad", "exec sleep 1000").await;
    let starting = world.until("bad0bad", "it runs", |v| !pids(v).is_empty()).await;
    let mut all = clinging_pids(&world, "4f2a91c").await;
    all.extend(clinging_pids(&world, "b001bee").await);
    all.extend(pids(&starting));
    world.handle.shutdown().await;
    assert!(all.iter().all(|pid| !exists(*pid)), "no process and no zombie of {all:?}");
    world.task.await.unwrap();
    let refused = world.handle.ask(APP.into(), "4f2a91c".into(), Action::Start).await.unwrap_err();
    assert_eq!(refused.message, "switchman is shutting down");
}

#[tokio::test]
async fn a_supervisor_without_handles_ends_its_workers_too() {
    let world = World::new(spec());
    world.deploy("4f2a91c", SERVE).await;
    let ready = world.until_state("4f2a91c", VersionState::Ready).await;
    drop(world.handle);
    world.task.await.unwrap();
    assert!(pids(&ready).iter().all(|pid| !exists(*pid)));
}

#[tokio::test]
async fn stop_lets_running_requests_end_first() {
    let world = World::new(spec());
    world.deploy("4f2a91c", SERVE).await;
    let version = world.until_state("4f2a91c", VersionState::Ready).await;
    let upstream = version.ready[0].clone();
    upstream.in_flight.begin(ThreadSlot(0));
    world.ask("4f2a91c", Action::Drain { force: false }).await.unwrap();
    let draining = world.until_state("4f2a91c", VersionState::Draining).await;
    assert!(draining.ready.is_empty(), "it is out of the registry at once");
    assert_eq!(draining.workers[0].state, WorkerState::Draining);
    assert!(get(&upstream.address, "/").await.contains("200 OK"), "the running request can end");
    upstream.in_flight.end(ThreadSlot(0));
    world.until_state("4f2a91c", VersionState::Stopped).await;
    world.end().await;
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_when_the_time_to_drain_is_over() {
    let mut hasty = spec();
    hasty.stop.drain = Duration::from_millis(100);
    let world = World::new(hasty);
    world.deploy("4f2a91c", SERVE).await;
    let version = world.until_state("4f2a91c", VersionState::Ready).await;
    version.ready[0].in_flight.begin(ThreadSlot(1));
    world.ask("4f2a91c", Action::Stop { force: false }).await.unwrap();
    world.until_state("4f2a91c", VersionState::Stopped).await;
    world.end().await;
}

#[tokio::test]
async fn streams_may_take_longer_than_requests() {
    let mut hasty = spec();
    hasty.stop.drain = Duration::from_millis(100);
    let world = World::new(hasty);
    world.deploy("4f2a91c", SERVE).await;
    let version = world.until_state("4f2a91c", VersionState::Ready).await;
    let upstream = version.ready[0].clone();
    upstream.in_flight.begin(ThreadSlot(1));
    upstream.streams.begin(ThreadSlot(1));
    assert!(upstream.stops.get().is_none());
    let begun = std::time::Instant::now();
    world.ask("4f2a91c", Action::Stop { force: false }).await.unwrap();
    world.until_state("4f2a91c", VersionState::Draining).await;
    assert!(upstream.stops.get().is_some(), "the data plane knows before it sees the worker leave");
    // Three times what requests have: a stream has five minutes.
    eventually("time passes", async || (begun.elapsed() > Duration::from_millis(300)).then_some(())).await;
    assert_eq!(world.version("4f2a91c").unwrap().state, VersionState::Draining);
    // A person who has changed his mind does not wait for the streams either.
    world.ask("4f2a91c", Action::Start).await.unwrap();
    world.until_state("4f2a91c", VersionState::Ready).await;
    assert!(get(&upstream.address, "/").await.contains("200 OK"), "the worker with the stream goes on");
    upstream.streams.end(ThreadSlot(1));
    upstream.in_flight.end(ThreadSlot(1));
    let pid = pids(&version)[0];
    eventually("the old worker is gone", async || (!exists(pid)).then_some(())).await;
    assert_eq!(world.version("4f2a91c").unwrap().state, VersionState::Ready);
    world.end().await;
}

#[tokio::test]
async fn what_carries_traffic_is_stopped_only_by_force() {
    let world = World::new(spec());
    world.deploy("4f2a91c", SERVE).await;
    world.until_state("4f2a91c", VersionState::Ready).await;
    world.promote("4f2a91c").await;
    for action in [Action::Stop { force: false }, Action::Drain { force: false }] {
        let refused = world.ask("4f2a91c", action).await.unwrap_err();
        assert_eq!(refused.message, "4f2a91c carries traffic");
        assert!(refused.hint.starts_with("switchman promote") && refused.hint.contains("--force"));
    }
    assert_eq!(world.version("4f2a91c").unwrap().state, VersionState::Ready);
    let unknown = world.ask("0000000", Action::Stop { force: true }).await.unwrap_err();
    assert_eq!(unknown.message, "app has no version 0000000");
    world.ask("4f2a91c", Action::Stop { force: true }).await.unwrap();
    world.until_state("4f2a91c", VersionState::Stopped).await;
    world.end().await;
}

#[tokio::test]
async fn a_stopped_version_stays_stopped_over_a_restart_of_switchman() {
    let world = World::new(spec());
    world.deploy("4f2a91c", SERVE).await;
    world.until_state("4f2a91c", VersionState::Ready).await;
    world.ask("4f2a91c", Action::Stop { force: false }).await.unwrap();
    world.until_state("4f2a91c", VersionState::Stopped).await;

    let world = world.restarted().await;
    world.settle("4f2a91c").await;
    world.until_state("4f2a91c", VersionState::Stopped).await;
    world.ask("4f2a91c", Action::Start).await.unwrap();
    world.until_state("4f2a91c", VersionState::Ready).await;

    let world = world.restarted().await;
    world.settle("4f2a91c").await;
    world.until_state("4f2a91c", VersionState::Ready).await;
    world.end().await;
}
