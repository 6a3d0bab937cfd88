//! A rule's test of one entry, compiled for inputs that are texts, as those of a request are.

use std::fmt;

use super::evaluate::only_entry;
use super::{Rule, RuleKind, Value};
use crate::rules::condition::Words;

/// One rule and one entry's property.
#[derive(Debug)]
pub(crate) struct StringTest {
    case_sensitive: bool,
    test: Prepared,
}

#[derive(Debug)]
enum Prepared {
    Equal(Box<str>),
    List(Words),
    IncludesAny(Box<[Box<str>]>),
    IncludesAll(Box<[Box<str>]>),
    /// Looks into a text: its length or one of its characters. Nobody means that; it is kept exact, not fast.
    Path {
        path: Box<str>,
        wanted: Value,
    },
}

impl StringTest {
    /// The test; none where no text can ever pass it. Percentages are no tests.
    pub(super) fn new(rule: &Rule, property: &Value) -> Option<Self> {
        let prepared = |value: &Value| value.prepared(rule.case_sensitive);
        let part = |value: &Value| prepared(value).js_string().into_boxed_str();
        let test = match (rule.kind, property) {
            (RuleKind::Equal, _) => match prepared(property) {
                Value::String(text) => Prepared::Equal(text.into()),
                _ => return None,
            },
            (RuleKind::List, Value::List(elements)) => {
                let mut seen = Vec::new();
                let mut words = Vec::new();
                for element in elements {
                    if let Value::String(text) = prepared(element)
                        && !seen.contains(&text)
                    {
                        seen.push(text.clone());
                        // A falsy element is found first, does not count, and hides its equals.
                        words.extend(element.is_truthy().then_some(text));
                    }
                }
                Prepared::List(words.into_iter().collect())
            }
            (RuleKind::Includes, _) => Prepared::IncludesAny([part(property)].into()),
            (RuleKind::IncludesListAny, Value::List(elements)) => {
                Prepared::IncludesAny(elements.iter().map(part).collect())
            }
            (RuleKind::IncludesListAll, Value::List(elements)) => {
                Prepared::IncludesAll(elements.iter().map(part).collect())
            }
            (RuleKind::PathEqual, _) => {
                let (path, wanted) = only_entry(property)?;
                Prepared::Path { path: path.into(), wanted: prepared(wanted) }
            }
            _ => return None,
        };
        Some(Self { case_sensitive: rule.case_sensitive, test })
    }

    /// Whether a text passes.
    pub(crate) fn passes(&self, text: &str) -> bool {
        with_case(text, self.case_sensitive, |text| match &self.test {
            Prepared::Equal(word) => text == word.as_ref(),
            Prepared::List(words) => words.contain(text),
            Prepared::IncludesAny(parts) => parts.iter().any(|part| text.contains(part.as_ref())),
            Prepared::IncludesAll(parts) => parts.iter().all(|part| text.contains(part.as_ref())),
            Prepared::Path { path, wanted } => {
                let whole = Value::String(text.to_owned());
                whole.at_path(path).is_some_and(|found| found.strictly_equals(wanted))
            }
        })
    }
}

/// Calls `f` with the text that flipr compares: lower-case unless `case_sensitive`. A text of plain ASCII that is
/// not very long is not allocated.
pub(super) fn with_case<T>(text: &str, case_sensitive: bool, f: impl FnOnce(&str) -> T) -> T {
    const SHORT: usize = 256;
    if case_sensitive || text.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        return f(text);
    }
    let mut short = [0_u8; SHORT];
    if text.is_ascii()
        && let Some(lower) = short.get_mut(..text.len())
    {
        lower.copy_from_slice(text.as_bytes());
        lower.make_ascii_lowercase();
        if let Ok(lower) = std::str::from_utf8(lower) {
            return f(lower);
        }
    }
    f(&text.to_lowercase())
}

impl fmt::Display for StringTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |words: &[Box<str>]| format!("`{}`", words.join("`, `"));
        match &self.test {
            Prepared::Equal(word) => write!(f, "equal `{word}`")?,
            Prepared::List(words) => write!(f, "list {words}")?,
            Prepared::IncludesAny(parts) => write!(f, "includes any of {}", list(parts))?,
            Prepared::IncludesAll(parts) => write!(f, "includes all of {}", list(parts))?,
            Prepared::Path { path, wanted } => write!(f, "pathEqual `{path}`: `{}`", wanted.js_string())?,
        }
        f.write_str(if self.case_sensitive { "" } else { " (without case)" })
    }
}
