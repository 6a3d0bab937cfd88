//! The files of a service's logs: their names, which there are, and which of them are to go.
//!
//! ```text
//! <state>/logs/<service>/<version>/worker-0.log                             being written
//! <state>/logs/<service>/<version>/worker-0-20261121T180510.123456Z.log     set aside at that time
//! ```
//!
//! `ls` shows the files of a worker in the order of their lines, so `grep x worker-0*.log` and
//! `tail -F worker-0.log` do what they should.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;

use crate::version::WorkerId;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LogFile {
    pub(super) worker: WorkerId,
    /// Whether it is the one that is written: the last of its worker.
    pub(super) current: bool,
    pub(super) path: PathBuf,
    pub(super) size: u64,
    /// When it was last written to.
    pub(super) modified: SystemTime,
    /// Device and inode.
    pub(super) identity: (u64, u64),
}

/// The file of a worker that is written.
pub(super) fn current(folder: &Path, worker: WorkerId) -> PathBuf {
    folder.join(format!("worker-{worker}.log"))
}

/// The file of a worker that is set aside `at` this time.
pub(super) fn aside(folder: &Path, worker: WorkerId, at: Timestamp) -> PathBuf {
    folder.join(format!("worker-{worker}-{}.log", at.strftime("%Y%m%dT%H%M%S.%6fZ")))
}

/// The worker of a file's name, and whether it is the one that is written.
fn read_name(name: &str) -> Option<(WorkerId, bool)> {
    let name = name.strip_prefix("worker-")?.strip_suffix(".log")?;
    let (worker, aside) = name.split_once('-').map_or((name, None), |(worker, time)| (worker, Some(time)));
    Some((WorkerId(worker.parse().ok()?), aside.is_none()))
}

/// The log files in a version's folder, by worker, oldest lines first; what else lies there is left out.
pub(super) fn list(folder: &Path) -> Vec<LogFile> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<LogFile> = entries
        .flatten()
        .filter_map(|entry| {
            let (worker, current) = read_name(entry.file_name().to_str()?)?;
            let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            Some(LogFile {
                worker,
                current,
                path: entry.path(),
                size: metadata.len(),
                modified: metadata.modified().ok()?,
                identity: (metadata.dev(), metadata.ino()),
            })
        })
        .collect();
    files.sort();
    files
}

/// The names of the folders in a folder.
pub(super) fn folders(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Which of `files` are to be deleted, so that the rest takes at most `room` bytes and none was last written before
/// `oldest`. The oldest go first.
pub(super) fn surplus(mut files: Vec<LogFile>, room: u64, oldest: SystemTime) -> Vec<LogFile> {
    files.sort_by_key(|file| std::cmp::Reverse(file.modified));
    let mut kept = 0_u64;
    let mut full = false;
    files.retain(|file| {
        kept = kept.saturating_add(file.size);
        // Once one has to go, every older one goes too: what is left has no hole in it.
        full |= kept > room || file.modified < oldest;
        full
    });
    files
}

/// Deletes a file; one that is gone already is as good.
pub(super) fn delete(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn names_say_the_worker_and_sort_by_time() {
        let folder = tempfile::tempdir().unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let paths = [
            aside(folder.path(), WorkerId(0), at("2026-11-21T18:05:10.123456Z")),
            aside(folder.path(), WorkerId(0), at("2026-11-21T18:05:10.2Z")),
            current(folder.path(), WorkerId(0)),
            current(folder.path(), WorkerId(10)),
        ];
        assert!(paths[0].ends_with("worker-0-20261121T180510.123456Z.log"), "{:?}", paths[0]);
        for path in paths.iter().rev() {
            fs::write(path, "x").unwrap();
        }
        for other in ["notes.txt", "worker-x.log", "worker-0.log.gz"] {
            fs::write(folder.path().join(other), "x").unwrap();
        }
        fs::create_dir(folder.path().join("worker-1.log")).unwrap();
        let listed = list(folder.path());
        let current: Vec<bool> = listed.iter().map(|file| file.current).collect();
        assert_eq!(current, [false, false, true, true]);
        assert_eq!(listed.into_iter().map(|file| file.path).collect::<Vec<_>>(), paths);
        assert_eq!(list(Path::new("/nowhere")), []);
    }

    #[test]
    fn the_oldest_files_go_first() {
        let second = |s: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        let file = |modified: u64, size| LogFile {
            worker: WorkerId(0),
            current: false,
            path: PathBuf::from(modified.to_string()),
            size,
            modified: second(modified),
            identity: (0, 0),
        };
        let gone = |room, oldest| {
            let files = vec![file(30, 10), file(10, 5), file(20, 10), file(40, 10)];
            let gone: Vec<u64> = surplus(files, room, second(oldest))
                .iter()
                .map(|f| f.path.to_string_lossy().parse().unwrap())
                .collect();
            gone
        };
        assert_eq!(gone(35, 0), [0_u64; 0]);
        assert_eq!(gone(34, 0), [10]);
        assert_eq!(gone(26, 0), [20, 10], "5 bytes would still have room, and would be older than a hole");
        assert_eq!(gone(0, 0), [40, 30, 20, 10]);
        assert_eq!(gone(100, 25), [20, 10]);
    }
}
