//! What people and service managers send to a long-running command. TERM and INT ask it to end, HUP to read its
//! configuration anew, USR1 to restart every version that runs, USR2 to give way to a new binary.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use crate::cli::failure::Failure;
use crate::control::{ControlHandle, NotDone, UPGRADE_WITHIN};

/// TERM and INT, as one. Each one that is made sees every signal from then on.
#[derive(Debug)]
pub(super) struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    pub(super) fn listen() -> Result<Self, Failure> {
        Ok(Self { term: listen(SignalKind::terminate())?, int: listen(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    pub(super) async fn recv(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Follows HUP, USR1 and USR2, for as long as the result lives. Nobody waits for an answer, so it is logged.
pub(super) fn follow(control: &ControlHandle) -> Result<JoinSet<()>, Failure> {
    let mut hangup = listen(SignalKind::hangup())?;
    let mut usr1 = listen(SignalKind::user_defined1())?;
    let mut usr2 = listen(SignalKind::user_defined2())?;
    let mut tasks = JoinSet::new();
    let asked = control.clone();
    tasks.spawn(async move {
        while hangup.recv().await.is_some() {
            // What it has changed, it logs itself.
            if let Err(not_done) = asked.reload().await {
                tell("HUP", &not_done);
            }
        }
    });
    let asked = control.clone();
    tasks.spawn(async move {
        while usr2.recv().await.is_some() {
            if let Err(not_done) = asked.upgrade(None, UPGRADE_WITHIN).await {
                tell("USR2", &not_done);
            }
        }
    });
    let asked = control.clone();
    tasks.spawn(async move {
        while usr1.recv().await.is_some() {
            match asked.restart_all().await {
                Ok(versions) => tracing::info!(versions, "the signal USR1 restarts everything that runs"),
                Err(not_done) => tell("USR1", &not_done),
            }
        }
    });
    Ok(tasks)
}

fn tell(signal: &str, not_done: &NotDone) {
    for problem in &not_done.problems.0 {
        tracing::error!("{problem}");
    }
    tracing::error!(hint = not_done.hint, "the signal {signal} changed nothing: {not_done}");
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|e| Failure::failed(format!("cannot listen for signals: {e}")))
}
