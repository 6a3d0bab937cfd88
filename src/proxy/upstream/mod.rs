//! Connections to workers: made when needed, kept per thread, counted as in flight while in use.
//!
//! A worker that speaks HTTP/1.1 is given one connection a request at a time ([`pool`] keeps the idle ones). One
//! that speaks HTTP/2 shares its connections among requests ([`h2c`]); what a request gets of it is a
//! [`Stream`] all the same, that takes and gives the text of HTTP/1.1.

pub(crate) mod h2c;
pub(crate) mod pool;
mod socket;

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::config::Protocol;
use crate::metrics::ThreadSlot;
use crate::proxy::ends::{BodyReceiver, BodySender};
use crate::proxy::queue::Place;
use crate::registry::Upstream;

pub(crate) use pool::Pool;
pub(crate) use socket::Socket;

/// What carries one request to a worker and its answer back, as the text of HTTP/1.1.
#[derive(Debug)]
pub(crate) enum Stream {
    /// A connection of its own.
    Http1(Socket),
    /// A stream of a shared HTTP/2 connection.
    H2c(Box<h2c::Stream>),
}

impl BodySender for Stream {}

impl BodyReceiver for Stream {}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Http1(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::H2c(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Http1(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::H2c(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Http1(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::H2c(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

/// Counts one request as in flight for as long as it lives.
#[derive(Debug)]
struct InFlightGuard {
    upstream: Arc<Upstream>,
    slot: ThreadSlot,
}

impl InFlightGuard {
    fn begin(upstream: Arc<Upstream>, slot: ThreadSlot) -> Self {
        upstream.in_flight.begin(slot);
        Self { upstream, slot }
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.upstream.in_flight.end(self.slot);
    }
}

/// A connection, or a share of one, that carries a request.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) stream: Stream,
    /// Its connection has carried a request before; the worker may have closed it meanwhile.
    pub(crate) reused: bool,
    /// Its place at a worker that takes only so many requests at a time.
    pub(crate) place: Option<Box<Place>>,
    guard: InFlightGuard,
}

impl Link {
    /// The worker at its other end.
    pub(crate) fn upstream(&self) -> &Arc<Upstream> {
        &self.guard.upstream
    }
}

/// Connects to a worker. The attempt counts as in flight, so that others see the worker as busy.
pub(crate) async fn connect(
    pool: &RefCell<Pool>,
    upstream: Arc<Upstream>,
    slot: ThreadSlot,
) -> io::Result<Link> {
    let guard = InFlightGuard::begin(upstream, slot);
    let stream = match guard.upstream.protocol {
        Protocol::Http1 => Stream::Http1(Socket::connect(&guard.upstream).await?),
        Protocol::H2c => Stream::H2c(pool::connect_h2c(pool, &guard.upstream).await?),
    };
    Ok(Link { stream, reused: false, place: None, guard })
}
