//! A version's life played against processes that obey, fail and dawdle; each step is checked against the laws.

mod alarms;
mod cases;
mod laws;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

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
