//! The tree: parser events in, [`Node`]s out, with limits on depth and size.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use crate::hint::{Problem, Problems};

/// Nesting that no document written by a person reaches.
const DEPTH_MAX: usize = 64;
/// Nodes in all, aliases counted each time they are used: the limit against alias bombs.
const NODES_MAX: usize = 2_000_000;

/// Line and column of a node, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// A scalar as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar {
    /// Its text; escapes of a quoted scalar are resolved, a plain one is untouched.
    pub text: String,
    /// Written without quotes, so that `null`, `true` and numbers mean what they look like.
    pub plain: bool,
}

impl Scalar {
    /// Whether it is YAML's null: `null`, `~` or nothing at all, unquoted.
    pub fn is_null(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }

    /// The boolean that it is in YAML 1.2, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self.text.as_str() {
            "true" | "True" | "TRUE" if self.plain => Some(true),
            "false" | "False" | "FALSE" if self.plain => Some(false),
            _ => None,
        }
    }
}

/// One entry of a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key's text.
    pub key: String,
    /// Where the key stands.
    pub place: Place,
    /// The value.
    pub value: Node,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text, a number, a boolean, null.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order it is written; no key stands twice.
    Map(Vec<Entry>),
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it holds.
    pub value: Value,
}

impl Node {
    /// The scalar, if it is one.
    pub fn scalar(&self) -> Option<&Scalar> {
        match &self.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// The text of a scalar that is not null, as it is written.
    pub fn text(&self) -> Option<&str> {
        self.scalar().filter(|s| !s.is_null()).map(|s| s.text.as_str())
    }

    /// The items of a list.
    pub fn list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The entries of a map.
    pub fn map(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of a map's key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.map()?.iter().find(|e| e.key == key).map(|e| &e.value)
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        self.scalar().is_some_and(Scalar::is_null)
    }

    /// What it is, for messages: "a list", "a map", "`text`".
    pub fn describe(&self) -> String {
        match &self.value {
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
            Value::Scalar(s) if s.is_null() => "nothing".to_owned(),
            Value::Scalar(s) => format!("`{}`", s.text.chars().take(80).collect::<String>()),
        }
    }
}

/// Reads one YAML (or JSON) document. An empty text is null. Problems carry line and column, not yet the file:
/// [`Problems::locate`] adds that.
pub fn parse(text: &str) -> Result<Node, Problems> {
    match parse_all(text) {
        (Some(node), problems) if problems.is_empty() => Ok(node),
        (_, problems) => Err(problems),
    }
}

/// Like [`parse`], but gives the tree also where there are problems that do not hide the rest (a key that
/// stands twice), so that a reader can report its own beside them. No tree: the text is not YAML.
pub fn parse_all(text: &str) -> (Option<Node>, Problems) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder {
        events: Parser::new_from_str(text),
        anchors: HashMap::new(),
        nodes_left: NODES_MAX,
        problems: Problems::default(),
    };
    match builder.document() {
        Ok(node) => (Some(node), builder.problems),
        Err(problem) => {
            builder.problems.push(*problem);
            (None, builder.problems)
        }
    }
}

/// Boxed: a problem is large and the way without one is the usual one.
type Fatal = Box<Problem>;

struct Builder<'t> {
    events: Parser<'t, granit_parser::StrInput<'t>>,
    /// Anchored nodes with the number of nodes in each.
    anchors: HashMap<usize, (Node, usize)>,
    nodes_left: usize,
    /// Problems that do not stop the reading (duplicate keys).
    problems: Problems,
}

