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
use futures_util::stream::{FuturesUnordered, StreamExt as _};
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

/// One service, as it is joined.
#[derive(Debug, Clone)]
pub struct Joined {
    /// Its rules.
    pub rules: RulesReader,
    /// Its host names, lower-case; empty: every host. None where it takes no more requests and is about to go.
    pub hosts: Option<Vec<String>>,
}

/// The services that are joined, by name.
pub type Services = BTreeMap<ServiceName, Joined>;

/// Joins and publishes until the registry's writer is gone.
pub async fn run(
    live: Arc<Live>,
    mut registry: watch::Receiver<Arc<registry::Snapshot>>,
    mut services: watch::Receiver<Services>,
) {
    let mut generation = 0;
    let mut joined = services.borrow_and_update().clone();
    loop {
        generation += 1;
        live.publish(join(generation, &registry.borrow_and_update().clone(), &mut joined));
        tokio::select! {
            changed = registry.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            Ok(()) = services.changed() => joined = services.borrow_and_update().clone(),
            () = any_rules(&mut joined) => {}
        }
    }
}

fn join(generation: u64, registry: &registry::Snapshot, joined: &mut Services) -> Routing {
    let (mut hosts, mut any_host) = (HashMap::new(), None);
    let mut services = Vec::new();
    for (index, (name, Joined { rules, hosts: names })) in joined.iter_mut().enumerate() {
        match names {
            Some(names) if names.is_empty() => drop(any_host.get_or_insert(index)),
            names => hosts.extend(names.iter().flatten().map(|host| (host.clone(), index))),
        }
        let registry = registry.services.get(name).cloned().unwrap_or_default();
        services.push(ServiceRouting::join(name.clone(), registry, rules.borrow_and_update().clone()));
    }
    Routing { generation, services, hosts, any_host }
}

/// Waits until the rules of one of them change. A source that has ended says nothing any more.
async fn any_rules(joined: &mut Services) {
    let mut changes: FuturesUnordered<_> = joined.values_mut().map(|joined| joined.rules.changed()).collect();
    while let Some(changed) = changes.next().await {
        if changed.is_ok() {
            return;
        }
    }
    std::future::pending().await
}
