//! One service, joined: which version a decision, an alias or a person means, and who is sent traffic.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::registry::{self, Wake};
use crate::rules::publisher::Published;
use crate::rules::table::{Decision, TargetId, To, Unavailable};
use crate::version::{self, CURRENT, LATEST, NameError, PREFIX_MIN, ServiceName, VersionId, VersionState};

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
    /// Every alias and whole name.
    names: HashMap<String, Arc<registry::Version>>,
    /// Versions that the default or a route sends traffic to, with those routes' names.
    routes_of: BTreeMap<VersionId, Vec<String>>,
}

impl ServiceRouting {
    /// Joins one service.
    pub fn join(name: ServiceName, registry: registry::Service, rules: Arc<Published>) -> Self {
        let names = names(&registry, &rules);
        let mut joined = Self {
            name,
            registry,
            rules,
            targets: Vec::new(),
            current: None,
            names,
            routes_of: BTreeMap::new(),
        };
        joined.targets = joined.rules.table.targets().iter().map(|name| joined.find(name).cloned()).collect();
        joined.current = joined.names.get(CURRENT).cloned();
        joined.routes_of = joined.who_is_sent_traffic();
        joined
    }

    /// The version that a decision means; ready or not.
    pub fn version(&self, to: To<'_>) -> Result<&Arc<registry::Version>, NoVersion> {
        match to {
            To::Target(id) => self.target(id),
            To::Named(name) => self.find(name),
        }
        .ok_or(NoVersion::Unknown)
    }

    fn target(&self, TargetId(id): TargetId) -> Option<&Arc<registry::Version>> {
        self.targets.get(id as usize)?.as_ref()
    }

    /// The version of an alias, a whole name or an unambiguous prefix. Without allocation: requests may name
    /// versions.
    fn find(&self, name: &str) -> Option<&Arc<registry::Version>> {
        if let Some(version) = self.names.get(name) {
            return Some(version);
        }
        let from = (Bound::Included(name), Bound::Unbounded);
        let mut longer =
            self.registry.versions.range::<str, _>(from).take_while(|(id, _)| id.as_str().starts_with(name));
        match (longer.next(), longer.next()) {
            (Some((_, version)), None) if name.len() >= PREFIX_MIN => Some(version),
            _ => None,
        }
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
        if let Some(version) = self.names.get(name) {
            return Ok(version);
        }
        let id = version::resolve_name(name, self.registry.versions.keys())?;
        self.registry.versions.get(id).ok_or_else(|| NameError::Unknown(name.to_owned()))
    }

    /// The versions that `current`, the default or a route sends traffic to, with those routes' names.
    fn who_is_sent_traffic(&self) -> BTreeMap<VersionId, Vec<String>> {
        let mut routes_of: BTreeMap<VersionId, Vec<String>> = BTreeMap::new();
        let table = &self.rules.table;
        for version in self.current.iter().chain(self.target(table.default())) {
            routes_of.entry(version.id.clone()).or_default();
        }
        for (route, targets) in table.routes() {
            for version in targets.iter().filter_map(|id| self.target(*id)) {
                let names = routes_of.entry(version.id.clone()).or_default();
                if names.last().is_none_or(|last| last != route) {
                    names.push(route.to_owned());
                }
            }
        }
        routes_of
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
            .filter(|alias| self.names.get(*alias).is_some_and(|v| v.id == *version))
            .collect();
        aliases.sort_unstable();
        aliases
    }
}

/// What a decision leads to.
#[derive(Debug, Clone, Copy)]
pub enum Chosen<'s> {
    /// A version with a ready worker.
    Ready(&'s Arc<registry::Version>),
    /// A version that sleeps or is being woken, which is worth waiting for.
    Asleep(&'s Arc<registry::Version>, &'s Wake),
}

impl<'s> Chosen<'s> {
    /// The version, ready or not.
    pub fn version(self) -> &'s Arc<registry::Version> {
        match self {
            Self::Ready(version) | Self::Asleep(version, _) => version,
        }
    }
}

/// The version that a decision leads to, `unavailable: current` applied. `unavailable: wait` is the
/// caller's, and so is the wait for a version that sleeps: it asks again when the next generation is published, and
/// when it waits no longer (`patient` is false) a version that sleeps is one that is not ready.
pub fn choose<'s>(
    service: &'s ServiceRouting,
    decision: &Decision<'_, '_>,
    patient: bool,
) -> Result<Chosen<'s>, NoVersion> {
    let usable = |found: Result<&'s Arc<registry::Version>, NoVersion>| {
        let version = found?;
        if !version.ready.is_empty() {
            return Ok(Chosen::Ready(version));
        }
        let wake = version.wake.as_deref().filter(|_| patient);
        wake.map(|wake| Chosen::Asleep(version, wake)).ok_or(NoVersion::NotReady)
    };
    match usable(service.version(decision.to)) {
        Err(_) if decision.unavailable == Unavailable::Current => usable(service.current()),
        chosen => chosen,
    }
}

/// Every alias and whole version name that leads to a version. A version wins over an alias of the same name: a
/// hash must never be redirected by a tag.
fn names(registry: &registry::Service, rules: &Published) -> HashMap<String, Arc<registry::Version>> {
    let arrived = registry.versions.values().filter(|v| v.state != VersionState::Arriving);
    let latest = arrived.max_by_key(|v| v.arrived).map(|v| (LATEST.to_owned(), v.clone()));
    let aliases = rules.aliases.iter().filter_map(|(alias, version)| {
        let id = version::resolve_name(version, registry.versions.keys()).ok()?;
        Some((alias.clone(), registry.versions.get(id)?.clone()))
    });
    let versions = registry.versions.values().map(|v| (v.id.to_string(), v.clone()));
    aliases.chain(latest).chain(versions).collect()
}
