//! Tables and simulations: what is chosen, and how the shares come out.

use proptest::prelude::*;

use super::*;
use crate::config::Protocol;
use crate::metrics::ThreadSlot;
use crate::registry::Address;
use crate::version::WorkerId;

const SLOW_START: Duration = Duration::from_secs(10);

/// Workers of these ages in seconds, with so many requests in flight, at the moment `now`.
fn workers(now: Instant, made: &[(u64, usize)]) -> Vec<Arc<Upstream>> {
    let worker = |(serial, (age, running)): (usize, &(u64, usize))| {
        let address = Address::Unix("/nowhere".into());
        let mut upstream = Upstream::new(serial as u64, WorkerId(serial as u32), address, Protocol::Http1, 1);
        upstream.since = now - Duration::from_secs(*age);
        (0..*running).for_each(|_| upstream.in_flight.begin(ThreadSlot(0)));
        Arc::new(upstream)
    };
    made.iter().enumerate().map(worker).collect()
}

fn busy(in_flight: &[usize]) -> Vec<Arc<Upstream>> {
    let made: Vec<_> = in_flight.iter().map(|n| (3600, *n)).collect();
    // As late as that, so that every age is a moment.
    workers(moment(), &made)
}

fn moment() -> Instant {
    Instant::now() + Duration::from_secs(7200)
}

fn asking(failed: &[u64], stale: Option<u64>, turn: u64) -> Asking {
    Asking { repeatable: true, turn, tried: Some(Box::new(Tried { failed: failed.to_vec(), stale })) }
}

/// The serial of who is chosen; `Err(true)`: all are busy, `Err(false)`: nobody is left.
fn chosen(
    ready: &[Arc<Upstream>],
    request: &Asking,
    health: &mut Health,
    now: Instant,
    room: impl Fn(u64) -> bool,
) -> Result<u64, bool> {
    let wanted = Wanted { ready, request, slow_start: SLOW_START, now, tick: 0 };
    match choose(&wanted, health, |upstream| room(upstream.serial)) {
        Choice::Worker(worker) => Ok(worker.serial),
        Choice::Busy => Err(true),
        Choice::Nobody => Err(false),
    }
}

/// Takes a worker out for a second.
fn ejected(serials: &[u64]) -> Health {
    let mut health = Health::default();
    for serial in serials {
        while !health.is_ejected(*serial) {
            health.failed(*serial, true, 0);
        }
    }
    health
}

#[test]
fn who_is_chosen() {
    const ALL: [u64; 4] = [0, 1, 2, 3];
    for (in_flight, failed, stale, out, room, turn, expected) in [
        (&[][..], &[][..], None, &[][..], &ALL[..], 3, Err(false)),
        (&[7], &[], None, &[], &ALL, 3, Ok(0)),
        (&[7], &[0], None, &[], &ALL, 3, Err(false)),
        // Two are both looked at, and equals alternate.
        (&[2, 1], &[], None, &[], &ALL, 0, Ok(1)),
        (&[2, 1], &[], None, &[], &ALL, 1, Ok(1)),
        (&[0, 0], &[], None, &[], &ALL, 0, Ok(0)),
        (&[0, 0], &[], None, &[], &ALL, 1, Ok(1)),
        (&[2, 1, 3], &[1], None, &[], &ALL, 0, Ok(0)),
        (&[0, 0, 0], &[], None, &[], &ALL, 4, Ok(1)),
        (&[0, 0, 0], &[2], None, &[], &ALL, 5, Ok(1)),
        // One that closed an idle connection is asked again only if there is no other.
        (&[0, 9], &[], Some(0), &[], &ALL, 0, Ok(1)),
        (&[0, 9], &[1], Some(0), &[], &ALL, 0, Ok(0)),
        // An ejected one likewise.
        (&[0, 9], &[], None, &[0], &ALL, 0, Ok(1)),
        (&[0, 9], &[1], None, &[0], &ALL, 0, Ok(0)),
        (&[0, 9], &[], None, &[0, 1], &ALL, 0, Ok(0)),
        (&[0, 9], &[0], None, &[0, 1], &ALL, 0, Ok(1)),
        // Room: to wait for a good one is better than to ask a bad one.
        (&[5, 5], &[], None, &[], &[1], 0, Ok(1)),
        (&[5, 5], &[], None, &[], &[], 0, Err(true)),
        (&[0, 5], &[], None, &[0], &[0], 0, Err(true)),
        (&[0, 5], &[1], None, &[0], &[0], 0, Ok(0)),
    ] {
        let found =
            chosen(&busy(in_flight), &asking(failed, stale, turn), &mut ejected(out), moment(), |s| {
                room.contains(&s)
            });
        assert_eq!(
            found, expected,
            "{in_flight:?} failed {failed:?} stale {stale:?} out {out:?} room {room:?} turn {turn}"
        );
    }
}

