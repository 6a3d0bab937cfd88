//! Ready workers that no longer answer as they should, and some that do again.

use super::*;
use RestartOrder::{StartFirst, StopFirst};

/// The processes that take requests.
fn ready(world: &World) -> Vec<ProcessId> {
    world.life.ready().collect()
}

#[test]
fn one_that_does_not_answer_is_out_at_once_and_drained_when_another_is_ready() {
    for workers in [1, 3] {
        let mut world = World::ready(workers);
        let hung = ready(&world)[0];
        world.unwell(hung, false);
        assert_eq!(ready(&world).len(), workers as usize - 1);
        assert_eq!(world.life.workers().next().unwrap().1, WorkerState::Hung);
        assert!(world.life.reason().unwrap().contains("worker 0 does not answer"));
        assert!(world.told.is_empty() && world.drains.is_empty(), "it may come back");
        let [new] = world.started()[..] else { panic!("one is started in its place") };
        world.step(Event::Passed(new));
        assert!(world.drains.contains(&hung), "its running requests may end");
        assert_eq!((ready(&world).len(), world.life.reason()), (workers as usize, None));
        world.settle();
        assert!(!world.live.contains_key(&hung));
        assert_eq!(world.life.workers().next().unwrap().2, 1, "it counts as started again");
    }
}

#[test]
fn one_that_answers_again_goes_on_and_the_new_one_is_ended() {
    let mut world = World::ready(2);
    let before = ready(&world);
    world.unwell(before[1], false);
    let new = world.started()[0];
    world.step(Event::Well(before[1]));
    assert_eq!((ready(&world), world.life.reason()), (before, None));
    world.settle();
    assert!(!world.live.contains_key(&new) && world.live.len() == 2);
    assert!(world.life.workers().all(|(_, state, restarts, _)| (state, restarts) == (WorkerState::Ready, 0)));
}

#[test]
fn the_last_one_that_answers_badly_goes_on_until_another_is_ready() {
    let mut world = World::ready(1);
    let bad = world.only();
    world.unwell(bad, true);
    assert_eq!((ready(&world), world.life.state()), (vec![bad], VersionState::Ready));
    world.pass_all();
    assert!(world.drains.contains(&bad) && ready(&world) != vec![bad]);
    world.settle();
    assert_eq!((world.live.len(), world.life.reason()), (1, None));
}

#[test]
fn what_all_of_them_say_takes_out_half_at_most_and_replaces_nobody_in_vain() {
    // A database is away, say: nobody passes, and no new one does.
    let mut world = World::ready(4);
    let before = ready(&world);
    before.iter().for_each(|p| world.unwell(*p, true));
    assert_eq!(ready(&world).len(), 2, "half of them stay");
    for _ in 0..5 {
        world.started().into_iter().for_each(|p| world.step(Event::Late(p, "is late".into())));
        world.settle();
        world.retry();
    }
    assert!(before.iter().all(|p| world.live.contains_key(p)), "none was ended");
    assert_eq!((ready(&world).len(), world.life.state()), (2, VersionState::Ready));
    before.iter().for_each(|p| world.step(Event::Well(*p)));
    world.settle();
    assert_eq!((ready(&world), world.life.reason()), (before, None));
    world.retry();
    assert!(world.started().is_empty() && world.live.len() == 4, "nobody was replaced");
}

#[test]
fn those_that_answer_badly_are_replaced_one_after_the_other_where_half_must_stay() {
    let mut world = World::ready(2);
    let before = ready(&world);
    before.iter().for_each(|p| world.unwell(*p, true));
    for _ in 0..2 {
        assert_eq!(world.started().len(), 1);
        assert!(!ready(&world).is_empty());
        world.pass_all();
        world.settle();
    }
    assert!(before.iter().all(|p| !world.live.contains_key(p)));
    assert_eq!((ready(&world).len(), world.life.reason()), (2, None));
}

#[test]
fn one_that_answers_badly_and_then_not_at_all_is_out() {
    let mut world = World::ready(1);
    let bad = world.only();
    world.unwell(bad, true);
    world.unwell(bad, false);
    assert_eq!((ready(&world), world.life.state()), (vec![], VersionState::Starting));
    assert_eq!(world.started().len(), 1, "the one that was started already");
}

#[test]
fn with_stop_first_a_hung_one_ends_before_another_is_started() {
    let mut world = World::ready_with(StopFirst, 1);
    let hung = world.only();
    world.unwell(hung, false);
    assert!(world.told.contains(&hung) && world.started().is_empty());
    assert!(world.life.reason().unwrap().contains("worker 0 does not answer"));
    world.settle();
    assert!(world.live.is_empty());
    world.retry();
    world.pass_all();
    assert_eq!((world.live.len(), world.life.state()), (1, VersionState::Ready));
}

#[test]
fn with_stop_first_the_last_one_that_answers_stays() {
    let mut world = World::ready_with(StopFirst, 2);
    let before = ready(&world);
    before.iter().for_each(|p| world.unwell(*p, true));
    assert_eq!((ready(&world).len(), world.drains.len()), (1, 1), "one is replaced while the other serves");
    world.settle();
    let new = world.started()[0];
    world.step(Event::Late(new, "is late".into()));
    world.settle();
    world.retry();
    assert_eq!(ready(&world), before[1..], "it is not stopped as long as nobody else is ready");

    let mut world = World::ready_with(StopFirst, 1);
    let only = world.only();
    world.unwell(only, true);
    assert_eq!((ready(&world), world.drains.len()), (vec![only], 0));
    assert!(world.life.reason().unwrap().contains("answers badly"));
}

#[test]
fn a_hung_worker_is_the_first_that_a_restart_replaces() {
    let mut world = World::ready_with(StartFirst, 2);
    let before = ready(&world);
    world.unwell(before[1], false);
    world.crash(world.started()[0]);
    world.step(Event::Restart { workers: 2 });
    let [new] = world.started()[..] else { panic!("one at a time") };
    assert_eq!(world.life.worker_of(new), Some(WorkerId(1)));
    for _ in 0..2 {
        world.pass_all();
        world.settle();
    }
    assert!(before.iter().all(|p| !world.live.contains_key(p)));
    assert_eq!((ready(&world).len(), world.life.reason()), (2, None));
}
