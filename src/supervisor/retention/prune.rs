//! Deletes the folder of a version, and never anything else.
//!
//! It is renamed aside first, into a hidden folder below the root: so half a deletion is never taken for a version, and
//! what was renamed can be looked at once more before it is gone. What a killed switchman has left there is deleted by
//! the next one.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::deploy::{manifest, scan};

/// Where folders are deleted, below the root. Its name begins with a dot: it is no version.
const ASIDE: &str = ".switchman-pruned";

/// Why a folder was not deleted. It is there as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PruneError {
    #[error("{} has changed {quiet:?} ago: somebody writes to it", .path.display())]
    Busy { path: PathBuf, quiet: Duration },
    #[error("{} is another folder than the one that was there", .0.display())]
    Another(PathBuf),
    #[error("{} is no folder of ours; hint: remove it", .0.display())]
    NoAside(PathBuf),
    #[error("{}: {error}", .path.display())]
    Io { path: PathBuf, error: io::Error },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> PruneError {
    let path = path.to_owned();
    move |error| PruneError::Io { path, error }
}

/// Deletes the folder `name` of `root`, if it is the one with this identity and nothing in it has changed for
/// `quiet`. Of a symbolic link the link alone. Blocks on the file system.
pub(crate) fn delete(
    root: &Path,
    name: &str,
    identity: (u64, u64),
    quiet: Duration,
) -> Result<(), PruneError> {
    let path = root.join(name);
    let link = match path.symlink_metadata() {
        Ok(found) => found.is_symlink(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(&path)(error)),
    };
    let look = manifest::look(&path);
    if look.quiet < quiet {
        return Err(PruneError::Busy { path, quiet: look.quiet });
    }
    let aside = aside(root)?;
    let unique = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let moved = aside.join(format!("{name}-{unique}"));
    fs::rename(&path, &moved).map_err(io_error(&path))?;
    if scan::identity_of(&moved).ok() != Some(identity) {
        fs::rename(&moved, &path).map_err(io_error(&moved))?;
        return Err(PruneError::Another(path));
    }
    if link { fs::remove_file(&moved) } else { fs::remove_dir_all(&moved) }.map_err(io_error(&moved))?;
    // Another one may be on its way.
    let _ = fs::remove_dir(&aside);
    Ok(())
}

/// Deletes what a switchman that was killed has left aside. Blocks on the file system.
pub(crate) fn finish(root: &Path) -> Result<(), PruneError> {
    let path = root.join(ASIDE);
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let aside = aside(root)?;
    for entry in aside.read_dir().map_err(io_error(&aside))? {
        let entry = entry.map_err(io_error(&aside))?;
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let path = entry.path();
        if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }
            .map_err(io_error(&path))?;
    }
    fs::remove_dir(&aside).map_err(io_error(&aside))
}

/// The folder in which folders are deleted: a real one, which nobody else may write to.
fn aside(root: &Path) -> Result<PathBuf, PruneError> {
    let path = root.join(ASIDE);
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io_error(&path)(error)),
        _ => {}
    }
    let found = path.symlink_metadata().map_err(io_error(&path))?;
    if found.is_dir() { Ok(path) } else { Err(PruneError::NoAside(path)) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A root with a version that has a link out of the root in it, and where that leads.
    fn root() -> (tempfile::TempDir, PathBuf, tempfile::TempDir) {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("precious"), "").unwrap();
        let version = root.path().join("4f2a91c");
        fs::create_dir_all(version.join("lib")).unwrap();
        fs::write(version.join("lib/a"), "a").unwrap();
        symlink(outside.path(), version.join("lib/out")).unwrap();
        (root, version, outside)
    }

    #[test]
    fn a_folder_is_deleted_and_no_link_out_of_it_is_followed() {
        let (root, version, outside) = root();
        let identity = scan::identity_of(&version).unwrap();
        delete(root.path(), "4f2a91c", identity, Duration::ZERO).unwrap();
        assert_eq!(root.path().read_dir().unwrap().count(), 0, "nothing is left, nor aside");
        assert!(outside.path().join("precious").exists());
        delete(root.path(), "4f2a91c", identity, Duration::ZERO).unwrap();
    }

    #[test]
    fn of_a_link_the_link_is_deleted() {
        let (root, version, _outside) = root();
        let build = tempfile::tempdir().unwrap();
        symlink(build.path(), root.path().join("b001bee")).unwrap();
        let identity = scan::identity_of(build.path()).unwrap();
        delete(root.path(), "b001bee", identity, Duration::ZERO).unwrap();
        assert!(build.path().exists() && version.exists() && !root.path().join("b001bee").exists());
    }

    #[test]
    fn what_is_being_written_or_has_been_replaced_stays() {
        let (root, version, _outside) = root();
        let identity = scan::identity_of(&version).unwrap();
        let busy = delete(root.path(), "4f2a91c", identity, Duration::from_secs(60)).unwrap_err();
        assert!(matches!(busy, PruneError::Busy { .. }), "{busy}");
        let another = delete(root.path(), "4f2a91c", (1, 1), Duration::ZERO).unwrap_err();
        assert!(matches!(another, PruneError::Another(_)), "{another}");
        assert!(version.join("lib/a").exists());
    }

    #[test]
    fn the_hidden_folder_must_be_a_folder() {
        let (root, version, outside) = root();
        symlink(outside.path(), root.path().join(ASIDE)).unwrap();
        let identity = scan::identity_of(&version).unwrap();
        let refused = delete(root.path(), "4f2a91c", identity, Duration::ZERO).unwrap_err();
        assert!(matches!(refused, PruneError::NoAside(_)), "{refused}");
        assert!(matches!(finish(root.path()), Err(PruneError::NoAside(_))));
        assert!(version.exists() && outside.path().join("precious").exists());
    }

    #[test]
    fn what_was_left_half_deleted_is_deleted() {
        let (root, version, outside) = root();
        finish(root.path()).unwrap();
        fs::create_dir(root.path().join(ASIDE)).unwrap();
        fs::rename(&version, root.path().join(ASIDE).join("4f2a91c-1")).unwrap();
        symlink(outside.path(), root.path().join(ASIDE).join("b001bee-1")).unwrap();
        finish(root.path()).unwrap();
        assert_eq!(root.path().read_dir().unwrap().count(), 0);
        assert!(outside.path().join("precious").exists());
    }
}
