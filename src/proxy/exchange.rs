//! One request to a worker and its answer back: steps 4 to 9 of [`super`].

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::proxy::clock::ticks;
use crate::proxy::error::{Cause, Refusal};
use crate::proxy::h1::buf::Buf;
use crate::proxy::h1::chunked::BadChunk;
use crate::proxy::h1::pump::{Body, Encode, Pump, Stopped};
use crate::proxy::h1::response::{self, ResponseHead};
use crate::proxy::handler::{After, Connection, Planned};
use crate::proxy::headers::{self, Added};
use crate::proxy::route::Request;
use crate::proxy::thread::Buffers;
use crate::proxy::upstream::{self, Link};
use crate::proxy::{balance, upgrade};
use crate::registry::Upstream;

/// A client that closed its sending side may only have ended its request, or may be gone; for this long it is
/// taken for the former.
const HALF_CLOSED: Duration = Duration::from_secs(5);

/// Why an exchange did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The client has left.
    Gone,
    /// Nothing of an answer was sent: it gets one of ours.
    Refused(Refusal),
    /// The answer broke off in the middle: the connection ends, so that the client notices.
    Cut(Refusal),
}

/// How a worker was lost before its answer began.
enum Lost {
    /// Nobody else is asked.
    For(Failure),
    /// The connection died; the detail says how.
    Died(String),
}

/// The request's way to the worker.
struct Upload {
    pump: Pump,
    /// Everything was written.
    done: bool,
    /// The worker takes no more of it; its answer may have come all the same.
    refused: bool,
    /// The client has closed its sending side.
    half_closed: bool,
}

/// What is needed of a response head after it was written.
struct Answer {
    status: u16,
    body: Body,
    encode: Encode,
    keep_upstream: bool,
    connection: headers::Connection,
    websocket: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Sends the request in `b.request` to a worker and its answer to the client. Returns the answer's status.
    pub(crate) async fn exchange(
        &mut self,
        planned: &Planned,
        b: &mut Buffers,
    ) -> Result<(u16, After), Failure> {
        let request = &planned.request;
        let mut upload = Upload {
            pump: Pump::new(request.body, Encode::AsIs),
            done: false,
            refused: false,
            half_closed: false,
        };
        b.up.clear();
        // The body's bytes that are here already leave with the head.
        upload.pump.preload(&mut b.down, &mut b.request).map_err(bad_body)?;
        // 4-7: a worker that begins to answer.
        let mut link = self.ask(planned, &mut upload, b).await?;
        // 8: the head.
        let answer = self.head(planned, &mut link, &mut upload, b).await?;
        if answer.connection == headers::Connection::Upgrade {
            self.write_response(b).await?;
            upgrade::tunnel(&self.thread, &self.alarm, &mut self.io, &mut link.stream, b).await;
            return Ok((answer.status, After::Close));
        }
        // 9: the body.
        let mut download = Pump::new(answer.body, answer.encode);
        download.preload(&mut b.up, &mut b.response).map_err(|bad| cut(bad.0))?;
        self.relay(&mut link, &mut download, &mut upload, b).await?;
        // 10: what is kept.
        if answer.keep_upstream && upload.done && b.up.is_empty() {
            self.thread.pool.borrow_mut().put_back(link, self.thread.clock.now());
        }
        let after = match answer.connection {
            headers::Connection::Close if upload.done && b.down.is_empty() => After::Close,
            headers::Connection::Close => After::Linger,
            _ => After::KeepAlive,
        };
        Ok((answer.status, after))
    }

    /// Steps 4 to 7: asks one worker after the other until one begins to answer; its first bytes are in `b.up`.
    async fn ask(
        &mut self,
        planned: &Planned,
        upload: &mut Upload,
        b: &mut Buffers,
    ) -> Result<Link, Failure> {
        let repeatable = planned.request.idempotent && upload.pump.is_read();
        let mut left_out: Vec<u64> = Vec::new();
        let (mut only_new, mut asked_again) = (false, false);
        let mut failure = Refusal::new(Cause::NotReady, "the version has no ready worker");
        let turn = self.thread.turn();
        loop {
            let Some(worker) = balance::pick(&planned.version.ready, &left_out, turn) else {
                return Err(Failure::Refused(failure));
            };
            let mut link = match self.link(worker, repeatable, only_new).await {
                Ok(link) => link,
                Err(refusal) => {
                    left_out.push(worker.serial);
                    failure = refusal;
                    continue;
                }
            };
            let how = match self.next_bytes(&mut link, upload, b).await {
                Ok(()) => return Ok(link),
                Err(Lost::For(failure)) => return Err(failure),
                Err(Lost::Died(how)) => how,
            };
            failure = Refusal::new(
                Cause::UpstreamClosed,
                format!("worker {} closed the connection before it answered: {how}", worker.worker),
            );
            // Nothing sent: any request may go elsewhere. Something sent: only what may be done twice, and
            // that once only, so that no request goes round killing workers.
            if !(upload.pump.is_unsent() || repeatable && !asked_again) {
                return Err(Failure::Refused(failure));
            }
            if link.reused {
                only_new = true;
            } else {
                asked_again |= !upload.pump.is_unsent();
                left_out.push(worker.serial);
            }
            upload.pump.rewind();
            upload.refused = false;
            upload.done = false;
        }
    }

