//! Which transaction makes a change: what the mirror holds and what is asked give a [`Write`]. Pure.

use jiff::Timestamp;

use crate::rules::offer::Text;
use crate::rules::publisher::Aliases;
use crate::rules::source::etcd::mirror::{Contents, Keys, Mirror};
use crate::rules::source::history::Entry;
use crate::rules::source::plan::plan;
use crate::rules::source::{Change, ChangeError, Who};

/// A transaction to be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Write {
    /// Keys and the revisions that they must still have; 0: must not be there.
    pub(crate) guards: Vec<(String, i64)>,
    /// Keys and their new values; none removes the key.
    pub(crate) set: Vec<(String, Option<String>)>,
    /// The history entry's key, which must be free, and the entry.
    pub(crate) history: (String, String),
}

/// Which transaction makes `change`; none where everything is so already. Where etcd has lost what it held,
/// `lost` is put back in the same transaction.
pub(crate) fn decide(
    keys: &Keys,
    mirror: &Mirror,
    lost: Option<&Contents>,
    change: &Change,
    who: &Who,
    now: Timestamp,
) -> Result<Option<Write>, ChangeError> {
    let contents = mirror.contents(keys);
    let aliases: &Aliases = lost.map_or(&contents.aliases, |lost| &lost.aliases);
    let mut write = Write { guards: Vec::new(), set: Vec::new(), history: Default::default() };
    let entry = match change {
        Change::Document { text, if_revision } => {
            let key = keys.document.as_deref().ok_or_else(|| {
                ChangeError::Unavailable("the rule document of this service is not in etcd".to_owned())
            })?;
            let found = mirror.revision_of(key).unsigned_abs();
            if let Some(expected) = *if_revision
                && lost.is_none()
                && found != expected
            {
                return Err(ChangeError::Conflict { expected, found });
            }
            write.guards.push((key.to_owned(), mirror.guard_of(key)));
            write.set.push((key.to_owned(), Some(text.to_string())));
            Entry::document(who, now, mirror.text(key).map(AsRef::as_ref), text)
        }
        _ => {
            let edit = plan(aliases, change)?;
            if edit.is_empty() {
                return Ok(None);
            }
            for name in &edit.guards {
                write.guards.push((keys.alias(name), mirror.guard_of(&keys.alias(name))));
            }
            for (name, version) in &edit.set {
                write.set.push((keys.alias(name), version.clone()));
            }
            Entry::aliases(change, who, now, aliases, &edit)
        }
    };
    if let Some(lost) = lost {
        put_back(keys, lost, &mut write);
    }
    let entry = serde_json::to_string(&entry).map_err(|error| ChangeError::Unavailable(error.to_string()))?;
    write.history = (format!("{}{}", keys.history, mirror.revision), entry);
    Ok(Some(write))
}

