//! Which of a version's workers gets a request.
//!
//! ```text
//! an ejected worker whose time is over      gets one request as a trial        (health)
//! of those that are not ejected and have room: two, one of them by turn, the other at random
//!     one of the two is younger              it is left out by a chance that shrinks with its age (slow start)
//!     else                                   the one with fewer requests in flight; of equals the one whose turn it is
//! none of them is left                      those that are ejected, or closed an idle connection, are better than none
//! ```
//!
//! Pure functions of values and `now`. Two choices spread load nearly as well as looking at all workers, and many
//! threads that look at the same numbers do not all run to the same worker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::proxy::health::Health;
use crate::registry::Upstream;

/// The share of a worker that has only just become ready, of what it will have.
const SHARE_MIN: f64 = 0.1;

/// What of a request matters to the choice.
#[derive(Debug)]
pub(crate) struct Asking {
    /// It can be sent again if its worker fails.
    pub(crate) repeatable: bool,
    /// Any number that goes up by one from one request to the next.
    turn: u64,
    /// Rare, so boxed.
    tried: Option<Box<Tried>>,
}

/// The workers that a request was sent to in vain, by [`Upstream::serial`].
#[derive(Debug, Default)]
struct Tried {
    /// Failed: never asked a second time.
    failed: Vec<u64>,
    /// Closed an idle connection, as it may at any time: asked on a new one if there is no other.
    stale: Option<u64>,
}

impl Asking {
    pub(crate) fn new(repeatable: bool, turn: u64) -> Self {
        Self { repeatable, turn, tried: None }
    }

    /// A worker has failed this request.
    pub(crate) fn failed(&mut self, serial: u64) {
        self.tried.get_or_insert_default().failed.push(serial);
    }

    /// A worker has closed an idle connection that this request was sent on.
    pub(crate) fn stale(&mut self, serial: u64) {
        self.tried.get_or_insert_default().stale = Some(serial);
    }

    /// Whether an idle connection turned out to be dead.
    pub(crate) fn met_stale(&self) -> bool {
        self.tried.as_ref().is_some_and(|tried| tried.stale.is_some())
    }

    fn may_ask(&self, serial: u64) -> bool {
        self.tried.as_ref().is_none_or(|tried| !tried.failed.contains(&serial))
    }

    fn likes(&self, serial: u64) -> bool {
        self.may_ask(serial) && self.tried.as_ref().is_none_or(|tried| tried.stale != Some(serial))
    }
}

/// A request for which a worker is wanted, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a, 'r> {
    pub(crate) ready: &'a [Arc<Upstream>],
    pub(crate) request: &'r Asking,
    pub(crate) slow_start: Duration,
    /// This moment, about; and in ticks of the thread's clock.
    pub(crate) now: Instant,
    pub(crate) tick: u64,
}

/// What was chosen.
#[derive(Debug)]
pub(crate) enum Choice<'a> {
    Worker(&'a Arc<Upstream>),
    /// Workers are left, and none of them has room.
    Busy,
    /// No worker is left.
    Nobody,
}

/// Chooses a worker that `has_room`.
pub(crate) fn choose<'a>(
    wanted: &Wanted<'a, '_>,
    health: &mut Health,
    has_room: impl Fn(&Upstream) -> bool,
) -> Choice<'a> {
    let Wanted { ready, request, .. } = *wanted;
    let left = |upstream: &Upstream| request.may_ask(upstream.serial);
    let all_well = health.all_well();
    if !all_well {
        let mut trial = |u: &Upstream| health.begin_trial(u.serial, request.repeatable, wanted.tick);
        if let Some(worker) = ready.iter().find(|u| left(u) && has_room(u) && trial(u)) {
            return Choice::Worker(worker);
        }
    }
    let good = |upstream: &Upstream| {
        request.likes(upstream.serial) && (all_well || !health.is_ejected(upstream.serial))
    };
    for usable in [&good as &dyn Fn(&Upstream) -> bool, &left] {
        if let Some(worker) = pick(wanted, |upstream| usable(upstream) && has_room(upstream)) {
            return Choice::Worker(worker);
        }
        if ready.iter().any(|upstream| usable(upstream)) {
            return Choice::Busy;
        }
    }
    Choice::Nobody
}

/// The better one of two that are `usable`.
fn pick<'a>(wanted: &Wanted<'a, '_>, usable: impl Fn(&Upstream) -> bool) -> Option<&'a Arc<Upstream>> {
    let all = || wanted.ready.iter().filter(|upstream| usable(upstream));
    let count = all().count() as u64;
    if count < 2 {
        return all().next();
    }
    let random = mix(wanted.request.turn);
    let first = wanted.request.turn % count;
    let second = (first + 1 + random % (count - 1)) % count;
    let (a, b) = (all().nth(first as usize)?, all().nth(second as usize)?);
    // In how many of all cases the younger one takes part.
    let (old_a, old_b) = (maturity(a, wanted), maturity(b, wanted));
    let takes_part = |younger: f64, older: f64| chance(random) * older < younger;
    Some(if old_a < old_b && !takes_part(old_a, old_b) {
        b
    } else if old_b < old_a && !takes_part(old_b, old_a) {
        a
    } else if b.in_flight.now() < a.in_flight.now() {
        b
    } else {
        a
    })
}

/// How much of its full share a worker gets by its age: from [`SHARE_MIN`] to 1.
fn maturity(upstream: &Upstream, wanted: &Wanted<'_, '_>) -> f64 {
    let age = wanted.now.saturating_duration_since(upstream.since);
    if age >= wanted.slow_start {
        return 1.0;
    }
    (age.as_secs_f64() / wanted.slow_start.as_secs_f64()).max(SHARE_MIN)
}

/// A number from 0 to 1, less than 1, of the upper bits of a random one.
fn chance(random: u64) -> f64 {
    (random >> 40) as f64 / (1_u64 << 24) as f64
}

/// SplitMix64: consecutive numbers to random ones.
fn mix(turn: u64) -> u64 {
    let mut z = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
