//! Whether a request is one that a route is meant for: a small tree of tests on inputs.

use std::borrow::Cow;
use std::fmt;

use ipnet::IpNet;
use regex::Regex;

use crate::rules::flipr::StringTest;
use crate::rules::input::{Input, InputId, Reading};
use crate::rules::request::RequestView;

/// What must hold for a route to take a request.
#[derive(Debug)]
pub(crate) enum Condition {
    /// Each of them; of none: always.
    All(Box<[Condition]>),
    /// At least one of them.
    Any(Box<[Condition]>),
    /// Not that one.
    Not(Box<Condition>),
    /// A test of one input.
    Test {
        /// What is tested.
        input: InputId,
        /// How.
        test: Test,
    },
}

/// A test of one input. Whatever the request does not have passes none but `Exists(false)`.
#[derive(Debug)]
pub(crate) enum Test {
    /// The request has it, or has it not.
    Exists(bool),
    /// It is that text.
    Equal(Box<str>),
    /// It is one of those texts.
    In(Words),
    /// It begins so.
    Prefix(Box<str>),
    /// It ends so.
    Suffix(Box<str>),
    /// That stands in it.
    Contains(Box<str>),
    /// It matches, anywhere unless anchored.
    Regex(Regex),
    /// The client's address is in one of those networks.
    Cidr(Box<[IpNet]>),
    /// A rule of a flipr document, with flipr's own meaning.
    Flipr(StringTest),
}

/// A set of texts, sorted.
#[derive(Debug)]
pub(crate) struct Words(Box<[Box<str>]>);

impl Words {
    /// Whether `text` is one of them.
    pub(crate) fn contain(&self, text: &str) -> bool {
        self.0.binary_search_by(|word| word.as_ref().cmp(text)).is_ok()
    }
}

impl FromIterator<String> for Words {
    fn from_iter<I: IntoIterator<Item = String>>(words: I) -> Self {
        let mut words: Vec<Box<str>> = words.into_iter().map(String::into_boxed_str).collect();
        words.sort_unstable();
        words.dedup();
        Self(words.into_boxed_slice())
    }
}

/// The first few of several things, and how many there are.
fn list(words: impl ExactSizeIterator<Item = String>) -> String {
    /// More than these are counted instead of shown.
    const SHOWN: usize = 8;
    let len = words.len();
    let shown = words.take(SHOWN).collect::<Vec<_>>().join(", ");
    if len > SHOWN { format!("{shown}, ... ({len} in all)") } else { shown }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&list(self.0.iter().map(|word| format!("`{word}`"))))
    }
}

/// The first condition that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The condition in words, as in ``header.x-qa equal `yes` ``.
    pub condition: String,
    /// What the request has there; none where it has nothing, or where several conditions failed together.
    pub seen: Option<String>,
}

impl Condition {
    /// The condition that every request meets.
    pub(crate) fn always() -> Self {
        Self::All(Box::default())
    }

    /// Whether every request meets it.
    pub(crate) fn is_always(&self) -> bool {
        matches!(self, Self::All(conditions) if conditions.is_empty())
    }

    /// Whether the request meets it.
    pub(crate) fn holds<'t: 'r, 'r, R: RequestView>(&self, reading: &Reading<'t, 'r, R>) -> bool {
        match self {
            Self::All(conditions) => conditions.iter().all(|c| c.holds(reading)),
            Self::Any(conditions) => conditions.iter().any(|c| c.holds(reading)),
            Self::Not(condition) => !condition.holds(reading),
            Self::Test { test: Test::Cidr(networks), .. } => {
                reading.client_ip().is_some_and(|ip| networks.iter().any(|n| n.contains(&ip)))
            }
            Self::Test { input, test } => test.passes(reading.text(*input).as_deref()),
        }
    }

    /// What keeps the request from meeting it; none where it does.
    pub(crate) fn failure<'t: 'r, 'r, R: RequestView>(
        &self,
        reading: &Reading<'t, 'r, R>,
    ) -> Option<Failure> {
        match self {
            Self::All(conditions) => conditions.iter().find_map(|c| c.failure(reading)),
            _ if self.holds(reading) => None,
            Self::Test { input, .. } => Some(Failure {
                condition: self.describe(reading.inputs()),
                seen: reading.text(*input).map(Cow::into_owned),
            }),
            Self::Any(_) | Self::Not(_) => {
                Some(Failure { condition: self.describe(reading.inputs()), seen: self.seen(reading) })
            }
        }
    }

    /// The value of the only input that a condition looks at.
    fn seen<'t: 'r, 'r, R: RequestView>(&self, reading: &Reading<'t, 'r, R>) -> Option<String> {
        match self {
            Self::Not(condition) => condition.seen(reading),
            Self::All(conditions) | Self::Any(conditions) => match conditions.as_ref() {
                [condition] => condition.seen(reading),
                _ => None,
            },
            Self::Test { input, .. } => reading.text(*input).map(Cow::into_owned),
        }
    }

    /// The condition in words.
    fn describe(&self, inputs: &[Input]) -> String {
        let join = |conditions: &[Condition], word: &str| {
            conditions.iter().map(|c| c.describe(inputs)).collect::<Vec<_>>().join(word)
        };
        match self {
            Self::All(conditions) => join(conditions, " and "),
            Self::Any(conditions) => format!("any of ({})", join(conditions, ", ")),
            Self::Not(condition) => format!("not ({})", condition.describe(inputs)),
            Self::Test { input, test } => {
                let input = inputs.get(usize::from(input.0)).map(Input::to_string).unwrap_or_default();
                format!("{input} {}", test.describe())
            }
        }
    }
}

impl Test {
    fn passes(&self, text: Option<&str>) -> bool {
        let Some(text) = text else { return matches!(self, Self::Exists(false)) };
        match self {
            Self::Exists(wanted) => *wanted,
            Self::Equal(word) => text == word.as_ref(),
            Self::In(words) => words.contain(text),
            Self::Prefix(start) => text.starts_with(start.as_ref()),
            Self::Suffix(end) => text.ends_with(end.as_ref()),
            Self::Contains(part) => text.contains(part.as_ref()),
            Self::Regex(regex) => regex.is_match(text),
            Self::Flipr(test) => test.passes(text),
            // Needs the address rather than its text: `Condition::holds` answers it.
            Self::Cidr(_) => false,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Exists(true) => "exists".to_owned(),
            Self::Exists(false) => "does not exist".to_owned(),
            Self::Equal(word) => format!("equal `{word}`"),
            Self::In(words) => format!("in {words}"),
            Self::Prefix(start) => format!("prefix `{start}`"),
            Self::Suffix(end) => format!("suffix `{end}`"),
            Self::Contains(part) => format!("contains `{part}`"),
            Self::Regex(regex) => format!("regex `{regex}`"),
            Self::Cidr(networks) => format!("cidr {}", list(networks.iter().map(IpNet::to_string))),
            Self::Flipr(test) => test.to_string(),
        }
    }
}
