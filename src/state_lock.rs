//! The state folder belongs to one switchman: two would start every version twice and fight over aliases.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Holds the lock until it is dropped; the kernel lets go of it whatever way the process ends. Handed over, it is
/// held until both have dropped it.
#[derive(Debug)]
pub struct StateLock {
    file: File,
}

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be made or written.
    #[error("the state folder `{}` cannot be used: {source}", path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another switchman has it.
    #[error("another switchman (pid {pid}) uses the state folder `{}`", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Its process, as it wrote it down.
        pid: String,
    },
}

impl StateError {
    /// What to type next.
    pub fn hint(&self) -> String {
        match self {
            Self::Unusable { path, .. } => {
                format!(
                    "set `state:` to a folder that you may write, or: sudo install -d -o $USER {}",
                    path.display()
                )
            }
            Self::InUse { .. } => {
                "stop it first, or give this one a `state:` of its own: ps -C switchman".to_owned()
            }
        }
    }
}

impl StateLock {
    /// Makes the folder (0700) if it is not there, and takes it.
    pub fn take(folder: &Path) -> Result<Self, StateError> {
        let unusable = |source: io::Error| StateError::Unusable { path: folder.to_owned(), source };
        if !folder.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unusable)?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(folder.join("lock"))
            .map_err(unusable)?;
        if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(unusable(error.into()));
            }
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(unusable)?;
            let pid = pid.lines().next().unwrap_or_default().to_owned();
            return Err(StateError::InUse { path: folder.to_owned(), pid });
        }
        let mut lock = Self { file };
        lock.sign().map_err(unusable)?;
        Ok(lock)
    }

    /// The lock as the switchman before this one has handed it over.
    pub fn inherit(lock: OwnedFd) -> Self {
        Self { file: File::from(lock) }
    }

    /// Writes down that this process has it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn sign(&mut self) -> io::Result<()> {
        let pid = format!("{}\n", std::process::id());
        // Cut last: who reads meanwhile finds a whole number in the first line.
        self.file.rewind()?;
        self.file.write_all(pid.as_bytes())?;
        self.file.set_len(pid.len() as u64)
    }
}

impl AsFd for StateLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_switchman_is_told_who_has_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("deep/state");
        let first = StateLock::take(&state).unwrap();
        let error = StateLock::take(&state).unwrap_err();
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        let mut next = StateLock::inherit(first.as_fd().try_clone_to_owned().unwrap());
        drop(first);
        assert!(StateLock::take(&state).is_err(), "it was handed over and never free");
        next.sign().unwrap();
        assert_eq!(fs::read_to_string(state.join("lock")).unwrap(), format!("{}\n", std::process::id()));
        drop(next);
        StateLock::take(&state).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let error = StateLock::take(Path::new("/proc/no/such")).unwrap_err();
        assert!(error.to_string().contains("/proc/no/such"), "{error}");
        assert!(error.hint().contains("state:"));
    }
}
