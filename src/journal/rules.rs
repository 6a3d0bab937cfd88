//! What changes in rules and aliases, found by comparing one snapshot with the next.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Journal, What};
use crate::routing::Live;
use crate::rules::publisher::Published;
use crate::version::VersionId;

/// Writes down every change of rules and aliases until the snapshots end.
pub async fn follow(live: Arc<Live>, journal: Journal) {
    let mut generations = live.watch();
    let mut before = live.load();
    while generations.changed().await.is_ok() {
        let now = live.load();
        for service in &now.services {
            // What holds when a service is first seen is no change.
            let Some(was) = before.service(service.name.as_str()) else { continue };
            for what in changes(&was.rules, &service.rules) {
                let version = match &what {
                    What::Alias { to: Some(to), .. } => service.resolve(to).map(|v| v.id.clone()).ok(),
                    What::Alias { from: Some(from), .. } => Some(VersionId::from(from.as_str())),
                    _ => None,
                };
                journal.record(&service.name, version.as_ref(), what);
            }
        }
        before = now;
    }
}

/// What happened between two.
fn changes(before: &Arc<Published>, now: &Arc<Published>) -> Vec<What> {
    if Arc::ptr_eq(before, now) {
        return Vec::new();
    }
    let mut found = Vec::new();
    if before.stale_since.is_some() != now.stale_since.is_some() {
        found.push(What::Source { away: now.stale_since.is_some() });
    }
    if before.document != now.document || before.since != now.since {
        found.push(What::Rules { origin: now.origin.to_string() });
    }
    let refused = now.rejected && (!before.rejected || before.problems != now.problems);
    if refused {
        found.push(What::RulesRefused { why: now.problems.to_string() });
    }
    let names: BTreeSet<&String> = before.aliases.keys().chain(now.aliases.keys()).collect();
    found.extend(names.into_iter().filter_map(|alias| {
        let (from, to) = (before.aliases.get(alias), now.aliases.get(alias));
        (from != to).then(|| What::Alias { alias: alias.clone(), from: from.cloned(), to: to.cloned() })
    }));
    found
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::hint::{Problem, Problems};
    use crate::rules::table::RuleTable;

    fn published(
        document: &str,
        aliases: &[(&str, &str)],
        problem: Option<&str>,
        stale: bool,
    ) -> Arc<Published> {
        let since = Timestamp::from_second(document.len() as i64).unwrap();
        Arc::new(Published {
            generation: 1,
            table: Arc::new(RuleTable::empty()),
            aliases: Arc::new(aliases.iter().map(|(a, v)| ((*a).to_owned(), (*v).to_owned())).collect()),
            document: Arc::from(document),
            origin: Arc::from("rules.yaml"),
            revision: 0,
            since,
            problems: Arc::new(Problems(problem.map(|text| Problem::error("", text)).into_iter().collect())),
            rejected: problem.is_some(),
            stale_since: stale.then_some(since),
        })
    }

    #[test]
    fn each_change_is_told_once() {
        let steps = [
            published("", &[], None, false),
            published("", &[("current", "a")], None, false),
            published("", &[("current", "b"), ("previous", "a")], None, false),
            published("x", &[("current", "b"), ("previous", "a")], None, false),
            published("x", &[("current", "b"), ("previous", "a")], Some("bad"), false),
            published("x", &[("current", "b"), ("previous", "a")], Some("bad"), true),
            published("x", &[("current", "b")], None, false),
        ];
        let said: Vec<Vec<String>> = steps
            .windows(2)
            .map(|pair| changes(&pair[0], &pair[1]).iter().map(ToString::to_string).collect())
            .collect();
        assert_eq!(
            said,
            [
                vec!["current is a"],
                vec!["current is b; it was a", "previous is a"],
                vec!["the rules of rules.yaml are in force"],
                vec!["a rule document was refused, what was in force stays: error: bad"],
                vec!["the source of rules and aliases cannot be reached; what is in force stays"],
                vec!["the source of rules and aliases is back", "previous is removed; it was a"],
            ]
        );
        assert_eq!(changes(&steps[1], &steps[1].clone()), []);
    }
}
