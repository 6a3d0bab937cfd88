//! The configuration read anew: checked as a whole, then taken over part by part. What did not change is not touched.
//!
//! ```text
//! file --config--> every problem: nothing changes     threads, node, etcd, admin, state differ: `switchman upgrade`
//!   --> new addresses bound, certificates read, sources opened     (errors here: nothing changes)
//!   --> supervisor: services come and go, new processes run as it says --> watchers, routing, promoter
//!   --> data plane: limits, pages, doors, for what begins from then on
//! ```

use super::BuildError;
use super::front::{self, Certificates};
use super::running::Running;
use crate::config::{self, Config};
use crate::control::{NotDone, Reloaded};
use crate::hint::Problems;
use crate::proxy;
use crate::systemd;
use crate::version::{ServiceName, VersionId};

impl Running {
    pub(super) async fn reload(&mut self) -> Result<Reloaded, NotDone> {
        let (config, warnings) = self.read_again()?;
        let changed = config::changed_keys(&self.config.text, &config.text);
        let restart_needed = self.take(config).await.map_err(|error| {
            NotDone::failed(format!("{error}; what was in force stays in force"), error.hint())
        })?;
        tracing::info!(?changed, "the configuration was read anew");
        for (service, version) in &restart_needed {
            tracing::info!(%service, %version, "runs as was configured before; hint: switchman restart {version}");
        }
        Ok(Reloaded { changed, restart_needed, warnings })
    }

    /// The configuration as it is now, if it can be used without a new process.
    fn read_again(&self) -> Result<(Config, Problems), NotDone> {
        let Some(file) = &self.config.file else {
            return Err(NotDone::refused(
                "switchman runs from flags, without a configuration file",
                "start it with other flags, or write a file: switchman serve --config FILE",
            ));
        };
        let (config, warnings) = config::load(file).map_err(NotDone::invalid)?;
        let fixed = config::fixed(&self.config, &config);
        let Some(first) = fixed.0.first() else { return Ok((config, warnings)) };
        let hint = first.hint.clone().unwrap_or_default();
        let keys: Vec<String> = fixed.0.iter().map(|problem| format!("`{}`", problem.key)).collect();
        let message = format!("{} cannot change while switchman runs; nothing was changed", keys.join(", "));
        Err(NotDone { problems: fixed, ..NotDone::refused(message, hint) })
    }

    /// Runs as `config` says; answers with the versions whose processes do not yet.
    async fn take(&mut self, config: Config) -> Result<Vec<(ServiceName, VersionId)>, BuildError> {
        // What can fail comes first.
        let certificates = Certificates::of(&config, self.certificates.as_ref())?;
        let mut given = self.public.try_clone().map_err(BuildError::Share)?;
        let front = front::front(&config, certificates.as_ref());
        let listeners = proxy::bind_or_take(front, config.threads, &mut given)?;
        let public = listeners.share().map_err(BuildError::Share)?;
        let sources = self.services.open(&config.services)?;

        // Before the watchers: it takes no version of a service that it does not know.
        let stale = self.supervisor.configure(config.services.clone()).await;
        self.services.set(&config.services, sources);
        self.tell_lost(&config).await;
        self.proxy.reconfigure(listeners, &config.limits, &front::pages(&config));
        given.close();
        for tcp in self.public.tcp.iter().filter(|tcp| public.tcp.iter().all(|new| new.bound != tcp.bound)) {
            systemd::forget(tcp.bound);
        }
        systemd::store(&public);
        self.public = public;
        self.certificates = certificates;
        self.config = config;
        Ok(stale)
    }

    /// A changed root or pattern does not show every version any more.
    async fn tell_lost(&self, config: &Config) {
        let registry = self.registry.borrow().clone();
        for (name, new) in &config.services {
            let Some(old) = self.config.services.get(name) else { continue };
            if old.root != new.root || old.versions.as_str() != new.versions.as_str() {
                self.services.tell_lost(name, &registry).await;
            }
        }
    }
}
