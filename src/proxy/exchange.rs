//! One request to a worker and its answer back: steps 4 to 9 of [`super`]. How a worker is found that begins to
//! answer (4 to 7) is in [`super::ask`].

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use h2::Reason;
use tokio::io::AsyncWriteExt;

use crate::config::Coding;
use crate::proxy::ask::{HALF_CLOSED, Lost, Upload, died};
use crate::proxy::body::ahead::Ahead;
use crate::proxy::body::coding;
use crate::proxy::body::compress::{self, Compressor};
use crate::proxy::clock::ticks;
use crate::proxy::downstream::Downstream;
use crate::proxy::ends::Framing;
use crate::proxy::error::{Cause, Refusal};
use crate::proxy::h1::body::{Body, Encode, TOO_LARGE};
use crate::proxy::h1::chunked::BadChunk;
use crate::proxy::h1::pump::{Pump, Stopped};
use crate::proxy::h1::response::{self, ResponseHead};
use crate::proxy::handler::{After, Connection, Planned};
use crate::proxy::headers::{self, Added};
use crate::proxy::route::Request;
use crate::proxy::streams::Stream;
use crate::proxy::streams::parts::Parts;
use crate::proxy::thread::Buffers;
use crate::proxy::upgrade::{self, Content};
use crate::proxy::upstream::{Link, h2c};

/// A stream of events or messages that is to end waits so long for the end of one.
const PART_END: Duration = Duration::from_secs(1);
/// Interim responses (1xx) of one answer; a worker that sends more has lost its way, and would never end.
const INTERIM_MAX: u32 = 100;

/// Why an exchange did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The client has left.
    Gone,
    /// Nothing of an answer was sent: it gets one of ours.
    Refused(Refusal),
    /// The answer broke off in the middle: the connection ends, so that the client notices. The code is what an
    /// HTTP/2 worker has said.
    Cut(Refusal, Option<Reason>),
}

/// What is needed of a response head after it was written.
struct Answer {
    status: u16,
    body: Body,
    encode: Encode,
    keep_upstream: bool,
    connection: headers::Connection,
    event_stream: bool,
    grpc: bool,
    /// What its body consists of, if that is a stream.
    parts: Option<Parts>,
    /// It is compressed on its way.
    coding: Option<Coding>,
}

/// A worker's connection until its response was read.
struct Borrowed {
    link: Option<Link>,
    /// The worker allows another request on it.
    reusable: bool,
    /// What may be taken from it ahead of the client.
    ahead: Ahead,
}

