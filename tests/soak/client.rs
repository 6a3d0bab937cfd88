//! One client of the load: a connection of its own, one request after the other, and a look at every byte that
//! comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::ledger::{Failure, Kind, Ledger, Reach};

/// The longest that a client pauses between two requests, so that the machine is busy and not drowned.
const PAUSE_MS: u64 = 20;
/// Longer than anything here takes; what is not answered by then hangs.
const HANGS: Duration = Duration::from_secs(20);

/// What a client needs.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) random: fastrand::Rng,
    /// What the last request was sent on.
    pub(crate) reach: Reach,
}

/// How one request went wrong.
struct Lost {
    pid: Option<u32>,
    what: String,
}

impl Lost {
    fn new(pid: Option<u32>, what: impl std::fmt::Display) -> Self {
        Self { pid, what: what.to_string() }
    }
}

/// A connection to switchman, made when it is needed.
type Connection = Option<SendRequest<Full<Bytes>>>;
/// A WebSocket through switchman.
type Socket = WebSocketStream<TcpStream>;

impl Client {
    /// Sends requests of one kind until it is told to stop.
    pub(crate) async fn run(mut self, kind: Kind, number: usize) {
        let mut connection: Connection = None;
        for turn in 0_u64.. {
            if self.stop.load(Relaxed) {
                return;
            }
            let id = format!("{kind:?}-{number}-{turn}");
            let started = Instant::now();
            let went = match kind {
                Kind::Open => self.open(&id).await,
                _ => {
                    self.ledger.begins(&id, started);
                    within(self.once(kind, &id, &mut connection)).await
                }
            };
            match went {
                Ok(()) if kind == Kind::Open => {} // counted message by message
                Ok(()) => self.ledger.answered(kind, &id),
                Err(Lost { pid, what }) => {
                    let ended = Instant::now();
                    let reach = self.reach;
                    connection = None;
                    self.ledger.failed(Failure { kind, id, started, ended, pid, reach, what });
                }
            }
            tokio::time::sleep(Duration::from_millis(self.random.u64(..PAUSE_MS))).await;
        }
    }

    async fn once(&mut self, kind: Kind, id: &str, connection: &mut Connection) -> Result<(), Lost> {
        let ms = if self.random.u8(..8) == 0 { self.random.u64(..300) } else { 0 };
        let (method, size, query, sent) = match kind {
            Kind::Get => ("GET", self.random.usize(..4096), format!("ms={ms}"), 0),
            Kind::Put => ("PUT", 100, format!("ms={ms}"), self.random.usize(..2000)),
            Kind::Post => ("POST", 100, format!("ms={ms}"), self.random.usize(..2000)),
            Kind::Upload => ("POST", 100, format!("ms={ms}"), self.random.usize(50_000..500_000)),
            Kind::Download => ("GET", 1_000_000, String::new(), 0),
            Kind::DroppedGet => ("GET", 0, "drop=1".to_owned(), 0),
            Kind::DroppedPost => ("POST", 0, "drop=1".to_owned(), 10),
            Kind::Cut => ("GET", 300_000, format!("cut={}", self.random.usize(..300_000)), 0),
            Kind::Events => return self.events(connection).await,
            Kind::Socket => return self.socket(id).await,
            Kind::Open => unreachable!("it has a way of its own"),
        };
        let body = fill(id, sent);
        let sum = sum(&body);
        let uri = format!("/job/{id}?bytes={size}&{query}");
        let request = http::Request::builder().method(method).uri(uri).header("host", "app");
        // Users of every bucket.
        let request = request.header("cookie", format!("uid={}", self.random.u32(..1000)));
        let request = request.body(Full::from(body)).unwrap();
        let started = Instant::now();
        let response = self.send(connection, request).await?;
        if matches!(kind, Kind::Get | Kind::Put | Kind::Post) {
            self.ledger.waited(started, Duration::from_millis(ms));
        }
        let (head, body) = response.into_parts();
        let header =
            |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let pid = header("x-pid").parse().ok();
        if matches!(kind, Kind::DroppedGet | Kind::DroppedPost) {
            let _ = body.collect().await;
            let told = (head.status.as_u16(), header("x-switchman-error"));
            return if told == (502, "upstream-closed") {
                Ok(())
            } else {
                Err(Lost::new(pid, format!("{told:?}")))
            };
        }
        if head.status != 200 {
            let error = header("x-switchman-error").to_owned();
            let text = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            return Err(Lost::new(
                pid,
                format!("{} {error} {}", head.status, String::from_utf8_lossy(&text)),
            ));
        }
        if header("x-id") != id
            || header("x-length") != sent.to_string()
            || header("x-sum") != sum.to_string()
        {
            self.ledger.wrong(format!("{id} (sent {sent}, sum {sum}) was answered with {:?}", head.headers));
        }
        let (arrived, end) = read(body).await;
        if arrived != fill(id, arrived.len()) || arrived.len() > size {
            self.ledger.wrong(format!("the body of the answer to {id} has bytes of another"));
        }
        match (kind, end) {
            (Kind::Cut, Err(_)) => {
                *connection = None;
                Ok(())
            }
            (Kind::Cut, Ok(())) => Err(Lost::new(pid, "a body that was cut arrived as if it were whole")),
            (_, Err(error)) => Err(Lost::new(pid, format!("cut after {} bytes: {error}", arrived.len()))),
            (_, Ok(())) if arrived.len() == size => Ok(()),
            (_, Ok(())) => Err(Lost::new(pid, format!("{} of {size} bytes and a good end", arrived.len()))),
        }
    }

