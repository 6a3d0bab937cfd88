//! Files that are either the old or the new text, whole, whatever happens in between.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

/// Replaces the file at `path`: temporary file beside it, fsync, rename, fsync of the folder. Where the file is
/// there already, its mode stays, and its owner where we may set it; a new one gets `mode`. The folder is made
/// where it is missing. A symlink is followed: the file that it leads to is replaced, the link stays.
pub(crate) fn write(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = real.parent().ok_or_else(|| io::Error::other("the path has no folder"))?;
    fs::create_dir_all(folder)?;
    let mut temporary = tempfile::Builder::new().prefix(".switchman-").tempfile_in(folder)?;
    temporary.write_all(text)?;
    let old = fs::metadata(&real).ok();
    let mode = old.as_ref().map_or(mode, |old| old.mode() & 0o7777);
    if let Some(old) = old {
        keep_owner(temporary.as_file(), &old);
    }
    // After the owner: a change of owner may clear bits of the mode.
    temporary.as_file().set_permissions(Permissions::from_mode(mode))?;
    temporary.as_file().sync_all()?;
    temporary.persist(&real)?;
    File::open(folder)?.sync_all()
}

/// Only root may give a file away; for everybody else the file's own owner or group may already be right.
fn keep_owner(file: &File, old: &Metadata) {
    if fchown(file, Some(old.uid()), Some(old.gid())).is_err() {
        let _ = fchown(file, None, Some(old.gid()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_its_mode_and_a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("real.yaml"), folder.path().join("link.yaml"));
        write(&file, b"one", 0o644).unwrap();
        assert_eq!(
            fs::metadata(&file).unwrap().mode() & 0o777,
            0o644,
            "a new file gets the mode that is given"
        );
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("real.yaml", &link).unwrap();

        write(&link, b"two", 0o644).unwrap();

        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "no temporary file is left: {names:?}");
    }

    #[test]
    fn a_folder_that_is_missing_is_made_and_a_failure_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/b/aliases.json");
        write(&file, b"{}", 0o600).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"{}");
        assert!(write(&folder.path().join("a/b"), b"x", 0o600).is_err(), "a folder is not replaced");
        assert_eq!(fs::read(&file).unwrap(), b"{}");
    }
}