impl<S: Downstream> Connection<S> {
    /// Sends the request in `b.request` to a worker and its answer to the client. Returns the answer's status.
    pub(crate) async fn exchange(
        &mut self,
        planned: &Planned,
        b: &mut Buffers,
    ) -> Result<(u16, After), Failure> {
        let request = &planned.request;
        let mut upload = Upload::new(request, self.thread.settings().body_bytes).map_err(bad_body)?;
        b.up.clear();
        let delivery = &planned.version.delivery;
        // Held until the exchange has ended.
        let mut _gathered = None;
        // The two sides of a gRPC call talk in turns: its end may wait for an answer to its beginning.
        if delivery.buffer_requests > 0 && !request.body.is_done() && request.grpc.is_none() {
            _gathered = Some(Box::pin(self.gather(planned, &mut upload, b)).await?);
        }
        // The body's bytes that are here already leave with the head.
        upload.pump.preload(&mut b.down, &mut b.request).map_err(bad_body)?;
        // 4-7: a worker that begins to answer.
        let mut link = self.ask(planned, &mut upload, b).await?;
        // 8: the head.
        let answer = self.head(planned, &mut link, &mut upload, b).await?;
        if answer.connection == headers::Connection::Upgrade {
            let stream = Stream::begin(&self.thread, link.upstream().clone());
            let protocol = request.upgrade.and_then(|at| planned.version.delivery.upgrade.get(at));
            let content = Content::of(protocol.map_or("", String::as_str));
            self.write_response(b).await?;
            let (thread, alarm, io) = (&self.thread, &self.alarm, &mut self.io);
            let tunnel = upgrade::tunnel(thread, alarm, io, &mut link.stream, b, (&stream, content));
            Box::pin(tunnel).await;
            return Ok((answer.status, After::Close));
        }
        // 9: the body.
        // What has a length ends by itself: a request like any other.
        let is_stream = (answer.event_stream || answer.grpc) && !matches!(answer.body, Body::Length(_));
        let stream = is_stream.then(|| Stream::begin(&self.thread, link.upstream().clone()));
        let mut download = Pump::new(answer.body, answer.encode);
        download.follow(answer.parts);
        if let Some(coding) = answer.coding.filter(|_| !answer.body.is_done()) {
            download.compress(Some(Box::new(Compressor::new(coding, self.thread.compressing.clone()))));
        }
        // Over HTTP/1 nothing was sent yet: a body that is wrong from its first bytes gets an answer of ours.
        let preloaded = download.preload(&mut b.up, &mut b.response);
        preloaded.map_err(|bad| match S::FRAMES {
            true => cut(bad.0),
            false => Failure::Refused(bad_response(bad.0)),
        })?;
        let timeouts = self.thread.timeouts();
        let silence_max = match request.grpc {
            Some(patience) => patience.into(),
            None if is_stream || answer.event_stream => timeouts.tunnel,
            None => timeouts.body,
        };
        let mut from = Borrowed {
            link: Some(link),
            reusable: answer.keep_upstream,
            ahead: Ahead::new(&self.thread.share, delivery.buffer),
        };
        self.relay(&mut from, (&mut download, stream.as_ref()), &mut upload, silence_max, b).await?;
        let after = match answer.connection {
            // It was ended within a part, as the end of the connection says.
            _ if !download.is_read() => After::Close,
            headers::Connection::Close if upload.done && b.down.is_empty() => After::Close,
            headers::Connection::Close => After::Linger,
            _ => After::KeepAlive,
        };
        Ok((answer.status, after))
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
        let mut interim_left = INTERIM_MAX;
        loop {
            b.response.clear();
            let left = upload.half_closed && b.down.is_empty();
            let ends = self.is_last_request() || !upload.done || left;
            let parsed = response::parse(b.up.filled(), &self.thread.settings(), request.is_head, |head| {
                let protocol = request.upgrade.and_then(|at| planned.version.delivery.upgrade.get(at));
                let protocol = protocol.map(String::as_str);
                if head.status == 101 && !switches_to(head, protocol) {
                    return Err(bad_response("the worker switched to a protocol nobody asked for"));
                }
                let body = head.body;
                let compress = planned.version.delivery.compress.as_ref();
                let recoded = compress.and_then(|compress| {
                    let busy = Rc::strong_count(&self.thread.compressing) > compress::AT_A_TIME;
                    coding::recode(compress, &b.request, head, busy)
                });
                let as_written = recoded.as_ref().map(|recoded| recoded.head(head));
                let head = as_written.as_ref().unwrap_or(head);
                let answer = answer(request, head, ends, S::FRAMES);
                let added = Added {
                    version: planned.version.id.as_str(),
                    cookie: planned.cookie.as_deref().filter(|_| head.status >= 200),
                    encode: answer.encode,
                    upgrade: protocol,
                    connection: answer.connection,
                    lines: recoded.as_ref().map_or(&[], |recoded| &recoded.lines),
                };
                self.io.respond(head, added, &mut b.response)?;
                Ok(Answer { body, coding: recoded.and_then(|recoded| recoded.coding), ..answer })
            });
            let parsed = parsed.and_then(|parsed| match parsed {
                Some((length, answer)) => Ok(Some((length, answer?))),
                None => Ok(None),
            });
            match parsed.map_err(Failure::Refused)? {
                Some((length, answer)) if answer.status >= 200 || answer.status == 101 => {
                    b.up.consume(length);
                    return Ok(answer);
                }
                Some(_) if interim_left == 0 => {
                    return Err(Failure::Refused(bad_response("the worker sent too many interim responses")));
                }
                Some((length, _)) => {
                    interim_left -= 1;
                    b.up.consume(length);
                    if request.http11 {
                        self.write_response(b).await?;
                    }
                    if !b.up.is_empty() {
                        continue;
                    }
                }
                None if b.up.is_full() && !b.up.grow(self.thread.settings().head_bytes + 1) => {
                    return Err(Failure::Refused(bad_response("the worker's response head is too large")));
                }
                None => {}
            }
            self.next_bytes(link, upload, b).await.map_err(|lost| match lost {
                Lost::For(failure) => failure,
                Lost::Died(how) => {
                    let detail = format!("the worker's response head broke off: {}", died(how.as_ref()));
                    Failure::Refused(Refusal::new(Cause::UpstreamClosed, detail))
                }
            })?;
        }
    }

    /// Writes `b.response` to the client.
    pub(super) async fn write_response(&mut self, b: &mut Buffers) -> Result<(), Failure> {
        self.alarm.arm(self.thread.timeouts().body);
        match self.alarm.race(self.io.write_all(&b.response)).await {
            Some(Ok(())) => Ok(()),
            _ => Err(Failure::Gone),
        }
    }

