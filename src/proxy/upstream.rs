//! Connections to workers: made when needed, kept idle per thread, counted as in flight while in use.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

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
const FRESH_ENOUGH: Duration = Duration::from_secs(2);
/// The pause before a unix socket whose queue was full is asked again; it doubles, up to a longest.
const QUEUE_FULL_MIN: Duration = Duration::from_millis(1);
const QUEUE_FULL_MAX: Duration = Duration::from_millis(50);

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
            Address::Unix(path) => connect_unix(path).await.map(Self::Unix),
        }
    }
}

/// Connects to a unix socket. One whose queue is full refuses at once, where a port lets its clients wait, and the
/// kernel tells nobody when there is room: this asks again until the caller gives up.
async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let mut pause = QUEUE_FULL_MIN;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(pause).await,
            connected => return connected,
        }
        pause = (pause * 2).min(QUEUE_FULL_MAX);
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

#[cfg(test)]
mod tests {
    use tokio::net::UnixSocket;

    use super::*;

    #[tokio::test]
    async fn a_unix_socket_whose_queue_is_full_is_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.sock");
        let socket = UnixSocket::new_stream().unwrap();
        socket.bind(&path).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut queued = Vec::new();
        let full = loop {
            match UnixStream::connect(&path).await {
                Ok(stream) => queued.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let connecting = connect_unix(&path);
        tokio::pin!(connecting);
        let waits = tokio::time::timeout(QUEUE_FULL_MAX, &mut connecting).await;
        assert!(waits.is_err(), "{waits:?}");
        listener.accept().await.unwrap();
        connecting.await.unwrap();
        drop(listener);
        let refused = connect_unix(&path).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
