//! What a thread remembers about the versions and workers that it sends requests to: which workers fail, how many
//! retries a version has left, and where its line is. Nothing of it is needed while all goes well and nothing
//! is limited.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::metrics::{ThreadSlot, VersionCounters};
use crate::proxy::balance::{self, Asking, Choice, Wanted};
use crate::proxy::budget::Budget;
use crate::proxy::health::Health;
use crate::proxy::queue::Gate;
use crate::proxy::thread::Thread;
use crate::registry::{Upstream, Version};
use crate::routing::Routing;

/// The address of a version's counters, which are the same object for as long as the version is known. Whatever
/// is found by it keeps them alive, so that no other version can have it meanwhile.
type Key = usize;

fn key(version: &Version) -> Key {
    Arc::as_ptr(&version.counters).addr()
}

/// The gates of all limited versions; shared by the threads.
#[derive(Debug, Default)]
pub(crate) struct Gates(Mutex<HashMap<Key, Weak<Gate>>>);

impl Gates {
    fn of(&self, version: &Version) -> Arc<Gate> {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get(&key(version)).and_then(Weak::upgrade) {
            return gate;
        }
        gates.retain(|_, gate| gate.strong_count() > 0);
        let gate = Arc::new(Gate::new(version.counters.clone()));
        gates.insert(key(version), Arc::downgrade(&gate));
        gate
    }
}

/// One thread's memory.
#[derive(Debug)]
pub(crate) struct Remembered {
    slot: ThreadSlot,
    pub(crate) health: Health,
    budgets: HashMap<Key, (Budget, Arc<VersionCounters>)>,
    all_gates: Arc<Gates>,
    /// Those that this thread has used, so that it does not ask for them each time.
    gates: HashMap<Key, Arc<Gate>>,
}

impl Remembered {
    pub(crate) fn new(slot: ThreadSlot, all_gates: Arc<Gates>) -> Self {
        Self { slot, health: Health::default(), budgets: HashMap::new(), all_gates, gates: HashMap::new() }
    }

    /// The line of a version that has a limit.
    pub(crate) fn gate(&mut self, version: &Version) -> Arc<Gate> {
        self.gates.entry(key(version)).or_insert_with(|| self.all_gates.of(version)).clone()
    }

    /// Takes one retry from a version's budget; false if there is none left.
    pub(crate) fn take_retry(&mut self, version: &Version) -> bool {
        let requests = version.counters.requests_on(self.slot);
        self.budget(version, requests).take(requests)
    }

    /// Begins the next second of every budget.
    pub(crate) fn next_second(&mut self) {
        for (budget, counters) in self.budgets.values_mut() {
            budget.next_second(counters.requests_on(self.slot));
        }
    }

    /// Forgets versions and workers that are gone, and has those that wait look at the workers that there are.
    pub(crate) fn sync(&mut self, routing: &Routing) {
        let versions = || routing.services.iter().flat_map(|service| service.registry.versions.values());
        let there: HashSet<Key> = versions().map(|version| key(version)).collect();
        self.budgets.retain(|key, _| there.contains(key));
        self.gates.retain(|key, _| there.contains(key));
        for version in versions() {
            let requests = version.counters.requests_on(self.slot);
            self.budget(version, requests);
        }
        self.health.keep(|serial| versions().any(|v| v.ready.iter().any(|u| u.serial == serial)));
        self.gates.values().for_each(|gate| gate.wake());
    }

    fn budget(&mut self, version: &Version, requests: u64) -> &mut Budget {
        let new = || (Budget::new(requests), version.counters.clone());
        &mut self.budgets.entry(key(version)).or_insert_with(new).0
    }
}

impl Thread {
    /// A version as it is at this moment; none if it is gone.
    pub(crate) fn version_now(&self, version: &Version) -> Option<Arc<Version>> {
        self.with_routing(|routing| {
            let service = routing.service(version.service.as_str())?;
            service.registry.versions.get(&version.id).cloned()
        })
    }

    /// Chooses a worker of `version` that `has_room`.
    pub(crate) fn choose<'a>(
        &self,
        version: &'a Version,
        request: &Asking,
        has_room: impl Fn(&Upstream) -> bool,
    ) -> Choice<'a> {
        let wanted = Wanted {
            ready: &version.ready,
            request,
            slow_start: version.delivery.slow_start,
            now: self.clock.instant(),
            tick: self.clock.now(),
        };
        balance::choose(&wanted, &mut self.remembered.borrow_mut().health, has_room)
    }

    /// A worker has begun to answer.
    pub(crate) fn worker_answered(&self, version: &Version, worker: &Upstream) {
        let health = &mut self.remembered.borrow_mut().health;
        if !health.all_well() && health.succeeded(worker.serial) {
            tracing::info!(
                service = %version.service,
                version = %version.id,
                worker = %worker.worker,
                thread = self.slot.0,
                "a worker that was left out answers again"
            );
        }
    }

    /// A worker has failed; `why` is said if that is the reason to leave it out.
    pub(crate) fn worker_failed(&self, version: &Version, worker: &Upstream, why: &str) {
        let health = &mut self.remembered.borrow_mut().health;
        let others = version.ready.iter().any(|u| u.serial != worker.serial && !health.is_ejected(u.serial));
        if let Some(time) = health.failed(worker.serial, others, self.clock.now()) {
            tracing::warn!(
                service = %version.service,
                version = %version.id,
                worker = %worker.worker,
                thread = self.slot.0,
                ?time,
                why,
                "a worker keeps failing and is left out; hint: switchman logs VERSION"
            );
        }
    }
}
