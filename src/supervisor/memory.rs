//! What the supervisor remembers over a restart of switchman, in small JSON files under `<state>/<service>/`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::version::{ServiceName, VersionId};

/// Device and inode of a folder, as [`crate::deploy::ChangeKind::Settled`] names it.
type Identity = (u64, u64);

/// What a version can be, for longer than switchman runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A person or retention has stopped it (`stopped.json`): it stays stopped.
    Stopped,
    /// Of those, what retention has stopped (`retired.json`).
    Retired,
    /// A person has started it (`held.json`): retention leaves it alone.
    Held,
    /// It sleeps (`asleep.json`).
    Asleep,
}

impl Mark {
    const ALL: [Self; 4] = [Self::Stopped, Self::Retired, Self::Held, Self::Asleep];

    fn file(self) -> &'static str {
        match self {
            Self::Stopped => "stopped.json",
            Self::Retired => "retired.json",
            Self::Held => "held.json",
            Self::Asleep => "asleep.json",
        }
    }
}

/// Which hooks were run for a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ran {
    /// How `before_start` went.
    pub(crate) before_start: Option<Result<(), String>>,
    /// Whether `after_ready` was run, well or not.
    pub(crate) after_ready: bool,
}

/// What is remembered of one service.
#[derive(Debug)]
pub(crate) struct Memory {
    /// One set of versions a mark.
    marks: [Remembered<BTreeSet<VersionId>>; Mark::ALL.len()],
    /// Which hooks were run for each version (`hooks.json`).
    hooks: Remembered<BTreeMap<VersionId, (Identity, Ran)>>,
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
            marks: Mark::ALL.map(|mark| Remembered::load(folder.join(mark.file()))),
            hooks: Remembered::load(folder.join("hooks.json")),
            arrived: Remembered::load(folder.join("arrived.json")),
            scaled: Remembered::load(folder.join("scaled.json")),
        }
    }

    /// Whether a version has this mark.
    pub(crate) fn is(&self, mark: Mark, version: &VersionId) -> bool {
        self.marks[mark as usize].value.contains(version)
    }

    /// Remembers that a version has this mark, or has it no more.
    pub(crate) fn set(&mut self, mark: Mark, version: &VersionId, is_so: bool) {
        if is_so != self.is(mark, version) {
            self.marks[mark as usize].change(|versions| {
                if is_so {
                    versions.insert(version.clone())
                } else {
                    versions.remove(version)
                };
            });
        }
    }

    /// Which hooks were run for the folder with this identity.
    pub(crate) fn ran(&self, version: &VersionId, folder: Option<Identity>) -> Ran {
        let ran = self.hooks.value.get(version).filter(|(identity, _)| Some(*identity) == folder);
        ran.map(|(_, ran)| ran.clone()).unwrap_or_default()
    }

    /// Remembers what has become of the hooks for the folder with this identity.
    pub(crate) fn set_ran(
        &mut self,
        version: &VersionId,
        folder: Option<Identity>,
        set: impl FnOnce(&mut Ran),
    ) {
        let Some(identity) = folder else { return };
        let mut ran = self.ran(version, folder);
        set(&mut ran);
        self.hooks.change(|hooks| {
            hooks.insert(version.clone(), (identity, ran));
        });
    }

    /// Whether the folder with this identity is known already.
    pub(crate) fn knows(&self, version: &VersionId, identity: Identity) -> bool {
        self.arrived.value.get(version).is_some_and(|arrival| arrival.identity == identity)
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

    /// Forgets how many workers a person asked for.
    pub(crate) fn forget_scaled(&mut self, version: &VersionId) {
        if self.scaled(version).is_some() {
            self.scaled.change(|versions| {
                versions.remove(version);
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

    /// Another folder has the version's name: what retention has said of the old one, and its sleep, is not for this one.
    pub(crate) fn is_another(&mut self, version: &VersionId) {
        if self.is(Mark::Retired, version) {
            self.set(Mark::Stopped, version, false);
        }
        self.set(Mark::Retired, version, false);
        self.set(Mark::Asleep, version, false);
    }

    /// Forgets a version whose folder is gone.
    pub(crate) fn forget(&mut self, version: &VersionId) {
        for mark in Mark::ALL {
            self.set(mark, version, false);
        }
        self.forget_scaled(version);
        if self.hooks.value.contains_key(version) {
            self.hooks.change(|hooks| {
                hooks.remove(version);
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
        load().set(Mark::Stopped, &version, true);
        assert!(load().is(Mark::Stopped, &version));
        assert!(!load().is(Mark::Asleep, &version), "each mark has its own");
        assert!(!Memory::load(state.path(), &"other".into()).is(Mark::Stopped, &version));
        load().set(Mark::Stopped, &version, false);
        assert!(!load().is(Mark::Stopped, &version));
        std::fs::write(state.path().join("app/stopped.json"), "{half").unwrap();
        assert!(!load().is(Mark::Stopped, &version), "a damaged file counts as empty");
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

    #[test]
    fn hooks_that_were_run_for_a_folder_were_not_run_for_another() {
        let state = tempfile::tempdir().unwrap();
        let load = || Memory::load(state.path(), &ServiceName::from("app"));
        let version = VersionId::from("4f2a91c");
        load().set_ran(&version, Some((1, 1)), |ran| ran.before_start = Some(Err("no database".to_owned())));
        load().set_ran(&version, Some((1, 1)), |ran| ran.after_ready = true);
        let ran = Ran { before_start: Some(Err("no database".to_owned())), after_ready: true };
        assert_eq!(load().ran(&version, Some((1, 1))), ran);
        assert_eq!(load().ran(&version, Some((1, 2))), Ran::default());
        load().forget(&version);
        assert_eq!(load().ran(&version, Some((1, 1))), Ran::default());
    }
}
