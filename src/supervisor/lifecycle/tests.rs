//! The laws of a version's life.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::crash::{FAILURES_MAX, PORTS_LOST_MAX};
use super::*;

/// Plays the processes: knows what was started, and what each has been told.
struct World {
    life: Lifecycle,
    now: Instant,
    live: BTreeMap<ProcessId, WorkerId>,
    passed: BTreeSet<ProcessId>,
    drains: BTreeSet<ProcessId>,
    told: BTreeSet<ProcessId>,
    timers: Vec<(WorkerId, u64, Duration)>,
}

impl World {
    fn new() -> Self {
        Self {
            life: Lifecycle::arriving(),
            now: Instant::now(),
            live: BTreeMap::new(),
            passed: BTreeSet::new(),
            drains: BTreeSet::new(),
            told: BTreeSet::new(),
            timers: Vec::new(),
        }
    }

    /// A version with this many workers, all ready.
    fn ready(workers: u32) -> Self {
        let mut world = Self::new();
        world.step(Event::Start { workers });
        world.pass_all();
        assert_eq!(world.life.state(), VersionState::Ready);
        world
    }

    fn step(&mut self, event: Event) {
        if let Event::Passed(process) = &event {
            self.passed.insert(*process);
        }
        if let Event::Ended(process, _) = &event {
            self.live.remove(process);
        }
        for effect in self.life.step(event, self.now) {
            match effect {
                Effect::Start { process, worker, .. } => {
                    assert!(self.life.is_wanted(), "started though it is not to run");
                    assert!(self.live.insert(process, worker).is_none(), "{process:?} was used twice");
                }
                Effect::Drain(process) => assert!(self.drains.insert(process), "drained twice"),
                Effect::Terminate(process) => {
                    assert!(self.live.contains_key(&process), "told a process that does not run");
                    assert!(self.told.insert(process), "told twice");
                }
                Effect::RetryAfter(worker, timer, delay) => self.timers.push((worker, timer, delay)),
            }
        }
        self.check_laws();
    }

    fn check_laws(&self) {
        let known: BTreeSet<ProcessId> = self.life.processes.keys().copied().collect();
        assert_eq!(known, self.live.keys().copied().collect(), "every process is accounted for");
        for process in self.life.ready() {
            assert!(self.passed.contains(&process), "{process:?} is ready without a passed check");
            assert!(!self.told.contains(&process), "{process:?} is ready and was told to end");
        }
        for worker in self.live.values() {
            let phases: Vec<(Phase, u64)> = self.life.of(*worker).map(|(_, p)| (p.phase, p.round)).collect();
            let running: Vec<_> = phases.iter().filter(|(phase, _)| *phase <= Phase::Ready).collect();
            match running.as_slice() {
                [] | [_] => {}
                [(Phase::Ready, old), (Phase::Starting, new)] if old < new => {}
                other => panic!("worker {worker} has {other:?}"),
            }
        }
        if self.life.state() == VersionState::Failed {
            assert!(self.life.reason().is_some(), "failed without a reason");
        }
        if matches!(self.life.state(), VersionState::Stopped | VersionState::Gone) {
            assert!(self.live.is_empty(), "stopped, and processes run");
        }
        if self.life.state() == VersionState::Ready {
            assert!(self.life.ready().next().is_some(), "ready without a ready worker");
        }
    }

    fn started(&self) -> Vec<ProcessId> {
        self.life.processes.iter().filter(|(_, p)| p.phase == Phase::Starting).map(|(id, _)| *id).collect()
    }

    fn pass_all(&mut self) {
        self.started().into_iter().for_each(|process| self.step(Event::Passed(process)));
    }

    fn crash(&mut self, process: ProcessId) {
        self.step(Event::Exited(process));
        self.step(Event::Ended(process, End::ByItself("exited with status 1".into())));
    }

    fn retry(&mut self) {
        for (worker, timer, delay) in std::mem::take(&mut self.timers) {
            self.now += delay;
            self.step(Event::Retry(worker, timer));
        }
    }

    /// What was told to drain and to end does so, until nothing moves.
    fn settle(&mut self) {
        loop {
            if let Some(process) = self.drains.pop_first() {
                self.step(Event::Drained(process));
            } else if let Some(process) = self.told.iter().copied().find(|p| self.live.contains_key(p)) {
                self.step(Event::Ended(process, End::Told));
            } else {
                return;
            }
        }
    }

    fn only(&self) -> ProcessId {
        assert_eq!(self.live.len(), 1, "{:?}", self.live);
        *self.live.keys().next().unwrap()
    }
}

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
fn start_while_the_old_processes_still_end_waits_for_them() {
    let mut world = World::ready(1);
    world.step(Event::Stop);
    assert_eq!(world.life.state(), VersionState::Draining);
    world.step(Event::Start { workers: 1 });
    assert!(world.started().is_empty(), "never two for one worker");
    world.settle();
    world.pass_all();
    assert_eq!(world.life.state(), VersionState::Ready);
}

