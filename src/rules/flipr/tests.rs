//! flipr's semantics, held to cases that were run with flipr itself (`fixtures/flipr/`), and the compiled form
//! held to the general one.

use proptest::prelude::*;
use serde_json::Value as Json;

use super::{Finding, NotAConfig, Rule, Value, evaluate, id_to_percent, validate};
use crate::rules::builder::Builder;
use crate::rules::request::PlainRequest;
use crate::rules::table::{RuleTable, To};
use crate::rules::{Context, compile};
use crate::yaml::{self, Entry, Node, Place, Scalar};

/// Read as YAML, whose numbers keep their last digit (serde_json's do not).
fn fixture(name: &str) -> Vec<Node> {
    let path = format!("{}/fixtures/flipr/{name}", env!("CARGO_MANIFEST_DIR"));
    yaml::parse(&std::fs::read_to_string(path).unwrap()).unwrap().list().unwrap().to_vec()
}

fn value(json: &Json) -> Value {
    Value::from_node(&yaml::parse(&json.to_string()).unwrap())
}

/// `None` is undefined.
fn or_undefined(node: &Node) -> Option<Value> {
    if node.get("$undefined").is_some() { None } else { Some(Value::from_node(node)) }
}

#[test]
fn every_case_that_flipr_was_run_with_gives_what_flipr_gives() {
    let mut failures = Vec::new();
    let cases = fixture("vectors.json");
    for case in &cases {
        let field = |name: &str| case.get(name).unwrap();
        let config = Value::from_node(field("config"));
        let definitions = field("rules").list().unwrap();
        let rules: Vec<Rule> =
            definitions.iter().filter_map(|rule| Rule::from_value(&Value::from_node(rule))).collect();
        let input = or_undefined(field("input"));
        let answer = |key: &str| evaluate(&config, &rules, key, input.as_ref()).cloned();
        let (key, wanted) = (field("key").text().unwrap(), field("expected"));

        let good = if wanted.get("$throws").is_some() {
            // What throws in flipr is a problem when the document is read, and undefined when it is evaluated.
            is_refused(field("config"), definitions, key)
                && (definitions.len() != rules.len() || answer(key).is_none())
        } else if case.get("method").is_some() {
            wanted.map().unwrap().iter().all(|item| answer(&item.key) == or_undefined(&item.value))
        } else {
            definitions.len() == rules.len() && answer(key) == or_undefined(wanted)
        };
        if !good {
            failures.push(format!("{}: {:?} instead of {wanted:?}", field("id").describe(), answer(key)));
        }
    }
    assert_eq!(cases.len(), 186, "the fixture is there, and no case is passed over");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Whether switchman refuses to route by that item.
fn is_refused(config: &Node, rules: &[Node], key: &str) -> bool {
    let mut builder = Builder::default();
    let mut document = config.map().unwrap().to_vec();
    let entry = |key: &str, value| Entry { key: key.to_owned(), place: Place::default(), value };
    let node = |value| Node { place: Place::default(), value };
    let text = |text: &str| node(yaml::Value::Scalar(Scalar { text: text.to_owned(), plain: false }));
    let rules = rules.iter().map(|rule| {
        // The cases name inputs of their own; those of a request are what is wanted here.
        let mut rule = rule.map().unwrap().to_vec();
        rule.iter_mut()
            .filter(|e| e.key == "input" && e.value.text() == Some("a"))
            .for_each(|e| e.value = text("path"));
        node(yaml::Value::Map(rule))
    });
    document.push(entry("rules", node(yaml::Value::List(rules.collect()))));
    document.push(entry("item", text(key)));
    super::document(&mut builder, &node(yaml::Value::Map(document)));
    builder.take_problems().has_errors()
}

const CONTEXT: Context<'_> = Context { file: "rules.yaml", service: "app", extra_routes: &[] };

#[test]
fn ids_fall_where_flipr_puts_them() {
    for case in fixture("percent-ids.json") {
        let id = case.get("id").and_then(Node::text).unwrap();
        let expected = case.get("idToPercent").and_then(Node::text).unwrap();
        assert_eq!(Ok(id_to_percent(id)), expected.parse(), "{id}");
    }
}

#[test]
fn validation_finds_as_many_problems_as_flipr_validation() {
    for case in fixture("validation.json") {
        let field = |name: &str| case.get(name).unwrap();
        let id = field("id").describe();
        let problems: i64 = field("problems").text().unwrap().parse().unwrap();
        match validate(field("config"), field("rules").list().unwrap()) {
            Err(NotAConfig) => assert_eq!(problems, -1, "{id}"),
            Ok(found) => assert_eq!(found.len() as i64, problems, "{id}: {found:?}"),
        }
    }
}

#[test]
fn findings_name_key_value_and_place() {
    let config =
        yaml::parse("k:\n  values:\n    - {value: 1, p: [x]}\n    - {value: 2, percent: 15%}\n").unwrap();
    let rules = [
        yaml::parse("{type: equal, input: a, property: p}").unwrap(),
        yaml::parse("{type: percent, input: a}").unwrap(),
    ];
    let found = validate(&config, &rules).unwrap();
    let shown: Vec<String> = found
        .iter()
        .map(|finding| match finding {
            Finding::Wrong(p) | Finding::Sum { problem: p, .. } => {
                format!("{}:{} {}: {}", p.line.unwrap(), p.column.unwrap(), p.key, p.message)
            }
        })
        .collect();
    assert_eq!(
        shown,
        [
            "3:21 k.values[0].p: a list can equal no input",
            "4:27 k.values[1].percent: `15%` is no number from 0 to 100",
        ]
    );
}

fn decide(table: &RuleTable, request: &PlainRequest) -> String {
    match table.decide(request).to {
        To::Target(id) => table.targets()[id.0 as usize].clone(),
        To::Named(name) => name.to_owned(),
    }
}

#[test]
fn the_example_of_the_design_routes() {
    let text = r#"
rules:
  - {type: list,    input: cookie.user_id,    property: users}
  - {type: equal,   input: header.x-version,  property: pin}
  - {type: percent, input: cookie.uid}
version:
  values:
    - {value: 4f2a91c, users: [1234, 5678], percent: 5}
    - {value: 0123456, pin: Old}
    - {value: beta}
"#;
    let compiled = compile(text, &CONTEXT).unwrap();
    assert!(compiled.warnings.is_empty());
    let table = compiled.table;
    let names: Vec<&str> = table.routes().map(|(name, _)| name).collect();
    assert_eq!(names, ["list.users.1", "equal.pin.2", "percent.percent"]);
    let get = || PlainRequest::get("/");
    assert_eq!(decide(&table, &get().header("cookie", "user_id=5678")), "4f2a91c");
    assert_eq!(
        decide(&table, &get().header("X-Version", "oLD")),
        "0123456",
        "a hash is taken as it is written"
    );
    // "" -> 0.0183: in the first 5 %. "1" -> 0.508: not.
    assert_eq!(decide(&table, &get().header("cookie", "uid=")), "4f2a91c");
    assert_eq!(decide(&table, &get().header("cookie", "uid=1")), "beta");
    assert_eq!(decide(&table, &get()), "beta");
}

#[test]
fn the_item_is_version_or_the_only_one_or_the_one_that_is_named() {
    let default = |text: &str| {
        compile(text, &CONTEXT)
            .map(|c| decide(&c.table, &PlainRequest::get("/")))
            .map_err(|p| p.0[0].message.clone())
    };
    let ok = |name: &str| Ok(name.to_owned());
    assert_eq!(default("version: {value: 12345e7}"), ok("12345e7"));
    assert_eq!(default("rules: []\nbuild: {value: beta}"), ok("beta"));
    assert_eq!(default("a: {value: x}\nversion: {value: y}"), ok("y"));
    assert_eq!(default("item: a\na: {value: x}\nversion: {value: y}"), ok("x"));
    assert_eq!(
        default("rules: []\nv: {values: [{value: a, p: 1}]}"),
        ok("current"),
        "undefined goes to current"
    );
    let missing = "no item `version` chooses the version; the items are a, b";
    assert_eq!(default("a: {value: x}\nb: {value: y}"), Err(missing.to_owned()));
}

/// A text out of few letters, so that texts meet; with case, an odd one and digits.
fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "B", "b", "1", "0", "K", "ſ", ",", "é", "É"]), 0..4)
        .prop_map(|letters| letters.concat())
}

