//! A worker is free as soon as it has answered, however slow its client reads; and is asked only when a slow upload
//! is there, where the service wants that.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::Response;
use axum::routing::get;
use switchman::config::{Compress, Delivery};
use switchman::proxy::{Pages, Settings};
use switchman::registry::{Address, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::rig::{Client, GET, answers, application, find, worker};
use super::{Rig, VERSION};
use crate::support::eventually;

const MIB: usize = 1024 * 1024;

/// The worker that takes the requests, after `set_workers` with this one address.
async fn only(rig: &Rig, worker: Address) -> Arc<Upstream> {
    rig.set_workers(&[worker]).await.remove(0)
}

/// A client whose kernel takes only a little that it has not read.
async fn slow(rig: &Rig) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    Client { stream: socket.connect(rig.address).await.unwrap(), buffer: Vec::new() }
}

fn body(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

/// A worker that answers each request on a connection with so many bytes, framed as `/length`, `/chunks`.
async fn large(length: usize) -> Address {
    let whole = move || async move { body(length) };
    let chunks = move || async move {
        let parts: Vec<_> = body(length).chunks(50_000).map(Bytes::copy_from_slice).collect();
        let parts = futures_util::stream::iter(parts.into_iter().map(Ok::<_, std::io::Error>));
        Response::builder().header("content-type", "text/plain").body(Body::from_stream(parts)).unwrap()
    };
    application(Router::new().route("/length", get(whole)).route("/chunks", get(chunks))).await
}

#[tokio::test]
async fn a_worker_is_free_while_its_client_still_reads() {
    let address = large(8 * MIB).await;
    let delivery = Delivery { buffer: 16 * MIB as u64, ..Delivery::default() };
    let rig = Rig::deliver(delivery, address.clone()).await;
    let worker = only(&rig, address).await;
    for (path, version) in [("/length", "1.1"), ("/chunks", "1.1"), ("/chunks", "1.0")] {
        let mut client = slow(&rig).await;
        client.send(format!("GET {path} HTTP/{version}\r\nHost: app\r\n\r\n")).await;
        let (_, head) = client.head().await.unwrap();
        eventually("the worker is free", || async { (worker.in_flight.now() == 0).then_some(()) }).await;
        assert!(client.buffer.len() < MIB, "the client has not read it");
        let read = if head.to_ascii_lowercase().contains("chunked") {
            let mut read = Vec::new();
            while let Some(chunk) = client.chunk().await {
                read.extend(chunk);
            }
            read
        } else {
            while client.buffer.len() < 8 * MIB && client.more().await {}
            client.buffer
        };
        assert!(read == body(8 * MIB), "{path} {version}: {} bytes", read.len());
    }
    eventually("all are counted", || async { (rig.counters.requests() == 3).then_some(()) }).await;
}

#[tokio::test]
async fn without_a_buffer_the_worker_waits_for_its_client() {
    let address = large(8 * MIB).await;
    let rig = Rig::deliver(Delivery { buffer: 0, ..Delivery::default() }, address.clone()).await;
    let worker = only(&rig, address).await;
    let mut client = slow(&rig).await;
    client.send("GET /length HTTP/1.1\r\nHost: app\r\n\r\n").await;
    client.head().await.unwrap();
    // The client has read some of it, and the rest is more than the kernel takes.
    while client.buffer.len() < MIB {
        assert!(client.more().await);
    }
    assert_eq!(worker.in_flight.now(), 1);
    while client.buffer.len() < 8 * MIB && client.more().await {}
    assert!(client.buffer == body(8 * MIB));
    eventually("the worker is free", || async { (worker.in_flight.now() == 0).then_some(()) }).await;
}

#[tokio::test]
async fn a_compressed_response_is_taken_ahead_too() {
    let address = large(64 * MIB).await;
    let compress = Some(Compress::default());
    let delivery = Delivery { buffer: 64 * MIB as u64, compress, ..Delivery::default() };
    let rig = Rig::deliver(delivery, address.clone()).await;
    let worker = only(&rig, address).await;
    let mut client = slow(&rig).await;
    client.send("GET /chunks HTTP/1.1\r\nHost: app\r\nAccept-Encoding: gzip\r\n\r\n").await;
    client.head().await.unwrap();
    eventually("the worker is free", || async { (worker.in_flight.now() == 0).then_some(()) }).await;
    while client.chunk().await.is_some() {}
    eventually("it is counted", || async { (rig.counters.requests() == 1).then_some(()) }).await;
}

#[tokio::test]
async fn a_client_gets_what_came_before_a_worker_died() {
    const SENT: usize = 2 * MIB;
    let dies = worker(|mut stream| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 2 * SENT);
        let _ = stream.write_all(&[head.as_bytes(), &body(SENT)].concat()).await;
    });
    let rig = Rig::deliver(Delivery { buffer: SENT as u64, ..Delivery::default() }, dies.await).await;
    let mut client = slow(&rig).await;
    client.send(GET).await;
    client.head().await.unwrap();
    assert!(client.is_closed().await);
    assert!(client.buffer == body(SENT), "{} bytes arrived", client.buffer.len());
}

