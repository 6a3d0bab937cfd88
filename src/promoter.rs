//! Moves `current` by itself in the two cases where it may: for the first version of all, and where a service
//! says `promote: auto`.
//!
//! One task a process looks at each new snapshot; what to do is the pure [`Promoter::next`]. A version is
//! considered once: after a rollback the newer version is not promoted again, and what was there before
//! switchman started is never promoted by `auto`.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::config::Promote;
use crate::registry;
use crate::routing::{Live, ServiceRouting};
use crate::rules::source::{Change, SourceHandle, Who};
use crate::version::{CURRENT, ServiceName, VersionState};

/// What one service's promoter remembers.
#[derive(Debug)]
pub struct Promoter {
    policy: Promote,
    /// Versions that arrived up to here have been considered.
    considered: Timestamp,
}

impl Promoter {
    /// One that considers what arrives from `now` on.
    pub fn new(policy: Promote, now: Timestamp) -> Self {
        Self { policy, considered: now }
    }

    /// The change that is due, if one is.
    pub fn next(&mut self, service: &ServiceRouting) -> Option<Change> {
        // With the source away nobody knows whether `current` is set.
        if service.rules.stale_since.is_some() {
            return None;
        }
        let ready = |v: &&Arc<registry::Version>| v.state == VersionState::Ready;
        let versions = service.registry.versions.values().filter(ready);
        if !service.rules.aliases.contains_key(CURRENT) {
            let first = versions.min_by_key(|v| v.since)?;
            return Some(Change::First { version: first.id.to_string() });
        }
        if self.policy == Promote::Manual {
            return None;
        }
        let newest = versions.filter(|v| v.arrived > self.considered).max_by_key(|v| v.arrived)?;
        self.considered = newest.arrived;
        let already = service.current().is_ok_and(|current| current.id == newest.id);
        (!already).then(|| Change::Promote { version: newest.id.to_string() })
    }
}

/// What each service says of it, and where it is changed.
pub type Policies = BTreeMap<ServiceName, (Promote, SourceHandle)>;

/// Runs until the snapshots end. Where a policy changes, what is there already has been considered.
pub async fn run(live: Arc<Live>, mut policies: watch::Receiver<Policies>) {
    let mut promoters: BTreeMap<ServiceName, Promoter> = BTreeMap::new();
    let mut generations = live.watch();
    loop {
        let now = Timestamp::now();
        let current = policies.borrow_and_update().clone();
        promoters.retain(|name, _| current.contains_key(name));
        let snapshot = live.load();
        for (name, (policy, source)) in &current {
            let promoter = promoters.entry(name.clone()).or_insert_with(|| Promoter::new(*policy, now));
            if promoter.policy != *policy {
                *promoter = Promoter::new(*policy, now);
            }
            let Some(change) = snapshot.service(name.as_str()).and_then(|s| promoter.next(s)) else {
                continue;
            };
            match source.apply(change.clone(), Who("switchman".to_owned())).await {
                Ok(_) => tracing::info!(service = %name, ?change, "current was moved"),
                Err(error) => tracing::error!(service = %name, ?change, %error, "current could not be moved"),
            }
        }
        tokio::select! {
            changed = generations.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            Ok(()) = policies.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::tests::make::join;
    use crate::version::VersionState::{Failed, Ready, Starting};

    /// The versions that there are, and `current`.
    type Look<'a> = (&'a [(&'a str, VersionState, i64)], Option<&'a str>);

    /// What is due for these versions, one look after the other.
    fn looks(policy: Promote, looks: &[Look<'_>]) -> Vec<Option<Change>> {
        let started = Timestamp::from_second(10).unwrap();
        let mut promoter = Promoter::new(policy, started);
        let look = |(versions, current): &Look<'_>| {
            let aliases: Vec<(&str, &str)> = current.iter().map(|c| (CURRENT, *c)).collect();
            promoter.next(&join(versions, "", &aliases))
        };
        looks.iter().map(look).collect()
    }

    fn promote(version: &str) -> Option<Change> {
        Some(Change::Promote { version: version.into() })
    }

    #[test]
    fn the_first_version_that_is_ready_becomes_current() {
        let first = |version: &str| Some(Change::First { version: version.into() });
        for policy in [Promote::Manual, Promote::Auto] {
            let due = looks(
                policy,
                &[
                    (&[], None),
                    (&[("aaaaaaa", Failed, 11), ("bbbbbbb", Starting, 12)], None),
                    (&[("aaaaaaa", Failed, 11), ("bbbbbbb", Ready, 12)], None),
                ],
            );
            assert_eq!(due, [None, None, first("bbbbbbb")], "{policy:?}");
        }
    }

    #[test]
    fn current_moves_by_itself_only_where_the_service_says_so() {
        let newer: &[_] = &[("aaaaaaa", Ready, 11), ("bbbbbbb", Ready, 12)];
        assert_eq!(looks(Promote::Manual, &[(newer, Some("aaaaaaa"))]), [None]);
        assert_eq!(looks(Promote::Auto, &[(newer, Some("aaaaaaa"))]), [promote("bbbbbbb")]);
        assert_eq!(looks(Promote::Auto, &[(newer, Some("bbbbbbb"))]), [None]);
    }

    #[test]
    fn a_version_is_considered_once_so_that_a_rollback_stands() {
        let two: &[_] = &[("aaaaaaa", Ready, 11), ("bbbbbbb", Ready, 12)];
        let three: &[_] = &[("aaaaaaa", Ready, 11), ("bbbbbbb", Ready, 12), ("ccccccc", Ready, 13)];
        let due = looks(
            Promote::Auto,
            &[
                (two, Some("aaaaaaa")),
                (two, Some("bbbbbbb")),
                (two, Some("aaaaaaa")),
                (three, Some("aaaaaaa")),
            ],
        );
        assert_eq!(due, [promote("bbbbbbb"), None, None, promote("ccccccc")]);
        let before: &[_] = &[("aaaaaaa", Ready, 1), ("bbbbbbb", Ready, 2)];
        assert_eq!(
            looks(Promote::Auto, &[(before, Some("aaaaaaa"))]),
            [None],
            "it was there before the start"
        );
    }
}
