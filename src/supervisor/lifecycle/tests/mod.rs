//! A version's life played against processes that obey, fail and dawdle; each step is checked against the laws.

mod cases;
mod laws;
mod pulses;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;

/// Plays the processes: knows what was started, and what each has been told.
struct World {
    life: Lifecycle,
    /// The order in which it was started.
    order: RestartOrder,
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
            order: RestartOrder::StartFirst,
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
        Self::ready_with(RestartOrder::StartFirst, workers)
    }

    fn ready_with(order: RestartOrder, workers: u32) -> Self {
        let mut world = Self::new();
        world.set_order(order);
        world.step(Event::Start { workers });
        world.pass_all();
        assert_eq!(world.life.state(), VersionState::Ready);
        world
    }

    fn set_order(&mut self, order: RestartOrder) {
        self.life.set_order(order);
        self.order = order;
    }

    fn step(&mut self, event: Event) {
        if let Event::Passed(process) = &event {
            self.passed.insert(*process);
        }
        if let Event::Ended(process, _) = &event {
            self.live.remove(process);
        }
        let was_ready: Vec<(ProcessId, Process)> = self.in_phase(Phase::Ready);
        let told = event.clone();
        for effect in self.life.step(event, self.now) {
            match effect {
                Effect::Start { process, worker, .. } => {
                    let runs = self.life.is_wanted() && !self.life.is_preparing();
                    assert!(runs, "started though it is not to run");
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
        for (process, was) in was_ready {
            self.check_leaving(process, was, &told);
        }
        self.check_laws();
    }

    /// A process that was ready before `event`: if it takes no more requests, there must be a good reason.
    fn check_leaving(&self, process: ProcessId, was: Process, event: &Event) {
        let now = self.life.phase(process);
        if now == Some(Phase::Ready) {
            return;
        }
        let by_itself = match event {
            Event::Exited(p) | Event::Ended(p, _) => *p == process,
            Event::Unwell(p, _) => *p == process,
            _ => false,
        };
        let asked = !self.life.is_wanted() || was.worker.0 >= self.life.workers;
        let replaced = self.life.of(was.worker).any(|(id, p)| id != process && p.phase == Phase::Ready);
        if by_itself || asked || replaced {
            return;
        }
        // What is left is one step of a rolling restart, and nothing else moves meanwhile.
        assert_eq!(self.life.order, RestartOrder::StopFirst, "{process:?} left after {event:?}");
        assert!(was.round < self.life.round || was.unwell, "{process:?} was as it should be");
        let others = self.life.processes.iter().filter(|(id, _)| **id != process);
        assert!(others.clone().all(|(_, p)| p.phase == Phase::Ready), "two at a time");
        assert!(was.round < self.life.round || others.count() > 0, "the last one that answers stays");
    }

    fn in_phase(&self, phase: Phase) -> Vec<(ProcessId, Process)> {
        self.life.processes.iter().filter(|(_, p)| p.phase == phase).map(|(id, p)| (*id, *p)).collect()
    }

    fn check_laws(&self) {
        let known: BTreeSet<ProcessId> = self.life.processes.keys().copied().collect();
        assert_eq!(known, self.live.keys().copied().collect(), "every process is accounted for");
        for process in self.life.ready() {
            assert!(self.passed.contains(&process), "{process:?} is ready without a passed check");
            assert!(!self.told.contains(&process), "{process:?} is ready and was told to end");
        }
        let workers: BTreeSet<WorkerId> = self.live.values().copied().collect();
        let mut replaced = 0;
        for worker in &workers {
            let of: Vec<Process> = self.life.of(*worker).map(|(_, p)| *p).collect();
            let running: Vec<Phase> =
                of.iter().map(|p| p.phase).filter(|phase| *phase <= Phase::Hung).collect();
            match (self.order, running.as_slice()) {
                (_, [] | [_]) => {}
                // One that hangs is not waited for; all others are replaced one at a time.
                (RestartOrder::StartFirst, [Phase::Hung, Phase::Starting]) => {}
                (RestartOrder::StartFirst, [Phase::Ready, Phase::Starting]) => replaced += 1,
                (order, other) => panic!("worker {worker} has {other:?} with {order:?}"),
            }
            if self.order == RestartOrder::StopFirst {
                assert!(of.len() <= 1, "worker {worker} exists twice: {of:?}");
            }
        }
        assert!(replaced <= 1, "{replaced} are replaced at once");
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

    /// A ready process fails its liveness checks.
    fn unwell(&mut self, process: ProcessId, answers: bool) {
        let why = if answers { "answers badly" } else { "does not answer" };
        self.step(Event::Unwell(process, Unwell { answers, why: why.into() }));
    }

    fn only(&self) -> ProcessId {
        assert_eq!(self.live.len(), 1, "{:?}", self.live);
        *self.live.keys().next().unwrap()
    }
}
