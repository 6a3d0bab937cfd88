//! The newest versions are kept, and what is in use.

use super::*;

fn keep(keep: usize) -> World {
    World::keeping(Upkeep { keep: Some(keep), ..Upkeep::default() }, spec())
}

/// Deploys versions one after the other, each ready before the next arrives.
async fn deploy_all(world: &World, versions: &[&str]) {
    for version in versions {
        world.deploy(version, SERVE).await;
        world.until_state(version, VersionState::Ready).await;
    }
}

#[tokio::test]
async fn older_versions_are_stopped_unless_something_uses_them() {
    let world = keep(2);
    deploy_all(&world, &["a000001", "a000002"]).await;
    world.promote("a000001").await;
    deploy_all(&world, &["a000003"]).await;
    assert_eq!(world.version("a000001").unwrap().state, VersionState::Ready, "it is current");
    deploy_all(&world, &["a000004"]).await;
    let stopped = world.until_state("a000002", VersionState::Stopped).await;
    let reason = stopped.reason.as_deref().unwrap();
    assert!(reason.contains("`keep`") && reason.contains("switchman start a000002"), "{reason}");
    for version in ["a000001", "a000003", "a000004"] {
        assert_eq!(world.version(version).unwrap().state, VersionState::Ready, "{version}");
    }
    // What nothing uses any more is stopped as soon as that is so.
    world.promote("a000004").await;
    world.until_state("a000001", VersionState::Stopped).await;
    assert!(world.folder("a000001").exists(), "nobody has asked for more");
    world.end().await;
}

#[tokio::test]
async fn what_a_person_starts_stays_until_a_person_stops_it() {
    let world = keep(1);
    deploy_all(&world, &["a000001", "a000002"]).await;
    world.until_state("a000001", VersionState::Stopped).await;
    world.ask("a000001", Action::Start).await.unwrap();
    let ready = world.until_state("a000001", VersionState::Ready).await;
    assert_eq!(ready.reason, None);
    deploy_all(&world, &["a000003"]).await;
    world.until_state("a000002", VersionState::Stopped).await;
    assert_eq!(world.version("a000001").unwrap().state, VersionState::Ready);

    // Also over a restart, which starts nothing that was stopped.
    let world = world.restarted().await;
    for version in ["a000001", "a000002", "a000003"] {
        world.settle(version).await;
    }
    world.until_state("a000001", VersionState::Ready).await;
    world.until_state("a000003", VersionState::Ready).await;
    let stopped = world.until_state("a000002", VersionState::Stopped).await;
    assert!(stopped.reason.is_some() && stopped.workers.is_empty(), "{stopped:?}");
    world.ask("a000001", Action::Stop { force: false }).await.unwrap();
    let stopped = world.until_state("a000001", VersionState::Stopped).await;
    assert_eq!(stopped.reason, None, "a person has stopped it");
    world.end().await;
}

#[tokio::test]
async fn while_the_rules_are_not_known_nothing_is_stopped() {
    let world = keep(1);
    let away = Published { stale_since: Some(jiff::Timestamp::now()), ..Published::clone(&published(&[])) };
    world.rules.send_replace(Arc::new(away));
    eventually("the rules are away", async || world.live.load().service(APP)?.rules.stale_since.map(|_| ()))
        .await;
    deploy_all(&world, &["a000001", "a000002"]).await;
    assert_eq!(world.version("a000001").unwrap().state, VersionState::Ready);
    world.rules.send_replace(published(&[]));
    world.until_state("a000001", VersionState::Stopped).await;
    world.end().await;
}
