//! The life of one version as a value: what happened goes in, what is to be done comes out.
//!
//! ```text
//!  arriving --Start--> starting --all workers ready--> ready --Stop, Retire--> draining --> stopped, gone
//!                        |  ^                           |
//!         crash loop, or |  +----- every worker lost ---+
//!      the first deadline v
//!                      failed
//!
//!  ready --Sleep--> draining --> asleep --Wake, Start--> starting; Prepare: starting, without a process yet
//! ```
//!
//! [`Lifecycle::step`] takes one [`Event`] and the time and answers with [`Effect`]s; it does no I/O. It first
//! notes what happened (`take`), then compares what is wanted with what is there (`reconcile`), so that no
//! order of events needs a case of its own. Laws, held by `tests`:
//!
//! - A process is ready only after its check passed.
//! - A worker has one process, except while a new one is started before the old one leaves (`start-first`); those that
//!   drain do not count. With `stop-first` it has one, whatever that one does.
//! - A rolling restart replaces one worker at a time, and ends: with new workers, or with the old ones and a reason.
//! - A ready process leaves because another one is ready in its place, because it does not answer, or because it was
//!   told to: never to make room for one that may not become ready.
//! - Every started process is known until it has ended; nothing is started unless the version is to run.
//! - Stop always leads to stopped, and a version that once was ready fails only when it has lost every worker.

mod adopt;
mod crash;
mod event;
mod pulse;
mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Instant;

use crate::config::RestartOrder;
use crate::version::{VersionState, WorkerId, WorkerState};
pub(crate) use adopt::Adopted;
use crash::Crashes;
pub(crate) use event::{Effect, End, Event, ProcessId, Unwell};

/// Where a process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Starting,
    Ready,
    /// It passed its check once, and no longer answers: it takes no requests.
    Hung,
    Draining,
    Stopping,
}

/// One process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    pub(crate) worker: WorkerId,
    pub(crate) phase: Phase,
    /// The round of starts that it belongs to; a restart begins the next round.
    round: u64,
    /// It was not told to end: when it does, it has crashed.
    wanted: bool,
    /// Since when it is ready.
    ready_since: Option<Instant>,
    /// It fails its liveness checks, and is to be replaced.
    unwell: bool,
}

/// What is wanted of the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Arrive,
    Prepare,
    Run,
    Sleep,
    Stop,
    Retire,
    Fail,
}

/// One worker: what outlives its processes.
#[derive(Debug, Default)]
struct Slot {
    restarts: u32,
    crashes: Crashes,
}

/// One version.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    goal: Goal,
    workers: u32,
    /// How one process takes another's place.
    order: RestartOrder,
    slots: BTreeMap<WorkerId, Slot>,
    processes: BTreeMap<ProcessId, Process>,
    last_process: u64,
    last_timer: u64,
    round: u64,
    /// Somebody waits for it.
    woken: bool,
    /// All workers were ready once since it was started.
    was_ready: bool,
    failures: crash::Failures,
    reason: Option<String>,
}

impl Lifecycle {
    /// A version whose folder is not complete yet.
    pub(crate) fn arriving() -> Self {
        Self {
            goal: Goal::Arrive,
            workers: 0,
            order: RestartOrder::default(),
            slots: BTreeMap::new(),
            processes: BTreeMap::new(),
            last_process: 0,
            last_timer: 0,
            round: 0,
            woken: false,
            was_ready: false,
            failures: crash::Failures::default(),
            reason: None,
        }
    }

    /// Where it stands.
    pub(crate) fn state(&self) -> VersionState {
        let running = !self.processes.is_empty();
        match self.goal {
            Goal::Arrive | Goal::Sleep | Goal::Stop | Goal::Retire if running => VersionState::Draining,
            Goal::Arrive => VersionState::Arriving,
            Goal::Run if self.was_ready && self.any_ready() => VersionState::Ready,
            Goal::Prepare | Goal::Run => VersionState::Starting,
            Goal::Sleep => VersionState::Asleep,
            Goal::Stop => VersionState::Stopped,
            Goal::Retire => VersionState::Gone,
            Goal::Fail => VersionState::Failed,
        }
    }

