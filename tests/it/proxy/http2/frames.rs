//! Frames written by hand: what a well-behaved client never sends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use switchman::proxy::Settings;

use crate::proxy::Rig;
use crate::proxy::rig::{Client, application};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame as bytes.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block: every field as a literal with a new name, never indexed (RFC 7541 section 6.2.2).
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            bytes.push(text.len() as u8);
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

pub(super) const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "app"), (":path", "/")];

/// A frame that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

/// A client that sends what it is told to.
pub(super) struct Raw {
    pub(super) client: Client,
}

impl Raw {
    /// A connection with preface and empty settings.
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let mut client = Client::connect(address).await;
        client.send(PREFACE).await;
        client.send(frame(SETTINGS, 0, 0, b"")).await;
        Self { client }
    }

    pub(super) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.client.send(frame(kind, flags, stream, payload)).await;
    }

    /// The next frame; none at the end.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        let buffer = loop {
            let buffer = &self.client.buffer;
            if buffer.len() >= 9 && buffer.len() >= 9 + length(buffer) {
                break buffer;
            }
            if !self.client.more().await {
                return None;
            }
        };
        let end = 9 + length(buffer);
        let bytes: Vec<u8> = self.client.buffer.drain(..end).collect();
        let stream = u32::from_be_bytes([bytes[5] & 0x7f, bytes[6], bytes[7], bytes[8]]);
        Some(Frame { kind: bytes[3], flags: bytes[4], stream, payload: bytes[9..].to_vec() })
    }

    /// The kinds of all frames to the end.
    pub(super) async fn kinds(&mut self) -> Vec<u8> {
        let mut kinds = Vec::new();
        while let Some(frame) = self.next().await {
            kinds.push(frame.kind);
        }
        kinds
    }

    /// What becomes of the stream.
    async fn fate(&mut self, stream: u32) -> Fate {
        let code = |payload: &[u8]| u32::from_be_bytes(payload.try_into().unwrap());
        while let Some(frame) = self.next().await {
            match frame.kind {
                GOAWAY => return Fate::Goaway(code(&frame.payload[4..8])),
                RST_STREAM if frame.stream == stream => return Fate::Reset(code(&frame.payload)),
                HEADERS if frame.stream == stream => return Fate::Answered(status(&frame.payload)),
                _ => {}
            }
        }
        Fate::Closed
    }
}

fn length(buffer: &[u8]) -> usize {
    u32::from_be_bytes([0, buffer[0], buffer[1], buffer[2]]) as usize
}

/// The status at the start of a header block, as far as the static table has it; 0 for others.
pub(super) fn status(block: &[u8]) -> u16 {
    // A new size of the table may stand before it, in one byte for those that a test asks for.
    let is_resize = |byte: &&u8| (0x20..0x3f).contains(*byte);
    match block.iter().find(|byte| !is_resize(byte)).copied().unwrap_or_default() {
        0x88 => 200,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        _ => 0,
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered(u16),
    Reset(u32),
    Goaway(u32),
    Closed,
}

const PROTOCOL_ERROR: u32 = 1;

/// A rig whose worker counts the requests that reach it.
async fn counted(settings: Settings) -> (Rig, Arc<AtomicUsize>) {
    let asked: Arc<AtomicUsize> = Arc::default();
    let count = asked.clone();
    let app = Router::new().fallback(move |body: axum::body::Bytes| {
        count.fetch_add(1, Relaxed);
        async move { body }
    });
    (Rig::start(settings, &[application(app).await]).await, asked)
}

/// The fields of a request without those named, and with others.
fn fields<'a>(without: &[&str], with: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let kept = GET.into_iter().filter(|(name, _)| !without.contains(name));
    kept.chain(with.iter().copied()).collect()
}

#[tokio::test]
async fn a_malformed_head_reaches_nobody() {
    let (rig, asked) = counted(Settings::default()).await;
    let reset = Fate::Reset(PROTOCOL_ERROR);
    for (what, without, with, fate) in [
        ("an upper-case name", &[][..], &[("X-A", "1")][..], None),
        ("a name with a blank", &[], &[("x a", "1")], None),
        ("an empty name", &[], &[("", "1")], None),
        ("a name with a colon", &[], &[("x:a", "1")], None),
        ("a line feed in a value", &[], &[("x-a", "1\nhost: b")], None),
        ("a carriage return in a value", &[], &[("x-a", "1\r")], None),
        ("a NUL in a value", &[], &[("x-a", "1\0")], None),
        ("connection", &[], &[("connection", "close")], Some(reset)),
        ("keep-alive", &[], &[("keep-alive", "1")], Some(reset)),
        ("proxy-connection", &[], &[("proxy-connection", "close")], Some(reset)),
        ("transfer-encoding", &[], &[("transfer-encoding", "chunked")], Some(reset)),
        ("upgrade", &[], &[("upgrade", "websocket")], Some(reset)),
        ("te: gzip", &[], &[("te", "gzip")], Some(reset)),
        ("no :method", &[":method"], &[], Some(reset)),
        ("no :path", &[":path"], &[], Some(reset)),
        ("no :scheme", &[":scheme"], &[], Some(reset)),
        ("an empty :path", &[":path"], &[(":path", "")], Some(reset)),
        (":path twice", &[], &[(":path", "/b")], Some(reset)),
        (":path behind a header", &[":path"], &[("x-a", "1"), (":path", "/")], Some(reset)),
        (":status", &[], &[(":status", "200")], Some(reset)),
        (":protocol without CONNECT", &[], &[(":protocol", "websocket")], Some(reset)),
        ("an unknown pseudo-header", &[], &[(":foo", "1")], None),
        ("a blank in :path", &[":path"], &[(":path", "/a b")], None),
        ("a line feed in :path", &[":path"], &[(":path", "/ HTTP/1.1\r\nhost: b\r\n\r\n")], None),
        (":path without slash", &[":path"], &[(":path", "a")], None),
        (":path as URL", &[":path"], &[(":path", "http://b/")], None),
        ("a method with a blank", &[":method"], &[(":method", "GET /b")], None),
        ("a bad :authority", &[":authority"], &[(":authority", "a b")], Some(reset)),
        ("user information", &[":authority"], &[(":authority", "a@app")], Some(Fate::Answered(400))),
        ("another Host", &[], &[("host", "other")], Some(Fate::Answered(400))),
        ("two Hosts", &[], &[("host", "app"), ("host", "other")], Some(Fate::Answered(400))),
        ("no host at all", &[":authority"], &[], Some(Fate::Answered(400))),
        ("two lengths", &[], &[("content-length", "1"), ("content-length", "2")], Some(reset)),
        ("a length that is no number", &[], &[("content-length", "+1")], Some(reset)),
        ("a length without body", &[], &[("content-length", "1")], Some(reset)),
    ] {
        let mut raw = Raw::connect(rig.address).await;
        raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields(without, with))).await;
        let seen = raw.fate(1).await;
        match fate {
            Some(fate) => assert_eq!(seen, fate, "{what}"),
            None => assert_ne!(seen, Fate::Answered(200), "{what}"),
        }
        assert_eq!(asked.load(Relaxed), 0, "{what}");
        if !matches!(seen, Fate::Goaway(_) | Fate::Closed) {
            raw.send(HEADERS, END_HEADERS | END_STREAM, 3, &block(&GET)).await;
            assert_eq!(raw.fate(3).await, Fate::Answered(200), "the connection goes on after {what}");
            assert_eq!(asked.swap(0, Relaxed), 1);
        }
    }
}

