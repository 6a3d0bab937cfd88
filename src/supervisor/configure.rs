//! What follows from a changed configuration: services come and go, and new processes are run as it says now.
//!
//! A process that runs is not touched: whoever asked is told which versions need a restart to run as the file says.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::managed::Running;
use super::memory::Memory;
use super::{Key, Service, Supervisor, isolated, lifecycle};
use crate::config;
use crate::version::{ServiceName, VersionId};

impl Supervisor {
    /// Takes the services as they are now. One that is gone is drained and stopped, whatever traffic it carries. Answers
    /// with the versions whose processes run as was configured before.
    pub(super) fn configure(
        &mut self,
        services: BTreeMap<ServiceName, config::Service>,
    ) -> Vec<(ServiceName, VersionId)> {
        self.settings.services.clone_from(&services);
        self.cgroups = isolated::prepare(&self.settings).map(Arc::new);
        let removed = |key: &Key| !services.contains_key(&key.service);
        for key in self.keys().into_iter().filter(removed) {
            tracing::info!(service = %key.service, version = %key.version, "its service is gone from the configuration");
            // It is not forgotten: its folder is still there, and its service may come back.
            self.step(&key, lifecycle::Event::Retire);
        }
        for name in
            self.services.keys().filter(|name| !services.contains_key(*name)).cloned().collect::<Vec<_>>()
        {
            if let Some(service) = self.services.get_mut(&name) {
                service.removed = true;
            }
            self.forget_if_empty(&name);
        }
        for (name, config) in services {
            let root = config.root.clone();
            self.logs.configure(&name, config.logs.clone());
            match self.services.get_mut(&name) {
                Some(service) => (service.config, service.removed) = (config, false),
                None => {
                    let memory = Memory::load(&self.settings.state, &name);
                    self.services.insert(name.clone(), Service::new(config, memory));
                }
            }
            self.registry.update(|services| services.entry(name).or_default().root = root);
        }
        let stale = self.keys().into_iter().filter(|key| self.take_config(key));
        stale.map(|key| (key.service, key.version)).collect()
    }

    /// Takes what the configuration says of one version now; whether processes of it run as it said before.
    fn take_config(&mut self, key: &Key) -> bool {
        let Some(service) = self.services.get_mut(&key.service) else { return false };
        let Some(version) = service.versions.get_mut(&key.version) else { return false };
        let mut news = *version.delivery != *service.config.delivery;
        version.delivery = service.config.delivery.clone();
        if version.life.is_wanted() {
            match config::folder::read(&version.path, &service.config.run) {
                Ok(spec) if spec != *version.spec => (version.spec, news) = (Arc::new(spec), true),
                Ok(_) => {}
                Err(problems) => {
                    let (service, version) = (&key.service, &key.version);
                    tracing::warn!(%service, %version, "goes on with the settings that it has: {problems}");
                }
            }
        }
        // One that is on its way out needs no restart.
        let stays = |running: &&Running| running.stop.is_some() && running.drain.is_none();
        let is_stale = version.processes.values().filter(stays).any(|r| *r.spec != *version.spec);
        if news {
            self.publish(key);
        }
        is_stale
    }

    /// Forgets a service that was removed, once its last version has gone.
    pub(super) fn forget_if_empty(&mut self, name: &ServiceName) {
        if self.services.get(name).is_some_and(|service| service.removed && service.versions.is_empty()) {
            self.services.remove(name);
            self.registry.update(|services| drop(services.remove(name)));
        }
    }
}
