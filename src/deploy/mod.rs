//! The deploy root: which folders are versions, and when one is complete.

use std::path::PathBuf;

use crate::registry::Ignored;
use crate::version::{ServiceName, VersionId};

/// What the watcher of one deploy root saw; sent to the supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionChange {
    /// The service whose root it is.
    pub service: ServiceName,
    /// What happened.
    pub kind: ChangeKind,
}

/// What happened to a deploy root or a folder in it.
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
        /// Device and inode: a folder that is replaced by rename comes again with another identity.
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
