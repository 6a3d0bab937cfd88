//! The rule language from the outside: a document, a request, what is decided or what is said to be wrong.

mod decisions;
mod documents;
mod explanations;
mod problems;
mod splits;

use crate::rules::request::PlainRequest;
use crate::rules::table::{RuleTable, To};
use crate::rules::{Compiled, Context, compile};

const CONTEXT: Context<'_> = Context { file: "rules.yaml", service: "app", extra_routes: &[] };

/// The table of a document without problems.
fn table(text: &str) -> RuleTable {
    match compile(text, &CONTEXT) {
        Ok(Compiled { table, warnings }) if warnings.is_empty() => table,
        Ok(Compiled { warnings, .. }) => panic!("{text}\n{warnings}"),
        Err(problems) => panic!("{text}\n{problems}"),
    }
}

/// Where a request goes: the version or alias.
fn to(table: &RuleTable, request: &PlainRequest) -> String {
    match table.decide(request).to {
        To::Target(id) => table.targets()[id.0 as usize].clone(),
        To::Named(name) => format!("named {name}"),
    }
}

fn get(path: &str) -> PlainRequest {
    PlainRequest::get(path)
}
