//! Retention: of each service the newest `keep` versions run; older ones that nobody uses are stopped, and with
//! `prune: disk` their folders deleted.
//!
//! [`decide`] says which, [`prune`] deletes. Nothing is done while the rules may not be what they were (their source is
//! away): then nobody knows what is in use. A version that a person starts although it is beyond `keep` is left
//! alone until a person stops it.

mod decide;
mod prune;

use std::time::Duration;

use super::managed::{Folder, Managed};
use super::memory::Mark;
use super::{Event, Key, Supervisor, lifecycle};
use crate::version::{ServiceName, VersionState};
use decide::{Candidate, Verdict};

/// How long after a folder could not be deleted it is tried again, at least.
const TRY_AGAIN: Duration = Duration::from_secs(5);

impl Supervisor {
    /// Stops what is beyond `keep`, of every service.
    pub(super) fn retain_all(&mut self) {
        let limited = self.services.iter().filter(|(_, service)| service.config.upkeep.keep.is_some());
        let names: Vec<ServiceName> = limited.map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.retain(name));
    }

    /// Stops what is beyond `keep`, of one service, and deletes what may be deleted.
    pub(super) fn retain(&mut self, name: &ServiceName) {
        let Some((verdict, keep)) = self.beyond(name) else { return };
        let key = |version| Key { service: name.clone(), version };
        for key in verdict.stop.into_iter().map(key) {
            tracing::info!(
                service = %name, version = %key.version, keep, "stopping: newer versions are kept; hint: switchman start"
            );
            self.retire_by_age(&key);
        }
        let prune = self.services.get(name).is_some_and(|service| service.config.upkeep.prune);
        for key in verdict.beyond.into_iter().map(key).filter(|_| prune) {
            self.prune(key);
        }
    }

    /// What is beyond `keep` now; none where nothing can be said about it.
    fn beyond(&self, name: &ServiceName) -> Option<(Verdict, usize)> {
        if self.ending.is_some() {
            return None;
        }
        let service = self.services.get(name)?;
        let keep = service.config.upkeep.keep.filter(|keep| *keep < service.versions.len())?;
        let live = self.live.load();
        let routing = live.service(name.as_str()).filter(|routing| routing.rules.stale_since.is_none())?;
        let candidate = |version: &Managed| {
            let id = &version.version;
            let state = version.life.state();
            let there = version.identity.is_some() && version.folder == Folder::There;
            let at_rest = matches!(state, VersionState::Stopped | VersionState::Failed)
                && version.life.is_empty()
                && !version.upkeep.hooks.any();
            Candidate {
                version: id.clone(),
                arrived: version.arrived,
                in_use: decide::is_named(id, &routing.rules) || routing.carries_traffic(id),
                held: service.memory.is(Mark::Held, id),
                // One that has just become complete is about to be started.
                alive: version.life.is_wanted()
                    || version.life.is_asleep()
                    || state == VersionState::Arriving,
                at_rest: there && at_rest,
            }
        };
        let complete = service.versions.values().filter(|v| v.identity.is_some() && !v.life.is_retiring());
        Some((decide::decide(complete.map(candidate).collect(), keep), keep))
    }

    /// Whether a version that has just arrived is not to be started at all.
    pub(super) fn is_beyond(&self, key: &Key) -> bool {
        self.beyond(&key.service).is_some_and(|(verdict, _)| {
            verdict.stop.contains(&key.version) || verdict.beyond.contains(&key.version)
        })
    }

    /// Stops a version because newer ones are kept.
    pub(super) fn retire_by_age(&mut self, key: &Key) {
        let Some(service) = self.services.get_mut(&key.service) else { return };
        service.memory.set(Mark::Stopped, &key.version, true);
        service.memory.set(Mark::Retired, &key.version, true);
        self.show_retired(key);
        self.before_stop(key);
        self.step(key, lifecycle::Event::Stop);
    }

    /// Says why a version is stopped that nobody has stopped.
    pub(super) fn show_retired(&mut self, key: &Key) {
        let Some(service) = self.services.get_mut(&key.service) else { return };
        let is_so = service.memory.is(Mark::Retired, &key.version);
        let Some(version) = service.versions.get_mut(&key.version) else { return };
        version.upkeep.retired = is_so.then(|| {
            format!(
                "newer versions are kept (`keep`), and nothing uses it; hint: switchman start {}",
                key.version
            )
        });
    }

    /// A person starts or stops a version: what retention has done or would do counts no more, or again.
    pub(super) fn a_person_wants(&mut self, key: &Key, run: bool) {
        let Some(service) = self.services.get_mut(&key.service) else { return };
        let retired = service.memory.is(Mark::Retired, &key.version);
        let memory = &mut service.memory;
        memory.set(Mark::Stopped, &key.version, !run);
        memory.set(Mark::Retired, &key.version, false);
        if retired || !run {
            memory.set(Mark::Held, &key.version, run);
        }
        self.show_retired(key);
    }

    /// Deletes the folder of a version that is at rest.
    fn prune(&mut self, key: Key) {
        let events = self.events.clone();
        let Some(service) = self.services.get_mut(&key.service) else { return };
        let Some(version) = service.versions.get_mut(&key.version) else { return };
        let Some(identity) = version.identity else { return };
        if std::mem::replace(&mut version.upkeep.pruning, true) {
            return;
        }
        let (root, quiet) = (service.config.root.clone(), service.config.settle);
        let name = key.version.clone();
        tokio::spawn(async move {
            let deleting =
                tokio::task::spawn_blocking(move || prune::delete(&root, name.as_str(), identity, quiet));
            match deleting.await {
                // The watcher will see that it is gone.
                Ok(Ok(())) => {
                    tracing::info!(service = %key.service, version = %key.version, "its folder was deleted: `prune: disk`");
                }
                Ok(Err(error)) => {
                    tracing::warn!(service = %key.service, version = %key.version, %error, "its folder was not deleted");
                    tokio::time::sleep(TRY_AGAIN + quiet).await;
                    // The supervisor may have ended.
                    let _ = events.send(Event::Prune(key)).await;
                }
                // The runtime is shutting down.
                Err(_) => {}
            }
        });
    }

    /// A folder could not be deleted a while ago.
    pub(super) fn prune_again(&mut self, key: &Key) {
        if let Some(version) = self.version(key) {
            version.upkeep.pruning = false;
        }
        self.retain(&key.service);
    }

    /// Deletes what a switchman that was killed has left half deleted.
    pub(super) fn finish_pruning(&self) {
        for service in self.services.values().filter(|service| service.config.upkeep.prune) {
            let root = service.config.root.clone();
            tokio::task::spawn_blocking(move || {
                if let Err(error) = prune::finish(&root) {
                    tracing::warn!(%error, "what is left of a deleted version cannot be deleted");
                }
            });
        }
    }
}
