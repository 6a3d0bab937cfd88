//! The closed list of what can happen, and how it is said.

use std::fmt;

use jiff::Timestamp;

use crate::version::{ServiceName, VersionId, VersionState, WorkerId};

/// Of a text that somebody else wrote, so many characters stand in an event.
const TEXT_MAX: usize = 500;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Goes up with each event, also over a restart of switchman: the time in microseconds since 1970.
    pub id: u64,
    /// When it happened.
    pub at: Timestamp,
    /// The service it is about.
    pub service: ServiceName,
    /// The version it is about.
    pub version: Option<VersionId>,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A version changed its state, or why it is in it.
    State {
        /// The state now.
        state: VersionState,
        /// Why, where that needs saying.
        reason: Option<String>,
    },
    /// Somebody asked for something to be done with a version.
    Asked {
        /// What, as it is typed.
        action: String,
    },
    /// The process of a worker was started.
    Started {
        /// The worker.
        worker: WorkerId,
        /// The process.
        pid: u32,
    },
    /// The process of a worker was started by an earlier switchman, and goes on.
    Adopted {
        /// The worker.
        worker: WorkerId,
        /// The process.
        pid: u32,
    },
    /// The process of a worker takes requests.
    Ready {
        /// The worker.
        worker: WorkerId,
        /// The process.
        pid: u32,
    },
    /// Nothing of the process of a worker is left.
    Ended {
        /// The worker.
        worker: WorkerId,
        /// The process.
        pid: u32,
        /// How, where it was not told to.
        why: Option<String>,
    },
    /// The process of a worker printed lines that `alarm` names.
    Alarm {
        /// The worker.
        worker: WorkerId,
        /// The process.
        pid: u32,
        /// How many since it was started.
        count: u64,
        /// The last of them.
        line: String,
    },
    /// An alias was set, moved or removed.
    Alias {
        /// The alias.
        alias: String,
        /// The version before.
        from: Option<String>,
        /// The version now.
        to: Option<String>,
    },
    /// Another rule document is in force.
    Rules {
        /// Where it came from.
        origin: String,
    },
    /// A rule document was refused; what was in force stays in force.
    RulesRefused {
        /// What is wrong with it.
        why: String,
    },
    /// What workers print cannot be written to files, or can again.
    Logs {
        /// Why it cannot; none: it can.
        failing: Option<String>,
    },
    /// The source of rules and aliases cannot be reached, or can again.
    Source {
        /// Whether it cannot.
        away: bool,
    },
}

impl What {
    /// Its name in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::State { .. } => "state",
            Self::Asked { .. } => "asked",
            Self::Started { .. } => "worker-started",
            Self::Adopted { .. } => "worker-adopted",
            Self::Ready { .. } => "worker-ready",
            Self::Ended { .. } => "worker-ended",
            Self::Alarm { .. } => "alarm",
            Self::Alias { .. } => "alias",
            Self::Rules { .. } => "rules",
            Self::RulesRefused { .. } => "rules-refused",
            Self::Logs { .. } => "logs",
            Self::Source { .. } => "source",
        }
    }

    /// The worker and its process, where it is about one.
    pub fn worker(&self) -> Option<(WorkerId, u32)> {
        match self {
            Self::Started { worker, pid }
            | Self::Adopted { worker, pid }
            | Self::Ready { worker, pid }
            | Self::Ended { worker, pid, .. }
            | Self::Alarm { worker, pid, .. } => Some((*worker, *pid)),
            _ => None,
        }
    }
}

/// One line for people.
impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State { state, reason: None } => write!(f, "is {state}"),
            Self::State { state, reason: Some(reason) } => write!(f, "is {state}: {}", short(reason)),
            Self::Asked { action } => write!(f, "asked for: {action}"),
            Self::Started { worker, pid } => write!(f, "worker {worker} is started, pid {pid}"),
            Self::Adopted { worker, pid } => write!(f, "worker {worker} goes on, pid {pid}"),
            Self::Ready { worker, pid } => write!(f, "worker {worker} is ready, pid {pid}"),
            Self::Ended { worker, pid, why: None } => write!(f, "worker {worker} has ended, pid {pid}"),
            Self::Ended { worker, pid, why: Some(why) } => {
                write!(f, "worker {worker} has ended by itself, pid {pid}: {}", short(why))
            }
            Self::Alarm { worker, pid, count, line } => {
                write!(f, "worker {worker} raised an alarm ({count} so far), pid {pid}: {}", short(line))
            }
            Self::Alias { alias, from: None, to: Some(to) } => write!(f, "{alias} is {to}"),
            Self::Alias { alias, from: Some(from), to: Some(to) } => {
                write!(f, "{alias} is {to}; it was {from}")
            }
            Self::Alias { alias, from, to: None } => {
                write!(f, "{alias} is removed; it was {}", from.as_deref().unwrap_or("not set"))
            }
            Self::Rules { origin } => write!(f, "the rules of {origin} are in force"),
            Self::RulesRefused { why } => {
                write!(f, "a rule document was refused, what was in force stays: {}", short(why))
            }
            Self::Logs { failing: Some(why) } => {
                write!(
                    f,
                    "what workers print cannot be written and is lost meanwhile; they go on: {}",
                    short(why)
                )
            }
            Self::Logs { failing: None } => f.write_str("what workers print is written again"),
            Self::Source { away: true } => {
                f.write_str("the source of rules and aliases cannot be reached; what is in force stays")
            }
            Self::Source { away: false } => f.write_str("the source of rules and aliases is back"),
        }
    }
}

/// One line of at most [`TEXT_MAX`] characters.
fn short(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}...", &words[..end]),
        None => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_one_short_line() {
        let worker = WorkerId(1);
        let long = "x\ny ".repeat(1_000);
        let state = |reason: Option<&str>| What::State {
            state: VersionState::Failed,
            reason: reason.map(str::to_owned),
        };
        for (what, said) in [
            (state(None), "is failed"),
            (state(Some("worker 0 ended;\n  it printed last")), "is failed: worker 0 ended; it printed last"),
            (What::Started { worker, pid: 7 }, "worker 1 is started, pid 7"),
            (What::Ended { worker, pid: 7, why: None }, "worker 1 has ended, pid 7"),
            (
                What::Alias { alias: "current".into(), from: Some("a".into()), to: Some("b".into()) },
                "current is b; it was a",
            ),
            (
                What::Alias { alias: "beta".into(), from: Some("a".into()), to: None },
                "beta is removed; it was a",
            ),
        ] {
            assert_eq!(what.to_string(), said);
        }
        let what = What::Ended { worker, pid: 7, why: Some(long) }.to_string();
        assert!(what.len() < 600 && !what.contains('\n') && what.ends_with("..."), "{what}");
    }
}
