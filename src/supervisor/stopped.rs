//! Which versions a person has stopped: remembered over a restart of switchman, in `<state>/<service>/stopped.json`.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::version::{ServiceName, VersionId};

/// The stopped versions of one service.
#[derive(Debug)]
pub(crate) struct Stopped {
    file: PathBuf,
    versions: BTreeSet<VersionId>,
}

impl Stopped {
    /// Reads what was remembered. A file that cannot be read is said and counts as empty: better a version too many
    /// runs than none.
    pub(crate) fn load(state: &Path, service: &ServiceName) -> Self {
        let file = state.join(service.as_str()).join("stopped.json");
        let versions = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::error!(file = %file.display(), %error, "the list of stopped versions is damaged; all are started");
                BTreeSet::new()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => {
                tracing::error!(file = %file.display(), %error, "the list of stopped versions cannot be read");
                BTreeSet::new()
            }
        };
        Self { file, versions }
    }

    /// Whether a person stopped this version.
    pub(crate) fn contains(&self, version: &VersionId) -> bool {
        self.versions.contains(version)
    }

    /// Remembers or forgets a stop. What cannot be written is said, and holds until switchman ends.
    pub(crate) fn set(&mut self, version: &VersionId, stopped: bool) {
        let changed =
            if stopped { self.versions.insert(version.clone()) } else { self.versions.remove(version) };
        if changed && let Err(error) = self.write() {
            tracing::error!(
                file = %self.file.display(), %error,
                "the list of stopped versions cannot be written; it is forgotten when switchman ends"
            );
        }
    }

    /// Writes beside the file and renames, so that a crash leaves the old or the new one.
    fn write(&self) -> io::Result<()> {
        let folder = self.file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer(&mut file, &self.versions)?;
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
        let (app, version) = (ServiceName::from("app"), VersionId::from("4f2a91c"));
        Stopped::load(state.path(), &app).set(&version, true);
        let mut again = Stopped::load(state.path(), &app);
        assert!(again.contains(&version));
        assert!(!Stopped::load(state.path(), &"other".into()).contains(&version));
        again.set(&version, false);
        assert!(!Stopped::load(state.path(), &app).contains(&version));
        std::fs::write(state.path().join("app/stopped.json"), "{half").unwrap();
        assert!(!Stopped::load(state.path(), &app).contains(&version));
    }
}
