//! Who may start next: only so many workers start at the same moment, and those that traffic waits for go first.
//!
//! Every start waits for its [`Turn`] and holds it until the worker is ready, has ended, or does nothing any more.
//! Where there is more than one turn, one is kept for versions that carry traffic: a folder full of new versions must
//! not keep the place of a worker that has just died empty.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// How urgent a start is; the first goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// The version carries traffic.
    Traffic,
    /// It takes the place of a worker that served.
    Again,
    /// The version is new.
    New,
}

/// The turns of all services; clonable.
#[derive(Debug, Clone)]
pub(crate) struct Turns(Arc<Mutex<Line<oneshot::Sender<Turn>>>>);

/// The right to start one worker; the next one in line gets it when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn(Turns);

impl Turns {
    /// At most `max` starts at the same moment; from 1.
    pub(crate) fn new(max: usize) -> Self {
        Self(Arc::new(Mutex::new(Line { max: max.max(1), taken: 0, last: 0, waiting: BTreeMap::new() })))
    }

    /// Waits for a turn. Who stops waiting leaves the line.
    pub(crate) async fn take(&self, urgency: Urgency) -> Turn {
        let (sender, turn) = oneshot::channel();
        self.line().join(urgency, sender);
        self.hand_out();
        match turn.await {
            Ok(turn) => turn,
            // A sender is only dropped with its turn sent; were it otherwise, waiting on is the safe end.
            Err(_) => std::future::pending().await,
        }
    }

    /// Gives the free turns to those who wait.
    fn hand_out(&self) {
        loop {
            // The lock is let go first: a turn that nobody takes any more comes back at once.
            let Some(next) = self.line().next() else { return };
            let _ = next.send(Turn(self.clone()));
        }
    }

    fn line(&self) -> MutexGuard<'_, Line<oneshot::Sender<Turn>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.line().taken -= 1;
        self.0.hand_out();
    }
}

/// Those who wait, the most urgent first, then in the order in which they came.
#[derive(Debug)]
struct Line<T> {
    max: usize,
    taken: usize,
    last: u64,
    waiting: BTreeMap<(Urgency, u64), T>,
}

impl<T> Line<T> {
    fn join(&mut self, urgency: Urgency, who: T) {
        self.last += 1;
        self.waiting.insert((urgency, self.last), who);
    }

    /// The next one who has a turn from now on, if one is free for it.
    fn next(&mut self) -> Option<T> {
        let (urgency, _) = self.waiting.first_key_value()?.0;
        let kept = if *urgency == Urgency::Traffic { 0 } else { usize::from(self.max > 1) };
        if self.taken + kept >= self.max {
            return None;
        }
        self.taken += 1;
        self.waiting.pop_first().map(|(_, who)| who)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn urgency() -> impl Strategy<Value = Urgency> {
        prop_oneof![Just(Urgency::Traffic), Just(Urgency::Again), Just(Urgency::New)]
    }

    proptest! {
        /// Some come, some end; the bound holds, the urgent go first, and in the end everybody had a turn.
        #[test]
        fn never_more_than_there_are_and_the_urgent_first(
            max in 1_usize..6,
            steps in prop::collection::vec(prop::option::weighted(0.6, urgency()), 0..80),
        ) {
            let mut line = Line { max, taken: 0, last: 0, waiting: BTreeMap::new() };
            let (mut came, mut had) = (0, 0);
            for step in steps {
                match step {
                    Some(urgency) => {
                        line.join(urgency, urgency);
                        came += 1;
                    }
                    None => line.taken = line.taken.saturating_sub(1),
                }
                while let Some(next) = line.next() {
                    had += 1;
                    prop_assert!(line.taken <= max);
                    prop_assert!(next == Urgency::Traffic || max == 1 || line.taken < max, "one is kept");
                    prop_assert!(line.waiting.keys().all(|(urgency, _)| *urgency >= next));
                }
                let urgent = line.waiting.keys().any(|(urgency, _)| *urgency == Urgency::Traffic);
                prop_assert!(!urgent || line.taken == max, "nobody waits for nothing");
            }
            while line.taken > 0 || !line.waiting.is_empty() {
                line.taken = line.taken.saturating_sub(1);
                had += std::iter::from_fn(|| line.next()).count();
            }
            prop_assert_eq!(came, had);
        }
    }

    #[tokio::test]
    async fn a_turn_that_nobody_waits_for_any_more_goes_to_the_next() {
        let turns = Turns::new(1);
        let first = turns.take(Urgency::New).await;
        let mut gone = Box::pin(turns.take(Urgency::Traffic));
        let mut second = Box::pin(turns.take(Urgency::New));
        assert!(futures_util::poll!(&mut gone).is_pending() && futures_util::poll!(&mut second).is_pending());
        drop(gone);
        drop(first);
        drop(second.await);
        drop(turns.take(Urgency::Again).await);
        assert_eq!(turns.line().taken, 0);
    }
}
