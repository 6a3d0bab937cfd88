//! Rule documents: what operators write, compiled to what each request is decided by.
//!
//! ```text
//! text --yaml--> Node --routes | flipr--> Builder --> RuleTable --decide(request)--> Decision{to, route, ...}
//!        source::{file, etcd} -> publisher (keeps the last good) -> Published
//! ```
//!
//! Reading order: the request as rules see it, what may be asked of it, conditions, percentages, a route, the
//! table and its decision, why it decided so; then the two document shapes and what both fill. `docs/rules.md` is
//! the language as people write it.

pub mod request;

pub(crate) mod input;

pub(crate) mod condition;

pub(crate) mod bucket;

pub(crate) mod route;

pub mod table;

pub mod explain;

mod builder;
pub mod flipr;
mod routes;

pub mod last_good;
pub mod offer;
pub mod publisher;
pub mod source;

#[cfg(test)]
mod tests;

pub use condition::Failure;

use builder::Builder;

use crate::hint::{Problem, Problems};
use crate::rules::table::RuleTable;
use crate::yaml::{self, Node};

/// What a document is compiled with.
#[derive(Debug, Clone, Copy)]
pub struct Context<'c> {
    /// What problems call the document: its file or etcd key.
    pub file: &'c str,
    /// The service, whose name salts percentages by default.
    pub service: &'c str,
    /// Routes that stand before the document's own, in order: the name and the text of each (etcd: one key each).
    pub extra_routes: &'c [(String, String)],
}

/// A document that can be put in force.
#[derive(Debug)]
pub struct Compiled {
    /// The table.
    pub table: RuleTable,
    /// What is likely not meant so.
    pub warnings: Problems,
}

/// Compiles a document of either shape, and the routes beside it. An empty document sends everything to `current`.
///
/// # Errors
/// All problems of all texts at once, errors and warnings, each with its place. Of a document that is not YAML only
/// that is told: what the routes beside it mean depends on it.
pub fn compile(text: &str, context: &Context<'_>) -> Result<Compiled, Problems> {
    let document = parse(text, context.file)?;
    let mut builder = Builder::default();
    let mut found = Problems::default();

    builder.in_document = true;
    let settings = match is_flipr(&document) {
        true => routes::Settings::of_service(context.service),
        false => routes::settings(&mut builder, &document, context.service),
    };
    collect(&mut builder, &mut found, context.file, text);

    builder.in_document = false;
    for (name, text) in context.extra_routes {
        let file = extra_file(name);
        match parse(text, &file) {
            Ok(route) => routes::extra_route(&mut builder, name, &route, &settings),
            Err(mut problems) => found.0.append(&mut problems.0),
        }
        collect(&mut builder, &mut found, &file, text);
    }

    builder.in_document = true;
    let default = match is_flipr(&document) {
        true => flipr::document(&mut builder, &document),
        false => routes::document(&mut builder, &document, &settings),
    };
    let default = default.unwrap_or_else(|| builder.current());
    collect(&mut builder, &mut found, context.file, text);

    if found.has_errors() {
        return Err(found);
    }
    Ok(Compiled { table: builder.finish(default), warnings: found })
}

fn parse(text: &str, file: &str) -> Result<Node, Problems> {
    yaml::parse(text).map_err(|mut problems| {
        problems.locate(file, text);
        problems
    })
}

/// What problems call a route that stands beside the document.
fn extra_file(name: &str) -> String {
    format!("routes/{name}")
}

/// Moves the builder's problems to `found`, with the name and the lines of the text that they are about.
fn collect(builder: &mut Builder, found: &mut Problems, file: &str, text: &str) {
    let mut problems = builder.take_problems();
    problems.locate(file, text);
    found.0.append(&mut problems.0);
}

/// Whether a document is one of flipr's: it has rule definitions, or an item in flipr's form, and no route.
fn is_flipr(document: &Node) -> bool {
    let has = |key| document.get(key).is_some();
    let item = |node: &Node| node.get("value").is_some() || node.get("values").is_some();
    !has("routes")
        && !has("default")
        && (has("rules") || document.map().is_some_and(|entries| entries.iter().any(|e| item(&e.value))))
}

/// What is said of a document that is no map, whichever shape it was meant to have.
fn not_a_document(document: &Node) -> Problem {
    Problem::error("", format!("{} stands where the document must be", document.describe()))
        .hint("begin with `default: current` or `routes:`; docs/rules.md has examples")
        .at(document.place.line, document.place.column)
}
