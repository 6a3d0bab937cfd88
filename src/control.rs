//! What a person may ask of switchman as a whole, and its answers: to read its configuration anew, to restart every
//! version, and to give way to a new binary. [`crate::app`] does it; the admin API and signals ask.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::hint::Problems;
use crate::version::{ServiceName, VersionId};

/// How long each half of an upgrade may take, where nobody says.
pub const UPGRADE_WITHIN: Duration = Duration::from_secs(30);
/// Orders that may wait: they are carried out one after the other.
const ORDERS_WAITING: usize = 8;

/// What is asked.
#[derive(Debug)]
pub enum Order {
    /// To read the configuration anew.
    Reload(oneshot::Sender<Result<Reloaded, NotDone>>),
    /// To restart every version that runs: a number of versions, or why not.
    RestartAll(oneshot::Sender<Result<usize, NotDone>>),
    /// To start a new binary and to hand everything over to it.
    Upgrade {
        /// Which one; none: the one that this process was started from, as it is now.
        binary: Option<PathBuf>,
        /// How long each half of it may take: until the new process has built everything, and until it serves.
        within: Duration,
        /// Gets the answer once the new process has taken over, or has failed to.
        reply: oneshot::Sender<Result<Upgraded, NotDone>>,
    },
}

/// What a reload has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// The keys whose values are others now, as in `services.app.hosts`, in order.
    pub changed: Vec<String>,
    /// Versions whose workers still run as the file said before.
    pub restart_needed: Vec<(ServiceName, VersionId)>,
    /// What may not be meant.
    pub warnings: Problems,
}

/// What an upgrade has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgraded {
    /// The process that serves now.
    pub pid: u32,
    /// The process that ends when its last request has.
    pub old_pid: u32,
    /// The binary of the new one.
    pub binary: PathBuf,
    /// Versions whose workers went on.
    pub versions: usize,
}

/// Why it was not done. Everything is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NotDone {
    /// Whose fault it is.
    pub kind: NotDoneKind,
    /// What went wrong.
    pub message: String,
    /// What to type next.
    pub hint: String,
    /// Each thing that is wrong with the configuration.
    pub problems: Problems,
}

/// Whose fault it is that something was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotDoneKind {
    /// The configuration has errors.
    Invalid,
    /// It cannot be done here, or now.
    Refused,
    /// It was tried and failed.
    Failed,
}

impl NotDone {
    /// It cannot be done here, or now.
    pub fn refused(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(NotDoneKind::Refused, message, hint)
    }

    /// It was tried and failed.
    pub fn failed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(NotDoneKind::Failed, message, hint)
    }

    fn new(kind: NotDoneKind, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let (message, hint) = (message.into(), hint.into());
        Self { kind, message, hint, problems: Problems::default() }
    }

    /// The configuration has errors.
    pub fn invalid(problems: Problems) -> Self {
        let message = "the configuration has errors, and what was in force stays in force";
        let hint = "mend the file and try again: switchman reload";
        Self { problems, ..Self::new(NotDoneKind::Invalid, message, hint) }
    }

    fn gone() -> Self {
        Self::refused("switchman is shutting down", "start it again: switchman serve")
    }
}

/// Asks; clonable.
#[derive(Debug, Clone)]
pub struct ControlHandle {
    orders: mpsc::Sender<Order>,
    gives_way: Arc<AtomicBool>,
}

/// A handle, and where its orders arrive.
pub fn channel() -> (ControlHandle, mpsc::Receiver<Order>) {
    let (orders, asked) = mpsc::channel(ORDERS_WAITING);
    (ControlHandle { orders, gives_way: Arc::default() }, asked)
}

impl ControlHandle {
    /// Has the configuration read anew.
    ///
    /// # Errors
    /// It cannot be used, or names what cannot change while switchman runs. Nothing has changed then.
    pub async fn reload(&self) -> Result<Reloaded, NotDone> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(Order::Reload(reply)).await.map_err(|_| NotDone::gone())?;
        answer.await.map_err(|_| NotDone::gone())?
    }

    /// Has every version that runs restarted, one worker at a time; answers with their number once that is accepted.
    ///
    /// # Errors
    /// The supervisor refuses.
    pub async fn restart_all(&self) -> Result<usize, NotDone> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(Order::RestartAll(reply)).await.map_err(|_| NotDone::gone())?;
        answer.await.map_err(|_| NotDone::gone())?
    }

    /// Whether a new process is taking over: what is changed here now, it might not see.
    pub fn gives_way(&self) -> bool {
        self.gives_way.load(Relaxed)
    }

    /// Begins that, or ends it.
    pub fn give_way(&self, gives_way: bool) {
        self.gives_way.store(gives_way, Relaxed);
    }

    /// Has a new binary take over.
    ///
    /// # Errors
    /// It did not start, refused its configuration or did not become ready in time. Nothing has changed then.
    pub async fn upgrade(&self, binary: Option<PathBuf>, within: Duration) -> Result<Upgraded, NotDone> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(Order::Upgrade { binary, within, reply }).await.map_err(|_| NotDone::gone())?;
        answer.await.map_err(|_| NotDone::gone())?
    }
}
