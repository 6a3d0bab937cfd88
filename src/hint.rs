//! What is wrong with something a person wrote, and what to type next.
//!
//! Everything that reads text from outside (the configuration, rule documents, commands) reports with
//! [`Problem`]: which file, line, key and value, and a `hint:` line. Readers collect all problems in one
//! [`Problems`] before they give up, so that nobody fixes a file one error at a time.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Whether a problem keeps what was read from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot be used.
    Error,
    /// It can be used, and is likely not what was meant.
    Warning,
}

/// One thing that is wrong, with everything a person needs to mend it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Whether it stands in the way.
    pub severity: Severity,
    /// The file or etcd key; absent for what has none (a command's argument).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<Arc<str>>,
    /// Line in `file`, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Column in `line`, from 1, counted in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// The path of the key, as in `services.app.workers`; empty for the whole file.
    pub key: String,
    /// What is wrong, with the value in it: a lower-case sentence without a final dot.
    pub message: String,
    /// What to type next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The line itself, as it stands in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

impl Problem {
    /// An error at `key` with no place yet.
    pub fn error(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: None,
            line: None,
            column: None,
            key: key.into(),
            message: message.into(),
            hint: None,
            source: None,
        }
    }

    /// A warning at `key` with no place yet.
    pub fn warning(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(key, message) }
    }

    /// Adds what to type next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the line and column (from 1).
    #[must_use]
    pub fn at(mut self, line: usize, column: usize) -> Self {
        self.line = Some(line);
        self.column = Some(column);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: ")?;
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
            if let (Some(line), Some(column)) = (self.line, self.column) {
                write!(f, "{line}:{column}:")?;
            }
            f.write_str(" ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        if let (Some(source), Some(line), Some(column)) = (&self.source, self.line, self.column) {
            write!(f, "\n  {line:>4} | {source}\n       | {:>column$}", "^")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// All problems of one text, in the order they were found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Adds one.
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// Whether any of them is an error.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|p| p.severity == Severity::Error)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Fills in the file's name, and the text of each line that has a number.
    pub fn locate(&mut self, file: &str, text: &str) {
        /// A longer line is cut: a minified document must not flood a terminal.
        const SOURCE_LINE_MAX: usize = 160;
        let name: Arc<str> = Arc::from(file);
        for problem in &mut self.0 {
            problem.file.get_or_insert_with(|| name.clone());
            if problem.source.is_none()
                && let Some(line) = problem.line
                && let Some(source) = text.lines().nth(line.saturating_sub(1))
                && problem.column.is_some_and(|c| c <= SOURCE_LINE_MAX)
            {
                problem.source = Some(source.chars().take(SOURCE_LINE_MAX).collect());
            }
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

/// The known word nearest to what was written, for "did you mean": near enough to be a slip, else none.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const SLIP_SIMILARITY: f64 = 0.75;
    known
        .into_iter()
        .map(|word| (strsim::jaro_winkler(written, word), word))
        .filter(|(similarity, _)| *similarity >= SLIP_SIMILARITY)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_place_line_and_hint() {
        let mut problems = Problems::from(
            Problem::error("services.app.workers", "`two` is not a number").hint("workers: 2").at(2, 12),
        );
        problems.locate("switchman.yaml", "services:\n  workers: two\n");
        assert_eq!(
            problems.to_string(),
            "error: switchman.yaml:2:12: services.app.workers: `two` is not a number\n     \
             2 |   workers: two\n       |            ^\n  hint: workers: 2"
        );
    }

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        assert_eq!(nearest("lisen", ["listen", "admin"]), Some("listen"));
        assert_eq!(nearest("headers.x", ["header.x", "cookie.x"]), Some("header.x"));
        assert_eq!(nearest("zzz", ["listen", "admin"]), None);
    }
}
