//! TLS at the public side, by rustls: which versions and protocols, and a stream that behaves as a socket does.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::certificates::{Store, provider};

/// What is offered by ALPN, the most wanted first. HTTP/2 shows itself by its first bytes, as it does without
/// TLS. `curl --http1.0` asks for the last and takes no other.
const PROTOCOLS: [&[u8]; 3] = [b"h2", b"http/1.1", b"http/1.0"];

/// TLS as all threads speak it.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// TLS 1.2 and 1.3 with the certificates that `store` holds at each moment.
    ///
    /// # Errors
    /// The kernel gives no randomness for the keys of session tickets.
    pub fn new(store: Arc<Store>) -> Result<Self, rustls::Error> {
        let resolver: Arc<dyn ResolvesServerCert> = store;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        // Sessions are resumed by tickets that the clients keep, so an old session costs no memory here.
        config.ticketer = rustls::crypto::ring::Ticketer::new()?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// The handshake.
    ///
    /// # Errors
    /// The client leaves, or both have no version, cipher suite or protocol in common.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<Stream> {
        Ok(Stream(Box::new(self.0.accept(stream).await?)))
    }
}

/// A connection after its handshake. What is held back (the socket was full) leaves as soon as anybody reads or
/// flushes, and its end is told, so that a client can tell it from a connection that was cut.
pub(super) struct Stream(Box<TlsStream<TcpStream>>);

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0.get_ref().1.wants_write() {
            // An error shows in the next read or write.
            let _ = Pin::new(&mut self.0).poll_flush(cx);
        }
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Drop for Stream {
    /// Tells the client that this is the end, if the socket takes it at once.
    fn drop(&mut self) {
        let _ = Pin::new(&mut self.0).poll_shutdown(&mut Context::from_waker(Waker::noop()));
    }
}
