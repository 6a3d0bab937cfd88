//! Reads one output of one process, line by line.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::{Ears, LINE_MAX, LogStore, Stream};
use crate::version::{ServiceName, VersionId, WorkerId};

/// How long the reader of an output waits for the disk: so long may a worker have to wait that prints more than the
/// disk takes. Then lines are lost, without any more waiting, until it takes some again.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(1);

/// One output of one process.
#[derive(Debug, Clone)]
pub(crate) struct Printer {
    pub(crate) service: ServiceName,
    pub(crate) version: VersionId,
    pub(crate) worker: WorkerId,
    pub(crate) pid: u32,
    pub(crate) stream: Stream,
    pub(crate) ears: Ears,
}

impl Printer {
    /// Reads to the end of `output` (or its first error, which a closed pipe is).
    pub(crate) async fn read(mut self, mut output: impl AsyncRead + Unpin, logs: LogStore) {
        let mut buffer = vec![0; LINE_MAX];
        let mut filled = 0;
        let mut lost = 0;
        while let Ok(count @ 1..) = output.read(&mut buffer[filled..]).await {
            // What was read before has no line's end in it.
            let last = buffer[filled..filled + count].iter().rposition(|byte| *byte == b'\n');
            let end = last.map(|last| filled + last);
            filled += count;
            // A line that fills the buffer is cut.
            let (end, next) = match end {
                Some(end) => (end, end + 1),
                None if filled == LINE_MAX => (filled, filled),
                None => continue,
            };
            self.lines(&buffer[..end], &mut lost, &logs).await;
            buffer.copy_within(next..filled, 0);
            filled -= next;
        }
        if filled > 0 {
            self.lines(&buffer[..filled], &mut lost, &logs).await;
        }
        if lost > 0 {
            logs.add(&self, &[], &mut lost).await;
        }
    }

    /// Lines that are read whole; the last one is without its end.
    async fn lines(&mut self, bytes: &[u8], lost: &mut u64, logs: &LogStore) {
        let lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let lines: Vec<&[u8]> = lines.collect();
        for line in &lines {
            self.ears.hear(line);
        }
        logs.add(self, &lines, lost).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::output::LogLine;
    use crate::supervisor::output::store::{BYTES_MAX, LINES_MAX};

    async fn printed(bytes: &[u8]) -> (LogStore, Vec<LogLine>) {
        let logs = LogStore::default();
        let (service, version) = (ServiceName::from("app"), VersionId::from("4f2a91c"));
        let printer = Printer {
            service: service.clone(),
            version: version.clone(),
            worker: WorkerId(0),
            pid: 7,
            stream: Stream::Stdout,
            ears: Ears::default(),
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
        assert_eq!((lines.len(), &*lines[0].text), (LINES_MAX, "2500"));
        assert_eq!(lines.last().map(|line| &*line.text), Some("2999"));
        let times: Vec<_> = lines.iter().map(|line| line.at).collect();
        assert!(times.is_sorted_by(|a, b| a < b), "no two lines have the same time");
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
