//! Workers that follow the load.

use switchman::config::Scale;
use switchman::metrics::ThreadSlot;

use super::*;

fn scaling(scale: Scale) -> World {
    World::new(RunSpec { scale: Some(scale), workers: scale.min.max(1), ..spec() })
}

const SLOT: ThreadSlot = ThreadSlot(0);

#[tokio::test]
async fn workers_follow_the_requests_in_flight_until_a_person_says_how_many() {
    let world = scaling(Scale { min: 1, max: 3, target_in_flight: 2 });
    world.deploy("4f2a91c", SERVE).await;
    let one = world.until_state("4f2a91c", VersionState::Ready).await;
    assert_eq!(one.workers.len(), 1);
    (0..4).for_each(|_| one.ready[0].in_flight.begin(SLOT));
    world.until("4f2a91c", "two are ready", |v| v.ready.len() == 2).await;
    (0..40).for_each(|_| one.ready[0].in_flight.begin(SLOT));
    let three = world.until("4f2a91c", "three are ready", |v| v.ready.len() == 3).await;
    assert_eq!(pids(&three)[0], pids(&one)[0], "the first goes on");

    world.ask("4f2a91c", Action::Scale { workers: 2 }).await.unwrap();
    world.until("4f2a91c", "two are left", |v| v.workers.len() == 2).await;
    // The load calls for three; a person's word holds.
    let begun = std::time::Instant::now();
    eventually("some seconds have passed", async || {
        assert_eq!(world.version("4f2a91c").unwrap().workers.len(), 2);
        (begun.elapsed() > Duration::from_secs(3)).then_some(())
    })
    .await;
    // Its workers, and with them their counters, are others then.
    world.ask("4f2a91c", Action::Restart).await.unwrap();
    world.until("4f2a91c", "all are new", |v| v.ready.len() >= 2 && !pids(v).contains(&pids(&one)[0])).await;
    world.end().await;
}

#[tokio::test]
async fn with_a_minimum_of_none_it_sleeps_after_its_idle_time() {
    let scale = Scale { min: 0, max: 3, target_in_flight: 2 };
    let upkeep = Upkeep { idle: Some(Duration::from_secs(1)), ..Upkeep::default() };
    let world = World::keeping(upkeep, RunSpec { scale: Some(scale), ..spec() });
    world.deploy("4f2a91c", SERVE).await;
    world.until_state("4f2a91c", VersionState::Ready).await;
    let asleep = world.until_state("4f2a91c", VersionState::Asleep).await;
    asleep.wake.as_ref().unwrap().ring();
    let awake = world.until_state("4f2a91c", VersionState::Ready).await;
    assert_eq!(awake.workers.len(), 1);
    world.end().await;
}
