//! One stream: the client's side of one request. Its DATA frames are bytes that are read and written; the window
//! that they took is given back as the bytes are taken, so a slow worker slows its client and nobody else.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proxy::client::Client;
use crate::proxy::clock::Alarm;
use crate::proxy::downstream::Downstream;
use crate::proxy::ends::{BodyReceiver, BodySender};
use crate::proxy::error::{Answer, Manner, Refusal};
use crate::proxy::h1::body::{Body, Encode};
use crate::proxy::h1::buf::Buf;
use crate::proxy::h1::response::ResponseHead;
use crate::proxy::h2::{Running, head};
use crate::proxy::handler::{Connection, Life};
use crate::proxy::headers::Added;
use crate::proxy::thread::Thread;

/// The client's side of one request.
#[derive(Debug)]
pub(super) struct Stream {
    respond: SendResponse<Bytes>,
    /// Where the body goes, once the head has left.
    send: Option<SendStream<Bytes>>,
    receive: RecvStream,
    /// The head was not the end of the request.
    has_body: bool,
    /// What was received and not yet read.
    chunk: Bytes,
    trailers: Option<HeaderMap>,
    /// Bytes of the response's body that are still to come, where that is known.
    left: Option<u64>,
    /// END_STREAM was sent.
    ended: bool,
    /// The client has taken the request back.
    reset: bool,
    is_head: bool,
    /// The handshake of a WebSocket: the `Sec-WebSocket-Accept` that the worker must answer with.
    accept: Option<String>,
}

/// Counts one request of a connection for as long as it lives.
struct Guard {
    thread: Rc<Thread>,
    running: Rc<Running>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.running.open.set(self.running.open.get() - 1);
        self.running.since.set(self.thread.clock.now());
    }
}

/// Serves one request; it was counted in `running` already.
pub(super) async fn serve(
    thread: Rc<Thread>,
    alarm: Alarm<Thread>,
    client: Rc<Client>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    running: Rc<Running>,
) {
    let _guard = Guard { thread: thread.clone(), running: running.clone() };
    alarm.attach().await;
    let mut buffers = thread.take_buffers();
    let (head, receive) = request.into_parts();
    buffers.response.clear();
    let accept = head::write_request(&head, &mut buffers.response);
    buffers.down.put(&buffers.response);
    let io = Stream {
        respond,
        send: None,
        has_body: !receive.is_end_stream(),
        receive,
        chunk: Bytes::new(),
        trailers: None,
        left: None,
        ended: false,
        reset: false,
        is_head: head.method == Method::HEAD,
        accept,
    };
    drop(head);
    let life = Life::new(&thread);
    let mut connection = Connection { thread, io, alarm, client, life };
    // A request that is taken back already costs nobody anything.
    let is_wanted = poll_fn(|cx| {
        let is_wanted = connection.io.poll_reset(cx).is_pending();
        if is_wanted {
            connection.io.preload(cx, &mut buffers.down);
        }
        Poll::Ready(is_wanted)
    });
    if is_wanted.await {
        connection.request(&mut buffers).await;
    }
    if connection.io.reset {
        running.resets.set(running.resets.get().saturating_add(1));
    }
    connection.thread.give_back(buffers);
}

impl Stream {
    /// Takes what has come of the body already, so that it leaves for the worker with the head, in one write.
    fn preload(&mut self, cx: &mut Context<'_>, down: &mut Buf) {
        if self.accept.is_none() && self.has_body && !down.is_full() {
            // An error comes again when the rest is read.
            let _ = down.poll_fill(cx, self);
        }
    }

    /// Sends a final head; after a failure the body's first write fails.
    fn send_head(&mut self, response: Response<()>, body_done: bool) {
        self.ended = body_done;
        self.send = self.respond.send_response(response, body_done).ok();
    }
}

impl Downstream for Stream {
    const FRAMES: bool = true;

    fn body_without_length(&self) -> Body {
        // What a WebSocket sends before its handshake is answered is no body.
        if self.accept.is_some() || !self.has_body { Body::Length(0) } else { Body::UntilClose }
    }

