//! HTTP/2 from clients, on the `h2` crate: frames, HPACK and flow control are its, the requests are ours.
//!
//! ```text
//!  connection (one task): preface, accept ----> stream (one task each): head as HTTP/1.1 text (head)
//!     |  idle, old, drain -> GOAWAY                 |        then the life of any request (super::handler)
//!     |  too many resets -> ENHANCE_YOUR_CALM       |  body: DATA frames as bytes (stream)
//! ```
//!
//! A stream is one more [`Downstream`]; nothing behind it knows HTTP/2. It counts as an open connection, for it
//! may need one to a worker. What the crate caps: concurrent streams, the header list and its CONTINUATION
//! frames, small DATA frames, streams reset before they were accepted, streams reset for errors; answers to PING
//! and SETTINGS are written before more is read. What is capped here: resets of accepted streams ([`resets`]),
//! connections on which nothing happens, their age and their requests. The values are `limits.http2` and
//! `limits`.
//!
//! [`Downstream`]: crate::proxy::downstream::Downstream

mod head;
mod io;
mod resets;
mod stream;
mod websocket;

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection};
use h2::{Reason, RecvStream, server::SendResponse};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::proxy::client::Client;
use crate::proxy::clock::{Alarm, ticks};
use crate::proxy::h2::io::Prefixed;
use crate::proxy::h2::resets::Resets;
use crate::proxy::handler::Life;
use crate::proxy::limits::Settings;
use crate::proxy::thread::Thread;

/// What an HTTP/2 client sends first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// After GOAWAY, a client without a running request has this long to close.
const CLOSING: Duration = Duration::from_secs(1);

/// Whether a connection whose first line says HTTP/2 begins as it should.
pub(crate) fn is_preface(bytes: &[u8]) -> bool {
    bytes.iter().zip(PREFACE).all(|(byte, expected)| byte == expected)
}

/// What the tasks of one connection share.
#[derive(Debug)]
struct Running {
    /// Requests that run.
    open: Cell<usize>,
    /// The tick at which the last one ended.
    since: Cell<u64>,
    /// Requests that the client has reset.
    resets: Cell<u32>,
}

/// What a connection sees where it sees no request.
enum Pause {
    /// Draining has begun.
    Drain,
    /// Time has passed.
    Tick,
    /// Its end, and the error that was its cause.
    End(Option<h2::Error>),
}

/// Serves one connection until it ends: `first` was read from it already. The alarm is attached to this task.
pub(crate) async fn serve<S>(
    thread: Rc<Thread>,
    alarm: Alarm<Thread>,
    io: S,
    client: Rc<Client>,
    first: Bytes,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    alarm.arm(thread.timeouts().head);
    let wrote = Rc::new(Cell::new(false));
    let io = Prefixed::new(first, io, wrote.clone());
    let Some(Ok(mut connection)) = alarm.race(builder(&thread.settings()).handshake(io)).await else {
        return;
    };
    let running =
        Rc::new(Running { open: Cell::new(0), since: Cell::new(thread.clock.now()), resets: Cell::new(0) });
    let mut resets = Resets::new(&thread.settings().http2);
    let mut life = Life::new(&thread);
    let mut closing = false;
    alarm.arm(thread.timeouts().idle.min(life.left(&thread)));
    loop {
        match next(&mut connection, &thread, &alarm, closing).await {
            Ok((request, respond)) => {
                if !resets.allows(running.resets.take(), thread.clock.now()) {
                    warn(&thread, &client, "it takes too many requests back");
                    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                    continue;
                }
                // Made here and not in the task, so that the stream counts as open at once.
                let alarm = Alarm::new(thread.clone());
                running.open.set(running.open.get() + 1);
                let serving =
                    stream::serve(thread.clone(), alarm, client.clone(), request, respond, running.clone());
                tokio::task::spawn_local(serving);
                life.count();
                if closing || !life.is_over(&thread) {
                    continue;
                }
            }
            Err(Pause::End(error)) => {
                if let Some(error) = error.filter(is_of_a_limit) {
                    warn(&thread, &client, &error.to_string());
                }
                return;
            }
            Err(Pause::Drain) => {}
            Err(Pause::Tick) if !closing && life.is_over(&thread) => {}
            Err(Pause::Tick) => {
                let most = if closing { ticks(CLOSING) } else { thread.timeouts().idle };
                let is_flushing = connection.has_streams() && wrote.take();
                match rest(&running, thread.clock.now(), most, is_flushing) {
                    Some(ticks) => {
                        alarm.arm(if closing { ticks } else { ticks.min(life.left(&thread)) });
                        continue;
                    }
                    None if closing => return,
                    None => {}
                }
            }
        }
        // GOAWAY with the last stream; those that run go on, and the client closes.
        connection.graceful_shutdown();
        closing = true;
        alarm.arm(ticks(CLOSING));
    }
}

