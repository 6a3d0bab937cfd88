//! What people and service managers send to a long-running command: TERM and INT ask it to end. HUP, USR1 and
//! USR2, which mean something to other servers, must not end it by accident.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use crate::cli::failure::Failure;

/// Both signals, as one. Each one that is made sees every signal from then on.
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

/// Survives the signals that other servers reload or restart on, and says what to do instead. For as long as the
/// result lives.
pub(super) fn survive_others() -> Result<JoinSet<()>, Failure> {
    let kinds = [
        (SignalKind::hangup(), "HUP"),
        (SignalKind::user_defined1(), "USR1"),
        (SignalKind::user_defined2(), "USR2"),
    ];
    let mut tasks = JoinSet::new();
    for (kind, name) in kinds {
        let mut signals = listen(kind)?;
        tasks.spawn(async move {
            while signals.recv().await.is_some() {
                tracing::warn!(
                    "the signal {name} changes nothing: rules are read by themselves, workers are replaced by \
                     `switchman restart VERSION`, and a changed configuration needs a restart of switchman"
                );
            }
        });
    }
    Ok(tasks)
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|e| Failure::failed(format!("cannot listen for signals: {e}")))
}
