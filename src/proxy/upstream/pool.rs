//! What one thread keeps of connections to the workers that take requests.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};

use crate::config::Protocol;
use crate::metrics::ThreadSlot;
use crate::proxy::clock::ticks;
use crate::proxy::limits::Settings;
use crate::proxy::upstream::{InFlightGuard, Link, Socket, Stream, h2c};
use crate::registry::Upstream;
use crate::routing::Routing;

/// A request that cannot be sent twice does not use a connection that was idle for longer than this: the
/// worker may be closing it at this moment (Node.js does after 5 s), and nobody could tell what it has seen.
const FRESH_ENOUGH: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Idle {
    socket: Socket,
    /// The tick at which it became idle.
    since: u64,
}

/// One thread's connections, by [`Upstream::serial`]; only those to workers that take requests.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: HashMap<u64, Vec<Idle>>,
    /// Those that requests share.
    shared: HashMap<u64, h2c::Connections>,
    most: usize,
    /// In ticks.
    keep: u64,
    fresh_enough: u64,
    /// Largest head of a shared connection, in bytes.
    head_bytes: usize,
}

impl Pool {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            idle: HashMap::new(),
            shared: HashMap::new(),
            most: settings.idle_per_worker,
            keep: ticks(settings.upstream_idle_timeout),
            fresh_enough: ticks(FRESH_ENOUGH),
            head_bytes: settings.head_bytes,
        }
    }

    /// From now on, these limits.
    pub(crate) fn reconfigure(&mut self, settings: &Settings) {
        let Self { most, keep, head_bytes, .. } = Self::new(settings);
        (self.most, self.keep, self.head_bytes) = (most, keep, head_bytes);
    }

    /// The connection to `upstream` that was used last and is not known to be dead, or a stream of a shared one
    /// with room. `repeatable`: the request can be sent again if it turns out to be dead after all.
    pub(crate) fn take(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &Arc<Upstream>,
        slot: ThreadSlot,
        now: u64,
        repeatable: bool,
    ) -> Option<Link> {
        let stream = match upstream.protocol {
            Protocol::Http1 => self.take_idle(cx, upstream.serial, now, repeatable).map(Stream::Http1),
            Protocol::H2c => self.shared.get_mut(&upstream.serial)?.take(cx).map(Stream::H2c),
        };
        let guard = || InFlightGuard::begin(upstream.clone(), slot);
        stream.map(|stream| Link { stream, reused: true, place: None, guard: guard() })
    }

    fn take_idle(&mut self, cx: &mut Context<'_>, serial: u64, now: u64, repeatable: bool) -> Option<Socket> {
        let idle = self.idle.get_mut(&serial)?;
        while let Some(Idle { mut socket, since }) = idle.pop() {
            if is_quiet(cx, &mut socket) && (repeatable || now - since <= self.fresh_enough) {
                return Some(socket);
            }
        }
        None
    }

    /// Keeps a connection whose request has ended, unless its worker takes no more requests. A share of one has
    /// nothing to be kept.
    pub(crate) fn put_back(&mut self, link: Link, now: u64) {
        let Stream::Http1(socket) = link.stream else { return };
        let Some(idle) = self.idle.get_mut(&link.guard.upstream.serial) else { return };
        if idle.len() < self.most {
            idle.push(Idle { socket, since: now });
        }
    }

    /// Lets go of the connections to workers that take no more requests, and makes room for those that do. A
    /// shared one ends with its last stream.
    pub(crate) fn sync(&mut self, routing: &Routing) {
        let (mut idle, mut shared) = (std::mem::take(&mut self.idle), std::mem::take(&mut self.shared));
        let versions = routing.services.iter().flat_map(|service| service.registry.versions.values());
        for upstream in versions.flat_map(|version| &version.ready) {
            let serial = upstream.serial;
            match upstream.protocol {
                Protocol::Http1 => {
                    self.idle.insert(serial, idle.remove(&serial).unwrap_or_default());
                }
                Protocol::H2c => {
                    self.shared.insert(serial, shared.remove(&serial).unwrap_or_default());
                }
            }
        }
    }

    /// Closes what was idle for too long.
    pub(crate) fn sweep(&mut self, now: u64) {
        for idle in self.idle.values_mut() {
            idle.retain(|idle| now - idle.since <= self.keep);
        }
        for shared in self.shared.values_mut() {
            shared.sweep(now, self.keep);
        }
    }

    /// Closes everything that no request uses.
    pub(crate) fn clear(&mut self) {
        self.idle.clear();
        self.shared.clear();
    }
}

/// A stream of another shared connection to `upstream`. Requests that come together while it is made share it:
/// one connects, the others wait for their turn and find it.
pub(crate) async fn connect_h2c(pool: &RefCell<Pool>, upstream: &Upstream) -> io::Result<Box<h2c::Stream>> {
    let (turn, head_bytes) = {
        let pool = pool.borrow();
        let turn = pool.shared.get(&upstream.serial).map(h2c::Connections::turn);
        (turn.unwrap_or_default(), pool.head_bytes)
    };
    let _turn = turn.lock().await;
    let found = poll_fn(|cx| {
        let mut pool = pool.borrow_mut();
        Poll::Ready(pool.shared.get_mut(&upstream.serial).and_then(|shared| shared.take(cx)))
    });
    if let Some(stream) = found.await {
        return Ok(stream);
    }
    let socket = Socket::connect(upstream).await?;
    let connection = h2c::Connection::start(socket, head_bytes, h2c::KeepAlive::default()).await?;
    let stream = connection.stream();
    // A worker that takes no more requests meanwhile gets this one only.
    if let Some(shared) = pool.borrow_mut().shared.get_mut(&upstream.serial) {
        shared.add(connection);
    }
    Ok(stream)
}

/// Whether an idle connection has nothing to say. Costs no system call: without an event since the last read
/// tokio knows that there is nothing.
fn is_quiet(cx: &mut Context<'_>, socket: &mut Socket) -> bool {
    let mut byte = [0];
    Pin::new(socket).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_pending()
}
