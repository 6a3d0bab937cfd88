//! The chunked transfer coding, read strictly: what passes here is read the same way by everybody.
//!
//! A size line and a trailer line are looked at only when they are whole, and both are shorter than a buffer,
//! so there is no state within a line.

use crate::proxy::h1::field::{self, Field};

/// Longest size line with its extensions, in bytes.
const SIZE_LINE_MAX: usize = 1024;
/// Longest trailer line, in bytes.
const TRAILER_LINE_MAX: usize = 8 * 1024;
/// Most bytes in all trailer lines together.
const TRAILERS_MAX: usize = 16 * 1024;
/// Digits of a chunk size: 2^60 bytes are enough for everybody.
const SIZE_DIGITS_MAX: usize = 15;

/// Why a chunked body cannot be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadChunk(pub(crate) &'static str);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

/// How far a chunked body was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunked {
    phase: Phase,
    trailer_bytes: usize,
}

impl Chunked {
    pub(crate) fn new() -> Self {
        Self { phase: Phase::Size, trailer_bytes: 0 }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Whether a chunk could begin here.
    pub(crate) fn between(&self) -> bool {
        self.phase == Phase::Size
    }

    /// Whether what comes next is the body's own.
    pub(crate) fn within_chunk(&self) -> bool {
        matches!(self.phase, Phase::Data(_))
    }

    /// Whether the last chunk has come.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Trailers | Phase::Done)
    }

    /// Reads as much of `bytes` as is whole; returns how many bytes that was. `data` sees what the body
    /// consists of, without its framing, `trailer` each line of its trailers, without its CRLF.
    pub(crate) fn advance(
        &mut self,
        bytes: &[u8],
        mut data: impl FnMut(&[u8]),
        mut trailer: impl FnMut(&[u8]),
    ) -> Result<usize, BadChunk> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            at += match self.phase {
                Phase::Done => return Ok(at),
                Phase::Data(left) => {
                    let n = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    if n == 0 {
                        return Ok(at);
                    }
                    data(&rest[..n]);
                    let left = left - n as u64;
                    self.phase = if left == 0 { Phase::DataEnd } else { Phase::Data(left) };
                    n
                }
                Phase::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        self.phase = Phase::Size;
                        2
                    }
                    [] | [b'\r'] => return Ok(at),
                    _ => return Err(BadChunk("a chunk is longer than its size says")),
                },
                Phase::Size => {
                    let Some(line) = whole_line(rest, SIZE_LINE_MAX)? else { return Ok(at) };
                    self.phase = match chunk_size(line)? {
                        0 => Phase::Trailers,
                        size => Phase::Data(size),
                    };
                    line.len() + 2
                }
                Phase::Trailers => {
                    let Some(line) = whole_line(rest, TRAILER_LINE_MAX)? else { return Ok(at) };
                    if line.is_empty() {
                        self.phase = Phase::Done;
                    } else {
                        self.trailer_bytes += line.len();
                        if self.trailer_bytes > TRAILERS_MAX {
                            return Err(BadChunk("the trailers are too large"));
                        }
                        check_trailer(line)?;
                        trailer(line);
                    }
                    line.len() + 2
                }
            };
        }
    }
}

/// The first line without its CRLF, once it is whole. A CR or LF alone, a NUL or another control byte is wrong.
fn whole_line(bytes: &[u8], most: usize) -> Result<Option<&[u8]>, BadChunk> {
    let window = &bytes[..bytes.len().min(most)];
    match window.iter().position(|b| b.is_ascii_control() && *b != b'\t') {
        Some(at) if window[at] == b'\r' => match bytes.get(at + 1) {
            Some(b'\n') => Ok(Some(&bytes[..at])),
            None => Ok(None),
            Some(_) => Err(BadChunk("a carriage return stands alone in the chunked body")),
        },
        Some(_) => Err(BadChunk("a control byte or a line feed alone stands in the chunked body")),
        None if window.len() == most => Err(BadChunk("a line of the chunked body is too long")),
        None => Ok(None),
    }
}

/// The size that a size line says; extensions are allowed and mean nothing.
fn chunk_size(line: &[u8]) -> Result<u64, BadChunk> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    if !matches!(line.get(digits), None | Some(b';')) {
        return Err(BadChunk("a chunk size is not a hexadecimal number"));
    }
    if digits > SIZE_DIGITS_MAX {
        return Err(BadChunk("a chunk size is too large"));
    }
    std::str::from_utf8(&line[..digits])
        .ok()
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or(BadChunk("a chunk size is missing"))
}

/// Holds trailers that came otherwise than in chunks, as lines, to what holds for those.
pub(super) fn check_trailers(lines: &[u8]) -> Result<(), BadChunk> {
    if lines.len() > TRAILERS_MAX {
        return Err(BadChunk("the trailers are too large"));
    }
    lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()).try_for_each(check_trailer)
}

