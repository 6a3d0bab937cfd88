//! Requests that two readers could understand differently: each is refused and its connection closed, or
//! reaches the worker as exactly one request that can be read in one way only.

use std::sync::{Arc, Mutex};

use switchman::proxy::Settings;
use switchman::registry::Address;

use super::Rig;
use super::rig::{Client, find, worker};

mod applications;
mod literature;
mod property;
mod reader;
mod responses;

/// A worker that records every byte, and answers each request it can make out.
async fn recorder() -> (Address, Arc<Mutex<Vec<u8>>>) {
    let record = Arc::new(Mutex::new(Vec::new()));
    let shared = record.clone();
    let address = worker(move |stream| {
        let record = shared.clone();
        async move {
            let mut reader = Client { stream, buffer: Vec::new() };
            loop {
                let before = reader.buffer.len();
                if !reader.more().await {
                    return;
                }
                record.lock().unwrap().extend_from_slice(&reader.buffer[before..]);
                while let Some(length) = request_length(&reader.buffer) {
                    reader.buffer.drain(..length);
                    reader.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            }
        }
    })
    .await;
    (address, record)
}

/// Bytes of the first request, once it is whole.
fn request_length(bytes: &[u8]) -> Option<usize> {
    let head = find(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    if text.contains("transfer-encoding: chunked") {
        return Some(head + find(&bytes[head..], b"0\r\n\r\n")? + 5);
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let end = head + length.unwrap_or(0);
    (bytes.len() >= end).then_some(end)
}

/// Refused with this status; the worker sees no whole request.
const REFUSED: &[(u16, &str, &str)] = &[
    // Length and coding.
    (
        400,
        "both lengths",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        400,
        "both, other order",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    ),
    (400, "two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde"),
    (
        400,
        "the same length twice",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    ),
    (400, "a list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 4\r\n\r\nabcd"),
    (400, "signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcd"),
    (400, "negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nabcd"),
    (400, "hex length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x4\r\n\r\nabcd"),
    (400, "length with blank", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4 4\r\n\r\nabcd"),
    (400, "empty length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nabcd"),
    (
        400,
        "length that overflows",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551620\r\n\r\nabcd",
    ),
    (400, "length with fraction", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4.0\r\n\r\nabcd"),
    (
        400,
        "two codings",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        400,
        "chunked and identity",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    ),
    (
        400,
        "chunked twice in a list",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    (400, "xchunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    (
        400,
        "chunked with parameter",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    ),
    (400, "quoted chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    (
        400,
        "vertical tab before chunked",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    (400, "empty coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n"),
    (501, "gzip", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"),
    (
        501,
        "identity",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n",
    ),
    (400, "chunked in 1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    // Names and lines.
    (400, "blank before colon", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    (400, "tab before colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length\t: 4\r\n\r\nabcd"),
    (400, "folded header", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    (400, "folded with tab", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n"),
    (400, "blank before first header", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    (400, "line feed after request line", "GET / HTTP/1.1\nHost: a\r\n\r\n"),
    (400, "line feed after header", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"),
    (400, "line feeds at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n"),
    (400, "line feeds only", "GET / HTTP/1.1\nHost: a\n\n"),
    (400, "carriage return alone", "GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n"),
    (400, "carriage return before CRLF", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\r\n\r\n"),
    (400, "NUL in value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n"),
    (400, "NUL in name", "GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n"),
    (400, "NUL in target", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "control byte in value", "GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n"),
    (400, "DEL in value", "GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n"),
    (400, "empty name", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
    (400, "no colon", "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n"),
    (400, "name with bracket", "GET / HTTP/1.1\r\nHost: a\r\nX(y): b\r\n\r\n"),
    (400, "name beyond ASCII", "GET / HTTP/1.1\r\nHost: a\r\nX\u{e9}: b\r\n\r\n"),
    // Host and target.
    (400, "no host", "GET / HTTP/1.1\r\nX: a\r\n\r\n"),
    (400, "two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    (400, "the same host twice", "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n"),
    (400, "host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    (400, "host with a user", "GET / HTTP/1.1\r\nHost: b@a\r\n\r\n"),
    (400, "host with a blank", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    (400, "a list of hosts", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
    (400, "host with a bad port", "GET / HTTP/1.1\r\nHost: a:80x\r\n\r\n"),
    (400, "absolute target and no host", "GET http://a/ HTTP/1.1\r\n\r\n"),
    (400, "user in absolute target", "GET http://b@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "other scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "no slash", "GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "asterisk of GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "fragment", "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n"),
    // Request line.
    (400, "two blanks", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (505, "blank in target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "tab for blank", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "bad method", "G<T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "HTTP/0.9", "GET /\r\nHost: a\r\n\r\n"),
    (505, "HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    (505, "almost the HTTP/2 preface", "PRI * HTTP/2.0\r\nHost: a\r\n\r\n"),
    (505, "lower-case version", "GET / http/1.1\r\nHost: a\r\n\r\n"),
    (400, "TLS hello", "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03"),
    (501, "CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    (417, "other expectation", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\na"),
    // Chunks.
    (
        400,
        "chunk size with blank",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        400,
        "chunk size with 0x",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        400,
        "chunk size with sign",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        400,
        "chunk size with underscore",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1_0\r\nhello\r\n0\r\n\r\n",
    ),
    (
        400,
        "chunk size that overflows",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\nhello\r\n0\r\n\r\n",
    ),
    (
        400,
        "no chunk size",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
    ),
    (
        400,
        "chunk longer than it says",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n",
    ),
    (
        400,
        "line feed after chunk size",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    ),
    (
        400,
        "line feed in extension",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n",
    ),
    (
        400,
        "carriage return in extension",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n0\r\n\r\n",
    ),
    (
        400,
        "line feed after chunk",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n",
    ),
    (
        400,
        "length as trailer",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n",
    ),
    (
        400,
        "folded trailer",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n c\r\n\r\n",
    ),
];

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused_and_never_reaches_a_worker() {
    let (address, record) = recorder().await;
    let rig = Rig::start(Settings::default(), &[address]).await;
    for (status, what, payload) in REFUSED {
        let mut client = rig.connect().await;
        // A second request follows: it must be thrown away with the connection.
        client.send(format!("{payload}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let response = client.response().await.unwrap_or_else(|| panic!("no answer: {what}"));
        assert_eq!(response.status, *status, "{what}: {}", response.text());
        assert!(response.header("x-switchman-error").is_some(), "{what}");
        assert_eq!(response.header("connection"), Some("close"), "{what}");
        assert!(client.response().await.is_none(), "a second answer: {what}");
        let seen = std::mem::take(&mut *record.lock().unwrap());
        assert_eq!(request_length(&seen), None, "{what}: {}", String::from_utf8_lossy(&seen));
        assert!(find(&seen, b"smuggled").is_none(), "{what}");
    }
}

#[tokio::test]
async fn what_can_be_read_in_one_way_reaches_the_worker_as_one_request() {
    let (address, record) = recorder().await;
    let rig = Rig::start(Settings::default(), &[address]).await;
    // (what, payload, what the worker sees of it)
    for (what, payload, seen_as) in [
        ("plain", "GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a?b=c HTTP/1.1\r\nHost: a\r\n"),
        ("empty line before", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n"),
        ("HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: \r\n"),
        (
            "absolute target",
            "GET http://b:8/x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /x HTTP/1.1\r\nHost: b:8\r\n",
        ),
        ("length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "\r\n\r\nhello"),
        ("leading zeros", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 005\r\n\r\nhello", "\r\n\r\nhello"),
        (
            "chunks",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        ("underscore", "GET / HTTP/1.1\r\nHost: a\r\nX_Y: 1\r\n\r\n", "X_Y: 1\r\n"),
        ("UTF-8 value", "GET / HTTP/1.1\r\nHost: a\r\nX: \u{e9}\r\n\r\n", "X: \u{e9}\r\n"),
        (
            "Connection names Host",
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: host, content-length\r\nContent-Length: 2\r\n\r\nab",
            "Host: a\r\nContent-Length: 2\r\n",
        ),
        (
            "Connection names Cookie",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Y\r\nX-Y: 1\r\nZ: 2\r\n\r\n",
            "Host: a\r\nZ: 2\r\n",
        ),
        (
            "forged address",
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
            "X-Forwarded-For: 127.0.0.1\r\n",
        ),
    ] {
        let mut client = rig.connect().await;
        client.send(payload).await;
        let response = client.response().await.unwrap();
        assert_eq!((response.status, response.text()), (200, "ok"), "{what}");
        let seen = std::mem::take(&mut *record.lock().unwrap());
        let text = String::from_utf8_lossy(&seen);
        assert_eq!(request_length(&seen), Some(seen.len()), "{what}: {text}");
        assert!(text.contains(seen_as), "{what}: {text}");
        for gone in ["6.6.6.6", "Connection:", "X-Y: 1"] {
            assert!(!text.contains(gone), "{what}: {text}");
        }
    }
}
