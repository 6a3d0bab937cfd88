//! What has happened, as people want to read it: the last events, and those that come.
//!
//! Nothing is decided by it. The supervisor writes down what it publishes and what its workers do, [`follow_rules`]
//! what changes in rules and aliases; the admin API shows it (`GET /events`, `switchman events`).

mod event;
mod rules;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

pub use event::{Event, What};
pub use rules::follow as follow_rules;

use crate::version::{ServiceName, VersionId};

/// Events that are kept.
const KEPT_MAX: usize = 2_000;
/// Events that a follower may lag behind before it has to ask for them again.
const FOLLOW_LAG: usize = 1_024;

/// The last events; clonable, cheap.
#[derive(Debug, Clone)]
pub struct Journal {
    kept: Arc<Mutex<Kept>>,
    followers: broadcast::Sender<Arc<Event>>,
    closed: CancellationToken,
}

#[derive(Debug, Default)]
struct Kept {
    last: u64,
    events: VecDeque<Arc<Event>>,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            kept: Arc::default(),
            followers: broadcast::Sender::new(FOLLOW_LAG),
            closed: CancellationToken::new(),
        }
    }
}

impl Journal {
    /// Writes down that something has happened, now.
    pub fn record(&self, service: &ServiceName, version: Option<&VersionId>, what: What) {
        let now = Timestamp::now();
        let mut kept = self.kept();
        // The time in microseconds, so that numbers go up over restarts too.
        let id = u64::try_from(now.as_microsecond()).unwrap_or(0).max(kept.last + 1);
        kept.last = id;
        let event =
            Arc::new(Event { id, at: now, service: service.clone(), version: version.cloned(), what });
        kept.events.push_back(event.clone());
        if kept.events.len() > KEPT_MAX {
            kept.events.pop_front();
        }
        // Still under the lock: who follows sees them in their order. Nobody follows: fine.
        let _ = self.followers.send(event);
    }

    /// The events that are kept with a number after `id`, oldest first; and every one that comes after those.
    pub fn after(&self, id: u64) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let kept = self.kept();
        let begin = kept.events.partition_point(|event| event.id <= id);
        (kept.events.range(begin..).cloned().collect(), self.followers.subscribe())
    }

    /// Nothing happens any more: who follows is told the end.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Ends when nothing happens any more.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::VersionState;

    #[test]
    fn the_last_events_are_kept_and_numbers_only_go_up() {
        let journal = Journal::default();
        let (none, mut follower) = journal.after(0);
        assert_eq!(none, []);
        let what = || What::State { state: VersionState::Ready, reason: None };
        for _ in 0..KEPT_MAX + 10 {
            journal.record(&"app".into(), Some(&"4f2a91c".into()), what());
        }
        let (all, mut later) = journal.after(0);
        assert_eq!(all.len(), KEPT_MAX);
        assert!(all.is_sorted_by(|a, b| a.id < b.id));
        assert_eq!(journal.after(all[KEPT_MAX - 3].id).0, all[KEPT_MAX - 2..]);
        assert_eq!(journal.after(u64::MAX).0, []);
        journal.record(&"app".into(), None, what());
        assert!(later.try_recv().unwrap().id > all[KEPT_MAX - 1].id);
        assert!(
            matches!(follower.try_recv(), Err(broadcast::error::TryRecvError::Lagged(_))),
            "who is too slow is told so"
        );
    }
}
