//! The only file that knows every part: a [`Config`] is built into bound sockets, run, and drained.
//!
//! ```text
//! build: take the state folder, bind the public and admin sockets     (errors here end the start)
//! run:   sources -> routing <- registry <- supervisor <- watchers; proxy and admin read routing
//! drain: watchers and sources stop; listeners stop accepting; requests end; workers stop; admin last
//! ```

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, AdminState};
use crate::config::Config;
use crate::deploy::watcher::{self, WatchSpec};
use crate::promoter;
use crate::proxy;
use crate::registry::Registry;
use crate::routing::{self, Live};
use crate::rules::source::{self, SourceSpec};
use crate::state_lock::{StateError, StateLock};
use crate::supervisor;

/// Changes that the watchers may be ahead of the supervisor.
const CHANGES_AHEAD: usize = 1024;
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
}

impl BuildError {
    /// What to type next.
    pub fn hint(&self) -> String {
        match self {
            Self::State(error) => error.hint(),
            Self::Listen(error) => error.hint(),
            Self::Admin(error) => error.hint(),
        }
    }
}

/// A switchman whose sockets are bound and that does not run yet.
#[derive(Debug)]
pub struct App {
    config: Config,
    listeners: proxy::Listeners,
    admin: admin::Bound,
    state: StateLock,
}

/// Where a built switchman listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// The public addresses.
    pub public: Vec<SocketAddr>,
    /// The admin address, where there is one.
    pub admin: Option<SocketAddr>,
    /// The admin socket.
    pub socket: PathBuf,
}

impl App {
    /// Takes the state folder and binds every socket, so that addresses are known and errors come early.
    pub fn build(config: Config) -> Result<Self, BuildError> {
        let state = StateLock::take(&config.state)?;
        let listeners = proxy::bind(&config.listen, config.threads)?;
        let admin = admin::bind(&config.admin)?;
        Ok(Self { config, listeners, admin, state })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        Addresses {
            public: self.listeners.addresses().to_vec(),
            admin: self.admin.address(),
            socket: self.config.admin.socket.clone(),
        }
    }

    /// Runs until `shutdown`, then drains. A second `shutdown` is the caller's business.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { config, listeners, admin, state } = self;
        let inputs = CancellationToken::new();
        let live = Live::new();
        let (registry, registry_reader) = Registry::new();

        let mut rules = BTreeMap::new();
        let mut sources = BTreeMap::new();
        for (name, service) in &config.services {
            let spec = SourceSpec {
                service: name.clone(),
                rules: service.rules.clone(),
                state: config.state.clone(),
                etcd: config.etcd.clone(),
            };
            let started = source::spawn(spec, inputs.clone()).await;
            rules.insert(name.clone(), started.reader);
            sources.insert(name.clone(), started.handle);
        }
        let hosts = config.services.iter().map(|(name, s)| (name.clone(), s.hosts.clone())).collect();
        tokio::spawn(routing::run(live.clone(), registry_reader, rules, hosts));

        let (changes, changes_reader) = mpsc::channel(CHANGES_AHEAD);
        let settings = supervisor::Settings {
            services: config.services.clone(),
            threads: config.threads,
            state: config.state.clone(),
        };
        let (supervisor, supervising) = supervisor::spawn(settings, registry, changes_reader, live.clone());
        for (name, service) in &config.services {
            let spec = WatchSpec::new(name.clone(), service);
            watcher::spawn(spec, changes.clone(), inputs.clone());
        }
        drop(changes);

        let policies = config
            .services
            .iter()
            .filter_map(|(name, s)| Some((name.clone(), (s.promote, sources.get(name)?.clone()))))
            .collect();
        tokio::spawn(promoter::run(live.clone(), policies));
        tokio::spawn(sample(live.clone()));

        let proxy = proxy::start(listeners, live.clone(), proxy::Settings::default());
        let admin_state = AdminState::new(&config, live.clone(), supervisor.clone(), sources);
        let admin_end = CancellationToken::new();
        let admin = admin::serve(admin, admin_state, admin_end.clone());

        shutdown.await;
        tracing::info!(deadline = ?config.drain, "draining: no new connections, running requests end");
        inputs.cancel();
        proxy.drain(config.drain).await;
        supervisor.shutdown().await;
        if let Err(error) = supervising.await {
            tracing::error!(%error, "the supervisor did not end well");
        }
        admin_end.cancel();
        if let Err(error) = admin.await {
            tracing::error!(%error, "the admin server did not end well");
        }
        drop(state);
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
