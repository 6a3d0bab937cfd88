//! WebSockets: a tunnel after 101, the bytes already read first.

use switchman::proxy::Settings;
use switchman::registry::Address;

use super::rig::{Client, find, worker};
use super::{GET, Rig, VERSION};
use crate::support::eventually;

pub(crate) const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: app\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A worker that switches protocols, greets, and sends every byte back.
pub(crate) async fn echo() -> Address {
    worker(|stream| async move {
        let mut reader = Client { stream, buffer: Vec::new() };
        while find(&reader.buffer, b"\r\n\r\n").is_none() && reader.more().await {}
        let end = find(&reader.buffer, b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(reader.buffer.drain(..end).collect()).unwrap();
        if !head.contains("Upgrade: websocket\r\n") {
            let answer = "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nUpgrade: websocket\r\n\r\n";
            return reader.send(answer).await;
        }
        assert!(head.contains("Connection: upgrade\r\n") && head.contains("Sec-WebSocket-Key: x3JJ"), "{head}");
        reader
            .send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-A: 1\r\n\r\nhi")
            .await;
        loop {
            let bytes = std::mem::take(&mut reader.buffer);
            reader.send(&bytes).await;
            if !reader.more().await {
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_websocket_is_tunnelled_in_both_directions() {
    let rig = Rig::start(Settings::default(), &[]).await;
    let upstreams = rig.set_workers(&[echo().await]).await;
    let mut client = rig.connect().await;
    // The first frame is sent before the answer is there.
    client.send(format!("{UPGRADE}first")).await;
    let (status, head) = client.head().await.unwrap();
    assert_eq!(status, 101);
    let version = format!("x-switchman-version: {VERSION}\r\n");
    for line in ["upgrade: websocket\r\n", "connection: upgrade\r\n", "X-A: 1\r\n", version.as_str()] {
        assert_eq!(head.matches(line).count(), 1, "{line} in {head}");
    }
    while client.buffer.len() < 7 && client.more().await {}
    assert_eq!(client.buffer, b"hifirst");
    client.buffer.clear();
    let big: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
    for _ in 0..5 {
        client.send(&big).await;
        while client.buffer.len() < big.len() && client.more().await {}
        assert!(client.buffer == big);
        client.buffer.clear();
    }
    assert_eq!(upstreams[0].in_flight.now(), 1, "an open tunnel is in flight");
    drop(client);
    eventually("nothing is in flight", || async { (upstreams[0].in_flight.now() == 0).then_some(()) }).await;
}

#[tokio::test]
async fn another_protocol_is_not_upgraded_and_a_refusal_is_passed_on() {
    let rig = Rig::start(Settings::default(), &[echo().await]).await;
    for request in [
        "GET / HTTP/1.1\r\nHost: app\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: app\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        GET,
    ] {
        let response = rig.ask(request).await;
        assert_eq!((response.status, response.header("upgrade")), (426, None), "{request}");
    }
}

#[tokio::test]
async fn changes_of_versions_do_not_touch_a_tunnel() {
    let rig = Rig::start(Settings::default(), &[echo().await]).await;
    let mut client = rig.connect().await;
    client.send(UPGRADE).await;
    assert_eq!(client.head().await.unwrap().0, 101);
    while client.buffer.len() < 2 && client.more().await {}
    for word in ["one", "two", "three"] {
        rig.set_workers(&[super::rig::hello().await]).await;
        assert_eq!(rig.ask(GET).await.text(), "hello");
        client.buffer.clear();
        client.send(word).await;
        while client.buffer.len() < word.len() && client.more().await {}
        assert_eq!(client.buffer, word.as_bytes());
    }
}
