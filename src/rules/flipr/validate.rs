//! What flipr-validation 2.1.0 finds wrong with a configuration and its rules, problem for problem.

use super::{Rule, RuleKind, Value};
use crate::hint::{self, Problem};
use crate::rules::builder::join;
use crate::yaml::{Entry, Node, Place};

/// One problem that flipr-validation reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Something that cannot mean what is written.
    Wrong(Problem),
    /// Percentages that do not add up to 100. Below 100 the rest goes to later rules and the default, so that
    /// routing takes it.
    Sum {
        /// The problem.
        problem: Problem,
        /// Whether they add up to more than 100, so that the last are never reached in full.
        over: bool,
    },
}

/// The configuration is no map, or has nothing in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the flipr configuration is no map with items in it")]
pub struct NotAConfig;

/// Everything that flipr-validation reports: first the rules' problems, then item by item.
///
/// # Errors
/// Where flipr-validation throws: the configuration is empty.
pub fn validate(config: &Node, rules: &[Node]) -> Result<Vec<Finding>, NotAConfig> {
    let mut findings = Vec::new();
    for (index, definition) in rules.iter().enumerate() {
        check_rule(definition, &format!("rules[{index}]"), &mut findings);
    }
    let rules: Vec<Rule> = rules.iter().filter_map(|r| Rule::from_value(&Value::from_node(r))).collect();
    match (config.map(), config.list()) {
        (Some(items), _) if !items.is_empty() => {
            for item in items {
                check_item(&item.value, &item.key, &rules, &mut findings);
            }
        }
        (_, Some(items)) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                check_item(item, &format!("[{index}]"), &rules, &mut findings);
            }
        }
        _ => return Err(NotAConfig),
    }
    Ok(findings)
}

fn wrong(findings: &mut Vec<Finding>, place: Place, key: String, message: impl Into<String>, hint: &str) {
    findings.push(Finding::Wrong(Problem::error(key, message).hint(hint).at(place.line, place.column)));
}

fn check_rule(definition: &Node, key: &str, findings: &mut Vec<Finding>) {
    let mut report = |field: &str, message: String, hint: &str| {
        let place = definition.get(field).map_or(definition.place, |node| node.place);
        wrong(findings, place, join(key, field), message, hint);
    };
    let kinds = RuleKind::ALL.map(|(name, _)| name);
    let kind = definition.get("type");
    match kind.map(|node| (node, Value::from_node(node))) {
        Some((_, Value::String(name))) if kinds.contains(&name.as_str()) => {}
        Some((_, value)) if value.is_truthy() => {
            let written = value.js_string();
            let hint = match hint::nearest(&written, kinds) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("one of {}", kinds.join(", ")),
            };
            report("type", format!("`{written}` is no type of a flipr rule"), &hint);
        }
        _ => report("type", "the rule has no type".to_owned(), &format!("one of {}", kinds.join(", "))),
    }
    match definition.get("input").map(Value::from_node) {
        Some(Value::String(_)) => {}
        Some(Value::Null) | None => report("input", "the rule has no input".to_owned(), "input: cookie.uid"),
        Some(other) => {
            report("input", format!("`{}` is no input", other.js_string()), "input: cookie.uid");
        }
    }
    let property = definition.get("property").map(Value::from_node);
    let is_percent = kind.and_then(Node::text) == Some(RuleKind::Percent.name());
    if !is_percent && !property.is_some_and(|p| p.is_truthy()) {
        report(
            "property",
            "the rule has no property".to_owned(),
            "name the key of the entries: property: users",
        );
    }
}

fn check_item(item: &Node, key: &str, rules: &[Rule], findings: &mut Vec<Finding>) {
    if item.map().is_none() {
        let message = format!("{} stands where an item must be", item.describe());
        wrong(findings, item.place, key.to_owned(), message, "write {value: ...}, or {values: [...]}");
        return;
    }
    let Some(values) = item.get("values") else { return };
    if item.get("value").is_some() {
        wrong(findings, item.place, key.to_owned(), "has both `value` and `values`", "keep one of them");
    }
    let key = join(key, "values");
    let entries = match values.list() {
        Some([]) => {
            wrong(findings, values.place, key, "has no entry", "add one: - {value: current}");
            return;
        }
        Some(entries) => entries,
        None => {
            let message = format!("{} stands where a list must be", values.describe());
            wrong(findings, values.place, key, message, "begin each entry with `- `");
            return;
        }
    };
    for (index, entry) in entries.iter().enumerate() {
        let key = format!("{key}[{index}]");
        if entry.map().is_none() {
            let message = format!("{} stands where an entry must be", entry.describe());
            wrong(findings, entry.place, key, message, "write {value: 4f2a91c, users: [1234]}");
        } else if entry.get("value").is_none() {
            wrong(findings, entry.place, key, "the entry has no value", "add `value: 4f2a91c`");
        }
    }
    for rule in rules {
        check_properties(rule, entries, values.place, &key, findings);
    }
}

/// What one rule finds in the entries of one item.
fn check_properties(rule: &Rule, entries: &[Node], place: Place, key: &str, findings: &mut Vec<Finding>) {
    let mut sum = 0.0;
    for (index, entry) in entries.iter().enumerate() {
        let property = entry.map().and_then(|properties| find(properties, &rule.property));
        let Some(node) = property.map(|p| &p.value) else { continue };
        let key = join(&format!("{key}[{index}]"), &rule.property);
        let value = Value::from_node(node);
        match (rule.kind, &value) {
            (RuleKind::Equal, _) if !is_scalar(&value) => {
                let message = format!("{} can equal no input", node.describe());
                wrong(findings, node.place, key, message, "write a text, a number, true or false");
            }
            (RuleKind::List, Value::List(elements)) => {
                for (element, place) in elements.iter().zip(node.list().into_iter().flatten()) {
                    if !is_scalar(element) {
                        let message = format!("{} in the list can equal no input", place.describe());
                        let hint = "write texts, numbers, true or false";
                        wrong(findings, place.place, key.clone(), message, hint);
                    }
                }
            }
            (RuleKind::List, _) => {
                let message = format!("{} stands where a list must be", node.describe());
                wrong(findings, node.place, key, message, "write a list: [1234, 5678]");
            }
            (RuleKind::Percent, Value::Number(percent)) if (0.0..=100.0).contains(percent) => sum += percent,
            (RuleKind::Percent, _) => {
                let message = format!("{} is no number from 0 to 100", node.describe());
                wrong(
                    findings,
                    node.place,
                    key,
                    message,
                    "write a bare number: 5 is 5 %, 0.5 is half a percent",
                );
            }
            _ => {}
        }
    }
    if rule.kind == RuleKind::Percent && sum != 0.0 && sum != 100.0 {
        let message = format!("the percentages `{}` add up to {sum}, not to 100", rule.property);
        let problem = Problem::error(key, message)
            .hint("make them add up to 100, or say where the rest goes in an entry with only a value")
            .at(place.line, place.column);
        findings.push(Finding::Sum { problem, over: sum > 100.0 });
    }
}

fn find<'n>(entries: &'n [Entry], key: &str) -> Option<&'n Entry> {
    entries.iter().find(|entry| entry.key == key)
}

fn is_scalar(value: &Value) -> bool {
    matches!(value, Value::Bool(_) | Value::Number(_) | Value::String(_))
}
