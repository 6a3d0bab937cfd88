//! The other end of the admin API, for the command line: one request a call, over the unix socket or TCP.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use tokio::net::{TcpStream, UnixStream};

use crate::admin::api::WHO_HEADER;
use crate::admin::types;
use crate::config::Secret;

/// How long the connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a whole answer may take; the longest work waits two seconds for a snapshot.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer that is read.
const ANSWER_MAX: usize = 256 * 1024 * 1024;
/// What stands in a path segment or query value as it is.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where a switchman answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Its unix socket.
    Socket(PathBuf),
    /// Host and port of its TCP listener.
    Tcp(String),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Tcp(authority) => write!(f, "http://{authority}"),
        }
    }
}

impl Endpoint {
    /// Reads what `--admin` takes: a URL, or the path of a socket.
    pub fn parse(text: &str) -> Result<Self, ClientError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Socket(path.into()));
        }
        if !text.contains("://") {
            return Ok(Self::Socket(text.into()));
        }
        let bad = || ClientError::Address(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(bad)?;
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self::Tcp(format!("{}:{port}", authority.host())))
    }
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// `--admin` is neither a URL nor a path.
    #[error("`{0}` is no address of a switchman")]
    Address(String),
    /// Nobody answers.
    #[error("no switchman answers at {0}")]
    NotRunning(Endpoint),
    /// The socket is somebody else's.
    #[error("this user may not use {}", .0.display())]
    Permission(PathBuf),
    /// The connection broke.
    #[error("the switchman at {endpoint} did not answer: {detail}")]
    Broken {
        /// Where.
        endpoint: Endpoint,
        /// How.
        detail: String,
    },
    /// It answers with an error.
    #[error("{}", .0.detail)]
    Problem(Box<types::Problem>),
    /// What answers is no switchman, or another one than this.
    #[error("what answers at {endpoint} is not the admin API of this switchman: {detail}")]
    NotSwitchman {
        /// Where.
        endpoint: Endpoint,
        /// What was seen.
        detail: String,
    },
}

impl ClientError {
    /// What to type next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Address(_) => {
                Some("write a URL (http://127.0.0.1:7001) or the path of the admin socket".to_owned())
            }
            Self::NotRunning(_) => Some(
                "start it with `switchman serve`, or say where it runs: --admin URL|PATH, --config FILE"
                    .to_owned(),
            ),
            Self::Permission(path) => {
                Some(format!("run it as the owner of the socket (ls -l {}), or use sudo", path.display()))
            }
            Self::Broken { .. } => Some("look at the log of switchman".to_owned()),
            Self::Problem(problem) => problem.hint.clone(),
            Self::NotSwitchman { .. } => Some("look at --admin; compare `switchman --version`".to_owned()),
        }
    }

    /// Whether switchman itself said no (4xx), as opposed to a failure.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Problem(problem) if (400..500).contains(&problem.status))
    }
}

/// One good answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status, 2xx.
    pub status: StatusCode,
    /// The body as it came.
    pub body: Bytes,
    endpoint: Endpoint,
}

impl Answer {
    /// The body, read.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|error| ClientError::NotSwitchman {
            endpoint: self.endpoint.clone(),
            detail: error.to_string(),
        })
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What is asked.
#[derive(Debug, Clone, Default)]
pub struct Call {
    method: Method,
    path: String,
    headers: Vec<(header::HeaderName, String)>,
    body: Bytes,
    /// How long the whole answer may take, where that is not the usual.
    within: Option<Duration>,
}

impl Call {
    /// A call to the path that these segments make; each is escaped.
    pub fn new(method: Method, segments: &[&str]) -> Self {
        let path =
            segments.iter().map(|s| format!("/{}", utf8_percent_encode(s, ESCAPED))).collect::<String>();
        Self { method, path, ..Self::default() }
    }

    /// Adds `name=value` to the query.
    #[must_use]
    pub fn query(mut self, name: &str, value: &str) -> Self {
        let mark = if self.path.contains('?') { '&' } else { '?' };
        self.path.push_str(&format!("{mark}{name}={}", utf8_percent_encode(value, ESCAPED)));
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Gives the answer more time than usual.
    #[must_use]
    pub fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

/// Asks one switchman.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: Endpoint,
    token: Option<Secret>,
    who: String,
}

impl Client {
    /// A client for `endpoint`. `token` goes with every request over TCP; `who` goes into the history.
    pub fn new(endpoint: Endpoint, token: Option<Secret>, who: String) -> Self {
        Self { endpoint, token, who }
    }

    /// Where it asks.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Makes one call and takes the whole answer; every status but 2xx is an error.
    pub async fn send(&self, call: Call) -> Result<Answer, ClientError> {
        let time = call.within.unwrap_or(ANSWER_TIMEOUT);
        let work = async {
            let response = self.open(call).await?;
            let status = response.status();
            Ok(Answer { status, body: self.collect(response).await?, endpoint: self.endpoint.clone() })
        };
        match tokio::time::timeout(time, work).await {
            Ok(answer) => answer,
            Err(_) => Err(self.broken(format!("nothing came within {time:?}"))),
        }
    }

