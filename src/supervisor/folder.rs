//! What follows from a change of a deploy root.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::managed::{Folder, Managed};
use super::memory::Mark;
use super::{Key, Supervisor, lifecycle};
use crate::config;
use crate::deploy::{ChangeKind, VersionChange};
use crate::version::{ServiceName, VersionId};

impl Supervisor {
    pub(super) fn folder_changed(&mut self, change: VersionChange) {
        let VersionChange { service, kind } = change;
        match kind {
            ChangeKind::Arriving { version, path } => {
                let key = Key { service, version };
                match self.version(&key) {
                    // A new folder, which is not complete yet.
                    Some(version) if version.life.is_retiring() => version.identity = None,
                    Some(_) => {}
                    None => self.add(&key, &path),
                }
                self.folder_waits(&key, None);
                self.step(&key, lifecycle::Event::Arrive);
            }
            ChangeKind::Settled { version, path, identity } => {
                self.settled(&Key { service, version }, &path, identity);
            }
            ChangeKind::Waits { version, why } => self.folder_waits(&Key { service, version }, why),
            ChangeKind::Broken { version, path, why } => {
                self.folder_is_broken(&Key { service, version }, &path, why);
            }
            ChangeKind::Modified { version, modification } => {
                self.files_modified(&Key { service, version }, modification);
            }
            ChangeKind::RestartAsked { version, why } => self.restart_asked(&Key { service, version }, &why),
            ChangeKind::Gone { version } => self.gone(&Key { service, version }),
            ChangeKind::Ignored(ignored) => {
                self.registry.update(|services| services.entry(service).or_default().ignored = ignored);
            }
            ChangeKind::Root(problem) => {
                if let Some(problem) = &problem {
                    tracing::error!(%service, "{problem}");
                }
                self.registry.update(|services| services.entry(service).or_default().problem = problem);
            }
        }
    }

    pub(super) fn add(&mut self, key: &Key, path: &Path) {
        let threads = self.settings.threads;
        let Some(service) = self.services.get_mut(&key.service) else {
            tracing::error!(service = %key.service, "a version of a service that is not configured is ignored");
            return;
        };
        let (name, version): (ServiceName, VersionId) = (key.service.clone(), key.version.clone());
        let spec = Arc::new(service.config.run.clone());
        let delivery = service.config.delivery.clone();
        let mut managed = Managed::new(name, version.clone(), path.to_owned(), spec, delivery, threads);
        managed.scaled = service.memory.scaled(&version);
        managed.life.number_after(self.succession.last.get(key).copied().unwrap_or(0));
        service.versions.insert(version, managed);
    }

    fn settled(&mut self, key: &Key, path: &Path, identity: (u64, u64)) {
        if self.version(key).is_none() {
            self.add(key, path);
        }
        let carries_traffic = self.carries_traffic(key);
        let Some(service) = self.services.get_mut(&key.service) else { return };
        let Some(version) = service.versions.get_mut(&key.version) else { return };
        let before = version.identity.replace(identity);
        if before != Some(identity) {
            version.upkeep.hooks.give_up();
            version.upkeep.pruning = false;
        }
        if !service.memory.knows(&key.version, identity) {
            service.memory.is_another(&key.version);
        }
        let stopped = service.memory.is(Mark::Stopped, &key.version);
        version.arrived = service.memory.arrived(&key.version, identity, changed(path));
        version.path = path.to_owned();
        version.folder = Folder::There;
        let (wanted, asleep) = (version.life.is_wanted(), version.life.is_asleep());
        version.files.settled();
        if stopped {
            self.show_retired(key);
            self.step(key, lifecycle::Event::Stop);
        } else if asleep && before == Some(identity) {
            self.publish(key);
        } else if self.is_beyond(key) {
            self.retire_by_age(key);
        } else if self.sleeps_on(key) {
            self.put_to_sleep(key);
        } else if !wanted {
            self.start(key);
        } else if before.is_some_and(|before| before != identity) {
            if carries_traffic {
                if let Some(version) = self.version(key) {
                    version.folder = Folder::Replaced;
                }
                tracing::warn!(service = %key.service, version = %key.version, "its folder was replaced while it carries traffic");
                self.publish(key);
            } else if let Err(problem) = self.restart(key) {
                self.step(key, lifecycle::Event::Unrunnable(problem));
            }
        } else {
            self.publish(key);
        }
    }

