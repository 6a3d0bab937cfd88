//! One direction of a message on its way: reads a body from one socket, holds it to its framing, writes it to
//! the other. Never more than one buffer of it is held.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use crate::proxy::ends::{BodyReceiver, BodySender};
use crate::proxy::h1::buf::Buf;
use crate::proxy::h1::chunked::{self, BadChunk, Chunked};
use crate::proxy::streams::events::Events;

/// The body has more bytes than are allowed.
pub(crate) const TOO_LARGE: BadChunk = BadChunk("the body is larger than allowed");

/// What is left of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// This many bytes.
    Length(u64),
    /// Chunks up to the last one.
    Chunked(Chunked),
    /// Everything until the sender closes its side.
    UntilClose,
}

impl Body {
    /// Whether nothing more belongs to it.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.is_done(),
            Self::UntilClose => false,
        }
    }

    /// Takes from `bytes` what belongs to the body; returns how many bytes that was.
    pub(crate) fn advance(
        &mut self,
        bytes: &[u8],
        mut data: impl FnMut(&[u8]),
        trailer: impl FnMut(&[u8]),
    ) -> Result<usize, BadChunk> {
        match self {
            Self::Chunked(chunked) => chunked.advance(bytes, data, trailer),
            Self::Length(left) => {
                let n = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= n as u64;
                data(&bytes[..n]);
                Ok(n)
            }
            Self::UntilClose => {
                data(bytes);
                Ok(bytes.len())
            }
        }
    }
}

/// How the body leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encode {
    /// As it came; chunks were checked and are passed on byte by byte.
    AsIs,
    /// As chunks: it came without a length.
    Chunk,
    /// Without its chunks: the receiver knows the end otherwise.
    Plain,
}

/// Why a pump stopped before the end.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// The sender's side: it failed, or ended in the middle of the body.
    Read(Option<io::Error>),
    /// The receiver's side failed.
    Write,
    /// The sender's framing.
    Framing(BadChunk),
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Pump {
    body: Body,
    encode: Encode,
    /// How much of `out` is written.
    sent: usize,
    /// How much of `buf` may be written as it is.
    cleared: usize,
    /// The sender has closed its side where that ends the body.
    ended: bool,
    /// Whether bytes moved since this was last taken.
    moved: bool,
    /// How many more bytes of the body are allowed, without its framing.
    room: u64,
    /// The trailers, where the bytes that leave do not hold them: lines of HTTP/1.1 text.
    trailers: Vec<u8>,
    /// Of server-sent events: where one ends.
    events: Option<Events>,
    /// The body is to end before its sender ends it, after a whole event.
    ends_early: bool,
}

impl Pump {
    pub(crate) fn new(body: Body, encode: Encode) -> Self {
        Self {
            body,
            encode,
            sent: 0,
            cleared: 0,
            ended: false,
            moved: false,
            room: u64::MAX,
            trailers: Vec::new(),
            events: None,
            ends_early: false,
        }
    }

    /// Allows a body of this many bytes, without its framing; more is [`TOO_LARGE`].
    pub(crate) fn at_most(self, room: u64) -> Self {
        Self { room, ..self }
    }

    /// The body consists of server-sent events, and can be ended after each of them.
    pub(crate) fn follow_events(&mut self) {
        self.events = Some(Events::new());
    }

    /// Ends the body as soon as that can be: after a whole event.
    pub(crate) fn end_early(&mut self) {
        self.ends_early = true;
    }

    /// Whether [`Pump::end_early`] was called: the sender does not know, and goes on.
    pub(crate) fn ends_early(&self) -> bool {
        self.ends_early
    }

    /// Whether the body can be ended here so that the receiver takes it for whole.
    fn can_end(&self) -> bool {
        let between_chunks = match &self.body {
            Body::Chunked(chunked) => chunked.between(),
            Body::UntilClose => true,
            Body::Length(_) => false,
        };
        between_chunks && self.events.is_some_and(|events| events.between())
    }

    /// Takes from `buf` what belongs to the body, if that is not more than is allowed: all that is there or, to
    /// end early, one line of it.
    fn advance(&mut self, buf: &Buf, mut data: impl FnMut(&[u8])) -> Result<usize, BadChunk> {
        let mut bytes = buf.filled();
        if self.ends_early
            && let Some(at) = bytes.iter().position(|b| *b == b'\n')
        {
            bytes = &bytes[..=at];
        }
        let (events, trailers) = (&mut self.events, &mut self.trailers);
        let plain = self.encode == Encode::Plain;
        let mut length = 0;
        let data = |part: &[u8]| {
            length += part.len() as u64;
            if let Some(events) = events {
                events.pass(part);
            }
            data(part);
        };
        let keep = |line: &[u8]| {
            if plain {
                trailers.extend([line, b"\r\n"].into_iter().flatten());
            }
        };
        let taken = self.body.advance(bytes, data, keep)?;
        self.room = self.room.checked_sub(length).ok_or(TOO_LARGE)?;
        Ok(taken)
    }

