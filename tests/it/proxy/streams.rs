//! Streams over the end of their worker and of switchman: who is ended, when, and how it looks on both sides.

use std::sync::Arc;
use std::time::{Duration, Instant};

use switchman::drain::Window;
use switchman::proxy::{Drained, Settings};
use switchman::registry::{Address, Upstream};
use tokio::sync::mpsc;

use super::rig::{Client, find, hello, worker};
use super::{GET, Rig, upgrades};
use crate::support::{eventually, patience};

const SSE: &str = "GET /sse HTTP/1.1\r\nHost: app\r\n\r\n";

/// A worker whose body is what the test sends it; none ends it. Each connection is one response.
pub(super) async fn written(
    head: &'static str,
) -> (Address, mpsc::UnboundedReceiver<mpsc::UnboundedSender<Vec<u8>>>) {
    let (connected, connections) = mpsc::unbounded_channel();
    let address = worker(move |stream| {
        let connected = connected.clone();
        async move {
            let mut reader = Client { stream, buffer: Vec::new() };
            while find(&reader.buffer, b"\r\n\r\n").is_none() {
                if !reader.more().await {
                    return;
                }
            }
            reader.send(head).await;
            let (bytes, mut to_send) = mpsc::unbounded_channel::<Vec<u8>>();
            let _ = connected.send(bytes);
            while let Some(bytes) = to_send.recv().await {
                reader.send(bytes).await;
            }
        }
    })
    .await;
    (address, connections)
}

pub(super) const EVENTS: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

