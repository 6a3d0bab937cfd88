//! What a version does about workers that fail: back-off, crash loops, lost ports, restarts given up.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Effect, End, Goal, Lifecycle, Phase, Process, ProcessId};
use crate::backoff::Backoff;
use crate::version::WorkerId;

/// The delay after the first failure of a worker; doubles with each further one.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest delay.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// A worker that was ready for this long begins again with the shortest delay.
const WELL_AFTER: Duration = Duration::from_secs(10);
/// So many failures ...
pub(super) const FAILURES_MAX: usize = 5;
/// ... within this time are a crash loop.
const FAILURES_WITHIN: Duration = Duration::from_secs(60);
/// So many ports may be lost to others in a row before that counts as a failure: a worker that insists on a
/// port of its own, which is taken, must not be started again and again for ever.
pub(super) const PORTS_LOST_MAX: u32 = 5;

/// The recent failures of a version.
#[derive(Debug, Default)]
pub(super) struct Failures(VecDeque<Instant>);

impl Failures {
    /// Counts one; answers whether they have become a crash loop.
    fn add(&mut self, now: Instant) -> bool {
        self.0.push_back(now);
        self.0.retain(|then| now.duration_since(*then) < FAILURES_WITHIN);
        self.0.len() >= FAILURES_MAX
    }
}

/// What one worker has been through.
#[derive(Debug)]
pub(super) struct Crashes {
    backoff: Backoff,
    waiting: Option<u64>,
    ports_lost: u32,
}

impl Default for Crashes {
    fn default() -> Self {
        Self { backoff: Backoff::new(RETRY_MIN, RETRY_MAX), waiting: None, ports_lost: 0 }
    }
}

impl Crashes {
    /// Whether it waits for its back-off.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Ends the wait that has this timer; false for a timer of the past.
    pub(super) fn is_over(&mut self, timer: u64) -> bool {
        let over = self.waiting == Some(timer);
        self.waiting = self.waiting.filter(|_| !over);
        over
    }

    /// It is not to be started again.
    pub(super) fn forget(&mut self) {
        self.waiting = None;
    }

    /// It listens on the port it was given.
    pub(super) fn port_held(&mut self) {
        self.ports_lost = 0;
    }

    fn wait(&mut self, timer: u64) -> Duration {
        self.waiting = Some(timer);
        self.backoff.next_delay()
    }
}

impl Lifecycle {
    pub(super) fn ended(&mut self, process: ProcessId, end: End, now: Instant, effects: &mut Vec<Effect>) {
        let Some(p) = self.processes.remove(&process) else { return };
        if !p.wanted || self.goal != Goal::Run || p.worker.0 >= self.workers {
            return;
        }
        let served = p.ready_since.is_some();
        if let Some(since) = p.ready_since
            && now.duration_since(since) >= WELL_AFTER
            && let Some(slot) = self.slots.get_mut(&p.worker)
        {
            slot.crashes.backoff.reset();
        }
        match end {
            End::PortTaken(why) if !served => self.lost_port(p, &why, now, effects),
            End::ByItself(why) | End::PortTaken(why) => self.failed(p.worker, p.round, &why, now, effects),
            End::Told => self.failed(p.worker, p.round, "it ended", now, effects),
        }
    }

    pub(super) fn port_taken(
        &mut self,
        process: ProcessId,
        why: &str,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(p) = self.processes.get(&process).copied() {
            self.lost_port(p, why, now, effects);
        }
    }

    pub(super) fn late(&mut self, process: ProcessId, why: &str, now: Instant, effects: &mut Vec<Effect>) {
        let Some(Process { worker, round, .. }) = self.processes.get(&process).copied() else { return };
        if self.was_ready {
            self.failed(worker, round, why, now, effects);
        } else {
            self.want(Goal::Fail, Some(format!("worker {worker} {why}")));
        }
    }

    /// A lost port is nobody's fault: another one is tried at once, a few times.
    fn lost_port(&mut self, p: Process, why: &str, now: Instant, effects: &mut Vec<Effect>) {
        let Some(slot) = self.slots.get_mut(&p.worker) else { return };
        slot.crashes.ports_lost += 1;
        if slot.crashes.ports_lost > PORTS_LOST_MAX {
            self.failed(p.worker, p.round, why, now, effects);
        }
    }

    /// One counted failure of a worker's process, of this round: gives a rolling restart up, fails the version, or waits
    /// and tries again.
    pub(super) fn failed(
        &mut self,
        worker: WorkerId,
        round: u64,
        why: &str,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let is_old = |p: &Process| p.phase == Phase::Ready && p.round < self.round;
        let given_up = round == self.round && self.processes.values().any(is_old);
        if given_up {
            self.give_up_restart(worker, why);
        }
        let stays = self.stands(worker).map(|p| p.unwell);
        if stays == Some(false) {
            return;
        }
        let crash_loop = self.failures.add(now);
        if crash_loop && !(self.was_ready && self.any_ready()) {
            let reason = format!(
                "{FAILURES_MAX} failures within {}s; worker {worker} {why}",
                FAILURES_WITHIN.as_secs()
            );
            self.want(Goal::Fail, Some(reason));
            return;
        }
        if !given_up {
            let what =
                if stays.is_some() { "fails its liveness checks, and the one in its place " } else { "" };
            self.reason = Some(format!("worker {worker} {what}{why}"));
        }
        // While its replacement starts there is nothing to start again.
        let replaced = self.of(worker).any(|(_, p)| p.phase == Phase::Starting);
        if let Some(slot) = self.slots.get_mut(&worker).filter(|_| !replaced) {
            self.last_timer += 1;
            let delay = slot.crashes.wait(self.last_timer);
            effects.push(Effect::RetryAfter(worker, self.last_timer, delay));
        }
    }

    /// The old processes go on, and count as of this round.
    fn give_up_restart(&mut self, worker: WorkerId, why: &str) {
        let round = self.round;
        self.processes.values_mut().for_each(|p| p.round = round);
        self.reason = Some(format!(
            "the restart was given up and the old workers go on: the new worker {worker} {why}"
        ));
    }
}
