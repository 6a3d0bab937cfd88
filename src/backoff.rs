//! Growing, jittered back-off: how long to wait before something that failed is tried again.
//!
//! Each delay doubles the one before up to a bound, and a random part of it is cut off, so that many who
//! failed at the same moment do not come back at the same moment. Used for workers that end by themselves and
//! for an etcd that cannot be reached. No clock and no I/O: the caller sleeps.

use std::time::Duration;

/// The delays of one series of failures.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    /// The next delay before jitter.
    next: Duration,
}

impl Backoff {
    /// A series that begins at `min` and grows to `max` (which is never less than `min`).
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min), next: min }
    }

    /// The time to wait before the next try: between half and the whole of the current step, which then
    /// doubles. Never more than `max`.
    pub fn next_delay(&mut self) -> Duration {
        let step = self.next;
        self.next = step.saturating_mul(2).min(self.max);
        step.mul_f64(0.5 + 0.5 * fastrand::f64()).min(step)
    }

    /// Begins again at `min`, after a success.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_delay_lies_between_half_and_the_whole_of_a_doubling_step(
            min in 1_u64..5_000,
            max in 1_u64..60_000,
            tries in 1_usize..80,
        ) {
            let (min, max) = (Duration::from_millis(min), Duration::from_millis(max.max(min)));
            let mut backoff = Backoff::new(min, max);
            let mut step = min;
            for _ in 0..tries {
                let delay = backoff.next_delay();
                prop_assert!(delay >= step / 2 && delay <= step, "{delay:?} of {step:?}");
                step = (step * 2).min(max);
            }
            backoff.reset();
            prop_assert!(backoff.next_delay() <= min);
        }
    }

    #[test]
    fn two_series_do_not_march_in_step() {
        let series = || {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
            (0..8).map(|_| backoff.next_delay()).collect::<Vec<_>>()
        };
        assert_ne!(series(), series());
    }
}