/// Whether we have ended the connection because it went beyond a limit.
fn is_of_a_limit(error: &h2::Error) -> bool {
    !error.is_remote() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM)
}

/// Says that a limit has ended a connection; at most one line a second.
fn warn(thread: &Thread, client: &Client, why: &str) {
    if thread.may_warn() {
        tracing::warn!(client = %client.ip, "ended an HTTP/2 connection beyond `limits.http2`: {why}");
    }
}

/// For how many ticks a connection may go on before it is looked at again; none: it was idle for `most`.
fn rest(running: &Running, now: u64, most: u64, is_flushing: bool) -> Option<u64> {
    let quiet = now - running.since.get();
    match running.open.get() {
        0 if quiet < most => Some(most - quiet),
        // Answers are complete for us, and the client still takes them.
        0 if is_flushing => Some(most),
        0 => None,
        _ => Some(most),
    }
}

/// The next request, or why there is none.
async fn next<S>(
    connection: &mut Connection<Prefixed<S>, Bytes>,
    thread: &Thread,
    alarm: &Alarm<Thread>,
    closing: bool,
) -> Result<(Request<RecvStream>, SendResponse<Bytes>), Pause>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(|cx| {
        Poll::Ready(match connection.poll_accept(cx) {
            Poll::Ready(Some(Ok(accepted))) => Ok(accepted),
            Poll::Ready(end) => Err(Pause::End(end.and_then(Result::err))),
            Poll::Pending if thread.draining.get() && !closing => Err(Pause::Drain),
            Poll::Pending if alarm.expired() => Err(Pause::Tick),
            Poll::Pending => return Poll::Pending,
        })
    })
    .await
}

fn builder(settings: &Settings) -> Builder {
    let limits = &settings.http2;
    // The crate answers a larger list itself, bare. It is allowed more than the limit, and counts 32 bytes more for
    // each header than its text has, so that our parser is the one that refuses what is not absurd.
    let header_list = settings.head_bytes.saturating_mul(2) + 32 * settings.headers;
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.streams)
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_frame_size(limits.frame_bytes)
        .max_header_list_size(u32::try_from(header_list).unwrap_or(u32::MAX))
        .max_send_buffer_size(limits.send_buffer)
        .max_pending_accept_reset_streams(limits.pending_resets)
        .max_local_error_reset_streams(Some(limits.error_resets))
        .enable_connect_protocol();
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_preface_is_one() {
        for (bytes, is) in [
            (&b"PRI * HTTP/2.0\r\n"[..], true),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04", true),
            (b"PRI * HTTP/2.0\r\nHost: a\r\n\r\n", false),
            (b"PRI * HTTP/2.1\r\n", false),
            (b"\r\nPRI * HTTP/2.0\r\n", false),
            (b"GET / HTTP/2.0\r\n", false),
        ] {
            assert_eq!(is_preface(bytes), is, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_connection_is_idle_when_nothing_runs_and_nothing_is_taken_any_more() {
        for (open, since, now, is_flushing, expected) in [
            (0, 0, 299, false, Some(1)),
            (0, 0, 300, false, None),
            (0, 0, 300, true, Some(300)),
            (1, 0, 900, false, Some(300)),
            (0, 200, 400, false, Some(100)),
        ] {
            let running = Running { open: Cell::new(open), since: Cell::new(since), resets: Cell::new(0) };
            assert_eq!(rest(&running, now, 300, is_flushing), expected, "{open} {since} {now} {is_flushing}");
        }
    }
}
