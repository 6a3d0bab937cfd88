//! A request's body that is read before a worker is asked, so that a slow upload holds none.

use std::future::poll_fn;
use std::task::Poll;

use crate::proxy::ask::Upload;
use crate::proxy::body::ahead::Ahead;
use crate::proxy::downstream::Downstream;
use crate::proxy::error::{Cause, Refusal};
use crate::proxy::exchange::{Failure, bad_body};
use crate::proxy::h1::body::Encode;
use crate::proxy::h1::lines;
use crate::proxy::h1::pump::Stopped;
use crate::proxy::h1::response;
use crate::proxy::handler::{Connection, Planned};
use crate::proxy::headers::{self, Added};
use crate::proxy::thread::Buffers;

/// What a client waits for that would rather ask before it sends.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl<S: Downstream> Connection<S> {
    /// Adds the body to the head in `b.request`, up to what its service says. What was held is free again when the
    /// answer is dropped.
    pub(in crate::proxy) async fn gather(
        &mut self,
        planned: &Planned,
        upload: &mut Upload,
        b: &mut Buffers,
    ) -> Result<Box<Ahead>, Failure> {
        let mut ahead = Ahead::new(&self.thread.share, planned.version.delivery.buffer_requests);
        if lines::values(&b.request, "expect").next().is_some() {
            // The worker is asked with the body at hand: it has nothing to decide any more.
            lines::remove(&mut b.request, "expect");
            if b.down.is_empty() {
                self.say_continue(planned, b).await?;
            }
        }
        self.alarm.arm(self.thread.timeouts().body);
        let head = b.request.len();
        poll_fn(|cx| {
            loop {
                if self.io.poll_reset(cx).is_ready() {
                    return Poll::Ready(Err(Failure::Gone));
                }
                upload.pump.preload(&mut b.down, &mut b.request).map_err(bad_body)?;
                if upload.pump.is_read() || !ahead.allows(b.request.len() - head) {
                    return Poll::Ready(Ok(()));
                }
                match upload.pump.poll_read(cx, &mut self.io, &mut b.down, &mut b.request) {
                    Poll::Ready(Ok(())) => self.alarm.arm(self.thread.timeouts().body),
                    Poll::Ready(Err(Stopped::Framing(bad))) => return Poll::Ready(Err(bad_body(bad))),
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Failure::Gone)),
                    Poll::Pending if self.alarm.expired() => {
                        let detail = "the request body stood still for too long";
                        let refusal = Refusal::new(Cause::RequestTimeout, detail);
                        return Poll::Ready(Err(Failure::Refused(refusal)));
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await?;
        Ok(Box::new(ahead))
    }

    /// Answers `Expect: 100-continue` in the worker's place.
    async fn say_continue(&mut self, planned: &Planned, b: &mut Buffers) -> Result<(), Failure> {
        b.response.clear();
        let added = Added {
            upgrade: None,
            version: planned.version.id.as_str(),
            cookie: None,
            encode: Encode::AsIs,
            connection: headers::Connection::Silent,
            lines: &[],
        };
        let limits = self.thread.settings();
        response::parse(CONTINUE, &limits, false, |head| self.io.respond(head, added, &mut b.response))
            .and_then(|parsed| parsed.map_or(Ok(()), |(_, responded)| responded))
            .map_err(Failure::Refused)?;
        self.write_response(b).await
    }
}
