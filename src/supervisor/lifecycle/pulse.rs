//! What a version does about ready workers that no longer answer as they should.
//!
//! A worker that does not answer at all is out at once, even the last one: who is sent there waits in vain. One that
//! answers, but badly, goes on taking requests where fewer than half of the workers would stay: what is wrong may lie
//! elsewhere (a database that every check asks), and a bad answer is better than none. Either way another process is
//! started, and the old one is drained once that is ready: nobody is restarted for nothing. If the old one is well
//! again before that, it goes on, and the new one is ended.
//!
//! With `stop-first` the order is the other one: the old one ends, then the new one is started. So one that answers
//! stays where it is the last.

use std::time::Instant;

use super::{Effect, Lifecycle, Phase, Process, ProcessId, Unwell};
use crate::config::RestartOrder;

impl Lifecycle {
    pub(super) fn unwell(
        &mut self,
        process: ProcessId,
        unwell: Unwell,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let Unwell { answers, why } = unwell;
        let Some(p) = self.processes.get(&process) else { return };
        let Process { worker, phase, round, .. } = *p;
        if phase != Phase::Ready {
            return;
        }
        if let Some(p) = self.processes.get_mut(&process) {
            p.unwell = true;
        }
        self.reason = Some(format!("worker {worker} {why}"));
        match self.order {
            RestartOrder::StopFirst if !answers => {
                self.terminate(process, effects);
                self.failed(worker, round, &why, now, effects);
            }
            RestartOrder::StartFirst if !answers || self.half_stay_without(process) => {
                if let Some(p) = self.processes.get_mut(&process) {
                    p.phase = Phase::Hung;
                }
            }
            // It is replaced in its turn, as in a rolling restart.
            RestartOrder::StartFirst | RestartOrder::StopFirst => {}
        }
    }

    pub(super) fn well(&mut self, process: ProcessId, effects: &mut Vec<Effect>) {
        let is_one = |p: &&mut Process| p.unwell && matches!(p.phase, Phase::Ready | Phase::Hung);
        let Some(p) = self.processes.get_mut(&process).filter(is_one) else { return };
        (p.unwell, p.phase) = (false, Phase::Ready);
        let Process { worker, round, .. } = *p;
        // What was started in its place; the part of a rolling restart goes on.
        let instead =
            self.processes_where(|p| p.worker == worker && p.phase == Phase::Starting && p.round == round);
        instead.into_iter().for_each(|process| self.terminate(process, effects));
        if let Some(slot) = self.slots.get_mut(&worker) {
            slot.crashes.forget();
        }
        self.note_ready();
    }

    /// Whether at least half of the workers, and one, take requests without this process.
    fn half_stay_without(&self, process: ProcessId) -> bool {
        let stay = self.ready().filter(|ready| *ready != process).count();
        stay > 0 && stay * 2 >= self.workers as usize
    }
}
