//! Reads what lies directly under a deploy root: the folders that are versions, and why the rest is not.

use std::collections::BTreeMap;
use std::fs::{DirEntry, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use regex::Regex;

use crate::registry::Ignored;
use crate::version::VersionId;

/// More ignored entries than this are counted, not listed.
const IGNORED_MAX: usize = 200;

/// A version's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Its path under the root; a symlink is not resolved.
    pub path: PathBuf,
    /// See [`ChangeKind::Settled`](super::ChangeKind); of what a symlink leads to.
    pub identity: (u64, u64),
    /// Whether it is a symlink to a folder.
    pub link: bool,
}

/// What lies under a deploy root at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The folders that are versions.
    pub versions: BTreeMap<VersionId, Folder>,
    /// Everything else, by name.
    pub ignored: Vec<Ignored>,
}

/// Why a deploy root cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// There is nothing at its path.
    #[error("deploy root `{}` does not exist (hint: mkdir -p {})", .0.display(), .0.display())]
    Missing(PathBuf),
    /// Its path leads to a file.
    #[error("deploy root `{}` is not a folder (hint: set `root:` to the folder that holds the version folders)", .0.display())]
    NotAFolder(PathBuf),
    /// The system refuses to read it; what was in it may well be there still.
    #[error("deploy root `{}` cannot be read: {error} (hint: ls -ld {})", .path.display(), .path.display())]
    Unreadable {
        /// The root.
        path: PathBuf,
        /// What the system says.
        error: String,
    },
}

impl RootError {
    fn new(root: &Path, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing(root.to_owned()),
            io::ErrorKind::NotADirectory => Self::NotAFolder(root.to_owned()),
            _ => Self::Unreadable { path: root.to_owned(), error: error.to_string() },
        }
    }
}

/// Lists `root`; folders whose names match `versions` are versions. Blocks on the file system.
pub fn scan(root: &Path, versions: &Regex) -> Result<Listing, RootError> {
    let mut listing = Listing::default();
    let mut unlisted = 0;
    for entry in root.read_dir().map_err(|e| RootError::new(root, &e))? {
        let entry = entry.map_err(|e| RootError::new(root, &e))?;
        let name = entry.file_name();
        match classify(&entry, name.to_str(), versions) {
            Ok(Some((version, folder))) => {
                listing.versions.insert(version, folder);
            }
            Ok(None) => {}
            Err(_) if listing.ignored.len() == IGNORED_MAX => unlisted += 1,
            Err(reason) => {
                listing.ignored.push(Ignored { name: name.to_string_lossy().into_owned(), reason });
            }
        }
    }
    listing.ignored.sort_by(|a, b| a.name.cmp(&b.name));
    if unlisted > 0 {
        listing.ignored.push(Ignored { name: "...".to_owned(), reason: format!("and {unlisted} more") });
    }
    Ok(listing)
}

/// The version that an entry is, none for an entry that went away meanwhile, or why it is no version.
fn classify(
    entry: &DirEntry,
    name: Option<&str>,
    versions: &Regex,
) -> Result<Option<(VersionId, Folder)>, String> {
    let Ok(kind) = entry.file_type() else { return Ok(None) };
    let name = name.ok_or("its name is not UTF-8")?;
    if name.starts_with('.') {
        return Err("hidden: its name begins with a dot".to_owned());
    }
    if !kind.is_dir() && !kind.is_symlink() {
        return Err("not a folder".to_owned());
    }
    if !versions.is_match(name) {
        return Err(format!("its name does not match `{versions}`"));
    }
    let path = entry.path();
    match path.metadata() {
        Ok(found) if found.is_dir() => {
            let identity = identity(&path, &found);
            let folder = Folder { path, identity, link: kind.is_symlink() };
            Ok(Some((VersionId::from(name), folder)))
        }
        Ok(_) => Err("a symlink to something that is not a folder".to_owned()),
        Err(_) if !kind.is_symlink() => Ok(None),
        Err(error) => {
            let to = path.read_link().unwrap_or_default();
            Err(format!("a symlink to `{}`, which cannot be followed: {error}", to.display()))
        }
    }
}

/// The identity of the folder at `path` (see [`ChangeKind::Settled`](super::ChangeKind)); of a symlink, that of what it leads
/// to.
pub(crate) fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
    Ok(identity(path, &path.metadata()?))
}

