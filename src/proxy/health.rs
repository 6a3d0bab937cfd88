//! Which workers fail, as one thread sees it: some failures in a row take a worker out for a while, one success
//! brings it back.
//!
//! A failure is a connection that was refused, one that died before its first answer, or silence beyond the
//! first-byte timeout; a 5xx of the application is none. Workers that do well are not in here at all, so that
//! asking costs one branch.

use std::collections::HashMap;
use std::time::Duration;

use crate::proxy::clock::ticks;

/// Failures in a row that take a worker out.
const FAILURES: u32 = 3;
/// The first time a worker is out for so long; each further time in a row it is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// The longest that a worker is out.
const LONGEST: Duration = Duration::from_secs(60);
/// A request that cannot be repeated is no good for a trial; it is taken after all once a trial has been due for
/// this long.
const OVERDUE: Duration = Duration::from_secs(1);

/// The workers that fail, by [`Upstream::serial`](crate::registry::Upstream::serial). Pure; `now` is in ticks.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failing: HashMap<u64, Failing>,
}

#[derive(Debug, Default)]
struct Failing {
    /// Failures in a row.
    failures: u32,
    /// Times in a row that it was taken out.
    ejections: u32,
    /// Ejected until this tick; then a trial is due.
    until: Option<u64>,
    /// A trial is under way.
    trial: bool,
}

impl Health {
    /// No worker fails.
    pub(crate) fn all_well(&self) -> bool {
        self.failing.is_empty()
    }

    /// Whether a worker is ejected: it gets nothing but a trial.
    pub(crate) fn is_ejected(&self, serial: u64) -> bool {
        self.failing.get(&serial).is_some_and(|failing| failing.until.is_some())
    }

    /// Whether this request is the trial of an ejected worker whose time is over. If nobody says how it went,
    /// the next trial is due after the same time.
    pub(crate) fn begin_trial(&mut self, serial: u64, repeatable: bool, now: u64) -> bool {
        let Some(failing) = self.failing.get_mut(&serial) else { return false };
        let Some(until) = failing.until else { return false };
        let due = if repeatable { until } else { until + ticks(OVERDUE) };
        if now < due {
            return false;
        }
        failing.trial = true;
        failing.until = Some(now + ticks(out_for(failing.ejections)));
        true
    }

    /// A worker has failed. `others`: another worker of its version takes requests, so it can be spared.
    /// Returns for how long it is ejected, if that begins now.
    pub(crate) fn failed(&mut self, serial: u64, others: bool, now: u64) -> Option<Duration> {
        let failing = self.failing.entry(serial).or_default();
        failing.failures = failing.failures.saturating_add(1);
        let again = failing.until.is_some();
        // While it is out, only its trial says something new; what fails besides was sent before.
        let ejected = if again { failing.trial } else { others && failing.failures >= FAILURES };
        if !ejected {
            return None;
        }
        failing.trial = false;
        failing.ejections = failing.ejections.saturating_add(1);
        let time = out_for(failing.ejections);
        failing.until = Some(now + ticks(time));
        Some(time)
    }

    /// A worker has begun to answer; whether that ends its ejection.
    pub(crate) fn succeeded(&mut self, serial: u64) -> bool {
        self.failing.remove(&serial).is_some_and(|failing| failing.until.is_some())
    }

    /// Forgets the workers that are not `there` any more.
    pub(crate) fn keep(&mut self, there: impl Fn(u64) -> bool) {
        self.failing.retain(|serial, _| there(*serial));
    }
}

/// How long the n-th ejection in a row takes.
fn out_for(ejections: u32) -> Duration {
    let doubled = ejections.saturating_sub(1).min(10);
    (FIRST * (1 << doubled)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn failures_in_a_row_eject_for_longer_and_longer() {
        let mut health = Health::default();
        let mut now = 0;
        for _ in 0..FAILURES - 1 {
            assert_eq!(health.failed(1, true, now), None);
        }
        assert!(!health.is_ejected(1));
        assert_eq!(health.failed(1, true, now), Some(FIRST));
        for seconds in [2, 4, 8, 16, 32, 60, 60] {
            assert!(health.is_ejected(1));
            assert_eq!(health.failed(1, true, now), None, "an older request says nothing new");
            assert!(!health.begin_trial(1, true, now), "it is not yet time");
            now += ticks(LONGEST);
            assert!(health.begin_trial(1, true, now));
            assert!(!health.begin_trial(1, true, now), "one request is the trial");
            assert_eq!(health.failed(1, true, now), Some(Duration::from_secs(seconds)));
        }
        now += ticks(LONGEST);
        assert!(health.begin_trial(1, true, now));
        assert!(health.succeeded(1), "it is back");
        assert!(health.all_well() && !health.succeeded(1));
        assert_eq!(health.failed(1, true, now), None, "and begins anew");
    }

    #[test]
    fn a_success_in_between_counts_from_the_start() {
        let mut health = Health::default();
        for _ in 0..10 {
            for _ in 0..FAILURES - 1 {
                assert_eq!(health.failed(1, true, 0), None);
            }
            assert!(!health.succeeded(1), "it was never out");
        }
    }

    #[test]
    fn a_trial_wants_a_request_that_can_be_repeated_but_not_for_ever() {
        let mut health = Health::default();
        while health.failed(1, true, 0).is_none() {}
        let due = ticks(FIRST);
        assert!(!health.begin_trial(1, true, due - 1));
        assert!(!health.begin_trial(1, false, due));
        assert!(health.begin_trial(1, false, due + ticks(OVERDUE)));
        // The client of that trial has left; nobody says how it went.
        let next = due + ticks(OVERDUE) + ticks(FIRST);
        assert!(!health.begin_trial(1, true, next - 1));
        assert!(health.begin_trial(1, true, next));
        health.keep(|serial| serial != 1);
        assert!(health.all_well());
    }

    proptest! {
        /// Whatever fails in whatever order: as long as `others` is told truly, one worker stays.
        #[test]
        fn the_last_worker_is_never_ejected(
            workers in 1..5_u64, events in prop::collection::vec((0..5_u64, any::<bool>(), 0..20_u64), 0..200)
        ) {
            let (mut health, mut now) = (Health::default(), 0);
            for (worker, success, passed) in events {
                now += passed;
                let worker = worker % workers;
                let others = (0..workers).any(|other| other != worker && !health.is_ejected(other));
                health.begin_trial(worker, true, now);
                if success {
                    health.succeeded(worker);
                } else {
                    health.failed(worker, others, now);
                }
                prop_assert!((0..workers).any(|worker| !health.is_ejected(worker)));
            }
        }
    }
}
