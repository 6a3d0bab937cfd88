//! What lies below one version folder, as far as it tells whether the folder is complete.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Folders that rsync keeps while it works: `--delay-updates`, and the usual `--partial-dir`.
const UNFINISHED_FOLDERS: [&str; 2] = [".~tmp~", ".rsync-partial"];

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
}

/// What shows that a folder is not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfinished {
    /// There is no file in it.
    Empty,
    /// A transfer has left this in it.
    Transfer(PathBuf),
    /// It cannot be read.
    Unreadable(String),
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("there is no file in it"),
            Self::Transfer(path) => {
                write!(f, "rsync is not done, or was cut off: `{}` is left", path.display())
            }
            Self::Unreadable(error) => write!(f, "it cannot be read: {error}"),
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
    let mut manifest = Manifest { files: 0, newest: UNIX_EPOCH, unfinished: None };
    match folder.metadata() {
        Ok(top) => manifest.newest = changed(&top),
        Err(error) => manifest.unfinished = Some(Unfinished::Unreadable(error.to_string())),
    }
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let entries = match fs::read_dir(&next) {
            Ok(entries) => entries,
            Err(error) => {
                // One that just went away is a change, and the stamp of its parent tells.
                if error.kind() != std::io::ErrorKind::NotFound {
                    let error = format!("`{}`: {error}", next.display());
                    manifest.unfinished.get_or_insert(Unfinished::Unreadable(error));
                }
                continue;
            }
        };
        for entry in entries.flatten() {
            let Ok(found) = entry.metadata() else { continue };
            manifest.newest = manifest.newest.max(changed(&found));
            if is_unfinished(&entry.file_name(), &found) {
                manifest.unfinished.get_or_insert_with(|| Unfinished::Transfer(entry.path()));
            }
            if found.is_dir() {
                folders.push(entry.path());
            } else {
                manifest.files += 1;
            }
        }
    }
    if manifest.files == 0 {
        manifest.unfinished.get_or_insert(Unfinished::Empty);
    }
    manifest
}

fn changed(found: &Metadata) -> SystemTime {
    let seconds = Duration::from_secs(found.ctime().try_into().unwrap_or_default());
    UNIX_EPOCH + seconds + Duration::from_nanos(found.ctime_nsec().try_into().unwrap_or_default())
}

/// Whether this entry is there only while a transfer goes on.
fn is_unfinished(name: &OsStr, found: &Metadata) -> bool {
    match found.is_dir() {
        true => UNFINISHED_FOLDERS.iter().any(|folder| name == *folder),
        false => found.is_file() && is_rsync_temporary(name.as_bytes(), found.mode()),
    }
}

/// Whether a file is one that rsync writes before it renames it: `.NAME.XXXXXX`, six random letters and digits.
///
/// `.env.sample` has that shape too. rsync opens its temporary files to nobody but their owner, so where the
/// six are a word (small letters only), the file must be private as well.
fn is_rsync_temporary(name: &[u8], mode: u32) -> bool {
    let Some((stem, random)) = name.split_last_chunk::<6>() else { return false };
    let shaped = matches!(stem, [b'.', _, .., b'.']) && random.iter().all(u8::is_ascii_alphanumeric);
    let word = random.iter().all(u8::is_ascii_lowercase);
    let private = mode & 0o077 == 0;
    shaped && (!word || private)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn rsyncs_temporary_files_are_known_by_name_and_mode() {
        for (name, mode, expected) in [
            (".server.js.Xa81bQ", 0o600, true),
            (".server.js.Xa81bQ", 0o644, true),
            ("..env.0aB3dE", 0o600, true),
            (".a.123456", 0o700, true),
            (".server.js.qwerty", 0o600, true),
            (".env.sample", 0o644, false),
            (".eslintrc.config", 0o644, false),
            (".server.js.Xa81b", 0o600, false),
            (".server.js.Xa81bQ7", 0o600, false),
            (".server.js.Xa8-bQ", 0o600, false),
            ("server.js.Xa81bQ", 0o600, false),
            ("..Xa81bQ", 0o600, false),
            (".Xa81bQ", 0o600, false),
            ("Xa81bQ", 0o600, false),
            ("", 0o600, false),
        ] {
            assert_eq!(is_rsync_temporary(name.as_bytes(), mode), expected, "{name} {mode:o}");
        }
    }

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
        assert_eq!(look(folder.path()).manifest.unfinished, Some(Unfinished::Transfer(temporary.clone())));
        fs::rename(&temporary, deep.join("c")).unwrap();
        let second = look(folder.path()).manifest;
        assert_eq!(second.unfinished, None);
        assert_ne!(second, first);

        fs::create_dir(deep.join(".~tmp~")).unwrap();
        assert_eq!(look(folder.path()).manifest.unfinished, Some(Unfinished::Transfer(deep.join(".~tmp~"))));
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
