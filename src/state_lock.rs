//! The state folder belongs to one switchman: two would start every version twice and fight over aliases.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// How long to wait for the lock of a switchman that was killed: what it had just forked holds its files, too, until it
/// becomes a worker.
const ORPHANED_MAX: Duration = Duration::from_secs(5);

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
        let begun = Instant::now();
        while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != Errno::WOULDBLOCK {
                return Err(unusable(error.into()));
            }
            file.rewind().map_err(unusable)?;
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(unusable)?;
            let pid = pid.lines().next().unwrap_or_default().to_owned();
            if runs(&pid) || begun.elapsed() > ORPHANED_MAX {
                return Err(StateError::InUse { path: folder.to_owned(), pid });
            }
            #[allow(
                clippy::disallowed_methods,
                reason = "a lock is waited for with a limit only by asking again"
            )]
            std::thread::sleep(Duration::from_millis(5));
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

/// Whether a process of this number runs; a text that is no number names none that could have ended.
fn runs(pid: &str) -> bool {
    pid.parse().ok().and_then(Pid::from_raw).is_none_or(|pid| test_kill_process(pid) != Err(Errno::SRCH))
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
    fn the_lock_of_one_that_was_killed_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        let pid = ended.id();
        ended.wait().unwrap();
        let held = StateLock::take(folder.path()).unwrap();
        fs::write(folder.path().join("lock"), format!("{pid}\n")).unwrap();
        let (path, (told, begun)) = (folder.path().to_owned(), std::sync::mpsc::channel());
        let next = std::thread::spawn(move || {
            told.send(()).unwrap();
            StateLock::take(&path).map(drop)
        });
        begun.recv().unwrap();
        drop(held);
        next.join().unwrap().unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let error = StateLock::take(Path::new("/proc/no/such")).unwrap_err();
        assert!(error.to_string().contains("/proc/no/such"), "{error}");
        assert!(error.hint().contains("state:"));
    }
}
