//! One line of a log file: `2026-11-21T18:05:10.123456Z out 4711 what the worker printed`.
//!
//! The prefix has a fixed form, so that `grep`, `sort` and `cut` do what people expect; the text is the worker's, byte
//! for byte. Times are UTC.

use std::io::Write;

use jiff::Timestamp;

use super::Stream;

/// Bytes of the time.
const TIME: usize = "2026-11-21T18:05:10.123456Z".len();

/// One line, as it lies in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) at: Timestamp,
    pub(super) stream: Stream,
    pub(super) pid: u32,
    pub(super) text: &'a [u8],
}

impl<'a> Record<'a> {
    /// Adds it to `file`, with its line's end.
    pub(super) fn write(&self, file: &mut Vec<u8>) {
        // Writing to memory does not fail.
        let _ = write!(file, "{:.6} {} {} ", self.at, self.stream.short(), self.pid);
        file.extend_from_slice(self.text);
        file.push(b'\n');
    }

    /// Reads a line, with or without its end; none if switchman has not written it.
    pub(super) fn read(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let (at, rest) = line.split_at_checked(TIME)?;
        let at = std::str::from_utf8(at).ok()?.parse().ok()?;
        let (stream, rest) = rest.strip_prefix(b" ")?.split_at_checked(3)?;
        let stream = [Stream::Stdout, Stream::Stderr, Stream::Note]
            .into_iter()
            .find(|known| known.short().as_bytes() == stream)?;
        let rest = rest.strip_prefix(b" ")?;
        let space = rest.iter().position(|byte| *byte == b' ')?;
        let pid = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
        Some(Self { at, stream, pid, text: &rest[space + 1..] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let at = Timestamp::from_microsecond(1_795_284_310_123_450).unwrap();
        for text in [&b"hello  world "[..], b"", b"\xff\x00 \x1b[31mred\x1b[0m"] {
            let record = Record { at, stream: Stream::Stderr, pid: 4711, text };
            let mut line = Vec::new();
            record.write(&mut line);
            assert!(line.starts_with(b"2026-11-21T18:05:10.123450Z err 4711 "), "{line:?}");
            assert_eq!(Record::read(&line), Some(record));
        }
    }

    #[test]
    fn what_is_no_record_is_none() {
        for line in [
            "",
            "\n",
            "2026-11-21T18:05:10.123456Z",
            "2026-11-21T18:05:10.123456Z out",
            "2026-11-21T18:05:10.123456Z out 1",
            "2026-11-21T18:05:10.123456Z xxx 1 text",
            "2026-11-21T18:05:10.123456Z out one text",
            "2026-13-21T18:05:10.123456Z out 1 text",
            "Traceback (most recent call last): and more text",
        ] {
            assert_eq!(Record::read(line.as_bytes()), None, "{line}");
        }
    }
}
