//! Reads typed values out of [`Node`]s and collects everything that is wrong on the way.
//!
//! A [`Reader`] is one node together with the path of its key, so that each problem says where it is without
//! anybody passing places around. Reading never stops at a problem: a value that cannot be read is `None`,
//! the problem is in the list, and the caller goes on with the next key. [`Fields`] is a map whose keys are
//! known beforehand; keys that nobody knows are reported when it is opened, not when somebody remembers to.
//!
//! ```
//! # use switchman::yaml::{Collector, Reader, parse};
//! let node = parse("workers: 4\nprot: 80\n").unwrap();
//! let problems = Collector::default();
//! let fields = Reader::new(&node, &problems).fields(&["workers", "port"]).unwrap();
//! assert_eq!(fields.get("workers").and_then(|r| r.number(1..=1000)), Some(4));
//! assert_eq!(problems.into_inner().0[0].hint.as_deref(), Some("did you mean `port`?"));
//! ```

use std::cell::RefCell;
use std::ops::RangeInclusive;

use crate::hint::{Problem, Problems, nearest};
use crate::yaml::{Entry, Node, Place, Scalar};

/// Where readers put what is wrong.
pub type Collector = RefCell<Problems>;

/// A node, the path of its key, and where its problems go.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    node: &'a Node,
    key: String,
    problems: &'a Collector,
}

impl<'a> Reader<'a> {
    /// A reader of a whole document.
    pub fn new(node: &'a Node, problems: &'a Collector) -> Self {
        Self { node, key: String::new(), problems }
    }

    /// The node itself.
    pub fn node(&self) -> &'a Node {
        self.node
    }

    /// Reports a problem of this node; its key and place are filled in where the problem has none.
    pub fn report(&self, problem: Problem) {
        self.report_at(self.node.place, problem);
    }

    fn report_at(&self, place: Place, mut problem: Problem) {
        if problem.key.is_empty() {
            problem.key.clone_from(&self.key);
        }
        if problem.line.is_none() {
            problem = problem.at(place.line, place.column);
        }
        self.problems.borrow_mut().push(problem);
    }

    /// Reports that this node cannot be used.
    pub fn error(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.report(Problem::error("", message).hint(hint));
    }

    /// Reports that this node is likely not what was meant.
    pub fn warning(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.report(Problem::warning("", message).hint(hint));
    }

    /// The text of a scalar as it is written: `0123` stays `0123`.
    pub fn text(&self) -> Option<&'a str> {
        let text = self.node.text();
        if text.is_none() {
            let message = format!("{} is not text", self.node.describe());
            self.error(message, "write one value, in quotes where it is empty");
        }
        text
    }

    /// The text of a scalar, read by `parse`; its error needs no key and no place.
    pub fn value<T>(&self, parse: impl FnOnce(&str) -> Result<T, Box<Problem>>) -> Option<T> {
        parse(self.text()?).map_err(|problem| self.report(*problem)).ok()
    }

    /// A whole number within `range`.
    pub fn number(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let (low, high) = (range.start(), range.end());
        let hint = format!("write a number from {low} to {high}");
        self.value(|text| {
            match text.parse() {
                Ok(number) if range.contains(&number) => Ok(number),
                Ok(number) => Err(format!("{number} is not from {low} to {high}")),
                Err(_) => Err(format!("`{text}` is not a whole number")),
            }
            .map_err(|message| Problem::error("", message).hint(hint).into())
        })
    }

    /// `true` or `false`.
    pub fn boolean(&self) -> Option<bool> {
        let value = self.node.scalar().and_then(Scalar::as_bool);
        if value.is_none() {
            let message = format!("{} is neither true nor false", self.node.describe());
            self.error(message, "write true or false, without quotes");
        }
        value
    }

    /// The items of a list; a single value counts as a list of one.
    pub fn one_or_more(&self) -> Vec<Reader<'a>> {
        match self.node.list() {
            Some(items) => (0..).zip(items).map(|(i, item)| self.item(i, item)).collect(),
            None => vec![self.clone()],
        }
    }

    fn item(&self, index: usize, node: &'a Node) -> Reader<'a> {
        Reader { node, key: format!("{}[{index}]", self.key), problems: self.problems }
    }

    fn child(&self, entry: &'a Entry) -> Reader<'a> {
        let dot = if self.key.is_empty() { "" } else { "." };
        Reader { node: &entry.value, key: format!("{}{dot}{}", self.key, entry.key), problems: self.problems }
    }

    /// The entries of a map whose keys are free (names of services, of variables), in the order written. Null
    /// is a map without entries.
    pub fn entries(&self) -> Option<Vec<(&'a Entry, Reader<'a>)>> {
        self.entries_or(|| "write one `key: value` a line".to_owned())
    }

    fn entries_or(&self, hint: impl FnOnce() -> String) -> Option<Vec<(&'a Entry, Reader<'a>)>> {
        let entries = match self.node.map() {
            Some(entries) => entries,
            None if self.node.is_null() => &[],
            None => {
                self.error(format!("{} is not a map", self.node.describe()), hint());
                return None;
            }
        };
        Some(entries.iter().map(|entry| (entry, self.child(entry))).collect())
    }

    /// The map, of which only the `known` keys are allowed; every other one is reported here.
    pub fn fields(self, known: &[&str]) -> Option<Fields<'a>> {
        let entries = self.entries_or(|| format!("write a map of the keys {}", known.join(", ")))?;
        for (entry, child) in &entries {
            if !known.contains(&entry.key.as_str()) {
                let hint = match nearest(&entry.key, known.iter().copied()) {
                    Some(word) => format!("did you mean `{word}`?"),
                    None => format!("the keys here are {}", known.join(", ")),
                };
                let problem = Problem::error("", format!("the key `{}` is not known", entry.key)).hint(hint);
                child.report_at(entry.place, problem);
            }
        }
        Some(Fields { map: self, entries })
    }
}