/// See [`ChangeKind::Settled`](super::ChangeKind). Where there is no lasting time of birth, the inode alone has to do.
fn identity(path: &Path, folder: &Metadata) -> (u64, u64) {
    let born = folder.created().ok().filter(|_| !is_overlay(path));
    let born = born.and_then(|born| born.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    // A time in nanoseconds varies in its low bits, and so does an inode: kept apart, they do not cancel out.
    (folder.dev(), folder.ino().rotate_left(40) ^ born.as_nanos() as u64)
}

/// Whether this lies in a container's layers. There, the first file that a worker writes into a folder that came
/// with the image copies the folder to the upper layer, where it has the same inode and a new time of birth.
fn is_overlay(path: &Path) -> bool {
    const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;
    rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type == OVERLAYFS_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn hashes() -> Regex {
        Regex::new("^[0-9a-f]{7,64}$").unwrap()
    }

    #[test]
    fn what_is_no_version_is_listed_with_the_reason() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["4f2a91c", "releases", ".4f2a91d"] {
            fs::create_dir(at(folder)).unwrap();
        }
        fs::write(at("deadbeef"), "").unwrap();
        symlink(at("4f2a91c"), at("b001bee")).unwrap();
        symlink("elsewhere", at("b001bef")).unwrap();
        symlink(at("deadbeef"), at("b001bf0")).unwrap();

        let listing = scan(root.path(), &hashes()).unwrap();
        let names: Vec<&str> = listing.versions.keys().map(VersionId::as_str).collect();
        assert_eq!(names, ["4f2a91c", "b001bee"]);
        assert_eq!(listing.versions["4f2a91c"].identity, listing.versions["b001bee"].identity);
        assert!(listing.versions["b001bee"].link);
        let ignored: Vec<(&str, &str)> =
            listing.ignored.iter().map(|i| (i.name.as_str(), i.reason.as_str())).collect();
        assert_eq!(
            ignored,
            [
                (".4f2a91d", "hidden: its name begins with a dot"),
                (
                    "b001bef",
                    "a symlink to `elsewhere`, which cannot be followed: No such file or directory (os error 2)"
                ),
                ("b001bf0", "a symlink to something that is not a folder"),
                ("deadbeef", "not a folder"),
                ("releases", "its name does not match `^[0-9a-f]{7,64}$`"),
            ]
        );
    }

    #[test]
    fn a_folder_made_in_the_place_of_another_is_told_from_it() {
        let root = tempfile::tempdir().unwrap();
        let (folder, probe) = (root.path().join("4f2a91c"), root.path().join("probe"));
        let stamp = || {
            fs::write(&probe, "").unwrap();
            probe.metadata().unwrap().modified().unwrap()
        };
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..20 {
            fs::create_dir(&folder).unwrap();
            seen.insert(scan(root.path(), &hashes()).unwrap().versions["4f2a91c"].identity);
            fs::remove_dir(&folder).unwrap();
            // The kernel stamps with the time of its last tick; two folders within one are the same to it.
            let before = stamp();
            while stamp() == before {}
        }
        assert_eq!(seen.len(), 20);
    }

    #[test]
    fn a_rename_keeps_the_identity() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("4f2a91c")).unwrap();
        let before = scan(root.path(), &hashes()).unwrap().versions["4f2a91c"].identity;
        fs::rename(root.path().join("4f2a91c"), root.path().join("b001bee")).unwrap();
        assert_eq!(scan(root.path(), &hashes()).unwrap().versions["b001bee"].identity, before);
    }

    #[test]
    fn a_flood_of_strangers_is_counted() {
        let root = tempfile::tempdir().unwrap();
        for n in 0..IGNORED_MAX + 7 {
            fs::write(root.path().join(format!("file{n}")), "").unwrap();
        }
        let ignored = scan(root.path(), &hashes()).unwrap().ignored;
        assert_eq!(ignored.len(), IGNORED_MAX + 1);
        assert_eq!(ignored[IGNORED_MAX].reason, "and 7 more");
    }

    #[test]
    fn a_root_that_cannot_be_read_says_why() {
        let parent = tempfile::tempdir().unwrap();
        let missing = parent.path().join("missing");
        assert_eq!(scan(&missing, &hashes()), Err(RootError::Missing(missing.clone())));
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(scan(&file, &hashes()), Err(RootError::NotAFolder(file)));
        let shown = RootError::Missing("/srv/app".into()).to_string();
        assert_eq!(shown, "deploy root `/srv/app` does not exist (hint: mkdir -p /srv/app)");
    }
}
