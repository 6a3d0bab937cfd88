//! The two ends of a body's way: what it is read from, and what it is written to.
//!
//! A body itself is bytes. What a byte stream cannot say is how a body ends where that is more than the last
//! byte: in HTTP/2, END_STREAM or trailers. Trailers travel as lines of HTTP/1.1 text, `name: value` CRLF each,
//! whoever sends them and whoever gets them.

use std::io;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::proxy::h1::body::{Body, Encode};

/// What a body is read from.
pub(crate) trait BodySender: AsyncRead + Unpin {
    /// Adds the trailers that came behind the body to `lines`; asked once, when its bytes have ended.
    fn take_trailers(&mut self, _lines: &mut Vec<u8>) {}
}

/// What a body is written to.
pub(crate) trait BodyReceiver: AsyncWrite + Unpin {
    /// Tells the receiver that the body is whole, and its trailers where the bytes did not hold them.
    fn poll_finish(&mut self, _cx: &mut Context<'_>, _trailers: &[u8]) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// How a receiver knows where a body without a length ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// By the last chunk: HTTP/1.1.
    Chunks,
    /// By the end of the connection: HTTP/1.0.
    Close,
    /// By [`BodyReceiver::poll_finish`]: HTTP/2.
    Frames,
}

impl Framing {
    /// How `body` has to leave, as it comes.
    pub(crate) fn encode(self, body: &Body) -> Encode {
        match (body, self) {
            (Body::Chunked(_), Self::Close | Self::Frames) => Encode::Plain,
            (Body::UntilClose, Self::Chunks) => Encode::Chunk,
            _ => Encode::AsIs,
        }
    }
}
