//! What a version goes through beside its life: hooks that run, its sleep, the load that its workers follow.

use std::sync::Arc;
use std::time::Instant;

use super::autoscale::Scaler;
use super::hooks::Hooks;
use super::lifecycle::{End, Event as LifeEvent, ProcessId};
use super::managed::Managed;
use super::memory::Mark;
use super::sleep::Use;
use super::{Key, Supervisor, lifecycle};
use crate::registry::Wake;
use crate::version::VersionState;

/// One version's.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    /// It sleeps or is being woken.
    pub(crate) wake: Option<Arc<Wake>>,
    pub(crate) used: Use,
    pub(crate) scaler: Scaler,
    pub(crate) hooks: Hooks,
    /// Why it is stopped, where retention has done that.
    pub(crate) retired: Option<String>,
    /// Its folder is being deleted.
    pub(crate) pruning: bool,
}

/// What of an event matters after it was taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Before {
    was_asleep: bool,
    /// A process has ended by itself, or was late.
    failed: bool,
}

impl Before {
    pub(crate) fn new(version: &Managed, event: &LifeEvent) -> Self {
        let failed = matches!(event, LifeEvent::Ended(_, End::ByItself(_)) | LifeEvent::Late(..));
        Self { was_asleep: version.life.is_asleep(), failed }
    }
}

impl Supervisor {
    /// What follows from an event for hooks and sleep; before it is published.
    pub(super) fn follow_up(&mut self, key: &Key, before: Before) {
        let Some(service) = self.services.get_mut(&key.service) else { return };
        let Some(version) = service.versions.get_mut(&key.version) else { return };
        let life = &version.life;
        if before.was_asleep != life.is_asleep() {
            service.memory.set(Mark::Asleep, &key.version, life.is_asleep());
        }
        let waking = life.state() == VersionState::Starting && !(before.failed && life.reason().is_some());
        if !life.is_asleep() && !waking {
            version.upkeep.wake = None;
        }
        if !life.is_wanted() {
            version.upkeep.hooks.give_up();
        }
        if life.state() == VersionState::Ready && self.ending.is_none() {
            self.after_ready(key);
        }
    }

    /// A second has passed: puts to sleep what nobody has asked for, and has the workers follow the load.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.ending.is_some() {
            return;
        }
        for key in self.keys() {
            let Some(service) = self.services.get_mut(&key.service) else { continue };
            let Some(version) = service.versions.get_mut(&key.version) else { continue };
            let scale = version.spec.scale;
            let idle = service.config.upkeep.idle_of(scale.as_ref());
            if idle.is_none() && scale.is_none() {
                continue;
            }
            if version.life.state() != VersionState::Ready || version.upkeep.hooks.any() {
                version.upkeep.used = Use::default();
                version.upkeep.scaler = Scaler::default();
                continue;
            }
            let load = version.load();
            let quiet = version.upkeep.used.quiet_for(load, now);
            if idle.is_some_and(|idle| quiet >= idle) {
                self.put_to_sleep(&key);
            } else if let Some(scale) = scale.filter(|_| version.scaled.is_none()) {
                let was = version.workers();
                let workers = version.upkeep.scaler.workers(&scale, was, load.in_flight, now);
                if workers != was {
                    tracing::info!(
                        service = %key.service, version = %key.version, was, workers, in_flight = load.in_flight,
                        "the number of workers follows the load"
                    );
                    version.followed = Some(workers);
                    self.step(&key, lifecycle::Event::Scale(workers));
                }
            }
        }
    }
}

impl Managed {
    /// How busy it is.
    pub(crate) fn load(&self) -> super::sleep::Load {
        let in_flight = |process: &ProcessId| {
            self.processes.get(process).and_then(|p| p.upstream.as_ref()).map_or(0, |u| u.in_flight.now())
        };
        super::sleep::Load {
            requests: self.counters.requests(),
            in_flight: self.processes.keys().map(in_flight).sum(),
        }
    }
}
