//! flipr's `getValue` for any configuration and any input.

use super::percent::{id_to_percent, js_percent_order};
use super::{Rule, RuleKind, Value};

/// What makes flipr throw a TypeError; here it is `undefined`.
struct Throws;

/// The value of an item for an input, as flipr finds it: the rules in order, for each the first entry that it
/// matches; then the default. `None` is flipr's `undefined`, for the input as for the answer.
pub fn evaluate<'c>(
    config: &'c Value,
    rules: &[Rule],
    key: &str,
    input: Option<&Value>,
) -> Option<&'c Value> {
    let item = config.property(key)?;
    if let Some(value) = item.property("value") {
        return Some(value);
    }
    let (input, Value::List(entries)) = (input?, item.property("values")?) else { return None };
    if entries.contains(&Value::Null) {
        return None;
    }
    for rule in rules {
        match apply(rule, entries, input) {
            Ok(Some(value)) => return Some(value),
            Ok(None) => {}
            Err(Throws) => return None,
        }
    }
    entries.iter().find_map(|entry| match entry {
        Value::Map(properties) if properties.len() == 1 => entry.property("value"),
        _ => None,
    })
}

/// The value of the first entry that a rule matches; `None` also where that entry has no value.
fn apply<'c>(rule: &Rule, entries: &'c [Value], input: &Value) -> Result<Option<&'c Value>, Throws> {
    let Some(input) = input.at_path(&rule.input) else { return Ok(None) };
    let input = input.prepared(rule.case_sensitive);
    if rule.kind == RuleKind::Percent {
        return Ok(percent(rule, entries, &input));
    }
    for entry in entries {
        if let Some(property) = entry.property(&rule.property)
            && matches(rule, property, &input)?
        {
            return Ok(entry.property("value"));
        }
    }
    Ok(None)
}

fn matches(rule: &Rule, property: &Value, input: &Value) -> Result<bool, Throws> {
    let prepared = |value: &Value| value.prepared(rule.case_sensitive);
    Ok(match (rule.kind, property) {
        (RuleKind::Equal, _) => prepared(property).strictly_equals(input),
        // flipr asks whether the element that it found is truthy: 0, false and "" are found and do not count.
        (RuleKind::List, Value::List(elements)) => {
            elements.iter().find(|e| prepared(e).strictly_equals(input)).is_some_and(Value::is_truthy)
        }
        (RuleKind::Includes, _) => includes(input, &prepared(property)),
        (RuleKind::IncludesListAny, Value::List(elements)) => {
            elements.iter().any(|e| includes(input, &prepared(e)))
        }
        (RuleKind::IncludesListAll, Value::List(elements)) => {
            elements.iter().all(|e| includes(input, &prepared(e)))
        }
        (RuleKind::PathEqual, Value::Null) => return Err(Throws),
        (RuleKind::PathEqual, _) => match only_entry(property) {
            Some((path, wanted)) => {
                input.at_path(&path).is_some_and(|found| found.strictly_equals(&prepared(wanted)))
            }
            None => false,
        },
        _ => false,
    })
}

/// lodash's `includes`: a part of a text, an element of a list, a value of an object.
fn includes(input: &Value, wanted: &Value) -> bool {
    match input {
        Value::String(text) => text.contains(&wanted.js_string()),
        Value::List(items) => items.iter().any(|item| item.strictly_equals(wanted)),
        Value::Map(entries) => entries.iter().any(|(_, value)| value.strictly_equals(wanted)),
        _ => false,
    }
}

/// The only key of an object (or index of a list) and its value.
pub(super) fn only_entry(property: &Value) -> Option<(String, &Value)> {
    match property {
        Value::Map(entries) => match entries.as_slice() {
            [(key, value)] => Some((key.clone(), value)),
            _ => None,
        },
        Value::List(items) => match items.as_slice() {
            [value] => Some(("0".to_owned(), value)),
            _ => None,
        },
        _ => None,
    }
}

fn percent<'c>(rule: &Rule, entries: &'c [Value], input: &Value) -> Option<&'c Value> {
    const ZERO: Value = Value::Number(0.0);
    let share =
        |entry: &Value| entry.property(&rule.property).filter(|p| p.is_truthy()).cloned().unwrap_or(ZERO);
    let mut shares: Vec<(Value, &Value)> = entries.iter().map(|entry| (share(entry), entry)).collect();
    js_percent_order(&mut shares);
    let place = id_to_percent(&input.js_string());
    let mut end = 0.0;
    for (share, entry) in shares {
        end += share.js_number() / 100.0;
        if place <= end {
            return entry.property("value");
        }
    }
    None
}