/// A map with known keys.
#[derive(Debug)]
pub struct Fields<'a> {
    map: Reader<'a>,
    entries: Vec<(&'a Entry, Reader<'a>)>,
}

impl<'a> Fields<'a> {
    /// The value of a key; none where the key is left out or nothing stands after it.
    pub fn get(&self, key: &str) -> Option<Reader<'a>> {
        let (_, reader) = self.entries.iter().find(|(entry, _)| entry.key == key)?;
        (!reader.node.is_null()).then(|| reader.clone())
    }

    /// The value of a key that must be there; reports that it is missing and shows an `example`.
    pub fn require(&self, key: &str, example: &str) -> Option<Reader<'a>> {
        let found = self.get(key);
        if found.is_none() {
            self.map
                .error(format!("the key `{key}` is missing"), format!("add it, as in `{key}: {example}`"));
        }
        found
    }

    /// The map itself, for problems that are about several of its keys.
    pub fn map(&self) -> &Reader<'a> {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::parse;

    /// Reads `text` with `read` and gives what it returned and the problems, one `key line:column message` each.
    fn check<T>(text: &str, read: impl FnOnce(Reader<'_>) -> T) -> (T, Vec<String>) {
        let node = parse(text).unwrap();
        let problems = Collector::default();
        let value = read(Reader::new(&node, &problems));
        let show =
            |p: Problem| format!("{} {}:{} {}", p.key, p.line.unwrap_or(0), p.column.unwrap_or(0), p.message);
        (value, problems.into_inner().0.into_iter().map(show).collect())
    }

    #[test]
    fn values_are_read_and_what_is_wrong_has_its_key_and_place() {
        let text = "name: 0123\nnumber: 12\nsmall: 0\nword: two\nflag: true\nnot: yes\nlist: [a, [b]]\n";
        let keys = ["name", "number", "small", "word", "flag", "not", "list"];
        let (values, problems) = check(text, |reader| {
            let f = reader.fields(&keys).unwrap();
            let own = |reader: &Reader<'_>| reader.text().map(str::to_owned);
            let number = |key: &str| f.get(key).unwrap().number(1..=99);
            let flag = |key: &str| f.get(key).unwrap().boolean();
            let list: Vec<_> = f.get("list").unwrap().one_or_more().iter().map(own).collect();
            let numbers = [number("number"), number("small"), number("word")];
            (own(&f.get("name").unwrap()), numbers, [flag("flag"), flag("not")], list)
        });
        let list = vec![Some("a".to_owned()), None];
        assert_eq!(values, (Some("0123".to_owned()), [Some(12), None, None], [Some(true), None], list));
        assert_eq!(
            problems,
            [
                "list[1] 7:11 a list is not text",
                "small 3:8 0 is not from 1 to 99",
                "word 4:7 `two` is not a whole number",
                "not 6:6 `yes` is neither true nor false",
            ]
        );
    }

    #[test]
    fn unknown_keys_missing_keys_and_null() {
        let (found, problems) = check("a:\n  lisen: 1\n  none:\n", |reader| {
            let a = reader.fields(&["a"]).unwrap().get("a").unwrap().fields(&["listen", "none"]).unwrap();
            (a.get("none").is_some(), a.require("listen", "80").is_some())
        });
        assert_eq!(found, (false, false));
        assert_eq!(
            problems,
            ["a.lisen 2:3 the key `lisen` is not known", "a 2:3 the key `listen` is missing"]
        );
    }

    #[test]
    fn a_map_is_wanted_where_fields_are_read() {
        let (fields, problems) = check("[1]", |reader| reader.fields(&["a"]).is_some());
        assert!(!fields);
        assert_eq!(problems, [" 1:1 a list is not a map"]);
    }
}