    /// The body was read and taken to its end (not yet all written, perhaps).
    pub(crate) fn is_read(&self) -> bool {
        self.ended || self.body.is_done()
    }

    /// Not one byte was written.
    pub(crate) fn is_unsent(&self) -> bool {
        self.sent == 0
    }

    /// Starts again from the first byte of `out`; only for a body that lies in `out` whole.
    pub(crate) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// Whether bytes moved since the last call.
    pub(crate) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Adds what `buf` already holds of the body to `out`, to leave in one write with the head before it.
    pub(crate) fn preload(&mut self, buf: &mut Buf, out: &mut Vec<u8>) -> Result<(), BadChunk> {
        if buf.is_empty() || self.is_read() {
            return Ok(());
        }
        let taken = match self.encode {
            Encode::AsIs => {
                let taken = self.advance(buf, |_| {})?;
                out.extend_from_slice(&buf.filled()[..taken]);
                taken
            }
            Encode::Plain => self.advance(buf, |data| out.extend_from_slice(data))?,
            Encode::Chunk => self.advance(buf, |data| write_chunk(data, out))?,
        };
        buf.consume(taken);
        Ok(())
    }

    /// Moves what can be moved: first `out`, then the body from `from` through `buf`. Ready when all of it is
    /// written and the receiver knows that.
    pub(crate) fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        buf: &mut Buf,
        to: &mut W,
        out: &mut Vec<u8>,
    ) -> Poll<Result<(), Stopped>>
    where
        R: BodySender,
        W: BodyReceiver,
    {
        loop {
            while self.sent < out.len() {
                self.sent += ready!(self.poll_write(cx, to, &out[self.sent..]))?;
            }
            while self.cleared > 0 {
                let n = ready!(self.poll_write(cx, to, &buf.filled()[..self.cleared]))?;
                self.cleared -= n;
                buf.consume(n);
            }
            if self.is_read() {
                return to.poll_finish(cx, &self.trailers).map_err(|_| Stopped::Write);
            }
            if self.ends_early && self.can_end() {
                self.end(out);
                continue;
            }
            if self.take_buffered(buf, out).map_err(Stopped::Framing)? {
                continue;
            }
            match ready!(buf.poll_fill(cx, from)) {
                Ok(0) if self.body == Body::UntilClose => {
                    from.take_trailers(&mut self.trailers);
                    chunked::check_trailers(&self.trailers).map_err(Stopped::Framing)?;
                    self.end(out);
                }
                Ok(0) => return Poll::Ready(Err(Stopped::Read(None))),
                Ok(_) => self.moved = true,
                Err(error) => return Poll::Ready(Err(Stopped::Read(Some(error)))),
            }
        }
    }

    /// Takes the body's bytes that `buf` holds; whether there were any.
    fn take_buffered(&mut self, buf: &mut Buf, out: &mut Vec<u8>) -> Result<bool, BadChunk> {
        if buf.is_empty() {
            return Ok(false);
        }
        if self.encode == Encode::AsIs {
            self.cleared = self.advance(buf, |_| {})?;
            return Ok(self.cleared > 0);
        }
        self.restart(out);
        let before = buf.filled().len();
        self.preload(buf, out)?;
        Ok(buf.filled().len() < before)
    }

    /// Nothing more is read: what is left is the last chunk, where the receiver needs one.
    fn end(&mut self, out: &mut Vec<u8>) {
        self.ended = true;
        let chunked = matches!(self.body, Body::Chunked(_)) && self.encode == Encode::AsIs;
        if chunked || self.encode == Encode::Chunk {
            self.restart(out);
            out.extend_from_slice(b"0\r\n");
            out.append(&mut self.trailers);
            out.extend_from_slice(b"\r\n");
        }
    }

    fn restart(&mut self, out: &mut Vec<u8>) {
        out.clear();
        self.sent = 0;
    }

    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
        bytes: &[u8],
    ) -> Poll<Result<usize, Stopped>> {
        match ready!(Pin::new(to).poll_write(cx, bytes)) {
            Ok(n @ 1..) => {
                self.moved = true;
                Poll::Ready(Ok(n))
            }
            Ok(0) | Err(_) => Poll::Ready(Err(Stopped::Write)),
        }
    }
}

/// Writes `data` as one chunk.
fn write_chunk(data: &[u8], out: &mut Vec<u8>) {
    write_size(data.len(), out);
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Writes the size line of a chunk.
pub(crate) fn write_size(size: usize, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4);
    for digit in (0..digits).rev() {
        out.push(HEX[(size >> (digit * 4)) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_has_its_size_in_hex() {
        for (length, size) in [(1, "1"), (15, "f"), (16, "10"), (4096, "1000"), (32768, "8000")] {
            let mut out = Vec::new();
            write_chunk(&vec![b'x'; length], &mut out);
            assert!(out.starts_with(format!("{size}\r\nx").as_bytes()), "{length}");
            assert_eq!(out.len(), size.len() + 2 + length + 2);
        }
    }
}
