//! Streams of HTTP/2 clients over the end of their worker and of switchman. Each is one of several on its
//! connection: the others go on.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::Router;
use bytes::Bytes;
use h2::RecvStream;
use h2::client::ResponseFuture;
use http::request;
use switchman::proxy::{Drained, Settings};
use tokio::sync::mpsc;

use super::websockets::{client, connect, receive, send, switched};
use super::{Answer, Http2, answer, get, post, read};
use crate::proxy::rig::{Client, application, find, hello, worker};
use crate::proxy::streams::{EVENTS, chunk, frame, masked, stop, unmasked_close, until_idle, written};
use crate::proxy::{Rig, VERSION};
use crate::support::{eventually, patience};

/// The body of a response that has begun.
async fn opened(response: ResponseFuture) -> RecvStream {
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body()
}

async fn hello_from(client: &mut Http2) -> Answer {
    let answer = client.ask(get("/")).await.unwrap();
    assert_eq!(answer.body, "hello");
    answer
}

/// Rules that lead to another version, and then back again.
async fn edit_rules(rig: &Rig, client: &mut Http2) {
    rig.set_rules("default: c0ffee1\n").await;
    assert_eq!(client.ask(get("/")).await.unwrap().status, 503, "new requests go by the new rules");
    rig.set_rules(&format!("default: {VERSION}\n")).await;
}

#[tokio::test]
async fn events_end_after_a_whole_one_and_the_next_come_from_another_worker() {
    let (address, mut connections) = written(EVENTS).await;
    let rig = Rig::start(Settings::default(), &[]).await;
    let upstreams = rig.set_workers(&[address]).await;
    let mut client = rig.connect_http2().await;
    let (response, _) = client.begin(get("/sse"), true).await;
    let (other, _) = client.begin(get("/sse"), true).await;
    let (worker, busy) = (connections.recv().await.unwrap(), connections.recv().await.unwrap());
    let (mut events, mut others) = (opened(response).await, opened(other).await);
    edit_rules(&rig, &mut client).await;
    worker.send(chunk("data: 1\n\ndata: 2\n")).unwrap();
    busy.send(chunk("data: 1\n\ndata: 2\n")).unwrap();
    assert_eq!(receive(&mut events, 17).await, b"data: 1\n\ndata: 2\n");
    assert_eq!(receive(&mut others, 17).await, b"data: 1\n\ndata: 2\n");
    stop(&rig, &upstreams[0], Duration::ZERO).await;
    // As an EventSource does whose stream has ended; also while others on its connection have not.
    hello_from(&mut client).await;
    for (worker, events) in [(worker, &mut events), (busy, &mut others)] {
        worker.send([chunk("\n"), chunk("data: 3\n\n")].concat()).unwrap();
        // END_STREAM, without trailers.
        assert_eq!(read(events).await.unwrap(), (Bytes::from("\n"), None));
        hello_from(&mut client).await;
    }
    until_idle(&upstreams[0]).await;
}

#[tokio::test]
async fn a_websocket_is_closed_with_1012_between_two_frames() {
    let (accepted, mut sockets) = mpsc::unbounded_channel();
    let address = worker(move |stream| {
        let accepted = accepted.clone();
        async move {
            let mut worker = Client { stream, buffer: Vec::new() };
            while find(&worker.buffer, b"\r\n\r\n").is_none() && worker.more().await {}
            let head = String::from_utf8(std::mem::take(&mut worker.buffer)).unwrap();
            let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
            // No frames, so without its first bytes.
            worker.send(switched(key).trim_end_matches("hi")).await;
            let _ = accepted.send(worker);
        }
    })
    .await;
    let rig = Rig::start(Settings::default(), &[]).await;
    let upstreams = rig.set_workers(&[address]).await;
    let mut client = client(&rig).await;
    let (response, mut to) = client.begin(connect("websocket"), false).await;
    let mut from = opened(response).await;
    let mut worker = sockets.recv().await.unwrap();
    edit_rules(&rig, &mut client).await;
    send(&mut to, &masked(0x81, b"up")).await;
    while worker.buffer.len() < 8 && worker.more().await {}
    assert_eq!(std::mem::take(&mut worker.buffer), masked(0x81, b"up"));
    let down = frame(0x82, &[1; 100]);
    worker.send(&down[..50]).await;
    assert_eq!(receive(&mut from, 50).await, &down[..50]);
    stop(&rig, &upstreams[0], Duration::ZERO).await;
    while worker.buffer.len() < 8 && worker.more().await {}
    assert_eq!(unmasked_close(&worker.buffer), 1001);
    // The frame goes on, and the Close frame comes behind it.
    hello_from(&mut client).await;
    worker.send(&down[50..]).await;
    let close = frame(0x88, &1012u16.to_be_bytes());
    assert_eq!(receive(&mut from, 56).await, [&down[50..], &close].concat());
    // Both answer, and the stream ends; its connection does not.
    worker.send(frame(0x88, &1001u16.to_be_bytes())).await;
    send(&mut to, &masked(0x88, &1012u16.to_be_bytes())).await;
    assert_eq!(read(&mut from).await.unwrap(), (Bytes::new(), None));
    until_idle(&upstreams[0]).await;
    hello_from(&mut client).await;
}

