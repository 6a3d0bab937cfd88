//! Values as JavaScript sees them: what flipr compares, and how. `undefined` is `None`.

use std::borrow::Cow;

use super::scalar;
use crate::yaml::{self, Node};

/// A value of a flipr document or input.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// Any number: JavaScript has only this kind.
    Number(f64),
    /// Text.
    String(String),
    /// An array.
    List(Vec<Value>),
    /// An object. A date, which flipr can compare with nothing, is an empty one.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// The value of a YAML node, its scalars resolved as js-yaml 3 does.
    pub fn from_node(node: &Node) -> Self {
        match &node.value {
            yaml::Value::Scalar(scalar) => scalar::resolve(scalar),
            yaml::Value::List(items) => Self::List(items.iter().map(Self::from_node).collect()),
            yaml::Value::Map(entries) => {
                Self::Map(entries.iter().map(|e| (e.key.clone(), Self::from_node(&e.value))).collect())
            }
        }
    }

    /// The object's own property of that name.
    pub fn property(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// JavaScript's `String(value)`.
    pub(super) fn js_string(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(number) => ryu_js::Buffer::new().format(*number).to_owned(),
            Self::String(text) => text.clone(),
            Self::List(items) => {
                let texts =
                    items.iter().map(|i| if *i == Self::Null { String::new() } else { i.js_string() });
                texts.collect::<Vec<_>>().join(",")
            }
            Self::Map(_) => "[object Object]".to_owned(),
        }
    }

    /// JavaScript's `Number(value)`.
    pub(super) fn js_number(&self) -> f64 {
        match self {
            Self::Null => 0.0,
            Self::Bool(value) => f64::from(u8::from(*value)),
            Self::Number(number) => *number,
            Self::String(text) => number_of_text(text),
            Self::List(_) => number_of_text(&self.js_string()),
            Self::Map(_) => f64::NAN,
        }
    }

    /// Whether JavaScript takes it as true.
    pub(super) fn is_truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(value) => *value,
            Self::Number(number) => *number != 0.0 && !number.is_nan(),
            Self::String(text) => !text.is_empty(),
            Self::List(_) | Self::Map(_) => true,
        }
    }

    /// JavaScript's `===` between two values that are not the same object.
    pub(super) fn strictly_equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::List(_) | Self::Map(_), _) => false,
            _ => self == other,
        }
    }

    /// What flipr compares: scalars as text, lower-case unless `case_sensitive`; of a list or map its direct elements.
    pub(super) fn prepared(&self, case_sensitive: bool) -> Self {
        let scalar = |value: &Self| match value {
            Self::Bool(_) | Self::Number(_) | Self::String(_) => {
                let text = value.js_string();
                Self::String(if case_sensitive { text } else { text.to_lowercase() })
            }
            other => other.clone(),
        };
        match self {
            Self::List(items) => Self::List(items.iter().map(scalar).collect()),
            Self::Map(entries) => {
                Self::Map(entries.iter().map(|(key, value)| (key.clone(), scalar(value))).collect())
            }
            other => scalar(other),
        }
    }

    /// object-path's `get`: segments between dots, own properties only; an empty path is the value itself.
    pub(super) fn at_path(&self, path: &str) -> Option<Cow<'_, Self>> {
        if path.is_empty() {
            return Some(Cow::Borrowed(self));
        }
        let mut at = Cow::Borrowed(self);
        for segment in path.split('.') {
            at = match at {
                Cow::Borrowed(value) => value.segment(segment)?,
                Cow::Owned(value) => Cow::Owned(value.segment(segment)?.into_owned()),
            };
        }
        Some(at)
    }

    fn segment(&self, name: &str) -> Option<Cow<'_, Self>> {
        let index = || name.parse::<usize>().ok().filter(|index| index.to_string() == name);
        let length = |len: usize| Cow::Owned(Self::Number(len as f64));
        match self {
            Self::Map(_) => self.property(name).map(Cow::Borrowed),
            Self::List(items) if name == "length" => Some(length(items.len())),
            Self::List(items) => items.get(index()?).map(Cow::Borrowed),
            // Strings are counted and indexed in UTF-16; half a surrogate pair equals no text.
            Self::String(text) if name == "length" => Some(length(text.encode_utf16().count())),
            Self::String(text) => {
                let unit = text.encode_utf16().nth(index()?)?;
                Some(Cow::Owned(Self::String(String::from_utf16_lossy(&[unit]))))
            }
            Self::Null | Self::Bool(_) | Self::Number(_) => None,
        }
    }
}

fn number_of_text(text: &str) -> f64 {
    let text = text.trim();
    let decimal = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    match text {
        "" => 0.0,
        "Infinity" | "+Infinity" => f64::INFINITY,
        "-Infinity" => f64::NEG_INFINITY,
        _ if decimal => text.parse().unwrap_or(f64::NAN),
        _ => text
            .strip_prefix("0x")
            .or_else(|| text.strip_prefix("0X"))
            .and_then(|hex| u64::from_str_radix(hex, 16).ok())
            .map_or(f64::NAN, |number| number as f64),
    }
}
