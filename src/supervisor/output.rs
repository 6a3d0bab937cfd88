//! What workers print: read line by line, kept (the last lines of each worker), followed, and logged.
//!
//! Whatever a worker prints, memory is bounded: a line is cut at [`LINE_MAX`], a worker's lines at [`LINES_MAX`]
//! and [`BYTES_MAX`]. Bytes that are no UTF-8 are replaced. A follower that is too slow loses lines and is told so
//! by the broadcast channel; a worker never waits for one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use dashmap::DashMap;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::broadcast;

use crate::version::{ServiceName, VersionId, WorkerId};

/// Lines kept of each worker.
pub const LINES_MAX: usize = 1_000;
/// Bytes of text kept of each worker.
pub const BYTES_MAX: usize = 4 * 1024 * 1024;
/// A longer line is cut into pieces of this many bytes.
pub const LINE_MAX: usize = 64 * 1024;
/// Lines that a follower may lag behind.
const FOLLOW_LAG: usize = 1_024;

/// Which of its two outputs a worker printed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The word used in JSON, logs and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One line that a worker printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When it was read.
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
    /// The text, without the line's end; at most [`LINE_MAX`] bytes before replacement of what is no UTF-8.
    pub text: Arc<str>,
}

/// The last lines of every worker; clonable, cheap.
#[derive(Debug, Clone)]
pub struct LogStore {
    versions: Arc<DashMap<(ServiceName, VersionId), BTreeMap<WorkerId, Kept>>>,
    followers: broadcast::Sender<LogLine>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<LogLine>,
    bytes: usize,
}

impl Default for LogStore {
    fn default() -> Self {
        Self { versions: Arc::default(), followers: broadcast::Sender::new(FOLLOW_LAG) }
    }
}

impl LogStore {
    /// The last lines of all workers of a version, oldest first.
    pub fn logs(&self, service: &ServiceName, version: &VersionId) -> Vec<LogLine> {
        let Some(workers) = self.versions.get(&(service.clone(), version.clone())) else { return Vec::new() };
        let mut lines: Vec<LogLine> = workers.values().flat_map(|kept| kept.lines.iter().cloned()).collect();
        drop(workers);
        lines.sort_by_key(|line| line.at);
        lines
    }

    /// Every line of every worker from now on; the reader picks what it wants to see.
    pub fn follow(&self) -> broadcast::Receiver<LogLine> {
        self.followers.subscribe()
    }

    /// The last `count` lines of one process, oldest first.
    pub(crate) fn tail(
        &self,
        service: &ServiceName,
        version: &VersionId,
        (worker, pid): (WorkerId, u32),
        count: usize,
    ) -> Vec<Arc<str>> {
        let Some(workers) = self.versions.get(&(service.clone(), version.clone())) else { return Vec::new() };
        let lines = workers.get(&worker).into_iter().flat_map(|kept| kept.lines.iter().rev());
        let mut tail: Vec<_> =
            lines.filter(|line| line.pid == pid).take(count).map(|line| line.text.clone()).collect();
        tail.reverse();
        tail
    }

    /// Forgets a version.
    pub(crate) fn forget(&self, service: &ServiceName, version: &VersionId) {
        self.versions.remove(&(service.clone(), version.clone()));
    }

    fn add(&self, line: LogLine) {
        let mut workers = self.versions.entry((line.service.clone(), line.version.clone())).or_default();
        let kept = workers.entry(line.worker).or_default();
        kept.bytes += line.text.len();
        kept.lines.push_back(line.clone());
        while kept.lines.len() > LINES_MAX || kept.bytes > BYTES_MAX {
            kept.bytes -= kept.lines.pop_front().map_or(kept.bytes, |oldest| oldest.text.len());
        }
        drop(workers);
        // Nobody follows: fine.
        let _ = self.followers.send(line);
    }
}

