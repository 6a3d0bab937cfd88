//! What a version does about a ready worker that raised an alarm, where it is to be restarted then: it is replaced as in
//! a rolling restart, after its back-off. An alarm counts as a failure, so a version whose workers raise one at each
//! start is left alone after a few: what serves badly is better than what never serves.

use std::time::Instant;

use super::crash::{FAILURES_MAX, FAILURES_WITHIN, WELL_AFTER};
use super::{Effect, Goal, Health, Lifecycle, Phase, Process, ProcessId};
use crate::version::WorkerId;

/// Older than any round of starts.
const TO_REPLACE: u64 = 0;

impl Lifecycle {
    pub(super) fn alarmed(&mut self, process: ProcessId, now: Instant, effects: &mut Vec<Effect>) {
        let (goal, round) = (self.goal, self.round);
        let is_new = |p: &&Process| goal == Goal::Run && p.phase == Phase::Ready && p.round == round;
        let Some(Process { worker, ready_since, .. }) = self.processes.get(&process).filter(is_new).copied()
        else {
            return;
        };
        let Some(slot) = self.slots.get_mut(&worker).filter(|slot| !slot.crashes.is_waiting()) else {
            return;
        };
        if ready_since.is_some_and(|since| now.duration_since(since) >= WELL_AFTER) {
            slot.crashes.begin_again();
        }
        if self.failures.add(now) {
            let seconds = FAILURES_WITHIN.as_secs();
            self.reason = Some(format!(
                "{FAILURES_MAX} failures within {seconds}s; worker {worker} raised an alarm, and is not replaced again"
            ));
            return;
        }
        self.last_timer += 1;
        let delay = slot.crashes.wait(self.last_timer);
        effects.push(Effect::RetryAfter(worker, self.last_timer, delay));
    }

    /// The back-off of a worker is over: one that serves is there because it raised an alarm, and is replaced in its
    /// turn.
    pub(super) fn replace_alarmed(&mut self, worker: WorkerId) {
        // One that is unwell is replaced for that, and stays of its round: it may be well again before.
        let served = self
            .processes_where(|p| p.worker == worker && p.phase == Phase::Ready && p.health == Health::Well);
        for process in served {
            if let Some(p) = self.processes.get_mut(&process) {
                p.round = TO_REPLACE;
            }
        }
    }
}