    /// Step 5: an idle connection to `worker`, or a new one.
    async fn link(
        &self,
        worker: &std::sync::Arc<Upstream>,
        repeatable: bool,
        only_new: bool,
    ) -> Result<Link, Refusal> {
        let thread = &self.thread;
        if !only_new {
            let taken = poll_fn(|cx| {
                let now = thread.clock.now();
                Poll::Ready(thread.pool.borrow_mut().take(cx, worker, thread.slot, now, repeatable))
            });
            if let Some(link) = taken.await {
                return Ok(link);
            }
        }
        self.alarm.arm(thread.timeouts.connect);
        let why = match self.alarm.race(upstream::connect(worker.clone(), thread.slot)).await {
            Some(Ok(link)) => return Ok(link),
            Some(Err(error)) => error.to_string(),
            None => format!("no answer within {:?}", thread.settings.connect_timeout),
        };
        let detail = format!("cannot connect to worker {} at {}: {why}", worker.worker, worker.address);
        Err(Refusal::new(Cause::ConnectFailed, detail))
    }

    /// Steps 6 and 7: sends what is left of the request and waits for more bytes from the worker.
    async fn next_bytes(
        &mut self,
        link: &mut Link,
        upload: &mut Upload,
        b: &mut Buffers,
    ) -> Result<(), Lost> {
        self.alarm.arm(self.thread.timeouts.first_byte);
        poll_fn(|cx| {
            if let Err(failure) = self.poll_upload(cx, link, upload, &mut b.down, &mut b.request) {
                return Poll::Ready(Err(Lost::For(failure)));
            }
            match b.up.poll_fill(cx, &mut link.stream) {
                Poll::Ready(Ok(1..)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Lost::Died("end of stream".to_owned()))),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Lost::Died(error.to_string()))),
                Poll::Pending => {}
            }
            if upload.pump.take_moved() && !upload.half_closed {
                self.alarm.arm(self.thread.timeouts.first_byte);
            }
            if !self.alarm.expired() {
                return Poll::Pending;
            }
            if upload.half_closed {
                return Poll::Ready(Err(Lost::For(Failure::Gone)));
            }
            let detail = format!("the worker sent nothing for {:?}", self.thread.settings.first_byte_timeout);
            Poll::Ready(Err(Lost::For(Failure::Refused(Refusal::new(Cause::UpstreamTimeout, detail)))))
        })
        .await
    }

    /// Moves the request on; once it is sent, sees whether the client leaves.
    fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        link: &mut Link,
        upload: &mut Upload,
        down: &mut Buf,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        if !upload.done && !upload.refused {
            match upload.pump.poll(cx, &mut self.io, down, &mut link.stream, out) {
                Poll::Ready(Ok(())) => upload.done = true,
                Poll::Ready(Err(Stopped::Write)) => upload.refused = true,
                Poll::Ready(Err(Stopped::Read(_))) => return Err(Failure::Gone),
                Poll::Ready(Err(Stopped::Framing(bad))) => return Err(bad_body(bad)),
                Poll::Pending => return Ok(()),
            }
        }
        // The next request may come already; a full buffer of it waits in the kernel.
        while upload.done && !upload.half_closed && !down.is_full() {
            match down.poll_fill(cx, &mut self.io) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) => {
                    upload.half_closed = true;
                    self.alarm.arm(ticks(HALF_CLOSED));
                }
                Poll::Ready(Err(_)) => return Err(Failure::Gone),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Step 8: reads the response head and writes ours to `b.response`. Interim responses are passed on.
    async fn head(
        &mut self,
        planned: &Planned,
        link: &mut Link,
        upload: &mut Upload,
        b: &mut Buffers,
    ) -> Result<Answer, Failure> {
        let request = &planned.request;
        loop {
            b.response.clear();
            let ends = self.thread.draining.get() || !upload.done || upload.half_closed;
            let limits = &self.thread.settings;
            let parsed = response::parse(b.up.filled(), limits, request.is_head, |head| {
                let answer = answer(request, head, ends);
                let added = Added {
                    version: planned.version.id.as_str(),
                    cookie: planned.cookie.as_deref().filter(|_| head.status >= 200),
                    encode: answer.encode,
                    connection: answer.connection,
                };
                headers::write_response(head, added, &mut b.response);
                answer
            });
            match parsed.map_err(Failure::Refused)? {
                Some((_, Answer { status: 101, websocket, .. })) if !(request.upgrade && websocket) => {
                    return Err(Failure::Refused(bad_response(
                        "the worker switched to a protocol nobody asked for",
                    )));
                }
                Some((length, answer)) if answer.status >= 200 || answer.status == 101 => {
                    b.up.consume(length);
                    return Ok(answer);
                }
                Some((length, _)) => {
                    b.up.consume(length);
                    if request.http11 {
                        self.write_response(b).await?;
                    }
                    if !b.up.is_empty() {
                        continue;
                    }
                }
                None if b.up.is_full() && !b.up.grow(limits.head_bytes + 1) => {
                    return Err(Failure::Refused(bad_response("the worker's response head is too large")));
                }
                None => {}
            }
            self.next_bytes(link, upload, b).await.map_err(|lost| match lost {
                Lost::For(failure) => failure,
                Lost::Died(how) => {
                    let detail = format!("the worker's response head broke off: {how}");
                    Failure::Refused(Refusal::new(Cause::UpstreamClosed, detail))
                }
            })?;
        }
    }

    /// Writes `b.response` to the client.
    async fn write_response(&mut self, b: &mut Buffers) -> Result<(), Failure> {
        self.alarm.arm(self.thread.timeouts.body);
        match self.alarm.race(self.io.write_all(&b.response)).await {
            Some(Ok(())) => Ok(()),
            _ => Err(Failure::Gone),
        }
    }

    /// Step 9: the response to its end, and the request as far as the worker takes it meanwhile.
    async fn relay(
        &mut self,
        link: &mut Link,
        download: &mut Pump,
        upload: &mut Upload,
        b: &mut Buffers,
    ) -> Result<(), Failure> {
        let body_ticks = self.thread.timeouts.body;
        self.alarm.arm(body_ticks);
        poll_fn(|cx| {
            match download.poll(cx, &mut link.stream, &mut b.up, &mut self.io, &mut b.response) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(Stopped::Write)) => return Poll::Ready(Err(Failure::Gone)),
                Poll::Ready(Err(Stopped::Framing(bad))) => return Poll::Ready(Err(cut(bad.0))),
                Poll::Ready(Err(Stopped::Read(None))) => return Poll::Ready(Err(cut("it ended too early"))),
                Poll::Ready(Err(Stopped::Read(Some(error)))) => {
                    return Poll::Ready(Err(cut(&error.to_string())));
                }
                Poll::Pending => {}
            }
            // A bad request body can no longer be answered; the client's fault it is all the same.
            if self.poll_upload(cx, link, upload, &mut b.down, &mut b.request).is_err() {
                return Poll::Ready(Err(Failure::Gone));
            }
            if download.take_moved() | upload.pump.take_moved() {
                self.alarm.arm(if upload.half_closed { ticks(HALF_CLOSED) } else { body_ticks });
            }
            match self.alarm.expired() {
                false => Poll::Pending,
                true if upload.half_closed => Poll::Ready(Err(Failure::Gone)),
                true => Poll::Ready(Err(cut("nothing moved for too long"))),
            }
        })
        .await
    }
}