/// What chance may do to a version; numbers choose among the processes that are there.
#[derive(Debug, Clone)]
enum Chance {
    Start(u32),
    Stop,
    Retire,
    Restart(u32),
    Scale(u32),
    Shutdown,
    Pass(usize),
    Late(usize),
    PortTaken(usize),
    Crash(usize),
    EndOfTold,
    EndOfDrain,
    Retry,
    Time(u64),
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        3 => (1_u32..4).prop_map(Chance::Start),
        1 => Just(Chance::Stop),
        1 => Just(Chance::Retire),
        2 => (1_u32..4).prop_map(Chance::Restart),
        2 => (1_u32..4).prop_map(Chance::Scale),
        1 => Just(Chance::Shutdown),
        8 => (0_usize..8).prop_map(Chance::Pass),
        1 => (0_usize..8).prop_map(Chance::Late),
        1 => (0_usize..8).prop_map(Chance::PortTaken),
        3 => (0_usize..8).prop_map(Chance::Crash),
        6 => Just(Chance::EndOfTold),
        4 => Just(Chance::EndOfDrain),
        4 => Just(Chance::Retry),
        1 => (1_u64..90).prop_map(Chance::Time),
    ]
}

impl World {
    fn pick(&self, n: usize) -> Option<ProcessId> {
        self.live.keys().copied().nth(n % self.live.len().max(1))
    }

    fn play(&mut self, chance: Chance) {
        let was = self.life.state();
        let had_ready = self.life.ready().count();
        match chance {
            Chance::Start(workers) => self.step(Event::Start { workers }),
            Chance::Stop => self.step(Event::Stop),
            Chance::Retire => self.step(Event::Retire),
            Chance::Restart(workers) => self.step(Event::Restart { workers }),
            Chance::Scale(workers) => self.step(Event::Scale(workers)),
            Chance::Shutdown => self.step(Event::Shutdown),
            Chance::Pass(n) => {
                // Only a process that is starting is checked; a verdict may also come too late.
                if let Some(process) = self.pick(n).filter(|p| !self.passed.contains(p)) {
                    self.step(Event::Passed(process));
                }
            }
            Chance::Late(n) => {
                self.pick(n).into_iter().for_each(|p| self.step(Event::Late(p, "late".into())));
            }
            Chance::PortTaken(n) => self.pick(n).into_iter().for_each(|p| self.step(Event::PortTaken(p))),
            Chance::Crash(n) => self.pick(n).into_iter().for_each(|p| self.crash(p)),
            Chance::EndOfTold => {
                let told = self.told.iter().copied().find(|p| self.live.contains_key(p));
                told.into_iter().for_each(|p| self.step(Event::Ended(p, End::Told)));
            }
            Chance::EndOfDrain => {
                self.drains.pop_first().into_iter().for_each(|p| self.step(Event::Drained(p)));
            }
            Chance::Retry => self.retry(),
            Chance::Time(seconds) => self.now += Duration::from_secs(seconds),
        }
        if was == VersionState::Ready && self.life.state() == VersionState::Failed {
            assert!(had_ready <= 1, "failed with {had_ready} ready workers");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_laws_hold_whatever_happens(chances in prop::collection::vec(chance(), 0..120)) {
        let mut world = World::new();
        chances.into_iter().for_each(|chance| world.play(chance));

        // From wherever chance has led: stop leads to stopped, and start to ready.
        let retiring = world.life.is_retiring();
        world.step(Event::Stop);
        world.settle();
        let end = if retiring { VersionState::Gone } else { VersionState::Stopped };
        prop_assert_eq!(world.life.state(), end);
        prop_assert!(world.live.is_empty());

        world.step(Event::Start { workers: 2 });
        world.pass_all();
        prop_assert_eq!(world.life.state(), VersionState::Ready);
        prop_assert_eq!(world.life.ready().count(), 2);
    }

    #[test]
    fn a_restart_ends_with_new_workers_only(workers in 1_u32..5, lost in 0_usize..3) {
        let mut world = World::ready(workers);
        let old: Vec<ProcessId> = world.live.keys().copied().collect();
        world.step(Event::Restart { workers });
        for _ in 0..lost {
            // The port of a new worker is taken: it is tried again, and the restart goes on.
            world.started().into_iter().for_each(|p| world.step(Event::PortTaken(p)));
            world.settle();
        }
        while !world.started().is_empty() {
            prop_assert!(world.life.ready().count() >= workers as usize, "never fewer than before");
            world.pass_all();
            world.settle();
        }
        prop_assert_eq!(world.live.len(), workers as usize);
        prop_assert!(old.iter().all(|old| !world.live.contains_key(old)));
    }
}
