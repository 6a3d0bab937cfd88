//! Keeps one rule table in force for each service: the last good one.
//!
//! A source offers what it holds ([`Offer`]); the [`Publisher`] compiles it and publishes the next
//! [`Published`]. A document that does not compile changes nothing but `problems` and `rejected`. What is in
//! force is kept on disk ([`super::last_good`]), so that a restart with etcd away or with a broken file still
//! routes.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::hint::Problems;
use crate::rules::last_good::LastGood;
use crate::rules::offer::{Document, Offer, Text};
use crate::rules::table::RuleTable;
use crate::rules::{self, Compiled};
use crate::version::ServiceName;

/// Aliases that people and `promote` set: name to version, as stored. `latest` is derived and not in here.
pub type Aliases = BTreeMap<String, String>;

/// Routes that have a key each, before the document's own: name and text, in order.
pub type Routes = Vec<(String, String)>;

/// What is in force for one service, and what stands in the way of something newer.
#[derive(Debug, Clone)]
pub struct Published {
    /// Goes up by one with each change of anything in here.
    pub generation: u64,
    /// The table in force.
    pub table: Arc<RuleTable>,
    /// The aliases in force.
    pub aliases: Arc<Aliases>,
    /// The text of the document that `table` was made from; empty without one.
    pub document: Arc<str>,
    /// Where the document is: the file's path or the etcd key.
    pub origin: Arc<str>,
    /// The revision of the document that the source holds, also where that one was refused; what a guarded
    /// write is compared with. A hash of the text for files, etcd's own number for etcd; 0 without a document.
    pub revision: u64,
    /// Since when this table is in force.
    pub since: Timestamp,
    /// Warnings of the document in force, or the errors that keep a newer one out.
    pub problems: Arc<Problems>,
    /// A newer document was refused: `document` is not what the source holds.
    pub rejected: bool,
    /// Since when the source cannot be reached.
    pub stale_since: Option<Timestamp>,
}

/// A document that was refused, so that it is compiled and reported once.
#[derive(Debug)]
struct Refusal {
    text: Arc<str>,
    routes: Arc<Routes>,
    problems: Problems,
}

/// The one writer of a service's [`Published`].
#[derive(Debug)]
pub struct Publisher {
    service: ServiceName,
    sender: watch::Sender<Arc<Published>>,
    /// The routes that the table in force was made with.
    routes: Arc<Routes>,
    /// What compiling the document in force warned of.
    warnings: Problems,
    /// What is wrong with the source itself; told once.
    source_problems: Problems,
    refusal: Option<Refusal>,
}

impl Publisher {
    /// Begins with what was in force when switchman ran last, else with nothing: everything to `current`.
    /// `origin` is where the document will come from.
    pub fn new(
        service: ServiceName,
        origin: Arc<str>,
        last_good: Option<&LastGood>,
        now: Timestamp,
    ) -> (Self, watch::Receiver<Arc<Published>>) {
        let empty = Published {
            generation: 0,
            table: Arc::new(RuleTable::empty()),
            aliases: Arc::default(),
            document: Arc::from(""),
            origin,
            revision: 0,
            since: now,
            problems: Arc::default(),
            rejected: false,
            stale_since: None,
        };
        let (sender, reader) = watch::channel(Arc::new(empty));
        let mut publisher = Self {
            service,
            sender,
            routes: Arc::default(),
            warnings: Problems::default(),
            source_problems: Problems::default(),
            refusal: None,
        };
        if let Some(good) = last_good {
            let document = Document {
                origin: good.origin.clone(),
                revision: good.revision,
                text: Text::Here(good.document.clone()),
            };
            publisher.offer(
                Offer {
                    document: Some(document),
                    routes: Some(good.routes.clone()),
                    aliases: Some(good.aliases.clone()),
                    ..Offer::default()
                },
                now,
            );
        }
        (publisher, reader)
    }

    /// What is in force.
    pub fn published(&self) -> Arc<Published> {
        self.sender.borrow().clone()
    }

