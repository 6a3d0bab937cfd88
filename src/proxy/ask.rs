//! Finding a worker that begins to answer: steps 4 to 7 of [`super`]. What is safe to do twice is decided here.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::proxy::balance::{Asking, Choice};
use crate::proxy::clock::{self, ticks};
use crate::proxy::downstream::Downstream;
use crate::proxy::ends::Framing;
use crate::proxy::error::{Cause, Refusal};
use crate::proxy::exchange::{Failure, bad_body};
use crate::proxy::h1::body::{Body, TOO_LARGE};
use crate::proxy::h1::buf::Buf;
use crate::proxy::h1::chunked::BadChunk;
use crate::proxy::h1::pump::{Pump, Stopped};
use crate::proxy::handler::{Connection, Planned};
use crate::proxy::route::Request;
use crate::proxy::thread::Buffers;
use crate::proxy::upstream::{self, Link, h2c};
use crate::registry::Upstream;

/// A client that closed its sending side may only have ended its request, or may be gone; for this long it is
/// taken for the former.
pub(super) const HALF_CLOSED: Duration = Duration::from_secs(5);

/// How a worker was lost before its answer began.
pub(super) enum Lost {
    /// Nobody else is asked.
    For(Failure),
    /// The connection died; the error says how, none that it ended.
    Died(Option<io::Error>),
}

/// How a connection died, in words.
pub(super) fn died(how: Option<&io::Error>) -> String {
    how.map_or_else(|| "end of stream".to_owned(), h2c::failure::describe)
}

/// The request's way to the worker.
pub(super) struct Upload {
    pub(super) pump: Pump,
    /// Everything was written.
    pub(super) done: bool,
    /// The worker takes no more of it; its answer may have come all the same.
    refused: bool,
    /// The client has closed its sending side.
    pub(super) half_closed: bool,
    /// How long a gRPC request may wait for its answer, in ticks.
    patience: Option<u32>,
}

impl Upload {
    /// The way of the request's body of at most `most` bytes, 0 for any number.
    ///
    /// # Errors
    /// The body says that it is larger. One that says nothing is found out on its way.
    pub(super) fn new(request: &Request, most: u64) -> Result<Self, BadChunk> {
        let body = request.body;
        let most = if most == 0 { u64::MAX } else { most };
        if matches!(body, Body::Length(length) if length > most) {
            return Err(TOO_LARGE);
        }
        let pump = Pump::new(body, Framing::Chunks.encode(&body)).at_most(most);
        Ok(Self { pump, done: false, refused: false, half_closed: false, patience: request.grpc })
    }

    /// Begins again from the first byte; only if all of it is at hand, or nothing was sent.
    fn rewind(&mut self) {
        self.pump.rewind();
        self.refused = false;
        self.done = false;
    }
}

impl<S: Downstream> Connection<S> {
    /// Steps 4 to 7: asks one worker after the other until one begins to answer; its first bytes are in `b.up`.
    ///
    /// Nothing sent, or nothing done with it as an HTTP/2 worker can say: any request goes to another worker,
    /// until each was asked. Something sent: only what may be done twice goes on, that once only (so that no
    /// request goes round killing workers), on a new connection, and while the version's retry budget lasts (so
    /// that retries do not multiply an outage).
    pub(super) async fn ask(
        &mut self,
        planned: &Planned,
        upload: &mut Upload,
        b: &mut Buffers,
    ) -> Result<Link, Failure> {
        let version = &planned.version;
        // Only what lies in `b.request` whole can be sent again.
        let is_whole = upload.pump.is_read();
        let repeatable = planned.request.idempotent && is_whole;
        let mut asking = Asking::new(repeatable, self.thread.turn());
        let mut sent_again = false;
        loop {
            let (waited_for, place);
            let chosen = match version.delivery.max_in_flight {
                None => {
                    place = None;
                    self.thread.choose(version, &asking, |_| true)
                }
                Some(most) => {
                    (waited_for, place) =
                        Box::pin(self.place(version, most, &asking, upload, b)).await?.unzip();
                    waited_for.as_ref().map_or(Choice::Nobody, Choice::Worker)
                }
            };
            let Choice::Worker(worker) = chosen else { return Err(Failure::Refused(asking.failure())) };
            let only_new = sent_again || asking.met_stale();
            let mut link = match self.link(worker, repeatable, only_new).await {
                Ok(link) => link,
                Err(refusal) => {
                    self.thread.worker_failed(version, worker, &refusal.detail);
                    asking.failed(worker.serial, refusal);
                    continue;
                }
            };
            link.place = place;
            let lost = match self.next_bytes(&mut link, upload, b).await {
                Ok(()) => {
                    self.thread.worker_answered(version, worker);
                    return Ok(link);
                }
                Err(lost) => lost,
            };
            let unprocessed =
                is_whole && matches!(&lost, Lost::Died(Some(error)) if h2c::failure::is_unprocessed(error));
            let idle_died =
                link.reused && matches!(lost, Lost::Died(_)) || unprocessed && !asking.met_stale();
            let failure = match lost {
                Lost::Died(how) => Refusal::new(
                    Cause::UpstreamClosed,
                    format!(
                        "worker {} closed the connection before it answered: {}",
                        worker.worker,
                        died(how.as_ref())
                    ),
                ),
                Lost::For(Failure::Refused(silence)) if silence.cause == Cause::UpstreamTimeout => silence,
                Lost::For(failure) => return Err(failure),
            };
            // Its place is free from here on.
            drop(link);
            if !idle_died {
                self.thread.worker_failed(version, worker, &failure.detail);
            }
            if !upload.pump.is_unsent() && !unprocessed {
                let again =
                    repeatable && !sent_again && self.thread.remembered.borrow_mut().take_retry(version);
                if !again {
                    return Err(Failure::Refused(failure));
                }
                sent_again = true;
            }
            match idle_died {
                true => asking.stale(worker.serial, failure),
                false => asking.failed(worker.serial, failure),
            }
            upload.rewind();
        }
    }

