//! What a service says of what its workers print: files, alarms, and readiness by a line.

use std::sync::Arc;
use std::time::Duration;

use regex::bytes::{Regex, RegexSet};

use super::keys::logs::LOGS;
use super::keys::names;
use super::read::duration;
use super::size::size;
use super::value;
use crate::yaml::{Fields, Reader};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The longest that files may be kept.
const KEEP_MAX: Duration = Duration::from_secs(3650 * 24 * 3600);
/// A file holds at least the longest line.
const FILE_MIN: u64 = 64 << 10;
const TOTAL_MIN: u64 = 1 << 20;
const SIZE_MAX: u64 = 1 << 50;

/// What is kept on disk of what the workers of a service print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logs {
    /// Whether lines go to files; else they go into switchman's own log.
    pub file: bool,
    /// A file is not made larger than this, in bytes.
    pub max_file: u64,
    /// A file is not written to for longer than this.
    pub max_age: Duration,
    /// What all files of the service take together at the most, in bytes.
    pub max_total: u64,
    /// A file that was not written to for so long is deleted.
    pub keep: Duration,
}

impl Default for Logs {
    fn default() -> Self {
        Self { file: true, max_file: 64 << 20, max_age: DAY, max_total: 1 << 30, keep: 30 * DAY }
    }
}

/// A regular expression for lines as they are printed: bytes. Two are equal if they are written alike.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Whether a line has such a part.
    pub fn matches(&self, line: &[u8]) -> bool {
        self.0.is_match(line)
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, regex::Error> {
        Regex::new(text).map(Self)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

/// Which lines are an alarm, and whether one has the worker replaced.
#[derive(Debug, Clone)]
pub struct Alarm {
    /// The lines.
    pub lines: RegexSet,
    /// Whether the worker is replaced.
    pub restart: bool,
}

/// Reads `logs:` of a service.
pub(super) fn logs(service: &Fields<'_>) -> Logs {
    let usual = Logs::default();
    let Some(fields) = service.get("logs").and_then(|r| r.fields(&names(&[&LOGS]))) else { return usual };
    let bytes = |key: &str, low: u64| fields.get(key)?.value(|text| size(text, low..=SIZE_MAX));
    let logs = Logs {
        file: fields.get("file").and_then(|r| r.boolean()).unwrap_or(usual.file),
        max_file: bytes("max_file", FILE_MIN).unwrap_or(usual.max_file),
        max_age: fields.get("max_age").and_then(|r| duration(&r, SECOND)).unwrap_or(usual.max_age),
        max_total: bytes("max_total", TOTAL_MIN).unwrap_or(usual.max_total),
        keep: fields.get("keep").and_then(keep).unwrap_or(usual.keep),
    };
    if let Some(at) = fields.get("max_file")
        && logs.max_file > logs.max_total
    {
        at.warning("one file may be larger than all together", "make `max_total` larger");
    }
    logs
}

/// Longer than other durations may be: logs are kept for months.
fn keep(reader: Reader<'_>) -> Option<Duration> {
    reader.value(|text| value::duration(text, SECOND..=KEEP_MAX))
}

/// Reads `alarm:` and `restart_on_alarm:` of a service.
pub(super) fn alarm(service: &Fields<'_>) -> Option<Arc<Alarm>> {
    let patterns: Option<Vec<Pattern>> =
        service.get("alarm").map(|r| r.one_or_more().iter().filter_map(pattern).collect());
    let restart = service.get("restart_on_alarm").and_then(|r| Some((r.boolean()?, r)));
    let Some(patterns) = patterns.filter(|patterns| !patterns.is_empty()) else {
        if let Some((true, at)) = restart {
            let hint = "add the lines that are an alarm, as in `alarm: ['^FATAL']`";
            at.error("without `alarm` there is nothing to restart on", hint);
        }
        return None;
    };
    // Each of them is good, so together they can only be too large.
    let lines = RegexSet::new(patterns.iter().map(Pattern::as_str));
    let lines = lines.map_err(|error| {
        let hint = "write fewer, or shorter ones";
        service.map().error(format!("the expressions of `alarm` are too much together: {error}"), hint);
    });
    Some(Arc::new(Alarm { lines: lines.ok()?, restart: restart.is_some_and(|(restart, _)| restart) }))
}

/// A regular expression for lines.
pub(super) fn pattern(reader: &Reader<'_>) -> Option<Pattern> {
    let text = reader.value(value::regex)?;
    if text.is_match("") {
        let message = format!("`{text}` matches every line");
        reader.error(message, "name what the line has in it, as in 'listening on'");
    }
    // What is good for text is good for bytes.
    Pattern::parse(text.as_str()).ok()
}

#[cfg(test)]
mod tests {
    use super::super::keys::{RUN, SERVICE};
    use super::*;
    use crate::yaml::{Collector, parse};

    fn check<T>(text: &str, read: impl FnOnce(&Fields<'_>) -> T) -> (T, String) {
        let node = parse(text).unwrap();
        let problems = Collector::default();
        let read = read(&Reader::new(&node, &problems).fields(&names(&[&SERVICE, &RUN])).unwrap());
        (read, problems.into_inner().to_string())
    }

    #[test]
    fn files_are_kept_as_the_service_says() {
        assert_eq!(check("root: /a", logs), (Logs::default(), String::new()));
        let text = "logs: {file: false, max_file: 1MiB, max_age: 90s, max_total: 2MiB, keep: 400d}";
        let expected = Logs {
            file: false,
            max_file: 1 << 20,
            max_age: Duration::from_secs(90),
            max_total: 2 << 20,
            keep: 400 * DAY,
        };
        assert_eq!(check(text, logs), (expected, String::new()));
        for (text, part) in [
            ("logs: {max_file: 1KiB}", "`1KiB` is out of range"),
            ("logs: {max_total: 5}", "`5` has no unit"),
            ("logs: {keep: 0s}", "out of range"),
            ("logs: {files: true}", "did you mean `file`?"),
            ("logs: off", "`off` is not a map"),
            ("logs: {max_file: 1GiB, max_total: 1MiB}", "one file may be larger than all"),
        ] {
            let said = check(text, logs).1;
            assert!(said.contains(part), "{text}: {said}");
        }
    }

    #[test]
    fn an_alarm_is_one_expression_or_several() {
        assert!(check("root: /a", alarm).0.is_none());
        let (one, said) = check("alarm: '^FATAL'", alarm);
        assert!(one.is_some_and(|a| !a.restart && a.lines.is_match(b"FATAL \xff")), "{said}");
        let (two, said) = check("alarm: [panicked, 'out of memory']\nrestart_on_alarm: true", alarm);
        assert!(two.is_some_and(|a| a.restart && a.lines.is_match(b"an out of memory error")), "{said}");
        for (text, part) in [
            ("alarm: '['", "is not a regular expression"),
            ("alarm: ['x*']", "`x*` matches every line"),
            ("restart_on_alarm: true", "there is nothing to restart on"),
            ("alarm: x\nrestart_on_alarm: maybe", "neither true nor false"),
        ] {
            let said = check(text, alarm).1;
            assert!(said.contains(part), "{text}: {said}");
        }
    }
}
