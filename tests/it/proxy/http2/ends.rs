//! How requests and connections over HTTP/2 end: well, cancelled, broken, drained, idle.

use std::future::poll_fn;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use h2::Reason;
use switchman::proxy::{Drained, Settings};

use super::{Http2, answer, get, post, write};
use crate::proxy::Rig;
use crate::proxy::rig::{Client, application, find, hello, worker};
use crate::support::{eventually, patience};

/// An application that never answers.
async fn silent() -> switchman::registry::Address {
    application(Router::new().fallback(|| async { std::future::pending::<&str>().await })).await
}

#[tokio::test]
async fn a_cancelled_request_leaves_its_worker_at_once() {
    let rig = Rig::start(Settings::default(), &[]).await;
    let (closed, mut when_closed) = tokio::sync::mpsc::unbounded_channel();
    let workers = rig
        .set_workers(&[worker(move |stream| {
            let closed = closed.clone();
            async move {
                let mut reader = Client { stream, buffer: Vec::new() };
                reader.is_closed().await;
                let _ = closed.send(());
            }
        })
        .await])
        .await;
    let mut client = rig.connect_http2().await;
    for upload in [false, true] {
        let (response, mut to) = client.begin(post("/"), !upload).await;
        eventually("it is in flight", || async { (workers[0].in_flight.now() == 1).then_some(()) }).await;
        to.send_reset(Reason::CANCEL);
        drop(response);
        when_closed.recv().await.unwrap();
        eventually("it is not", || async { (workers[0].in_flight.now() == 0).then_some(()) }).await;
    }
    // The connection lives on, and who leaves is no error of the version's.
    rig.set_workers(&[hello().await]).await;
    assert_eq!(client.ask(get("/")).await.unwrap().body, "hello");
    assert_eq!(rig.counters.traffic(jiff::Timestamp::now()).errors, 0);
}

#[tokio::test]
async fn a_cancelled_download_leaves_its_worker_at_once() {
    let endless = worker(|stream| async move {
        let mut reader = Client { stream, buffer: Vec::new() };
        while find(&reader.buffer, b"\r\n\r\n").is_none() && reader.more().await {}
        reader.send("HTTP/1.1 200 OK\r\n\r\nbegun").await;
        reader.is_closed().await;
    });
    let rig = Rig::start(Settings::default(), &[]).await;
    let workers = rig.set_workers(&[endless.await]).await;
    let mut client = rig.connect_http2().await;
    let (response, mut to) = client.begin(get("/"), true).await;
    let mut body = response.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "begun");
    to.send_reset(Reason::CANCEL);
    eventually("nothing is in flight", || async { (workers[0].in_flight.now() == 0).then_some(()) }).await;
}

