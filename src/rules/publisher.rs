//! Keeps one rule table in force for each service: the last good one.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::hint::Problems;
use crate::rules::table::RuleTable;

/// Aliases that people and `promote` set: name to version, as stored. `latest` is derived and not in here.
pub type Aliases = BTreeMap<String, String>;

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
    /// The source's revision of `document` and aliases; what a guarded write is compared with.
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
