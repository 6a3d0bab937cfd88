//! What the readers of both document shapes fill: interned inputs and targets, routes in order, all problems.

use std::collections::{HashMap, HashSet};

use crate::hint::{self, Problem, Problems};
use crate::rules::input::{Input, InputId};
use crate::rules::route::{Goes, Route};
use crate::rules::table::{RuleTable, TargetId};
use crate::yaml::{Entry, Node, Place};

/// A rule table in the making.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    inputs: Vec<Input>,
    targets: Vec<String>,
    places: Vec<Option<Place>>,
    target_ids: HashMap<String, TargetId>,
    routes: Vec<Route>,
    names: HashSet<String>,
    /// The route that takes everything which comes to it; nothing after it is reached.
    takes_all: Option<String>,
    /// The cookie of the splits that assign an id: one document, one cookie.
    assigned: Option<String>,
    /// Whether places are those of the document, not of a route beside it.
    pub(crate) in_document: bool,
    problems: Problems,
}

impl Builder {
    /// Notes a problem and where it stands.
    pub(crate) fn report(&mut self, place: Place, problem: Problem) {
        self.problems.push(problem.at(place.line, place.column));
    }

    /// The problems noted since the last call.
    pub(crate) fn take_problems(&mut self) -> Problems {
        std::mem::take(&mut self.problems)
    }

    /// The entries of a map, or a problem.
    pub(crate) fn map<'n>(&mut self, node: &'n Node, key: &str, hint: &str) -> Option<&'n [Entry]> {
        let entries = node.map();
        if entries.is_none() {
            let message = format!("{} stands where a map must be", node.describe());
            self.report(node.place, Problem::error(key, message).hint(hint));
        }
        entries
    }

    /// The items of a list, or a problem.
    pub(crate) fn list<'n>(&mut self, node: &'n Node, key: &str, hint: &str) -> Option<&'n [Node]> {
        let items = node.list();
        if items.is_none() {
            let message = format!("{} stands where a list must be", node.describe());
            self.report(node.place, Problem::error(key, message).hint(hint));
        }
        items
    }

    /// The text of a scalar that is not null, or a problem.
    pub(crate) fn text<'n>(&mut self, node: &'n Node, key: &str, hint: &str) -> Option<&'n str> {
        let text = node.text();
        if text.is_none() {
            let message = format!("{} stands where a text must be", node.describe());
            self.report(node.place, Problem::error(key, message).hint(hint));
        }
        text
    }

    /// Reports the keys that are none of the known ones.
    pub(crate) fn unknown_keys(&mut self, entries: &[Entry], known: &[&str], key: &str) {
        for entry in entries.iter().filter(|e| !known.contains(&e.key.as_str())) {
            let message = format!("`{}` is not known here; known are {}", entry.key, known.join(", "));
            let problem = Problem::error(join(key, &entry.key), message);
            let problem = match hint::nearest(&entry.key, known.iter().copied()) {
                Some(near) => problem.hint(format!("did you mean {near}?")),
                None => problem.hint("remove it"),
            };
            self.report(entry.place, problem);
        }
    }

    /// The index of an input, from its name.
    pub(crate) fn input(&mut self, text: &str, place: Place, key: &str) -> Option<InputId> {
        match Input::parse(text) {
            Ok(input) => self.intern(input, place, key),
            Err(none) => {
                self.report(place, Problem::error(key, none.message).hint(none.hint));
                None
            }
        }
    }

    fn intern(&mut self, input: Input, place: Place, key: &str) -> Option<InputId> {
        let index = self.inputs.iter().position(|known| *known == input).unwrap_or_else(|| {
            self.inputs.push(input);
            self.inputs.len() - 1
        });
        let id = u16::try_from(index).ok().map(InputId);
        if id.is_none() {
            self.report(place, Problem::error(key, "more than 65536 different inputs"));
        }
        id
    }

    /// What an id stands for.
    pub(crate) fn known_input(&self, id: InputId) -> Option<&Input> {
        self.inputs.get(usize::from(id.0))
    }

    /// The target for a version or alias; `name` is taken as it is written.
    pub(crate) fn target(&mut self, name: &str, place: Place, key: &str) -> Option<TargetId> {
        let place_kept = self.in_document.then_some(place);
        if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control() || "{}/".contains(c)) {
            let problem = Problem::error(key, format!("`{name}` cannot be a version or an alias"))
                .hint("write a version (4f2a91c) or an alias (current)");
            self.report(place, problem);
            return None;
        }
        if let Some(id) = self.target_ids.get(name) {
            return Some(*id);
        }
        Some(self.add_target(name, place_kept))
    }

    /// The target `current`, which needs no place.
    pub(crate) fn current(&mut self) -> TargetId {
        let name = crate::version::CURRENT;
        self.target_ids.get(name).copied().unwrap_or_else(|| self.add_target(name, None))
    }

    fn add_target(&mut self, name: &str, place: Option<Place>) -> TargetId {
        let id = TargetId(self.targets.len() as u32);
        self.targets.push(name.to_owned());
        self.places.push(place);
        self.target_ids.insert(name.to_owned(), id);
        id
    }

    /// Notes the cookie of a split that assigns an id. A decision can set one cookie, so all must share it.
    pub(crate) fn assign(&mut self, cookie: &str, place: Place, key: &str) {
        match &self.assigned {
            Some(first) if first != cookie => {
                let message =
                    format!("assigns cookie.{cookie}, and a route before it assigns cookie.{first}");
                let hint = format!("assign one cookie everywhere: by: cookie.{first}");
                self.report(place, Problem::error(key, message).hint(hint));
            }
            Some(_) => {}
            None => self.assigned = Some(cookie.to_owned()),
        }
    }

    /// Whether a name can be that of a route, and is not yet taken; else a problem.
    pub(crate) fn route_name(&mut self, name: &str, place: Place, key: &str) -> bool {
        /// Names go into headers and logs.
        const NAME_LEN_MAX: usize = 200;
        let printable = name.bytes().all(|b| b.is_ascii_graphic() || b == b' ') && name.trim() == name;
        let problem = if name.is_empty() || !printable || name.len() > NAME_LEN_MAX {
            Problem::error(key, format!("{name:?} cannot be the name of a route")).hint(format!(
                "use up to {NAME_LEN_MAX} printable ASCII characters: it goes into headers and logs"
            ))
        } else if !self.names.insert(name.to_owned()) {
            Problem::error(key, format!("the name `{name}` is already that of another route"))
                .hint(format!("name one of them differently, as in {name}-2"))
        } else {
            return true;
        };
        self.report(place, problem);
        false
    }

    /// Whether a name is that of a route.
    pub(crate) fn has_route(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Adds a route after those before it.
    pub(crate) fn push(&mut self, route: Route, place: Place, key: &str) {
        match &self.takes_all {
            Some(before) => {
                let message = format!("is never reached: the route `{before}` before it takes every request");
                let hint = format!("put it before `{before}`, or give `{before}` a `when`");
                self.report(place, Problem::warning(key, message).hint(hint));
            }
            None if route.when.is_always() && matches!(route.goes, Goes::To(_)) => {
                self.takes_all = Some(route.name.to_string());
            }
            None => {}
        }
        self.routes.push(route);
    }

    /// The finished table.
    pub(crate) fn finish(self, default: TargetId) -> RuleTable {
        RuleTable {
            inputs: self.inputs.into_boxed_slice(),
            targets: self.targets,
            places: self.places,
            routes: self.routes.into_boxed_slice(),
            default,
        }
    }
}

/// The path of a key below another.
pub(crate) fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}
