//! Which versions are kept. Pure.

use jiff::Timestamp;

use crate::rules::publisher::Published;
use crate::version::{PREFIX_MIN, VersionId};

/// A version whose folder is complete, as retention sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) version: VersionId,
    pub(crate) arrived: Timestamp,
    /// It carries traffic, has an alias, or is named by a rule.
    pub(crate) in_use: bool,
    /// A person has started it although it was beyond `keep`.
    pub(crate) held: bool,
    /// It runs or sleeps.
    pub(crate) alive: bool,
    /// No process of it is left, and its folder is what it was started from.
    pub(crate) at_rest: bool,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) stop: Vec<VersionId>,
    /// Of these the folder may be deleted.
    pub(crate) beyond: Vec<VersionId>,
}

/// Which of a service's versions are beyond the newest `keep`, and in nobody's way to be stopped.
pub(crate) fn decide(mut versions: Vec<Candidate>, keep: usize) -> Verdict {
    // As the alias `latest` does: of two that arrived together the later by name is the newer.
    versions.sort_unstable_by(|a, b| (b.arrived, &b.version).cmp(&(a.arrived, &a.version)));
    let mut verdict = Verdict::default();
    for version in versions.into_iter().skip(keep).filter(|v| !v.in_use && !v.held) {
        if version.alive {
            verdict.stop.push(version.version);
        } else if version.at_rest {
            verdict.beyond.push(version.version);
        }
    }
    verdict
}

/// Whether an alias or a rule names a version, be it with a share of 0 %. By what is written, so that it holds also
/// while the version is not known to the rules yet.
pub(crate) fn is_named(version: &VersionId, rules: &Published) -> bool {
    let id = version.as_str();
    let mut names = rules.aliases.values().chain(rules.table.targets());
    names.any(|name| name == id || (name.len() >= PREFIX_MIN && id.starts_with(name.as_str())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::routing::tests::make::published;

    fn candidate(version: &str, second: i64) -> Candidate {
        Candidate {
            version: version.into(),
            arrived: Timestamp::from_second(second).unwrap(),
            in_use: false,
            held: false,
            alive: true,
            at_rest: false,
        }
    }

    fn names(versions: &[VersionId]) -> Vec<&str> {
        versions.iter().map(VersionId::as_str).collect()
    }

    #[test]
    fn the_newest_stay_and_so_does_what_is_in_use() {
        let all = || -> Vec<Candidate> {
            ["a", "b", "c", "d", "e"].iter().zip(1..).map(|(v, s)| candidate(v, s)).collect()
        };
        assert_eq!(names(&decide(all(), 3).stop), ["b", "a"]);
        assert_eq!(decide(all(), 5), Verdict::default());
        let mut used = all();
        used[0].in_use = true;
        used[4].in_use = true;
        assert_eq!(names(&decide(used, 2).stop), ["c", "b"], "in use or not, it is one of the newest");
        let mut held = all();
        held[1].held = true;
        assert_eq!(names(&decide(held, 3).stop), ["a"]);
        let mut resting = all();
        resting[0] = Candidate { alive: false, at_rest: true, ..resting[0].clone() };
        resting[1] = Candidate { alive: false, ..resting[1].clone() };
        let verdict = decide(resting, 2);
        assert_eq!((names(&verdict.stop), names(&verdict.beyond)), (vec!["c"], vec!["a"]), "b still drains");
        let together = vec![candidate("a", 1), candidate("c", 1), candidate("b", 1)];
        assert_eq!(names(&decide(together, 1).stop), ["b", "a"]);
    }

    #[test]
    fn a_version_is_named_by_aliases_and_rules_also_with_a_share_of_nothing() {
        let document = "key: cookie.uid\nroutes:\n  - {name: canary, split: {4f2a91c: 0%}}\n  - {name: beta, when: {method: GET}, to: beta}\n";
        let rules = published(document, &[("previous", "b001bee"), ("beta", "c0ffee0")]);
        for (version, named) in [
            ("4f2a91c", true),
            ("4f2a91cdd0", true),
            ("b001bee", true),
            ("c0ffee0", true),
            ("deadbee", false),
        ] {
            assert_eq!(is_named(&version.into(), &rules), named, "{version}");
        }
    }

    fn any_version() -> impl Strategy<Value = Candidate> {
        ("[a-f]{3}", 0_i64..20, any::<[bool; 3]>(), 0..3).prop_map(
            |(version, second, [in_use, held, _], life)| {
                let (alive, at_rest) = (life == 0, life == 1);
                Candidate { in_use, held, alive, at_rest, ..candidate(&version, second) }
            },
        )
    }

    proptest! {
        #[test]
        fn nothing_in_use_is_touched_and_what_is_left_is_no_more_than_wanted(
            versions in prop::collection::vec(any_version(), 0..30), keep in 1_usize..12,
        ) {
            let mut versions = versions;
            versions.sort_by(|a, b| a.version.cmp(&b.version));
            versions.dedup_by(|a, b| a.version == b.version);
            let verdict = decide(versions.clone(), keep);
            let touched = |v: &Candidate| verdict.stop.contains(&v.version) || verdict.beyond.contains(&v.version);
            for version in &versions {
                let newer = versions.iter().filter(|v| (v.arrived, &v.version) > (version.arrived, &version.version));
                let is_newest = newer.count() < keep;
                prop_assert!(!(touched(version) && (version.in_use || version.held || is_newest)), "{version:?}");
                prop_assert_eq!(verdict.stop.contains(&version.version), touched(version) && version.alive);
                prop_assert!(!verdict.beyond.contains(&version.version) || version.at_rest);
            }
            let free = |v: &&Candidate| v.alive && !v.in_use && !v.held;
            let left = versions.iter().filter(free).filter(|v| !touched(v)).count();
            prop_assert!(left <= keep);
        }
    }
}
