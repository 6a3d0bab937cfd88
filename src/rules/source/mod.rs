//! Where rule documents and aliases come from, and how they are changed: files or etcd.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::hint::Problems;
use crate::rules::publisher::Aliases;

/// A change that a person (or `promote: auto`) asks for. Each is one guarded, atomic write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// `current` -> the version, `previous` -> what was current.
    Promote {
        /// The version, by its whole name.
        version: String,
    },
    /// Sets `current` to the version if it is not set, and changes nothing if it is.
    First {
        /// The version, by its whole name.
        version: String,
    },
    /// Swaps `current` and `previous`.
    Rollback,
    /// Sets an alias.
    Tag {
        /// The alias.
        name: String,
        /// The version, by its whole name.
        version: String,
    },
    /// Removes an alias.
    Untag {
        /// The alias.
        name: String,
    },
    /// Replaces the rule document.
    Document {
        /// The new text.
        text: Arc<str>,
        /// Refuse unless the document still has this revision.
        if_revision: Option<u64>,
    },
}

/// Why a change was not made. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is nothing to go back to, no such alias, or the alias is reserved.
    #[error("{message}")]
    Refused {
        /// What is wrong.
        message: String,
        /// What to type instead.
        hint: String,
    },
    /// Somebody else was faster.
    #[error("the rules were changed by somebody else meanwhile (revision {found}, not {expected})")]
    Conflict {
        /// The revision that was read.
        expected: u64,
        /// The revision that is there.
        found: u64,
    },
    /// The document has errors.
    #[error("{0}")]
    Invalid(Problems),
    /// The source cannot be reached or written.
    #[error("{0}")]
    Unavailable(String),
}

/// Asks a source for changes; clonable.
#[derive(Debug, Clone)]
pub struct SourceHandle {
    pub(crate) changes: mpsc::Sender<Request>,
}

/// One change that is asked for.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) change: Change,
    pub(crate) who: Who,
    /// Gets the aliases after the change.
    pub(crate) reply: oneshot::Sender<Result<Aliases, ChangeError>>,
}

/// Who asks for a change, for the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who(pub String);

impl SourceHandle {
    /// Makes one change; answers with the aliases after it, once it is stored.
    pub async fn apply(&self, change: Change, who: Who) -> Result<Aliases, ChangeError> {
        let (reply, answer) = oneshot::channel();
        let gone = || ChangeError::Unavailable("switchman is shutting down".to_owned());
        self.changes.send(Request { change, who, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}