/// A trailer is `name: value`, and none that frames, routes or speaks for us.
fn check_trailer(line: &[u8]) -> Result<(), BadChunk> {
    let name = line.split(|b| *b == b':').next().filter(|name| name.len() < line.len());
    let name = name.and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
    if name.is_empty() || !name.bytes().all(field::is_token_byte) {
        return Err(BadChunk("a trailer is not `name: value`"));
    }
    match field::classify(name) {
        Field::Other => Ok(()),
        _ => Err(BadChunk("a trailer has a name that only a header may have")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<(usize, bool, Vec<u8>), BadChunk> {
        let mut chunked = Chunked::new();
        let mut body = Vec::new();
        let used = chunked.advance(bytes, |data| body.extend_from_slice(data), |_| {})?;
        Ok((used, chunked.is_done(), body))
    }

    #[test]
    fn well_formed_bodies_are_read_to_their_end_and_no_further() {
        for (bytes, rest, body) in [
            ("0\r\n\r\n", "", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "GET / HTTP/1.1\r\n", "hello"),
            ("5;a=\"b c\"\r\nhello\r\n1\r\n!\r\n000\r\nX-Sum: 1\r\n\r\n", "x", "hello!"),
            ("A\r\n0123456789\r\n0\r\n\r\n", "", "0123456789"),
        ] {
            let whole = format!("{bytes}{rest}");
            let (used, done, data) = read(whole.as_bytes()).unwrap();
            assert_eq!((used, done, data.as_slice()), (bytes.len(), true, body.as_bytes()), "{bytes:?}");
        }
    }

    #[test]
    fn a_body_is_the_same_however_it_is_cut() {
        let bytes = b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n";
        for piece in 1..bytes.len() {
            let (mut chunked, mut body, mut pending) = (Chunked::new(), Vec::new(), Vec::new());
            for part in bytes.chunks(piece) {
                pending.extend_from_slice(part);
                let used = chunked.advance(&pending, |data| body.extend_from_slice(data), |_| {}).unwrap();
                pending.drain(..used);
            }
            assert!(chunked.is_done() && pending.is_empty(), "pieces of {piece}");
            assert_eq!(body, b"hello!");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for bytes in [
            "5\nhello\r\n",
            " 5\r\nhello\r\n",
            "5 \r\nhello\r\n",
            "0x5\r\nhello\r\n",
            "+5\r\nhello\r\n",
            "-1\r\n",
            "\r\n",
            ";a\r\n",
            "5\r\nhelloo\r\n",
            "5\r\nhello\n0\r\n",
            "5\r\nhello\r0",
            "5\r\r\nhello",
            "fffffffffffffffff\r\n",
            "5;a\0\r\nhello",
            "5;a\nb\r\nhello",
            "g\r\n",
            "0\r\n bad: 1\r\n",
            "0\r\nnocolon\r\n",
            "0\r\nContent-Length: 5\r\n",
            "0\r\nx-switchman-version: a\r\n",
            "0\r\n: v\r\n",
            "0\r\nHost: a\r\n",
            "0\r\na b: 1\r\n",
            "1_0\r\n",
        ] {
            assert!(read(bytes.as_bytes()).is_err(), "{bytes:?}");
        }
        assert!(read(&[b'0'; SIZE_LINE_MAX]).is_err(), "an endless size line");
    }

    proptest::proptest! {
        /// Where the bytes are cut on their way changes neither the body nor the verdict.
        #[test]
        fn cuts_change_nothing(
            parts in proptest::collection::vec(part(), 1..20),
            cuts in proptest::collection::vec(1usize..6, 1..40),
        ) {
            let bytes = parts.concat();
            let (mut chunked, mut body, mut pending) = (Chunked::new(), Vec::new(), Vec::new());
            let mut verdict = Ok(());
            let mut rest = bytes.as_bytes();
            for cut in cuts.iter().cycle() {
                let (part, after) = rest.split_at((*cut).min(rest.len()));
                rest = after;
                pending.extend_from_slice(part);
                match chunked.advance(&pending, |data| body.extend_from_slice(data), |_| {}) {
                    Ok(used) => drop(pending.drain(..used)),
                    Err(_) => verdict = Err(()),
                }
                if rest.is_empty() || verdict.is_err() {
                    break;
                }
            }
            match read(bytes.as_bytes()) {
                Ok((_, done, whole)) => {
                    proptest::prop_assert_eq!(verdict, Ok(()));
                    proptest::prop_assert_eq!((done, whole), (chunked.is_done(), body));
                }
                Err(_) => proptest::prop_assert_eq!(verdict, Err(())),
            }
        }
    }

    /// Pieces that chunked bodies, good and bad ones, are made of.
    fn part() -> impl proptest::strategy::Strategy<Value = &'static str> {
        proptest::sample::select(vec![
            "0",
            "1",
            "3",
            "a",
            "\r\n",
            "\r\n\r\n",
            "\r",
            "\n",
            ";x=1",
            "abc",
            "X-A: b",
            "1\r\na\r\n",
            "0\r\n\r\n",
            "3\r\nabc\r\n",
            " ",
            "\0",
        ])
    }
}