    /// Why it stands there, where that needs saying.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Whether it is to run.
    pub(crate) fn is_wanted(&self) -> bool {
        matches!(self.goal, Goal::Prepare | Goal::Run)
    }

    /// Whether something must be done before it runs.
    pub(crate) fn is_preparing(&self) -> bool {
        self.goal == Goal::Prepare
    }

    /// Whether it sleeps, or is about to.
    pub(crate) fn is_asleep(&self) -> bool {
        self.goal == Goal::Sleep
    }

    /// Whether its folder is gone and it is on its way out.
    pub(crate) fn is_retiring(&self) -> bool {
        self.goal == Goal::Retire
    }

    /// The worker that a process is for.
    pub(crate) fn worker_of(&self, process: ProcessId) -> Option<WorkerId> {
        self.processes.get(&process).map(|p| p.worker)
    }

    /// Whether no process of it is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Its workers by number, each with its state, its restarts and the process that stands for it.
    pub(crate) fn workers(&self) -> impl Iterator<Item = (WorkerId, WorkerState, u32, Option<ProcessId>)> {
        self.slots.iter().map(|(id, slot)| {
            let process = [Phase::Ready, Phase::Hung, Phase::Starting, Phase::Draining, Phase::Stopping]
                .iter()
                .find_map(|phase| self.of(*id).find(|(_, p)| p.phase == *phase));
            let state = match process {
                Some((_, p)) => match p.phase {
                    Phase::Starting => WorkerState::Starting,
                    Phase::Ready => WorkerState::Ready,
                    Phase::Hung => WorkerState::Hung,
                    Phase::Draining => WorkerState::Draining,
                    Phase::Stopping => WorkerState::Stopping,
                },
                None if slot.crashes.is_waiting() => WorkerState::Waiting,
                None => WorkerState::Stopped,
            };
            (*id, state, slot.restarts, process.map(|(process, _)| process))
        })
    }

    /// The processes that take requests.
    pub(crate) fn ready(&self) -> impl Iterator<Item = ProcessId> {
        self.processes.iter().filter(|(_, p)| p.phase == Phase::Ready).map(|(id, _)| *id)
    }

    /// Says how one process is to take another's place from now on.
    pub(crate) fn set_order(&mut self, order: RestartOrder) {
        self.order = order;
    }

    /// Whether workers are being started, replaced or ended.
    pub(crate) fn is_moving(&self) -> bool {
        self.processes
            .values()
            .any(|p| p.round < self.round || !matches!(p.phase, Phase::Ready | Phase::Hung))
    }

    /// Notes what happened at `now`, and says what is to be done about it, in order.
    pub(crate) fn step(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.take(event, now, &mut effects);
        self.reconcile(&mut effects);
        effects
    }

