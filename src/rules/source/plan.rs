//! What a change does to the aliases: a pure decision, the same for files and etcd.
//!
//! A store reads its aliases, asks [`plan`], and writes the [`AliasEdit`] in one step that is refused when a
//! name in [`AliasEdit::guards`] was changed meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use crate::hint::nearest;
use crate::rules::publisher::Aliases;
use crate::rules::source::{Change, ChangeError};
use crate::version::{CURRENT, LATEST, PREVIOUS};

/// The longest alias.
const NAME_LENGTH_MAX: usize = 64;
/// Lengths at which hexadecimal text is taken for a version.
const HASH_LENGTHS: std::ops::RangeInclusive<usize> = 7..=64;

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AliasEdit {
    /// Aliases that get another value: a version, or none to remove the alias.
    pub set: BTreeMap<String, Option<String>>,
    /// Aliases that were looked at for this decision; it holds only while they have not changed.
    pub guards: BTreeSet<String>,
}

impl AliasEdit {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// The aliases after the edit.
    pub fn apply(&self, aliases: &Aliases) -> Aliases {
        let mut after = aliases.clone();
        for (name, version) in &self.set {
            match version {
                Some(version) => after.insert(name.clone(), version.clone()),
                None => after.remove(name),
            };
        }
        after
    }

    /// What the edited aliases were, for the history.
    pub fn before(&self, aliases: &Aliases) -> BTreeMap<String, Option<String>> {
        self.set.keys().map(|name| (name.clone(), aliases.get(name).cloned())).collect()
    }

    /// An edit that looked at `guards` and leaves out what is already so.
    fn new<const N: usize>(aliases: &Aliases, guards: &[&str], set: [(&str, Option<&str>); N]) -> Self {
        Self {
            set: set
                .into_iter()
                .filter(|(name, version)| aliases.get(*name).map(String::as_str) != *version)
                .map(|(name, version)| (name.to_owned(), version.map(str::to_owned)))
                .collect(),
            guards: guards.iter().map(|name| (*name).to_owned()).collect(),
        }
    }
}

/// Decides what `change` does to `aliases`. A change of the document changes no alias.
pub fn plan(aliases: &Aliases, change: &Change) -> Result<AliasEdit, ChangeError> {
    let get = |name: &str| aliases.get(name).map(String::as_str);
    match change {
        Change::Promote { version } => {
            check_version(version)?;
            Ok(match get(CURRENT) {
                Some(current) if current == version => AliasEdit::default(),
                // Without a current there is nothing to go back to that was ever served: previous stays.
                None => AliasEdit::new(aliases, &[CURRENT], [(CURRENT, Some(version))]),
                Some(current) => AliasEdit::new(
                    aliases,
                    &[CURRENT, PREVIOUS],
                    [(CURRENT, Some(version)), (PREVIOUS, Some(current))],
                ),
            })
        }
        Change::First { version } => {
            check_version(version)?;
            Ok(match get(CURRENT) {
                Some(_) => AliasEdit::default(),
                None => AliasEdit::new(aliases, &[CURRENT], [(CURRENT, Some(version))]),
            })
        }
        Change::Rollback => match (get(CURRENT), get(PREVIOUS)) {
            (current, Some(previous)) => Ok(AliasEdit::new(
                aliases,
                &[CURRENT, PREVIOUS],
                [(CURRENT, Some(previous)), (PREVIOUS, current)],
            )),
            (_, None) => Err(refused(
                "there is nothing to go back to: `previous` is not set",
                "`previous` is set by the next promote: switchman versions, then switchman promote VERSION",
            )),
        },
        Change::Tag { name, version } => {
            check_name(name)?;
            check_version(version)?;
            Ok(AliasEdit::new(aliases, &[name], [(name, Some(version))]))
        }
        Change::Untag { name } => {
            check_name(name)?;
            match get(name) {
                Some(_) => Ok(AliasEdit::new(aliases, &[name], [(name, None)])),
                None => Err(refused(format!("there is no alias `{name}`"), known_aliases(name, aliases))),
            }
        }
        Change::Document { .. } => Ok(AliasEdit::default()),
    }
}

