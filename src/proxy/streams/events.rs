//! Server-sent events as they pass: where one ends. Pure.
//!
//! An event ends with a blank line; lines end with CRLF, LF or CR (WHATWG HTML, "Server-sent events"). A client
//! drops an event that was not ended, and connects again after the end of the stream.

/// How far a stream of events was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Events {
    line: Line,
    /// The line before is blank, or there is none: an event ends here.
    between: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// At its start.
    Empty,
    /// At its start, after a CR that an LF may belong to.
    AfterCr,
    /// Within it.
    Text,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self { line: Line::Empty, between: true }
    }

    /// Whether nothing of an event was sent that is not ended.
    pub(crate) fn between(&self) -> bool {
        self.between
    }

    /// Notes that `bytes` pass.
    pub(crate) fn pass(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.line = match (byte, self.line) {
                (b'\n', Line::AfterCr) => Line::Empty,
                (b'\n' | b'\r', before) => {
                    self.between = before != Line::Text;
                    if *byte == b'\r' { Line::AfterCr } else { Line::Empty }
                }
                _ => {
                    self.between = false;
                    Line::Text
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_ends_with_a_blank_line() {
        for (text, between) in [
            ("", true),
            ("data: a", false),
            ("data: a\n", false),
            ("data: a\n\n", true),
            ("data: a\n\ndata: b\n", false),
            ("data: a\r\n", false),
            ("data: a\r\n\r", true),
            ("data: a\r\n\r\n", true),
            ("data: a\r\r", true),
            ("data: a\r\r\r", true),
            ("data: a\n\r\n", true),
            (": keep-alive\n\n", true),
            ("data: a\r\n\r\nx", false),
        ] {
            let mut events = Events::new();
            events.pass(text.as_bytes());
            assert_eq!(events.between(), between, "{text:?}");
        }
    }
}