    /// What is in force, to be kept on disk. `store_revision` is etcd's, where there is etcd.
    pub fn last_good(&self, store_revision: i64) -> LastGood {
        let published = self.published();
        LastGood {
            document: published.document.clone(),
            origin: published.origin.clone(),
            revision: published.revision,
            routes: self.routes.clone(),
            aliases: published.aliases.clone(),
            store_revision,
        }
    }

    /// Whether a document would compile, with the routes that are in force beside it.
    pub fn check(&self, text: &str) -> Result<Problems, Problems> {
        let origin = self.published().origin.clone();
        self.compile(&origin, text, &self.routes).map(|compiled| compiled.warnings)
    }

    /// Takes over what a source holds; true where the rules or aliases in force have changed.
    pub fn offer(&mut self, offer: Offer, now: Timestamp) -> bool {
        let before = self.published();
        let mut next = Published::clone(&before);
        let mut problems = offer.problems;
        let routes = offer.routes.unwrap_or_else(|| self.routes.clone());
        if let Some(aliases) = offer.aliases {
            next.aliases = aliases;
        }
        next.stale_since = offer.stale_since;
        // Without word of the document, the newest text that was seen is tried again with the routes of now.
        let text = match offer.document {
            Some(document) => {
                next.origin = document.origin;
                next.revision = document.revision;
                document.text
            }
            None => {
                Text::Here(self.refusal.as_ref().map_or_else(|| before.document.clone(), |r| r.text.clone()))
            }
        };
        let (text, lost) = match text {
            Text::Here(text) => (Some(text), None),
            Text::Missing(_) if before.document.is_empty() => (Some(before.document.clone()), None),
            Text::Missing(problem) | Text::Unreadable(problem) => (None, Some(problem)),
        };
        problems.0.extend(lost);
        if self.source_problems != problems {
            self.source_problems = problems.clone();
            for problem in &problems.0 {
                tracing::warn!(service = %self.service, "{problem}");
            }
        }
        next.rejected = match text {
            Some(text) => !self.take(&mut next, &mut problems, text, &routes, now),
            None => true,
        };
        if *before.problems != problems {
            next.problems = Arc::new(problems);
        }
        self.publish(&before, next)
    }

    /// Makes `text` the document of `next` if it compiles; the errors and false if it does not.
    fn take(
        &mut self,
        next: &mut Published,
        problems: &mut Problems,
        text: Arc<str>,
        routes: &Arc<Routes>,
        now: Timestamp,
    ) -> bool {
        if text == next.document && *routes == self.routes {
            self.refusal = None;
            problems.0.extend(self.warnings.0.iter().cloned());
            return true;
        }
        if let Some(refusal) = &self.refusal
            && refusal.text == text
            && refusal.routes == *routes
        {
            problems.0.extend(refusal.problems.0.iter().cloned());
            return false;
        }
        match self.compile(&next.origin, &text, routes) {
            Ok(Compiled { table, warnings }) => {
                next.table = Arc::new(table);
                next.document = text;
                next.since = now;
                problems.0.extend(warnings.0.iter().cloned());
                self.routes = routes.clone();
                self.warnings = warnings;
                self.refusal = None;
                true
            }
            Err(errors) => {
                tracing::error!(
                    service = %self.service, origin = %next.origin,
                    "the rules were refused, the last good ones stay in force\n{errors}"
                );
                problems.0.extend(errors.0.iter().cloned());
                self.refusal = Some(Refusal { text, routes: routes.clone(), problems: errors });
                false
            }
        }
    }

