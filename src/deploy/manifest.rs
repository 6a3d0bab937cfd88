//! What lies below one version folder, as far as it tells whether the folder is complete.

use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::inventory::{Inventory, changed};
use super::transfer::{self, Kind};
use super::writers::Writer;

/// What lies below a folder. Two that are equal were read with no change in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Files and symlinks, at any depth.
    pub files: u64,
    /// The time of the last change, to any of them or to a folder: the kernel's own stamp (`ctime`), since rsync
    /// and tar set the time of modification to what it was elsewhere.
    pub newest: SystemTime,
    /// What shows that more is to come.
    pub unfinished: Option<Unfinished>,
    /// The files, for telling later what has become of them.
    pub inventory: Arc<Inventory>,
}

/// What shows that a folder is not complete. Paths are below the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfinished {
    /// There is no file in it.
    Empty,
    /// A transfer has left this in it.
    Transfer(PathBuf),
    /// It cannot be read.
    Unreadable(String),
    /// A process may still write.
    Open(Writer),
    /// The file that is to come last is not there.
    Awaits(PathBuf),
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("there is no file in it"),
            Self::Transfer(path) => {
                write!(f, "a transfer is not done, or was cut off: `{}` is left", path.display())
            }
            Self::Unreadable(error) => write!(f, "it cannot be read: {error}"),
            Self::Open(writer) => writer.fmt(f),
            Self::Awaits(marker) => write!(f, "waits for {}", marker.display()),
        }
    }
}

/// One look at a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// When it began.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
    /// How long before `at` the last change was, by the wall clock; zero if that lies ahead.
    pub quiet: Duration,
    /// What was found.
    pub manifest: Manifest,
}

/// Looks at `folder`, all the way down; symlinks below it are not followed. Blocks on the file system.
pub fn look(folder: &Path) -> Look {
    let (at, wall) = (Instant::now(), SystemTime::now());
    let manifest = read(folder);
    let quiet = wall.duration_since(manifest.newest).unwrap_or_default();
    Look { at, took: at.elapsed(), quiet, manifest }
}

fn read(folder: &Path) -> Manifest {
    let mut inventory = Inventory::default();
    let mut manifest = Manifest { files: 0, newest: UNIX_EPOCH, unfinished: None, inventory: Arc::default() };
    match folder.metadata() {
        Ok(top) => manifest.newest = changed(&top),
        Err(error) => manifest.unfinished = Some(Unfinished::Unreadable(error.to_string())),
    }
    // Paths below the folder; the empty one is the folder itself.
    let mut folders = vec![PathBuf::new()];
    while let Some(next) = folders.pop() {
        let entries = match fs::read_dir(folder.join(&next)) {
            Ok(entries) => entries,
            Err(error) => {
                // One that just went away is a change, and the stamp of its parent tells.
                if error.kind() != std::io::ErrorKind::NotFound {
                    let error = format!("`{}`: {error}", folder.join(&next).display());
                    manifest.unfinished.get_or_insert(Unfinished::Unreadable(error));
                }
                continue;
            }
        };
        for entry in entries.flatten() {
            let Ok(found) = entry.metadata() else { continue };
            manifest.newest = manifest.newest.max(changed(&found));
            let name = entry.file_name();
            let path = next.join(&name);
            if transfer::is_unfinished(&name, kind(&found)) {
                manifest.unfinished.get_or_insert_with(|| Unfinished::Transfer(path.clone()));
            }
            if found.is_dir() {
                folders.push(path);
            } else {
                manifest.files += 1;
                inventory.add(path.as_os_str().as_bytes(), &found);
            }
        }
    }
    if manifest.files == 0 {
        manifest.unfinished.get_or_insert(Unfinished::Empty);
    }
    manifest.inventory = Arc::new(inventory);
    manifest
}

fn kind(found: &Metadata) -> Kind {
    let kind = found.file_type();
    if kind.is_dir() {
        Kind::Folder
    } else if kind.is_file() {
        Kind::File { mode: found.mode() }
    } else {
        Kind::Other
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_look_sees_all_the_way_down() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(look(folder.path()).manifest.unfinished, Some(Unfinished::Empty), "folders are no files");

        fs::write(deep.join("c"), "1").unwrap();
        symlink("/", folder.path().join("all")).unwrap();
        let first = look(folder.path()).manifest;
        assert_eq!((first.files, first.unfinished.clone()), (2, None), "symlinks are not followed");
        assert_eq!(look(folder.path()).manifest, first, "looking changes nothing");

        let temporary = deep.join(".c.Xa81bQ");
        fs::write(&temporary, "1").unwrap();
        assert_eq!(
            look(folder.path()).manifest.unfinished,
            Some(Unfinished::Transfer("a/b/.c.Xa81bQ".into()))
        );
        fs::rename(&temporary, deep.join("c")).unwrap();
        let second = look(folder.path()).manifest;
        assert_eq!(second.unfinished, None);
        assert_ne!(second, first);

        fs::create_dir(deep.join(".~tmp~")).unwrap();
        assert_eq!(look(folder.path()).manifest.unfinished, Some(Unfinished::Transfer("a/b/.~tmp~".into())));
    }

    #[test]
    fn a_time_that_was_set_back_hides_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let file = fs::File::create(folder.path().join("a")).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1)).unwrap();
        let look = look(folder.path());
        assert!(look.quiet < Duration::from_secs(60), "{look:?}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_not_complete() {
        let folder = tempfile::tempdir().unwrap();
        let unfinished = look(&folder.path().join("gone")).manifest.unfinished;
        assert!(matches!(unfinished, Some(Unfinished::Unreadable(_))), "{unfinished:?}");
    }
}