const GRPC: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/grpc+proto\r\nTransfer-Encoding: chunked\r\n\r\n";

fn call() -> request::Builder {
    post("/test.Echo/Many").header("content-type", "application/grpc+proto").header("te", "trailers")
}

/// A whole message of this length.
fn message(length: u32) -> Vec<u8> {
    [&[0], &length.to_be_bytes()[..], &vec![b'm'; length as usize]].concat()
}

#[tokio::test]
async fn a_call_ends_unavailable_after_a_whole_message() {
    let (address, mut connections) = written(GRPC).await;
    let rig = Rig::start(Settings::default(), &[]).await;
    let upstreams = rig.set_workers(&[address]).await;
    let mut client = rig.connect_http2().await;
    // The first ends at once; the second in the middle of a message; the third goes on sending meanwhile.
    let mut calls = Vec::new();
    for upload in [false, false, true] {
        let (response, to) = client.begin(call(), !upload).await;
        let worker = connections.recv().await.unwrap();
        calls.push((worker, opened(response).await, to));
    }
    edit_rules(&rig, &mut client).await;
    for (worker, body, _) in &mut calls {
        worker.send(chunk(message(10))).unwrap();
        assert_eq!(receive(body, 15).await, message(10));
    }
    let begun = message(20_000);
    calls[1].0.send(chunk(&begun[..9])).unwrap();
    assert_eq!(receive(&mut calls[1].1, 9).await, begun[..9]);
    stop(&rig, &upstreams[0], Duration::ZERO).await;
    for (index, (worker, body, _to)) in calls.iter_mut().enumerate() {
        if index == 1 {
            // The first has ended, so this is known to be ending: what comes after its message is left out.
            worker.send([chunk(&begun[9..]), chunk(message(3))].concat()).unwrap();
        }
        let (rest, trailers) = read(body).await.unwrap();
        assert!(rest == if index == 1 { &begun[9..] } else { &[] }, "{index}: {} bytes", rest.len());
        let trailers = trailers.expect("trailers");
        assert_eq!(trailers["grpc-status"], "14");
        assert!(trailers["grpc-message"].to_str().unwrap().contains("call again"), "{trailers:?}");
        hello_from(&mut client).await;
    }
    until_idle(&upstreams[0]).await;
    assert_eq!(rig.counters.traffic(jiff::Timestamp::now()).errors, 0);
}

