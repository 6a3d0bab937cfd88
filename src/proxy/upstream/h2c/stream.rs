//! One request on a shared connection: takes its HTTP/1.1 text and gives the answer's.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proxy::h1::body::{Body, write_size};
use crate::proxy::h1::chunked::BadChunk;
use crate::proxy::upstream::h2c::connection::Place;
use crate::proxy::upstream::h2c::failure;
use crate::proxy::upstream::h2c::head::{self, Framing};

/// One request. Dropped before both sides have ended, it tells the worker so (RST_STREAM, CANCEL).
#[derive(Debug)]
pub(crate) struct Stream {
    sending: Sending,
    receiving: Receiving,
    /// Text that was not read yet: heads, sizes of chunks, trailers.
    text: Vec<u8>,
    /// How much of `text` was read.
    read: usize,
    /// Bytes of a DATA frame that were not read yet; they come after `text`.
    data: Bytes,
    to_head: bool,
    /// What the next read says.
    failed: Option<io::Error>,
    _place: Place,
}

/// The request's way.
#[derive(Debug)]
enum Sending {
    Head(SendRequest<Bytes>),
    Body(SendStream<Bytes>, Body),
}

/// The answer's way.
#[derive(Debug)]
enum Receiving {
    /// The request was not sent.
    Nothing,
    Head(ResponseFuture),
    Body(RecvStream, Framing),
    Ended,
}

impl Stream {
    pub(super) fn new(sender: SendRequest<Bytes>, place: Place) -> Self {
        Self {
            sending: Sending::Head(sender),
            receiving: Receiving::Nothing,
            text: Vec::new(),
            read: 0,
            data: Bytes::new(),
            to_head: false,
            failed: None,
            _place: place,
        }
    }

    /// Sends the head at the start of `text`; returns its length.
    fn send_head(&mut self, text: &[u8]) -> io::Result<usize> {
        let Sending::Head(sender) = &mut self.sending else { return Ok(0) };
        let head = head::read_request(text)?;
        self.to_head = head.request.method() == Method::HEAD;
        let (response, stream) =
            sender.send_request(head.request, head.body.is_done()).map_err(failure::wrap)?;
        self.receiving = Receiving::Head(response);
        self.sending = Sending::Body(stream, head.body);
        Ok(head.length)
    }

    /// Gets more text or data. Ready with false at the end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        self.text.clear();
        self.read = 0;
        match &mut self.receiving {
            Receiving::Nothing => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            Receiving::Head(response) => {
                if let Poll::Ready(Some(interim)) = response.poll_informational(cx) {
                    let (interim, ()) = interim.map_err(failure::wrap)?.into_parts();
                    head::write_response(interim.status, &interim.headers, false, true, &mut self.text);
                    return Poll::Ready(Ok(true));
                }
                let (head, body) = ready!(Pin::new(response).poll(cx)).map_err(failure::wrap)?.into_parts();
                let ended = body.is_end_stream();
                let framing =
                    head::write_response(head.status, &head.headers, self.to_head, ended, &mut self.text);
                self.receiving = Receiving::Body(body, framing);
            }
            Receiving::Body(body, framing) => {
                let framing = *framing;
                match ready!(body.poll_data(cx)) {
                    // An empty chunk would be the last one.
                    Some(Ok(data)) if data.is_empty() => {}
                    Some(Ok(data)) => {
                        if framing == Framing::Chunks {
                            write_size(data.len(), &mut self.text);
                        }
                        self.data = data;
                    }
                    Some(Err(error)) => return Poll::Ready(Err(failure::wrap(error))),
                    None => {
                        let trailers = ready!(body.poll_trailers(cx)).map_err(failure::wrap)?;
                        if framing == Framing::Chunks {
                            self.text.extend_from_slice(b"0\r\n");
                            head::write_trailers(&trailers.unwrap_or_default(), &mut self.text);
                        }
                        self.receiving = Receiving::Ended;
                    }
                }
            }
            Receiving::Ended => return Poll::Ready(Ok(false)),
        }
        Poll::Ready(Ok(true))
    }

    /// Moves what is there to `buf`. The worker may send as much again.
    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let n = buf.remaining().min(self.text.len() - self.read);
        buf.put_slice(&self.text[self.read..self.read + n]);
        self.read += n;
        let n = buf.remaining().min(self.data.len());
        if n == 0 {
            return;
        }
        buf.put_slice(&self.data[..n]);
        self.data.advance(n);
        if let Receiving::Body(body, framing) = &mut self.receiving {
            // Fails for more than was received only, which this is not.
            let _ = body.flow_control().release_capacity(n);
            if self.data.is_empty() && *framing == Framing::Chunks {
                self.text.clear();
                self.text.extend_from_slice(b"\r\n");
                self.read = 0;
            }
        }
    }

    fn has_more(&self) -> bool {
        self.read < self.text.len() || !self.data.is_empty()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        let before = buf.filled().len();
        while buf.remaining() > 0 {
            if stream.has_more() {
                stream.give(buf);
                continue;
            }
            match stream.poll_more(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => break,
                Poll::Ready(Err(error)) if buf.filled().len() > before => {
                    stream.failed = Some(error);
                    break;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if buf.filled().len() > before => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        let Sending::Body(send, body) = &mut stream.sending else {
            let sent = stream.send_head(bytes);
            return Poll::Ready(sent.map_err(|error| {
                let text = io::Error::new(error.kind(), error.to_string());
                stream.failed = Some(error);
                text
            }));
        };
        let mut length = 0;
        let bad = |bad: BadChunk| io::Error::new(io::ErrorKind::InvalidInput, bad.0);
        Body::clone(body).advance(bytes, |data| length += data.len(), |_| {}).map_err(bad)?;
        // The end of a body must not wait for room that the worker gives only when it has seen the end.
        if length > 0 {
            send.reserve_capacity(length);
            while send.capacity() == 0 {
                match ready!(send.poll_capacity(cx)) {
                    Some(capacity) => capacity.map_err(failure::wrap)?,
                    None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                };
            }
        }
        // More than there is room for waits in the connection: never more than one buffer of it.
        let (mut data, mut trailers) = (Vec::with_capacity(length), HeaderMap::new());
        let taken = body
            .advance(
                bytes,
                |part| data.extend_from_slice(part),
                |line| head::read_trailer(line, &mut trailers),
            )
            .map_err(bad)?;
        let ended = body.is_done();
        let ends_with_data = ended && trailers.is_empty();
        if !data.is_empty() || ends_with_data {
            send.send_data(data.into(), ends_with_data).map_err(failure::wrap)?;
        }
        if ended && !ends_with_data {
            send.send_trailers(trailers).map_err(failure::wrap)?;
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The end of a body says itself where it is.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
