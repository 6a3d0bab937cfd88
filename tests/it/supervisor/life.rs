//! Versions that work: start, restart, scale, folder changes.

use std::collections::{BTreeSet, HashSet};

use super::*;

#[tokio::test]
async fn a_settled_version_starts_dark_on_a_picked_port_with_its_environment() {
    let mut with_env = spec();
    with_env.workers = 2;
    with_env.env.insert("NODE_ENV".to_owned(), "production".to_owned());
    let world = World::new(with_env);
    world.write("4f2a91c", SERVE);
    let path = world.folder("4f2a91c");
    world.tell(ChangeKind::Arriving { version: "4f2a91c".into(), path: path.clone() }).await;
    world.until_state("4f2a91c", VersionState::Arriving).await;
    world.settle("4f2a91c").await;
    let version = world.until_state("4f2a91c", VersionState::Ready).await;

    assert_eq!((version.ready.len(), version.workers.len(), &version.reason), (2, 2, &None));
    let addresses: HashSet<&Address> = version.ready.iter().map(|upstream| &upstream.address).collect();
    assert_eq!(addresses.len(), 2, "each worker has a port of its own");
    eventually("it is dark", async || {
        let live = world.live.load();
        let service = live.service(APP)?;
        service.is_dark(service.registry.versions.get("4f2a91c")?).then_some(())
    })
    .await;

    let Address::Tcp(address) = &version.ready[1].address else { panic!() };
    let environment = get(&version.ready[1].address, "/env").await;
    for line in [
        format!("PORT={}", address.port()),
        "HOST=127.0.0.1".to_owned(),
        "COMMIT=4f2a91c".to_owned(),
        "SWITCHMAN_SERVICE=app".to_owned(),
        "SWITCHMAN_VERSION=4f2a91c".to_owned(),
        "SWITCHMAN_WORKER=1".to_owned(),
        "NODE_ENV=production".to_owned(),
        format!("CWD={}", path.display()),
        format!("PIDFILE={}", world.state.path().join("run/app/4f2a91c/1-2.pid").display()),
    ] {
        assert!(environment.lines().any(|l| l == line), "{line} in {environment}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_shell_command_gets_port_and_pidfile_and_a_list_is_executed_as_it_is() {
    let world = World::new(spec());
    world.deploy("4f2a91c", "echo $$ > \"$2\"; echo \"port $1\"; exec python3 server.py \"$1\"").await;
    let version = world.until_state("4f2a91c", VersionState::Ready).await;
    let Address::Tcp(address) = &version.ready[0].address else { panic!() };
    assert_eq!(world.lines("4f2a91c"), [format!("port {}", address.port())]);
    let pidfile = world.state.path().join("run/app/4f2a91c/0-1.pid");
    assert_eq!(std::fs::read_to_string(&pidfile).unwrap().trim(), pids(&version)[0].to_string());
    world.end().await;
    assert!(!pidfile.exists(), "it is removed with the process");

    let mut list = spec();
    list.run = Some(RunCommand::Exec(["python3", "server.py"].map(str::to_owned).into()));
    let world = World::new(list);
    world.deploy("4f2a91c", "").await;
    world.until_state("4f2a91c", VersionState::Ready).await;
    world.end().await;
}

#[tokio::test]
async fn a_killed_worker_is_replaced_and_its_connections_are_not_mixed_up() {
    let world = World::new(spec());
    world.deploy("4f2a91c", SERVE).await;
    let before = world.until_state("4f2a91c", VersionState::Ready).await;
    kill(pids(&before)[0]);
    let after = world
        .until("4f2a91c", "another process is ready", |v| {
            v.state == VersionState::Ready && pids(v) != pids(&before)
        })
        .await;
    assert_ne!(after.ready[0].serial, before.ready[0].serial);
    assert_eq!(after.workers[0].restarts, 1);
    assert_eq!(after.reason, None, "it is well again");
    assert!(Arc::ptr_eq(&before.counters, &after.counters), "its counters outlive the worker");
    world.end().await;
}

#[tokio::test]
async fn a_restart_is_rolling_and_never_leaves_fewer_ready_workers() {
    let mut two = spec();
    two.workers = 2;
    let mut world = World::new(two);
    world.deploy("4f2a91c", SERVE).await;
    let before = world.until_state("4f2a91c", VersionState::Ready).await;
    world.ask("4f2a91c", Action::Restart).await.unwrap();
    let old: BTreeSet<u32> = pids(&before).into_iter().collect();
    loop {
        world.registry.changed().await.unwrap();
        let now = world.version("4f2a91c").unwrap();
        assert!(now.ready.len() >= 2, "{now:#?}");
        assert_eq!(now.state, VersionState::Ready);
        if now.ready.len() == 2 && pids(&now).iter().all(|pid| !old.contains(pid)) {
            break;
        }
    }
    eventually("the old ones have ended", async || old.iter().all(|pid| !exists(*pid)).then_some(())).await;
    world.end().await;
}

#[tokio::test]
async fn a_restart_that_fails_is_given_up_and_the_old_worker_goes_on() {
    let world = World::new(spec());
    world.deploy("4f2a91c", SERVE).await;
    let before = world.until_state("4f2a91c", VersionState::Ready).await;
    world.write("4f2a91c", "echo no database; exit 1");
    world.ask("4f2a91c", Action::Restart).await.unwrap();
    let after = world.until("4f2a91c", "the restart is given up", |v| v.reason.is_some()).await;
    let reason = after.reason.as_deref().unwrap();
    assert!(reason.contains("the restart was given up") && reason.contains("no database"), "{reason}");
    assert_eq!((after.state, pids(&after)), (VersionState::Ready, pids(&before)));
    assert!(get(&after.ready[0].address, "/").await.contains("200 OK"));
    world.end().await;
}

#[tokio::test]
async fn workers_are_added_and_taken_away() {
    let world = World::new(spec());
    world.deploy("4f2a91c", SERVE).await;
    let one = world.until_state("4f2a91c", VersionState::Ready).await;
    world.ask("4f2a91c", Action::Scale { workers: 3 }).await.unwrap();
    let three = world.until("4f2a91c", "three are ready", |v| v.ready.len() == 3).await;
    assert_eq!(three.state, VersionState::Ready);
    world.ask("4f2a91c", Action::Scale { workers: 1 }).await.unwrap();
    let again = world.until("4f2a91c", "one is left", |v| v.workers.len() == 1).await;
    assert_eq!(pids(&again), pids(&one));
    assert_eq!(pids(&three).into_iter().filter(|pid| exists(*pid)).count(), 1);
    let refused = world.ask("4f2a91c", Action::Scale { workers: 0 }).await.unwrap_err();
    assert_eq!(refused.hint, "switchman stop 4f2a91c");
    world.end().await;
}

#[tokio::test]
async fn twenty_versions_at_once_all_become_ready() {
    let mut cheap = spec();
    cheap.ready.check = ReadyCheck::After(Duration::from_millis(20));
    let world = World::new(cheap);
    let names: Vec<String> = (0..20).map(|n| format!("{n:07x}")).collect();
    for name in &names {
        world.deploy(name, "exec sleep 1000").await;
    }
    for name in &names {
        world.until_state(name, VersionState::Ready).await;
    }
    world.end().await;
}

#[tokio::test]
async fn versions_that_hang_at_their_start_do_not_hold_up_the_others() {
    let world = World::new(deadline(60_000));
    let hanging: Vec<String> = (0..10).map(|n| format!("bad000{n}")).collect();
    for name in &hanging {
        world.deploy(name, "exec sleep 1000").await;
    }
    world.deploy("4f2a91c", SERVE).await;
    world.until_state("4f2a91c", VersionState::Ready).await;
    assert!(hanging.iter().all(|name| world.version(name).unwrap().state == VersionState::Starting));
    world.end().await;
}

#[tokio::test]
async fn the_order_of_arrival_survives_a_restart_of_switchman() {
    let world = World::new(spec());
    for version in ["b001bee", "4f2a91c"] {
        world.deploy(version, SERVE).await;
        world.until_state(version, VersionState::Ready).await;
    }
    // What a worker does to its own folder makes it no later.
    std::fs::write(world.folder("b001bee").join("server.log"), "").unwrap();
    let arrived = |world: &World| ["b001bee", "4f2a91c"].map(|v| world.version(v).unwrap().arrived);
    let before = arrived(&world);
    assert!(before[0] < before[1]);
    let world = world.restarted().await;
    for version in ["4f2a91c", "b001bee"] {
        world.settle(version).await;
        world.until_state(version, VersionState::Ready).await;
    }
    assert_eq!(arrived(&world), before);
    world.end().await;
}

#[tokio::test]
async fn a_folder_that_vanishes_takes_a_dark_version_with_it() {
    let world = World::new(spec());
    world.deploy("4f2a91c", SERVE).await;
    let version = world.until_state("4f2a91c", VersionState::Ready).await;
    world.gone("4f2a91c").await;
    world.until_forgotten("4f2a91c").await;
    assert!(pids(&version).into_iter().all(|pid| !exists(pid)));
    assert!(world.lines("4f2a91c").is_empty());
    world.end().await;
}

#[tokio::test]
async fn a_version_that_carries_traffic_outlives_its_folder_and_says_so() {
    let world = World::new(spec());
    world.deploy("4f2a91c", SERVE).await;
    world.deploy("b001bee", SERVE).await;
    world.until_state("b001bee", VersionState::Ready).await;
    let before = world.until_state("4f2a91c", VersionState::Ready).await;
    world.promote("4f2a91c").await;
    world.gone("4f2a91c").await;
    let version = world.until("4f2a91c", "it says so", |v| v.reason.is_some()).await;
    assert!(version.reason.as_ref().unwrap().contains("is gone; it goes on serving"), "{:?}", version.reason);
    assert_eq!((version.state, pids(&version)), (VersionState::Ready, pids(&before)));
    assert!(get(&version.ready[0].address, "/").await.contains("200 OK"));

    world.promote("b001bee").await;
    world.until_forgotten("4f2a91c").await;
    world.end().await;
}

#[tokio::test]
async fn a_replaced_folder_restarts_a_dark_version_and_leaves_one_that_carries_traffic() {
    let world = World::new(spec());
    for version in ["4f2a91c", "b001bee"] {
        world.deploy(version, SERVE).await;
    }
    let dark = world.until_state("4f2a91c", VersionState::Ready).await;
    let current = world.until_state("b001bee", VersionState::Ready).await;
    world.promote("b001bee").await;
    for version in ["4f2a91c", "b001bee"] {
        std::fs::rename(world.folder(version), world.folder("old-").with_file_name(format!("old-{version}")))
            .unwrap();
        world.deploy(version, SERVE).await;
    }
    world.until("4f2a91c", "it was restarted", |v| v.ready.len() == 1 && pids(v) != pids(&dark)).await;
    let version = world.until("b001bee", "it says so", |v| v.reason.is_some()).await;
    assert!(version.reason.as_ref().unwrap().ends_with("hint: switchman restart b001bee"));
    assert_eq!(pids(&version), pids(&current));
    world.end().await;
}

#[tokio::test]
async fn a_folder_that_goes_and_comes_again_is_run_anew() {
    let world = World::new(spec());
    for version in ["4f2a91c", "b001bee"] {
        world.deploy(version, SERVE).await;
    }
    let dark = world.until_state("4f2a91c", VersionState::Ready).await;
    let current = world.until_state("b001bee", VersionState::Ready).await;
    world.promote("b001bee").await;
    for version in ["4f2a91c", "b001bee"] {
        // The new folder is made before the old one is removed, so that it cannot get the same inode.
        let old = world.folder(version).with_file_name(format!("old-{version}"));
        std::fs::rename(world.folder(version), &old).unwrap();
        world.tell(ChangeKind::Gone { version: version.into() }).await;
        world.write(version, SERVE);
        world.tell(ChangeKind::Arriving { version: version.into(), path: world.folder(version) }).await;
        world.settle(version).await;
    }
    let ready_anew = |v: &registry::Version| v.state == VersionState::Ready && pids(v) != pids(&dark);
    world.until("4f2a91c", "the dark one runs anew", ready_anew).await;
    let version = world
        .until("b001bee", "it says so", |v| v.reason.as_ref().is_some_and(|r| r.contains("was replaced")))
        .await;
    assert_eq!((version.state, pids(&version)), (VersionState::Ready, pids(&current)));
    world.end().await;
}

#[tokio::test]
async fn what_else_lies_under_the_root_and_what_is_wrong_with_it_is_published() {
    let world = World::new(spec());
    let ignored = vec![registry::Ignored { name: "tmp".into(), reason: "its name is no version".into() }];
    world.tell(ChangeKind::Ignored(ignored.clone())).await;
    world.tell(ChangeKind::Root(Some("the deploy root is not there".into()))).await;
    eventually("both are published", async || {
        let snapshot = world.registry.borrow().clone();
        let service = snapshot.services.get(APP)?;
        (service.ignored == ignored && service.problem.is_some()).then_some(())
    })
    .await;
    world.end().await;
}
