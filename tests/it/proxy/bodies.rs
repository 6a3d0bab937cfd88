//! Bodies in both directions, framed in every way there is, and never held whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use futures_util::StreamExt;
use switchman::proxy::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::rig::{Client, answers, application, worker};
use super::{GET, Rig};
use crate::support::eventually;

const MIB: usize = 1024 * 1024;

/// An application that sends a body back as it arrives.
async fn echo() -> switchman::registry::Address {
    application(Router::new().fallback(|request: Request| async move { Response::new(request.into_body()) }))
        .await
}

#[tokio::test]
async fn bodies_of_every_framing_come_back_whole() {
    let rig = Rig::start(Settings::default(), &[echo().await]).await;
    let mut client = rig.connect().await;
    for length in [0, 1, 1000, 72 * 1024, 72 * 1024 + 1, 3 * MIB] {
        let body: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let head = format!("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: {length}\r\n\r\n");
        exchange(&mut client, head, &[&body], &body).await;

        let head = "POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
        let mut chunked = Vec::new();
        for part in body.chunks(10_000) {
            chunked.extend_from_slice(format!("{:x};e=1\r\n", part.len()).as_bytes());
            chunked.extend_from_slice(part);
            chunked.extend_from_slice(b"\r\n");
        }
        chunked.extend_from_slice(b"0\r\nX-Trailer: 1\r\n\r\n");
        exchange(&mut client, head, &[&chunked], &body).await;
    }
}

/// Sends while it receives, as a large echo needs, over one connection that stays open.
async fn exchange(client: &mut Client, head: String, parts: &[&[u8]], expected: &[u8]) {
    let (mut read, mut write) = client.stream.split();
    let send = async {
        write.write_all(head.as_bytes()).await.unwrap();
        for part in parts {
            write.write_all(part).await.unwrap();
        }
    };
    let receive = async {
        let mut buffer = std::mem::take(&mut client.buffer);
        let mut part = vec![0; 64 * 1024];
        while !is_whole(&buffer, expected.len()) {
            let n = read.read(&mut part).await.unwrap();
            assert!(n > 0, "cut after {} bytes", buffer.len());
            buffer.extend_from_slice(&part[..n]);
        }
        buffer
    };
    let ((), buffer) = tokio::join!(send, receive);
    client.buffer = buffer;
    let response = client.response().await.unwrap();
    assert_eq!(response.status, 200);
    assert!(response.body == expected, "{} bytes came back", response.body.len());
    if response.header("connection") == Some("close") {
        // The answer began before the request had ended.
        client.stream = tokio::net::TcpStream::connect(client.stream.peer_addr().unwrap()).await.unwrap();
    }
}

fn is_whole(bytes: &[u8], length: usize) -> bool {
    bytes.len() >= length
        && (bytes.ends_with(b"0\r\n\r\n") || !bytes.windows(9).take(400).any(|w| w == b": chunked"))
        && super::rig::find(bytes, b"\r\n\r\n").is_some_and(|at| bytes.len() >= at + 4 + length)
}

#[tokio::test]
async fn a_hundred_megabytes_pass_up_and_down_in_bounded_memory() {
    const LENGTH: usize = 100 * MIB;
    let received = Arc::new(AtomicUsize::new(0));
    let counted = received.clone();
    let upload = move |request: Request| {
        let counted = counted.clone();
        async move {
            let mut body = request.into_body().into_data_stream();
            while let Some(Ok(part)) = body.next().await {
                counted.fetch_add(part.len(), Ordering::Relaxed);
            }
            "thanks"
        }
    };
    let download = || async {
        let part = Bytes::from(vec![7; MIB]);
        Body::from_stream(futures_util::stream::repeat(part).take(100).map(Ok::<_, std::io::Error>))
    };
    let app =
        Router::new().route("/up", axum::routing::put(upload)).route("/down", axum::routing::get(download));
    let rig = Rig::start(Settings::default(), &[application(app).await]).await;
    let mut client = rig.connect().await;

    let before = resident();
    client.send(format!("PUT /up HTTP/1.1\r\nHost: app\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
    let part = vec![7; MIB];
    for _ in 0..100 {
        client.send(&part).await;
    }
    assert_eq!(client.response().await.unwrap().text(), "thanks");
    assert_eq!(received.load(Ordering::Relaxed), LENGTH);

    client.send("GET /down HTTP/1.1\r\nHost: app\r\n\r\n").await;
    client.head().await.unwrap();
    let mut length = 0;
    while let Some(chunk) = client.chunk().await {
        length += chunk.len();
    }
    assert_eq!(length, LENGTH);
    let grown = resident().saturating_sub(before);
    assert!(grown < 40 * MIB, "memory grew by {} KiB", grown / 1024);
}

/// This process's resident memory in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap() * 4096
}

#[tokio::test]
async fn a_slow_reader_holds_the_sender_back() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let download = move || {
        let counted = counted.clone();
        async move {
            let parts = futures_util::stream::iter(0..1000).map(move |_| {
                counted.fetch_add(MIB, Ordering::Relaxed);
                Ok::<_, std::io::Error>(Bytes::from(vec![7; MIB]))
            });
            Body::from_stream(parts)
        }
    };
    let rig = Rig::start(Settings::default(), &[application(Router::new().fallback(download)).await]).await;
    let mut client = rig.connect().await;
    client.send(GET).await;
    client.head().await.unwrap();
    // Nothing is read any more: the worker comes to a stand long before its gigabyte is out.
    let mut last = usize::MAX;
    eventually("the worker is held back", || {
        let now = sent.load(Ordering::Relaxed);
        let stands = now == std::mem::replace(&mut last, now);
        async move {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            stands.then_some(())
        }
    })
    .await;
    assert!(sent.load(Ordering::Relaxed) < 100 * MIB);
}

