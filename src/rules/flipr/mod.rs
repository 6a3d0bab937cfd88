//! GoDaddy's flipr documents with flipr's exact meaning (node-flipr 2.2.1), its odd corners included.
//!
//! Two ways through the same rules: [`mod@evaluate`] answers any item for any input, as flipr itself does;
//! [`mod@document`] compiles the item that chooses the version to routes of the rule table, whose inputs are texts of
//! a request. A property test holds the second to the first.
//!
//! Two exceptions, on purpose: percentages are sorted in a copy (flipr sorts the configuration itself, so that one
//! call changes what the next one sees), and what makes flipr throw is a problem when the document is read, and
//! `undefined` when it is evaluated.

mod evaluate;
mod percent;
mod rule;
mod scalar;
mod string_test;
mod validate;
mod value;

mod document;

#[cfg(test)]
mod tests;

pub use evaluate::evaluate;
pub use percent::id_to_percent;
pub use rule::{Rule, RuleKind};
pub use validate::{Finding, NotAConfig, validate};
pub use value::Value;

pub(crate) use document::document;
pub(crate) use percent::PercentBands;
pub(crate) use string_test::StringTest;
