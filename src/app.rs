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
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinError;
use tokio_rustls::rustls;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, AdminState};
use crate::certificates::{self, PairError};
use crate::config::{self, Config, Promote, Secret};
use crate::deploy::VersionChange;
use crate::deploy::watcher::{self, WatchSpec};
use crate::etcd;
use crate::promoter;
use crate::proxy::{self, Door, Front, Inside, Listeners};
use crate::registry::Registry;
use crate::routing::{self, Live};
use crate::rules::source::{self, ServiceRules, SourceHandle, SourceSpec};
use crate::state_lock::{StateError, StateLock};
use crate::supervisor;
use crate::version::ServiceName;

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
            Self::Threads(_) => {
                "set `threads:` to a smaller number, or raise the limits: ulimit -n -u".to_owned()
            }
        }
    }
}

/// Keeps the certificates true to their files, for as long as it is polled.
type Certificates = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A switchman whose sockets are bound and that does not run yet.
pub struct App {
    config: Config,
    listeners: Listeners,
    /// Keeps the certificates true to their files.
    certificates: Certificates,
    admin: admin::Bound,
    token: Secret,
    state: StateLock,
}

impl App {
    /// Takes the state folder and binds every socket, so that errors come before anything is started.
    pub async fn build(config: Config) -> Result<Self, BuildError> {
        let state = StateLock::take(&config.state)?;
        let token = admin::auth::token(&config.state)?;
        let (front, certificates) = front(&config)?;
        let listeners = proxy::bind_front(front, config.threads)?;
        let admin = admin::bind(&config.admin).await?;
        Ok(Self { config, listeners, certificates, admin, token, state })
    }

    /// The public addresses.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.listeners.addresses()
    }

    /// The admin address, where there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.address()
    }

    /// Runs until `shutdown` ends, then drains.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), BuildError> {
        let Self { config, listeners, certificates, admin, token, state } = self;
        let inputs = CancellationToken::new();
        let live = Live::new();
        let (registry, registry_reader) = Registry::new();

        let etcd = config.etcd.clone().map(etcd::Cluster::new);
        let rules = rules(&config, etcd.as_ref(), &inputs)?;
        let readers = rules.iter().map(|(name, rules)| (name.clone(), rules.reader.clone())).collect();
        let hosts = config.services.iter().map(|(name, s)| (name.clone(), s.hosts.clone())).collect();
        tokio::spawn(routing::run(live.clone(), registry_reader, readers, hosts));

        let (changes, changed) = mpsc::channel(CHANGES_AHEAD);
        let settings = supervisor::Settings {
            services: config.services.clone(),
            threads: config.threads,
            state: config.state.clone(),
            etcd: etcd.clone(),
            node: config.node.clone(),
            alone: CancellationToken::new(),
            max_workers_starting: config.max_workers_starting,
        };
        settings.alone.cancel();
        let (supervisor, supervising) = supervisor::spawn(settings, registry, changed, live.clone());
        watch_roots(&config, changes, &inputs);

        let sources: BTreeMap<_, _> = rules.iter().map(|(n, r)| (n.clone(), r.handle.clone())).collect();
        tokio::spawn(promoter::run(live.clone(), policies(&config, &sources)));
        tokio::spawn(sample(live.clone()));
        tokio::spawn(certificates);

        if let Err(error) = proxy::raise_open_files() {
            tracing::warn!(%error, "the limit of open files stays as it is, and with it that of connections");
        }
        // Who asks while workers of an earlier switchman come back waits in the listeners' queues.
        if tokio::time::timeout(RETURN_MAX, supervisor.returned()).await.is_err() {
            tracing::warn!("workers of an earlier switchman are not ready again after {RETURN_MAX:?}");
        }
        let proxy = proxy::start(listeners, &live, &config.limits, &pages(&config))?;
        let (listening, is_listening) = watch::channel(true);
        let state_for_admin = AdminState {
            node: config.node.clone(),
            live,
            supervisor: supervisor.clone(),
            sources,
            token,
            listening: is_listening,
        };
        let admin_end = CancellationToken::new();
        let admin = admin::serve(admin, state_for_admin, admin_end.clone());

        shutdown.await;
        tracing::info!(deadline = ?config.drain, "draining: no new connections, running requests end");
        listening.send_replace(false);
        inputs.cancel();
        let drained = proxy.drain(config.drain).await;
        if drained.cut > 0 {
            tracing::warn!(connections = drained.cut, "cut at the deadline: their requests had not ended");
        }
        supervisor.shutdown().await;
        ended("the supervisor", supervising.await);
        for (_, service) in rules {
            ended("a rule source", service.task.await);
        }
        admin_end.cancel();
        ended("the admin server", admin.await);
        drop(state);
        tracing::info!("ended");
        Ok(())
    }
}

