//! The files of a version as they were when it settled, small enough to be kept for each version: what tells,
//! later, which of them have changed. Pure, but for taking in what `stat` said.
//!
//! New files are no change: an application writes caches, logs and pid files beside its own.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use xxhash_rust::xxh3::xxh3_64;

/// Asks for a restart when it is touched; so it is no part of the version.
pub(crate) const RESTART_FILE: &str = "tmp/restart.txt";
/// What Python writes again by itself where it came with an upload that did not keep the times of the sources.
const CACHE_FOLDER: &str = "__pycache__";

/// Files and symlinks, by their paths below the folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The paths, each with a zero byte behind it.
    names: Vec<u8>,
    /// One for each path.
    files: Vec<Stamp>,
}

/// What is known of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    /// A hash of size, time of modification and inode.
    content: u64,
    /// The kernel's stamp (`ctime`), in nanoseconds since 1970.
    changed: i64,
    /// It has no other name. What becomes of another name (`rsync --link-dest` makes them, and `rm -r` of an old
    /// version removes them) changes the kernel's stamp, and nothing of the file.
    single: bool,
}

/// A file that is not what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Difference<'a> {
    /// Its path below the folder.
    pub(crate) path: &'a Path,
    /// When it changed; none where it is gone.
    pub(crate) at: Option<SystemTime>,
}

impl Inventory {
    /// Adds the file at `path`, below the folder, of which `stat` said this.
    pub(crate) fn add(&mut self, path: &[u8], found: &Metadata) {
        let in_cache = path.split(|b| *b == b'/').any(|part| part == CACHE_FOLDER.as_bytes());
        if in_cache || path == RESTART_FILE.as_bytes() {
            return;
        }
        let parts = [found.size(), found.mtime() as u64, found.mtime_nsec() as u64, found.ino()];
        let mut bytes = [0; 32];
        for (to, from) in bytes.chunks_exact_mut(8).zip(parts) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        let changed = nanoseconds(changed(found));
        self.push(path, Stamp { content: xxh3_64(&bytes), changed, single: found.nlink() == 1 });
    }

    fn push(&mut self, path: &[u8], stamp: Stamp) {
        self.names.extend_from_slice(path);
        self.names.push(0);
        self.files.push(stamp);
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &Stamp)> {
        self.names.split(|b| *b == 0).zip(&self.files)
    }

    /// The last change of any of the files.
    pub(crate) fn newest(&self) -> Option<SystemTime> {
        self.files.iter().map(|file| file.changed).max().map(time)
    }

    /// Which of these files are not in `now`, or not the same there; and these files as they are in `now`.
    pub(crate) fn compare<'a>(&'a self, now: &Inventory) -> (Vec<Difference<'a>>, Inventory) {
        let there: HashMap<&[u8], &Stamp> = now.iter().collect();
        let (mut differences, mut renewed) = (Vec::new(), Inventory::default());
        for (name, was) in self.iter() {
            let path = Path::new(OsStr::from_bytes(name));
            match there.get(name) {
                Some(is) => {
                    if was.differs(is) {
                        differences.push(Difference { path, at: Some(time(is.changed)) });
                    }
                    renewed.push(name, **is);
                }
                None => differences.push(Difference { path, at: None }),
            }
        }
        (differences, renewed)
    }

    /// As bytes, for [`Inventory::decode`].
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.names.len() + self.files.len() * 40);
        for (name, Stamp { content, changed, single }) in self.iter() {
            bytes.extend_from_slice(format!("{content:x} {changed} {} ", u8::from(*single)).as_bytes());
            bytes.extend_from_slice(name);
            bytes.push(0);
        }
        bytes
    }

    /// What was encoded; none where the bytes are damaged.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut inventory = Self::default();
        let Some(records) = bytes.strip_suffix(b"\0") else { return bytes.is_empty().then_some(inventory) };
        for record in records.split(|b| *b == 0) {
            let mut parts = record.splitn(4, |b| *b == b' ');
            let mut text = || std::str::from_utf8(parts.next()?).ok();
            let content = u64::from_str_radix(text()?, 16).ok()?;
            let changed = text()?.parse().ok()?;
            let single = text()? == "1";
            inventory.push(parts.next()?, Stamp { content, changed, single });
        }
        Some(inventory)
    }
}

impl Stamp {
    fn differs(&self, now: &Self) -> bool {
        let touched = self.single && now.single && self.changed != now.changed;
        self.content != now.content || touched
    }
}

/// The time of the last change of a file or folder: the kernel's own stamp (`ctime`).
pub(crate) fn changed(found: &Metadata) -> SystemTime {
    let seconds = Duration::from_secs(found.ctime().try_into().unwrap_or_default());
    UNIX_EPOCH + seconds + Duration::from_nanos(found.ctime_nsec().try_into().unwrap_or_default())
}

/// Since 1970; good until the year 2262.
fn nanoseconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |passed| i64::try_from(passed.as_nanos()).unwrap_or(i64::MAX))
}

fn time(nanoseconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanoseconds.max(0).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    /// The files of a folder, by name.
    fn inventory(folder: &Path, names: &[&str]) -> Inventory {
        let mut inventory = Inventory::default();
        for name in names {
            if let Ok(found) = folder.join(name).symlink_metadata() {
                inventory.add(name.as_bytes(), &found);
            }
        }
        inventory
    }

    fn told(was: &Inventory, is: &Inventory) -> Vec<String> {
        let told = was.compare(is).0;
        told.iter()
            .map(|d| format!("{}{}", d.path.display(), if d.at.is_none() { " gone" } else { "" }))
            .collect()
    }

    #[test]
    fn what_was_there_and_changed_or_went_is_told_and_new_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let names = ["a", "b", "c", "d", "e", "tmp/restart.txt", "__pycache__/x.pyc", "new"];
        fs::create_dir(at("tmp")).unwrap();
        fs::create_dir(at("__pycache__")).unwrap();
        for name in &names[..7] {
            fs::write(at(name), "1").unwrap();
        }
        let was = inventory(folder.path(), &names);
        assert_eq!(told(&was, &inventory(folder.path(), &names)), [""; 0]);

        fs::write(at("a"), "22").unwrap();
        fs::remove_file(at("b")).unwrap();
        fs::write(at("replaced"), "1").unwrap();
        fs::rename(at("replaced"), at("c")).unwrap();
        fs::hard_link(at("d"), at("linked elsewhere")).unwrap();
        fs::set_permissions(at("e"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        fs::write(at("new"), "1").unwrap();
        fs::write(at("tmp/restart.txt"), "22").unwrap();
        fs::write(at("__pycache__/x.pyc"), "22").unwrap();
        let is = inventory(folder.path(), &names);
        assert_eq!(told(&was, &is), ["a", "b gone", "c", "e"]);

        let renewed = was.compare(&is).1;
        fs::write(at("new"), "22").unwrap();
        assert_eq!(told(&renewed, &inventory(folder.path(), &names)), [""; 0], "what came later is not ours");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            files in prop::collection::vec(("[^\0]{1,9}", any::<u64>(), any::<i64>(), any::<bool>()), 0..9)
        ) {
            let mut inventory = Inventory::default();
            for (name, content, changed, single) in files {
                inventory.push(name.as_bytes(), Stamp { content, changed, single });
            }
            prop_assert_eq!(Inventory::decode(&inventory.encode()), Some(inventory));
        }

        #[test]
        fn damaged_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Inventory::decode(&bytes);
        }
    }
}
