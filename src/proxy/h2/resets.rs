//! How many requests a client may take back (CVE-2023-44487, rapid reset). Each costs us a request to a worker,
//! and no stream limit ever counts it: what was reset does not run.

use std::time::Duration;

use crate::config::Http2;
use crate::proxy::clock::ticks;

/// A bucket of resets: full at first, filled again second by second.
#[derive(Debug)]
pub(super) struct Resets {
    left: u32,
    most: u32,
    a_second: u32,
    /// The tick up to which it was filled.
    at: u64,
}

impl Resets {
    pub(super) fn new(limits: &Http2) -> Self {
        Self { left: limits.reset_burst, most: limits.reset_burst, a_second: limits.resets_per_second, at: 0 }
    }

    /// Takes `count` out of the bucket; false when it does not hold that much.
    pub(super) fn allows(&mut self, count: u32, now: u64) -> bool {
        // `ticks` counts the one that has begun.
        let second = ticks(Duration::from_secs(1)) - 1;
        let seconds = (now - self.at) / second;
        self.at += seconds * second;
        let filled = u64::from(self.left) + seconds.saturating_mul(u64::from(self.a_second));
        self.left = u32::try_from(filled).unwrap_or(u32::MAX).min(self.most);
        match self.left.checked_sub(count) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_so_many_a_second() {
        let mut resets = Resets::new(&Http2 { reset_burst: 10, resets_per_second: 2, ..Http2::default() });
        for (count, tick, allowed) in [
            (0, 0, true),
            (10, 0, true),
            (1, 3, false),
            (2, 4, true),
            (1, 7, false),
            (2, 8, true),
            (4, 16, true),
            (1, 16, false),
            (10, 4000, true),
            (1, 4000, false),
        ] {
            assert_eq!(resets.allows(count, tick), allowed, "{count} at {tick}");
        }
    }
}
