//! One direction of a message on its way: reads a body from one socket, holds it to its framing, writes it to
//! the other. Never more than one buffer of it is held, and what [`Ahead`] allows for a slow receiver.

mod coded;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use crate::proxy::body::ahead::Ahead;
use crate::proxy::body::compress::Compressor;
use crate::proxy::ends::{BodyReceiver, BodySender};
use crate::proxy::h1::body::{Body, Encode, TOO_LARGE, write_chunk};
use crate::proxy::h1::buf::Buf;
use crate::proxy::h1::chunked::{self, BadChunk};
use crate::proxy::streams::parts::{Parts, line};

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
    /// What `out` held once was written and is gone.
    restarted: bool,
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
    /// Of a stream: where a part of it ends.
    parts: Option<Parts>,
    /// The body is to end before its sender ends it, after a whole part.
    ends_early: bool,
    /// Makes the body smaller on its way; gone when it has ended the body.
    compressor: Option<Box<Compressor>>,
    /// The sender failed while the receiver was still taking what came before.
    failed: Option<Box<Stopped>>,
}

impl Pump {
    pub(crate) fn new(body: Body, encode: Encode) -> Self {
        Self {
            body,
            encode,
            sent: 0,
            restarted: false,
            cleared: 0,
            ended: false,
            moved: false,
            room: u64::MAX,
            trailers: Vec::new(),
            parts: None,
            ends_early: false,
            compressor: None,
            failed: None,
        }
    }

    /// Compresses the body on its way; `encode` is then how the compressed bytes leave.
    pub(crate) fn compress(&mut self, compressor: Option<Box<Compressor>>) {
        self.compressor = compressor;
    }

    /// Allows a body of this many bytes, without its framing; more is [`TOO_LARGE`].
    pub(crate) fn at_most(self, room: u64) -> Self {
        Self { room, ..self }
    }

    /// The body consists of `parts`, and can be ended after each of them.
    pub(crate) fn follow(&mut self, parts: Option<Parts>) {
        self.parts = parts;
    }

    /// Ends the body as soon as that can be: after a whole part.
    pub(crate) fn end_early(&mut self) {
        self.ends_early = true;
    }

    /// Whether [`Pump::end_early`] was called: the sender does not know, and goes on.
    pub(crate) fn ends_early(&self) -> bool {
        self.ends_early
    }

