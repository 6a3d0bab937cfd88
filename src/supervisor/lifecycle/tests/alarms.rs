//! A worker that raises an alarm is replaced, and not for ever.

use super::super::crash::FAILURES_MAX;
use super::*;

#[test]
fn an_alarm_replaces_that_worker_new_before_old_after_its_back_off() {
    let mut world = World::ready(2);
    let [one, two] = world.live.keys().copied().collect::<Vec<_>>()[..] else { panic!() };
    world.step(Event::Alarmed(two));
    world.step(Event::Alarmed(two));
    assert_eq!((world.timers.len(), world.started().len()), (1, 0), "it waits, once");
    world.retry();
    let [new] = world.started()[..] else { panic!("one is started in its place") };
    assert_eq!(world.life.ready().collect::<Vec<_>>(), [one, two], "the old one goes on until then");
    world.step(Event::Passed(new));
    world.settle();
    assert_eq!(world.life.ready().collect::<Vec<_>>(), [one, new]);
    assert_eq!(world.life.reason(), None);
}

#[test]
fn workers_that_raise_an_alarm_at_every_start_are_left_alone_after_a_few() {
    let mut world = World::ready(1);
    for _ in 0..2 * FAILURES_MAX {
        let serving = world.life.ready().next().unwrap();
        world.step(Event::Alarmed(serving));
        world.retry();
        world.pass_all();
        world.settle();
    }
    assert_eq!((world.life.state(), world.live.len()), (VersionState::Ready, 1));
    assert_eq!(world.only(), ProcessId(FAILURES_MAX as u64), "the first one, and four in its place");
    assert!(world.life.reason().unwrap().contains("is not replaced again"), "{:?}", world.life.reason());
    world.now += Duration::from_secs(300);
    world.step(Event::Alarmed(world.only()));
    world.retry();
    assert_eq!(world.started().len(), 1, "minutes later it is tried again");
}

#[test]
fn the_old_one_stays_where_the_new_one_fails() {
    let mut world = World::ready(1);
    let old = world.only();
    world.step(Event::Alarmed(old));
    world.retry();
    world.crash(world.started()[0]);
    assert_eq!(world.life.ready().collect::<Vec<_>>(), [old]);
    assert!(world.life.reason().unwrap().contains("given up"), "{:?}", world.life.reason());
    assert_eq!((world.timers.len(), world.started().len()), (0, 0));
}

#[test]
fn who_does_not_serve_is_not_replaced() {
    let mut world = World::new();
    world.step(Event::Start { workers: 1 });
    let starting = world.only();
    world.step(Event::Alarmed(starting));
    assert_eq!(world.timers.len(), 0);
    world.pass_all();
    world.step(Event::Alarmed(starting));
    world.step(Event::Stop);
    world.retry();
    assert_eq!(world.started().len(), 0, "it was stopped meanwhile");
}
