//! What feeds the services: sources of rules, watchers of deploy roots, and who reads them. It comes and goes with the
//! configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::{self, Config, Promote};
use crate::deploy::watcher::{self, WatchSpec};
use crate::deploy::{ChangeKind, VersionChange};
use crate::etcd;
use crate::promoter;
use crate::registry::Snapshot;
use crate::routing::{self, Joined, RulesReader};
use crate::rules::source::{self, ServiceRules, SourceError, SourceHandle, SourceSpec};
use crate::version::ServiceName;

/// Every service, at work.
pub(super) struct Services {
    /// All share one connection.
    etcd: Option<etcd::Cluster>,
    state: PathBuf,
    changes: mpsc::Sender<VersionChange>,
    served: BTreeMap<ServiceName, Served>,
    /// Gone from the configuration; their last workers are about to end.
    ending: BTreeMap<ServiceName, RulesReader>,
    joined: watch::Sender<routing::Services>,
    sources: watch::Sender<BTreeMap<ServiceName, SourceHandle>>,
    policies: watch::Sender<promoter::Policies>,
}

/// Sources by service, each with what ends it.
type Sources = BTreeMap<ServiceName, (ServiceRules, DropGuard)>;

/// One service.
struct Served {
    hosts: Vec<String>,
    promote: Promote,
    rules_at: config::RulesAt,
    rules: ServiceRules,
    /// Ends the source.
    _source: DropGuard,
    watch: WatchSpec,
    /// Ends the watcher.
    _watcher: DropGuard,
}

impl Services {
    /// None yet; `changes` of their folders go to the supervisor.
    pub(super) fn new(config: &Config, changes: mpsc::Sender<VersionChange>) -> Self {
        Self {
            etcd: config.etcd.clone().map(etcd::Cluster::new),
            state: config.state.clone(),
            changes,
            served: BTreeMap::new(),
            ending: BTreeMap::new(),
            joined: watch::Sender::default(),
            sources: watch::Sender::default(),
            policies: watch::Sender::default(),
        }
    }

    /// The connection to etcd, where there is one.
    pub(super) fn etcd(&self) -> Option<etcd::Cluster> {
        self.etcd.clone()
    }

    /// What routing joins.
    pub(super) fn joined(&self) -> watch::Receiver<routing::Services> {
        self.joined.subscribe()
    }

    /// Where rules and aliases are changed.
    pub(super) fn sources(&self) -> watch::Receiver<BTreeMap<ServiceName, SourceHandle>> {
        self.sources.subscribe()
    }

    /// When `current` moves by itself.
    pub(super) fn policies(&self) -> watch::Receiver<promoter::Policies> {
        self.policies.subscribe()
    }

    /// Opens the sources of rules that these services need and that are not open yet.
    ///
    /// # Errors
    /// A source cannot be followed at all.
    pub(super) fn open(
        &self,
        services: &BTreeMap<ServiceName, config::Service>,
    ) -> Result<Sources, SourceError> {
        let is_new = |(name, service): &(&ServiceName, &config::Service)| {
            self.served.get(*name).is_none_or(|served| served.rules_at != service.rules)
        };
        let open = |(name, service): (&ServiceName, &config::Service)| {
            Ok((name.clone(), self.source(name, service)?))
        };
        services.iter().filter(is_new).map(open).collect()
    }

    /// From now on these services, with what [`Self::open`] has opened for them: new ones begin, those that are gone
    /// end, the others keep what has not changed.
    pub(super) fn set(&mut self, services: &BTreeMap<ServiceName, config::Service>, mut opened: Sources) {
        let mut before = std::mem::take(&mut self.served);
        for (name, service) in services {
            let old = before.remove(name);
            let watch = watch_spec(&self.state, name, service);
            let (source, watcher) = match old {
                None => (None, None),
                Some(Served { rules, _source, watch: before, _watcher, .. }) => {
                    // As text: a regular expression knows no equality.
                    let same = format!("{before:?}") == format!("{watch:?}");
                    (Some((rules, _source)), same.then_some(_watcher))
                }
            };
            let Some((rules, source)) = opened.remove(name).or(source) else { continue };
            let served = Served {
                hosts: service.hosts.clone(),
                promote: service.promote,
                rules_at: service.rules.clone(),
                rules,
                _source: source,
                _watcher: watcher.unwrap_or_else(|| self.watch(&watch)),
                watch,
            };
            self.ending.remove(name);
            self.served.insert(name.clone(), served);
        }
        self.ending.extend(before.into_iter().map(|(name, served)| (name, served.rules.reader)));
        self.publish();
    }

