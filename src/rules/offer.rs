//! What a source holds, as it hands it to the publisher.

use std::sync::Arc;

use jiff::Timestamp;

use crate::hint::{Problem, Problems};
use crate::rules::publisher::{Aliases, Routes};

/// A rule document as its source holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The file's path or the etcd key.
    pub origin: Arc<str>,
    /// See [`Published::revision`](super::publisher::Published::revision).
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
