//! What a version does about ready workers that no longer answer as they should.
//!
//! A worker that does not answer at all is out at once, even the last one: who is sent there waits in vain. One that
//! answers, but badly, goes on taking requests where fewer than half of the workers would stay: what is wrong may lie
//! elsewhere (a database that every check asks), and a bad answer is better than none. Either way another process is
//! started, and the old one leaves once that is ready: nobody is restarted for nothing. If the old one is well again
//! before that, it goes on, and the new one is ended.
//!
//! With `stop-first` the order is the other one: the old one ends, then the new one is started. So one that answers
//! stays where it is the last.

use std::time::Instant;

use super::{Effect, Health, Lifecycle, Phase, Process, ProcessId};
use crate::config::RestartOrder;

impl Lifecycle {
    pub(super) fn unwell(
        &mut self,
        process: ProcessId,
        health: Health,
        why: &str,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let stay = self.half_stay_without(process);
        let Some(p) = self.processes.get_mut(&process) else { return };
        if !matches!(p.phase, Phase::Ready | Phase::Hung) {
            return;
        }
        p.health = health;
        let Process { worker, round, .. } = *p;
        self.reason = Some(format!("worker {worker} {why}"));
        match (self.order, health) {
            (RestartOrder::StartFirst, Health::Silent) => p.phase = Phase::Hung,
            (RestartOrder::StartFirst, _) if stay => p.phase = Phase::Hung,
            (RestartOrder::StopFirst, Health::Silent) => {
                self.terminate(process, effects);
                self.failed(worker, round, why, now, effects);
            }
            // It is replaced in its turn, as in a rolling restart.
            (RestartOrder::StartFirst | RestartOrder::StopFirst, _) => {}
        }
    }

    pub(super) fn well(&mut self, process: ProcessId, effects: &mut Vec<Effect>) {
        let stands = |p: &&mut Process| matches!(p.phase, Phase::Ready | Phase::Hung);
        let Some(p) = self.processes.get_mut(&process).filter(stands) else { return };
        (p.health, p.phase) = (Health::Well, Phase::Ready);
        let Process { worker, round, .. } = *p;
        // What was started in its place; what belongs to a rolling restart goes on.
        let instead = |p: &Process| p.worker == worker && p.phase == Phase::Starting && p.round == round;
        self.processes_where(instead).into_iter().for_each(|new| self.terminate(new, effects));
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
