//! The property itself, for each payload of the literature: refused with its connection closed and nothing sent on,
//! or read by the worker as what the client's bytes mean; and the next request gets its own answer.

use std::sync::{Arc, Mutex};

use switchman::proxy::Settings;
use switchman::registry::Address;

use super::literature::{Payload, payloads};
use super::reader::{self, Read};
use crate::proxy::Rig;
use crate::proxy::rig::{Client, worker};

/// What a raw worker saw: all bytes of each of its connections.
type Record = Arc<Mutex<Vec<Vec<u8>>>>;

/// A worker that records every byte, and answers each request that is whole with its method and target.
async fn raw_echo() -> (Address, Record) {
    let record = Record::default();
    let shared = record.clone();
    let address = worker(move |stream| {
        let record = shared.clone();
        async move {
            let mut reader = Client { stream, buffer: Vec::new() };
            let connection = {
                let mut record = record.lock().unwrap();
                record.push(Vec::new());
                record.len() - 1
            };
            loop {
                let before = reader.buffer.len();
                if !reader.more().await {
                    return;
                }
                record.lock().unwrap()[connection].extend_from_slice(&reader.buffer[before..]);
                while let Ok(Some((request, length))) = reader::first(&reader.buffer) {
                    reader.buffer.drain(..length);
                    let said = format!("{} {}", request.method, request.target);
                    let body = if request.method == "HEAD" { "" } else { &said };
                    let length = said.len();
                    reader.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")).await;
                }
            }
        }
    })
    .await;
    (address, record)
}

/// What the worker read on all its connections since the last call, by the strict reader; what is left is an error,
/// unless a piece may be there: then nothing more may come on that connection.
fn taken(record: &Record, seen: &mut Vec<usize>, may_be_cut: bool) -> Result<Vec<Read>, String> {
    let record = record.lock().unwrap();
    seen.resize(record.len(), 0);
    let mut requests = Vec::new();
    for (bytes, seen) in record.iter().zip(seen) {
        while *seen < bytes.len() {
            match reader::first(&bytes[*seen..])? {
                Some((request, length)) => {
                    requests.push(request);
                    *seen += length;
                }
                None if may_be_cut => *seen = usize::MAX,
                None => return Err(format!("a piece of a request: {}", bytes[*seen..].escape_ascii())),
            }
        }
    }
    Ok(requests)
}

/// An innocent request on the client's own connection, as long as that goes on, or on a new one.
async fn innocent(rig: &Rig, client: &mut Client, number: usize) {
    let request = format!("GET /innocent-{number} HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send(&request).await;
    let answer = match client.response().await {
        Some(answer) => answer,
        None => rig.ask(&request).await,
    };
    assert_eq!((answer.status, answer.text()), (200, format!("GET /innocent-{number}").as_str()));
}

/// Sends one payload, in pieces of `step` bytes, and holds the proxy to the property.
async fn hold(rig: &Rig, record: &Record, seen: &mut Vec<usize>, payload: &Payload, step: usize) {
    let Payload { what, bytes, meant, is_refused } = payload;
    let mut client = rig.connect().await;
    client.stream.set_nodelay(true).unwrap();
    for piece in bytes.chunks(step) {
        client.send(piece).await;
        if step < bytes.len() {
            tokio::task::yield_now().await;
        }
    }
    for (method, target, _) in *meant {
        let answer = client.response().await.unwrap_or_else(|| panic!("{what}: no answer to {target}"));
        assert_eq!((answer.status, answer.text()), (200, format!("{method} {target}").as_str()), "{what}");
        assert_eq!(answer.header("x-switchman-version"), Some(crate::proxy::VERSION), "{what}");
    }
    if *is_refused {
        let answer = client.response().await.unwrap_or_else(|| panic!("{what}: not refused"));
        assert!((400..=599).contains(&answer.status), "{what}: {answer:?}");
        assert!(answer.header("x-switchman-error").is_some(), "{what}: {answer:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{what}");
        assert!(client.is_closed().await && client.buffer.is_empty(), "{what}: more than one answer");
    }
    let read = taken(record, seen, may_be_cut(payload, step)).unwrap_or_else(|e| panic!("{what}: {e}"));
    let read: Vec<_> = read.iter().map(|r| (r.method.as_str(), r.target.as_str(), r.body.as_str())).collect();
    assert_eq!(read, *meant, "{what}");
}

/// A body is passed on as it comes: what is wrong with it may show when its head has left already.
fn may_be_cut(payload: &Payload, step: usize) -> bool {
    step < payload.bytes.len() && payload.is_refused
}

#[tokio::test]
async fn each_payload_is_refused_or_means_one_thing_and_the_next_request_gets_its_own_answer() {
    assert!(payloads().count() >= 150, "{} payloads", payloads().count());
    let (address, record) = raw_echo().await;
    let rig = Rig::start(Settings::default(), &[address]).await;
    let mut seen = Vec::new();
    for (number, payload) in payloads().enumerate() {
        for step in [usize::MAX, 7] {
            hold(&rig, &record, &mut seen, payload, step).await;
            // One on each thread, most likely; each thread has its own connections to the worker.
            for _ in 0..2 {
                innocent(&rig, &mut rig.connect().await, number).await;
            }
            // The worker may have been slower to read a piece than the client was to read its refusal.
            let read = taken(&record, &mut seen, may_be_cut(payload, step));
            let read = read.unwrap_or_else(|e| panic!("after {}: {e}", payload.what));
            assert_eq!(read.len(), 2, "after {}: {read:?}", payload.what);
        }
    }
}

#[tokio::test]
async fn what_ends_at_this_hop_is_not_passed_on() {
    let (address, record) = raw_echo().await;
    let rig = Rig::start(Settings::default(), &[address]).await;
    let mut seen = Vec::new();
    for payload in payloads().filter(|payload| !payload.is_refused) {
        let mut client = rig.connect().await;
        client.send(payload.bytes).await;
        for _ in payload.meant {
            client.response().await.unwrap();
        }
        for read in taken(&record, &mut seen, false).unwrap() {
            let head = read.head.to_ascii_lowercase();
            let names: Vec<&str> =
                head.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0)).collect();
            for gone in ["connection", "keep-alive", "proxy-connection", "upgrade", "http2-settings"] {
                assert!(!names.contains(&gone), "{}: {head}", payload.what);
            }
            let addresses = names.iter().filter(|name| name.replace('_', "-") == "x-forwarded-for").count();
            assert_eq!(addresses, 1, "{}: {head}", payload.what);
        }
    }
}