impl<'t> Builder<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Fatal> {
        loop {
            match self.events.next() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(event)) => return Ok(event),
                Some(Err(error)) => return Err(Box::new(scan_problem(&error))),
                None => return Ok((Event::StreamEnd, Span::empty(granit_parser::Marker::new(0, 1, 0)))),
            }
        }
    }

    fn document(&mut self) -> Result<Node, Fatal> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => {
                    return Ok(root.unwrap_or(Node {
                        place: Place { line: 1, column: 1 },
                        value: Value::Scalar(Scalar { text: String::new(), plain: true }),
                    }));
                }
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                _ if root.is_some() => {
                    return Err(fatal(place(&span), "a second document begins here")
                        .hint("keep one document a file: remove the `---`")
                        .into());
                }
                event => root = Some(self.node(event, &span, 0)?),
            }
        }
    }

    fn node(&mut self, event: Event<'t>, span: &Span, depth: usize) -> Result<Node, Fatal> {
        let place = place(span);
        if depth > DEPTH_MAX {
            return Err(fatal(place, format!("nested more than {DEPTH_MAX} levels deep")).into());
        }
        let before = self.nodes_left;
        self.spend(1, place)?;
        let (anchor, tag, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                (anchor, tag, Value::Scalar(Scalar { text: text.into_owned(), plain }))
            }
            Event::SequenceStart(_, anchor, tag) => (anchor, tag, Value::List(self.list(depth)?)),
            Event::MappingStart(_, anchor, tag) => (anchor, tag, Value::Map(self.map(depth)?)),
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor) else {
                    return Err(fatal(place, "an alias inside the node that it names").into());
                };
                let (node, size) = (node.clone(), *size);
                self.spend(size, place)?;
                return Ok(Node { place, ..node });
            }
            _ => return Err(fatal(place, "an alias to an anchor that is not there").into()),
        };
        if let Some(tag) = tag.as_deref()
            && !(tag.is_yaml_core_schema()
                && matches!(value, Value::Scalar(_) | Value::List(_) | Value::Map(_)))
        {
            self.problems.push(
                fatal(place, format!("the tag `{tag}` is not known"))
                    .hint("remove the tag: write the plain value"),
            );
        }
        let node = Node { place, value };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), before - self.nodes_left));
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Fatal> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, &span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Entry>, Fatal> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        let mut merged: Vec<Entry> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                // `<<: *anchor`: what the map itself says wins over what is merged in.
                merged.retain(|e| !lines.contains_key(&e.key));
                entries.extend(merged);
                return Ok(entries);
            }
            let place = place(&span);
            let Value::Scalar(key) = self.node(event, &span, depth + 1)?.value else {
                return Err(fatal(place, "a key must be plain text, not a list or a map").into());
            };
            let (event, span) = self.next()?;
            let value = self.node(event, &span, depth + 1)?;
            if key.plain && key.text == "<<" {
                self.merge(value, &mut merged);
                continue;
            }
            if let Some(line) = lines.insert(key.text.clone(), place.line) {
                let message = format!("the key `{}` stands twice, first in line {line}", key.text);
                self.problems.push(
                    Problem::error(key.text, message)
                        .hint("remove one of the two")
                        .at(place.line, place.column),
                );
                continue;
            }
            entries.push(Entry { key: key.text, place, value });
        }
    }

    fn merge(&mut self, value: Node, merged: &mut Vec<Entry>) {
        let place = value.place;
        let sources = match value.value {
            Value::List(items) => items,
            _ => vec![value],
        };
        for source in sources {
            match source.value {
                Value::Map(entries) => {
                    for entry in entries {
                        if !merged.iter().any(|m| m.key == entry.key) {
                            merged.push(entry);
                        }
                    }
                }
                _ => self.problems.push(fatal(place, "`<<` merges maps, and this is none")),
            }
        }
    }

    fn spend(&mut self, nodes: usize, place: Place) -> Result<(), Fatal> {
        match self.nodes_left.checked_sub(nodes) {
            Some(left) => {
                self.nodes_left = left;
                Ok(())
            }
            None => Err(fatal(place, format!("more than {NODES_MAX} values, aliases included"))
                .hint("split the document, or use fewer aliases")
                .into()),
        }
    }
}

fn place(span: &Span) -> Place {
    Place { line: span.start.line(), column: span.start.col() + 1 }
}

fn fatal(place: Place, message: impl Into<String>) -> Problem {
    Problem::error("", message).at(place.line, place.column)
}

fn scan_problem(error: &ScanError) -> Problem {
    let marker = error.marker();
    let problem = Problem::error("", format!("this is not YAML: {}", error.info()))
        .at(marker.line().max(1), marker.col() + 1);
    if error.info().contains("tab") {
        return problem.hint("indent with spaces, not tabs");
    }
    problem.hint("look at this line and the one before: indentation, a missing `:`, an open quote")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_keep_their_text_and_every_node_its_place() {
        let node = parse("to: 0123456\nsplit:\n  12345e7: 5%\nlist: ['1', 2]\n").unwrap();
        assert_eq!(node.get("to").and_then(Node::text), Some("0123456"));
        let split = node.get("split").unwrap();
        assert_eq!(split.map().unwrap()[0].key, "12345e7");
        assert_eq!(split.map().unwrap()[0].place, Place { line: 3, column: 3 });
        let list = node.get("list").unwrap().list().unwrap();
        assert!(!list[0].scalar().unwrap().plain && list[1].scalar().unwrap().plain);
    }

    #[test]
    fn json_an_empty_text_and_a_byte_order_mark_are_read() {
        assert_eq!(parse(r#"{"a": ["b"]}"#).unwrap().get("a").unwrap().list().unwrap().len(), 1);
        assert!(parse("").unwrap().is_null());
        assert!(parse("\u{feff}a: 1").unwrap().get("a").is_some());
    }

    #[test]
    fn anchors_and_merge_keys_work_and_the_map_itself_wins() {
        let node = parse("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n").unwrap();
        let used = node.get("use").unwrap();
        assert_eq!(used.get("x").and_then(Node::text), Some("1"));
        assert_eq!(used.get("y").and_then(Node::text), Some("3"));
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        let place = |text: &str| {
            let problem = parse(text).unwrap_err().0.remove(0);
            (problem.line.unwrap(), problem.message)
        };
        assert_eq!(place("a: 1\nb: 2\na: 3\n"), (3, "the key `a` stands twice, first in line 1".into()));
        assert_eq!(place("a: 1\n---\nb: 2\n").0, 2 + 1);
        assert_eq!(place("a: *nowhere\n").0, 1);
        assert!(place("a:\n\t- b\n").0 >= 1);
        assert!(place(&format!("{}{}", "[".repeat(100), "]".repeat(100))).1.contains("deep"));
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for n in 1..9 {
            let previous = n - 1;
            text.push_str(&format!("a{n}: &a{n} [{}]\n", vec![format!("*a{previous}"); 10].join(",")));
        }
        assert!(parse(&text).unwrap_err().0[0].message.contains("aliases included"));
    }
}
