//! One HTTP/2 connection to a worker: its windows, the task that drives it, and how its silence is told from
//! its death.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, SendRequest};
use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proxy::upstream::Socket;
use crate::proxy::upstream::h2c::failure;
use crate::proxy::upstream::h2c::stream::Stream;

/// What a worker may send on one stream before the client has taken any of it. The way to a worker is short, so
/// this much keeps it full; and it is what a slow client can make us hold.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The connection's window never stands in the way: a client that does not read would stop all the others.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// Largest DATA frame that a worker may send; two fit into the buffer that reads them.
const FRAME: u32 = 16 * 1024;

/// When a connection that carries streams and says nothing is taken for dead. A worker that has ended closes its
/// connections; this is for one that hangs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeepAlive {
    /// Nothing came for this long: it is asked with a PING.
    pub(crate) silence: Duration,
    /// It may take this long to answer. As long as a worker over HTTP/1.1 is waited for.
    pub(crate) answer: Duration,
    /// It is not asked again before: gRPC servers close connections with two PINGs within five minutes.
    pub(crate) pause: Duration,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(60),
            answer: Duration::from_secs(60),
            pause: Duration::from_secs(310),
        }
    }
}

/// What a connection, its streams and its task know of each other.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Streams that are open or wait to be.
    streams: Cell<usize>,
    /// Whether a stream was taken since the last sweep.
    used: Cell<bool>,
    /// Whether bytes came since the task last looked.
    received: Cell<bool>,
}

/// Counts one stream for as long as it lives.
#[derive(Debug)]
pub(super) struct Place(Rc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
    }
}

/// One connection. It ends when this handle and all its streams are gone.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: SendRequest<Bytes>,
    shared: Rc<Shared>,
    /// The tick of the first sweep that found it without streams.
    idle_since: Cell<Option<u64>>,
}

impl Connection {
    /// Begins to speak HTTP/2 on `socket`, and spawns the task that goes on with it. A response head may have
    /// up to `head_bytes`.
    pub(crate) async fn start(socket: Socket, head_bytes: usize, keep_alive: KeepAlive) -> io::Result<Self> {
        let shared = Rc::new(Shared::default());
        let watched = Watched { socket, shared: shared.clone() };
        let (sender, mut connection) = client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
            .handshake(watched)
            .await
            .map_err(failure::wrap)?;
        let ping_pong = connection.ping_pong();
        let watching = shared.clone();
        tokio::task::spawn_local(async move {
            // Dropped by a branch that is ready, the connection closes, and its streams learn it.
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection to a worker ended");
                },
                () = silent(ping_pong, watching, keep_alive) => {
                    tracing::warn!(after = ?keep_alive.answer, "a worker does not answer PING; its connection is closed");
                }
            }
        });
        Ok(Self { sender, shared, idle_since: Cell::new(None) })
    }

    /// Whether it is alive and the worker takes new streams on it.
    pub(super) fn takes_streams(&mut self, cx: &mut Context<'_>) -> bool {
        !matches!(self.sender.poll_ready(cx), Poll::Ready(Err(_)))
    }

    pub(super) fn has_room(&self) -> bool {
        self.streams() < self.sender.current_max_send_streams()
    }

    pub(super) fn streams(&self) -> usize {
        self.shared.streams.get()
    }

    /// One more stream.
    pub(crate) fn stream(&self) -> Box<Stream> {
        self.shared.streams.set(self.streams() + 1);
        self.shared.used.set(true);
        Box::new(Stream::new(self.sender.clone(), Place(self.shared.clone())))
    }

    /// For how many ticks it has been seen without a stream.
    pub(super) fn idle_for(&self, now: u64) -> u64 {
        let idle = !self.shared.used.take() && self.streams() == 0;
        let since = idle.then(|| self.idle_since.get().unwrap_or(now));
        self.idle_since.set(since);
        now - since.unwrap_or(now)
    }
}

/// Ready when a connection that carries streams says nothing, not even to a PING.
async fn silent(ping_pong: Option<PingPong>, shared: Rc<Shared>, keep_alive: KeepAlive) {
    let Some(mut ping_pong) = ping_pong else { return std::future::pending().await };
    loop {
        shared.received.set(false);
        tokio::time::sleep(keep_alive.silence).await;
        if shared.received.get() || shared.streams.get() == 0 || ping_pong.send_ping(Ping::opaque()).is_err()
        {
            continue;
        }
        let pong = poll_fn(|cx| ping_pong.poll_pong(cx));
        match tokio::time::timeout(keep_alive.answer, pong).await {
            Err(_) if !shared.received.get() => return,
            // Bytes without the answer: it is alive, and the next PING waits until that has come.
            Err(_) | Ok(_) => tokio::time::sleep(keep_alive.pause).await,
        }
    }
}

/// A socket that notes whether something came.
struct Watched {
    socket: Socket,
    shared: Rc<Shared>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        if polled.is_ready() {
            self.shared.received.set(true);
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;
    use tokio::task::LocalSet;

    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn connect(keep_alive: KeepAlive) -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Connection::start(Socket::Unix(ours), 4096, keep_alive).await.unwrap(), theirs)
    }

    #[tokio::test]
    async fn a_worker_that_hangs_is_given_up_and_its_streams_learn_it() {
        let ms = Duration::from_millis;
        let keep_alive = KeepAlive { silence: ms(30), answer: ms(30), pause: ms(30) };
        LocalSet::new()
            .run_until(async {
                let (connection, _hangs) = connect(keep_alive).await;
                let mut stream = connection.stream();
                stream.write_all(GET).await.unwrap();
                let read = tokio::time::timeout(PATIENCE, stream.read_u8()).await;
                assert!(read.expect("it ends").is_err());
            })
            .await;
    }

    #[tokio::test]
    async fn a_worker_that_answers_ping_may_be_silent() {
        let ms = Duration::from_millis;
        let keep_alive = KeepAlive { silence: ms(10), answer: PATIENCE, pause: ms(10) };
        LocalSet::new()
            .run_until(async {
                let (connection, theirs) = connect(keep_alive).await;
                let (answer, when) = tokio::sync::oneshot::channel::<()>();
                tokio::task::spawn_local(async move {
                    let mut server = h2::server::handshake(theirs).await.unwrap();
                    let (_, mut respond) = server.accept().await.unwrap().unwrap();
                    tokio::task::spawn_local(async move {
                        when.await.unwrap();
                        respond.send_response(http::Response::new(()), true).unwrap();
                    });
                    while server.accept().await.is_some() {}
                });
                let mut stream = connection.stream();
                stream.write_all(GET).await.unwrap();
                let mut text = Vec::new();
                let early = tokio::time::timeout(ms(300), stream.read_buf(&mut text)).await;
                assert!(early.is_err(), "neither an answer nor the end: {early:?}");
                answer.send(()).unwrap();
                stream.read_to_end(&mut text).await.unwrap();
                assert_eq!(text, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            })
            .await;
    }
}