    /// The trailers of a body that is ended early.
    pub(crate) fn farewell(&self) -> &'static [u8] {
        self.parts.map_or(b"", |parts| parts.farewell())
    }

    /// Whether the body can be ended here so that the receiver takes it for whole.
    fn can_end(&self) -> bool {
        let is_open = match (&self.body, self.encode) {
            (Body::Chunked(chunked), Encode::AsIs) => chunked.between(),
            (Body::Chunked(chunked), _) => !chunked.has_ended(),
            (Body::UntilClose, _) => true,
            (Body::Length(_), _) => false,
        };
        is_open && self.parts.is_some_and(|parts| parts.between())
    }

    /// How many of `bytes` do not go beyond the next end of a part: where chunks are framed, no more than a line.
    fn to_next_end(&self, bytes: &[u8]) -> usize {
        match (&self.body, &self.parts) {
            (Body::Chunked(chunked), Some(_)) if !chunked.within_chunk() => line(bytes),
            (_, Some(parts)) => parts.within(bytes),
            (_, None) => bytes.len(),
        }
    }

    /// Takes from `bytes` what belongs to the body, if that is not more than is allowed: all of it or, to end
    /// early, no more than the end of a part.
    fn advance(&mut self, mut bytes: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, BadChunk> {
        if self.ends_early {
            bytes = &bytes[..self.to_next_end(bytes)];
        }
        let (parts, trailers) = (&mut self.parts, &mut self.trailers);
        let plain = self.encode == Encode::Plain;
        let mut length = 0;
        let data = |part: &[u8]| {
            length += part.len() as u64;
            if let Some(parts) = parts {
                parts.pass(part);
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
        self.sent == 0 && !self.restarted
    }

    /// Whether `buf` holds nothing but what is left to write of this body.
    pub(crate) fn is_all_of(&self, buf: &Buf) -> bool {
        buf.filled().len() == self.cleared
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
        if self.compressor.is_some() {
            return self.compress_buffered(buf, out);
        }
        let taken = match self.encode {
            Encode::AsIs => {
                let taken = self.advance(buf.filled(), |_| {})?;
                out.extend_from_slice(&buf.filled()[..taken]);
                taken
            }
            Encode::Plain => self.advance(buf.filled(), |data| out.extend_from_slice(data))?,
            Encode::Chunk => self.advance(buf.filled(), |data| write_chunk(data, out))?,
        };
        buf.consume(taken);
        Ok(())
    }

    /// Moves what can be moved: first `out`, then the body from `from` through `buf`. Ready when all of it is
    /// written and the receiver knows that. Never reads ahead of the receiver.
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
        self.poll_ahead(cx, from, buf, to, out, None)
    }

    /// Likewise, and reads ahead of a receiver that is slow as far as `ahead` allows.
    pub(crate) fn poll_ahead<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        buf: &mut Buf,
        to: &mut W,
        out: &mut Vec<u8>,
        mut ahead: Option<&mut Ahead>,
    ) -> Poll<Result<(), Stopped>>
    where
        R: BodySender,
        W: BodyReceiver,
    {
        loop {
            let written = self.poll_rest(cx, buf, to, out);
            let blocked = match written {
                Poll::Ready(Err(_)) => return written,
                Poll::Ready(Ok(())) if self.is_whole() => return written,
                Poll::Ready(Ok(())) => false,
                Poll::Pending => true,
            };
            let may_read = !blocked
                || !self.is_whole()
                    && ahead.as_deref_mut().is_some_and(|ahead| self.may_read_ahead(buf, out, ahead));
            if !may_read {
                return Poll::Pending;
            }
            match self.poll_more(cx, from, buf, out) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(stopped)) if blocked => {
                    self.failed = Some(Box::new(stopped));
                    return Poll::Pending;
                }
                Poll::Ready(Err(stopped)) => return Poll::Ready(Err(stopped)),
                // The sender pauses: what it has sent must not wait in the encoder for what it sends next.
                Poll::Pending if !blocked && self.flush(out).map_err(Stopped::Framing)? => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Writes what was read. Ready when that is written; where it is the whole body, the receiver then knows that.
    pub(crate) fn poll_rest<W: BodyReceiver>(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut Buf,
        to: &mut W,
        out: &mut [u8],
    ) -> Poll<Result<(), Stopped>> {
        while self.sent < out.len() {
            self.sent += ready!(self.poll_write(cx, to, &out[self.sent..]))?;
        }
        while self.cleared > 0 {
            let n = ready!(self.poll_write(cx, to, &buf.filled()[..self.cleared]))?;
            self.cleared -= n;
            buf.consume(n);
        }
        if let Some(stopped) = self.failed.take() {
            return Poll::Ready(Err(*stopped));
        }
        if self.is_whole() {
            return to.poll_finish(cx, &self.trailers).map_err(|_| Stopped::Write);
        }
        Poll::Ready(Ok(()))
    }

    /// Everything that is to be written is in `out` and `buf`.
    fn is_whole(&self) -> bool {
        self.is_read() && self.compressor.is_none()
    }

    /// Whether more may be read though the receiver has not taken what is there; makes room for it.
    fn may_read_ahead(&self, buf: &mut Buf, out: &[u8], ahead: &mut Ahead) -> bool {
        let waiting = out.len() - self.sent + self.cleared;
        self.failed.is_none() && ahead.allows(waiting) && buf.make_room(ahead.most())
    }

    /// Takes more of the body: from `buf` or, when that has none, from `from`.
    fn poll_more<R: BodySender>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        buf: &mut Buf,
        out: &mut Vec<u8>,
    ) -> Poll<Result<(), Stopped>> {
        if self.is_read() {
            return Poll::Ready(self.finish(out).map_err(Stopped::Framing));
        }
        if self.ends_early && self.can_end() {
            // The end stands in `out`, which leaves before `buf`: what was read first must be written first.
            if self.cleared > 0 {
                return Poll::Pending;
            }
            self.trailers.extend_from_slice(self.farewell());
            self.end(out);
            return Poll::Ready(Ok(()));
        }
        if self.take_buffered(buf, out).map_err(Stopped::Framing)? {
            return Poll::Ready(Ok(()));
        }
        self.poll_read(cx, from, buf, out)
    }

    /// Reads once into `buf`; the end of a body that ends so adds what belongs there to `out`.
    pub(crate) fn poll_read<R: BodySender>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        buf: &mut Buf,
        out: &mut Vec<u8>,
    ) -> Poll<Result<(), Stopped>> {
        match ready!(buf.poll_fill(cx, from)) {
            Ok(0) if self.body == Body::UntilClose => {
                from.take_trailers(&mut self.trailers);
                chunked::check_trailers(&self.trailers).map_err(Stopped::Framing)?;
                match &self.compressor {
                    Some(_) => self.ended = true,
                    None => self.end(out),
                }
            }
            Ok(0) => return Poll::Ready(Err(Stopped::Read(None))),
            Ok(_) => self.moved = true,
            Err(error) => return Poll::Ready(Err(Stopped::Read(Some(error)))),
        }
        Poll::Ready(Ok(()))
    }

    /// Takes the body's bytes that `buf` holds and that were not taken before; whether there were any.
    fn take_buffered(&mut self, buf: &mut Buf, out: &mut Vec<u8>) -> Result<bool, BadChunk> {
        let before = buf.filled().len();
        if before == self.cleared {
            return Ok(false);
        }
        if self.encode == Encode::AsIs && self.compressor.is_none() {
            let taken = self.advance(&buf.filled()[self.cleared..], |_| {})?;
            self.cleared += taken;
            return Ok(taken > 0);
        }
        self.drop_sent(out);
        self.preload(buf, out)?;
        Ok(buf.filled().len() < before)
    }

    /// Nothing more is read: what is left is the last chunk, where the receiver needs one.
    fn end(&mut self, out: &mut Vec<u8>) {
        self.ended = true;
        let chunked = matches!(self.body, Body::Chunked(_)) && self.encode == Encode::AsIs;
        if chunked || self.encode == Encode::Chunk {
            self.drop_sent(out);
            out.extend_from_slice(b"0\r\n");
            out.append(&mut self.trailers);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Forgets what of `out` is written, where that costs no more than it gains.
    fn drop_sent(&mut self, out: &mut Vec<u8>) {
        if self.sent > 0 && self.sent >= out.len() / 2 {
            out.drain(..self.sent);
            self.sent = 0;
            self.restarted = true;
        }
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
