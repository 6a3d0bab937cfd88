//! Compares what is wanted of a version with what is there, and starts, drains and ends processes accordingly.

use super::{Effect, Goal, Lifecycle, Phase, Process, ProcessId};
use crate::config::RestartOrder;
use crate::version::WorkerId;

impl Lifecycle {
    /// Makes what is there what is wanted.
    pub(super) fn reconcile(&mut self, effects: &mut Vec<Effect>) {
        let workers = if self.goal == Goal::Run { self.workers } else { 0 };
        let surplus = self.processes_where(|p| p.worker.0 >= workers);
        surplus.into_iter().for_each(|process| self.retire(process, effects));
        for (_, slot) in self.slots.iter_mut().filter(|(id, _)| id.0 >= workers) {
            slot.crashes.forget();
        }
        if self.goal != Goal::Run {
            return;
        }
        let in_use: Vec<WorkerId> = self.processes.values().map(|p| p.worker).collect();
        self.slots.retain(|id, _| id.0 < workers || in_use.contains(id));
        for worker in (0..workers).map(WorkerId) {
            let waits = self.slots.entry(worker).or_default().crashes.is_waiting();
            let runs = self.of(worker).any(|(_, p)| match self.order {
                // What drains may take as long as its streams, and what hangs for ever: nobody waits for that.
                RestartOrder::StartFirst => !matches!(p.phase, Phase::Draining | Phase::Hung),
                RestartOrder::StopFirst => true,
            });
            if !waits && !runs {
                self.start(worker, effects);
            }
        }
        self.roll(effects);
    }

    /// One step of a rolling restart: replaces one worker of an older round, or an unwell one, once nothing else moves
    /// and nobody waits to be tried again.
    fn roll(&mut self, effects: &mut Vec<Effect>) {
        let round = self.round;
        let unready = self.processes_where(|p| p.round < round && p.phase == Phase::Starting);
        unready.into_iter().for_each(|process| self.terminate(process, effects));
        let moving = self.processes.values().any(|p| p.phase != Phase::Ready);
        if moving || self.slots.values().any(|slot| slot.crashes.is_waiting()) {
            return;
        }
        let is_last = self.processes.len() == 1;
        let next = self.processes.iter().filter(|(_, p)| match self.order {
            RestartOrder::StartFirst => p.round < round || p.unwell,
            // Nobody knows yet whether a new one would answer at all.
            RestartOrder::StopFirst => p.round < round || p.unwell && !is_last,
        });
        let Some((worker, process)) = next.map(|(process, p)| (p.worker, *process)).min() else { return };
        match self.order {
            RestartOrder::StartFirst => self.start(worker, effects),
            RestartOrder::StopFirst => self.retire(process, effects),
        }
    }

    fn start(&mut self, worker: WorkerId, effects: &mut Vec<Effect>) {
        self.last_process += 1;
        let process = ProcessId(self.last_process);
        let (phase, round) = (Phase::Starting, self.round);
        let new = Process { worker, phase, round, wanted: true, ready_since: None, unwell: false };
        self.processes.insert(process, new);
        effects.push(Effect::Start { process, worker, urgent: self.was_ready || self.woken });
    }

    pub(super) fn terminate(&mut self, process: ProcessId, effects: &mut Vec<Effect>) {
        if let Some(p) = self.processes.get_mut(&process)
            && p.phase != Phase::Stopping
        {
            p.phase = Phase::Stopping;
            p.wanted = false;
            effects.push(Effect::Terminate(process));
        }
    }

    /// Drains what takes requests, ends what does not.
    pub(super) fn retire(&mut self, process: ProcessId, effects: &mut Vec<Effect>) {
        match self.processes.get_mut(&process) {
            Some(p) if matches!(p.phase, Phase::Ready | Phase::Hung) => {
                p.phase = Phase::Draining;
                p.wanted = false;
                effects.push(Effect::Drain(process));
            }
            Some(p) if p.phase == Phase::Starting => self.terminate(process, effects),
            Some(_) | None => {}
        }
    }

    pub(super) fn processes_where(&self, is_so: impl Fn(&Process) -> bool) -> Vec<ProcessId> {
        self.processes.iter().filter(|(_, p)| is_so(p)).map(|(id, _)| *id).collect()
    }
}
