//! Joined services made by hand, for the tests of what reads them.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::config::Protocol;
use crate::metrics::VersionCounters;
use crate::registry::{self, Address, Upstream, Version};
use crate::routing::ServiceRouting;
use crate::rules::publisher::{Aliases, Published};
use crate::rules::{Context, compile};
use crate::version::{VersionId, VersionState, WorkerId};

/// A version that arrived at second `arrived`; a ready one has a worker.
fn version(id: &str, state: VersionState, arrived: i64) -> Version {
    let worker =
        Arc::new(Upstream::new(1, WorkerId(0), Address::Tcp(([127, 0, 0, 1], 1).into()), Protocol::Http1, 1));
    Version {
        service: "app".into(),
        id: id.into(),
        path: format!("/srv/app/{id}").into(),
        state,
        since: Timestamp::UNIX_EPOCH,
        arrived: Timestamp::from_second(arrived).unwrap(),
        reason: None,
        modified: false,
        workers: Vec::new(),
        wake: None,
        ready: if state == VersionState::Ready { vec![worker] } else { Vec::new() },
        delivery: Arc::default(),
        counters: Arc::new(VersionCounters::new(1)),
    }
}

/// Rules in force, compiled from `document`.
pub(crate) fn published(document: &str, aliases: &[(&str, &str)]) -> Arc<Published> {
    let context = Context { file: "rules.yaml", service: "app", extra_routes: &[] };
    let aliases: Aliases = aliases.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Arc::new(Published {
        generation: 1,
        table: Arc::new(compile(document, &context).unwrap().table),
        aliases: Arc::new(aliases),
        document: document.into(),
        origin: "rules.yaml".into(),
        revision: 1,
        since: Timestamp::UNIX_EPOCH,
        problems: Arc::default(),
        rejected: false,
        stale_since: None,
    })
}

/// A service of versions (name, state, second of arrival) under these rules.
pub(crate) fn join(
    versions: &[(&str, VersionState, i64)],
    document: &str,
    aliases: &[(&str, &str)],
) -> ServiceRouting {
    let versions: BTreeMap<VersionId, Arc<Version>> = versions
        .iter()
        .map(|(id, state, arrived)| (VersionId::from(*id), Arc::new(version(id, *state, *arrived))))
        .collect();
    let service = registry::Service { versions, ..registry::Service::default() };
    ServiceRouting::join("app".into(), service, published(document, aliases))
}
