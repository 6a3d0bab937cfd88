//! A rule definition: its kind, the input that it reads, the property of an entry that it reads.

use super::Value;

/// flipr's seven kinds of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleKind {
    /// The property is the input.
    Equal,
    /// The property is a list with the input in it.
    List,
    /// The property is in the input: a part of a text, an element of a list.
    Includes,
    /// One element of the property is in the input.
    IncludesListAny,
    /// Every element of the property is in the input.
    IncludesListAll,
    /// The property's only key is a path into the input, and its value stands there.
    PathEqual,
    /// The input's hash is in the property's percentage.
    Percent,
}

impl RuleKind {
    /// The names by which documents call them, and what they mean.
    pub(super) const ALL: [(&str, Self); 7] = [
        ("equal", Self::Equal),
        ("pathEqual", Self::PathEqual),
        ("list", Self::List),
        ("percent", Self::Percent),
        ("includes", Self::Includes),
        ("includesListAny", Self::IncludesListAny),
        ("includesListAll", Self::IncludesListAll),
    ];

    /// The kind of that name, exactly.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// One rule definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its kind.
    pub kind: RuleKind,
    /// A path into the input; empty: the input itself.
    pub input: String,
    /// The property of an entry.
    pub property: String,
    /// Whether texts are compared with case.
    pub case_sensitive: bool,
}

impl Rule {
    /// The rule that a definition makes; none where [`fn@super::validate`] has a problem with it.
    pub fn from_value(definition: &Value) -> Option<Self> {
        let text = |key: &str| match definition.property(key) {
            Some(Value::String(text)) => Some(text.clone()),
            _ => None,
        };
        let kind = RuleKind::named(&text("type")?)?;
        let property = match definition.property("property").filter(|p| p.is_truthy()) {
            Some(property) => property.js_string(),
            None if kind == RuleKind::Percent => "percent".to_owned(),
            None => return None,
        };
        let case_sensitive = definition.property("isCaseSensitive").is_some_and(Value::is_truthy);
        Some(Self { kind, input: text("input")?, property, case_sensitive })
    }
}
