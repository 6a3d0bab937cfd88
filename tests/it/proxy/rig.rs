//! A data plane with a registry and rules made by hand, raw workers, and a client that speaks bytes.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use switchman::config::{Delivery, Protocol};
use switchman::hint::Problems;
use switchman::metrics::VersionCounters;
use switchman::proxy::{self, Door, Front, Pages, ProxyHandle, Settings};
use switchman::registry::{self, Address, Registry, Upstream, Version};
use switchman::routing::{self, Live};
use switchman::rules::publisher::Published;
use switchman::rules::table::RuleTable;
use switchman::rules::{Context, compile};
use switchman::version::{ServiceName, VersionId, VersionState, WorkerId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::eventually;

/// Data-plane threads of a rig.
const THREADS: usize = 2;

/// A running data plane for one service `app` whose `current` is the version `4f2a91c`.
pub(crate) struct Rig {
    pub(crate) proxy: ProxyHandle,
    pub(crate) address: SocketAddr,
    /// Those of all doors, `address` first.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) live: Arc<Live>,
    pub(crate) counters: Arc<VersionCounters>,
    /// How requests are delivered, from the next [`Rig::set_workers`] on.
    pub(crate) delivery: Arc<Delivery>,
    registry: Registry,
    rules: watch::Sender<Arc<Published>>,
}

pub(crate) const VERSION: &str = "4f2a91c";

impl Rig {
    /// Starts with ready workers at these addresses.
    pub(crate) async fn start(settings: Settings, workers: &[Address]) -> Self {
        Self::start_on(settings, workers, &[]).await
    }

    /// Likewise, for the host names `hosts`.
    pub(crate) async fn start_on(settings: Settings, workers: &[Address], hosts: &[&str]) -> Self {
        let door = Door::from(SocketAddr::from(([127, 0, 0, 1], 0)));
        Self::start_behind(settings, workers, hosts, vec![door]).await
    }

    /// Likewise, behind this front.
    pub(crate) async fn start_behind(
        settings: Settings,
        workers: &[Address],
        hosts: &[&str],
        front: impl Into<Front>,
    ) -> Self {
        let pages = Pages::default();
        Self::start_as(settings, workers, (hosts, front.into()), Delivery::default(), &pages).await
    }

    /// Starts with a worker whose requests are delivered in this way.
    pub(crate) async fn deliver(delivery: Delivery, worker: Address) -> Self {
        Self::start_with(Settings::default(), &[worker], &[], delivery, &Pages::default()).await
    }

    /// Starts with these pages for answers of ours.
    pub(crate) async fn start_with(
        settings: Settings,
        workers: &[Address],
        hosts: &[&str],
        delivery: Delivery,
        pages: &Pages,
    ) -> Self {
        let door = Door::from(SocketAddr::from(([127, 0, 0, 1], 0)));
        Self::start_as(settings, workers, (hosts, vec![door].into()), delivery, pages).await
    }

    /// Everything that can be said of a rig.
    async fn start_as(
        settings: Settings,
        workers: &[Address],
        (hosts, front): (&[&str], Front),
        delivery: Delivery,
        pages: &Pages,
    ) -> Self {
        let (registry, reader) = Registry::new();
        let (rules, rules_reader) = watch::channel(Arc::new(published()));
        let live = Live::new();
        let name = ServiceName::from("app");
        tokio::spawn(routing::run(
            live.clone(),
            reader,
            BTreeMap::from([(name.clone(), rules_reader)]),
            BTreeMap::from([(name, hosts.iter().map(|h| (*h).to_owned()).collect())]),
        ));
        let listeners = proxy::bind_front(front, THREADS).unwrap();
        let addresses = listeners.addresses().to_vec();
        let address = addresses[0];
        let proxy = proxy::start(listeners, &live, &settings, pages).unwrap();
        let counters = Arc::new(VersionCounters::new(THREADS));
        let delivery = Arc::new(delivery);
        let rig = Self { proxy, address, addresses, live, counters, delivery, registry, rules };
        rig.set_workers(workers).await;
        rig
    }

    /// Replaces the ready workers, and waits until that is in force.
    pub(crate) async fn set_workers(&self, workers: &[Address]) -> Vec<Arc<Upstream>> {
        self.set_workers_speaking(Protocol::Http1, workers).await
    }

    /// Likewise, for workers that speak `protocol`.
    pub(crate) async fn set_workers_speaking(
        &self,
        protocol: Protocol,
        workers: &[Address],
    ) -> Vec<Arc<Upstream>> {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let upstream = |(id, address): (usize, &Address)| {
            let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
            let worker = WorkerId(id as u32);
            Arc::new(Upstream::new(serial, worker, address.clone(), protocol, THREADS))
        };
        self.set_upstreams(workers.iter().enumerate().map(upstream).collect()).await
    }

    /// Likewise, with workers that were made elsewhere.
    pub(crate) async fn set_upstreams(&self, ready: Vec<Arc<Upstream>>) -> Vec<Arc<Upstream>> {
        let before = self.live.load().generation;
        self.registry.update(|services| {
            let id = VersionId::from(VERSION);
            let version = Version {
                service: ServiceName::from("app"),
                id: id.clone(),
                path: "/srv/app/4f2a91c".into(),
                state: VersionState::Ready,
                since: Timestamp::now(),
                arrived: Timestamp::now(),
                reason: None,
                modified: false,
                workers: Vec::new(),
                wake: None,
                ready: ready.clone(),
                delivery: self.delivery.clone(),
                counters: self.counters.clone(),
            };
            let service: &mut registry::Service = services.entry(ServiceName::from("app")).or_default();
            service.versions.insert(id, Arc::new(version));
        });
        eventually("the new workers are in force", || async {
            (self.live.load().generation > before).then_some(())
        })
        .await;
        ready
    }

    /// Puts a rule document in force, without any alias.
    pub(crate) async fn set_rules(&self, text: &str) {
        let context = Context { file: "rules.yaml", service: "app", extra_routes: &[] };
        let table = Arc::new(compile(text, &context).unwrap().table);
        let before = self.live.load().generation;
        let aliases = Arc::default();
        self.rules.send_replace(Arc::new(Published { generation: 2, table, aliases, ..published() }));
        eventually("the new rules are in force", || async {
            (self.live.load().generation > before).then_some(())
        })
        .await;
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.address).await
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, bytes: impl AsRef<[u8]>) -> Response {
        let mut client = self.connect().await;
        client.send(bytes).await;
        client.response().await.expect("an answer")
    }
}

