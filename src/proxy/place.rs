//! How a request of a version with `max_in_flight` gets a worker: at once, or in the version's line
//! ([`super::queue`]).

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::proxy::ask::Upload;
use crate::proxy::balance::{Asking, Choice};
use crate::proxy::clock::ticks;
use crate::proxy::downstream::Downstream;
use crate::proxy::error::{Cause, Refusal};
use crate::proxy::exchange::Failure;
use crate::proxy::h1::buf::Buf;
use crate::proxy::handler::Connection;
use crate::proxy::queue::Place;
use crate::proxy::thread::Buffers;
use crate::registry::{Upstream, Version};

/// Who waits is woken when there is room; that an ejected worker may be tried again, nobody says.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl<S: Downstream> Connection<S> {
    /// A worker of `version` with fewer than `most` requests, and the place there. None if no worker is left.
    ///
    /// # Errors
    /// The line is full, the wait was too long, or the client has left.
    pub(super) async fn place(
        &mut self,
        version: &Arc<Version>,
        most: u32,
        asking: &Asking,
        upload: &mut Upload,
        b: &mut Buffers,
    ) -> Result<Option<(Arc<Upstream>, Box<Place>)>, Failure> {
        let thread = self.thread.clone();
        let gate = thread.remembered.borrow_mut().gate(version);
        let queue = &version.delivery.queue;
        let given_up = thread.clock.now().saturating_add(ticks(queue.timeout));
        let (mut version, mut ticket) = (version.clone(), None);
        poll_fn(|cx| {
            loop {
                if ticket.is_some() {
                    // Time has passed: its workers may be others by now.
                    let Some(now) = thread.version_now(&version) else { return Poll::Ready(Ok(None)) };
                    version = now;
                }
                let choose = |has_room: &dyn Fn(&Upstream) -> bool| thread.choose(&version, asking, has_room);
                match gate.take(cx, ticket.as_ref(), most, choose) {
                    (Choice::Worker(worker), Some(place)) => {
                        return Poll::Ready(Ok(Some((worker.clone(), Box::new(place)))));
                    }
                    // Workers that are being replaced, all at once, are worth the wait.
                    (Choice::Nobody, _) if ticket.is_none() || !version.ready.is_empty() => {
                        return Poll::Ready(Ok(None));
                    }
                    _ => {}
                }
                if ticket.is_none() {
                    let Some(joined) = gate.join(queue.size) else {
                        return Poll::Ready(Err(full(queue.size)));
                    };
                    ticket = Some(joined);
                    self.alarm.arm(ticks(LOOK_AGAIN).min(ticks(queue.timeout)));
                    continue;
                }
                if let Err(failure) = self.poll_left(cx, upload, &mut b.down) {
                    return Poll::Ready(Err(failure));
                }
                if !self.alarm.expired() {
                    return Poll::Pending;
                }
                if upload.half_closed {
                    return Poll::Ready(Err(Failure::Gone));
                }
                if thread.clock.now() >= given_up {
                    return Poll::Ready(Err(too_long(queue.timeout)));
                }
                self.alarm.arm(ticks(LOOK_AGAIN).min(given_up - thread.clock.now()));
            }
        })
        .await
    }

    /// Whether the client of a request that waits has left.
    fn poll_left(
        &mut self,
        cx: &mut Context<'_>,
        upload: &mut Upload,
        down: &mut Buf,
    ) -> Result<(), Failure> {
        if self.io.poll_reset(cx).is_ready() {
            return Err(Failure::Gone);
        }
        self.poll_client(cx, upload, down)?;
        // The rest of the body will never come.
        if upload.half_closed && !upload.pump.is_read() { Err(Failure::Gone) } else { Ok(()) }
    }
}

fn full(size: u32) -> Failure {
    let detail = format!("every worker has all the requests that it takes, and {size} wait already");
    Failure::Refused(Refusal::new(Cause::QueueFull, detail))
}

fn too_long(timeout: Duration) -> Failure {
    let detail = format!("waited {timeout:?} for a worker that has room for another request");
    Failure::Refused(Refusal::new(Cause::QueueTimeout, detail))
}
