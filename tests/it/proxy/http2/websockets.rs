//! WebSockets from HTTP/2 clients (RFC 8441) to workers that know those of HTTP/1.1.

use bytes::Bytes;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Method, request};
use switchman::proxy::Settings;
use switchman::registry::Address;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{Answer, Http2, answer, get, read, write};
use crate::proxy::rig::{Client, find, worker};
use crate::proxy::{Rig, VERSION};
use crate::support::eventually;

/// A worker that answers a handshake with what `reply` makes of its key, and sends every byte back.
async fn echo(reply: fn(&str) -> String) -> Address {
    worker(move |stream| async move {
        let mut reader = Client { stream, buffer: Vec::new() };
        while find(&reader.buffer, b"\r\n\r\n").is_none() && reader.more().await {}
        let end = find(&reader.buffer, b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(reader.buffer.drain(..end).collect()).unwrap();
        assert!(head.starts_with("GET /ws?a=b HTTP/1.1\r\nHost: app\r\n"), "{head}");
        assert!(head.contains("Connection: upgrade\r\nUpgrade: websocket\r\n"), "{head}");
        let keys: Vec<&str> = head.lines().filter_map(|l| l.strip_prefix("Sec-WebSocket-Key: ")).collect();
        reader.send(reply(keys[0])).await;
        assert_eq!(keys.len(), 1, "{head}");
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

pub(super) fn switched(key: &str) -> String {
    let accept = derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\nhi"
    )
}

pub(super) fn connect(protocol: &'static str) -> request::Builder {
    get("/ws?a=b")
        .method(Method::CONNECT)
        .extension(Protocol::from_static(protocol))
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "bm90IHRoZSB3b3JrZXIncyE=")
}

pub(super) async fn client(rig: &Rig) -> Http2 {
    let client = rig.connect_http2().await;
    eventually("the settings say that CONNECT is extended", || async {
        client.send.is_extended_connect_protocol_enabled().then_some(())
    })
    .await;
    client
}

pub(super) async fn receive(from: &mut RecvStream, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let part = from.data().await.expect("more bytes").unwrap();
        from.flow_control().release_capacity(part.len()).unwrap();
        bytes.extend_from_slice(&part);
    }
    bytes
}

pub(super) async fn send(to: &mut SendStream<Bytes>, bytes: &[u8]) {
    write(to, Bytes::copy_from_slice(bytes), false).await.unwrap();
}

#[tokio::test]
async fn a_websocket_is_tunnelled_and_its_ends_are_passed_on() {
    let rig = Rig::start(Settings::default(), &[]).await;
    let upstreams = rig.set_workers(&[echo(switched).await]).await;
    let mut client = client(&rig).await;
    let (response, mut to) = client.begin(connect("websocket"), false).await;
    let (head, mut from) = response.await.unwrap().into_parts();
    assert_eq!(head.status, 200);
    assert_eq!(head.headers["x-switchman-version"], VERSION);
    assert_eq!(head.headers["sec-websocket-protocol"], "chat");
    assert!(!head.headers.contains_key("sec-websocket-accept") && !head.headers.contains_key("upgrade"));
    assert_eq!(receive(&mut from, 2).await, b"hi");
    let big: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
    for bytes in [b"hello", &big[..], b"again"] {
        let ((), back) = tokio::join!(send(&mut to, bytes), receive(&mut from, bytes.len()));
        assert!(back == bytes);
    }
    assert_eq!(upstreams[0].in_flight.now(), 1, "an open tunnel is in flight");
    to.send_data(Bytes::new(), true).unwrap();
    assert_eq!(read(&mut from).await.unwrap(), (Bytes::new(), None), "the worker's end is a clean end");
    eventually("nothing is in flight", || async { (upstreams[0].in_flight.now() == 0).then_some(()) }).await;
}

async fn refused(reply: fn(&str) -> String, protocol: &'static str) -> Answer {
    let rig = Rig::start(Settings::default(), &[echo(reply).await]).await;
    let mut client = client(&rig).await;
    let (response, _to) = client.begin(connect(protocol), false).await;
    answer(response).await.unwrap()
}

#[tokio::test]
async fn what_is_no_handshake_is_not_taken_for_one() {
    let plain = |_: &str| "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno".to_owned();
    let wrong = |_: &str| switched("bm90IHRoZSB3b3JrZXIncyE=");
    let none =
        |_: &str| "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".to_owned();
    for reply in [plain, wrong, none] {
        let answer = refused(reply, "websocket").await;
        assert_eq!((answer.status, answer.header("x-switchman-error")), (502, Some("bad-response")));
    }
}

#[tokio::test]
async fn a_workers_refusal_is_passed_on() {
    let refusal = |_: &str| "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_owned();
    let answer = refused(refusal, "websocket").await;
    assert_eq!(
        (answer.status, &answer.body[..], answer.header("x-switchman-error")),
        (403, &b"no"[..], None)
    );
}

#[tokio::test]
async fn other_protocols_are_not_offered() {
    let answer = refused(switched, "connect-udp").await;
    assert_eq!((answer.status, answer.header("x-switchman-error")), (501, Some("method-not-supported")));
}