fn published() -> Published {
    Published {
        generation: 1,
        table: Arc::new(RuleTable::empty()),
        aliases: Arc::new(BTreeMap::from([("current".to_owned(), VERSION.to_owned())])),
        document: "".into(),
        origin: "rules.yaml".into(),
        revision: 0,
        since: Timestamp::now(),
        problems: Arc::new(Problems::default()),
        rejected: false,
        stale_since: None,
    }
}

/// A response as it came over the wire; `body` without its chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The first value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// A client that sends bytes and reads responses.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) buffer: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The other side may have answered and closed already; the response tells.
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Reads more; false at the end of the stream.
    pub(crate) async fn more(&mut self) -> bool {
        let mut part = [0; 16 * 1024];
        let read = tokio::time::timeout(crate::support::patience(), self.stream.read(&mut part));
        match read.await.expect("waited for bytes in vain") {
            Ok(n) => {
                self.buffer.extend_from_slice(&part[..n]);
                n > 0
            }
            Err(_) => false,
        }
    }

    /// Reads and drops the head of a request, as a worker does.
    pub(crate) async fn head_of_request(&mut self) {
        while find(&self.buffer, b"\r\n\r\n").is_none() && self.more().await {}
        let end = find(&self.buffer, b"\r\n\r\n").expect("a whole head") + 4;
        self.buffer.drain(..end);
    }

    /// The head of the next response; none at the end of the stream.
    pub(crate) async fn head(&mut self) -> Option<(u16, String)> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more().await {
                return None;
            }
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap();
        Some((status, head))
    }

    /// The next response, interim ones skipped; none at the end of the stream.
    pub(crate) async fn response(&mut self) -> Option<Response> {
        let (status, head) = loop {
            match self.head().await? {
                (100..=199, _) => {}
                found => break found,
            }
        };
        let mut response = Response { status, head, body: Vec::new() };
        if let Some(length) = response.header("content-length") {
            let length: usize = length.parse().unwrap();
            while self.buffer.len() < length && self.more().await {}
            let length = length.min(self.buffer.len());
            response.body = self.buffer.drain(..length).collect();
        } else if response.header("transfer-encoding") == Some("chunked") {
            response.body = self.chunks().await;
        } else {
            while self.more().await {}
            response.body = std::mem::take(&mut self.buffer);
        }
        Some(response)
    }

    /// A chunked body, to its end or to that of the stream.
    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await {
            body.extend_from_slice(&chunk);
        }
        body
    }

    /// The next chunk; none after the last.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let size =
                    usize::from_str_radix(std::str::from_utf8(&self.buffer[..at]).unwrap(), 16).unwrap();
                if self.buffer.len() >= at + 2 + size + 2 {
                    let chunk = self.buffer[at + 2..at + 2 + size].to_vec();
                    self.buffer.drain(..at + 2 + size + 2);
                    return (size > 0).then_some(chunk);
                }
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Whether the other side has closed; waits for it.
    pub(crate) async fn is_closed(&mut self) -> bool {
        while self.more().await {}
        true
    }
}

pub(crate) fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// A worker that runs `serve` for each connection; its address.
pub(crate) async fn worker<F, T>(serve: F) -> Address
where
    F: Fn(TcpStream) -> T + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    Address::Tcp(address)
}

/// A worker that reads one request head on a connection, answers with these bytes, and closes.
pub(crate) async fn answers(bytes: &'static [u8]) -> Address {
    worker(move |stream| async move {
        let mut reader = Client { stream, buffer: Vec::new() };
        while find(&reader.buffer, b"\r\n\r\n").is_none() {
            if !reader.more().await {
                return;
            }
        }
        reader.send(bytes).await;
    })
    .await
}

/// A worker that answers each request with its head.
pub(crate) async fn echoes_heads() -> Address {
    worker(|stream| async move {
        let mut reader = Client { stream, buffer: Vec::new() };
        loop {
            let end = loop {
                if let Some(at) = find(&reader.buffer, b"\r\n\r\n") {
                    break at + 4;
                }
                if !reader.more().await {
                    return;
                }
            };
            let head: Vec<u8> = reader.buffer.drain(..end).collect();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", head.len());
            reader.send([answer.as_bytes(), &head].concat()).await;
        }
    })
    .await
}

/// A worker of real HTTP, made with axum.
pub(crate) async fn application(router: axum::Router) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    Address::Tcp(address)
}

/// An application that says hello and keeps its connections.
pub(crate) async fn hello() -> Address {
    application(axum::Router::new().fallback(|| async { "hello" })).await
}

pub(crate) const GET: &str = "GET / HTTP/1.1\r\nHost: app\r\n\r\n";
