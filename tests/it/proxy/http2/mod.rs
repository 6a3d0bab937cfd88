//! HTTP/2 from clients: the same requests as in HTTP/1, asked with the `h2` crate's client, with curl, and with
//! frames written by hand.

mod abuse;
mod conformance;
mod ends;
mod frames;
mod programs;
mod requests;
mod streams;
mod websockets;

use std::future::poll_fn;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, request};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::Rig;

/// A client's connection.
pub(super) struct Http2 {
    pub(super) send: SendRequest<Bytes>,
    /// Ends with the connection.
    pub(super) connection: JoinHandle<Result<(), h2::Error>>,
}

/// A whole response.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) trailers: Option<HeaderMap>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Http2 {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let io = TcpStream::connect(address).await.unwrap();
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(256 * 1024).initial_connection_window_size(1024 * 1024);
        let (send, connection) = builder.handshake(io).await.unwrap();
        Self { send, connection: tokio::spawn(connection) }
    }

    /// Sends a head; the body goes where the second says.
    pub(super) async fn begin(
        &mut self,
        request: request::Builder,
        end: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        poll_fn(|cx| self.send.poll_ready(cx)).await.unwrap();
        self.send.send_request(request.body(()).unwrap(), end).unwrap()
    }

    /// One request without a body.
    pub(super) async fn ask(&mut self, request: request::Builder) -> Result<Answer, h2::Error> {
        let (response, _) = self.begin(request, true).await;
        answer(response).await
    }
}

pub(super) fn get(path: &str) -> request::Builder {
    request(Method::GET, path)
}

pub(super) fn post(path: &str) -> request::Builder {
    request(Method::POST, path)
}

pub(super) fn request(method: Method, path: &str) -> request::Builder {
    Request::builder().method(method).uri(format!("http://app{path}"))
}

/// Reads a response to its end.
pub(super) async fn answer(response: ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let (bytes, trailers) = read(&mut body).await?;
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: bytes, trailers })
}

/// Reads a body to its end, giving back the window as it goes.
pub(super) async fn read(body: &mut RecvStream) -> Result<(Bytes, Option<HeaderMap>), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        bytes.extend_from_slice(&part);
    }
    Ok((bytes.into(), body.trailers().await?))
}

/// Sends all of `bytes` as the window allows.
pub(super) async fn write(to: &mut SendStream<Bytes>, mut bytes: Bytes, end: bool) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        to.reserve_capacity(bytes.len());
        let room = match to.capacity() {
            0 => poll_fn(|cx| to.poll_capacity(cx)).await.expect("the stream is open")?,
            room => room,
        };
        let part = bytes.split_to(room.min(bytes.len()));
        to.send_data(part, end && bytes.is_empty())?;
    }
    Ok(())
}

impl Rig {
    /// An HTTP/2 connection by prior knowledge.
    async fn connect_http2(&self) -> Http2 {
        Http2::connect(self.address).await
    }
}
