//! A version of which an earlier switchman has left processes: it goes on from there.

use super::{Lifecycle, Phase, Process, ProcessId};
use crate::version::WorkerId;

/// One process that an earlier switchman has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Adopted {
    pub(crate) process: ProcessId,
    pub(crate) worker: WorkerId,
    /// How often its worker had been started again.
    pub(crate) restarts: u32,
}

impl Lifecycle {
    /// Numbers its processes from the one after `last`: those up to it were used by an earlier switchman.
    pub(crate) fn number_after(&mut self, last: u64) {
        self.last_process = self.last_process.max(last);
    }

    /// Takes the processes over as they are. Each has to pass its check before it counts as ready; one that does not
    /// is a worker that has failed, not a version that cannot start, if the version `was_ready`.
    pub(super) fn adopt(&mut self, workers: u32, was_ready: bool, processes: Vec<Adopted>) {
        self.start_afresh(workers);
        self.was_ready = was_ready;
        for Adopted { process, worker, restarts } in processes {
            self.number_after(process.0);
            self.slots.entry(worker).or_default().restarts = restarts;
            let adopted = Process {
                worker,
                phase: Phase::Starting,
                round: self.round,
                wanted: true,
                ready_since: None,
                unwell: false,
            };
            self.processes.insert(process, adopted);
        }
    }
}