    /// Makes one call and hands on the answer piece by piece, until it ends or `take` does.
    pub async fn follow<E: From<ClientError>>(
        &self,
        call: Call,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut body = self.open(call).await?.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| self.broken(e.to_string()))?;
            if let Some(data) = frame.data_ref() {
                take(data)?;
            }
        }
        Ok(())
    }

    /// Makes one call and reads the answer.
    pub async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T, ClientError> {
        self.send(call).await?.json()
    }

    async fn connect<S>(&self, connecting: impl Future<Output = io::Result<S>>) -> Result<S, ClientError> {
        let result = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        let error = match result {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error,
            Err(_) => return Err(self.broken(format!("no connection within {CONNECT_TIMEOUT:?}"))),
        };
        Err(match (error.kind(), &self.endpoint) {
            (io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused, endpoint) => {
                ClientError::NotRunning(endpoint.clone())
            }
            (io::ErrorKind::PermissionDenied, Endpoint::Socket(path)) => {
                ClientError::Permission(path.to_owned())
            }
            _ => self.broken(error.to_string()),
        })
    }

    /// Makes one call, up to the head of a good answer.
    async fn open(&self, call: Call) -> Result<Response<Incoming>, ClientError> {
        let response = match &self.endpoint {
            Endpoint::Socket(path) => {
                let stream = self.connect(UnixStream::connect(path)).await?;
                self.exchange(TokioIo::new(stream), "localhost", call).await?
            }
            Endpoint::Tcp(authority) => {
                let stream = self.connect(TcpStream::connect(authority)).await?;
                self.exchange(TokioIo::new(stream), authority, call).await?
            }
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        match serde_json::from_slice::<types::Problem>(&self.collect(response).await?) {
            Ok(problem) => Err(ClientError::Problem(Box::new(problem))),
            Err(_) => Err(ClientError::NotSwitchman {
                endpoint: self.endpoint.clone(),
                detail: format!("it answers {status}"),
            }),
        }
    }

    async fn exchange<S>(
        &self,
        stream: TokioIo<S>,
        host: &str,
        call: Call,
    ) -> Result<Response<Incoming>, ClientError>
    where
        TokioIo<S>: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let request = self.request(host, call)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(stream).await.map_err(|e| self.broken(e.to_string()))?;
        // Its errors come out of `send_request` too.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(|e| self.broken(e.to_string()))
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        Ok(body.map_err(|e| self.broken(e.to_string()))?.to_bytes())
    }

    fn request(&self, host: &str, call: Call) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::builder().method(call.method).uri(call.path).header(header::HOST, host);
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        if let Some(token) = &self.token
            && matches!(self.endpoint, Endpoint::Tcp(_))
        {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.0));
        }
        if let Ok(who) = HeaderValue::from_str(&self.who) {
            request = request.header(WHO_HEADER, who);
        }
        request.body(Full::new(call.body)).map_err(|e| self.broken(e.to_string()))
    }

    fn broken(&self, detail: String) -> ClientError {
        ClientError::Broken { endpoint: self.endpoint.clone(), detail }
    }
}

/// The token for TCP: what `SWITCHMAN_TOKEN` says (`given`), else the file under the state folder, if readable.
pub fn token(given: Option<String>, state: Option<&Path>) -> Option<Secret> {
    let from_file =
        || std::fs::read_to_string(state?.join(super::auth::TOKEN_FILE)).ok().map(|t| t.trim().to_owned());
    given.or_else(from_file).filter(|t| !t.is_empty()).map(Secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_or_a_path() {
        let parse = |text: &str| Endpoint::parse(text).map_err(|e| e.to_string());
        assert_eq!(parse("/run/s.sock"), Ok(Endpoint::Socket("/run/s.sock".into())));
        assert_eq!(parse("unix:s.sock"), Ok(Endpoint::Socket("s.sock".into())));
        assert_eq!(parse("http://127.0.0.1:7001"), Ok(Endpoint::Tcp("127.0.0.1:7001".into())));
        assert_eq!(parse("http://[::1]:7001/"), Ok(Endpoint::Tcp("[::1]:7001".into())));
        assert_eq!(parse("http://host"), Ok(Endpoint::Tcp("host:80".into())));
        assert!(parse("https://host").is_err(), "the admin API speaks no TLS");
    }

    #[test]
    fn a_call_escapes_what_it_is_given() {
        let call = Call::new(Method::GET, &["services", "a/b", "versions", "x y"]).query("name", "a&b");
        assert_eq!(call.path, "/services/a%2Fb/versions/x%20y?name=a%26b");
    }
}
