//! The deploy root: which folders are versions, when one is complete, and what becomes of its files later.
//!
//! ```text
//! fs_watch --look again--> scan: Listing --> tracker (diff, settle) --VersionChange--> supervisor
//!       manifest: Look, proof: Proven -------^      |
//!       check: Checked, restart_file                |
//!                 ^-- what is due ------------------+
//! ```
//!
//! The root is watched, not what lies below it: a big tree costs no kernel watches, and an upload no event
//! for each write. Whether a folder is complete is read off the folder itself, a few times while it arrives: the
//! kernel stamps each change (`ctime`), and no tool can set that stamp back. A quiet folder is put to the proof
//! once: the marker, open files, checksums. Later its files are compared with what they were, now and then, with a
//! hundredth of a core for all versions of a service.

use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::registry::Ignored;
use crate::version::{ServiceName, VersionId};

pub mod check;
pub mod diff;
pub mod inventory;
mod kept;
pub mod manifest;
pub mod proof;
pub mod restart_file;
pub mod scan;
pub mod settle;
mod sums;
pub mod tracker;
mod transfer;
pub mod watcher;
pub mod writers;

/// What the watcher of one deploy root saw; sent to the supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionChange {
    /// The service whose root it is.
    pub service: ServiceName,
    /// What happened.
    pub kind: ChangeKind,
}

/// What happened to a deploy root or a folder in it.
///
/// A folder that takes the place of another one of the same name is `Gone`, then `Arriving` or `Settled`.
/// One that is renamed after it had settled is `Gone` under the old name and at once `Settled` under the new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// A version's folder is there and may still be growing.
    Arriving {
        /// The version.
        version: VersionId,
        /// Its folder.
        path: PathBuf,
    },
    /// The folder is complete; it may be started.
    Settled {
        /// The version.
        version: VersionId,
        /// Its folder.
        path: PathBuf,
        /// Tells this folder from every other that had or will have its name. Made of device, inode and time
        /// of birth (a file system gives a freed inode to the next folder); means nothing else.
        identity: (u64, u64),
    },
    /// Why a folder that is quiet is not taken for complete, or for complete again; none when it goes on.
    Waits {
        /// The version.
        version: VersionId,
        /// In words.
        why: Option<String>,
    },
    /// The folder is quiet, and is not what its list of checksums says. It settles once it is.
    Broken {
        /// The version.
        version: VersionId,
        /// Its folder.
        path: PathBuf,
        /// In words, with the names of the files.
        why: String,
    },
    /// Files that were there when the folder settled have changed or are gone.
    Modified {
        /// The version.
        version: VersionId,
        /// Which, and when.
        modification: Modification,
    },
    /// The version's workers are to be replaced, one at a time.
    RestartAsked {
        /// The version.
        version: VersionId,
        /// Why, in words.
        why: String,
    },
    /// The folder is gone.
    Gone {
        /// The version.
        version: VersionId,
    },
    /// The list of other things under the root has changed.
    Ignored(Vec<Ignored>),
    /// What is wrong with the root itself, or that it is well again.
    Root(Option<String>),
}

/// Text with names of files in it, as it can be shown: one with a line break in it must not look like another line.
fn in_one_line(text: &str) -> String {
    text.replace(char::is_control, "?")
}

/// Files that are named where many have changed.
const NAMED_MAX: usize = 5;

/// Files of a version that are not what they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modification {
    /// Some of them, by their paths below the folder, in words.
    pub files: Vec<String>,
    /// Whether there are others.
    pub others: bool,
    /// When the last of them changed, by the file system's clock; the latest that it can have been.
    pub at: SystemTime,
}

impl Modification {
    fn new(differences: &[inventory::Difference<'_>], at: SystemTime) -> Self {
        let name = |difference: &inventory::Difference<'_>| {
            let gone = if difference.at.is_none() { " (gone)" } else { "" };
            in_one_line(&format!("{}{gone}", difference.path.display()))
        };
        let files = differences.iter().take(NAMED_MAX).map(name).collect();
        Self { files, others: differences.len() > NAMED_MAX, at }
    }

    /// This one, with what came before it. Answers whether that says more than what came before.
    pub fn after(&mut self, before: &Self) -> bool {
        let new = std::mem::replace(&mut self.files, before.files.clone());
        for file in new {
            if self.files.contains(&file) {
                continue;
            }
            if self.files.len() == NAMED_MAX {
                self.others = true;
                break;
            }
            self.files.push(file);
        }
        self.others |= before.others;
        self.at = self.at.max(before.at);
        self.files != before.files || self.others != before.others
    }
}

impl fmt::Display for Modification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.files.join(", "))?;
        f.write_str(if self.others { " and others" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn modifications_add_up_to_a_short_text() {
        let of = |files: &[&str], second| Modification {
            files: files.iter().map(|f| (*f).to_owned()).collect(),
            others: false,
            at: UNIX_EPOCH + Duration::from_secs(second),
        };
        let first = of(&["a", "b"], 2);
        let mut second = of(&["b"], 1);
        assert!(!second.after(&first), "nothing new");
        assert_eq!(second, first);
        let mut third = of(&["b", "c", "d", "e", "f"], 3);
        assert!(third.after(&first));
        assert_eq!((third.to_string().as_str(), third.at), ("a, b, c, d, e and others", of(&[], 3).at));
        let mut fourth = of(&["g"], 4);
        assert!(!fourth.after(&third), "it is among the others");
    }
}
