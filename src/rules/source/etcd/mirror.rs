//! What etcd holds for one service, as far as it was seen: a pure value, fed by lists and watch events.
//!
//! Each key keeps the revision of its last change, also when that was its removal: an older event that comes
//! late changes nothing, and a guarded write knows what it was decided on.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::hint::Problem;
use crate::rules::offer::{Document, Text};
use crate::rules::publisher::{Aliases, Routes};
use crate::version::ServiceName;

/// Where the keys of one service are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    /// The rule document; none where it is a file.
    pub(crate) document: Option<String>,
    /// What the key of each route begins with.
    pub(crate) routes: String,
    /// What the key of each alias begins with.
    pub(crate) aliases: String,
    /// What the key of each history entry begins with.
    pub(crate) history: String,
}

impl Keys {
    /// The keys of `service` under `prefix`.
    pub(crate) fn new(prefix: &str, service: &ServiceName, document: Option<String>) -> Self {
        Self {
            document,
            routes: format!("{prefix}/{service}/routes/"),
            aliases: format!("{prefix}/{service}/aliases/"),
            history: format!("{prefix}/{service}/history/"),
        }
    }

    /// The key of one alias.
    pub(crate) fn alias(&self, name: &str) -> String {
        format!("{}{name}", self.aliases)
    }
}

/// The value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// Text.
    Text(Arc<str>),
    /// Bytes that are no text.
    Binary,
    /// The key was removed.
    Removed,
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        std::str::from_utf8(bytes).map_or(Self::Binary, |text| Self::Text(Arc::from(text)))
    }
}

/// One key as it was seen last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its name.
    pub(crate) key: String,
    /// The revision of its last change.
    pub(crate) revision: i64,
    /// Its value then.
    pub(crate) value: Value,
}

/// Aliases, routes and document of one service, with the problems that were met in reading them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Contents {
    pub(crate) aliases: Arc<Aliases>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) document: Option<Document>,
    pub(crate) problems: Vec<Problem>,
}

impl Contents {
    /// Whether nothing would be lost with it.
    pub(crate) fn is_empty(&self) -> bool {
        let document = self.document.as_ref().map(|document| &document.text);
        self.aliases.is_empty()
            && self.routes.is_empty()
            && document.is_none_or(|text| matches!(text, Text::Here(text) if text.is_empty()))
    }
}

/// The keys of one service as they were seen last.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    seen: BTreeMap<String, Seen>,
    /// When everything was read; what happened until then is in it.
    read_at: i64,
    /// The newest revision of the whole store that was heard of.
    pub(crate) revision: i64,
}

impl Mirror {
    /// Everything anew, as one read at `revision` found it.
    pub(crate) fn replace(&mut self, found: Vec<Seen>, revision: i64) {
        self.seen = found.into_iter().map(|seen| (seen.key.clone(), seen)).collect();
        self.read_at = revision;
        self.revision = revision;
    }

    /// One change of one key.
    pub(crate) fn event(&mut self, event: Seen) {
        if event.revision > self.read_at && event.revision >= self.revision_of(&event.key) {
            self.revision = self.revision.max(event.revision);
            self.seen.insert(event.key.clone(), event);
        }
    }

    /// The revision of a key's last change; 0 for a key that was never seen.
    pub(crate) fn revision_of(&self, key: &str) -> i64 {
        self.seen.get(key).map_or(0, |seen| seen.revision)
    }

    /// The revision that etcd compares with (`mod_revision`): 0 also for a key that was removed.
    pub(crate) fn guard_of(&self, key: &str) -> i64 {
        self.seen.get(key).filter(|seen| seen.value != Value::Removed).map_or(0, |seen| seen.revision)
    }

    /// The text of a key.
    pub(crate) fn text(&self, key: &str) -> Option<&Arc<str>> {
        match &self.seen.get(key)?.value {
            Value::Text(text) => Some(text),
            Value::Binary | Value::Removed => None,
        }
    }

    /// Whether etcd holds nothing at all for the service.
    pub(crate) fn is_empty(&self) -> bool {
        self.seen.values().all(|seen| seen.value == Value::Removed)
    }

