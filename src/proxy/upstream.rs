//! Connections to workers: made when needed, kept idle per thread, counted as in flight while in use.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::metrics::ThreadSlot;
use crate::proxy::clock::ticks;
use crate::proxy::ends::{BodyReceiver, BodySender};
use crate::proxy::limits::Settings;
use crate::registry::{Address, Upstream};
use crate::routing::Routing;

/// A request that cannot be sent twice does not use a connection that was idle for longer than this: the
/// worker may be closing it at this moment (Node.js does after 5 s), and nobody could tell what it has seen.
const FRESH_ENOUGH: std::time::Duration = std::time::Duration::from_secs(2);

/// A socket to a worker.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    async fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Address::Unix(path) => UnixStream::connect(path).await.map(Self::Unix),
        }
    }
}

impl BodySender for Stream {}

impl BodyReceiver for Stream {}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
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

/// A connection that carries a request.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) stream: Stream,
    /// It has carried a request before; the worker may have closed it meanwhile.
    pub(crate) reused: bool,
    guard: InFlightGuard,
}

/// Connects to a worker. The attempt counts as in flight, so that others see the worker as busy.
pub(crate) async fn connect(upstream: Arc<Upstream>, slot: ThreadSlot) -> io::Result<Link> {
    let guard = InFlightGuard::begin(upstream, slot);
    let stream = Stream::connect(&guard.upstream.address).await?;
    Ok(Link { stream, reused: false, guard })
}

#[derive(Debug)]
struct Idle {
    stream: Stream,
    /// The tick at which it became idle.
    since: u64,
}

/// One thread's idle connections, by [`Upstream::serial`]; only those of workers that take requests.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: HashMap<u64, Vec<Idle>>,
    most: usize,
    /// In ticks.
    keep: u64,
    fresh_enough: u64,
}

impl Pool {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            idle: HashMap::new(),
            most: settings.idle_per_worker,
            keep: ticks(settings.upstream_idle_timeout),
            fresh_enough: ticks(FRESH_ENOUGH),
        }
    }

    /// The connection to `upstream` that was used last and is not known to be dead. `repeatable`: the request
    /// can be sent again if it turns out to be dead after all.
    pub(crate) fn take(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &Arc<Upstream>,
        slot: ThreadSlot,
        now: u64,
        repeatable: bool,
    ) -> Option<Link> {
        let idle = self.idle.get_mut(&upstream.serial)?;
        while let Some(Idle { mut stream, since }) = idle.pop() {
            if is_quiet(cx, &mut stream) && (repeatable || now - since <= self.fresh_enough) {
                let guard = InFlightGuard::begin(upstream.clone(), slot);
                return Some(Link { stream, reused: true, guard });
            }
        }
        None
    }

    /// Keeps a connection whose request has ended, unless its worker takes no more requests.
    pub(crate) fn put_back(&mut self, link: Link, now: u64) {
        let Some(idle) = self.idle.get_mut(&link.guard.upstream.serial) else { return };
        if idle.len() < self.most {
            idle.push(Idle { stream: link.stream, since: now });
        }
    }

    /// Closes the connections to workers that take no more requests, and makes room for those that do.
    pub(crate) fn sync(&mut self, routing: &Routing) {
        let versions = routing.services.iter().flat_map(|service| service.registry.versions.values());
        let mut before = std::mem::take(&mut self.idle);
        self.idle = versions
            .flat_map(|version| &version.ready)
            .map(|upstream| (upstream.serial, before.remove(&upstream.serial).unwrap_or_default()))
            .collect();
    }

    /// Closes what was idle for too long.
    pub(crate) fn sweep(&mut self, now: u64) {
        for idle in self.idle.values_mut() {
            idle.retain(|idle| now - idle.since <= self.keep);
        }
    }

    /// Closes everything.
    pub(crate) fn clear(&mut self) {
        self.idle.clear();
    }
}

/// Whether an idle connection has nothing to say. Costs no system call: without an event since the last read
/// tokio knows that there is nothing.
fn is_quiet(cx: &mut Context<'_>, stream: &mut Stream) -> bool {
    let mut byte = [0];
    Pin::new(stream).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_pending()
}
