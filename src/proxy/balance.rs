//! Which of a version's workers gets a request: the one with the fewest in flight, taking turns among equals.

use std::sync::Arc;

use crate::registry::Upstream;

/// Chooses among `ready`, leaving out the serials in `left_out`. `turn` is any number that changes from one
/// request to the next. `None`: none is left.
pub(crate) fn pick<'a>(
    ready: &'a [Arc<Upstream>],
    left_out: &[u64],
    turn: usize,
) -> Option<&'a Arc<Upstream>> {
    if let ([only], []) = (ready, left_out) {
        return Some(only);
    }
    let start = turn % ready.len().max(1);
    let (before, after) = ready.split_at(start);
    after
        .iter()
        .chain(before)
        .filter(|upstream| !left_out.contains(&upstream.serial))
        .min_by_key(|upstream| upstream.in_flight.now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Protocol;
    use crate::metrics::ThreadSlot;
    use crate::registry::Address;
    use crate::version::WorkerId;

    fn workers(in_flight: &[usize]) -> Vec<Arc<Upstream>> {
        let worker = |(serial, running): (usize, &usize)| {
            let address = Address::Unix("/nowhere".into());
            let upstream = Upstream::new(serial as u64, WorkerId(serial as u32), address, Protocol::Http1, 1);
            (0..*running).for_each(|_| upstream.in_flight.begin(ThreadSlot(0)));
            Arc::new(upstream)
        };
        in_flight.iter().enumerate().map(worker).collect()
    }

    #[test]
    fn the_least_busy_worker_is_picked_and_equals_take_turns() {
        for (in_flight, left_out, turn, expected) in [
            (&[][..], &[][..], 3, None),
            (&[7], &[], 3, Some(0)),
            (&[7], &[0], 3, None),
            (&[2, 1, 3], &[], 0, Some(1)),
            (&[2, 1, 3], &[1], 0, Some(0)),
            (&[0, 0, 0], &[], 0, Some(0)),
            (&[0, 0, 0], &[], 1, Some(1)),
            (&[0, 0, 0], &[], 5, Some(2)),
            (&[0, 0, 0], &[2], 5, Some(0)),
            (&[0, 1, 0], &[], 1, Some(2)),
        ] {
            let workers = workers(in_flight);
            let picked = pick(&workers, left_out, turn).map(|u| u.serial);
            assert_eq!(picked, expected, "{in_flight:?} without {left_out:?}, turn {turn}");
        }
    }
}
