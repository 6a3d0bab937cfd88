//! Sleep and wake: a version that nobody asks for has no process, and the next request starts it.
//!
//! ```text
//! ready --nobody for `idle`--> put to sleep: drain, stop --> asleep --a request rings, promote, start--> starting
//! ```
//!
//! While it sleeps it has a [`Wake`] in the registry: that is how the data plane knows, and how it rings. It keeps it
//! until it is ready or has failed, so that requests wait as long as there is something to wait for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::memory::Mark;
use super::{Key, Supervisor, lifecycle};
use crate::registry::Wake;
use crate::version::{CURRENT, VersionId};

/// How busy a version is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Requests ended since the start.
    pub(crate) requests: u64,
    /// Requests and streams that run.
    pub(crate) in_flight: u64,
}

/// When a version was used last.
#[derive(Debug, Default)]
pub(crate) struct Use(Option<(u64, Instant)>);

impl Use {
    /// Notes the load at `now`; answers how long nobody has asked for the version. It begins with the first look.
    pub(crate) fn quiet_for(&mut self, load: Load, now: Instant) -> Duration {
        match self.0 {
            Some((requests, since)) if requests == load.requests && load.in_flight == 0 => {
                now.saturating_duration_since(since)
            }
            _ => {
                self.0 = Some((load.requests, now));
                Duration::ZERO
            }
        }
    }
}

impl Supervisor {
    /// Has a version sleep until somebody asks for it.
    pub(super) fn put_to_sleep(&mut self, key: &Key) {
        let bell = self.bell.clone();
        let Some(service) = self.services.get_mut(&key.service) else { return };
        let Some(version) = service.versions.get_mut(&key.version) else { return };
        let who = (key.service.clone(), key.version.clone());
        version.upkeep.wake = Some(Arc::new(Wake::new(who, service.config.upkeep.wake, bell)));
        self.step(key, lifecycle::Event::Sleep);
    }

    /// Whether a version is to sleep on: it slept when switchman ended, and its folder is the same.
    pub(super) fn sleeps_on(&mut self, key: &Key) -> bool {
        let slept = self.services.get(&key.service).is_some_and(|s| s.memory.is(Mark::Asleep, &key.version));
        // What cannot be read is started, and says so.
        if !slept || self.read_spec(key).is_err() {
            return false;
        }
        let Some(service) = self.services.get(&key.service) else { return false };
        let scale = service.versions.get(&key.version).and_then(|version| version.spec.scale);
        // Without `idle` in the configuration any more, nothing sleeps.
        service.config.upkeep.idle_of(scale.as_ref()).is_some()
    }

    /// Starts a version that sleeps.
    pub(super) fn wake(&mut self, key: &Key) {
        let Some(version) = self.version(key).filter(|version| version.life.is_asleep()) else { return };
        tracing::info!(service = %version.service, version = %version.version, "waking: somebody asks for it");
        version.followed = None;
        match self.read_spec(key) {
            Err(why) => self.step(key, lifecycle::Event::Unrunnable(why)),
            Ok(workers) if !self.prepare_first(key) => self.step(key, lifecycle::Event::Wake { workers }),
            Ok(_) => {}
        }
    }

    /// Wakes a version that has become `current`, on this node or another: its first request need not wait.
    pub(super) fn wake_promoted(&mut self) {
        let live = self.live.load();
        let mut promoted = Vec::new();
        for (name, service) in &mut self.services {
            let Some(routing) = live.service(name.as_str()) else { continue };
            let current: Option<VersionId> =
                routing.rules.aliases.get(CURRENT).map(|version| VersionId::from(version.as_str()));
            // What was current when switchman started may sleep on.
            let before = service.current.replace(current.clone());
            if before.is_some_and(|before| before != current)
                && let Ok(version) = routing.current()
            {
                promoted.push(Key { service: name.clone(), version: version.id.clone() });
            }
        }
        for key in promoted {
            self.wake(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_quiet_since_its_last_request_or_stream() {
        let begun = Instant::now();
        let mut used = Use::default();
        for (second, requests, in_flight, quiet) in [
            (0, 5, 0, 0),
            (10, 5, 0, 10),
            (20, 6, 0, 0),
            (25, 6, 0, 5),
            // A stream is open.
            (30, 6, 1, 0),
            (90, 6, 1, 0),
            (95, 6, 0, 5),
            (96, 7, 1, 0),
        ] {
            let now = begun + Duration::from_secs(second);
            let found = used.quiet_for(Load { requests, in_flight }, now);
            assert_eq!(found, Duration::from_secs(quiet), "at second {second}");
        }
    }
}
