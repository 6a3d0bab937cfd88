//! One reusable buffer between a socket that is read and what parses or forwards its bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// What a buffer holds once bodies have filled it: a block of 64 KiB, which most programs write them in, and a head
/// before it. One that is a little smaller costs a read and a write more for a few bytes.
pub(crate) const BUF_BYTES: usize = 72 * 1024;
/// What a new buffer holds: heads and small bodies, which is all that most connections have.
const SMALL_BYTES: usize = 4 * 1024;

/// Bytes that were read and not yet used.
#[derive(Debug)]
pub(crate) struct Buf {
    data: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buf {
    pub(crate) fn new() -> Self {
        Self { data: vec![0; SMALL_BYTES], start: 0, end: 0 }
    }

    /// The bytes that were read and not yet consumed.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether not one more byte can be read before some are consumed.
    pub(crate) fn is_full(&self) -> bool {
        self.end - self.start == self.data.len()
    }

    /// Drops the first `n` bytes.
    pub(crate) fn consume(&mut self, n: usize) {
        self.start += n;
        if self.start >= self.end {
            self.clear();
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Makes room for a head of up to `most` bytes; false if there is that much already.
    pub(crate) fn grow(&mut self, most: usize) -> bool {
        let wanted = (self.data.len() * 2).min(most);
        let grows = wanted > self.data.len();
        if grows {
            self.data.resize(wanted, 0);
        }
        grows
    }

    /// Adds bytes that came otherwise than by [`Buf::poll_fill`].
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let end = self.end + bytes.len();
        if end > self.data.len() {
            self.data.resize(end, 0);
        }
        self.data[self.end..end].copy_from_slice(bytes);
        self.end = end;
    }

    /// Whether a large head made it grow; such a buffer is not kept for reuse.
    pub(crate) fn is_oversized(&self) -> bool {
        self.data.len() > BUF_BYTES
    }

    /// Makes room behind bytes that must stay, up to `most` bytes in all. They are moved only where that is cheaper
    /// than what it gains; false where it is not.
    pub(crate) fn make_room(&mut self, most: usize) -> bool {
        self.end < self.data.len() || self.start >= self.data.len() / 2 || self.grow(most)
    }

    /// Reads once. `Ok(0)` is the end of the stream; the buffer must not be full.
    pub(crate) fn poll_fill<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
    ) -> Poll<io::Result<usize>> {
        debug_assert!(!self.is_full());
        let room_is_short = self.end > self.data.len() / 2 && self.end - self.start <= self.start;
        if self.start > 0 && (room_is_short || self.end == self.data.len()) {
            self.data.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let mut room = ReadBuf::new(&mut self.data[self.end..]);
        ready!(Pin::new(from).poll_read(cx, &mut room))?;
        let n = room.filled().len();
        self.end += n;
        // More is likely to wait: the next read is a large one.
        if self.end == self.data.len() && self.end < BUF_BYTES {
            self.data.resize(BUF_BYTES, 0);
        }
        Poll::Ready(Ok(n))
    }
}
