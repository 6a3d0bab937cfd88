//! What a version's life looks like from outside: its state and its workers, derived from what is there.

use super::{Goal, Lifecycle, Phase, ProcessId};
use crate::version::{VersionState, WorkerId, WorkerState};

impl Lifecycle {
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

    /// Whether workers are being started, replaced or ended.
    pub(crate) fn is_moving(&self) -> bool {
        self.processes
            .values()
            .any(|p| p.round < self.round || !matches!(p.phase, Phase::Ready | Phase::Hung))
    }
}