/// Adds what etcd has lost and the change does not set itself. Only where it is still not there.
fn put_back(keys: &Keys, lost: &Contents, write: &mut Write) {
    let aliases = lost.aliases.iter().map(|(name, version)| (keys.alias(name), version.clone()));
    let routes = lost.routes.iter().map(|(name, text)| (format!("{}{name}", keys.routes), text.clone()));
    let document = lost.document.iter().filter_map(|document| match &document.text {
        Text::Here(text) if !text.is_empty() => Some((document.origin.to_string(), text.to_string())),
        _ => None,
    });
    for (key, text) in aliases.chain(routes).chain(document) {
        if !write.set.iter().any(|(set, _)| *set == key) {
            write.set.push((key.clone(), Some(text)));
        }
        if !write.guards.iter().any(|(guard, _)| *guard == key) {
            write.guards.push((key, 0));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::rules::offer::Document;
    use crate::rules::source::etcd::mirror::{Seen, Value};
    use crate::version::ServiceName;

    fn keys() -> Keys {
        Keys::new("/s", &ServiceName::from("app"), Some("/s/app/rules".to_owned()))
    }

    fn mirror(pairs: &[(&str, i64, &str)]) -> Mirror {
        let mut mirror = Mirror::default();
        for (key, revision, text) in pairs {
            let value = Value::Text((*text).into());
            mirror.event(Seen { key: format!("/s/app/{key}"), revision: *revision, value });
        }
        mirror
    }

    fn decided(
        mirror: &Mirror,
        lost: Option<&Contents>,
        change: Change,
    ) -> Result<Option<Write>, ChangeError> {
        decide(&keys(), mirror, lost, &change, &Who("alice".into()), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_promote_is_guarded_by_the_aliases_it_moves_and_by_nothing_else() {
        let mirror = mirror(&[("aliases/current", 4, "aaaaaaa"), ("aliases/beta", 9, "ccccccc")]);
        let write = decided(&mirror, None, Change::Promote { version: "bbbbbbb".into() }).unwrap().unwrap();
        assert_eq!(
            write.guards,
            [("/s/app/aliases/current".to_owned(), 4), ("/s/app/aliases/previous".to_owned(), 0)]
        );
        assert_eq!(
            write.set,
            [
                ("/s/app/aliases/current".to_owned(), Some("bbbbbbb".to_owned())),
                ("/s/app/aliases/previous".to_owned(), Some("aaaaaaa".to_owned())),
            ]
        );
        assert_eq!(write.history.0, "/s/app/history/9");
        let entry: Entry = serde_json::from_str(&write.history.1).unwrap();
        assert_eq!((entry.who.as_str(), entry.what.as_str()), ("alice", "promote bbbbbbb"));
    }

    #[test]
    fn the_first_version_is_only_ever_created() {
        let write =
            decided(&mirror(&[]), None, Change::First { version: "aaaaaaa".into() }).unwrap().unwrap();
        assert_eq!(write.guards, [("/s/app/aliases/current".to_owned(), 0)]);
        let set = mirror(&[("aliases/current", 4, "bbbbbbb")]);
        assert_eq!(decided(&set, None, Change::First { version: "aaaaaaa".into() }).unwrap(), None);
    }

    #[test]
    fn a_document_of_another_revision_is_not_overwritten() {
        let mirror = mirror(&[("rules", 6, "routes: []")]);
        let set = |if_revision| Change::Document { text: "routes: [a]".into(), if_revision };
        let found = decided(&mirror, None, set(Some(5))).unwrap_err();
        assert!(matches!(found, ChangeError::Conflict { expected: 5, found: 6 }), "{found:?}");
        for if_revision in [Some(6), None] {
            let write = decided(&mirror, None, set(if_revision)).unwrap().unwrap();
            assert_eq!(write.guards, [("/s/app/rules".to_owned(), 6)]);
        }
    }

    #[test]
    fn what_etcd_has_lost_is_put_back_with_the_first_change() {
        let lost = Contents {
            aliases: Arc::new([("current".to_owned(), "aaaaaaa".to_owned())].into()),
            routes: Arc::new(vec![("qa".to_owned(), "to: beta".to_owned())]),
            document: Some(Document {
                origin: "/s/app/rules".into(),
                revision: 3,
                text: Text::Here("routes: []".into()),
            }),
            problems: Vec::new(),
        };
        let promote = Change::Promote { version: "bbbbbbb".into() };
        let write = decided(&mirror(&[]), Some(&lost), promote).unwrap().unwrap();
        let mut set: Vec<_> = write.set.iter().map(|(k, v)| (k.as_str(), v.as_deref().unwrap())).collect();
        set.sort_unstable();
        assert_eq!(
            set,
            [
                ("/s/app/aliases/current", "bbbbbbb"),
                ("/s/app/aliases/previous", "aaaaaaa"),
                ("/s/app/routes/qa", "to: beta"),
                ("/s/app/rules", "routes: []"),
            ]
        );
        assert!(write.guards.iter().all(|(_, revision)| *revision == 0), "{:?}", write.guards);
    }
}