pub(super) fn chunk(part: impl AsRef<[u8]>) -> Vec<u8> {
    let part = part.as_ref();
    [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat()
}

/// Takes the worker out of the version, as the supervisor does when it is to stop.
pub(super) async fn stop(rig: &Rig, upstream: &Arc<Upstream>, streams: Duration) -> Instant {
    let now = Instant::now();
    upstream.stops.set(Window::new(now, streams)).unwrap();
    rig.set_workers(&[hello().await]).await;
    now
}

pub(super) async fn until_idle(upstream: &Upstream) {
    eventually("nothing is in flight", || async {
        (upstream.in_flight.now() == 0 && upstream.streams.now() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_event_arrives_before_the_next_is_sent() {
    let (address, mut connections) = written(EVENTS).await;
    let rig = Rig::start(Settings::default(), &[]).await;
    let upstreams = rig.set_workers(&[address]).await;
    let mut client = rig.connect().await;
    client.send(SSE).await;
    let worker = connections.recv().await.unwrap();
    let (status, head) = client.head().await.expect("the head comes before any event");
    assert!(status == 200 && head.contains("text/event-stream"), "{head}");
    assert_eq!((upstreams[0].in_flight.now(), upstreams[0].streams.now()), (1, 1));
    for n in 0..20 {
        let event = format!("data: {n}\n\n");
        worker.send(chunk(&event)).unwrap();
        // Nothing else is sent until this has arrived.
        assert_eq!(client.chunk().await.unwrap(), event.as_bytes());
    }
    drop(client);
    until_idle(&upstreams[0]).await;
}

#[tokio::test]
async fn events_end_after_a_whole_one_and_the_connection_goes_on() {
    let (address, mut connections) = written(EVENTS).await;
    let rig = Rig::start(Settings::default(), &[]).await;
    let upstreams = rig.set_workers(&[address]).await;
    let mut client = rig.connect().await;
    client.send(SSE).await;
    let worker = connections.recv().await.unwrap();
    client.head().await.unwrap();
    worker.send(chunk("data: 1\n\ndata: 2\n")).unwrap();
    assert_eq!(client.chunk().await.unwrap(), b"data: 1\n\ndata: 2\n");
    // The second event is not ended: its end is waited for, and what comes after it is left out.
    stop(&rig, &upstreams[0], Duration::ZERO).await;
    worker.send([chunk("\n"), chunk("data: 3\n\n")].concat()).unwrap();
    assert_eq!(client.chunk().await.unwrap(), b"\n");
    assert_eq!(client.chunk().await, None, "the last chunk");
    assert!(client.buffer.is_empty());
    until_idle(&upstreams[0]).await;
    // As an EventSource does.
    client.send(GET).await;
    assert_eq!(client.response().await.unwrap().text(), "hello");
}

#[tokio::test]
async fn events_without_chunks_end_after_a_whole_one_too() {
    let (address, mut connections) =
        written("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").await;
    for http10 in [false, true] {
        let rig = Rig::start(Settings::default(), &[]).await;
        let upstreams = rig.set_workers(std::slice::from_ref(&address)).await;
        let mut client = rig.connect().await;
        client.send(if http10 { SSE.replace("1.1", "1.0") } else { SSE.to_owned() }).await;
        let worker = connections.recv().await.unwrap();
        client.head().await.unwrap();
        worker.send(b"data: 1\n".to_vec()).unwrap();
        // With chunks, the line is in one.
        let mut body = if http10 { Vec::new() } else { client.chunk().await.unwrap() };
        while http10 && client.buffer.is_empty() && client.more().await {}
        stop(&rig, &upstreams[0], Duration::ZERO).await;
        worker.send(b"\ndata: 2\n\ndata: 3".to_vec()).unwrap();
        if http10 {
            while client.more().await {}
            body.append(&mut client.buffer);
        } else {
            while let Some(chunk) = client.chunk().await {
                body.extend(chunk);
            }
            client.send(GET).await;
            assert_eq!(client.response().await.unwrap().text(), "hello");
        }
        assert_eq!(body, b"data: 1\n\n", "HTTP/1.0: {http10}");
        until_idle(&upstreams[0]).await;
    }
}

#[tokio::test]
async fn events_that_are_compressed_end_where_their_worker_pauses() {
    let (address, mut connections) = written(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
    .await;
    let rig = Rig::start(Settings::default(), &[]).await;
    let upstreams = rig.set_workers(&[address]).await;
    let mut client = rig.connect().await;
    client.send(SSE).await;
    let worker = connections.recv().await.unwrap();
    client.head().await.unwrap();
    // Whatever it means, it was written at once.
    worker.send(chunk("\x1f\u{b}\n\n\x08")).unwrap();
    assert_eq!(client.chunk().await.unwrap(), b"\x1f\x0b\n\n\x08");
    let begun = stop(&rig, &upstreams[0], Duration::ZERO).await;
    assert_eq!(client.chunk().await, None);
    assert!(client.buffer.is_empty(), "the last chunk was there");
    assert!(begun.elapsed() < Duration::from_millis(900), "nothing was waited for: {:?}", begun.elapsed());
    until_idle(&upstreams[0]).await;
    client.send(GET).await;
    assert_eq!(client.response().await.unwrap().text(), "hello");
}

#[tokio::test]
async fn events_with_a_length_are_a_request_and_not_ended() {
    let (address, mut connections) =
        written("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 18\r\n\r\n").await;
    let rig = Rig::start(Settings::default(), &[]).await;
    let upstreams = rig.set_workers(&[address]).await;
    let mut client = rig.connect().await;
    client.send(SSE).await;
    let worker = connections.recv().await.unwrap();
    worker.send(b"data: 1\n\n".to_vec()).unwrap();
    client.head().await.unwrap();
    while client.buffer.len() < 9 && client.more().await {}
    let begun = stop(&rig, &upstreams[0], Duration::ZERO).await;
    assert_eq!((upstreams[0].in_flight.now(), upstreams[0].streams.now()), (1, 0));
    // Longer than a stream has for a whole event.
    eventually("time passes", async || (begun.elapsed() > Duration::from_millis(1300)).then_some(())).await;
    worker.send(b"data: 2\n\n".to_vec()).unwrap();
    while client.buffer.len() < 18 && client.more().await {}
    assert_eq!(client.buffer, b"data: 1\n\ndata: 2\n\n");
    until_idle(&upstreams[0]).await;
}

#[tokio::test]
async fn an_event_that_does_not_end_is_not_waited_for_for_long() {
    let (address, mut connections) = written(EVENTS).await;
    let rig = Rig::start(Settings::default(), &[]).await;
    let upstreams = rig.set_workers(&[address]).await;
    let mut client = rig.connect().await;
    client.send(SSE).await;
    let worker = connections.recv().await.unwrap();
    client.head().await.unwrap();
    worker.send(chunk("data: 1\n")).unwrap();
    client.chunk().await.unwrap();
    let begun = stop(&rig, &upstreams[0], Duration::ZERO).await;
    assert!(client.is_closed().await);
    assert!(client.buffer.is_empty() && begun.elapsed() >= Duration::from_secs(1));
    until_idle(&upstreams[0]).await;
    assert_eq!(rig.counters.traffic(jiff::Timestamp::now()).errors, 0);
}

/// A frame without a mask, as a worker sends it.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    [&[first, payload.len() as u8], payload].concat()
}

/// A frame with the mask 0, as a client sends it.
pub(super) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

/// The payload of a Close frame with a mask.
pub(super) fn unmasked_close(bytes: &[u8]) -> u16 {
    let [0x88, 0x82, a, b, _, _, x, y] = *bytes else { panic!("no masked Close frame: {bytes:?}") };
    u16::from_be_bytes([x ^ a, y ^ b])
}

/// A WebSocket through a rig, both of its ends in the hands of the test.
struct Socket {
    rig: Rig,
    upstream: Arc<Upstream>,
    client: Client,
    worker: Client,
}

impl Socket {
    async fn open() -> Self {
        let (accepted, mut sockets) = mpsc::unbounded_channel();
        let address = worker(move |stream| {
            let accepted = accepted.clone();
            async move {
                let mut worker = Client { stream, buffer: Vec::new() };
                worker.head_of_request().await;
                worker.send("HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n").await;
                let _ = accepted.send(worker);
            }
        })
        .await;
        let rig = Rig::start(Settings::default(), &[]).await;
        let upstream = rig.set_workers(&[address]).await.remove(0);
        let mut client = rig.connect().await;
        client.send(upgrades::UPGRADE).await;
        assert_eq!(client.head().await.unwrap().0, 101);
        let worker = sockets.recv().await.unwrap();
        Self { rig, upstream, client, worker }
    }
}

async fn expect(side: &mut Client, bytes: &[u8]) {
    while side.buffer.len() < bytes.len() && side.more().await {}
    assert_eq!(side.buffer, bytes);
    side.buffer.clear();
}

#[tokio::test]
async fn a_websocket_is_closed_with_1012_and_both_sides_answer() {
    let Socket { rig, upstream, mut client, mut worker } = Socket::open().await;
    client.send(masked(0x81, b"ping")).await;
    expect(&mut worker, &masked(0x81, b"ping")).await;
    // A fragment without its end: control frames may stand between the two.
    worker.send(frame(0x01, b"begin")).await;
    expect(&mut client, &frame(0x01, b"begin")).await;
    stop(&rig, &upstream, Duration::ZERO).await;
    expect(&mut client, &frame(0x88, &1012u16.to_be_bytes())).await;
    while worker.buffer.len() < 8 && worker.more().await {}
    assert_eq!(unmasked_close(&worker.buffer), 1001);
    assert_eq!(upstream.streams.now(), 1, "the answers are waited for");
    // What else they send now is not passed on: nothing may follow a Close frame.
    worker.buffer.clear();
    worker.send([frame(0x80, b"end"), frame(0x88, &1001u16.to_be_bytes())].concat()).await;
    client.send([masked(0x81, b"late"), masked(0x88, &1012u16.to_be_bytes())].concat()).await;
    assert!(client.is_closed().await && worker.is_closed().await);
    assert!(client.buffer.is_empty() && worker.buffer.is_empty());
    until_idle(&upstream).await;
}

#[tokio::test]
async fn the_close_frame_waits_for_the_end_of_a_frame() {
    let Socket { rig, upstream, mut client, mut worker } = Socket::open().await;
    let (down, up) = (frame(0x82, &[1; 100]), masked(0x82, &[2; 100]));
    worker.send(&down[..50]).await;
    client.send(&up[..3]).await;
    expect(&mut client, &down[..50]).await;
    expect(&mut worker, &up[..3]).await;
    stop(&rig, &upstream, Duration::ZERO).await;
    // The rest of the frame, and one more that comes too late.
    worker.send([&down[50..], &frame(0x81, b"late")].concat()).await;
    expect(&mut client, &[&down[50..], &frame(0x88, &1012u16.to_be_bytes())].concat()).await;
    client.send([&up[3..], &masked(0x81, b"late")].concat()).await;
    let rest = up.len() - 3;
    while worker.buffer.len() < rest + 8 && worker.more().await {}
    assert_eq!(worker.buffer[..rest], up[3..]);
    assert_eq!(unmasked_close(&worker.buffer[rest..]), 1001);
}

#[tokio::test]
async fn sides_that_do_not_answer_a_close_frame_are_closed_after_two_seconds() {
    let Socket { rig, upstream, mut client, mut worker } = Socket::open().await;
    let begun = stop(&rig, &upstream, Duration::ZERO).await;
    assert!(client.is_closed().await && worker.is_closed().await);
    assert_eq!(client.buffer, frame(0x88, &1012u16.to_be_bytes()));
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    until_idle(&upstream).await;
}

#[tokio::test]
async fn a_websocket_that_is_closing_by_itself_gets_no_second_close_frame() {
    let Socket { rig, upstream, mut client, mut worker } = Socket::open().await;
    let bye = frame(0x88, &1000u16.to_be_bytes());
    worker.send(&bye).await;
    expect(&mut client, &bye).await;
    stop(&rig, &upstream, Duration::ZERO).await;
    while worker.buffer.len() < 8 && worker.more().await {}
    client.send(masked(0x88, &1000u16.to_be_bytes())).await;
    assert!(client.is_closed().await);
    assert!(client.buffer.is_empty(), "{:?}", client.buffer);
    until_idle(&upstream).await;
}

#[tokio::test]
async fn at_shutdown_streams_end_well_before_the_deadline_and_none_is_cut() {
    let (address, mut connections) = written(EVENTS).await;
    let rig = Rig::start(Settings::default(), &[address]).await;
    let mut clients = Vec::new();
    let mut workers = Vec::new();
    for _ in 0..20 {
        let mut client = rig.connect().await;
        client.send(SSE).await;
        workers.push(connections.recv().await.unwrap());
        client.head().await.unwrap();
        clients.push(client);
    }
    let deadline = Duration::from_secs(2);
    let begun = Instant::now();
    let drained = tokio::spawn(rig.proxy.drain(deadline));
    let ends = clients.into_iter().map(|mut client| async move {
        assert_eq!(client.chunk().await, None);
        assert!(client.buffer.is_empty(), "the last chunk was there");
        begun.elapsed()
    });
    let mut ends = futures_util::future::join_all(ends).await;
    ends.sort_unstable();
    assert!(ends[0] >= deadline / 10, "the first tenth is quiet: {ends:?}");
    assert!(ends[19] - ends[0] >= Duration::from_millis(400), "they are spread: {ends:?}");
    assert_eq!(tokio::time::timeout(patience(), drained).await.unwrap().unwrap(), Drained { cut: 0 });
    assert!(begun.elapsed() < deadline);
}

#[tokio::test]
async fn a_grpc_call_ends_after_a_whole_message_with_a_status() {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: application/grpc+proto\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (address, mut connections) = written(head).await;
    let rig = Rig::start(Settings::default(), &[]).await;
    let upstreams = rig.set_workers(&[address]).await;
    let mut client = rig.connect().await;
    client.send(SSE.replace("Host", "Content-Type: application/grpc\r\nHost")).await;
    let worker = connections.recv().await.unwrap();
    client.head().await.unwrap();
    assert_eq!(upstreams[0].streams.now(), 1);
    worker.send(chunk("\0\0\0\0\x07message\0\0")).unwrap();
    assert_eq!(client.chunk().await.unwrap(), b"\0\0\0\0\x07message\0\0");
    stop(&rig, &upstreams[0], Duration::ZERO).await;
    // The rest of a message; the one after it is left out.
    worker.send([chunk("\0\0\x02ab"), chunk("\0\0\0\0\x01c")].concat()).unwrap();
    assert_eq!(client.chunk().await.unwrap(), b"\0\0\x02ab");
    while find(&client.buffer, b"\r\n\r\n").is_none() && client.more().await {}
    let end = String::from_utf8(std::mem::take(&mut client.buffer)).unwrap();
    assert!(end.starts_with("0\r\ngrpc-status: 14\r\ngrpc-message: ") && end.ends_with("\r\n\r\n"), "{end}");
    until_idle(&upstreams[0]).await;
}
