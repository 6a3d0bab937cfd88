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

use crate::hint::{Problem, Problems};
use crate::rules::last_good::LastGood;
use crate::rules::table::RuleTable;
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

/// A rule document as its source holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The file's path or the etcd key.
    pub origin: Arc<str>,
    /// See [`Published::revision`].
    pub revision: u64,
    /// What it says.
    pub text: Text,
}

/// What a source found where the document should be.
#[derive(Debug, Clone, PartialEq)]
pub enum Text {
    /// A text; empty where the source says for certain that there is no document.
    Here(Arc<str>),
    /// Nothing, and maybe by accident: the rules in force stay. Not a problem where there are none.
    Missing(Problem),
    /// Something that cannot be read: the rules in force stay.
    Unreadable(Problem),
}

/// What a source holds now. What it cannot know (`None`) stays as it is in force.
#[derive(Debug, Default)]
pub struct Offer {
    /// The document.
    pub document: Option<Document>,
    /// The routes with a key each.
    pub routes: Option<Arc<Routes>>,
    /// The aliases.
    pub aliases: Option<Arc<Aliases>>,
    /// What is wrong with the source itself.
    pub problems: Problems,
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
        self.compile(&origin, text, &self.routes).map(|(_, warnings)| warnings)
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
            Ok((table, warnings)) => {
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

    fn compile(
        &self,
        origin: &str,
        text: &str,
        routes: &[(String, String)],
    ) -> Result<(RuleTable, Problems), Problems> {
        compile(origin, text, &self.service, routes)
    }
}

// The seam to `rules::compile`, which is written at the same time: every document that is YAML counts as valid.
fn compile(
    origin: &str,
    text: &str,
    _service: &ServiceName,
    _routes: &[(String, String)],
) -> Result<(RuleTable, Problems), Problems> {
    crate::yaml::parse(text).map_err(|mut problems| {
        problems.locate(origin, text);
        problems
    })?;
    Ok((RuleTable::empty(), Problems::default()))
}
