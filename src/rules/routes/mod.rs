//! Routes documents (`default`, `key`, `salt`, `routes`): ordered, the first route that takes a request wins.

mod split;
mod when;

use std::sync::Arc;

use crate::hint::Problem;
use crate::rules::builder::{Builder, join};
use crate::rules::condition::Condition;
use crate::rules::input::{Input, InputId};
use crate::rules::route::{Goes, Route};
use crate::rules::table::{TargetId, Unavailable};
use crate::yaml::{Entry, Node};

const DOCUMENT_KEYS: [&str; 4] = ["default", "key", "salt", "routes"];
const ROUTE_KEYS: [&str; 8] = ["name", "when", "to", "split", "by", "salt", "assign", "unavailable"];
const ROUTE_HINT: &str = "write `{when: {header.x-qa: \"yes\"}, to: 4f2a91c}`";

/// What the document says once for all its splits.
#[derive(Debug)]
pub(super) struct Settings {
    /// `key`: what percentages go by unless a split says `by`.
    key: Key,
    /// `salt`: the service's name unless said.
    salt: Arc<str>,
}

/// What the document's `key` says.
#[derive(Debug, Clone, Copy)]
enum Key {
    /// Nothing.
    Missing,
    /// Nothing that can be used; that has been reported, once.
    Wrong,
    /// This.
    Input(InputId),
}

impl Settings {
    /// Those of a document that says nothing.
    pub(super) fn of_service(service: &str) -> Self {
        Self { key: Key::Missing, salt: Arc::from(service) }
    }
}

/// Reads `key` and `salt`, which also hold for the routes beside the document.
pub(super) fn settings(b: &mut Builder, document: &Node, service: &str) -> Settings {
    let key = document.get("key").map_or(Key::Missing, |node| {
        let text = b.text(node, "key", "key: cookie.uid");
        let input = text.and_then(|text| b.input(text, node.place, "key"));
        input.map_or(Key::Wrong, Key::Input)
    });
    let salt = document.get("salt").and_then(|node| b.text(node, "salt", "salt: app-2026"));
    Settings { key, salt: Arc::from(salt.unwrap_or(service)) }
}

/// Reads a document; the answer is its default, if it says one.
pub(super) fn document(b: &mut Builder, document: &Node, settings: &Settings) -> Option<TargetId> {
    if document.is_null() {
        return None;
    }
    let Some(entries) = document.map() else {
        b.report(document.place, super::not_a_document(document));
        return None;
    };
    b.unknown_keys(entries, &DOCUMENT_KEYS, "");
    let default = document.get("default").and_then(|node| {
        let text = b.text(node, "default", "default: current")?;
        b.target(text, node.place, "default")
    });
    let routes = document.get("routes").filter(|node| !node.is_null());
    let routes = routes.and_then(|node| b.list(node, "routes", "begin each route with `- `"));
    for (index, node) in routes.unwrap_or_default().iter().enumerate() {
        route(b, node, &format!("routes[{index}]"), Name::Position(index + 1), settings);
    }
    default
}

/// Reads a route that stands beside the document, under its own name.
pub(super) fn extra_route(b: &mut Builder, name: &str, node: &Node, settings: &Settings) {
    route(b, node, "", Name::Fixed(name), settings);
}

/// How a route gets its name.
#[derive(Debug, Clone, Copy)]
enum Name<'n> {
    /// From where it is stored; `name:` may only repeat it.
    Fixed(&'n str),
    /// From `name:`, else from its position, from 1.
    Position(usize),
}

fn route(b: &mut Builder, node: &Node, key: &str, name: Name<'_>, settings: &Settings) {
    let Some(entries) = b.map(node, key, ROUTE_HINT) else { return };
    b.unknown_keys(entries, &ROUTE_KEYS, key);
    let name = route_name(b, node, key, name);
    let when = match node.get("when") {
        None => Some(Condition::always()),
        Some(node) => when::conditions(b, node, &join(key, "when")),
    };
    let unavailable = node
        .get("unavailable")
        .map_or(Some(Unavailable::Current), |node| unavailable(b, node, &join(key, "unavailable")));
    let goes = goes(b, node, entries, key, settings);
    // Without one of these a problem has been reported, and the table is not going to be used.
    let (Some(name), Some(when), Some(unavailable), Some(goes)) = (name, when, unavailable, goes) else {
        return;
    };
    let targets = match &goes {
        Goes::To(target) => [*target].into(),
        Goes::Split(split) => split.targets().collect(),
        Goes::Named(_) | Goes::Percent(_) => Box::default(),
    };
    b.push(Route { name: name.into(), when, goes, unavailable, targets }, node.place, key);
}

