//! Attacks that cost a client little and a server much: each ends its own connection and harms nobody else.

use switchman::config::Http2 as Limits;
use switchman::proxy::Settings;
use tokio::io::AsyncWriteExt as _;

use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM, Raw,
    SETTINGS, WINDOW_UPDATE, block, frame,
};
use super::get;
use crate::proxy::Rig;
use crate::proxy::rig::{application, hello};
use crate::support::eventually;

const MIB: usize = 1024 * 1024;
const CANCEL: [u8; 4] = 8u32.to_be_bytes();
const ENHANCE_YOUR_CALM: u32 = 11;

/// The error code of the GOAWAY that ends the connection.
async fn last_word(raw: &mut Raw) -> Option<u32> {
    let mut code = None;
    while let Some(frame) = raw.next().await {
        if frame.kind == GOAWAY {
            code = Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
        }
    }
    code
}

/// Others are served, and nothing is left behind.
async fn is_well(rig: &Rig) {
    let mut client = rig.connect_http2().await;
    assert_eq!(client.ask(get("/")).await.unwrap().body, "hello");
    drop(client);
    eventually("nothing is in flight", || async {
        let routing = rig.live.load();
        let versions = routing.services.iter().flat_map(|service| service.registry.versions.values());
        versions.flat_map(|v| &v.ready).all(|worker| worker.in_flight.now() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let rig = Rig::start(Settings::default(), &[hello().await]).await;
    let mut raw = Raw::connect(rig.address).await;
    let head = block(&GET);
    let mut burst = Vec::new();
    for stream in (1..20_000).step_by(2) {
        burst.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &head));
        burst.extend(frame(RST_STREAM, 0, stream, &CANCEL));
    }
    raw.client.send(&burst).await;
    // A reset that outruns the last word may hide it.
    assert!(matches!(last_word(&mut raw).await, Some(ENHANCE_YOUR_CALM) | None));
    assert!(rig.counters.requests() < 1000, "{}", rig.counters.requests());
    is_well(&rig).await;
}

/// CVE-2025-8671: the client makes us reset its requests, by errors that are only their own.
#[tokio::test]
async fn resets_that_a_client_makes_us_send_end_the_connection() {
    let rig = Rig::start(Settings::default(), &[hello().await]).await;
    let head = block(&[&GET[..], &[("content-length", "1")]].concat());
    for (what, provoke) in [
        ("a window that grows too much", WINDOW_UPDATE),
        ("a request that depends on itself", PRIORITY),
        ("a body longer than it says", DATA),
    ] {
        let provoke = |stream: u32| match provoke {
            WINDOW_UPDATE => frame(WINDOW_UPDATE, 0, stream, &(u32::MAX >> 1).to_be_bytes()),
            PRIORITY => frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[1]].concat()),
            _ => frame(DATA, 0, stream, b"longer"),
        };
        let before = rig.counters.requests();
        let mut raw = Raw::connect(rig.address).await;
        let mut burst = Vec::new();
        for stream in (1..20_000).step_by(2) {
            burst.extend(frame(HEADERS, END_HEADERS, stream, &head));
            burst.extend(provoke(stream));
        }
        raw.client.send(&burst).await;
        let word = last_word(&mut raw).await;
        assert!(matches!(word, Some(ENHANCE_YOUR_CALM) | None), "{what}: {word:?}");
        let asked = rig.counters.requests() - before;
        assert!(asked < 1000, "{what}: {asked}");
    }
    is_well(&rig).await;
}

#[tokio::test]
async fn resets_of_running_requests_are_counted() {
    let silent = axum::Router::new().fallback(|| async { std::future::pending::<&str>().await });
    let http2 = Limits { reset_burst: 20, resets_per_second: 0, ..Limits::default() };
    let rig = Rig::start(Settings { http2, ..Settings::default() }, &[]).await;
    let workers = rig.set_workers(&[application(silent).await]).await;
    let mut raw = Raw::connect(rig.address).await;
    let mut sent = 0;
    for stream in (1..200).step_by(2) {
        raw.send(HEADERS, END_HEADERS | END_STREAM, stream, &block(&GET)).await;
        let is_running = || async { (workers[0].in_flight.now() == 1).then_some(()) };
        tokio::select! {
            () = eventually("it runs", is_running) => {}
            code = last_word(&mut raw) => {
                assert_eq!(code, Some(ENHANCE_YOUR_CALM));
                break;
            }
        }
        raw.send(RST_STREAM, 0, stream, &CANCEL).await;
        eventually("it does not run", || async { (workers[0].in_flight.now() == 0).then_some(()) }).await;
        sent += 1;
    }
    assert_eq!(sent, 21, "one more than the burst");
    rig.set_workers(&[hello().await]).await;
    is_well(&rig).await;
}

#[tokio::test]
async fn an_endless_head_ends_the_connection() {
    let rig = Rig::start(Settings::default(), &[hello().await]).await;
    for payload in [&b""[..], &block(&[("x-a", "1")]).repeat(2000)] {
        let mut raw = Raw::connect(rig.address).await;
        raw.send(HEADERS, END_STREAM, 1, &block(&GET)).await;
        let part = frame(CONTINUATION, 0, 1, payload);
        let mut taken = 0;
        // Until the other side has had enough: the socket says so.
        while taken < 64 * MIB && raw.client.stream.write_all(&part).await.is_ok() {
            taken += part.len();
        }
        assert!(taken < 64 * MIB);
        is_well(&rig).await;
    }
}

#[tokio::test]
async fn a_header_bomb_ends_the_connection() {
    let rig = Rig::start(Settings::default(), &[hello().await]).await;
    let mut raw = Raw::connect(rig.address).await;
    // One field of 2 KiB put into the dynamic table, then named 30,000 times: 60 MiB of headers in 30 KB.
    let mut bomb = block(&GET);
    bomb.extend_from_slice(&[0x40, 3, b'x', b'-', b'a', 0x7f, 0x81, 0x0f]);
    bomb.extend_from_slice(&[b'v'; 2048]);
    bomb.extend(std::iter::repeat_n(0xbe, 13_000));
    raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &bomb).await;
    assert!(last_word(&mut raw).await.is_some_and(|code| code != 0));
    is_well(&rig).await;
}

#[tokio::test]
async fn floods_of_small_frames_are_not_stored() {
    let rig = Rig::start(Settings::default(), &[hello().await]).await;
    for (what, flood) in [
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("empty DATA", frame(DATA, 0, 1, &[])),
    ] {
        let mut raw = Raw::connect(rig.address).await;
        let post = [(":method", "POST"), (":scheme", "http"), (":authority", "app"), (":path", "/")];
        raw.send(HEADERS, END_HEADERS, 1, &block(&post)).await;
        let part = flood.repeat(1000);
        let mut taken = 0;
        // We never read: answers fill the sockets, then the other side must stop reading, or end it all.
        while taken < 128 * MIB {
            let write = raw.client.stream.write_all(&part);
            match tokio::time::timeout(std::time::Duration::from_secs(1), write).await {
                Ok(Ok(())) => taken += part.len(),
                _ => break,
            }
        }
        assert!(taken < 128 * MIB, "{what}: {taken} bytes were taken");
        drop(raw);
        is_well(&rig).await;
    }
}
