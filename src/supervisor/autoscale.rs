//! How many workers a load calls for. Pure.
//!
//! Each second the requests in flight are noted; the mean of the last [`SAMPLES`] calls for a number of workers. There
//! are as many as the last [`WINDOW`] has called for at most: so they become more within seconds, and fewer only when
//! a whole minute has not needed them. That is the way of Kubernetes' autoscaler, whose minutes are five.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::Scale;

/// Samples, one a second, whose mean counts: a single burst starts no worker.
const SAMPLES: usize = 3;
/// What was needed within this time still counts.
const WINDOW: Duration = Duration::from_secs(60);

/// What one version's load was.
#[derive(Debug, Default)]
pub(crate) struct Scaler {
    samples: VecDeque<u64>,
    /// What was called for, and when.
    called: VecDeque<(Instant, u32)>,
}

impl Scaler {
    /// Notes `in_flight` requests at `now`; answers with the number of workers, from 1. At first the `current` number
    /// counts as called for.
    pub(crate) fn workers(&mut self, scale: &Scale, current: u32, in_flight: u64, now: Instant) -> u32 {
        if self.called.is_empty() {
            self.called.push_back((now, current));
        }
        self.samples.push_back(in_flight);
        while self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
        self.called.push_back((now, self.needed(scale)));
        self.called.retain(|(at, _)| now.duration_since(*at) < WINDOW);
        let most = self.called.iter().map(|(_, workers)| *workers).max().unwrap_or(1);
        scale.within(most)
    }

    /// What the last samples call for. Until there are enough of them, the missing ones count as none.
    fn needed(&self, scale: &Scale) -> u32 {
        let room = u64::from(scale.target_in_flight.max(1)) * SAMPLES as u64;
        let all = self.samples.iter().fold(0_u64, |sum, sample| sum.saturating_add(*sample));
        u32::try_from(all.div_ceil(room)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCALE: Scale = Scale { min: 1, max: 4, target_in_flight: 20 };

    /// The numbers of workers for these loads, one a second.
    fn follow(scale: &Scale, loads: impl IntoIterator<Item = u64>) -> Vec<u32> {
        let (mut scaler, begun) = (Scaler::default(), Instant::now());
        let at = |second: u32| begun + Duration::from_secs(1) * second;
        (0..).zip(loads).map(|(second, load)| scaler.workers(scale, 1, load, at(second))).collect()
    }

    fn seconds(load: u64, count: usize) -> impl Iterator<Item = u64> {
        std::iter::repeat_n(load, count)
    }

    #[test]
    fn workers_become_more_within_seconds_and_fewer_after_a_minute() {
        let loads = seconds(0, 5).chain(seconds(60, 5)).chain(seconds(10, 70));
        let workers = follow(&SCALE, loads);
        assert_eq!(workers[..5], [1; 5]);
        assert_eq!(workers[5..10], [1, 2, 3, 3, 3], "three seconds make the mean");
        // The mean of three was above 40 until second 10, and is 10 from second 12 on.
        let fewer = workers.iter().rposition(|n| *n == 3).unwrap();
        assert!((68..=72).contains(&fewer), "{fewer}: {workers:?}");
        assert_eq!(workers.last(), Some(&1));
    }

    #[test]
    fn the_numbers_are_those_of_the_limits() {
        for (load, expected) in [(0, 1), (20, 1), (21, 2), (40, 2), (41, 3), (1_000_000, 4), (u64::MAX, 4)] {
            assert_eq!(follow(&SCALE, seconds(load, 3)).last(), Some(&expected), "{load}");
        }
        let two = Scale { min: 2, ..SCALE };
        assert_eq!(follow(&two, [0]), [2]);
        let zero = Scale { min: 0, ..SCALE };
        assert_eq!(follow(&zero, [0]), [1], "while it is awake there is one");
    }

    #[test]
    fn what_was_there_at_the_beginning_stays_for_a_minute() {
        let (mut scaler, begun) = (Scaler::default(), Instant::now());
        let mut at = |second| scaler.workers(&SCALE, 3, 0, begun + Duration::from_secs(second));
        assert_eq!([at(0), at(1), at(59), at(60)], [3, 3, 3, 1]);
    }

    #[test]
    fn a_single_burst_starts_no_worker() {
        assert_eq!(follow(&SCALE, [0, 0, 0, 60, 0, 0, 0]), [1; 7]);
    }

    proptest! {
        #[test]
        fn there_are_never_too_few_for_a_steady_load_and_never_more_than_the_most(
            loads in prop::collection::vec(0_u64..200, 1..100), min in 0_u32..5, more in 0_u32..5, target in 1_u32..50,
        ) {
            let scale = Scale { min, max: (min + more).max(1), target_in_flight: target };
            let workers = follow(&scale, loads.iter().copied());
            for (second, workers) in workers.iter().enumerate() {
                prop_assert!((scale.min.max(1)..=scale.max).contains(workers));
                if second >= 2 {
                    let least = loads[second - 2..=second].iter().min().unwrap();
                    let needed = least.div_ceil(u64::from(target)).min(u64::from(scale.max));
                    prop_assert!(u64::from(*workers) >= needed);
                }
            }
        }
    }
}