    fn respond(
        &mut self,
        head: &ResponseHead<'_, '_>,
        added: Added<'_>,
        _out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        if let Some(accept) = &self.accept {
            head::check_websocket(head, accept)?;
        }
        let response = head::response(head, added)?;
        match (head.status, head.body) {
            (101, _) => self.send_head(response, false),
            // A client that is gone is noticed soon enough.
            (100..=199, _) => drop(self.respond.send_informational(response)),
            (_, body) => {
                if let (Body::Length(length), Encode::AsIs) = (body, added.encode) {
                    self.left = Some(length);
                }
                self.send_head(response, body.is_done());
            }
        }
        Ok(())
    }

    fn answer(&mut self, answer: &Answer, manner: Manner, out: &mut Vec<u8>) {
        let bodiless = manner.head_only || self.is_head || answer.body.is_empty();
        match head::answer(answer) {
            Ok(response) => self.send_head(response, bodiless),
            Err(_) => self.abort(None),
        }
        if !bodiless {
            out.extend_from_slice(answer.body.as_bytes());
        }
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let reset = match &mut self.send {
            Some(send) => send.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        reset.map(|_| self.reset = true)
    }

    fn abort(&mut self, code: Option<Reason>) {
        self.ended = true;
        let code = code.unwrap_or(Reason::INTERNAL_ERROR);
        match &mut self.send {
            Some(send) => send.send_reset(code),
            None => self.respond.send_reset(code),
        }
    }
}

impl BodySender for Stream {
    fn take_trailers(&mut self, lines: &mut Vec<u8>) {
        if let Some(trailers) = self.trailers.take() {
            head::write_trailers(&trailers, lines);
        }
    }
}

impl BodyReceiver for Stream {
    fn poll_finish(&mut self, _cx: &mut Context<'_>, trailers: &[u8]) -> Poll<io::Result<()>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        let Some(send) = &mut self.send else { return Poll::Ready(Err(gone())) };
        self.ended = true;
        let trailers = head::trailers(trailers);
        let sent = match trailers.is_empty() {
            true => send.send_data(Bytes::new(), true),
            false => send.send_trailers(trailers),
        };
        Poll::Ready(sent.map_err(failed))
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.chunk.is_empty() {
            match ready!(this.receive.poll_data(cx)) {
                Some(Ok(chunk)) => this.chunk = chunk,
                Some(Err(error)) => {
                    this.reset |= error.is_reset() && error.is_remote();
                    return Poll::Ready(Err(failed(error)));
                }
                None => {
                    if let Some(trailers) = ready!(this.receive.poll_trailers(cx)).map_err(failed)? {
                        this.trailers = Some(trailers);
                    }
                    return Poll::Ready(Ok(()));
                }
            }
        }
        let n = this.chunk.len().min(buf.remaining());
        buf.put_slice(&this.chunk[..n]);
        this.chunk.advance(n);
        this.receive.flow_control().release_capacity(n).map_err(failed)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(send) = this.send.as_mut().filter(|_| !this.ended) else { return Poll::Ready(Err(gone())) };
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        send.reserve_capacity(bytes.len());
        let room = match send.capacity() {
            0 => match ready!(send.poll_capacity(cx)) {
                Some(room) => room.map_err(failed)?,
                None => return Poll::Ready(Err(gone())),
            },
            room => room,
        };
        let n = bytes.len().min(room);
        // With the last byte that was announced, the end: it needs no frame of its own.
        this.left = this.left.map(|left| left.saturating_sub(n as u64));
        this.ended = this.left == Some(0);
        send.send_data(Bytes::copy_from_slice(&bytes[..n]), this.ended).map_err(failed)?;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's task writes what there is.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_finish(cx, &[])
    }
}

fn gone() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

fn failed(error: h2::Error) -> io::Error {
    if error.is_io() { error.into_io().unwrap_or_else(gone) } else { io::Error::other(error) }
}
