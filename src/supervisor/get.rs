//! One GET of a worker, over a connection of its own: what its checks and its warming are made of.

use std::error::Error;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

use crate::config::Protocol;
use crate::registry::Address;

/// Why a worker was not asked, or did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// The worker does not answer at all.
    #[error("{0}")]
    Silent(String),
    /// It answers, but not as it should.
    #[error("{0}")]
    Answered(String),
    /// It could not even be asked, which is not its fault: switchman is short of something.
    #[error("{0}")]
    Unasked(String),
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Get<'a> {
    /// The path, perhaps with a query.
    pub(crate) path: &'a str,
    /// Headers beside the usual ones; they win.
    pub(crate) headers: &'a [(HeaderName, HeaderValue)],
    /// Who asks, as the worker finds it in its log.
    pub(crate) agent: &'static str,
    /// Also wait for the end of the answer's body.
    pub(crate) whole: bool,
}

type Answer = Result<StatusCode, Box<dyn Error + Send + Sync>>;

impl Get<'_> {
    /// Asks, and answers with the status. Takes as long as the worker does.
    pub(crate) async fn ask(&self, address: &Address, protocol: Protocol) -> Result<StatusCode, Failure> {
        let path = self.path;
        let stream = connect(address).await?;
        let cannot = |e| Failure::Unasked(format!("GET {path} cannot be asked: {e}; hint: correct the path"));
        let answer = match protocol {
            Protocol::Http1 => {
                self.over_http1(stream, self.request(address, protocol).map_err(cannot)?).await
            }
            Protocol::H2c => self.over_h2c(stream, self.request(address, protocol).map_err(cannot)?).await,
        };
        answer.map_err(|error| {
            let (spoken, hint) = match protocol {
                Protocol::Http1 if error.downcast_ref().is_some_and(hyper::Error::is_parse) => {
                    ("HTTP", "; hint: a worker that speaks HTTP/2, as gRPC servers do, wants `protocol: h2c`")
                }
                Protocol::Http1 => ("HTTP", ""),
                Protocol::H2c => ("HTTP/2", "; hint: a worker that speaks HTTP/1.1 wants `protocol: http1`"),
            };
            Failure::Silent(format!("GET {path} was not answered with {spoken}: {error}{hint}"))
        })
    }

    fn request(&self, address: &Address, protocol: Protocol) -> Result<Request<()>, http::Error> {
        let host = match address {
            Address::Tcp(address) => address.to_string(),
            Address::Unix(_) => "localhost".to_owned(),
        };
        let mut headers = http::HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(self.agent));
        if protocol == Protocol::Http1 {
            headers.insert(header::HOST, HeaderValue::try_from(&host)?);
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        headers.extend(self.headers.iter().cloned());
        let uri = match (protocol, headers.get(header::HOST).and_then(|host| host.to_str().ok())) {
            (Protocol::Http1, _) => self.path.to_owned(),
            (Protocol::H2c, said) => format!("http://{}{}", said.unwrap_or(&host), self.path),
        };
        if protocol == Protocol::H2c {
            // It stands in `:authority`.
            headers.remove(header::HOST);
        }
        let mut request = Request::get(uri).body(())?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    // The connection moves only while it is polled; when one of these ends, it is dropped, and with that closed.

    async fn over_http1<S>(&self, stream: S, request: Request<()>) -> Answer
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let asking = async {
            let answer = sender.send_request(request.map(|()| Empty::<Bytes>::new())).await?;
            let (head, mut body) = answer.into_parts();
            while self.whole
                && let Some(frame) = body.frame().await
            {
                frame?;
            }
            Ok(head.status)
        };
        tokio::pin!(asking);
        tokio::select! {
            answer = &mut asking => answer,
            // It ended, perhaps with the answer in its last bytes.
            _ = connection => asking.await,
        }
    }

    async fn over_h2c<S>(&self, stream: S, request: Request<()>) -> Answer
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (sender, connection) = h2::client::handshake(stream).await?;
        let asking = async {
            let (answer, _) = sender.ready().await?.send_request(request, true)?;
            let (head, mut body) = answer.await?.into_parts();
            while self.whole
                && let Some(data) = body.data().await
            {
                body.flow_control().release_capacity(data?.len())?;
            }
            Ok(head.status)
        };
        tokio::pin!(asking);
        tokio::select! {
            answer = &mut asking => answer,
            ended = connection => {
                ended?;
                asking.await
            }
        }
    }
}

/// A connection to a worker.
pub(crate) async fn connect(address: &Address) -> Result<Either<TcpStream, UnixStream>, Failure> {
    let connected = match address {
        Address::Tcp(address) => TcpStream::connect(address).await.map(Either::Left),
        Address::Unix(path) => UnixStream::connect(path).await.map(Either::Right),
    };
    connected.map_err(|error| refused(address, &error))
}

/// `asked` (in words) of a worker, for at most `timeout`.
pub(crate) async fn within<T>(
    timeout: Duration,
    asked: &str,
    address: &Address,
    asking: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout(timeout, asking).await.unwrap_or_else(|_| {
        Err(Failure::Silent(format!("{asked} was not answered on {address} within {timeout:?}")))
    })
}

fn refused(address: &Address, error: &io::Error) -> Failure {
    let failed = format!("connecting to {address} failed: {error}");
    match Errno::from_io_error(error) {
        // A socket that is not there yet is a port that is closed.
        Some(Errno::CONNREFUSED | Errno::NOENT) => Failure::Silent(format!("nothing listens on {address}")),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL) => {
            Failure::Unasked(failed)
        }
        _ => Failure::Silent(failed),
    }
}
