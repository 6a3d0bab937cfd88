//! The client's side of a request: what really differs between HTTP/1 and HTTP/2, and nothing else.
//!
//! HTTP/1.1 text is the inner form of every head: an HTTP/2 request is written as such text and read by the one
//! strict parser, so checks, routing and rewriting exist once. Bodies are bytes through `AsyncRead` and
//! `AsyncWrite` (an HTTP/2 stream is both, for its DATA frames), their two ends are those of [`super::ends`].
//! What is left is here: how a head goes out, how an answer of ours does, and how a client leaves.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proxy::ends::{BodyReceiver, BodySender};
use crate::proxy::error::{Answer, Manner, Refusal};
use crate::proxy::h1::body::Body;
use crate::proxy::h1::response::ResponseHead;
use crate::proxy::headers::{self, Added};

/// One client's side: a whole connection (HTTP/1) or one stream of one (HTTP/2).
pub(crate) trait Downstream: BodySender + BodyReceiver {
    /// It carries one request, in frames: bodies need no chunks, and nothing follows the request.
    const FRAMES: bool;

    /// The body of a request that says no length.
    fn body_without_length(&self) -> Body;

    /// Sends the worker's response head with what is `added`, or writes it to `out`, which is sent next.
    ///
    /// # Errors
    /// The head cannot be an answer to what this client has asked for.
    fn respond(
        &mut self,
        head: &ResponseHead<'_, '_>,
        added: Added<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal>;

    /// Likewise for an answer of ours; its body, if it has one, is written to `out`.
    fn answer(&mut self, answer: &Answer, manner: Manner, out: &mut Vec<u8>);

    /// Ready when the client has given this request up, though its connection may go on.
    fn poll_reset(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    /// Makes sure that the client takes what it got for broken; for HTTP/1 the end of the connection does. `code`
    /// is what an HTTP/2 worker has said.
    fn abort(&mut self, _code: Option<Reason>) {}
}

/// HTTP/1 over any stream of bytes.
#[derive(Debug)]
pub(crate) struct Http1<S>(pub(crate) S);

impl<S: AsyncRead + AsyncWrite + Unpin> Downstream for Http1<S> {
    const FRAMES: bool = false;

    fn body_without_length(&self) -> Body {
        Body::Length(0)
    }

    fn respond(
        &mut self,
        head: &ResponseHead<'_, '_>,
        added: Added<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        headers::write_response(head, added, out);
        Ok(())
    }

    fn answer(&mut self, answer: &Answer, manner: Manner, out: &mut Vec<u8>) {
        answer.write(manner, out);
    }
}

impl<S: AsyncRead + Unpin> BodySender for Http1<S> {}

impl<S: AsyncWrite + Unpin> BodyReceiver for Http1<S> {
    /// What TLS holds back has to leave before the connection waits or ends.
    fn poll_finish(&mut self, cx: &mut Context<'_>, _trailers: &[u8]) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Http1<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Http1<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}
