//! What a request needs, joined: rule tables, aliases and the registry in one immutable snapshot.
//!
//! One control-plane task ([`run`]) joins again whenever rules, aliases or the registry change, and publishes
//! the result through [`Live`]. The data plane loads it once a request; the admin API shows it; the supervisor
//! asks it what carries traffic. Names (versions, prefixes, aliases) are resolved here, once a snapshot,
//! so that a decision leads to its version by an index.

mod service;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::registry;
use crate::rules::publisher::Published;
use crate::version::ServiceName;

pub use service::{Chosen, NoVersion, ServiceRouting, choose};

/// Everything, at one moment.
#[derive(Debug, Default)]
pub struct Routing {
    /// Goes up by one with each change.
    pub generation: u64,
    /// The services, in order of their names.
    pub services: Vec<ServiceRouting>,
    /// Host name (lower-case) to index in `services`.
    hosts: HashMap<String, usize>,
    /// The service that answers every other host.
    any_host: Option<usize>,
}

impl Routing {
    /// The service for a host name without port; compared without case.
    pub fn service_for_host(&self, host: &str) -> Option<&ServiceRouting> {
        if self.hosts.is_empty() {
            return self.any_host.and_then(|i| self.services.get(i));
        }
        // `hosts:` names an IPv6 address without the brackets that it has in a URL.
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let index = match self.hosts.get(host) {
            Some(index) => Some(*index),
            None if host.bytes().any(|b| b.is_ascii_uppercase()) => {
                self.hosts.get(&host.to_ascii_lowercase()).copied()
            }
            None => None,
        };
        index.or(self.any_host).and_then(|i| self.services.get(i))
    }

    /// A service by name.
    pub fn service(&self, name: &str) -> Option<&ServiceRouting> {
        self.services.iter().find(|s| s.name.as_str() == name)
    }
}

/// The published snapshot: the data plane loads it, others also wait for the next.
#[derive(Debug)]
pub struct Live {
    snapshot: ArcSwap<Routing>,
    generation: watch::Sender<u64>,
}

impl Live {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            snapshot: ArcSwap::from_pointee(Routing::default()),
            generation: watch::Sender::new(0),
        })
    }

    /// The cell itself, for `arc_swap::Cache` on the data plane.
    pub fn cell(&self) -> &ArcSwap<Routing> {
        &self.snapshot
    }

    /// The snapshot now.
    pub fn load(&self) -> Arc<Routing> {
        self.snapshot.load_full()
    }

    /// Sees each new generation.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    fn publish(&self, routing: Routing) {
        let generation = routing.generation;
        self.snapshot.store(Arc::new(routing));
        self.generation.send_replace(generation);
    }
}

/// The rules of one service as its publisher publishes them.
pub type RulesReader = watch::Receiver<Arc<Published>>;

/// Joins and publishes until the registry's writer is gone. `hosts` are each service's host names, lower-case
/// (none: every host).
pub async fn run(
    live: Arc<Live>,
    mut registry: watch::Receiver<Arc<registry::Snapshot>>,
    rules: BTreeMap<ServiceName, RulesReader>,
    hosts: BTreeMap<ServiceName, Vec<String>>,
) {
    let mut generation = 0;
    let mut rules: Vec<(ServiceName, RulesReader)> = rules.into_iter().collect();
    loop {
        generation += 1;
        let snapshot = registry.borrow_and_update().clone();
        let services: Vec<ServiceRouting> = rules
            .iter_mut()
            .map(|(name, rules)| {
                let registry = snapshot.services.get(name).cloned().unwrap_or_default();
                ServiceRouting::join(name.clone(), registry, rules.borrow_and_update().clone())
            })
            .collect();
        let mut by_host = HashMap::new();
        let mut any_host = None;
        for (index, service) in services.iter().enumerate() {
            let names = hosts.get(&service.name).map_or(&[][..], Vec::as_slice);
            by_host.extend(names.iter().map(|host| (host.clone(), index)));
            if names.is_empty() {
                any_host.get_or_insert(index);
            }
        }
        live.publish(Routing { generation, services, hosts: by_host, any_host });

        let any_rules = async {
            if rules.is_empty() {
                return std::future::pending().await;
            }
            let changes =
                rules.iter_mut().map(|(_, reader)| Box::pin(async { reader.changed().await.is_ok() }));
            futures_util::future::select_all(changes).await.0
        };
        let go_on = tokio::select! {
            changed = registry.changed() => changed.is_ok(),
            changed = any_rules => changed,
        };
        if !go_on {
            return;
        }
    }
}
