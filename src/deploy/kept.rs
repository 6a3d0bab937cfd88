//! What the files of each version were when it settled, kept on disk: after a restart of switchman, a log that the
//! application has written meanwhile must not be taken for a file that came with the upload.
//!
//! One file a folder, named by its identity, below `<state>/<service>/files/`. It can be removed at any time: the version is then taken
//! as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::PathBuf;

use super::inventory::Inventory;
use super::scan::Folder;
use crate::version::VersionId;

/// What the bytes begin with.
const HEADER: &[u8] = b"switchman-files 1\n";

/// The inventories of one service's versions.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    folder: PathBuf,
}

impl Kept {
    /// Kept in `folder`, which need not be there.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// What the files were when this folder settled, if that is known. Blocks.
    pub(crate) fn load(&self, identity: (u64, u64)) -> Option<Inventory> {
        let bytes = std::fs::read(self.folder.join(name(identity))).ok()?;
        Inventory::decode(bytes.strip_prefix(HEADER)?)
    }

    /// Keeps them. What cannot be written is said. Blocks.
    pub(crate) fn store(&self, identity: (u64, u64), files: &Inventory) {
        if let Err(error) = self.write(identity, files) {
            tracing::warn!(folder = %self.folder.display(), %error, "the list of a version's files cannot be kept");
        }
    }

    fn write(&self, identity: (u64, u64), files: &Inventory) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(HEADER)?;
        file.write_all(&files.encode())?;
        file.persist(self.folder.join(name(identity)))?;
        Ok(())
    }

    /// Removes what is kept of folders that are not there. Blocks.
    pub(crate) fn retain(&self, there: &BTreeMap<VersionId, Folder>) {
        let there: BTreeSet<String> = there.values().map(|folder| name(folder.identity)).collect();
        let Ok(entries) = self.folder.read_dir() else { return };
        for entry in entries.flatten() {
            // One that begins with a dot is being written.
            if entry.file_name().to_str().is_some_and(|name| !name.starts_with('.') && !there.contains(name))
            {
                // It is tried again with the next listing.
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

fn name((device, inode): (u64, u64)) -> String {
    format!("{device:x}-{inode:x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::manifest::look;

    #[test]
    fn the_files_of_a_folder_are_kept_until_it_is_gone() {
        let (state, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(folder.path().join("a"), "").unwrap();
        let files = look(folder.path()).manifest.inventory;
        let kept = Kept::new(state.path().join("files"));
        assert_eq!(kept.load((1, 2)), None);
        kept.store((1, 2), &files);
        assert_eq!(kept.load((1, 2)).as_ref(), Some(&*files));
        assert_eq!(kept.load((1, 3)), None, "another folder");

        let folder = Folder { path: folder.path().into(), identity: (1, 2), link: false };
        kept.retain(&BTreeMap::from([("4f2a91c".into(), folder)]));
        assert!(kept.load((1, 2)).is_some());
        kept.retain(&BTreeMap::new());
        assert_eq!(kept.load((1, 2)), None);

        std::fs::write(state.path().join("files/1-2"), "damaged").unwrap();
        assert_eq!(kept.load((1, 2)), None);
    }
}
