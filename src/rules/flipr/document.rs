//! A flipr document as switchman routes by it: `rules`, items, and the one item that chooses the version.
//!
//! flipr asks rule after rule, and for each rule entry after entry: so each pair of a rule and an entry with its
//! property becomes one route, in that order, and a percent rule one route for all its entries. The item's default
//! becomes that of the table.

use super::percent::PercentBands;
use super::string_test::StringTest;
use super::{Finding, Rule, RuleKind, Value, validate};
use crate::hint::{self, Problem, Severity};
use crate::rules::builder::{Builder, join};
use crate::rules::condition::{Condition, Test};
use crate::rules::input::InputId;
use crate::rules::route::{Goes, Route};
use crate::rules::table::{TargetId, Unavailable};
use crate::yaml::{self, Entry, Node, Place};

/// The item that chooses the version, unless `item` names another.
const ITEM: &str = "version";
/// The keys of a document that are no items.
const RESERVED: [&str; 2] = ["rules", "item"];

/// Reads a document; the answer is the default of its item, if it has one.
pub(crate) fn document(b: &mut Builder, document: &Node) -> Option<TargetId> {
    let Some(entries) = document.map() else {
        b.report(document.place, crate::rules::not_a_document(document));
        return None;
    };
    let definitions = match document.get("rules").filter(|node| !node.is_null()) {
        Some(node) => b.list(node, "rules", "begin each rule with `- `")?,
        None => &[],
    };
    let items: Vec<Entry> = entries.iter().filter(|e| !RESERVED.contains(&e.key.as_str())).cloned().collect();
    let config = Node { place: document.place, value: yaml::Value::Map(items) };
    match validate(&config, definitions) {
        Ok(findings) => findings.into_iter().for_each(|finding| report(b, finding)),
        Err(empty) => {
            let problem = Problem::error("", empty.to_string());
            b.report(document.place, problem.hint("add `version: {value: current}`"));
            return None;
        }
    }
    let (item, key) = chosen_item(b, document, &config)?;
    let rules = rules(b, definitions);
    match item.get("value") {
        Some(value) => version(b, value, &join(key, "value")),
        None => dynamic_item(b, item, key, &rules),
    }
}

fn report(b: &mut Builder, finding: Finding) {
    let problem = match finding {
        Finding::Wrong(problem) => problem,
        // What is left over goes on, as with `split`; only a tail that nobody reaches is worth a word.
        Finding::Sum { over: false, .. } => return,
        Finding::Sum { problem, over: true } => Problem { severity: Severity::Warning, ..problem },
    };
    let place = Place { line: problem.line.unwrap_or(1), column: problem.column.unwrap_or(1) };
    b.report(place, problem);
}

/// The item that chooses the version, and its key: what `item` says, else `version`, else the only one.
fn chosen_item<'n>(b: &mut Builder, document: &Node, config: &'n Node) -> Option<(&'n Node, &'n str)> {
    let items = config.map()?;
    let keys = || items.iter().map(|item| item.key.as_str());
    let name = match (document.get("item"), items) {
        (Some(node), _) => b.text(node, "item", "item: version")?,
        (None, [only]) => &only.key,
        (None, _) => ITEM,
    };
    let found = items.iter().find(|item| item.key == name);
    if found.is_none() {
        let message = format!("no item `{name}` chooses the version; the items are {}", list(keys()));
        let hint = match hint::nearest(name, keys()) {
            Some(near) => format!("item: {near}"),
            None => "say which item chooses the version: item: NAME".to_owned(),
        };
        let place = document.get("item").map_or(document.place, |node| node.place);
        b.report(place, Problem::error("item", message).hint(hint));
    }
    found.map(|item| (&item.value, item.key.as_str()))
}

/// The usable rules with their inputs; what is wrong with the others has been reported.
fn rules(b: &mut Builder, definitions: &[Node]) -> Vec<(Rule, InputId)> {
    let known = ["type", "input", "property", "isCaseSensitive"];
    let mut rules = Vec::new();
    for (index, node) in definitions.iter().enumerate() {
        let key = format!("rules[{index}]");
        b.unknown_keys(node.map().unwrap_or_default(), &known, &key);
        let Some(rule) = Rule::from_value(&Value::from_node(node)) else { continue };
        let place = node.get("input").map_or(node.place, |input| input.place);
        if let Some(input) = b.input(&rule.input, place, &join(&key, "input")) {
            rules.push((rule, input));
        }
    }
    rules
}

/// A `value`, which is a version and therefore taken as it is written.
fn version(b: &mut Builder, node: &Node, key: &str) -> Option<TargetId> {
    let text = b.text(node, key, "write a version (4f2a91c) or an alias (current)")?;
    b.target(text, node.place, key)
}

