//! What the supervisor remembers over a restart of switchman, in small JSON files under `<state>/<service>/`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::version::{ServiceName, VersionId};

/// What is remembered of one service.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Versions that a person has stopped (`stopped.json`): they stay stopped.
    stopped: Remembered<BTreeSet<VersionId>>,
    /// When each folder became complete (`arrived.json`), with the folder's identity: `latest` must not move to
    /// another version because switchman was started again.
    arrived: Remembered<BTreeMap<VersionId, Arrival>>,
    /// How many workers a person asked for (`scaled.json`).
    scaled: Remembered<BTreeMap<VersionId, u32>>,
}

impl Memory {
    /// Reads what is remembered of a service.
    pub(crate) fn load(state: &Path, service: &ServiceName) -> Self {
        let folder = state.join(service.as_str());
        Self {
            stopped: Remembered::load(folder.join("stopped.json")),
            arrived: Remembered::load(folder.join("arrived.json")),
            scaled: Remembered::load(folder.join("scaled.json")),
        }
    }

    /// Whether a person stopped this version.
    pub(crate) fn is_stopped(&self, version: &VersionId) -> bool {
        self.stopped.value.contains(version)
    }

    /// Remembers a stop, or that it was taken back.
    pub(crate) fn set_stopped(&mut self, version: &VersionId, stopped: bool) {
        if stopped != self.is_stopped(version) {
            self.stopped.change(|versions| {
                if stopped {
                    versions.insert(version.clone())
                } else {
                    versions.remove(version)
                };
            });
        }
    }

    /// How many workers a person asked for, if one did.
    pub(crate) fn scaled(&self, version: &VersionId) -> Option<u32> {
        self.scaled.value.get(version).copied()
    }

    /// Remembers how many workers a person asked for.
    pub(crate) fn set_scaled(&mut self, version: &VersionId, workers: u32) {
        if self.scaled(version) != Some(workers) {
            self.scaled.change(|versions| {
                versions.insert(version.clone(), workers);
            });
        }
    }

    /// When the folder with this identity became complete: what is remembered, else `seen`, which is remembered now.
    pub(crate) fn arrived(
        &mut self,
        version: &VersionId,
        identity: (u64, u64),
        seen: Timestamp,
    ) -> Timestamp {
        match self.arrived.value.get(version) {
            Some(arrival) if arrival.identity == identity => arrival.at,
            _ => {
                self.arrived.change(|versions| {
                    versions.insert(version.clone(), Arrival { at: seen, identity });
                });
                seen
            }
        }
    }

    /// Forgets a version whose folder is gone.
    pub(crate) fn forget(&mut self, version: &VersionId) {
        self.set_stopped(version, false);
        if self.scaled(version).is_some() {
            self.scaled.change(|versions| {
                versions.remove(version);
            });
        }
        if self.arrived.value.contains_key(version) {
            self.arrived.change(|versions| {
                versions.remove(version);
            });
        }
    }
}

/// When a folder became complete.
#[derive(Debug, Serialize, Deserialize)]
struct Arrival {
    at: Timestamp,
    /// The folder, as [`crate::deploy::ChangeKind::Settled`] names it.
    identity: (u64, u64),
}

/// One value and the file that holds it.
#[derive(Debug)]
struct Remembered<T> {
    file: PathBuf,
    value: T,
}

impl<T: Default + Serialize + DeserializeOwned> Remembered<T> {
    /// A file that cannot be read is said and counts as empty: it must not keep switchman from serving.
    fn load(file: PathBuf) -> Self {
        let read = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
            Err(error) => Err(error),
        };
        let value = read.unwrap_or_else(|error| {
            tracing::error!(file = %file.display(), %error, "what was remembered cannot be read and is forgotten");
            T::default()
        });
        Self { file, value }
    }

    /// Changes the value and writes it. What cannot be written is said, and holds until switchman ends.
    fn change(&mut self, change: impl FnOnce(&mut T)) {
        change(&mut self.value);
        if let Err(error) = self.write() {
            tracing::error!(
                file = %self.file.display(), %error, "this cannot be written; it is remembered until switchman ends"
            );
        }
    }

    /// Writes beside the file and renames, so that a crash leaves the old or the new one.
    fn write(&self) -> io::Result<()> {
        let folder = self.file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer(&mut file, &self.value)?;
        file.flush()?;
        file.as_file().sync_all()?;
        file.persist(&self.file)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_remembered_until_it_is_taken_back() {
        let state = tempfile::tempdir().unwrap();
        let load = || Memory::load(state.path(), &ServiceName::from("app"));
        let version = VersionId::from("4f2a91c");
        load().set_stopped(&version, true);
        assert!(load().is_stopped(&version));
        assert!(!Memory::load(state.path(), &"other".into()).is_stopped(&version));
        load().set_stopped(&version, false);
        assert!(!load().is_stopped(&version));
        std::fs::write(state.path().join("app/stopped.json"), "{half").unwrap();
        assert!(!load().is_stopped(&version), "a damaged file counts as empty");
    }

    #[test]
    fn a_number_of_workers_is_remembered_for_as_long_as_the_version_is_known() {
        let state = tempfile::tempdir().unwrap();
        let load = || Memory::load(state.path(), &ServiceName::from("app"));
        let version = VersionId::from("4f2a91c");
        assert_eq!(load().scaled(&version), None);
        load().set_scaled(&version, 4);
        assert_eq!(load().scaled(&version), Some(4));
        load().forget(&version);
        assert_eq!(load().scaled(&version), None);
    }

    #[test]
    fn the_arrival_of_a_folder_is_remembered_and_another_folder_has_its_own() {
        let state = tempfile::tempdir().unwrap();
        let load = || Memory::load(state.path(), &ServiceName::from("app"));
        let version = VersionId::from("4f2a91c");
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(load().arrived(&version, (1, 1), at(10)), at(10));
        assert_eq!(load().arrived(&version, (1, 1), at(20)), at(10), "the same folder");
        assert_eq!(load().arrived(&version, (1, 2), at(30)), at(30), "another one");
        load().forget(&version);
        assert_eq!(load().arrived(&version, (1, 2), at(40)), at(40));
    }
}