/// How a worker's answer reaches the client. `ends`: the connection cannot carry another request.
fn answer(request: &Request, head: &ResponseHead<'_, '_>, ends: bool) -> Answer {
    let encode = match head.body {
        Body::Chunked(_) if !request.http11 => Encode::Plain,
        Body::UntilClose if request.http11 => Encode::Chunk,
        _ => Encode::AsIs,
    };
    // An HTTP/1.0 client knows the end of a body without length only by the connection's.
    let needs_close = !request.http11 && !matches!(head.body, Body::Length(_));
    let connection = match head.status {
        101 => headers::Connection::Upgrade,
        100..=199 => headers::Connection::Silent,
        _ if !request.keep_alive || ends || needs_close => headers::Connection::Close,
        _ if request.http11 => headers::Connection::Silent,
        _ => headers::Connection::KeepAlive,
    };
    Answer {
        status: head.status,
        body: head.body,
        encode,
        keep_upstream: head.keep_alive,
        connection,
        websocket: head.websocket,
    }
}

fn bad_body(bad: BadChunk) -> Failure {
    Failure::Refused(Refusal::bad(bad.0))
}

fn bad_response(what: &'static str) -> Refusal {
    Refusal::new(Cause::BadResponse, what)
}

fn cut(why: &str) -> Failure {
    Failure::Cut(Refusal::new(Cause::UpstreamClosed, format!("the worker's response broke off: {why}")))
}
