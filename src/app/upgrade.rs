//! A new process takes over: this one's part of [`crate::handover`].

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::running::Running;
use super::{BuildError, RETURN_MAX};
use crate::control::{NotDone, Upgraded};
use crate::handover::{self, Heir, NoHeir};
use crate::supervisor;
use crate::systemd;

impl Running {
    /// Starts a new process and hands everything over to it. After a success only the drain is left to do.
    pub(super) async fn upgrade(
        &mut self,
        binary: Option<PathBuf>,
        within: Duration,
        stop: &CancellationToken,
    ) -> Result<(Heir, Upgraded), NotDone> {
        if std::process::id() == 1 {
            return Err(NotDone::refused(
                "switchman is process 1, with whose end everything ends: it cannot give way to another one",
                "a container is replaced, not upgraded: start one with the new image, and end this one",
            ));
        }
        let binary = match binary {
            Some(binary) => binary,
            None => handover::own_binary().map_err(|error| {
                NotDone::failed(
                    format!("the file of this process is not known: {error}"),
                    "name it: switchman upgrade --binary FILE",
                )
            })?,
        };
        let mut heir = Heir::start(&binary).map_err(not_done)?;
        let shared = self.share().map_err(|error| NotDone::failed(error.to_string(), error.hint()))?;
        let built = heir.build(&self.config.state, self.state.as_fd(), &shared);
        let built = in_time(built, within, stop).await;
        drop(shared);
        conclude(built, &mut heir, within).await.map_err(not_done)?;

        // From here on the workers change hands.
        self.control.give_way(true);
        self.supervisor.leave().await;
        let taken = in_time(heir.take_over(), within, stop).await;
        match conclude(taken, &mut heir, within).await {
            Ok(versions) => {
                systemd::main_pid(heir.pid());
                heir.let_go().await;
                let (pid, old_pid) = (heir.pid(), std::process::id());
                tracing::info!(pid, versions, "a new process has taken over");
                Ok((heir, Upgraded { pid, old_pid, binary, versions }))
            }
            Err(why) => {
                tracing::error!(%why, "the workers are taken back");
                self.take_back().await;
                self.control.give_way(false);
                Err(not_done(why))
            }
        }
    }

    /// Goes on with the workers that were to be another process's.
    async fn take_back(&mut self) {
        let seat = match (&mut self.supervising).await {
            Ok(seat) => seat,
            Err(error) => {
                tracing::error!(%error, "the supervisor did not end well; what runs goes on unattended until a restart");
                return;
            }
        };
        let settings = super::settings(&self.config, self.services.etcd());
        settings.alone.cancel();
        self.supervising = supervisor::take_seat(settings, seat, self.live.clone());
        // It knows of no folder yet.
        self.services.watch_again();
        if timeout(RETURN_MAX, self.supervisor.returned()).await.is_err() {
            tracing::warn!("some workers do not answer yet, {RETURN_MAX:?} after they were taken back");
        }
    }

    /// All sockets once more.
    fn share(&self) -> Result<handover::sockets::Sockets, BuildError> {
        let mut shared = self.public.try_clone().map_err(BuildError::Share)?;
        shared.extend(self.admin_sockets.try_clone().map_err(BuildError::Share)?);
        Ok(shared)
    }
}

/// Why a step has no result.
enum Cut {
    Late,
    Stopped,
    Failed(NoHeir),
}

/// One step, up to its deadline, or until this process is to end.
async fn in_time<T>(
    step: impl Future<Output = Result<T, NoHeir>>,
    within: Duration,
    stop: &CancellationToken,
) -> Result<T, Cut> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(Cut::Stopped),
        done = timeout(within, step) => match done {
            Ok(done) => done.map_err(Cut::Failed),
            Err(_) => Err(Cut::Late),
        },
    }
}

/// The step's result; without one the new process has ended.
async fn conclude<T>(step: Result<T, Cut>, heir: &mut Heir, within: Duration) -> Result<T, NoHeir> {
    match step {
        Ok(done) => Ok(done),
        Err(Cut::Failed(why)) => Err(why),
        Err(Cut::Late) => Err(heir.late(within).await),
        Err(Cut::Stopped) => Err(heir.give_up().await),
    }
}

fn not_done(why: NoHeir) -> NotDone {
    NotDone::failed(
        format!("nothing has changed: {why}"),
        "mend what it says, and try again: switchman upgrade",
    )
}
