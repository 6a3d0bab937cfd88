//! A restart of everything that runs: each service's versions one after the other, each version's workers one at a time.
//!
//! A version whose restart is given up keeps its old workers and says why; the next one has its turn all the same, since
//! it is another build.

use std::collections::VecDeque;

use super::command::{Refused, Restarting};
use super::{Key, Supervisor, lifecycle};
use crate::version::{ServiceName, VersionId};

/// The restart of a whole service.
#[derive(Debug, Default)]
pub(super) struct Rolling {
    /// The version whose workers are being replaced.
    now: Option<VersionId>,
    /// Those that wait.
    next: VecDeque<VersionId>,
}

impl Supervisor {
    /// Sets the restart of every version that is to run going, of one service or of all; answers with them, in order.
    pub(super) fn restart_all(&mut self, service: Option<&ServiceName>) -> Result<Vec<Restarting>, Refused> {
        self.refuse_at_the_end()?;
        if let Some(unknown) = service.filter(|name| !self.services.contains_key(*name)) {
            return Err(Refused {
                message: format!("no service is called `{unknown}`"),
                hint: "see which there are: switchman versions".to_owned(),
            });
        }
        let mut all = Vec::new();
        let names: Vec<ServiceName> =
            self.services.keys().filter(|n| service.is_none_or(|s| s == *n)).cloned().collect();
        for name in names {
            let mut versions: Vec<Key> = self.keys().into_iter().filter(|key| key.service == name).collect();
            versions.retain(|key| self.version(key).is_some_and(|v| v.life.is_wanted()));
            // What people use first.
            versions.sort_by_key(|key| !self.carries_traffic(key));
            tracing::info!(service = %name, versions = versions.len(), "restart of everything that runs was asked for");
            all.extend(
                versions.iter().map(|k| Restarting { service: name.clone(), version: k.version.clone() }),
            );
            if let Some(service) = self.services.get_mut(&name) {
                service.rolling.next = versions.into_iter().map(|key| key.version).collect();
            }
        }
        self.go_on_restarting();
        Ok(all)
    }

    /// Restarts the next version of each service whose last one has been restarted.
    pub(super) fn go_on_restarting(&mut self) {
        let rolling = |(name, service): (&ServiceName, &super::Service)| {
            let Rolling { now, next } = &service.rolling;
            (now.is_some() || !next.is_empty()).then(|| name.clone())
        };
        let names: Vec<ServiceName> = self.services.iter().filter_map(rolling).collect();
        for name in names {
            while let Some(key) = self.next_to_restart(&name) {
                if let Err(why) = self.restart(&key) {
                    tracing::error!(service = %key.service, version = %key.version, "not restarted: {why}");
                    self.step(&key, lifecycle::Event::Unrestartable(why));
                }
            }
        }
    }

    /// The version of a service that is to be restarted now; none while another one still is.
    fn next_to_restart(&mut self, name: &ServiceName) -> Option<Key> {
        let service = self.services.get_mut(name)?;
        let of = |version: &VersionId| service.versions.get(version).filter(|v| v.life.is_wanted());
        if service.rolling.now.as_ref().and_then(of).is_some_and(|v| v.life.is_moving()) {
            return None;
        }
        loop {
            // Stopped or gone meanwhile: it is not to be woken.
            service.rolling.now = service.rolling.next.pop_front();
            let version = service.rolling.now.clone()?;
            if service.versions.get(&version).is_some_and(|v| v.life.is_wanted()) {
                return Some(Key { service: name.clone(), version });
            }
        }
    }
}
