//! The rule file: read when its folder says that something happened to it.
//!
//! The folder is watched, not the file: a watch on a file ends at the first editor that replaces it by a rename.
//! Events only say "look again"; what counts is the text. A slow look at the file's stamp besides sees what no
//! event tells: network file systems, a symlink's goal in another folder.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, timeout_at};

use crate::fs_watch::{self, Changed, Watch};
use crate::hint::{Problem, Problems};
use crate::rules::offer::{Document, Text};
use crate::rules::source::file::aliases::unwritable;
use crate::rules::source::{ChangeError, atomic};

/// A change is read once nothing has happened for this long, so that no half-written file is taken.
const QUIET: Duration = Duration::from_millis(20);
/// A file that is written without a pause is read after this long all the same.
const QUIET_MAX: Duration = Duration::from_millis(500);
/// Time between two looks at the file's stamp.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The largest document that is read.
const BYTES_MAX: u64 = 16 << 20;
/// A new rule file can be read by everybody and written by its owner.
const MODE: u32 = 0o644;

/// What tells one state of a file from the next without reading it.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// The rule file of one service.
#[derive(Debug)]
pub(crate) struct DocumentFile {
    path: PathBuf,
    watch: Watch,
    look: Interval,
    /// Something happened and the file was not read since.
    pending: bool,
    stamp: Stamp,
    held: Document,
}

impl DocumentFile {
    /// Reads the file and watches its folder; neither needs to be there yet. Must be called within a tokio
    /// runtime.
    pub(crate) fn open(path: PathBuf) -> Self {
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        let stamp = stamp(&path);
        let held = read(&path);
        Self { watch: fs_watch::watch(folder), look, pending: false, stamp, held, path }
    }

    /// What the file held when it was read last.
    pub(crate) fn document(&self) -> &Document {
        &self.held
    }

    /// Waits until the file holds something else. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        loop {
            while !self.pending {
                self.pending = tokio::select! {
                    changed = self.watch.next() => self.concerns_us(&changed),
                    _ = self.look.tick() => stamp(&self.path) != self.stamp,
                };
            }
            self.quiet().await;
            self.pending = false;
            if self.reload() {
                return;
            }
        }
    }

    /// Replaces the document, unless it is no longer the one of `if_revision`.
    pub(crate) fn write(&mut self, text: &str, if_revision: Option<u64>) -> Result<(), ChangeError> {
        self.reload();
        if let Some(expected) = if_revision
            && expected != self.held.revision
        {
            return Err(ChangeError::Conflict { expected, found: self.held.revision });
        }
        atomic::write(&self.path, text.as_bytes(), MODE).map_err(|error| unwritable(&self.path, &error))?;
        self.reload();
        Ok(())
    }

    fn concerns_us(&self, changed: &Changed) -> bool {
        match changed {
            Changed::Everything => true,
            Changed::Entries(entries) => {
                // Kubernetes swaps the symlink `..data`, through which the file's own symlink leads.
                let linked = fs::symlink_metadata(&self.path).is_ok_and(|m| m.is_symlink());
                linked || entries.keys().any(|entry| entry.file_name() == self.path.file_name())
            }
        }
    }

    /// Waits until nothing more happens to the file, within a bound.
    async fn quiet(&mut self) {
        let latest = Instant::now() + QUIET_MAX;
        let mut end = Instant::now() + QUIET;
        while let Ok(changed) = timeout_at(end, self.watch.next()).await {
            if self.concerns_us(&changed) {
                end = latest.min(Instant::now() + QUIET);
            }
        }
    }

    /// Reads the file; true where it holds something else than before.
    fn reload(&mut self) -> bool {
        // Taken before the text, so that what is written meanwhile shows at the next look.
        self.stamp = stamp(&self.path);
        let found = read(&self.path);
        let changed = found != self.held;
        self.held = found;
        changed
    }
}

fn stamp(path: &Path) -> Stamp {
    let m = fs::metadata(path).ok()?;
    Some((m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec()))
}

/// A number for a text, small enough for every JSON reader, and never 0.
fn revision(text: &str) -> u64 {
    const JSON_SAFE: u64 = (1 << 53) - 1;
    (xxhash_rust::xxh3::xxh3_64(text.as_bytes()) & JSON_SAFE).max(1)
}

fn read(path: &Path) -> Document {
    let origin: Arc<str> = path.to_string_lossy().into();
    let problem = |message: String, hint: &str| {
        Problem { file: Some(origin.clone()), ..Problem::error("", message) }.hint(hint)
    };
    let none = "to send everything to current, write `routes: []` into it";
    let (revision, text) = match read_text(path) {
        Ok(text) if text.trim().is_empty() => (
            revision(&text),
            Text::Missing(problem("the rule file is empty: the last good rules stay in force".into(), none)),
        ),
        Ok(text) => (revision(&text), Text::Here(text.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (
            0,
            Text::Missing(problem("the rule file is gone: the last good rules stay in force".into(), none)),
        ),
        Err(error) => (
            0,
            Text::Unreadable(problem(
                format!("the rule file cannot be read: {error}"),
                "the last good rules stay in force until it can be",
            )),
        ),
    };
    Document { origin, revision, text }
}

fn read_text(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    if metadata.len() > BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {} MiB", BYTES_MAX >> 20)));
    }
    fs::read_to_string(path)
}

/// A document that says nothing is never meant: it would send everything to `current` without a word.
pub(crate) fn refuse_empty(text: &str) -> Result<(), ChangeError> {
    if text.trim().is_empty() {
        let problem = Problem::error("", "the rule document is empty");
        return Err(ChangeError::Invalid(Problems::from(
            problem.hint("to send everything to current, write `routes: []`"),
        )));
    }
    Ok(())
}
