//! How a command ends when it does not succeed: the exit status, and `error:` and `hint:` lines on stderr.

use std::process::ExitCode;

use crate::admin::client::ClientError;
use crate::cli::output;
use crate::hint::Problems;

/// The work failed.
const FAILED: u8 = 1;
/// What was typed cannot be meant.
const USAGE: u8 = 2;
/// The running switchman said no.
const REFUSED: u8 = 3;

/// Why a command did not succeed.
#[derive(Debug)]
pub(super) struct Failure {
    status: u8,
    message: String,
    hint: Option<String>,
    /// Problems of a rule document, rendered; they stand before the message.
    details: Vec<String>,
}

impl Failure {
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self { status: FAILED, message: message.into(), hint: None, details: Vec::new() }
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { status: USAGE, ..Self::failed(message) }
    }

    /// The reader of stdout went away (`| head`): nothing to say, and nobody to say it to.
    pub(super) fn nobody_reads() -> Self {
        Self { status: 0, ..Self::failed("") }
    }

    /// Adds what to type next.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What went wrong, alone.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// Writes it to stderr and gives the exit status.
    pub(super) fn report(self) -> ExitCode {
        for detail in &self.details {
            output::note(detail);
        }
        if !self.message.is_empty() {
            output::note(&format!("error: {}", self.message));
        }
        if let Some(hint) = &self.hint {
            output::note(&format!("hint: {hint}"));
        }
        ExitCode::from(self.status)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let status = if error.is_refusal() { REFUSED } else { FAILED };
        let details = match &error {
            ClientError::Problem(problem) => problem.problems.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        Self { status, message: error.to_string(), hint: error.hint(), details }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        let details = problems.0.iter().map(ToString::to_string).collect();
        Self { details, ..Self::failed("") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::types::Problem;

    #[test]
    fn a_refusal_and_a_failure_have_different_statuses() {
        let status = |status| {
            let problem = Problem {
                kind: String::new(),
                title: String::new(),
                status,
                detail: "no".into(),
                hint: Some("do".into()),
                problems: Vec::new(),
            };
            let failure = Failure::from(ClientError::Problem(Box::new(problem)));
            assert_eq!(failure.hint.as_deref(), Some("do"));
            failure.status
        };
        assert_eq!(status(404), REFUSED);
        assert_eq!(status(409), REFUSED);
        assert_eq!(status(503), FAILED);
    }
}