    fn publish(&self, before: &Arc<Published>, mut next: Published) -> bool {
        let table_changed = !Arc::ptr_eq(&before.table, &next.table);
        let aliases_changed = before.aliases != next.aliases;
        let status_changed = before.origin != next.origin
            || before.revision != next.revision
            || before.problems != next.problems
            || before.rejected != next.rejected
            || before.stale_since != next.stale_since;
        if !(table_changed || aliases_changed || status_changed) {
            return false;
        }
        next.generation += 1;
        if table_changed {
            tracing::info!(
                service = %self.service, origin = %next.origin, revision = next.revision,
                generation = next.generation, routes = next.table.routes().count(), "rules in force"
            );
            if !self.warnings.is_empty() {
                tracing::warn!(service = %self.service, "about these rules\n{}", self.warnings);
            }
        }
        if aliases_changed {
            tracing::info!(
                service = %self.service, generation = next.generation, aliases = ?next.aliases, "aliases in force"
            );
        }
        self.sender.send_replace(Arc::new(next));
        table_changed || aliases_changed
    }

    fn compile(&self, origin: &str, text: &str, routes: &Routes) -> Result<Compiled, Problems> {
        let service = self.service.as_str();
        rules::compile(text, &rules::Context { file: origin, service, extra_routes: routes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hint::Problem;

    const TO_A: &str = "routes: [{name: a, when: {header.x-a: \"yes\"}, to: aaaaaaa}]";
    const TO_B: &str = "routes: [{name: b, when: {header.x-b: \"yes\"}, to: bbbbbbb}]";
    const BROKEN: &str = "routes: [{name: a, to: aaaaaaa, wen: 1}]";

    fn publisher() -> (Publisher, watch::Receiver<Arc<Published>>) {
        Publisher::new(ServiceName::from("app"), Arc::from("app.yaml"), None, Timestamp::UNIX_EPOCH)
    }

    fn document(text: Text) -> Option<Document> {
        Some(Document { origin: Arc::from("app.yaml"), revision: 1, text })
    }

    fn here(text: &str) -> Offer {
        Offer { document: document(Text::Here(text.into())), ..Offer::default() }
    }

    fn routes(published: &Published) -> Vec<String> {
        published.table.routes().map(|(name, _)| name.to_owned()).collect()
    }

    #[test]
    fn a_document_that_does_not_compile_changes_nothing_but_what_is_said() {
        let (mut publisher, reader) = publisher();
        publisher.offer(here(TO_A), Timestamp::UNIX_EPOCH);
        publisher.offer(here(BROKEN), Timestamp::now());
        let refused = reader.borrow().clone();
        assert_eq!((&*refused.document, routes(&refused)), (TO_A, vec!["a".to_owned()]));
        assert_eq!((refused.rejected, refused.since), (true, Timestamp::UNIX_EPOCH));
        assert!(refused.problems.to_string().contains("wen"), "{}", refused.problems);

        publisher.offer(here(TO_B), Timestamp::now());
        let mended = reader.borrow().clone();
        assert_eq!((routes(&mended), mended.rejected), (vec!["b".to_owned()], false));
        assert!(mended.problems.is_empty() && mended.since > refused.since);
    }

    #[test]
    fn each_change_is_one_generation_and_what_is_the_same_is_none() {
        let (mut publisher, reader) = publisher();
        let generation = || reader.borrow().generation;
        let aliases: Aliases = [("current".to_owned(), "aaaaaaa".to_owned())].into();
        let stale = Some(Timestamp::UNIX_EPOCH);
        for (n, offer) in [
            || here(TO_A),
            || here(BROKEN),
            || here(TO_A),
            || Offer { document: document(Text::Unreadable(Problem::error("", "no"))), ..Offer::default() },
        ]
        .into_iter()
        .enumerate()
        {
            publisher.offer(offer(), Timestamp::now());
            publisher.offer(offer(), Timestamp::now());
            assert_eq!(generation(), n as u64 + 1);
        }
        publisher.offer(Offer { aliases: Some(Arc::new(aliases.clone())), ..here(TO_A) }, Timestamp::now());
        publisher.offer(Offer { aliases: Some(Arc::new(aliases)), ..here(TO_A) }, Timestamp::now());
        assert_eq!(generation(), 5);
        publisher.offer(Offer { stale_since: stale, ..here(TO_A) }, Timestamp::now());
        assert_eq!((generation(), reader.borrow().stale_since), (6, stale));
        assert_eq!(reader.borrow().aliases["current"], "aaaaaaa", "what a source cannot know stays");
    }

    #[test]
    fn aliases_move_also_while_a_document_is_refused() {
        let (mut publisher, reader) = publisher();
        publisher.offer(here(TO_A), Timestamp::now());
        let aliases = Arc::new([("current".to_owned(), "bbbbbbb".to_owned())].into());
        publisher.offer(Offer { aliases: Some(aliases), ..here(BROKEN) }, Timestamp::now());
        assert_eq!(reader.borrow().aliases["current"], "bbbbbbb");
        assert_eq!((&*reader.borrow().document, reader.borrow().rejected), (TO_A, true));
    }

    #[test]
    fn a_route_of_its_own_stands_before_the_document_and_is_refused_like_it() {
        let (mut publisher, reader) = publisher();
        let with = |text: &str| Offer {
            routes: Some(Arc::new(vec![("10-qa".to_owned(), text.to_owned())])),
            ..here(TO_A)
        };
        publisher.offer(with("{when: {header.x-qa: \"yes\"}, to: bbbbbbb}"), Timestamp::now());
        assert_eq!(routes(&reader.borrow()), ["10-qa", "a"]);
        publisher.offer(with("{when: {header.x-qa: \"yes\"}, too: bbbbbbb}"), Timestamp::now());
        assert!(reader.borrow().rejected);
        assert_eq!(routes(&reader.borrow()), ["10-qa", "a"]);
        assert!(publisher.check(TO_B).is_ok(), "checked with the routes in force, not the refused ones");
    }

    #[test]
    fn a_document_that_is_missing_is_a_problem_only_where_there_was_one() {
        let (mut publisher, reader) = publisher();
        let missing =
            || Offer { document: document(Text::Missing(Problem::error("", "gone"))), ..Offer::default() };
        publisher.offer(missing(), Timestamp::now());
        assert!(reader.borrow().problems.is_empty() && !reader.borrow().rejected);
        publisher.offer(here(TO_A), Timestamp::now());
        publisher.offer(missing(), Timestamp::now());
        assert_eq!((&*reader.borrow().document, reader.borrow().rejected), (TO_A, true));
        assert!(reader.borrow().problems.to_string().contains("gone"));
    }

    #[test]
    fn it_begins_with_what_was_kept() {
        let (mut first, _reader) = publisher();
        let aliases: Aliases = [("current".to_owned(), "aaaaaaa".to_owned())].into();
        first.offer(Offer { aliases: Some(Arc::new(aliases)), ..here(TO_A) }, Timestamp::now());
        first.offer(here(BROKEN), Timestamp::now());
        let kept = first.last_good(9);
        let (_second, reader) =
            Publisher::new(ServiceName::from("app"), Arc::from("app.yaml"), Some(&kept), Timestamp::now());
        let begun = reader.borrow().clone();
        assert_eq!((&*begun.document, routes(&begun)), (TO_A, vec!["a".to_owned()]));
        assert_eq!((begun.aliases["current"].as_str(), kept.store_revision), ("aaaaaaa", 9));
    }

    proptest! {
        #[test]
        fn whatever_comes_what_is_in_force_compiles(
            texts in prop::collection::vec(
                prop_oneof![Just(TO_A), Just(TO_B), Just(BROKEN), Just(""), Just("- x"), Just("{")], 1..12,
            ),
        ) {
            let (mut publisher, reader) = publisher();
            let mut last_valid = "";
            for text in texts {
                let before = reader.borrow().clone();
                publisher.offer(here(text), Timestamp::now());
                let after = reader.borrow().clone();
                let valid = publisher.check(text).is_ok();
                if valid {
                    last_valid = text;
                }
                prop_assert_eq!(&*after.document, last_valid);
                prop_assert_eq!(after.rejected, !valid);
                prop_assert!(after.generation - before.generation <= 1);
            }
        }
    }
}