fn dynamic_item(b: &mut Builder, item: &Node, key: &str, rules: &[(Rule, InputId)]) -> Option<TargetId> {
    let Some(values) = item.get("values") else {
        let problem = Problem::error(key, "the item has neither `value` nor `values`");
        b.report(item.place, problem.hint("add `value: current`"));
        return None;
    };
    let key = join(key, "values");
    let entries: Vec<(usize, &Node, TargetId)> = values
        .list()
        .unwrap_or_default()
        .iter()
        .enumerate()
        .filter_map(|(index, node)| {
            let target = version(b, node.get("value")?, &format!("{key}[{index}].value"))?;
            Some((index, node, target))
        })
        .collect();
    for (position, (rule, input)) in rules.iter().enumerate() {
        if rule.kind == RuleKind::Percent {
            percent_route(b, (position, rule, *input), &entries, values.place, &key);
            continue;
        }
        for (index, node, target) in &entries {
            if let Some(property) = node.get(&rule.property) {
                let key = format!("{key}[{index}].{}", rule.property);
                test_route(b, (position, rule, *input), (*index, property, *target), &key);
            }
        }
    }
    let default = entries.iter().find(|(_, node, _)| node.map().is_some_and(|entry| entry.len() == 1));
    default.map(|(.., target)| *target)
}

type PlacedRule<'r> = (usize, &'r Rule, InputId);

fn test_route(b: &mut Builder, rule: PlacedRule<'_>, entry: (usize, &Node, TargetId), key: &str) {
    let (position, rule, input) = rule;
    let (index, node, target) = entry;
    let property = Value::from_node(node);
    if rule.kind == RuleKind::PathEqual && property == Value::Null {
        b.report(
            node.place,
            Problem::error(key, "nothing stands where a map with one path must be")
                .hint("write {the.path: value}"),
        );
        return;
    }
    let Some(test) = StringTest::new(rule, &property) else {
        // What validation knows to be wrong has been reported; the rest is what flipr passes over in silence.
        let silent = !matches!(rule.kind, RuleKind::Equal | RuleKind::List);
        if silent {
            let message =
                format!("{} never matches: {} takes no notice of it", node.describe(), rule.kind.name());
            let hint =
                if rule.kind == RuleKind::PathEqual { "write a map with one path" } else { "write a list" };
            b.report(node.place, Problem::warning(key, message).hint(hint));
        }
        return;
    };
    let name = format!("{}.{}.{}", rule.kind.name(), printable(&rule.property), index + 1);
    let when = Condition::Test { input, test: Test::Flipr(test) };
    push(b, position, route(name, when, Goes::To(target), [target].into()), node.place, key);
}

fn percent_route(
    b: &mut Builder,
    rule: PlacedRule<'_>,
    entries: &[(usize, &Node, TargetId)],
    place: Place,
    key: &str,
) {
    let (position, rule, input) = rule;
    let share = |node: &Node| match node.get(&rule.property).map(Value::from_node) {
        Some(Value::Number(percent)) => percent,
        _ => 0.0,
    };
    // Shares of zero take only an id whose hash is exactly zero; without any other a route would be mere noise.
    if !entries.iter().any(|(_, node, _)| node.get(&rule.property).is_some()) {
        return;
    }
    let shares: Vec<(f64, TargetId)> =
        entries.iter().map(|(_, node, target)| (share(node), *target)).collect();
    let targets = shares.iter().filter(|(percent, _)| *percent > 0.0).map(|(_, target)| *target).collect();
    let bands = PercentBands::new(input, rule.case_sensitive, shares);
    let name = format!("percent.{}", printable(&rule.property));
    push(b, position, route(name, Condition::always(), Goes::Percent(bands), targets), place, key);
}

/// A route of this document: flipr knows no waiting, so that what is not ready goes to `current`.
fn route(name: String, when: Condition, goes: Goes, targets: Box<[TargetId]>) -> Route {
    Route { name: name.into(), when, goes, unavailable: Unavailable::Current, targets }
}

/// Adds a route of the rule at `position`, whose name is told apart where two rules read the same property.
fn push(b: &mut Builder, position: usize, mut route: Route, place: Place, key: &str) {
    if b.has_route(&route.name) {
        route.name = format!("rule-{}.{}", position + 1, route.name).into();
    }
    if b.route_name(&route.name, place, key) {
        b.push(route, place, key);
    }
}

/// A property's name as a part of a route's name, which goes into headers and logs.
fn printable(property: &str) -> String {
    property.chars().take(100).map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect()
}

fn list<'k>(keys: impl Iterator<Item = &'k str>) -> String {
    keys.collect::<Vec<_>>().join(", ")
}