#[tokio::test]
async fn the_first_event_arrives_before_the_stream_ends() {
    let (next, mut events) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(1);
    let events = futures_util::stream::poll_fn(move |cx| events.poll_recv(cx));
    let events = Arc::new(std::sync::Mutex::new(Some(events)));
    let stream = move || {
        let events = events.lock().unwrap().take().unwrap();
        async move {
            Response::builder()
                .header("content-type", "text/event-stream")
                .body(Body::from_stream(events))
                .unwrap()
        }
    };
    let rig = Rig::start(Settings::default(), &[application(Router::new().fallback(stream)).await]).await;
    let mut client = rig.connect().await;
    client.send(GET).await;
    let (status, _) = client.head().await.unwrap();
    assert_eq!(status, 200, "the head arrives before any event");
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        next.send(Ok(event.to_owned())).await.unwrap();
        assert_eq!(client.chunk().await.unwrap(), event.as_bytes());
    }
    drop(next);
    assert_eq!(client.chunk().await, None);
}

#[tokio::test]
async fn answers_are_framed_for_the_client() {
    const OLD: &str = "GET / HTTP/1.0\r\n\r\n";
    const OLD_KEEP: &str = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: app\r\n\r\n";
    let length = &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..];
    let chunked =
        &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"[..];
    let closed = &b"HTTP/1.0 200 OK\r\n\r\nhello"[..];
    let length_head = &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"[..];
    let none = &b"HTTP/1.1 204 No Content\r\n\r\n"[..];
    let unchanged = &b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"[..];
    // (what the worker sends, request, framing header, connection header, body)
    for (bytes, request, framing, connection, body) in [
        (length, GET, Some("content-length: 5"), None, "hello"),
        (chunked, GET, Some("transfer-encoding: chunked"), None, "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
        (closed, GET, Some("transfer-encoding: chunked"), None, "5\r\nhello\r\n0\r\n\r\n"),
        (length, OLD, Some("content-length: 5"), Some("connection: close"), "hello"),
        (length, OLD_KEEP, Some("content-length: 5"), Some("connection: keep-alive"), "hello"),
        (chunked, OLD_KEEP, None, Some("connection: close"), "hello"),
        (closed, OLD, None, Some("connection: close"), "hello"),
        (length_head, HEAD, Some("content-length: 5"), None, ""),
        (none, GET, None, None, ""),
        (unchanged, GET, Some("content-length: 5"), None, ""),
    ] {
        let rig = Rig::start(Settings::default(), &[answers(bytes).await]).await;
        let mut client = rig.connect().await;
        client.send(request).await;
        let (_, head) = client.head().await.unwrap();
        while client.buffer.len() < body.len() && client.more().await {}
        assert_eq!(String::from_utf8_lossy(&client.buffer), body, "{request:?} {head}");
        let head = head.to_ascii_lowercase();
        for header in ["content-length: ", "transfer-encoding: ", "connection: "] {
            let expected = [framing, connection].into_iter().flatten().find(|h| h.starts_with(header));
            let found = head.lines().find(|line| line.starts_with(header));
            assert_eq!(found, expected, "{request:?} {head}");
        }
    }
}

#[tokio::test]
async fn interim_responses_and_expectations_pass() {
    let continues = worker(|stream| async move {
        let mut reader = Client { stream, buffer: Vec::new() };
        while super::rig::find(&reader.buffer, b"\r\n\r\n").is_none() && reader.more().await {}
        assert!(String::from_utf8_lossy(&reader.buffer).contains("Expect: 100-continue"));
        reader.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
        while !reader.buffer.ends_with(b"hello") && reader.more().await {}
        reader.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    });
    let rig = Rig::start(Settings::default(), &[continues.await]).await;
    let mut client = rig.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: app\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().0, 100);
    let (status, hints) = client.head().await.unwrap();
    assert!(status == 103 && hints.contains("Link: </a>"), "{hints}");
    client.send("hello").await;
    assert_eq!(client.response().await.unwrap().text(), "ok");
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let refuses =
        answers(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
    let rig = Rig::start(Settings::default(), &[refuses.await]).await;
    let mut client = rig.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: {}\r\n\r\n", 20 * MIB)).await;
    client.send(vec![7; MIB]).await;
    let response = client.response().await.unwrap();
    assert_eq!((response.status, response.text()), (413, "no"));
    assert_eq!(response.header("connection"), Some("close"));
}

#[tokio::test]
async fn an_answer_that_breaks_off_ends_the_connection() {
    for (bytes, expected) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello"[..], 200),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 200),
        // False in what came with the head: nothing of it is passed on.
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloooo\r\n", 502),
    ] {
        let rig = Rig::start(Settings::default(), &[answers(bytes).await]).await;
        let mut client = rig.connect().await;
        client.send(GET).await;
        if let Some((status, _)) = client.head().await {
            assert_eq!(status, expected);
            assert!(status == 502 || client.is_closed().await && !client.buffer.ends_with(b"0\r\n\r\n"));
        }
        let rejected = || async {
            let traffic = rig.counters.traffic(jiff::Timestamp::now());
            (traffic.errors == 1).then_some(())
        };
        eventually("it is counted as an error", rejected).await;
    }
}
