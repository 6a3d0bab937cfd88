//! One test for each turn that a version's life can take.

use super::super::crash::{FAILURES_MAX, PORTS_LOST_MAX};
use super::*;

#[test]
fn a_version_is_ready_when_all_its_workers_were() {
    let mut world = World::new();
    assert_eq!(world.life.state(), VersionState::Arriving);
    world.step(Event::Start { workers: 2 });
    let [one, two] = world.started()[..] else { panic!() };
    assert_eq!(world.life.state(), VersionState::Starting);
    world.step(Event::Passed(one));
    assert_eq!(world.life.state(), VersionState::Starting);
    world.step(Event::Passed(two));
    assert_eq!(world.life.state(), VersionState::Ready);
    world.crash(one);
    assert_eq!(world.life.state(), VersionState::Ready, "one is left");
    world.crash(two);
    assert_eq!(world.life.state(), VersionState::Starting, "every worker is lost");
    world.retry();
    world.step(Event::Passed(world.started()[0]));
    assert_eq!(world.life.state(), VersionState::Ready, "the first one back takes requests");
    assert_eq!(world.life.workers().map(|(_, _, restarts, _)| restarts).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn five_failures_within_a_minute_fail_the_version_and_quote_the_reason() {
    let mut world = World::new();
    world.step(Event::Start { workers: 1 });
    for failure in 1..=FAILURES_MAX {
        assert_eq!(world.life.state(), VersionState::Starting, "before failure {failure}");
        world.crash(world.only());
        world.retry();
    }
    assert_eq!(world.life.state(), VersionState::Failed);
    assert!(world.life.reason().unwrap().contains("exited with status 1"));
    world.step(Event::Start { workers: 1 });
    world.pass_all();
    assert_eq!(world.life.state(), VersionState::Ready, "a person may try again");
    assert_eq!(world.life.reason(), None);
}

#[test]
fn failures_that_are_far_apart_are_no_crash_loop() {
    let mut world = World::ready(1);
    for _ in 0..3 * FAILURES_MAX {
        world.crash(world.only());
        world.now += Duration::from_secs(20);
        world.retry();
        world.pass_all();
    }
    assert_eq!(world.life.state(), VersionState::Ready);
}

#[test]
fn one_worker_in_a_crash_loop_does_not_take_the_others_with_it() {
    let mut world = World::ready(2);
    for _ in 0..3 * FAILURES_MAX {
        let restarted = *world.live.iter().find(|(_, worker)| worker.0 == 1).unwrap().0;
        world.crash(restarted);
        world.retry();
    }
    assert_eq!(world.life.state(), VersionState::Ready);
    assert!(world.life.reason().unwrap().contains("worker 1 exited"));
    let last = world.life.ready().next().unwrap();
    world.crash(last);
    assert_eq!(world.life.state(), VersionState::Failed, "until the last one is lost");
}

#[test]
fn the_back_off_grows_and_begins_again_after_a_good_time() {
    let mut world = World::ready(1);
    let mut delays = Vec::new();
    for pause in [0, 0, 0, 3_600] {
        world.now += Duration::from_secs(pause);
        world.crash(world.only());
        delays.push(world.timers[0].2.as_millis());
        world.retry();
        world.pass_all();
    }
    for (delay, range) in delays.iter().zip([50..=100, 100..=200, 200..=400, 50..=100]) {
        assert!(range.contains(delay), "{delays:?}");
    }
}

#[test]
fn a_first_start_that_is_late_fails_and_ends_the_others() {
    let mut world = World::new();
    world.step(Event::Start { workers: 2 });
    let [one, two] = world.started()[..] else { panic!() };
    world.step(Event::Passed(one));
    world.step(Event::Late(two, "did not become ready within 60s".into()));
    assert_eq!(world.life.state(), VersionState::Failed);
    assert!(world.drains.contains(&one) && world.told.contains(&two));
    world.settle();
    assert!(world.live.is_empty());
}

#[test]
fn a_lost_port_does_not_count_until_it_is_lost_again_and_again() {
    let mut world = World::new();
    world.step(Event::Start { workers: 1 });
    for _ in 0..PORTS_LOST_MAX {
        let process = world.only();
        world.step(Event::Exited(process));
        world.step(Event::Ended(process, End::PortTaken("its port was taken".into())));
        assert!(world.timers.is_empty(), "another one is tried at once");
    }
    let process = world.only();
    world.step(Event::PortTaken(process));
    assert_eq!(world.timers.len(), 1, "now it counts");
    world.settle();
    world.retry();
    world.pass_all();
    assert_eq!(world.life.state(), VersionState::Ready);
}

#[test]
fn a_restart_replaces_one_worker_at_a_time_new_before_old() {
    let mut world = World::ready(3);
    let old: Vec<ProcessId> = world.life.ready().collect();
    world.step(Event::Restart { workers: 3 });
    for old in &old {
        assert_eq!(world.started().len(), 1, "one at a time");
        assert!(world.life.ready().any(|p| p == *old), "the old one serves until the new one is ready");
        world.pass_all();
        assert_eq!(world.life.ready().count(), 3);
        assert!(
            world.drains.contains(old) && world.started().is_empty(),
            "the next waits for the old one's end"
        );
        world.settle();
    }
    assert!(world.started().is_empty() && world.live.len() == 3);
    assert!(old.iter().all(|old| !world.live.contains_key(old)));
}

#[test]
fn a_restart_whose_new_worker_fails_is_given_up_and_the_old_ones_stay() {
    type Fail = fn(&mut World, ProcessId);
    let crash: Fail = |world, new| world.crash(new);
    let late: Fail = |world, new| world.step(Event::Late(new, "did not become ready within 1s".into()));
    for fail in [crash, late] {
        let mut world = World::ready(2);
        let old: Vec<ProcessId> = world.life.ready().collect();
        world.step(Event::Restart { workers: 2 });
        let new = world.started()[0];
        fail(&mut world, new);
        world.settle();
        assert_eq!(world.live.keys().copied().collect::<Vec<_>>(), old);
        assert_eq!(world.life.state(), VersionState::Ready);
        assert!(world.life.reason().unwrap().contains("the restart was given up"));
    }
}

#[test]
fn scaling_starts_and_drains() {
    let mut world = World::ready(1);
    world.step(Event::Scale(3));
    assert_eq!((world.started().len(), world.life.state()), (2, VersionState::Ready));
    world.pass_all();
    world.step(Event::Scale(1));
    assert_eq!((world.drains.len(), world.life.ready().count()), (2, 1));
    world.settle();
    assert_eq!((world.live.len(), world.life.workers().count()), (1, 1));
}

#[test]
fn start_does_not_wait_for_what_drains() {
    let mut world = World::ready(1);
    let old = world.only();
    world.step(Event::Stop);
    assert_eq!(world.life.state(), VersionState::Draining);
    world.step(Event::Start { workers: 1 });
    assert_eq!(world.started().len(), 1, "its streams may take minutes");
    world.pass_all();
    assert_eq!(world.life.state(), VersionState::Ready);
    world.settle();
    assert_ne!(world.only(), old);
    assert_eq!(world.life.state(), VersionState::Ready);
}

#[test]
fn start_while_the_old_processes_still_end_waits_for_them() {
    let mut world = World::ready(1);
    world.step(Event::Stop);
    let old = world.only();
    world.step(Event::Drained(old));
    world.drains.clear();
    world.step(Event::Start { workers: 1 });
    assert!(world.started().is_empty(), "never two for one worker");
    world.settle();
    world.pass_all();
    assert_eq!(world.life.state(), VersionState::Ready);
}

#[test]
fn with_stop_first_the_old_one_has_ended_before_the_new_one_is_started() {
    let mut world = World::ready_with(RestartOrder::StopFirst, 2);
    let old: Vec<ProcessId> = world.life.ready().collect();
    world.step(Event::Restart { workers: 2 });
    for old in old {
        assert_eq!((world.started().len(), world.life.ready().count()), (0, 1));
        world.step(Event::Drained(old));
        assert!(world.started().is_empty(), "it has been told to end, and has not ended");
        world.step(Event::Ended(old, End::Told));
        world.drains.clear();
        assert_eq!(world.started().len(), 1);
        world.pass_all();
    }
    assert_eq!((world.live.len(), world.life.ready().count(), world.life.is_moving()), (2, 2, false));
}

#[test]
fn with_stop_first_a_start_waits_for_what_drains() {
    let mut world = World::ready_with(RestartOrder::StopFirst, 1);
    world.step(Event::Stop);
    world.step(Event::Start { workers: 1 });
    assert!(world.started().is_empty(), "it cannot exist twice");
    world.settle();
    world.pass_all();
    assert_eq!(world.life.state(), VersionState::Ready);
}

#[test]
fn a_worker_of_the_new_round_that_fails_gives_the_restart_up_also_where_no_old_one_stands_for_it() {
    let mut world = World::ready(2);
    let old: Vec<ProcessId> = world.life.ready().collect();
    world.crash(old[1]);
    world.step(Event::Restart { workers: 2 });
    world.crash(world.started()[0]);
    assert!(world.life.reason().unwrap().contains("the restart was given up"), "{:?}", world.life.reason());
    world.retry();
    world.crash(world.started()[0]);
    assert_eq!(world.life.ready().collect::<Vec<_>>(), old[..1], "the other one is not replaced by the like");
}

#[test]
fn scaling_takes_the_highest_numbers_and_the_same_number_changes_nothing() {
    let mut world = World::ready(4);
    world.step(Event::Scale(4));
    assert!(world.started().is_empty() && world.drains.is_empty());
    world.step(Event::Scale(2));
    let drained: Vec<u32> = world.drains.iter().map(|p| world.live[p].0).collect();
    assert_eq!(drained, [2, 3]);
    world.settle();
    let numbers: Vec<u32> = world.life.workers().map(|(id, ..)| id.0).collect();
    assert_eq!(numbers, [0, 1]);
}

#[test]
fn scaling_during_a_restart_holds_and_the_restart_goes_on() {
    for (from, to) in [(3, 1), (1, 3), (3, 3)] {
        let mut world = World::ready(from);
        let old: Vec<ProcessId> = world.live.keys().copied().collect();
        world.step(Event::Restart { workers: from });
        world.step(Event::Scale(to));
        for _ in 0..10 {
            world.pass_all();
            world.settle();
        }
        assert_eq!((world.live.len(), world.life.is_moving()), (to as usize, false), "{from} to {to}");
        assert!(old.iter().all(|old| !world.live.contains_key(old)), "{from} to {to}");
    }
}

#[test]
fn a_version_is_ready_when_the_worker_that_was_missing_is_not_wanted_any_more() {
    let mut world = World::new();
    world.step(Event::Start { workers: 2 });
    world.step(Event::Passed(world.started()[0]));
    world.step(Event::Scale(1));
    assert_eq!(world.life.state(), VersionState::Ready);
}