    fn take(&mut self, event: Event, now: Instant, effects: &mut Vec<Effect>) {
        match event {
            Event::Arrive if self.goal == Goal::Retire => self.want(Goal::Arrive, None),
            Event::Arrive => {}
            Event::Start { workers } if self.goal != Goal::Run => self.start_afresh(workers),
            Event::Start { .. } => {}
            Event::Prepare if self.goal != Goal::Run => self.want(Goal::Prepare, None),
            Event::Prepare => {}
            Event::Wake { workers } if self.goal == Goal::Sleep => {
                self.start_afresh(workers);
                self.woken = true;
            }
            Event::Wake { .. } => {}
            Event::Sleep if matches!(self.goal, Goal::Arrive | Goal::Run) => self.want(Goal::Sleep, None),
            Event::Sleep => {}
            Event::Adopt { workers, was_ready, processes } => self.adopt(workers, was_ready, processes),
            Event::Stop if self.goal == Goal::Retire => {}
            Event::Stop => self.want(Goal::Stop, None),
            Event::Retire => self.want(Goal::Retire, None),
            Event::Unrunnable(why) => self.want(Goal::Fail, Some(why)),
            Event::Shutdown => {
                self.want(Goal::Stop, None);
                self.processes_where(|_| true)
                    .into_iter()
                    .for_each(|process| self.terminate(process, effects));
            }
            Event::Restart { workers } if self.goal == Goal::Run => {
                self.round += 1;
                self.workers = workers;
                self.reason = None;
                // A person asks: what waits for its back-off is started now.
                self.failures = crash::Failures::default();
                self.slots.values_mut().for_each(|slot| slot.crashes.forget());
            }
            Event::Restart { workers } => self.start_afresh(workers),
            Event::Unrestartable(why) => {
                self.reason = Some(format!("the restart was given up and the old workers go on: {why}"));
            }
            Event::Scale(workers) => {
                self.workers = workers;
                self.note_ready();
            }
            Event::Noted(process, note) => {
                if self.phase(process) == Some(Phase::Starting) && !self.any_ready() {
                    self.reason = Some(note);
                }
            }
            Event::Passed(process) => self.passed(process, now, effects),
            Event::Unwell(process, unwell) => self.unwell(process, unwell, now, effects),
            Event::Well(process) => self.well(process, effects),
            Event::Late(process, why) => {
                if self.phase(process) == Some(Phase::Starting) {
                    self.terminate(process, effects);
                    self.late(process, &why, now, effects);
                }
            }
            Event::PortTaken(process) => {
                if self.phase(process) == Some(Phase::Starting) {
                    self.terminate(process, effects);
                    self.port_taken(process, "somebody else listens on its port", now, effects);
                }
            }
            Event::Exited(process) => {
                if let Some(p) = self.processes.get_mut(&process) {
                    p.phase = Phase::Stopping;
                }
            }
            Event::Ended(process, end) => self.ended(process, end, now, effects),
            Event::Drained(process) => {
                if self.phase(process) == Some(Phase::Draining) {
                    self.terminate(process, effects);
                }
            }
            Event::Retry(worker, timer) => {
                let ended = self.stands(worker).is_none();
                if let Some(slot) = self.slots.get_mut(&worker)
                    && slot.crashes.is_over(timer)
                {
                    slot.restarts += u32::from(ended);
                }
            }
        }
    }

    fn start_afresh(&mut self, workers: u32) {
        self.want(Goal::Run, None);
        self.workers = workers;
        self.round += 1;
        self.woken = false;
        self.was_ready = false;
        self.failures = crash::Failures::default();
        self.slots.values_mut().for_each(|slot| *slot = Slot::default());
    }

    fn want(&mut self, goal: Goal, reason: Option<String>) {
        self.goal = goal;
        self.reason = reason;
    }

    fn passed(&mut self, process: ProcessId, now: Instant, effects: &mut Vec<Effect>) {
        let Some(p) = self.processes.get_mut(&process).filter(|p| p.phase == Phase::Starting) else {
            return;
        };
        p.phase = Phase::Ready;
        p.ready_since = Some(now);
        let worker = p.worker;
        let stood = |p: &Process| p.worker == worker && matches!(p.phase, Phase::Ready | Phase::Hung);
        let hung = self.processes.iter().any(|(id, p)| *id != process && stood(p) && p.unwell);
        let replaced = self.processes_where(stood);
        replaced.into_iter().filter(|old| *old != process).for_each(|old| self.retire(old, effects));
        if let Some(slot) = self.slots.get_mut(&worker) {
            slot.restarts += u32::from(hung);
            slot.crashes.port_held();
        }
        self.note_ready();
    }

    /// Once all workers are ready there is nothing left to say of how they became so.
    fn note_ready(&mut self) {
        let is_ready = |worker| self.of(WorkerId(worker)).any(|(_, p)| p.phase == Phase::Ready && !p.unwell);
        if self.goal == Goal::Run && (0..self.workers).all(is_ready) {
            self.was_ready = true;
            self.reason = None;
        }
    }

    fn any_ready(&self) -> bool {
        self.ready().next().is_some()
    }

    fn phase(&self, process: ProcessId) -> Option<Phase> {
        self.processes.get(&process).map(|p| p.phase)
    }

    /// The process of a worker that was ready and is to go on, hung or not.
    fn stands(&self, worker: WorkerId) -> Option<&Process> {
        self.of(worker).map(|(_, p)| p).find(|p| matches!(p.phase, Phase::Ready | Phase::Hung))
    }

    fn of(&self, worker: WorkerId) -> impl Iterator<Item = (ProcessId, &Process)> {
        self.processes.iter().filter(move |(_, p)| p.worker == worker).map(|(id, p)| (*id, p))
    }
}
