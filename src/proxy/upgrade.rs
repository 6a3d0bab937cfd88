//! An upgraded connection: bytes in both directions until both sides have ended.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::proxy::clock::Alarm;
use crate::proxy::ends::{BodyReceiver, BodySender};
use crate::proxy::h1::buf::Buf;
use crate::proxy::h1::pump::{Body, Encode, Pump};
use crate::proxy::thread::{Buffers, Thread};

/// One direction of a tunnel: what arrives is passed on, and so is its end.
struct Direction {
    pump: Pump,
    closed: bool,
}

impl Direction {
    fn new() -> Self {
        Self { pump: Pump::new(Body::UntilClose, Encode::AsIs), closed: false }
    }

    /// Ready when the receiver was told the end (true), or one side failed (false).
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        buf: &mut Buf,
        to: &mut W,
        out: &mut Vec<u8>,
    ) -> Poll<bool>
    where
        R: BodySender,
        W: BodyReceiver,
    {
        if self.closed {
            return Poll::Ready(true);
        }
        match self.pump.poll(cx, from, buf, to, out) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(_)) => Poll::Ready(false),
            Poll::Ready(Ok(())) => Pin::new(to).poll_shutdown(cx).map(|ended| {
                self.closed = true;
                ended.is_ok()
            }),
        }
    }
}

/// Carries bytes between `client` and `worker`, those already in `buffers` first, until both have ended, one
/// fails, or both are silent for too long.
pub(crate) async fn tunnel<C, W>(
    thread: &Thread,
    alarm: &Alarm<Thread>,
    client: &mut C,
    worker: &mut W,
    buffers: &mut Buffers,
) where
    C: BodySender + BodyReceiver,
    W: BodySender + BodyReceiver,
{
    let Buffers { down, up, request, response, .. } = buffers;
    request.clear();
    response.clear();
    let (mut to_worker, mut to_client) = (Direction::new(), Direction::new());
    alarm.arm(thread.timeouts.tunnel);
    poll_fn(|cx| {
        let sent = to_worker.poll(cx, client, down, worker, request);
        let received = to_client.poll(cx, worker, up, client, response);
        match (sent, received) {
            (Poll::Ready(false), _) | (_, Poll::Ready(false)) => return Poll::Ready(()),
            (Poll::Ready(true), Poll::Ready(true)) => return Poll::Ready(()),
            _ => {}
        }
        if to_worker.pump.take_moved() | to_client.pump.take_moved() {
            alarm.arm(thread.timeouts.tunnel);
        }
        if alarm.expired() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
