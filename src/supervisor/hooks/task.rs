//! The task of one hook: waits for its turn, where it has to, runs it, and says how it went.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::process::Job;
use super::{Kind, Said};
use crate::etcd::once::{Once, Unfinished};
use crate::supervisor::{Event, Key};

/// Everything that the task needs.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) key: Key,
    /// Tells it from those of before.
    pub(super) number: u64,
    pub(super) job: Job,
    /// Where the nodes agree who runs it; none: this one does.
    pub(super) once: Option<Once>,
    /// Whose turn it is on this node.
    pub(super) turn: Arc<Semaphore>,
    /// Cancelled when nothing is left of an earlier switchman that nobody goes on with: its hooks, too.
    pub(super) cleared: CancellationToken,
    /// Tells it to end.
    pub(super) told: CancellationToken,
    /// Cancelled when nothing of it is left.
    pub(super) over: CancellationToken,
    pub(super) events: mpsc::Sender<Event>,
}

impl Task {
    /// Runs to the end of the hook.
    pub(super) async fn run(self) {
        let cleared = self.told.run_until_cancelled(self.cleared.cancelled()).await;
        let ended = match self.job.kind {
            _ if cleared.is_none() => Err(Unfinished::Told),
            Kind::BeforeStart => self.in_turn().await,
            Kind::AfterReady | Kind::BeforeStop => self.job.run(&self.told).await,
        };
        self.over.cancel();
        let Self { key, job, number, events, .. } = self;
        // The supervisor may have ended.
        let _ = events.send(Event::Hook(key, job.kind, number, Said::Ended(ended))).await;
    }

    /// Two migrations of one application at a time do no good.
    async fn in_turn(&self) -> Result<(), Unfinished> {
        if self.turn.available_permits() == 0 {
            self.tell("waits for that of another version".to_owned());
        }
        let turn = self.told.run_until_cancelled(self.turn.acquire()).await;
        let Some(_turn) = turn else { return Err(Unfinished::Told) };
        let work = async |told: CancellationToken| {
            self.tell("runs".to_owned());
            self.job.run(&told).await
        };
        match &self.once {
            None => work(self.told.clone()).await,
            Some(once) => once.run(&self.told, |what| self.tell(what), work).await,
        }
    }

    /// Says how far it is.
    fn tell(&self, what: String) {
        let said = Event::Hook(self.key.clone(), self.job.kind, self.number, Said::Is(what));
        // Where there is no room it is told again with the next look.
        let _ = self.events.try_send(said);
    }
}