fn refused(message: impl Into<String>, hint: impl Into<String>) -> ChangeError {
    ChangeError::Refused { message: message.into(), hint: hint.into() }
}

fn known_aliases(written: &str, aliases: &Aliases) -> String {
    let tags: Vec<&str> =
        aliases.keys().map(String::as_str).filter(|name| ![CURRENT, PREVIOUS].contains(name)).collect();
    match nearest(written, tags.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? switchman untag {near}"),
        None if tags.is_empty() => "nobody has set a tag: switchman tag NAME VERSION".to_owned(),
        None => format!("the tags are {}", tags.join(", ")),
    }
}

/// A version reaches this by its whole name, from the registry; what is checked here is only that it can be
/// stored and read again.
fn check_version(version: &str) -> Result<(), ChangeError> {
    if version.is_empty() || version.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(refused(
            format!("`{}` cannot be a version", version.escape_debug()),
            "the versions there are: switchman versions",
        ));
    }
    Ok(())
}

/// An alias that a person sets: not one of ours, plainly written, and never to be taken for a version.
fn check_name(name: &str) -> Result<(), ChangeError> {
    match name {
        CURRENT | PREVIOUS => {
            return Err(refused(
                format!("the alias `{name}` is moved by promote and rollback"),
                "switchman promote VERSION, or switchman rollback",
            ));
        }
        LATEST => {
            return Err(refused(
                "the alias `latest` always names the version that arrived last and cannot be set",
                "choose another name: switchman tag NAME VERSION, or switchman promote VERSION",
            ));
        }
        _ => {}
    }
    let mut bytes = name.bytes();
    let plain = bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && name.len() <= NAME_LENGTH_MAX;
    if !plain {
        return Err(refused(
            format!("`{}` cannot be an alias", name.escape_debug()),
            "an alias begins with a letter and has at most 64 letters, digits, `.`, `_` or `-`",
        ));
    }
    if HASH_LENGTHS.contains(&name.len()) && name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(refused(
            format!("`{name}` looks like a version and cannot be an alias"),
            format!("add anything that is not hexadecimal, as in `{name}-tag`"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn aliases(pairs: &[(&str, &str)]) -> Aliases {
        pairs.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect()
    }

    fn promote(version: &str) -> Change {
        Change::Promote { version: version.to_owned() }
    }

    fn first(version: &str) -> Change {
        Change::First { version: version.to_owned() }
    }

    fn tag(name: &str, version: &str) -> Change {
        Change::Tag { name: name.to_owned(), version: version.to_owned() }
    }

    fn untag(name: &str) -> Change {
        Change::Untag { name: name.to_owned() }
    }

    #[test]
    fn each_change_leaves_the_aliases_that_it_promises() {
        type Pairs<'a> = &'a [(&'a str, &'a str)];
        let table: &[(Pairs<'_>, Change, Pairs<'_>)] = &[
            (&[], promote("aaaaaaa"), &[("current", "aaaaaaa")]),
            (
                &[("current", "aaaaaaa")],
                promote("bbbbbbb"),
                &[("current", "bbbbbbb"), ("previous", "aaaaaaa")],
            ),
            (
                &[("current", "bbbbbbb"), ("previous", "aaaaaaa")],
                promote("bbbbbbb"),
                &[("current", "bbbbbbb"), ("previous", "aaaaaaa")],
            ),
            (
                &[("current", "bbbbbbb"), ("previous", "aaaaaaa")],
                Change::Rollback,
                &[("current", "aaaaaaa"), ("previous", "bbbbbbb")],
            ),
            (&[("previous", "aaaaaaa")], Change::Rollback, &[("current", "aaaaaaa")]),
            (&[], first("aaaaaaa"), &[("current", "aaaaaaa")]),
            (&[("current", "aaaaaaa")], first("bbbbbbb"), &[("current", "aaaaaaa")]),
            (&[], tag("beta", "aaaaaaa"), &[("beta", "aaaaaaa")]),
            (&[("beta", "aaaaaaa")], tag("beta", "bbbbbbb"), &[("beta", "bbbbbbb")]),
            (&[("beta", "aaaaaaa")], untag("beta"), &[]),
        ];
        for (before, change, after) in table {
            let before = aliases(before);
            let edit = plan(&before, change).expect("allowed");
            assert_eq!(edit.apply(&before), aliases(after), "{change:?} on {before:?}");
        }
    }

    #[test]
    fn a_refused_change_says_what_to_type_instead() {
        let some = aliases(&[("current", "aaaaaaa"), ("beta", "aaaaaaa")]);
        let long = "a".repeat(65);
        for (change, in_message, in_hint) in [
            (Change::Rollback, "`previous` is not set", "promote"),
            (tag("current", "aaaaaaa"), "`current`", "promote"),
            (tag("previous", "aaaaaaa"), "`previous`", "rollback"),
            (tag("latest", "aaaaaaa"), "`latest`", "promote"),
            (untag("current"), "`current`", "promote"),
            (untag("betta"), "no alias `betta`", "did you mean `beta`"),
            (tag("deadbeef", "aaaaaaa"), "looks like a version", "deadbeef-tag"),
            (tag("1beta", "aaaaaaa"), "`1beta`", "begins with a letter"),
            (tag("", "aaaaaaa"), "``", "begins with a letter"),
            (tag("a/b", "aaaaaaa"), "`a/b`", "begins with a letter"),
            (tag("bé", "aaaaaaa"), "`bé`", "begins with a letter"),
            (tag(&long, "aaaaaaa"), "cannot be an alias", "at most 64"),
            (promote(""), "``", "switchman versions"),
            (promote("a\nb"), "`a\\nb`", "switchman versions"),
        ] {
            let Err(ChangeError::Refused { message, hint }) = plan(&some, &change) else {
                panic!("{change:?} was not refused");
            };
            assert!(message.contains(in_message), "{change:?}: {message}");
            assert!(hint.contains(in_hint), "{change:?}: {hint}");
        }
    }

    proptest! {
        #[test]
        fn promote_then_rollback_returns_to_what_was_current(
            current in "[0-9a-f]{7,40}", version in "[0-9a-f]{7,40}", tags in any::<bool>(),
        ) {
            let mut before = aliases(&[("current", &current)]);
            if tags {
                before.insert("beta".to_owned(), current.clone());
            }
            let promoted = plan(&before, &promote(&version)).unwrap().apply(&before);
            prop_assert_eq!(&promoted[CURRENT], &version);
            prop_assert_eq!(promoted.get("beta"), before.get("beta"));
            if version != current {
                let back = plan(&promoted, &Change::Rollback).unwrap().apply(&promoted);
                prop_assert_eq!(&back[CURRENT], &current);
                prop_assert_eq!(&back[PREVIOUS], &version);
            }
        }

        #[test]
        fn what_is_written_is_guarded_and_already_so_is_not_written(
            name in "[a-z]{1,3}", version in "[0-9a-f]{7,8}", held in "[0-9a-f]{7,8}",
        ) {
            let before = aliases(&[("current", &held), ("a", &held)]);
            for change in [promote(&version), first(&version), tag(&name, &version), tag("a", &held)] {
                let edit = plan(&before, &change).unwrap();
                for (name, value) in &edit.set {
                    prop_assert!(edit.guards.contains(name));
                    prop_assert_ne!(before.get(name), value.as_ref());
                }
                let after = edit.apply(&before);
                prop_assert!(plan(&after, &change).unwrap().is_empty(), "twice is as good as once");
            }
        }

        #[test]
        fn any_text_is_taken_or_refused_without_a_panic(name in ".*", version in ".*") {
            if let Ok(edit) = plan(&Aliases::new(), &tag(&name, &version)) {
                prop_assert!(edit.set.contains_key(&name));
                prop_assert!(name.len() <= 64 && !name.contains('/'));
            }
        }
    }
}
