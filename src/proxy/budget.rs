//! How many requests may be sent a second time: few enough that retries cannot multiply an outage.
//!
//! One budget a version and thread. It counts in slots of a second, and costs a request that goes well nothing:
//! the number of requests comes from the counters that are kept anyway.

/// Seconds that are looked back on.
const SECONDS: usize = 10;
/// One retry in so many requests.
const ONE_IN: u64 = 5;
/// So many retries in the whole window are allowed however few the requests were: 3 a second.
const FLOOR: u64 = 3 * SECONDS as u64;

/// What was asked of a version in the last ten seconds. Pure.
#[derive(Debug)]
pub(crate) struct Budget {
    slots: [Slot; SECONDS],
    /// The slot of this second; the next one is the oldest.
    at: usize,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Requests that had ended when it began, since the start of the world.
    requests: u64,
    /// Retries in it.
    retries: u64,
}

impl Budget {
    /// A budget of a version that has had so many `requests` up to now.
    pub(crate) fn new(requests: u64) -> Self {
        Self { slots: [Slot { requests, retries: 0 }; SECONDS], at: 0 }
    }

    /// Begins the next second.
    pub(crate) fn next_second(&mut self, requests: u64) {
        self.at = (self.at + 1) % SECONDS;
        self.slots[self.at] = Slot { requests, retries: 0 };
    }

    /// Takes one retry; false if there is none left. `requests` is as in [`Self::new`].
    pub(crate) fn take(&mut self, requests: u64) -> bool {
        let lately = requests - self.slots[(self.at + 1) % SECONDS].requests;
        let retries: u64 = self.slots.iter().map(|slot| slot.retries).sum();
        let allowed = retries < FLOOR.max(lately / ONE_IN);
        self.slots[self.at].retries += u64::from(allowed);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(budget: &mut Budget, wanted: usize, requests: u64) -> usize {
        (0..wanted).filter(|_| budget.take(requests)).count()
    }

    #[test]
    fn retries_are_a_fifth_of_the_requests_of_ten_seconds() {
        let mut budget = Budget::new(5_000);
        assert_eq!(taken(&mut budget, 100, 5_000), 30, "the floor, without any request");
        assert_eq!(taken(&mut budget, 1_000, 6_000), 170, "a fifth of a thousand");
        for second in 1..10 {
            budget.next_second(6_000);
            assert_eq!(taken(&mut budget, 10, 6_000), 0, "second {second}: they are still remembered");
        }
        budget.next_second(6_000);
        assert_eq!(taken(&mut budget, 100, 6_000), 30, "and then they are not");
    }

    #[test]
    fn in_a_lasting_outage_the_share_is_held() {
        let (mut budget, mut requests, mut retries) = (Budget::new(0), 0, 0);
        for _second in 0..60 {
            for _request in 0..100 {
                requests += 1;
                retries += u64::from(budget.take(requests));
            }
            budget.next_second(requests);
        }
        let share = retries as f64 / requests as f64;
        assert!((0.15..=0.21).contains(&share), "{retries} of {requests}");
    }
}