    fn gone(&mut self, key: &Key) {
        let carries_traffic = self.carries_traffic(key);
        let Some(version) = self.version(key) else { return };
        if carries_traffic && version.life.ready().next().is_some() {
            version.folder = Folder::Gone;
            tracing::error!(
                service = %key.service, version = %key.version, path = %version.path.display(),
                "the folder of a version that carries traffic is gone; it goes on serving"
            );
            self.publish(key);
        } else {
            self.retire(key);
        }
    }

    /// Retires the versions whose folder went away while they carried traffic, and that carry none any more.
    pub(super) fn retire_what_lost_its_folder(&mut self) {
        for key in self.keys() {
            let lost = self.version(&key).is_some_and(|v| v.folder == Folder::Gone);
            // What routing has not seen yet may well carry traffic: at the start.
            if lost && self.is_routed(&key) && !self.carries_traffic(&key) {
                self.retire(&key);
            }
        }
    }

    fn retire(&mut self, key: &Key) {
        if let Some(service) = self.services.get_mut(&key.service) {
            service.memory.forget(&key.version);
        }
        self.step(key, lifecycle::Event::Retire);
    }

    /// Starts a version; one that cannot be run at all fails with the reason.
    pub(super) fn start(&mut self, key: &Key) {
        let Some(version) = self.version(key) else { return };
        let runs = version.life.is_wanted() && !version.life.is_preparing();
        if !runs {
            version.followed = None;
        }
        version.files.started(SystemTime::now());
        match self.read_spec(key) {
            Ok(workers) if runs || !self.prepare_first(key) => {
                self.step(key, lifecycle::Event::Start { workers });
            }
            Ok(_) => {}
            Err(why) => self.step(key, lifecycle::Event::Unrunnable(why)),
        }
    }

    /// Replaces the workers of a version one at a time; if its settings are wrong nothing happens.
    pub(super) fn restart(&mut self, key: &Key) -> Result<(), String> {
        let workers = self.read_spec(key)?;
        if let Some(version) = self.version(key) {
            version.files.started(SystemTime::now());
            if version.folder == Folder::Replaced {
                version.folder = Folder::There;
            }
        }
        if !self.prepare_first(key) {
            self.step(key, lifecycle::Event::Restart { workers });
        }
        Ok(())
    }

    /// Reads how the version is run now; answers with the number of its workers, or why it cannot be run.
    pub(super) fn read_spec(&mut self, key: &Key) -> Result<u32, String> {
        let Some(service) = self.services.get_mut(&key.service) else {
            return Err("no such service".to_owned());
        };
        let Some(version) = service.versions.get_mut(&key.version) else {
            return Err("no such version".to_owned());
        };
        let spec = config::folder::read(&version.path, &service.config.run)
            .map_err(|problems| problems.to_string())?;
        version.followed = spec.scale.and(version.followed);
        version.life.set_order(spec.life.restart);
        version.spec = Arc::new(spec);
        Ok(version.workers())
    }
}

/// The last change of a folder itself. For one that is seen for the first time that is when it became complete, also if
/// it was there before switchman started; later its workers may change it.
fn changed(path: &Path) -> jiff::Timestamp {
    use std::os::unix::fs::MetadataExt;
    let now = jiff::Timestamp::now();
    let changed = std::fs::metadata(path)
        .ok()
        .and_then(|m| jiff::Timestamp::new(m.ctime(), i32::try_from(m.ctime_nsec()).unwrap_or(0)).ok());
    changed.map_or(now, |changed| changed.min(now))
}
