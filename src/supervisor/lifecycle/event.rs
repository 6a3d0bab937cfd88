//! What goes into the life of a version and what comes out.

use std::time::Duration;

use super::adopt::Adopted;
use crate::version::WorkerId;

/// One process of a version; never used again for another one of the same version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ProcessId(pub(crate) u64);

/// What happened to a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A folder of its name is being uploaded again, after it had gone.
    Arrive,
    /// It is to run with this many workers: its folder is complete, or a person asks.
    Start {
        /// From 1.
        workers: u32,
    },
    /// It is to run; something must be done first.
    Prepare,
    /// A request came for it while it slept: start, with this many workers, before others that wait for their turn.
    Wake {
        /// From 1.
        workers: u32,
    },
    /// It is to drain and stop until the next request comes.
    Sleep,
    /// It is to run this many workers, and an earlier switchman has left these processes of it.
    Adopt {
        /// From 1.
        workers: u32,
        /// Whether one of them had been ready.
        was_ready: bool,
        /// At most one for each worker.
        processes: Vec<Adopted>,
    },
    /// It is to drain and stop.
    Stop,
    /// Its folder is gone: it is to drain, stop and be forgotten.
    Retire,
    /// switchman ends: every process is told to end at once.
    Shutdown,
    /// Its workers are to be replaced, one at a time; it is to run this many.
    Restart {
        /// From 1.
        workers: u32,
    },
    /// A restart was asked for that cannot even begin, and why.
    Unrestartable(String),
    /// It is to run this many workers.
    Scale(u32),
    /// It cannot be run at all, and why.
    Unrunnable(String),
    /// Something worth knowing about a process that is not ready yet.
    Noted(ProcessId, String),
    /// A process passed its readiness check.
    Passed(ProcessId),
    /// A process did not become ready in time, and why.
    Late(ProcessId, String),
    /// Somebody else listens on the port of a process.
    PortTaken(ProcessId),
    /// A ready process failed so many liveness checks in a row that something must be done.
    Unwell(ProcessId, Unwell),
    /// One that was unwell passed a liveness check.
    Well(ProcessId),
    /// A process has ended; what it started may still run.
    Exited(ProcessId),
    /// Nothing is left of a process and what it started.
    Ended(ProcessId, End),
    /// The last request of a draining process has ended, or its time is up.
    Drained(ProcessId),
    /// The back-off of a worker is over; the number tells its timer from older ones.
    Retry(WorkerId, u64),
}

/// How a ready process fails its liveness checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unwell {
    /// It answers, but not as it should.
    pub(crate) answers: bool,
    /// What is wrong, as the end of a sentence about it.
    pub(crate) why: String,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// It was told to.
    Told,
    /// By itself, or it could not even be started; in words.
    ByItself(String),
    /// Its port had been taken by somebody else; in words.
    PortTaken(String),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    /// Start a process for a worker, when it has its turn.
    Start {
        /// Its name from now on.
        process: ProcessId,
        /// The worker it is for.
        worker: WorkerId,
        /// Whether the version has served before: such a start goes before one of a new version.
        urgent: bool,
    },
    /// Wait until its requests have ended, then say `Drained`.
    Drain(ProcessId),
    /// End it and everything it started, then say `Ended`.
    Terminate(ProcessId),
    /// Say `Retry` with these after the delay.
    RetryAfter(WorkerId, u64, Duration),
}
