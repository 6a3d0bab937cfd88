//! Reads what a version printed: what is kept, in files and in memory, and then what comes.
//!
//! ```text
//! worker 0: files ... | memory --+
//! worker 1: files ... | memory --+--merge by time--> portions ... up to the snapshot, then the followers' lines
//! ```
//!
//! The lines of a worker up to its first one in memory are read from its files; with a number of lines asked for, the
//! files are first read from their ends to find where to begin. No file is read whole into memory.

mod file;
mod history;

use jiff::Timestamp;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::mpsc;

use super::store::after;
use super::{LogLine, LogStore, Stream};
use crate::config::Pattern;
use crate::version::{ServiceName, VersionId, WorkerId};

/// Lines that are handed on together ...
const PORTION: usize = 512;
/// ... if they do not have more bytes of text than about this.
const PORTION_BYTES: usize = 256 * 1024;
/// Portions that are read ahead of who wants them.
const AHEAD: usize = 4;

/// Which lines of a version are wanted.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Not those before this.
    pub since: Option<Timestamp>,
    /// Only of this worker.
    pub worker: Option<WorkerId>,
    /// Only those that this matches.
    pub grep: Option<Pattern>,
    /// Of those that are kept, so many of the last ones.
    pub lines: Option<usize>,
}

/// One line, as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it was printed; no other line of the service has the same.
    pub at: Timestamp,
    /// The worker.
    pub worker: WorkerId,
    /// The worker's process.
    pub pid: u32,
    /// Where it was printed.
    pub stream: Stream,
    /// The text, as it was printed, without the line's end.
    pub text: Vec<u8>,
}

impl From<&LogLine> for Entry {
    fn from(line: &LogLine) -> Self {
        let LogLine { at, worker, pid, stream, text, .. } = line;
        Self { at: *at, worker: *worker, pid: *pid, stream: *stream, text: text.as_bytes().to_vec() }
    }
}

impl Query {
    fn wants(&self, line: &Entry) -> bool {
        self.since.is_none_or(|since| line.at >= since)
            && self.worker.is_none_or(|worker| line.worker == worker)
            && self.grep.as_ref().is_none_or(|pattern| pattern.matches(&line.text))
    }
}

/// Lines that are collected until it is time to hand them on.
#[derive(Debug, Default)]
struct Portion {
    lines: Vec<Entry>,
    bytes: usize,
}

impl Portion {
    fn push(&mut self, line: Entry) {
        self.bytes += line.text.len();
        self.lines.push(line);
    }

    fn is_full(&self) -> bool {
        self.lines.len() >= PORTION || self.bytes >= PORTION_BYTES
    }
}

/// One reading.
#[derive(Debug)]
struct Reading {
    store: LogStore,
    service: ServiceName,
    version: VersionId,
    query: Query,
    out: mpsc::Sender<Vec<Entry>>,
}

impl LogStore {
    /// The lines of a version that are wanted, oldest first, each once; with `follow` also those that come, until the
    /// receiver is dropped. Call within a tokio runtime.
    pub fn read(
        &self,
        service: &ServiceName,
        version: &VersionId,
        query: Query,
        follow: bool,
    ) -> mpsc::Receiver<Vec<Entry>> {
        let (out, lines) = mpsc::channel(AHEAD);
        let (store, service, version) = (self.clone(), service.clone(), version.clone());
        tokio::spawn(Reading { store, service, version, query, out }.run(follow));
        lines
    }
}

impl Reading {
    async fn run(mut self, follow: bool) {
        loop {
            // Once it is closed, what is kept is all there will be.
            let follow = follow && !self.store.closed.is_cancelled();
            // First listen, then read: what comes in between is known by its time.
            let coming = self.store.follow();
            let snapshot = self.store.snapshot(&self.service, &self.version).await;
            let upto = snapshot.upto;
            let (query, out) = (self.query.clone(), self.out.clone());
            let read = tokio::task::spawn_blocking(move || history::read(snapshot, &query, &out)).await;
            if !follow || !read.unwrap_or(false) {
                return;
            }
            // It was too slow, or nothing more comes: what it has missed is in the files by now.
            let Some(missed) = self.live(coming, upto).await else { return };
            self.query.since = Some(missed);
            self.query.lines = None;
        }
    }

    /// Hands on what comes after `upto`, until nobody wants it any more, or there may be lines that it does not see:
    /// then since when.
    async fn live(&self, mut coming: broadcast::Receiver<LogLine>, mut upto: Timestamp) -> Option<Timestamp> {
        loop {
            let mut line = tokio::select! {
                line = coming.recv() => line,
                () = self.out.closed() => return None,
                () = self.store.closed.cancelled() => return Some(after(upto)),
            };
            let mut portion = Portion::default();
            let missed = loop {
                match line {
                    Ok(line) => {
                        if line.at > upto && line.service == self.service && line.version == self.version {
                            let line = Some(Entry::from(&line)).filter(|line| self.query.wants(line));
                            line.into_iter().for_each(|line| portion.push(line));
                        }
                        upto = upto.max(line.at);
                    }
                    Err(RecvError::Lagged(_)) => break true,
                    Err(RecvError::Closed) => return None,
                }
                if portion.is_full() {
                    break false;
                }
                line = match coming.try_recv() {
                    Ok(line) => Ok(line),
                    Err(TryRecvError::Empty) => break false,
                    Err(TryRecvError::Lagged(lines)) => Err(RecvError::Lagged(lines)),
                    Err(TryRecvError::Closed) => Err(RecvError::Closed),
                };
            };
            if !portion.lines.is_empty() {
                self.out.send(portion.lines).await.ok()?;
            }
            if missed {
                return Some(after(upto));
            }
        }
    }
}