#[test]
fn an_ejected_worker_whose_time_is_over_gets_one_request() {
    let ready = busy(&[3, 0]);
    let mut health = ejected(&[0]);
    let request = asking(&[], None, 0);
    let at = |tick| Wanted { ready: &ready, request: &request, slow_start: SLOW_START, now: moment(), tick };
    let mut choose_at = |tick| match choose(&at(tick), &mut health, |_| true) {
        Choice::Worker(worker) => worker.serial,
        _ => 9,
    };
    assert_eq!([0, 1, 100, 100, 101].map(&mut choose_at), [1, 1, 0, 1, 1]);
}

/// The share of each worker of so many requests, each of which ends when `at_once` others have begun.
fn shares(made: &[(u64, usize)], requests: u64, at_once: usize, health: &mut Health) -> Vec<f64> {
    let now = moment();
    let ready = workers(now, made);
    let mut given = vec![0_u64; made.len()];
    let mut running = std::collections::VecDeque::new();
    for turn in 0..requests {
        let serial = chosen(&ready, &asking(&[], None, turn), health, now, |_| true).unwrap() as usize;
        given[serial] += 1;
        ready[serial].in_flight.begin(ThreadSlot(0));
        running.push_back(serial);
        if running.len() > at_once {
            ready[running.pop_front().unwrap()].in_flight.end(ThreadSlot(0));
        }
    }
    given.into_iter().map(|n| n as f64 / requests as f64).collect()
}

#[test]
fn the_share_of_a_new_worker_grows_with_its_age() {
    for at_once in [0, 20] {
        let share =
            |age| shares(&[(3600, 0), (3600, 0), (age, 0)], 20_000, at_once, &mut Health::default())[2];
        let grown: Vec<f64> = [0, 2, 4, 6, 8, 10].map(share).into();
        assert!(grown.is_sorted_by(|a, b| a < b), "{at_once} at once: {grown:?}");
        assert!((0.01..0.15).contains(&grown[0]), "{grown:?}");
        assert!((0.30..0.36).contains(&grown[5]), "{grown:?}");
    }
}

#[test]
fn workers_that_are_all_new_share_evenly() {
    for made in [&[(0, 0), (0, 0)][..], &[(5, 0), (5, 0), (5, 0)]] {
        for share in shares(made, 3_000, 8, &mut Health::default()) {
            assert!((share * made.len() as f64 - 1.0).abs() < 0.1, "{share} of {}", made.len());
        }
    }
    assert_eq!(shares(&[(0, 0)], 10, 3, &mut Health::default()), [1.0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the ages and the load: an ejected worker gets nothing, and every other one something.
    #[test]
    fn nobody_starves(
        ages in prop::collection::vec(0..20_u64, 1..9), at_once in 0..64_usize, out in prop::collection::vec(any::<bool>(), 9)
    ) {
        let made: Vec<_> = ages.iter().map(|age| (*age, 0)).collect();
        let mut out: Vec<u64> = (0..made.len() as u64).filter(|serial| out[*serial as usize]).collect();
        if out.len() == made.len() {
            out.pop();
        }
        let shares = shares(&made, 4_000, at_once, &mut ejected(&out));
        let fair = 1.0 / (made.len() - out.len()) as f64;
        for (serial, share) in shares.iter().enumerate() {
            if out.contains(&(serial as u64)) {
                prop_assert_eq!(*share, 0.0, "{} of {:?}", serial, shares);
            } else {
                prop_assert!(*share > fair * SHARE_MIN / 4.0, "{} of {:?}", serial, shares);
            }
        }
    }
}