fn scalar() -> impl Strategy<Value = Json> {
    prop_oneof![
        text().prop_map(Json::from),
        (0..12_i64).prop_map(Json::from),
        any::<bool>().prop_map(Json::from),
        Just(Json::from(1.5)),
    ]
}

fn property(kind: &'static str) -> BoxedStrategy<Json> {
    match kind {
        "equal" => scalar().boxed(),
        "list" => prop::collection::vec(scalar(), 0..4).prop_map(Json::from).boxed(),
        "percent" => prop_oneof![(0..=100_i64).prop_map(Json::from), Just(Json::from(33.3))].boxed(),
        "pathEqual" => (prop::sample::select(vec!["", "0", "1", "length"]), scalar())
            .prop_map(|(path, value)| serde_json::json!({ path: value }))
            .boxed(),
        _ => prop_oneof![
            scalar(),
            Just(Json::Null),
            prop::collection::vec(prop_oneof![scalar(), Just(Json::Null)], 0..3).prop_map(Json::from),
        ]
        .boxed(),
    }
}

fn rule_and_properties() -> impl Strategy<Value = (&'static str, bool, Vec<Option<Json>>)> {
    let kinds = super::RuleKind::ALL.map(|(name, _)| name);
    prop::sample::select(kinds.to_vec()).prop_flat_map(|kind| {
        (Just(kind), any::<bool>(), prop::collection::vec(prop::option::of(property(kind)), 3))
    })
}