fn route_name(b: &mut Builder, node: &Node, key: &str, name: Name<'_>) -> Option<String> {
    let key = join(key, "name");
    let written = match node.get("name") {
        Some(written) => Some((b.text(written, &key, "name: canary")?, written.place)),
        None => None,
    };
    let (name, place) = match (name, written) {
        (Name::Fixed(fixed), Some((written, place))) if written != fixed => {
            let message = format!("`{written}` is not the name under which the route is stored, `{fixed}`");
            b.report(place, Problem::error(key, message).hint("remove `name:`; the key is the name"));
            return None;
        }
        (Name::Fixed(fixed), _) => (fixed.to_owned(), node.place),
        (Name::Position(_), Some((written, place))) => (written.to_owned(), place),
        (Name::Position(position), None) => (format!("route-{position}"), node.place),
    };
    b.route_name(&name, place, &key).then_some(name)
}

fn unavailable(b: &mut Builder, node: &Node, key: &str) -> Option<Unavailable> {
    match node.text() {
        Some("current") => Some(Unavailable::Current),
        Some("error") => Some(Unavailable::Error),
        Some("wait") => Some(Unavailable::Wait),
        _ => {
            let message = format!("{} is no way to meet a version that is not ready", node.describe());
            b.report(node.place, Problem::error(key, message).hint("write current, error or wait"));
            None
        }
    }
}

/// Reads `to` or `split`, of which a route has exactly one.
fn goes(b: &mut Builder, node: &Node, entries: &[Entry], key: &str, settings: &Settings) -> Option<Goes> {
    match (node.get("to"), node.get("split")) {
        (Some(to), None) => {
            for entry in entries.iter().filter(|e| ["by", "salt", "assign"].contains(&e.key.as_str())) {
                let message = format!("`{}` belongs to a `split`, and this route has none", entry.key);
                let problem = Problem::error(join(key, &entry.key), message).hint("remove it");
                b.report(entry.place, problem);
            }
            to_version(b, to, &join(key, "to"))
        }
        (None, Some(split)) => split::split(b, node, split, key, settings).map(Goes::Split),
        (Some(_), Some(split)) => {
            let problem = Problem::error(key, "has both `to` and `split`").hint("keep one of them");
            b.report(split.place, problem);
            None
        }
        (None, None) => {
            let problem = Problem::error(key, "says nowhere to go")
                .hint("add `to: 4f2a91c`, or `split: {4f2a91c: 5%}`");
            b.report(node.place, problem);
            None
        }
    }
}

fn to_version(b: &mut Builder, node: &Node, key: &str) -> Option<Goes> {
    if node.map().is_some() {
        let problem = Problem::error(key, "a map stands where a version must be")
            .hint("quote an input: to: \"{header.x-version}\"");
        b.report(node.place, problem);
        return None;
    }
    let text = b.text(node, key, "to: 4f2a91c")?;
    if !text.contains(['{', '}']) {
        return b.target(text, node.place, key).map(Goes::To);
    }
    let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).filter(|t| !t.contains(['{', '}']));
    let Some(inner) = inner else {
        let problem = Problem::error(key, format!("`{text}` mixes an input with other text"))
            .hint("the input must be the whole value: to: \"{header.x-version}\"");
        b.report(node.place, problem);
        return None;
    };
    let input = b.input(inner, node.place, key)?;
    if matches!(b.known_input(input), Some(Input::Header(_) | Input::Cookie(_) | Input::Query(_))) {
        return Some(Goes::Named(input));
    }
    let problem = Problem::error(key, format!("`{inner}` cannot name a version"))
        .hint("a header, a cookie or a query parameter can: to: \"{header.x-version}\"");
    b.report(node.place, problem);
    None
}
