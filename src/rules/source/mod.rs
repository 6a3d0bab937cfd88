//! Where rule documents and aliases come from, and how they are changed: files or etcd.
//!
//! ```text
//! file::DocumentFile  or  etcd::Store --document--+
//! file::AliasFiles    or  etcd::Store --aliases---+-> service (one task) -> publisher -> Published
//! SourceHandle --Change--> service -> plan (pure) -> the same file or etcd transaction
//! ```
//!
//! Document and aliases are two small choices, not a matrix of four sources: [`spawn`] makes each of them
//! for itself. Where etcd is configured it has the aliases; the document may be a file all the same.

pub mod etcd;
pub mod history;
pub mod plan;

pub(crate) mod atomic;
mod file;
mod service;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::RulesAt;
use crate::etcd::Cluster;
use crate::hint::Problems;
use crate::rules::publisher::{Aliases, Published};
use crate::version::ServiceName;

/// Changes that may wait for one service.
const CHANGES_MAX: usize = 64;

/// Where the rules of one service come from.
#[derive(Debug, Clone)]
pub struct SourceSpec {
    /// The service.
    pub service: ServiceName,
    /// Where its rule document is.
    pub rules: RulesAt,
    /// The folder for what survives a restart; each service has its own folder in it.
    pub state: PathBuf,
    /// The cluster that holds aliases, routes and, by default, the document. All services share one.
    pub etcd: Option<Cluster>,
}

/// The rules of one service, at work.
#[derive(Debug)]
pub struct ServiceRules {
    /// What is in force. The last good rules of the run before, or what the files say, are there at once.
    pub reader: watch::Receiver<Arc<Published>>,
    /// Asks for changes.
    pub handle: SourceHandle,
    /// Ends after `cancel`, once nothing is half written.
    pub task: JoinHandle<()>,
}

/// Why a service's rules cannot be followed at all.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The document is said to be in etcd, and there is none.
    #[error("the rules of {service} are at the etcd key {key}, and no etcd is configured")]
    NoEtcd {
        /// The service.
        service: ServiceName,
        /// The key.
        key: String,
    },
}

/// Publishes the rules of one service and takes changes until `cancel`. Must be called within a tokio runtime.
pub fn spawn(spec: SourceSpec, cancel: CancellationToken) -> Result<ServiceRules, SourceError> {
    let (changes, asked) = mpsc::channel(CHANGES_MAX);
    let (service, reader) = service::Service::open(spec, cancel.clone())?;
    let task = tokio::spawn(service.run(asked, cancel));
    Ok(ServiceRules { reader, handle: SourceHandle { changes }, task })
}

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

/// Why a change was not made. Nothing was written, unless the message says that this is not known.
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

impl ChangeError {
    /// What to type next.
    pub fn hint(&self) -> &str {
        match self {
            Self::Refused { hint, .. } => hint,
            Self::Conflict { .. } => {
                "look again (switchman versions, switchman rules get), then repeat the command"
            }
            Self::Invalid(_) => "mend the document and try it first: switchman rules check FILE",
            Self::Unavailable(_) => {
                "what is in force goes on; once this is mended: switchman versions, then try again"
            }
        }
    }
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
