//! Ordinary requests, and the answers that switchman makes itself.

use switchman::config::Protocol;
use switchman::proxy::Settings;

use super::rig::{answers, hello};
use super::{GET, Rig, VERSION};
use crate::support::eventually;

#[tokio::test]
async fn a_request_goes_to_the_worker_and_the_connection_stays() {
    let rig = Rig::start(Settings::default(), &[hello().await]).await;
    let mut client = rig.connect().await;
    for _ in 0..3 {
        client.send(GET).await;
        let response = client.response().await.unwrap();
        assert_eq!((response.status, response.text()), (200, "hello"));
        assert_eq!(response.header("x-switchman-version"), Some(VERSION));
        assert_eq!(response.header("connection"), None);
    }
    eventually("all are counted", || async { (rig.counters.requests() == 3).then_some(()) }).await;
}

#[tokio::test]
async fn requests_sent_together_are_answered_in_order() {
    let app = axum::Router::new().fallback(|uri: axum::http::Uri| async move { uri.path().to_owned() });
    let rig = Rig::start(Settings::default(), &[super::rig::application(app).await]).await;
    let mut client = rig.connect().await;
    let requests: String = (0..50).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: app\r\n\r\n")).collect();
    client.send(requests).await;
    for n in 0..50 {
        assert_eq!(client.response().await.unwrap().text(), format!("/{n}"));
    }
}

#[tokio::test]
async fn every_answer_of_ours_names_its_cause() {
    let rig = Rig::start_on(Settings::default(), &[], &["app"]).await;
    let silent = "GET / HTTP/1.1\r\nHost: other\r\n\r\n";
    for (request, status, cause) in [(GET, 503, "not-ready"), (silent, 421, "unknown-host")] {
        let response = rig.ask(request).await;
        assert_eq!((response.status, response.header("x-switchman-error")), (status, Some(cause)));
        assert_eq!(response.header("content-type"), Some("application/problem+json"));
        assert_eq!(response.header("x-switchman-version"), None);
    }
    rig.set_workers(&[
        answers(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!").await
    ])
    .await;
    let response = rig.ask(GET).await;
    assert_eq!((response.status, response.header("x-switchman-error")), (502, Some("bad-response")));
    assert_eq!(response.header("x-switchman-version"), Some(VERSION));
}

#[tokio::test]
async fn a_host_is_the_same_with_a_port_a_root_s_dot_and_in_capitals() {
    let rig = Rig::start_on(Settings::default(), &[hello().await], &["app.example", "::1"]).await;
    for (host, status) in [
        ("app.example", 200),
        ("App.Example:7000", 200),
        ("app.example.", 200),
        ("app.example.:7000", 200),
        ("[::1]", 200),
        ("[::1]:7000", 200),
        ("app.example..", 421),
        ("[::2]", 421),
    ] {
        let response = rig.ask(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(response.status, status, "{host}");
        let absolute = format!("GET http://{host}/ HTTP/1.1\r\nHost: other\r\n\r\n");
        assert_eq!(rig.ask(absolute).await.status, status, "{host}");
    }
}

#[tokio::test]
async fn a_request_that_is_too_large_is_told_so_while_it_is_still_sent() {
    let rig = Rig::start(Settings::default(), &[hello().await]).await;
    let many = "X-A: 1\r\n".repeat(100);
    let long = "x".repeat(1024 * 1024);
    for (what, request, status, cause) in [
        ("headers", format!("GET / HTTP/1.1\r\nHost: app\r\n{many}\r\n"), 431, "head-too-large"),
        ("a header", format!("GET / HTTP/1.1\r\nHost: app\r\nX: {long}\r\n\r\n"), 431, "head-too-large"),
        ("a target", format!("GET /{long} HTTP/1.1\r\nHost: app\r\n\r\n"), 414, "uri-too-long"),
    ] {
        let response = rig.ask(request).await;
        assert_eq!((response.status, response.header("x-switchman-error")), (status, Some(cause)), "{what}");
    }
    let large = format!("GET / HTTP/1.1\r\nHost: app\r\nX: {}\r\n\r\n", &long[..60 * 1024]);
    assert_eq!(rig.ask(large).await.text(), "hello", "60 KiB are allowed");
}

#[tokio::test]
async fn a_response_head_that_is_too_large_is_refused() {
    let endless = super::rig::worker(|stream| async move {
        let mut reader = super::rig::Client { stream, buffer: Vec::new() };
        reader.more().await;
        reader.send(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(100 * 1024))).await;
        while reader.more().await {}
    });
    let rig = Rig::start(Settings::default(), &[endless.await]).await;
    let response = rig.ask(GET).await;
    assert_eq!((response.status, response.header("x-switchman-error")), (502, Some("bad-response")));
}

/// The commonest slip with gRPC servers: the answer says which key is missing.
#[tokio::test]
async fn a_worker_that_speaks_the_other_http_is_told_apart() {
    const SETTINGS: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64";
    const REFUSES: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let rig = Rig::start(Settings::default(), &[]).await;
    for (spoken, bytes, cause, key) in [
        (Protocol::Http1, SETTINGS, "bad-response", "protocol: h2c"),
        (Protocol::H2c, REFUSES, "upstream-closed", "protocol: http1"),
    ] {
        rig.set_workers_speaking(spoken, &[answers(bytes).await]).await;
        let response = rig.ask(GET).await;
        assert_eq!((response.status, response.header("x-switchman-error")), (502, Some(cause)));
        assert!(response.text().contains(key), "{}", response.text());
    }
}