#[tokio::test]
async fn a_message_that_does_not_end_is_not_waited_for_for_long() {
    let (address, mut connections) = written(GRPC).await;
    let rig = Rig::start(Settings::default(), &[]).await;
    let upstreams = rig.set_workers(&[address]).await;
    let mut client = rig.connect_http2().await;
    let (response, _) = client.begin(call(), true).await;
    let worker = connections.recv().await.unwrap();
    let mut body = opened(response).await;
    worker.send(chunk(&message(100)[..50])).unwrap();
    assert_eq!(receive(&mut body, 50).await, &message(100)[..50]);
    let begun = stop(&rig, &upstreams[0], Duration::ZERO).await;
    let (rest, trailers) = read(&mut body).await.unwrap();
    assert!(rest.is_empty() && begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(trailers.expect("trailers")["grpc-status"], "14");
    until_idle(&upstreams[0]).await;
    hello_from(&mut client).await;
}

#[tokio::test]
async fn a_long_download_is_a_request_and_not_ended() {
    let (address, mut connections) =
        written("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let rig = Rig::start(Settings::default(), &[]).await;
    let upstreams = rig.set_workers(&[address]).await;
    let mut client = rig.connect_http2().await;
    let (response, _) = client.begin(get("/download"), true).await;
    let worker = connections.recv().await.unwrap();
    let mut body = opened(response).await;
    let stopped = stop(&rig, &upstreams[0], Duration::from_millis(100)).await;
    assert_eq!((upstreams[0].in_flight.now(), upstreams[0].streams.now()), (1, 0));
    for n in 0..5 {
        let part = format!("part {n}\n\n");
        worker.send(chunk(&part)).unwrap();
        assert_eq!(receive(&mut body, part.len()).await, part.as_bytes());
        let next = Duration::from_millis(100 * (n + 1));
        eventually("time passes", async || (stopped.elapsed() > next).then_some(())).await;
    }
    worker.send(b"0\r\n\r\n".to_vec()).unwrap();
    assert_eq!(read(&mut body).await.unwrap(), (Bytes::new(), None));
    until_idle(&upstreams[0]).await;
}

/// Requests one after the other on one connection, and on one to the `other` node once the first says GOAWAY.
async fn load(first: Http2, other: std::net::SocketAddr, done: Arc<AtomicUsize>, enough: Arc<AtomicBool>) {
    let mut client = first;
    while !enough.load(Relaxed) {
        if poll_fn(|cx| client.send.poll_ready(cx)).await.is_err() {
            client = Http2::connect(other).await;
            continue;
        }
        // GOAWAY may have come in between: then nothing was sent.
        let Ok((response, _)) = client.send.send_request(get("/").body(()).unwrap(), true) else {
            client = Http2::connect(other).await;
            continue;
        };
        let answer = answer(response).await.expect("what was sent is answered");
        assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]));
        done.fetch_add(1, Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_elsewhere_on_goaway_loses_no_request() {
    let (address, mut connections) = written(EVENTS).await;
    let ends = Rig::start(Settings::default(), &[]).await;
    let upstreams = ends.set_workers(&[address]).await;
    let goes_on = Rig::start(Settings::default(), &[hello().await]).await;
    // Each connection has a stream that is open for as long as it may be.
    let mut clients = Vec::new();
    let mut streams = Vec::new();
    let mut workers = Vec::new();
    for _ in 0..8 {
        let mut client = ends.connect_http2().await;
        let (response, _) = client.begin(get("/sse"), true).await;
        workers.push(connections.recv().await.unwrap());
        streams.push(opened(response).await);
        clients.push(client);
    }
    let hello = application(Router::new().fallback(|| async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        "hello"
    }));
    ends.set_workers(&[hello.await]).await;
    let (done, enough) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let loads: Vec<_> = clients
        .into_iter()
        .map(|client| tokio::spawn(load(client, goes_on.address, done.clone(), enough.clone())))
        .collect();
    eventually("the load is there", async || (done.load(Relaxed) > 50).then_some(())).await;
    let deadline = Duration::from_secs(2);
    let begun = Instant::now();
    let drained = tokio::spawn(ends.proxy.drain(deadline));
    eventually("all have gone elsewhere", async || {
        (goes_on.counters.requests() > 100 && goes_on.counters.requests() > ends.counters.requests())
            .then_some(())
    })
    .await;
    // The streams have their time, and end as streams do.
    let ended = streams.into_iter().map(|mut body| async move {
        assert_eq!(read(&mut body).await.unwrap(), (Bytes::new(), None));
        begun.elapsed()
    });
    let ended = futures_util::future::join_all(ended).await;
    assert!(ended.iter().all(|end| (deadline / 10..deadline).contains(end)), "{ended:?}");
    let drained = tokio::time::timeout(patience(), drained).await.expect("it ends").unwrap();
    assert_eq!(drained, Drained { cut: 0 });
    enough.store(true, Relaxed);
    for load in loads {
        load.await.expect("no request was lost");
    }
    drop(workers);
    until_idle(&upstreams[0]).await;
}
