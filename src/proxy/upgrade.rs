//! An upgraded connection: bytes in both directions until both sides have ended, or its worker is to stop.
//!
//! A WebSocket whose worker is to stop is closed as its protocol wants it: each side gets a Close frame where
//! one may stand, and some time to answer it. Of other protocols nothing is known: each side is told the end.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::proxy::clock::{Alarm, ticks};
use crate::proxy::ends::{BodyReceiver, BodySender};
use crate::proxy::h1::buf::Buf;
use crate::proxy::streams::Stream;
use crate::proxy::streams::frames::{self, Frames};
use crate::proxy::thread::{Buffers, Thread};

/// How long a side may take until a Close frame can be sent to it, and then again to answer it.
const CLOSING_MAX: Duration = Duration::from_secs(2);

/// What passes through a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// WebSocket frames.
    WebSocket,
    /// Nobody knows.
    Unknown,
}

impl Content {
    /// What the protocol of this name is made of.
    pub(crate) fn of(protocol: &str) -> Self {
        if protocol.eq_ignore_ascii_case("websocket") { Self::WebSocket } else { Self::Unknown }
    }
}

/// Where one direction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// What arrives is passed on.
    Passing,
    /// So much of our Close frame is written.
    Closing(usize),
    /// A Close frame was sent, after which nothing may follow: what arrives is dropped, up to the sender's own.
    Told,
    /// The sender has ended, and so the receiver is told the end.
    Ended,
    /// Nothing is left to do.
    Done,
}

/// One direction of a tunnel: what arrives is passed on, and so is its end.
struct Direction {
    state: State,
    /// Of a WebSocket: where in a frame what was passed on ends.
    frames: Option<Frames>,
    moved: bool,
}

impl Direction {
    fn new(content: Content) -> Self {
        let frames = (content == Content::WebSocket).then(Frames::new);
        Self { state: State::Passing, frames, moved: false }
    }

    /// Ready when nothing is left to do (true), or one side failed (false). `close`: it is to end now, and this
    /// is the Close frame for the receiver.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        buf: &mut Buf,
        to: &mut W,
        close: Option<&[u8]>,
    ) -> Poll<bool>
    where
        R: BodySender,
        W: BodyReceiver,
    {
        loop {
            self.state = match self.state {
                State::Passing => {
                    let most = self.may_pass(buf.filled(), close.is_some());
                    if most > 0 {
                        let Some(n) = ready!(write(cx, to, &buf.filled()[..most])) else {
                            return Poll::Ready(false);
                        };
                        if let Some(frames) = &mut self.frames {
                            frames.pass(&buf.filled()[..n]);
                        }
                        buf.consume(n);
                        self.moved = true;
                        continue;
                    }
                    match (close, &self.frames) {
                        (Some(_), None) => State::Ended,
                        (Some(_), Some(frames)) if frames.closed() => State::Told,
                        (Some(_), Some(frames)) if frames.at_boundary() => State::Closing(0),
                        _ => match ready!(buf.poll_fill(cx, from)) {
                            Ok(1..) => State::Passing,
                            Ok(0) => State::Ended,
                            Err(_) => return Poll::Ready(false),
                        },
                    }
                }
                State::Closing(sent) => match close.and_then(|close| close.get(sent..)) {
                    None | Some([]) => State::Told,
                    Some(left) => match ready!(write(cx, to, left)) {
                        Some(n) => State::Closing(sent + n),
                        None => return Poll::Ready(false),
                    },
                },
                State::Told => {
                    let Some(frames) = &mut self.frames else { return Poll::Ready(true) };
                    frames.pass(buf.filled());
                    buf.clear();
                    if frames.closed() {
                        State::Done
                    } else {
                        match ready!(buf.poll_fill(cx, from)) {
                            Ok(1..) => State::Told,
                            Ok(0) | Err(_) => State::Done,
                        }
                    }
                }
                State::Ended => match ready!(Pin::new(&mut *to).poll_shutdown(cx)) {
                    Ok(()) => State::Done,
                    Err(_) => return Poll::Ready(false),
                },
                State::Done => return Poll::Ready(true),
            };
        }
    }

    /// How many of the `bytes` that are here are passed on next.
    fn may_pass(&self, bytes: &[u8], ends: bool) -> usize {
        match &self.frames {
            Some(frames) if ends => frames.before_boundary(bytes),
            _ => bytes.len(),
        }
    }

    /// Whether nothing is passed on any more.
    fn is_closed(&self) -> bool {
        !matches!(self.state, State::Passing | State::Closing(_))
    }

    fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }
}

/// How many bytes were written; none if the receiver failed.
fn write<W: BodyReceiver>(cx: &mut Context<'_>, to: &mut W, bytes: &[u8]) -> Poll<Option<usize>> {
    Pin::new(to).poll_write(cx, bytes).map(|written| written.ok().filter(|n| *n > 0))
}

/// Carries bytes between `client` and `worker`, those already in `buffers` first, until both have ended, one
/// fails, both are silent for too long, or `stream` is to end.
pub(crate) async fn tunnel<C, W>(
    thread: &Thread,
    alarm: &Alarm<Thread>,
    client: &mut C,
    worker: &mut W,
    buffers: &mut Buffers,
    (stream, content): (&Stream, Content),
) where
    C: BodySender + BodyReceiver,
    W: BodySender + BodyReceiver,
{
    let Buffers { down, up, request, response, .. } = buffers;
    request.clear();
    response.clear();
    let (mut to_worker, mut to_client) = (Direction::new(content), Direction::new(content));
    let (mut ends, mut told) = (false, false);
    alarm.arm(thread.timeouts().tunnel);
    poll_fn(|cx| {
        if !ends && stream.poll_end(cx).is_ready() {
            ends = true;
            frames::write_close(frames::GOING_AWAY, Some(fastrand::u32(..).to_be_bytes()), request);
            frames::write_close(frames::SERVICE_RESTART, None, response);
            alarm.arm(ticks(CLOSING_MAX));
        }
        let sent = to_worker.poll(cx, client, down, worker, ends.then_some(&request[..]));
        let received = to_client.poll(cx, worker, up, client, ends.then_some(&response[..]));
        match (sent, received) {
            (Poll::Ready(false), _) | (_, Poll::Ready(false)) => return Poll::Ready(()),
            (Poll::Ready(true), Poll::Ready(true)) => return Poll::Ready(()),
            _ => {}
        }
        let moved = to_worker.take_moved() | to_client.take_moved();
        if !ends && moved {
            alarm.arm(thread.timeouts().tunnel);
        }
        if ends && !told && to_worker.is_closed() && to_client.is_closed() {
            told = true;
            alarm.arm(ticks(CLOSING_MAX));
        }
        if alarm.expired() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    if ends {
        // What is in the kernel still leaves, our Close frames above all.
        let _ = poll_fn(|cx| Pin::new(&mut *client).poll_shutdown(cx)).await;
        let _ = poll_fn(|cx| Pin::new(&mut *worker).poll_shutdown(cx)).await;
    }
}