#[tokio::test]
async fn a_well_formed_head_is_understood_however_unusual() {
    let (rig, asked) = counted(Settings::default()).await;
    for (what, without, with) in [
        ("Host alone", &[":authority"][..], &[("host", "app")][..]),
        ("Host beside :authority", &[], &[("host", "APP")]),
        ("te: trailers", &[], &[("te", "trailers")]),
        ("OPTIONS *", &[":method", ":path"], &[]),
    ] {
        let mut fields = fields(without, with);
        if what == "OPTIONS *" {
            fields.extend([(":method", "OPTIONS"), (":path", "*")]);
        }
        let mut raw = Raw::connect(rig.address).await;
        raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields)).await;
        assert_eq!(raw.fate(1).await, Fate::Answered(200), "{what}");
        assert_eq!(asked.swap(0, Relaxed), 1);
    }
}

#[tokio::test]
async fn a_body_is_as_long_as_it_says() {
    let (rig, _) = counted(Settings::default()).await;
    for (length, sent, fate) in [
        ("5", "hello", Fate::Answered(200)),
        ("4", "hello", Fate::Reset(PROTOCOL_ERROR)),
        ("6", "hello", Fate::Reset(PROTOCOL_ERROR)),
    ] {
        let mut raw = Raw::connect(rig.address).await;
        let fields = fields(&[":method"], &[(":method", "POST"), ("content-length", length)]);
        let ordered: Vec<_> = fields.iter().copied().filter(|(n, _)| n.starts_with(':')).collect();
        let ordered = [ordered, vec![("content-length", length)]].concat();
        raw.send(HEADERS, END_HEADERS, 1, &block(&ordered)).await;
        raw.send(DATA, END_STREAM, 1, sent.as_bytes()).await;
        assert_eq!(raw.fate(1).await, fate, "{sent:?} of {length}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_answered() {
    let (rig, asked) = counted(Settings::default()).await;
    let mut raw = Raw::connect(rig.address).await;
    // More headers than allowed, though few bytes.
    let many: Vec<(&str, &str)> = GET.into_iter().chain(std::iter::repeat_n(("x-a", "1"), 101)).collect();
    raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &block(&many)).await;
    assert!(matches!(raw.fate(1).await, Fate::Answered(_)));
    // More bytes than allowed.
    let value = "v".repeat(100);
    let large: Vec<(&str, &str)> =
        GET.into_iter().chain(std::iter::repeat_n(("x-a", value.as_str()), 700)).collect();
    let block = block(&large);
    let (first, rest) = block.split_at(16_000);
    raw.send(HEADERS, END_STREAM, 3, first).await;
    let parts: Vec<&[u8]> = rest.chunks(16_000).collect();
    for (index, part) in parts.iter().enumerate() {
        let flags = if index + 1 == parts.len() { END_HEADERS } else { 0 };
        raw.send(CONTINUATION, flags, 3, part).await;
    }
    assert!(matches!(raw.fate(3).await, Fate::Answered(_)));
    assert_eq!(asked.load(Relaxed), 0);
}

#[tokio::test]
async fn a_client_that_dawdles_is_let_go() {
    let settings = Settings {
        head_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(300),
        ..Settings::default()
    };
    let (rig, _) = counted(settings).await;
    // Half a preface.
    let mut client = Client::connect(rig.address).await;
    client.send(&PREFACE[..18]).await;
    assert!(client.is_closed().await);
    // Half a head.
    let mut raw = Raw::connect(rig.address).await;
    raw.send(HEADERS, END_STREAM, 1, &block(&GET)).await;
    assert!(raw.kinds().await.contains(&GOAWAY));
}

#[tokio::test]
async fn a_preface_is_the_first_thing_or_none() {
    let (rig, _) = counted(Settings::default()).await;
    let mut client = Client::connect(rig.address).await;
    client.send(super::super::GET).await;
    assert_eq!(client.response().await.unwrap().status, 200);
    client.send(PREFACE).await;
    assert!(client.response().await.is_none());
}