    /// Step 5: an idle connection to `worker`, or a new one.
    async fn link(&self, worker: &Arc<Upstream>, repeatable: bool, only_new: bool) -> Result<Link, Refusal> {
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
        // Boxed, as is all that is rare: the state of every request has the size of its largest future.
        let connecting = Box::pin(upstream::connect(&thread.pool, worker.clone(), thread.slot));
        self.alarm.arm(thread.timeouts().connect);
        let why = match self.alarm.race(connecting).await {
            Some(Ok(link)) => return Ok(link),
            Some(Err(error)) => error.to_string(),
            None => format!("no answer within {:?}", thread.settings().connect_timeout),
        };
        let detail = format!("cannot connect to worker {} at {}: {why}", worker.worker, worker.address);
        Err(Refusal::new(Cause::ConnectFailed, detail))
    }

    /// Steps 6 and 7: sends what is left of the request and waits for more bytes from the worker.
    pub(super) fn next_bytes<'a>(
        &'a mut self,
        link: &'a mut Link,
        upload: &'a mut Upload,
        b: &'a mut Buffers,
    ) -> impl Future<Output = Result<(), Lost>> {
        let first_byte = upload.patience.map_or(self.thread.timeouts().first_byte, u64::from);
        self.alarm.arm(first_byte);
        poll_fn(move |cx| {
            if let Err(failure) = self.poll_upload(cx, link, upload, &mut b.down, &mut b.request) {
                return Poll::Ready(Err(Lost::For(failure)));
            }
            match b.up.poll_fill(cx, &mut link.stream) {
                Poll::Ready(Ok(1..)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Lost::Died(None))),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Lost::Died(Some(error)))),
                Poll::Pending => {}
            }
            if upload.pump.take_moved() && !upload.half_closed {
                self.alarm.arm(first_byte);
            }
            if !self.alarm.expired() {
                return Poll::Pending;
            }
            if upload.half_closed {
                return Poll::Ready(Err(Lost::For(Failure::Gone)));
            }
            let waited = upload.patience.map_or(self.thread.settings().first_byte_timeout, clock::duration);
            let detail = format!("the worker sent nothing for {waited:?}");
            Poll::Ready(Err(Lost::For(Failure::Refused(Refusal::new(Cause::UpstreamTimeout, detail)))))
        })
    }

    /// Moves the request on; once it is sent, sees whether the client leaves.
    pub(super) fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        link: &mut Link,
        upload: &mut Upload,
        down: &mut Buf,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        if self.io.poll_reset(cx).is_ready() {
            return Err(Failure::Gone);
        }
        if !upload.done && !upload.refused {
            match upload.pump.poll(cx, &mut self.io, down, &mut link.stream, out) {
                Poll::Ready(Ok(())) => upload.done = true,
                Poll::Ready(Err(Stopped::Write)) => upload.refused = true,
                Poll::Ready(Err(Stopped::Read(_))) => return Err(Failure::Gone),
                Poll::Ready(Err(Stopped::Framing(bad))) => return Err(bad_body(bad)),
                Poll::Pending => return Ok(()),
            }
        }
        if upload.done { self.poll_client(cx, upload, down) } else { Ok(()) }
    }

    /// Reads ahead to see whether the client leaves. The next request may come already; a full buffer of it
    /// waits in the kernel.
    pub(super) fn poll_client(
        &mut self,
        cx: &mut Context<'_>,
        upload: &mut Upload,
        down: &mut Buf,
    ) -> Result<(), Failure> {
        while !S::FRAMES && !upload.half_closed && !down.is_full() {
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
}