proptest! {
    /// The compiled routes answer for a request what flipr answers for its texts.
    #[test]
    fn the_compiled_form_agrees_with_the_general_one(
        rules in prop::collection::vec(rule_and_properties(), 1..4),
        inputs in prop::collection::vec(prop::option::of(text()), 3),
        has_default in any::<bool>(),
    ) {
        let mut entries: Vec<Json> = (0..3).map(|n| serde_json::json!({ "value": format!("v{n}") })).collect();
        let mut for_routing = Vec::new();
        let mut general = Vec::new();
        for (index, (kind, case_sensitive, properties)) in rules.iter().enumerate() {
            let name = format!("p{index}");
            let rule = |input: String| serde_json::json!({
                "type": kind, "input": input, "property": name, "isCaseSensitive": case_sensitive,
            });
            for_routing.push(rule(format!("query.{index}")));
            general.push(rule(format!("i{index}")));
            for (entry, property) in entries.iter_mut().zip(properties) {
                if let Some(property) = property {
                    entry[&name] = property.clone();
                }
            }
        }
        if has_default {
            entries.push(serde_json::json!({ "value": "v-default" }));
        }
        let item = serde_json::json!({ "values": entries });

        let document = serde_json::json!({ "rules": for_routing, "version": item }).to_string();
        let table = compile(&document, &CONTEXT).map_err(|p| TestCaseError::fail(p.to_string()))?.table;
        let mut input = serde_json::Map::new();
        let mut query = Vec::new();
        for (index, text) in inputs.iter().enumerate() {
            if let Some(text) = text {
                input.insert(format!("i{index}"), text.as_str().into());
                query.push(format!("{index}={}", text.replace('+', "%2B")));
            }
        }
        let routed = decide(&table, &PlainRequest::get(&format!("/?{}", query.join("&"))));

        let config = value(&serde_json::json!({ "version": item }));
        let rules: Vec<Rule> = general.iter().filter_map(|r| Rule::from_value(&value(r))).collect();
        let answer = evaluate(&config, &rules, "version", Some(&value(&Json::Object(input))));
        let answer = answer.map_or("current".to_owned(), Value::js_string);
        prop_assert_eq!(routed, answer);
    }
}