#[tokio::test]
async fn a_worker_that_dies_in_the_middle_is_no_clean_end() {
    for head in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let dies = worker(move |stream| async move {
            let mut reader = Client { stream, buffer: Vec::new() };
            while find(&reader.buffer, b"\r\n\r\n").is_none() && reader.more().await {}
            reader.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhel")).await;
        });
        let rig = Rig::start(Settings::default(), &[dies.await]).await;
        let mut client = rig.connect_http2().await;
        let error = client.ask(get("/")).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR), "{head}: {error}");
        // Only this stream was broken.
        rig.set_workers(&[hello().await]).await;
        assert_eq!(client.ask(get("/")).await.unwrap().body, "hello");
        eventually("it is counted", || async {
            (rig.counters.traffic(jiff::Timestamp::now()).errors == 1).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn an_early_answer_is_whole_though_the_upload_is_not() {
    let early = worker(|stream| async move {
        let mut reader = Client { stream, buffer: Vec::new() };
        while find(&reader.buffer, b"\r\n\r\n").is_none() && reader.more().await {}
        reader.send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 5\r\n\r\nlarge").await;
        reader.is_closed().await;
    });
    let rig = Rig::start(Settings::default(), &[early.await]).await;
    let mut client = rig.connect_http2().await;
    // More than the connection's window in all: what nobody read is given back.
    for _ in 0..40 {
        let (response, mut to) = client.begin(post("/"), false).await;
        let send = async {
            // The reset that follows the answer may cut it.
            let _ = write(&mut to, vec![0; 100_000].into(), true).await;
        };
        let ((), answer) = tokio::join!(send, answer(response));
        let answer = answer.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (413, &b"large"[..]));
    }
}

#[tokio::test]
async fn draining_says_goaway_and_lets_running_requests_end() {
    let (release, held) = tokio::sync::watch::channel(false);
    let app = Router::new().fallback(move || {
        let mut held = held.clone();
        async move {
            let _ = held.wait_for(|open| *open).await;
            "slow"
        }
    });
    let rig = Rig::start(Settings::default(), &[]).await;
    let workers = rig.set_workers(&[application(app).await]).await;
    let idle = rig.connect_http2().await;
    let mut client = rig.connect_http2().await;
    let (response, _) = client.begin(get("/"), true).await;
    eventually("it is in flight", || async { (workers[0].in_flight.now() == 1).then_some(()) }).await;
    let drained = tokio::spawn(rig.proxy.drain(patience()));
    idle.connection.await.unwrap().unwrap();
    is_told_to_go(&client).await;
    assert!(!drained.is_finished());
    release.send_replace(true);
    assert_eq!(answer(response).await.unwrap().body, "slow");
    client.connection.await.unwrap().unwrap();
    assert_eq!(drained.await.unwrap(), Drained { cut: 0 });
}

#[tokio::test]
async fn a_client_that_ignores_goaway_does_not_hold_up_draining() {
    let rig = Rig::start(Settings::default(), &[hello().await]).await;
    let mut raw = super::frames::Raw::connect(rig.address).await;
    assert_eq!(raw.next().await.map(|frame| frame.kind), Some(super::frames::SETTINGS));
    assert_eq!(rig.proxy.drain(patience()).await, Drained { cut: 0 });
    let kinds = raw.kinds().await;
    assert!(kinds.contains(&super::frames::GOAWAY), "{kinds:?}");
}

#[tokio::test]
async fn an_idle_connection_is_told_to_go_and_a_busy_one_is_not() {
    let settings = Settings { idle_timeout: Duration::from_millis(300), ..Settings::default() };
    let rig = Rig::start(settings, &[silent().await]).await;
    let idle = rig.connect_http2().await;
    let mut busy = rig.connect_http2().await;
    let (response, _) = busy.begin(get("/"), true).await;
    idle.connection.await.unwrap().unwrap();
    assert!(!busy.connection.is_finished());
    rig.set_workers(&[hello().await]).await;
    assert_eq!(busy.ask(get("/")).await.unwrap().body, "hello");
    drop(response);
}

/// Waits for the client to learn that it may begin no more requests here.
async fn is_told_to_go(client: &Http2) {
    eventually("the client knows", || {
        let mut send = client.send.clone();
        async move { poll_fn(|cx| send.poll_ready(cx)).await.err() }
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_has_had_its_requests_is_told_to_go() {
    let app = Router::new().fallback(|| async { "hello" });
    let app = app.route("/slow", axum::routing::get(|| async { std::future::pending::<&str>().await }));
    let settings = Settings { requests_per_connection: 3, ..Settings::default() };
    let rig = Rig::start(settings, &[application(app).await]).await;
    let mut client = rig.connect_http2().await;
    let (response, mut slow) = client.begin(get("/slow"), true).await;
    assert_eq!(client.ask(get("/")).await.unwrap().body, "hello");
    assert!(!client.connection.is_finished(), "there is one left");
    assert_eq!(client.ask(get("/")).await.unwrap().body, "hello", "the last one is answered");
    is_told_to_go(&client).await;
    // The one that runs goes on for as long as its client waits for it.
    assert!(!client.connection.is_finished());
    slow.send_reset(Reason::CANCEL);
    drop(response);
    client.connection.await.unwrap().unwrap();
    // And the client comes again.
    let mut client = rig.connect_http2().await;
    assert_eq!(client.ask(get("/")).await.unwrap().body, "hello");
}

#[tokio::test]
async fn a_connection_that_is_old_is_told_to_go_busy_or_not() {
    let (release, held) = tokio::sync::watch::channel(false);
    let app = Router::new().fallback(move || {
        let mut held = held.clone();
        async move {
            let _ = held.wait_for(|open| *open).await;
            "slow"
        }
    });
    let settings = Settings { connection_age: Duration::from_millis(500), ..Settings::default() };
    let rig = Rig::start(settings, &[application(app).await]).await;
    let begun = std::time::Instant::now();
    let idle = rig.connect_http2().await;
    let mut busy = rig.connect_http2().await;
    let (response, _) = busy.begin(get("/"), true).await;
    idle.connection.await.unwrap().unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(500));
    is_told_to_go(&busy).await;
    assert!(!busy.connection.is_finished());
    release.send_replace(true);
    assert_eq!(answer(response).await.unwrap().body, "slow");
    busy.connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_first_byte_that_does_not_come_is_a_504() {
    let settings = Settings { first_byte_timeout: Duration::from_millis(300), ..Settings::default() };
    let rig = Rig::start(settings, &[silent().await]).await;
    let mut client = rig.connect_http2().await;
    let (response, mut to) = client.begin(post("/"), false).await;
    write(&mut to, Bytes::from_static(b"x"), true).await.unwrap();
    let answer = answer(response).await.unwrap();
    assert_eq!((answer.status, answer.header("x-switchman-error")), (504, Some("upstream-timeout")));
}
