//! Shows a version as it is now: in the registry, and where its state has changed in the journal.

use std::sync::Arc;

use super::{Key, Supervisor};
use crate::journal::What;
use crate::version::VersionState;

impl Supervisor {
    pub(super) fn publish(&mut self, key: &Key) {
        let Some(service) = self.services.get_mut(&key.service) else { return };
        let Some(version) = service.versions.get_mut(&key.version) else { return };
        let view = version.view();
        self.places.keep_only(&key.service, &key.version, &version.waiting_for_process(&view));
        let gone = view.state == VersionState::Gone;
        if gone {
            service.versions.remove(&key.version);
            self.logs.forget(&key.service, &key.version);
        }
        if self.succession.holds_back {
            return;
        }
        let (view, mut before) = (Arc::new(view), None);
        self.registry.update(|services| {
            let versions = &mut services.entry(key.service.clone()).or_default().versions;
            before = if gone {
                versions.remove(&key.version)
            } else {
                versions.insert(key.version.clone(), view.clone())
            };
        });
        let is_new = before.is_none_or(|before| before.state != view.state || before.reason != view.reason);
        if is_new {
            let what = What::State { state: view.state, reason: view.reason.clone() };
            self.journal.record(&key.service, Some(&key.version), what);
        }
        if gone {
            self.forget_if_empty(&key.service);
        }
    }
}