    fn source(
        &self,
        name: &ServiceName,
        service: &config::Service,
    ) -> Result<(ServiceRules, DropGuard), SourceError> {
        let spec = SourceSpec {
            service: name.clone(),
            rules: service.rules.clone(),
            state: self.state.clone(),
            etcd: self.etcd.clone(),
        };
        let cancel = CancellationToken::new();
        Ok((source::spawn(spec, cancel.clone())?, cancel.drop_guard()))
    }

    fn watch(&self, spec: &WatchSpec) -> DropGuard {
        let cancel = CancellationToken::new();
        watcher::spawn(spec.clone(), self.changes.clone(), cancel.clone());
        cancel.drop_guard()
    }

    fn publish(&self) {
        let joined = |(name, served): (&ServiceName, &Served)| {
            let hosts = Some(served.hosts.clone());
            (name.clone(), Joined { rules: served.rules.reader.clone(), hosts })
        };
        let ending = |(name, rules): (&ServiceName, &RulesReader)| {
            (name.clone(), Joined { rules: rules.clone(), hosts: None })
        };
        self.joined
            .send_replace(self.served.iter().map(joined).chain(self.ending.iter().map(ending)).collect());
        let of = |served: &Served| served.rules.handle.clone();
        self.sources.send_replace(self.served.iter().map(|(name, s)| (name.clone(), of(s))).collect());
        let policy = |(name, s): (&ServiceName, &Served)| (name.clone(), (s.promote, of(s)));
        self.policies.send_replace(self.served.iter().map(policy).collect());
    }

    /// Whether a service that is gone from the configuration still has workers.
    pub(super) fn any_ending(&self) -> bool {
        !self.ending.is_empty()
    }

    /// Forgets the services whose last workers have ended.
    pub(super) fn forget_ended(&mut self, registry: &Snapshot) {
        let before = self.ending.len();
        self.ending.retain(|name, _| registry.services.contains_key(name));
        if self.ending.len() < before {
            self.publish();
        }
    }

    /// Tells the supervisor of the versions of a service that its root and pattern do not show.
    pub(super) async fn tell_lost(&self, name: &ServiceName, registry: &Snapshot) {
        let (Some(served), Some(service)) = (self.served.get(name), registry.services.get(name)) else {
            return;
        };
        let WatchSpec { root, versions, .. } = &served.watch;
        for id in service.versions.keys() {
            let is_shown = versions.is_match(id.as_str())
                && tokio::fs::metadata(root.join(id.as_str())).await.is_ok_and(|found| found.is_dir());
            if !is_shown {
                let kind = ChangeKind::Gone { version: id.clone() };
                // The supervisor may have ended.
                let _ = self.changes.send(VersionChange { service: name.clone(), kind }).await;
            }
        }
    }

    /// Looks at all folders again, as a start does.
    pub(super) fn watch_again(&mut self) {
        let again: Vec<_> =
            self.served.iter().map(|(name, s)| (name.clone(), self.watch(&s.watch))).collect();
        for (name, watcher) in again {
            if let Some(served) = self.served.get_mut(&name) {
                served._watcher = watcher;
            }
        }
    }

    /// Ends watchers and sources; returns when nothing is half written.
    pub(super) async fn end(self) {
        for (_, Served { rules, _source, _watcher, .. }) in self.served {
            drop((_source, _watcher));
            super::ended("a rule source", rules.task.await);
        }
    }
}

fn watch_spec(state: &Path, name: &ServiceName, service: &config::Service) -> WatchSpec {
    WatchSpec {
        service: name.clone(),
        root: service.root.clone(),
        versions: service.versions.clone(),
        settle: service.settle,
        complete_when: service.upload.complete_when.clone(),
        restart_on_change: service.upload.restart_on_change,
        kept: state.join(name.as_str()).join("files"),
    }
}