fn gathers(bytes: usize) -> Delivery {
    Delivery { buffer_requests: bytes as u64, ..Delivery::default() }
}

/// An application that sends back the request's `expect` and how long its body is.
async fn measures() -> Address {
    let measure = |headers: axum::http::HeaderMap, body: Bytes| async move {
        format!("{:?} {}", headers.get("expect"), body.len())
    };
    let limit = axum::extract::DefaultBodyLimit::disable();
    application(Router::new().fallback(measure).layer(limit)).await
}

#[tokio::test]
async fn a_slow_upload_holds_no_worker() {
    let address = measures().await;
    let rig = Rig::deliver(gathers(MIB), address.clone()).await;
    let worker = only(&rig, address).await;
    let mut client = rig.connect().await;
    for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        client
            .send(format!("POST / HTTP/1.1\r\nHost: app\r\nExpect: 100-continue\r\n{framing}\r\n\r\n"))
            .await;
        let (status, head) = client.head().await.unwrap();
        assert!(status == 100 && head.contains(VERSION), "we say so at once: {head}");
        assert_eq!(worker.in_flight.now(), 0);
        let parts =
            if framing.starts_with('C') { ["he", "llo"] } else { ["2\r\nhe", "\r\n3\r\nllo\r\n0\r\n\r\n"] };
        client.send(parts[0]).await;
        assert_eq!(worker.in_flight.now(), 0);
        client.send(parts[1]).await;
        assert_eq!(client.response().await.unwrap().text(), "None 5", "{framing}");
    }
}

#[tokio::test]
async fn an_upload_holds_its_worker_where_nothing_is_gathered_or_it_is_too_large() {
    for (gathered, first) in [(0, 1), (MIB, 2 * MIB)] {
        let address = measures().await;
        let rig = Rig::deliver(gathers(gathered), address.clone()).await;
        let worker = only(&rig, address).await;
        let mut client = rig.connect().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: {}\r\n\r\n", 4 * MIB)).await;
        client.send(&body(first)).await;
        eventually("the worker is asked", || async { (worker.in_flight.now() == 1).then_some(()) }).await;
        client.send(&body(4 * MIB - first)).await;
        assert_eq!(client.response().await.unwrap().text(), format!("None {}", 4 * MIB));
    }
}

/// Both sides of a gRPC call talk in turns: the end of the request may wait for the answer to its beginning.
#[tokio::test]
async fn a_grpc_call_is_never_gathered() {
    let address = measures().await;
    let rig = Rig::deliver(gathers(MIB), address.clone()).await;
    let worker = only(&rig, address).await;
    let mut client = rig.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: app\r\nContent-Type: application/grpc\r\nContent-Length: 5\r\n\r\nhe")
        .await;
    eventually("the worker is asked", || async { (worker.in_flight.now() == 1).then_some(()) }).await;
    client.send("llo").await;
    assert_eq!(client.response().await.unwrap().text(), "None 5");
}

#[tokio::test]
async fn a_gathered_upload_can_be_sent_to_another_worker() {
    let dies = worker(|stream| async move {
        let mut reader = Client { stream, buffer: Vec::new() };
        while find(&reader.buffer, b"hello").is_none() && reader.more().await {}
    });
    let rig = Rig::deliver(gathers(MIB), answers(b"").await).await;
    // Of equals they take turns: some of the requests begin with the one that dies.
    rig.set_workers(&[dies.await, measures().await]).await;
    for _ in 0..4 {
        let mut client = rig.connect().await;
        client.send("PUT / HTTP/1.1\r\nHost: app\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
        assert_eq!(client.head().await.unwrap().0, 100);
        client.send("hello").await;
        assert_eq!(client.response().await.unwrap().text(), "None 5");
    }
}

#[tokio::test]
async fn an_upload_that_stands_still_or_is_wrong_never_reaches_a_worker() {
    let address = answers(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let settings = Settings { body_timeout: Duration::from_millis(300), ..Settings::default() };
    let rig = Rig::start_with(settings, &[address], &[], gathers(MIB), &Pages::default()).await;
    for (framing, sent, status, cause) in [
        ("Content-Length: 5", "he", 408, "request-timeout"),
        ("Transfer-Encoding: chunked", "2\r\nhello\r\n", 400, "bad-request"),
    ] {
        let mut client = rig.connect().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: app\r\n{framing}\r\n\r\n")).await;
        client.send(sent).await;
        let response = client.response().await.unwrap();
        assert_eq!((response.status, response.header("x-switchman-error")), (status, Some(cause)));
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_counted_and_is_no_error() {
    let silent =
        worker(|mut stream| async move { while stream.read(&mut [0; 1024]).await.is_ok_and(|n| n > 0) {} });
    let rig = Rig::deliver(Delivery::default(), silent.await).await;
    let mut client = rig.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\nhe").await;
    drop(client);
    eventually("it is counted", || async { (rig.counters.gone() == 1).then_some(()) }).await;
    eventually("so is the request", || async { (rig.counters.requests() == 1).then_some(()) }).await;
    assert_eq!(rig.counters.traffic(jiff::Timestamp::now()).errors, 0);
}
