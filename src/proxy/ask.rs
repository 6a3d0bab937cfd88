//! Finding a worker that begins to answer: steps 4 to 7 of [`super`]. What is safe to do twice is decided here.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::proxy::balance;
use crate::proxy::clock::ticks;
use crate::proxy::downstream::Downstream;
use crate::proxy::ends::Framing;
use crate::proxy::error::{Cause, Refusal};
use crate::proxy::exchange::{Failure, bad_body};
use crate::proxy::h1::buf::Buf;
use crate::proxy::h1::pump::{Body, Pump, Stopped};
use crate::proxy::handler::{Connection, Planned};
use crate::proxy::thread::Buffers;
use crate::proxy::upstream::{self, Link};
use crate::registry::Upstream;

/// A client that closed its sending side may only have ended its request, or may be gone; for this long it is
/// taken for the former.
pub(super) const HALF_CLOSED: Duration = Duration::from_secs(5);

/// How a worker was lost before its answer began.
pub(super) enum Lost {
    /// Nobody else is asked.
    For(Failure),
    /// The connection died; the detail says how.
    Died(String),
}

/// The request's way to the worker.
pub(crate) struct Upload {
    pub(super) pump: Pump,
    /// Everything was written.
    pub(super) done: bool,
    /// The worker takes no more of it; its answer may have come all the same.
    refused: bool,
    /// The client has closed its sending side.
    pub(super) half_closed: bool,
}

impl Upload {
    pub(super) fn new(body: Body) -> Self {
        let pump = Pump::new(body, Framing::Chunks.encode(&body));
        Self { pump, done: false, refused: false, half_closed: false }
    }
}

impl<S: Downstream> Connection<S> {
    /// Steps 4 to 7: asks one worker after the other until one begins to answer; its first bytes are in `b.up`.
    pub(super) async fn ask(
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
        // Boxed, as is all that is rare: an idle connection of a client has the size of its largest future.
        let connecting = Box::pin(upstream::connect(worker.clone(), thread.slot));
        self.alarm.arm(thread.timeouts.connect);
        let why = match self.alarm.race(connecting).await {
            Some(Ok(link)) => return Ok(link),
            Some(Err(error)) => error.to_string(),
            None => format!("no answer within {:?}", thread.settings.connect_timeout),
        };
        let detail = format!("cannot connect to worker {} at {}: {why}", worker.worker, worker.address);
        Err(Refusal::new(Cause::ConnectFailed, detail))
    }

    /// Steps 6 and 7: sends what is left of the request and waits for more bytes from the worker.
    pub(super) async fn next_bytes(
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
    pub(super) fn poll_upload(
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
                Poll::Pending => {}
            }
        }
        self.poll_client(cx, upload, down)
    }

    /// Sees whether the client leaves, once its request is sent.
    pub(super) fn poll_client(
        &mut self,
        cx: &mut Context<'_>,
        upload: &mut Upload,
        down: &mut Buf,
    ) -> Result<(), Failure> {
        if self.io.poll_reset(cx).is_ready() {
            return Err(Failure::Gone);
        }
        // The next request may come already; a full buffer of it waits in the kernel.
        while !S::FRAMES && upload.done && !upload.half_closed && !down.is_full() {
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
