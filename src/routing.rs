//! What a request needs, joined: rule tables, aliases and the registry in one immutable snapshot.
//!
//! One control-plane task ([`run`]) joins again whenever rules, aliases or the registry change, and publishes
//! the result through [`Live`]. The data plane loads it once a request; the admin API shows it; the supervisor
//! asks it what carries traffic. Names (versions, prefixes, aliases) are resolved here, once a snapshot,
//! so that a decision leads to its version by an index.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::registry;
use crate::rules::publisher::Published;
use crate::rules::table::{Decision, TargetId, To, Unavailable};
use crate::version::{self, CURRENT, LATEST, NameError, ServiceName, VersionId, VersionState};

/// Why no version could be chosen; also the value of `x-switchman-error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoVersion {
    /// `current` is not set.
    NoCurrent,
    /// The request or the rule names a version that is not there.
    Unknown,
    /// The version is there and has no ready worker.
    NotReady,
}

/// The joined state of one service.
#[derive(Debug)]
pub struct ServiceRouting {
    /// Its name.
    pub name: ServiceName,
    /// Its versions, deploy root and ignored entries.
    pub registry: registry::Service,
    /// Its rules and aliases in force.
    pub rules: Arc<Published>,
    /// The version of each of the table's targets.
    targets: Vec<Option<Arc<registry::Version>>>,
    current: Option<Arc<registry::Version>>,
    by_name: HashMap<String, Arc<registry::Version>>,
    /// Versions that the default or a route sends traffic to, with those routes' names.
    routes_of: BTreeMap<VersionId, Vec<String>>,
}

impl ServiceRouting {
    /// Joins one service.
    pub fn join(name: ServiceName, registry: registry::Service, rules: Arc<Published>) -> Self {
        let by_name = names(&registry, &rules);
        let find = |name: &str| resolve(name, &by_name, &registry).ok();
        let targets: Vec<_> = rules.table.targets().iter().map(|name| find(name)).collect();
        let current = by_name.get(CURRENT).cloned();

        let mut routes_of: BTreeMap<VersionId, Vec<String>> = BTreeMap::new();
        let default = targets.get(rules.table.default().0 as usize).cloned().flatten();
        for version in [&current, &default].into_iter().flatten() {
            routes_of.entry(version.id.clone()).or_default();
        }
        for (route, ids) in rules.table.routes() {
            for version in ids.iter().filter_map(|id| targets.get(id.0 as usize)?.as_ref()) {
                let names = routes_of.entry(version.id.clone()).or_default();
                if !names.iter().any(|n| n == route) {
                    names.push(route.to_owned());
                }
            }
        }
        Self { name, registry, rules, targets, current, by_name, routes_of }
    }

    /// The version that a decision means; ready or not.
    pub fn version(&self, to: To<'_>) -> Result<&Arc<registry::Version>, NoVersion> {
        let found = match to {
            To::Target(TargetId(id)) => self.targets.get(id as usize).and_then(Option::as_ref),
            To::Named(name) => self.by_name.get(name).or_else(|| {
                let id = version::resolve_name(name, self.registry.versions.keys()).ok()?;
                self.registry.versions.get(id)
            }),
        };
        found.ok_or(NoVersion::Unknown)
    }

    /// The version that `current` names.
    pub fn current(&self) -> Result<&Arc<registry::Version>, NoVersion> {
        match &self.current {
            Some(version) => Ok(version),
            None if self.rules.aliases.contains_key(CURRENT) => Err(NoVersion::Unknown),
            None => Err(NoVersion::NoCurrent),
        }
    }

    /// The version that a person means: an alias, a whole name or an unambiguous prefix.
    pub fn resolve(&self, name: &str) -> Result<&Arc<registry::Version>, NameError> {
        if let Some(version) = self.by_name.get(name) {
            return Ok(version);
        }
        let id = version::resolve_name(name, self.registry.versions.keys())?;
        self.registry.versions.get(id).ok_or_else(|| NameError::Unknown(name.to_owned()))
    }

    /// The routes that send traffic to a version, in order.
    pub fn routes_of(&self, version: &VersionId) -> &[String] {
        self.routes_of.get(version).map_or(&[], Vec::as_slice)
    }

    /// Whether the default, `current` or a route sends traffic to a version.
    pub fn carries_traffic(&self, version: &VersionId) -> bool {
        self.routes_of.contains_key(version)
    }

    /// Ready, and nothing in use sends traffic to it.
    pub fn is_dark(&self, version: &registry::Version) -> bool {
        version.state == VersionState::Ready && !self.carries_traffic(&version.id)
    }

    /// The aliases of a version, in order of their names.
    pub fn aliases_of(&self, version: &VersionId) -> Vec<&str> {
        let mut aliases: Vec<&str> = self
            .rules
            .aliases
            .keys()
            .map(String::as_str)
            .chain([LATEST])
            .filter(|alias| self.by_name.get(*alias).is_some_and(|v| v.id == *version))
            .collect();
        aliases.sort_unstable();
        aliases
    }
}

/// The ready version that a decision leads to, `unavailable: current` applied. `unavailable: wait` is the
/// caller's: it asks again when the next generation is published.
pub fn choose<'s>(
    service: &'s ServiceRouting,
    decision: &Decision<'_, '_>,
) -> Result<&'s Arc<registry::Version>, NoVersion> {
    let ready = |found: Result<&'s Arc<registry::Version>, NoVersion>| {
        found.and_then(|v| if v.ready.is_empty() { Err(NoVersion::NotReady) } else { Ok(v) })
    };
    match ready(service.version(decision.to)) {
        Err(_) if decision.unavailable == Unavailable::Current => ready(service.current()),
        chosen => chosen,
    }
}

/// Every alias and whole version name.
fn names(registry: &registry::Service, rules: &Published) -> HashMap<String, Arc<registry::Version>> {
    let mut names: HashMap<String, Arc<registry::Version>> =
        registry.versions.values().map(|v| (v.id.to_string(), v.clone())).collect();
    let latest = registry
        .versions
        .values()
        .filter(|v| v.state != VersionState::Arriving)
        .max_by_key(|v| v.arrived)
        .map(|v| (LATEST.to_owned(), v.clone()));
    let aliases: Vec<_> = rules
        .aliases
        .iter()
        .filter_map(|(alias, version)| {
            let id = version::resolve_name(version, registry.versions.keys()).ok()?;
            Some((alias.clone(), registry.versions.get(id)?.clone()))
        })
        .collect();
    // A version wins over an alias of the same name: a hash must never be redirected by a tag.
    for (alias, version) in aliases.into_iter().chain(latest) {
        names.entry(alias).or_insert(version);
    }
    names
}

fn resolve(
    name: &str,
    by_name: &HashMap<String, Arc<registry::Version>>,
    registry: &registry::Service,
) -> Result<Arc<registry::Version>, NameError> {
    if let Some(version) = by_name.get(name) {
        return Ok(version.clone());
    }
    let id = version::resolve_name(name, registry.versions.keys())?;
    registry.versions.get(id).cloned().ok_or_else(|| NameError::Unknown(name.to_owned()))
}

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