    /// Sends on the connection there is, or on a new one.
    async fn send(
        &mut self,
        connection: &mut Connection,
        request: http::Request<Full<Bytes>>,
    ) -> Result<http::Response<Incoming>, Lost> {
        if let Some(sender) = connection
            && sender.ready().await.is_err()
        {
            // It was said that it ends (`connection: close`), or the last request on it failed.
            *connection = None;
        }
        self.reach = Reach::Kept;
        if connection.is_none() {
            let stream = self.connect().await?;
            let (sender, driver) =
                http1::handshake(TokioIo::new(stream)).await.map_err(|e| Lost::new(None, e))?;
            tokio::spawn(driver);
            *connection = Some(sender);
        }
        let sender = connection.as_mut().unwrap();
        sender.send_request(request).await.map_err(|e| Lost::new(None, format!("no answer: {e:?}")))
    }

    async fn connect(&mut self) -> Result<TcpStream, Lost> {
        self.reach = Reach::Refused;
        let stream = TcpStream::connect(self.address).await.map_err(|e| Lost::new(None, e))?;
        self.reach = Reach::New;
        Ok(stream)
    }

    /// Some events of a stream: numbered without a gap, all from one process.
    async fn events(&mut self, connection: &mut Connection) -> Result<(), Lost> {
        let request = http::Request::get("/sse").header("host", "app").body(Full::default()).unwrap();
        let response = self.send(connection, request).await?;
        // Left in the middle, so the connection cannot carry another request.
        *connection = None;
        if response.status() != 200 {
            return Err(Lost::new(None, format!("{} {:?}", response.status(), response.headers())));
        }
        let mut body = response.into_body();
        let (mut text, mut pid) = (String::new(), None);
        let wanted = self.random.usize(2..15);
        while text.matches("\n\n").count() < wanted {
            match body.frame().await {
                Some(Ok(frame)) => text.push_str(&String::from_utf8_lossy(frame.data_ref().unwrap())),
                Some(Err(error)) => return Err(Lost::new(pid, format!("the events end: {error}"))),
                None => return Err(Lost::new(pid, "the events end")),
            }
            pid = pid.or_else(|| text.split_once("pid=")?.1.split_once('\n')?.0.parse().ok());
        }
        for (number, event) in text.split_terminator("\n\n").take(wanted).enumerate() {
            let pid = pid.unwrap_or_default();
            if !(event.starts_with(&format!("id: {number}\n")) && event.ends_with(&format!("pid={pid}"))) {
                self.ledger.wrong(format!("event {number} of process {pid} is {event:?}"));
            }
        }
        Ok(())
    }

