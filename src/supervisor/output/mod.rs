//! What workers print: read line by line, listened to, kept in memory and on disk, followed.
//!
//! ```text
//! pipe --Printer--> lines --Ears: is it ready, is that an alarm
//!                     |
//!                     +--LogStore (one clock)--+--> the last lines of each worker, in memory
//!                                              +--> followers
//!                                              +--> Writer: a thread a service --> files (rotated, capped)
//! admin API <--Reading-- files and memory, joined by the time of each line; then what comes
//! ```
//!
//! Whatever a worker prints, memory and disk are bounded. Who reads a worker's output never waits for the disk for
//! longer than [`printer::WAIT_MAX`]: then lines are lost, and a line says how many.
//!
//! The time of a line is its name: the clock gives no two lines of one switchman the same, and every reader sees them
//! in that order. So who has seen a line can ask for those after it, also of the next switchman.

mod ears;
mod files;
mod printer;
mod reading;
mod record;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;

use jiff::Timestamp;

use crate::version::{ServiceName, VersionId, WorkerId};

pub(crate) use ears::{Alarms, Ears, Heard, Listening, report};
pub(crate) use printer::Printer;
pub use reading::{Entry, Query};
pub use store::LogStore;

/// A longer line is cut into pieces of this many bytes.
pub const LINE_MAX: usize = 64 * 1024;

/// Which of its two outputs a worker printed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Neither: switchman itself has something to say about the worker's lines.
    Note,
}

impl Stream {
    /// The word used in JSON and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Note => "switchman",
        }
    }

    /// Its three letters in a log file.
    pub fn short(self) -> &'static str {
        match self {
            Self::Stdout => "out",
            Self::Stderr => "err",
            Self::Note => "sys",
        }
    }
}

/// One line that a worker printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When it was read, in microseconds; no other line has the same.
    pub at: Timestamp,
    /// The service.
    pub service: ServiceName,
    /// The version.
    pub version: VersionId,
    /// The worker.
    pub worker: WorkerId,
    /// The worker's process.
    pub pid: u32,
    /// Where it was printed.
    pub stream: Stream,
    /// The text, without the line's end; what is no UTF-8 is replaced (in a file it is not).
    pub text: Arc<str>,
}
