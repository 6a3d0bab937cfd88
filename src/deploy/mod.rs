//! The deploy root: which folders are versions, and when one is complete.
//!
//! ```text
//! fs_watch --look again--> scan: Listing --> tracker (diff, settle) --VersionChange--> supervisor
//!                       manifest: Look ----^      |
//!                            ^-- what is due -----+
//! ```
//!
//! The root is watched, not what lies below it: a big tree costs no kernel watches, and an upload no event
//! for each write. Whether a folder is complete is read off the folder itself, a few times while it arrives
//! and never again: the kernel stamps each change (`ctime`), and no tool can set that stamp back.

use std::path::PathBuf;

use crate::registry::Ignored;
use crate::version::{ServiceName, VersionId};

pub mod diff;
pub mod manifest;
pub mod scan;
pub mod settle;
pub mod tracker;
pub mod watcher;

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
