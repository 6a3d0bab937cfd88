//! The only file that knows every part: a [`Config`] is built into bound sockets, run, and drained.
//!
//! ```text
//! build: take the state folder, bind the public and admin sockets     (errors here end the start)
//! run:   sources -> routing <- registry <- supervisor <- watchers; proxy and admin read routing
//!        orders (admin, signals): reload changes what runs
//! drain: watchers and sources stop; listeners stop accepting; requests end; workers stop; admin last
//! ```

mod front;
mod reload;
mod services;

use std::future::{Future, pending};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio_rustls::rustls;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::admin::{self, AdminState};
use crate::certificates::PairError;
use crate::config::{Config, Secret};
use crate::control::{self, ControlHandle, Order};
use crate::handover::sockets::Sockets;
use crate::promoter;
use crate::proxy::{self, Listeners, ProxyHandle};
use crate::registry::{self, Registry};
use crate::routing::{self, Live};
use crate::rules::source;
use crate::state_lock::{StateError, StateLock};
use crate::supervisor;
use crate::supervisor::command::SupervisorHandle;
use crate::systemd;
use front::Certificates;
use services::Services;

/// Changes that the watchers may be ahead of the supervisor.
const CHANGES_AHEAD: usize = 1024;
/// How long requests may wait for workers that an earlier switchman has left.
const RETURN_MAX: Duration = Duration::from_secs(3);
/// Between two samples of the traffic counters.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Why switchman does not start. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// A public address.
    #[error(transparent)]
    Listen(#[from] proxy::BindError),
    /// The admin socket or address.
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    /// The admin token.
    #[error(transparent)]
    Token(#[from] admin::auth::TokenError),
    /// A certificate or its key.
    #[error(transparent)]
    Certificate(#[from] PairError),
    /// The randomness that TLS needs.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// A service's rules.
    #[error(transparent)]
    Rules(#[from] source::SourceError),
    /// The sockets once more, for a reload or a new process.
    #[error("the sockets cannot be kept: {0}")]
    Share(io::Error),
    /// A data-plane thread.
    #[error(transparent)]
    Threads(#[from] proxy::StartError),
}

impl BuildError {
    /// What to type next.
    pub fn hint(&self) -> String {
        match self {
            Self::State(error) => error.hint(),
            Self::Listen(error) => error.hint.clone(),
            Self::Admin(error) => error.hint(),
            Self::Token(error) => error.hint(),
            Self::Certificate(error) => error.hint.clone(),
            Self::Tls(_) => {
                "look at the machine's entropy: cat /proc/sys/kernel/random/entropy_avail".to_owned()
            }
            Self::Rules(_) => "etcd: {endpoints: [\"http://127.0.0.1:2379\"]}".to_owned(),
            Self::Share(_) | Self::Threads(_) => {
                "set `threads:` to a smaller number, or raise the limits: ulimit -n -u".to_owned()
            }
        }
    }
}

/// A switchman whose sockets are bound and that does not run yet.
pub struct App {
    config: Config,
    listeners: Listeners,
    certificates: Option<Certificates>,
    admin: admin::Bound,
    /// All sockets once more: they are stored, handed on and kept through a reload.
    public: Sockets,
    admin_sockets: Sockets,
    token: Secret,
    state: StateLock,
    control: ControlHandle,
    orders: mpsc::Receiver<Order>,
}

impl App {
    /// Takes the state folder and binds every socket that is not among `given`, so that errors come before anything is
    /// started.
    pub async fn build(config: Config, mut given: Sockets) -> Result<Self, BuildError> {
        let state = StateLock::take(&config.state)?;
        let token = admin::auth::token(&config.state)?;
        let certificates = Certificates::of(&config, None)?;
        let front = front::front(&config, certificates.as_ref());
        let listeners = proxy::bind_or_take(front, config.threads, &mut given)?;
        let admin = admin::bind(&config.admin, &mut given).await?;
        given.close();
        let public = listeners.share().map_err(BuildError::Share)?;
        let admin_sockets = admin.share().map_err(BuildError::Share)?;
        let (control, orders) = control::channel();
        Ok(Self {
            config,
            listeners,
            certificates,
            admin,
            public,
            admin_sockets,
            token,
            state,
            control,
            orders,
        })
    }

    /// The public addresses.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.listeners.addresses()
    }

    /// The admin address, where there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.address()
    }

    /// Asks what runs for a reload or an upgrade.
    pub fn control(&self) -> ControlHandle {
        self.control.clone()
    }

    /// Runs until `shutdown` ends, then drains.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), BuildError> {
        let stop = CancellationToken::new();
        let stopped = async {
            shutdown.await;
            stop.cancel();
            pending().await
        };
        let run = async {
            let (mut running, orders) = self.start().await?;
            systemd::ready("serving");
            running.serve(orders, &stop).await;
            systemd::stopping();
            running.end().await;
            Ok(())
        };
        tokio::select! {
            never = stopped => never,
            ended = run => ended,
        }
    }

    async fn start(self) -> Result<(Running, mpsc::Receiver<Order>), BuildError> {
        let Self {
            config,
            listeners,
            certificates,
            admin,
            public,
            admin_sockets,
            token,
            state,
            control,
            orders,
        } = self;
        let live = Live::new();
        let (writer, registry) = Registry::new();
        let (changes, changed) = mpsc::channel(CHANGES_AHEAD);
        let mut services = Services::new(&config, changes);
        let sources = services.open(&config.services)?;
        services.set(&config.services, sources);
        tokio::spawn(routing::run(live.clone(), registry.clone(), services.joined()));
        let settings = supervisor::Settings {
            services: config.services.clone(),
            threads: config.threads,
            state: config.state.clone(),
            alone: CancellationToken::new(),
        };
        settings.alone.cancel();
        let (supervisor, supervising) = supervisor::spawn(settings, writer, changed, live.clone());
        tokio::spawn(promoter::run(live.clone(), services.policies()));
        tokio::spawn(sample(live.clone()));

        if let Err(error) = proxy::raise_open_files() {
            tracing::warn!(%error, "the limit of open files stays as it is, and with it that of connections");
        }
        // Who asks while workers of an earlier switchman come back waits in the listeners' queues.
        if tokio::time::timeout(RETURN_MAX, supervisor.returned()).await.is_err() {
            tracing::warn!("workers of an earlier switchman are not ready again after {RETURN_MAX:?}");
        }
        let proxy = proxy::start(listeners, &live, &config.limits, &front::pages(&config))?;
        systemd::store(&public);
        systemd::store(&admin_sockets);
        let (listening, is_listening) = watch::channel(true);
        let state_for_admin = AdminState {
            node: config.node.clone(),
            live,
            supervisor: supervisor.clone(),
            sources: services.sources(),
            control,
            token,
            listening: is_listening,
        };
        let admin_end = CancellationToken::new();
        let admin = admin::serve(admin, state_for_admin, admin_end.clone());
        let running = Running {
            config,
            services,
            registry,
            supervisor,
            supervising,
            proxy,
            certificates,
            public,
            admin_sockets,
            listening,
            admin,
            admin_end,
            _watchdog: AbortOnDropHandle::new(tokio::spawn(systemd::keep_alive())),
            _state: state,
        };
        Ok((running, orders))
    }
}

/// A switchman that runs.
struct Running {
    config: Config,
    services: Services,
    registry: watch::Receiver<Arc<registry::Snapshot>>,
    supervisor: SupervisorHandle,
    supervising: JoinHandle<()>,
    proxy: ProxyHandle,
    certificates: Option<Certificates>,
    /// The public sockets once more.
    public: Sockets,
    admin_sockets: Sockets,
    listening: watch::Sender<bool>,
    admin: JoinHandle<admin::SocketFile>,
    admin_end: CancellationToken,
    _watchdog: AbortOnDropHandle<()>,
    _state: StateLock,
}

impl Running {
    /// Carries out orders, one after the other, until it is to stop.
    async fn serve(&mut self, mut orders: mpsc::Receiver<Order>, stop: &CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(order) = orders.recv() => self.carry_out(order).await,
                Ok(()) = self.registry.changed(), if self.services.any_ending() => {
                    let registry = self.registry.borrow_and_update().clone();
                    self.services.forget_ended(&registry);
                }
            }
        }
    }

    async fn carry_out(&mut self, order: Order) {
        // Who asked may have gone away.
        match order {
            Order::Reload(reply) => {
                systemd::reloading();
                let done = self.reload().await;
                systemd::ready("serving");
                let _ = reply.send(done);
            }
            Order::Upgrade { reply, .. } => {
                let _ = reply.send(Err(control::NotDone::refused("not yet", "soon")));
            }
        }
    }

    /// Inputs stop, requests end, workers stop, admin last.
    async fn end(self) {
        let drain = self.config.drain;
        tracing::info!(deadline = ?drain, "draining: no new connections, running requests end");
        self.listening.send_replace(false);
        drop((self.public, self.admin_sockets));
        let ((), drained) = tokio::join!(self.services.end(), self.proxy.drain(drain));
        told_of_cut(drained);
        self.supervisor.shutdown().await;
        ended("the supervisor", self.supervising.await);
        self.admin_end.cancel();
        ended("the admin server", self.admin.await);
        tracing::info!("ended");
    }
}

fn told_of_cut(drained: proxy::Drained) {
    if drained.cut > 0 {
        tracing::warn!(connections = drained.cut, "cut at the deadline: their requests had not ended");
    }
}

fn ended<T>(what: &str, how: Result<T, JoinError>) {
    if let Err(error) = how {
        tracing::error!(%error, "{what} did not end well");
    }
}

/// Takes each version's traffic sample once a second.
async fn sample(live: Arc<Live>) {
    let mut ticks = tokio::time::interval(SAMPLE_EVERY);
    loop {
        ticks.tick().await;
        let now = Timestamp::now();
        let snapshot = live.load();
        for version in snapshot.services.iter().flat_map(|s| s.registry.versions.values()) {
            version.counters.sample(now);
        }
    }
}
