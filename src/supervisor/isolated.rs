//! What workers that run as somebody else, or within limits, need of the machine: seen to once, when the supervisor
//! starts. What is missing is said loudly, and the workers run without it: a machine that was started with another
//! kernel must not stand still for that.

use std::collections::BTreeMap;

use super::launch::cgroup::Cgroups;
use super::launch::reach;
use super::{RUN_FOLDER, Settings};
use crate::version::ServiceName;

/// The folder of what workers print, in the state folder.
const LOGS: &str = "logs";
/// What to do about a controller that is missing.
const HINT: &str = "under systemd, put `Delegate=yes` into switchman's unit and start the machine with cgroup v2 alone \
                    (systemd.unified_cgroup_hierarchy=1); in a container, run it with a writable cgroup namespace; or \
                    remove the limit";

/// Opens the way to the state folder where a service wants it. Answers where control groups can be made, if they can.
pub(super) fn prepare(settings: &Settings) -> Option<Cgroups> {
    let services = &settings.services;
    if services.values().any(|service| service.run.isolation.account.is_some()) {
        let private = services.keys().map(ServiceName::as_str).chain([LOGS]);
        if let Err(error) = reach::open(&settings.state, RUN_FOLDER, private) {
            let state = settings.state.display();
            tracing::error!("workers with `user` or `group` cannot reach their files in {state}: {error}");
        }
    }
    // By controller: the first service and key that want it.
    let mut wanted: BTreeMap<&str, (&ServiceName, &str)> = BTreeMap::new();
    for (name, service) in services {
        for (controller, key) in service.run.isolation.cgroup.controllers() {
            wanted.entry(controller).or_insert((name, key));
        }
    }
    let cgroups = match Cgroups::find() {
        Ok(cgroups) => cgroups,
        Err(why) => {
            for (service, key) in wanted.values() {
                tracing::error!("services.{service}.{key} is not in force: {why}; hint: {HINT}");
            }
            tracing::info!("workers have no cgroups of their own: {why}");
            return None;
        }
    };
    cgroups.sweep();
    for (controller, why) in cgroups.control(wanted.keys().copied()) {
        if let Some((service, key)) = wanted.get(controller.as_str()) {
            tracing::error!(
                "services.{service}.{key} is not in force: the controller `{controller}` is missing: {why}; hint: {HINT}"
            );
        }
    }
    Some(cgroups)
}