/// What stands before a request, and the task that keeps certificates fresh.
fn front(config: &Config) -> Result<(Front, Certificates), BuildError> {
    let front = &config.front;
    let door = |address: SocketAddr, inside: Inside| Door {
        address,
        proxy_protocol: front.proxy_protocol.contains(&address),
        inside,
    };
    let redirects = front.tls.as_ref().is_some_and(|tls| tls.redirect);
    let plain = if redirects { Inside::Redirect } else { Inside::Http };
    let mut doors: Vec<Door> = config.listen.iter().map(|address| door(*address, plain.clone())).collect();
    let with = |doors| Front {
        doors,
        trusted_proxies: front.trusted_proxies.clone(),
        request_ids: front.request_ids,
    };
    let Some(tls) = &front.tls else { return Ok((with(doors), Box::pin(std::future::ready(())))) };
    let (store, following) = certificates::follow(&tls.certificates)?;
    let inside = Inside::Tls(proxy::Tls::new(store)?);
    doors.extend(tls.listen.iter().map(|address| door(*address, inside.clone())));
    Ok((with(doors), Box::pin(following)))
}

/// Starts each service's source of rules and aliases; all share one connection to etcd.
fn rules(
    config: &Config,
    etcd: Option<&etcd::Cluster>,
    cancel: &CancellationToken,
) -> Result<BTreeMap<ServiceName, ServiceRules>, BuildError> {
    let start = |(name, service): (&ServiceName, &config::Service)| {
        let spec = SourceSpec {
            service: name.clone(),
            rules: service.rules.clone(),
            state: config.state.clone(),
            etcd: etcd.cloned(),
        };
        Ok((name.clone(), source::spawn(spec, cancel.clone())?))
    };
    config.services.iter().map(start).collect()
}

/// Starts watching each service's deploy root.
fn watch_roots(config: &Config, changes: mpsc::Sender<VersionChange>, cancel: &CancellationToken) {
    for (name, service) in &config.services {
        let spec = WatchSpec {
            service: name.clone(),
            root: service.root.clone(),
            versions: service.versions.clone(),
            settle: service.settle,
            complete_when: service.upload.complete_when.clone(),
            restart_on_change: service.upload.restart_on_change,
            kept: config.state.join(name.as_str()).join("files"),
        };
        watcher::spawn(spec, changes.clone(), cancel.clone());
    }
}

fn policies(
    config: &Config,
    sources: &BTreeMap<ServiceName, SourceHandle>,
) -> BTreeMap<ServiceName, (Promote, SourceHandle)> {
    let policy = |(name, source): (&ServiceName, &SourceHandle)| {
        let service = config.services.get(name)?;
        Some((name.clone(), (service.promote, source.clone())))
    };
    sources.iter().filter_map(policy).collect()
}

/// Follows the folders of error pages: each service's own, and the one of all.
fn pages(config: &Config) -> proxy::Pages {
    let own = |(name, service): (&ServiceName, &config::Service)| {
        Some((Some(name.clone()), service.delivery.errors.clone()?))
    };
    let of_all = config.errors.clone().map(|folder| (None, folder));
    proxy::Pages::follow(config.services.iter().filter_map(own).chain(of_all).collect())
}

fn ended(what: &str, how: Result<(), JoinError>) {
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