    /// A WebSocket of any user, and the worker's process.
    async fn connect_socket(&mut self) -> Result<(Socket, Option<u32>), Lost> {
        let stream = self.connect().await?;
        let mut request = "ws://app/ws".into_client_request().unwrap();
        let user = format!("uid={}", self.random.u32(..1000));
        request.headers_mut().insert("cookie", user.parse().unwrap());
        let opened = tokio_tungstenite::client_async(request, stream).await;
        let (socket, response) = opened.map_err(|e| Lost::new(None, format!("no WebSocket: {e}")))?;
        let pid = response.headers().get("x-pid").and_then(|v| v.to_str().ok()?.parse().ok());
        Ok((socket, pid))
    }

    /// One message there and back.
    async fn exchange(&self, socket: &mut Socket, said: String, pid: Option<u32>) -> Result<(), Lost> {
        let lost = |what: String| Lost::new(pid, what);
        socket.send(Message::text(said.clone())).await.map_err(|e| lost(e.to_string()))?;
        match socket.next().await {
            Some(Ok(Message::Text(heard))) if heard.as_str() == said => {}
            Some(Ok(Message::Close(frame))) => return Err(lost(format!("closed: {frame:?}"))),
            Some(Ok(other)) => self.ledger.wrong(format!("heard {other:?} for {said:?}")),
            Some(Err(error)) => return Err(lost(error.to_string())),
            None => return Err(lost("the WebSocket ends".to_owned())),
        }
        Ok(())
    }

    /// Some messages there and back.
    async fn socket(&mut self, id: &str) -> Result<(), Lost> {
        let (mut socket, pid) = self.connect_socket().await?;
        for number in 0..self.random.usize(1..30) {
            let said = format!("{id} {number} {}", "x".repeat(self.random.usize(..5000)));
            self.exchange(&mut socket, said, pid).await?;
            tokio::time::sleep(Duration::from_millis(self.random.u64(..PAUSE_MS))).await;
        }
        socket.close(None).await.map_err(|e| Lost::new(pid, e))
    }

    /// Messages there and back on one WebSocket, until told to stop.
    async fn open(&mut self, id: &str) -> Result<(), Lost> {
        let (mut socket, pid) = within(self.connect_socket()).await?;
        for number in 0_u64.. {
            if self.stop.load(Relaxed) {
                break;
            }
            let sent = Instant::now();
            within(self.exchange(&mut socket, format!("{id} {number}"), pid)).await?;
            self.ledger.waited(sent, Duration::ZERO);
            self.ledger.answered(Kind::Open, id);
            tokio::time::sleep(Duration::from_millis(self.random.u64(..5 * PAUSE_MS))).await;
        }
        within(async { socket.close(None).await.map_err(|e| Lost::new(pid, e)) }).await
    }
}

/// What does not come to an end in time hangs.
async fn within<T>(asking: impl Future<Output = Result<T, Lost>>) -> Result<T, Lost> {
    tokio::time::timeout(HANGS, asking).await.unwrap_or_else(|_| Err(Lost::new(None, "it hangs")))
}

/// A body as far as it comes, and how it ends.
async fn read(mut body: Incoming) -> (Vec<u8>, Result<(), hyper::Error>) {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            Err(error) => return (bytes, Err(error)),
        }
    }
    (bytes, Ok(()))
}

/// The sum that the sample worker makes (`fixtures/worker/job.rs`).
fn sum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The bytes that the sample worker makes of an id.
fn fill(id: &str, size: usize) -> Vec<u8> {
    let start = sum(id.as_bytes()) as usize % 251;
    (0..size).map(|i| ((start + i) % 251) as u8).collect()
}
