//! A socket to a worker: TCP, or a file.

use std::io::{self, IoSlice};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::registry::{Address, Upstream};

/// The pause before a unix socket whose queue was full is asked again; it doubles, up to a longest.
const QUEUE_FULL_MIN: Duration = Duration::from_millis(1);
const QUEUE_FULL_MAX: Duration = Duration::from_millis(50);

/// A socket to a worker.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub(super) async fn connect(upstream: &Upstream) -> io::Result<Self> {
        match &upstream.address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Address::Unix(path) => {
                let stream = connect_unix(path).await?;
                upstream.owner.map_or(Ok(()), |owner| belongs_to(&stream, owner))?;
                Ok(Self::Unix(stream))
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
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

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
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

/// Whether a process of the user `owner` listens at the other end.
fn belongs_to(stream: &UnixStream, owner: u32) -> io::Result<()> {
    let uid = rustix::net::sockopt::socket_peercred(stream)?.uid.as_raw();
    if uid == owner {
        return Ok(());
    }
    let why = format!("the user {uid} listens there, and not the worker's user {owner}");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixSocket;

    use crate::config::Protocol;
    use crate::version::WorkerId;

    use super::*;

    #[tokio::test]
    async fn a_socket_of_somebody_else_is_not_the_workers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let me = rustix::process::geteuid().as_raw();
        for (owner, good) in [(None, true), (Some(me), true), (Some(me + 1), false)] {
            let upstream = Upstream::new(1, WorkerId(0), Address::Unix(path.clone()), Protocol::Http1, 1);
            let connected = Socket::connect(&Upstream { owner, ..upstream }).await;
            assert_eq!(connected.is_ok(), good, "{connected:?}");
        }
    }

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