    /// What the keys mean.
    pub(crate) fn contents(&self, keys: &Keys) -> Contents {
        let mut problems = Vec::new();
        let mut aliases = Aliases::new();
        let mut routes = Routes::new();
        for seen in self.seen.values() {
            let alias = seen.key.strip_prefix(&keys.aliases);
            let route = seen.key.strip_prefix(&keys.routes);
            match (&seen.value, alias, route) {
                (Value::Removed, ..) | (_, None, None) => {}
                (Value::Binary, ..) => problems.push(not_text(&seen.key)),
                // `etcdctl put` from a shell often leaves a newline.
                (Value::Text(text), Some(name), _) => {
                    aliases.insert(name.to_owned(), text.trim().to_owned());
                }
                (Value::Text(text), None, Some(name)) => routes.push((name.to_owned(), text.to_string())),
            }
        }
        let document = keys.document.as_deref().map(|key| self.document(key));
        Contents { aliases: Arc::new(aliases), routes: Arc::new(routes), document, problems }
    }

    fn document(&self, key: &str) -> Document {
        let text = match self.seen.get(key).map(|seen| &seen.value) {
            // A key that somebody removed says for certain, and to every node, that there is no document.
            None | Some(Value::Removed) => Text::Here(Arc::from("")),
            Some(Value::Binary) => Text::Unreadable(not_text(key)),
            Some(Value::Text(text)) if text.trim().is_empty() => Text::Missing(
                Problem {
                    file: Some(Arc::from(key)),
                    ..Problem::error("", "the rule document is empty: the last good rules stay in force")
                }
                .hint("to send everything to current, write `routes: []` or delete the key"),
            ),
            Some(Value::Text(text)) => Text::Here(text.clone()),
        };
        Document { origin: Arc::from(key), revision: self.revision_of(key).unsigned_abs(), text }
    }
}

fn not_text(key: &str) -> Problem {
    let problem = Problem::error("", "the value is not UTF-8 text").hint(format!("etcdctl put {key} ..."));
    Problem { file: Some(Arc::from(key)), ..problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new("/switchman", &ServiceName::from("app"), Some("/switchman/app/rules".to_owned()))
    }

    fn put(key: &str, revision: i64, text: &str) -> Seen {
        Seen { key: format!("/switchman/app/{key}"), revision, value: Value::Text(text.into()) }
    }

    fn removed(key: &str, revision: i64) -> Seen {
        Seen { value: Value::Removed, ..put(key, revision, "") }
    }

    #[test]
    fn keys_become_aliases_routes_in_order_and_the_document() {
        let mut mirror = Mirror::default();
        mirror.replace(
            vec![
                put("routes/20-b", 3, "to: b"),
                put("aliases/current", 5, "4f2a91c\n"),
                put("rules", 4, "routes: []"),
                put("routes/10-a", 6, "to: a"),
                put("nodes/host-a", 7, "{}"),
            ],
            9,
        );
        let contents = mirror.contents(&keys());
        assert_eq!(contents.aliases["current"], "4f2a91c");
        assert_eq!(contents.aliases.len(), 1);
        assert_eq!(*contents.routes, [("10-a".into(), "to: a".into()), ("20-b".into(), "to: b".into())]);
        let document = contents.document.unwrap();
        assert_eq!((document.revision, document.text), (4, Text::Here("routes: []".into())));
    }

    #[test]
    fn an_older_event_that_comes_late_changes_nothing() {
        let mut mirror = Mirror::default();
        mirror.event(removed("aliases/beta", 8));
        mirror.event(put("aliases/beta", 7, "aaaaaaa"));
        assert!(mirror.contents(&keys()).aliases.is_empty());
        let beta = keys().alias("beta");
        assert_eq!((mirror.revision_of(&beta), mirror.guard_of(&beta)), (8, 0));
        mirror.event(put("aliases/beta", 9, "bbbbbbb"));
        assert_eq!(mirror.contents(&keys()).aliases["beta"], "bbbbbbb");
        assert_eq!((mirror.guard_of(&beta), mirror.revision), (9, 9));
        mirror.replace(Vec::new(), 11);
        mirror.event(put("aliases/beta", 10, "ccccccc"));
        assert!(mirror.is_empty(), "what was gone when everything was read stays gone");
    }

    #[test]
    fn a_removed_document_is_none_and_an_empty_or_binary_one_is_an_accident() {
        let mut mirror = Mirror::default();
        let text = |mirror: &Mirror| mirror.contents(&keys()).document.unwrap().text;
        assert_eq!(text(&mirror), Text::Here("".into()));
        mirror.event(put("rules", 2, " \n"));
        assert!(matches!(text(&mirror), Text::Missing(_)));
        mirror.event(Seen { value: Value::from(&[0xff_u8][..]), ..put("rules", 3, "") });
        assert!(matches!(text(&mirror), Text::Unreadable(_)));
        assert!(!mirror.is_empty());
        mirror.event(removed("rules", 4));
        assert_eq!(text(&mirror), Text::Here("".into()));
        assert!(mirror.is_empty());
    }
}