/// One output of one process.
#[derive(Debug, Clone)]
pub(crate) struct Printer {
    pub(crate) service: ServiceName,
    pub(crate) version: VersionId,
    pub(crate) worker: WorkerId,
    pub(crate) pid: u32,
    pub(crate) stream: Stream,
}

impl Printer {
    /// Reads to the end of `output` (or its first error, which a closed pipe is).
    pub(crate) async fn read(self, mut output: impl AsyncRead + Unpin, logs: LogStore) {
        let mut buffer = vec![0; LINE_MAX];
        let mut filled = 0;
        while let Ok(count @ 1..) = output.read(&mut buffer[filled..]).await {
            let mut begin = 0;
            // What was read before has no newline in it.
            let mut look_from = filled;
            filled += count;
            while let Some(length) = buffer[look_from..filled].iter().position(|byte| *byte == b'\n') {
                self.line(&buffer[begin..look_from + length], &logs);
                begin = look_from + length + 1;
                look_from = begin;
            }
            if begin == 0 && filled == LINE_MAX {
                self.line(&buffer, &logs);
                begin = filled;
            }
            buffer.copy_within(begin..filled, 0);
            filled -= begin;
        }
        if filled > 0 {
            self.line(&buffer[..filled], &logs);
        }
    }

    fn line(&self, bytes: &[u8], logs: &LogStore) {
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let text: Arc<str> = Arc::from(String::from_utf8_lossy(bytes));
        let Self { service, version, worker, pid, stream } = self;
        tracing::info!(target: "worker", %service, %version, %worker, pid, stream = stream.as_str(), "{text}");
        logs.add(LogLine {
            at: Timestamp::now(),
            service: service.clone(),
            version: version.clone(),
            worker: *worker,
            pid: *pid,
            stream: *stream,
            text,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn printed(bytes: &[u8]) -> (LogStore, Vec<LogLine>) {
        let logs = LogStore::default();
        let (service, version) = (ServiceName::from("app"), VersionId::from("4f2a91c"));
        let printer = Printer {
            service: service.clone(),
            version: version.clone(),
            worker: WorkerId(0),
            pid: 7,
            stream: Stream::Stdout,
        };
        printer.read(bytes, logs.clone()).await;
        let lines = logs.logs(&service, &version);
        (logs, lines)
    }

    #[tokio::test]
    async fn lines_are_cut_at_newlines_and_at_the_limit() {
        let mut bytes = b"one\r\n\ntwo\n".to_vec();
        bytes.extend(vec![b'x'; LINE_MAX + 5]);
        bytes.extend(b"\nlast");
        let (_, lines) = printed(&bytes).await;
        let lengths: Vec<usize> = lines.iter().map(|line| line.text.len()).collect();
        assert_eq!(lengths, [3, 0, 3, LINE_MAX, 5, 4]);
    }

    #[tokio::test]
    async fn what_is_no_utf8_is_replaced() {
        let (_, lines) = printed(b"a\xff\xfeb\0c\n").await;
        assert_eq!(&*lines[0].text, "a\u{fffd}\u{fffd}b\0c");
    }

    #[tokio::test]
    async fn a_worker_keeps_its_last_lines_and_a_bounded_number_of_bytes() {
        let many: String = (0..3_000).map(|n| format!("{n}\n")).collect();
        let (logs, lines) = printed(many.as_bytes()).await;
        assert_eq!((lines.len(), &*lines[0].text, &*lines[999].text), (1_000, "2000", "2999"));
        let tail = logs.tail(&"app".into(), &"4f2a91c".into(), (WorkerId(0), 7), 2);
        assert_eq!(tail.iter().map(|l| &**l).collect::<Vec<_>>(), ["2998", "2999"]);
        assert!(
            logs.tail(&"app".into(), &"4f2a91c".into(), (WorkerId(0), 8), 2).is_empty(),
            "another process"
        );

        let (_, lines) = printed(&vec![b'x'; 3 * BYTES_MAX]).await;
        let bytes: usize = lines.iter().map(|line| line.text.len()).sum();
        assert_eq!(bytes, BYTES_MAX);
    }
}