    /// Step 9: the response to its end, and the request as far as the worker takes it meanwhile. Both may stand
    /// still for `silence_max` ticks. The worker is free as soon as its response was read. A response that is a
    /// stream ends when that is told to.
    ///
    /// No `async fn`, which would hold its arguments twice: the state of a request is made anew for each, and is to
    /// be small.
    fn relay<'a>(
        &'a mut self,
        from: &'a mut Borrowed,
        (download, stream): (&'a mut Pump, Option<&'a Stream>),
        upload: &'a mut Upload,
        silence_max: u64,
        b: &'a mut Buffers,
    ) -> impl Future<Output = Result<(), Failure>> {
        self.alarm.arm(silence_max);
        poll_fn(move |cx| {
            if let Some(stream) = stream
                && !download.ends_early()
                && stream.poll_end(cx).is_ready()
            {
                download.end_early();
                self.alarm.arm(ticks(PART_END));
            }
            let (up, out) = (&mut b.up, &mut b.response);
            let polled = match &mut from.link {
                Some(link) => {
                    download.poll_ahead(cx, &mut link.stream, up, &mut self.io, out, Some(&mut from.ahead))
                }
                None => download.poll_rest(cx, up, &mut self.io, out),
            };
            // 10: what is kept. A worker that still takes the request goes on doing so.
            if download.is_read()
                && upload.done
                && let Some(link) = from.link.take_if(|_| !matches!(polled, Poll::Ready(Err(_))))
                && from.reusable
                && !download.ends_early()
                && download.is_all_of(up)
            {
                self.thread.pool.borrow_mut().put_back(link, self.thread.clock.now());
            }
            match polled {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(Stopped::Write)) => return Poll::Ready(Err(Failure::Gone)),
                Poll::Ready(Err(Stopped::Framing(bad))) => return Poll::Ready(Err(cut(bad.0))),
                Poll::Ready(Err(Stopped::Read(None))) => return Poll::Ready(Err(cut("it ended too early"))),
                Poll::Ready(Err(Stopped::Read(Some(error)))) => {
                    return Poll::Ready(Err(reset(&error)));
                }
                Poll::Pending => {}
            }
            // A bad request body can no longer be answered; the client's fault it is all the same.
            let client = match &mut from.link {
                Some(link) => self.poll_upload(cx, link, upload, &mut b.down, &mut b.request),
                None if self.io.poll_reset(cx).is_ready() => Err(Failure::Gone),
                None => self.poll_client(cx, upload, &mut b.down),
            };
            if client.is_err() {
                return Poll::Ready(Err(Failure::Gone));
            }
            let moved = download.take_moved() | upload.pump.take_moved();
            if moved && !download.ends_early() {
                self.alarm.arm(if upload.half_closed { ticks(HALF_CLOSED) } else { silence_max });
            }
            match self.alarm.expired() {
                false => Poll::Pending,
                true if upload.half_closed => Poll::Ready(Err(Failure::Gone)),
                // Nobody's fault: the client comes again, as it does after a whole event. That of a gRPC call is
                // told so, as no code of a reset could.
                true if download.ends_early() => {
                    match download.farewell() {
                        b"" => self.io.abort(None),
                        trailers => drop(self.io.poll_finish(cx, trailers)),
                    }
                    Poll::Ready(Ok(()))
                }
                true => Poll::Ready(Err(cut("nothing moved for too long"))),
            }
        })
    }
}

/// Whether the worker switches to the protocol that it was asked for.
fn switches_to(head: &ResponseHead<'_, '_>, protocol: Option<&str>) -> bool {
    head.upgrade.zip(protocol).is_some_and(|(said, asked)| said.eq_ignore_ascii_case(asked.as_bytes()))
}

/// How a worker's answer reaches the client. `ends`: the connection cannot carry another request. `frames`: the
/// client speaks HTTP/2.
fn answer(request: &Request, head: &ResponseHead<'_, '_>, ends: bool, frames: bool) -> Answer {
    let framing = match (frames, request.http11) {
        (true, _) => Framing::Frames,
        (false, true) => Framing::Chunks,
        (false, false) => Framing::Close,
    };
    let encode = framing.encode(&head.body);
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
        event_stream: head.event_stream,
        grpc: head.grpc,
        parts: Parts::of(head, request.grpc.is_some()),
        coding: None,
    }
}

pub(super) fn bad_body(bad: BadChunk) -> Failure {
    if bad == TOO_LARGE {
        return Failure::Refused(Refusal::new(Cause::BodyTooLarge, bad.0));
    }
    Failure::Refused(Refusal::bad(bad.0))
}

fn bad_response(what: &'static str) -> Refusal {
    Refusal::new(Cause::BadResponse, what)
}

fn cut(why: &str) -> Failure {
    Failure::Cut(broke_off(why), None)
}

/// Likewise; the client is told the code, if the worker gave one.
fn reset(error: &io::Error) -> Failure {
    Failure::Cut(broke_off(&error.to_string()), h2c::failure::reset_code(error))
}

fn broke_off(why: &str) -> Refusal {
    Refusal::new(Cause::UpstreamClosed, format!("the worker's response broke off: {why}"))
}
