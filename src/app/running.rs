//! A switchman that runs: it carries out orders until it is to stop, or until a new process has taken over.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::ended;
use super::front::Certificates;
use super::services::Services;
use crate::admin;
use crate::config::Config;
use crate::control::{ControlHandle, NotDone, Order};
use crate::handover::Heir;
use crate::handover::sockets::Sockets;
use crate::proxy::{Drained, ProxyHandle};
use crate::registry;
use crate::routing::Live;
use crate::state_lock::StateLock;
use crate::supervisor::Seat;
use crate::supervisor::command::SupervisorHandle;
use crate::systemd;

/// All that runs.
pub(super) struct Running {
    pub(super) config: Config,
    pub(super) services: Services,
    pub(super) registry: watch::Receiver<Arc<registry::Snapshot>>,
    pub(super) supervisor: SupervisorHandle,
    pub(super) live: Arc<Live>,
    pub(super) supervising: JoinHandle<Seat>,
    pub(super) proxy: ProxyHandle,
    pub(super) certificates: Option<Certificates>,
    /// The public sockets once more: they are stored, handed on and kept through a reload.
    pub(super) public: Sockets,
    /// Likewise those of the admin API.
    pub(super) admin_sockets: Sockets,
    /// Whether the data plane accepts requests.
    pub(super) listening: watch::Sender<bool>,
    pub(super) admin: JoinHandle<admin::SocketFile>,
    pub(super) admin_end: CancellationToken,
    pub(super) control: ControlHandle,
    pub(super) state: StateLock,
    pub(super) watchdog: AbortOnDropHandle<()>,
}

/// Why nothing is carried out any more.
pub(super) enum Next {
    /// It is to stop.
    Stop,
    /// A new process has taken over.
    GiveWay(Box<Heir>),
}

impl Running {
    /// Carries out orders, one after the other.
    pub(super) async fn serve(
        &mut self,
        mut orders: mpsc::Receiver<Order>,
        stop: &CancellationToken,
    ) -> Next {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Next::Stop,
                Some(order) = orders.recv() => {
                    if let Some(heir) = self.carry_out(order, stop).await {
                        return Next::GiveWay(Box::new(heir));
                    }
                }
                Ok(()) = self.registry.changed(), if self.services.any_ending() => {
                    let registry = self.registry.borrow_and_update().clone();
                    self.services.forget_ended(&registry);
                }
            }
        }
    }

    /// Who asked may have gone away, and need not know.
    async fn carry_out(&mut self, order: Order, stop: &CancellationToken) -> Option<Heir> {
        match order {
            Order::Reload(reply) => {
                systemd::reloading();
                let done = self.reload().await;
                systemd::ready("serving");
                let _ = reply.send(done);
                None
            }
            Order::RestartAll(reply) => {
                let asked = self.supervisor.restart_all(None).await;
                let asked = asked.map_err(|refused| NotDone::refused(refused.message, refused.hint));
                let _ = reply.send(asked.map(|versions| versions.len()));
                None
            }
            Order::Upgrade { binary, within, reply } => match self.upgrade(binary, within, stop).await {
                Ok((heir, upgraded)) => {
                    // The new process answers from now on, but for this.
                    self.admin_end.cancel();
                    let _ = reply.send(Ok(upgraded));
                    Some(heir)
                }
                Err(not_done) => {
                    let _ = reply.send(Err(not_done));
                    None
                }
            },
        }
    }

    /// Inputs stop, requests end, workers stop, admin last.
    pub(super) async fn end(self) {
        systemd::stopping();
        let drain = self.config.drain;
        tracing::info!(deadline = ?drain, "draining: no new connections, running requests end");
        self.listening.send_replace(false);
        drop((self.public, self.admin_sockets));
        let ((), drained) = tokio::join!(self.services.end(), self.proxy.drain(drain));
        tell(drained);
        self.supervisor.shutdown().await;
        ended("the supervisor", self.supervising.await);
        self.admin_end.cancel();
        ended("the admin server", self.admin.await);
        drop(self.state);
        tracing::info!("ended");
    }

    /// The workers belong to the new process, and so do the sockets and their files; what runs here ends.
    pub(super) async fn give_way(self, heir: Heir) {
        let drain = self.config.drain;
        let (old, pid) = (std::process::id(), heir.pid());
        tracing::info!(old, pid, deadline = ?drain, "draining: the new process serves, running requests end here");
        drop((self.watchdog, self.state, self.public, self.admin_sockets));
        // Who follows asks the new process for the rest.
        self.supervisor.logs().close().await;
        self.supervisor.journal().close();
        let ((), drained) = tokio::join!(self.services.end(), self.proxy.give_way(drain));
        tell(drained);
        ended("the supervisor", self.supervising.await);
        if let Ok(file) = self.admin.await {
            file.leave();
        }
        tracing::info!(old, "ended");
        drop(heir);
    }
}

fn tell(drained: Drained) {
    if drained.cut > 0 {
        tracing::warn!(connections = drained.cut, "cut at the deadline: their requests had not ended");
    }
}
