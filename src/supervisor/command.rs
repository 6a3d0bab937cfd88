//! What others may ask of the supervisor, and what it answers.

use tokio::sync::{mpsc, oneshot, watch};

use super::output::LogStore;
use crate::version::{ServiceName, VersionId};

/// What is to be done with one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start a stopped or failed version.
    Start,
    /// Drain, then stop. Refused for a version that carries traffic, unless `force`.
    Stop {
        /// Also when it carries traffic.
        force: bool,
    },
    /// Replace the workers one at a time, in the order that the service says.
    Restart,
    /// Take no new requests, let the running ones end, then stop. Refused like `Stop`.
    Drain {
        /// Also when it carries traffic.
        force: bool,
    },
    /// Run this many workers.
    Scale {
        /// From 1.
        workers: u32,
    },
}

/// What may be asked of the supervisor.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Something for one version.
    Act(Command),
    /// The restart of everything that runs.
    RestartAll {
        /// Of this service only.
        service: Option<ServiceName>,
        /// Gets the versions that are restarted, in order, or why none is.
        reply: oneshot::Sender<Result<Vec<Restarting>, Refused>>,
    },
}

/// One version that is being restarted, or waits for its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restarting {
    /// Its service.
    pub service: ServiceName,
    /// Its name.
    pub version: VersionId,
}

/// One request about a version.
#[derive(Debug)]
pub(crate) struct Command {
    /// The service.
    pub service: ServiceName,
    /// The version, by its whole name.
    pub version: VersionId,
    /// What to do.
    pub action: Action,
    /// Gets the answer: accepted (the work goes on; the registry shows how far it is) or refused.
    pub reply: oneshot::Sender<Result<(), Refused>>,
}

/// Why the supervisor does not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// What stands in the way.
    pub message: String,
    /// What to type instead.
    pub hint: String,
}

/// How the supervisor ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Every worker is ended.
    Stop,
    /// The workers go on.
    Leave,
}

impl Refused {
    /// switchman ends: nothing is begun any more.
    pub(crate) fn at_the_end() -> Self {
        Self {
            message: "switchman is shutting down".to_owned(),
            hint: "start it again: switchman serve".to_owned(),
        }
    }
}

/// Asks the supervisor; clonable.
#[derive(Debug, Clone)]
pub struct SupervisorHandle {
    pub(crate) ask: mpsc::Sender<Ask>,
    pub(crate) ends: mpsc::Sender<(How, oneshot::Sender<()>)>,
    pub(crate) returned: watch::Receiver<bool>,
    pub(crate) logs: LogStore,
}

impl SupervisorHandle {
    /// Asks for `action` and waits until it is accepted or refused.
    pub async fn ask(&self, service: ServiceName, version: VersionId, action: Action) -> Result<(), Refused> {
        let (reply, answer) = oneshot::channel();
        self.send(Ask::Act(Command { service, version, action, reply }), answer).await
    }

    /// Restarts every version that runs, of one service or of all: each service's versions one after the other, each
    /// version's workers one at a time. Waits until that is accepted; answers with the versions, in order.
    pub async fn restart_all(&self, service: Option<ServiceName>) -> Result<Vec<Restarting>, Refused> {
        let (reply, answer) = oneshot::channel();
        self.send(Ask::RestartAll { service, reply }, answer).await
    }

    async fn send<T>(&self, ask: Ask, answer: oneshot::Receiver<Result<T, Refused>>) -> Result<T, Refused> {
        self.ask.send(ask).await.map_err(|_| Refused::at_the_end())?;
        answer.await.map_err(|_| Refused::at_the_end())?
    }

    /// Ends every process of every version at once (TERM, the version's grace, KILL), without draining: call it when
    /// the listeners are closed and the requests have ended. Returns when nothing is left.
    pub async fn shutdown(&self) {
        self.end(How::Stop).await;
    }

    /// Ends the supervisor and none of its workers: the next one over the same state folder goes on with them. Returns
    /// when every worker is recorded and nobody here reads its output any more. The registry stays as it was.
    pub async fn leave(&self) {
        self.end(How::Leave).await;
    }

    async fn end(&self, how: How) {
        let (done, ended) = oneshot::channel();
        // An error means that the supervisor has ended already.
        if self.ends.send((how, done)).await.is_ok() {
            let _ = ended.await;
        }
    }

    /// Returns when the workers that an earlier switchman has left, and that were ready, take requests again or have
    /// shown that they cannot; soon where there are none.
    pub async fn returned(&self) {
        // An error means that the supervisor has ended.
        let _ = self.returned.clone().wait_for(|returned| *returned).await;
    }

    /// What the workers print.
    pub fn logs(&self) -> &LogStore {
        &self.logs
    }
}
