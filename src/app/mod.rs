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
mod running;
mod services;
mod upgrade;

use std::future::{Future, pending};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinError;
use tokio::time::timeout;
use tokio_rustls::rustls;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::admin::{self, AdminState};
use crate::certificates::PairError;
use crate::config::{Config, Secret, state_moved};
use crate::control::{self, ControlHandle, Order};
use crate::etcd;
use crate::handover::sockets::Sockets;
use crate::handover::{Inheritance, NoPredecessor, Predecessor};
use crate::hint::Problem;
use crate::journal;
use crate::promoter;
use crate::proxy::{self, Listeners};
use crate::registry::Registry;
use crate::routing::{self, Live};
use crate::rules::source;
use crate::state_lock::{StateError, StateLock};
use crate::supervisor;
use crate::systemd;
use front::Certificates;
use running::{Next, Running};
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
    /// The state folder is not where the workers are recorded.
    #[error("{}", .0.message)]
    Moved(Box<Problem>),
    /// The process that this one follows.
    #[error(transparent)]
    Predecessor(#[from] NoPredecessor),
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
            Self::Moved(problem) => problem.hint.clone().unwrap_or_default(),
            Self::Predecessor(_) => "look at the log of the old process".to_owned(),
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

/// What is there already when switchman starts.
#[derive(Debug)]
pub enum Given {
    /// Sockets that systemd holds, or none.
    Activated(Sockets),
    /// What the process leaves that this one follows.
    Handed(Predecessor, Inheritance),
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
    /// Whom this process follows.
    predecessor: Option<Predecessor>,
}

impl App {
    /// Takes the state folder and binds every socket, so that errors come before anything is started. What another
    /// process or systemd holds already is taken from there.
    pub async fn build(config: Config, given: Given) -> Result<Self, BuildError> {
        let (state, mut given, predecessor) = match given {
            Given::Activated(sockets) => (StateLock::take(&config.state)?, sockets, None),
            Given::Handed(_, left) if left.state != config.state => {
                return Err(BuildError::Moved(Box::new(state_moved(&left.state, &config.state))));
            }
            Given::Handed(predecessor, left) => {
                (StateLock::inherit(left.lock), left.sockets, Some(predecessor))
            }
        };
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
            predecessor,
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

    /// Runs until `shutdown` ends or a new process has taken over, then drains.
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
            match running.serve(orders, &stop).await {
                Next::Stop => running.end().await,
                Next::GiveWay(heir) => running.give_way(*heir).await,
            }
            Ok(())
        };
        tokio::select! {
            never = stopped => never,
            ended = run => ended,
        }
    }

    async fn start(self) -> Result<(Running, mpsc::Receiver<Order>), BuildError> {
        let Self { config, listeners, certificates, admin, public, admin_sockets, .. } = self;
        let Self { token, mut state, control, orders, predecessor, .. } = self;
        if let Some(predecessor) = &predecessor {
            // What can fail without the workers has not.
            predecessor.built().await?;
        }
        let live = Live::new();
        let (writer, registry) = Registry::new();
        let (changes, changed) = mpsc::channel(CHANGES_AHEAD);
        let mut services = Services::new(&config, changes);
        let sources = services.open(&config.services)?;
        tokio::spawn(routing::run(live.clone(), registry.clone(), services.joined()));
        let settings = settings(&config, services.etcd());
        let alone = settings.alone.clone();
        let (supervisor, supervising) = supervisor::spawn(settings, writer, changed, live.clone());
        services.set(&config.services, sources);
        tokio::spawn(journal::follow_rules(live.clone(), supervisor.journal().clone()));
        tokio::spawn(promoter::run(live.clone(), services.policies()));
        tokio::spawn(sample(live.clone()));

        if let Err(error) = proxy::raise_open_files() {
            tracing::warn!(%error, "the limit of open files stays as it is, and with it that of connections");
        }
        if predecessor.is_some() {
            // It serves meanwhile, and says how long this may take.
            supervisor.returned().await;
        } else if timeout(RETURN_MAX, supervisor.returned()).await.is_err() {
            // Who asks meanwhile waits in the listeners' queues.
            tracing::warn!("workers of an earlier switchman are not ready again after {RETURN_MAX:?}");
        }
        let proxy = proxy::start(listeners, &live, &config.limits, &front::pages(&config))?;
        match predecessor {
            None => alone.cancel(),
            Some(predecessor) => {
                predecessor.ready(serving(&live)).await;
                if let Err(error) = state.sign() {
                    tracing::warn!(%error, "the lock of the state folder still names the old process");
                }
                tokio::spawn(async move {
                    predecessor.ended().await;
                    alone.cancel();
                });
            }
        }
        systemd::store(&public);
        systemd::store(&admin_sockets);
        let (listening, is_listening) = watch::channel(true);
        let state_for_admin = AdminState {
            node: config.node.clone(),
            live: live.clone(),
            supervisor: supervisor.clone(),
            sources: services.sources(),
            control: control.clone(),
            token,
            listening: is_listening,
        };
        let admin_end = CancellationToken::new();
        let admin = admin::serve(admin, state_for_admin, admin_end.clone());
        let running = Running {
            config,
            services,
            registry,
            live,
            supervisor,
            supervising,
            proxy,
            certificates,
            public,
            admin_sockets,
            listening,
            admin,
            admin_end,
            control,
            state,
            watchdog: AbortOnDropHandle::new(tokio::spawn(systemd::keep_alive())),
        };
        Ok((running, orders))
    }
}

/// What the supervisor needs to know of the configuration.
fn settings(config: &Config, etcd: Option<etcd::Cluster>) -> supervisor::Settings {
    supervisor::Settings {
        services: config.services.clone(),
        threads: config.threads,
        state: config.state.clone(),
        etcd,
        node: config.node.clone(),
        alone: CancellationToken::new(),
        max_workers_starting: config.max_workers_starting,
    }
}

/// Versions that take requests.
fn serving(live: &Live) -> usize {
    let routing = live.load();
    let versions = routing.services.iter().flat_map(|service| service.registry.versions.values());
    versions.filter(|version| !version.ready.is_empty()).count()
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
