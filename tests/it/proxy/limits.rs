//! What is too large, too much or too old: the answer, and how the connection ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use switchman::proxy::Settings;
use switchman::registry::Address;

use super::rig::{Client, application, hello, worker};
use super::{GET, Rig};
use crate::support::eventually;
use crate::support::switchman::{Setup, Switchman};

/// An application that says how long the body was.
async fn measures() -> Address {
    let app = axum::Router::new().fallback(|body: axum::body::Bytes| async move { body.len().to_string() });
    application(app).await
}

fn small() -> Settings {
    Settings { head_bytes: 1024, headers: 5, uri_bytes: 100, body_bytes: 10, ..Settings::default() }
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_the_connection_ends() {
    let rig = Rig::start(small(), &[measures().await]).await;
    let post = |head: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: app\r\n{head}\r\n\r\n{body}");
    let get = |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\nHost: app\r\n{headers}\r\n");
    for (request, status, cause) in [
        (post("Content-Length: 11", ""), 413, "body-too-large"),
        (post("Content-Length: 11\r\nExpect: 100-continue", ""), 413, "body-too-large"),
        (post("Content-Length: 18446744073709551615", ""), 413, "body-too-large"),
        (post("Transfer-Encoding: chunked", "b\r\nhello world\r\n0\r\n\r\n"), 413, "body-too-large"),
        (post("Transfer-Encoding: chunked", "6\r\nhello \r\n5\r\nworld\r\n"), 413, "body-too-large"),
        (get(&format!("/{}", "x".repeat(100)), ""), 414, "uri-too-long"),
        (get("/", &format!("X: {}\r\n", "x".repeat(1024))), 431, "head-too-large"),
        (get("/", "A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\n"), 431, "head-too-large"),
    ] {
        let mut client = rig.connect().await;
        client.send(&request).await;
        let response = client.response().await.unwrap();
        assert_eq!(
            (response.status, response.header("x-switchman-error")),
            (status, Some(cause)),
            "{request}"
        );
        assert_eq!(response.header("connection"), Some("close"), "{request}");
        assert!(client.is_closed().await && client.buffer.is_empty(), "{request}");
    }
    for request in [
        post("Content-Length: 10", "0123456789"),
        post(
            "Transfer-Encoding: chunked",
            "5;x=yyyyyyyyyyyyyyyyyyyyyyyyyy\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n",
        ),
    ] {
        assert_eq!(rig.ask(&request).await.text(), "10", "{request}");
    }
}

#[tokio::test]
async fn a_body_that_says_its_length_is_refused_before_a_worker_sees_it() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let counts = worker(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        async {}
    });
    let rig = Rig::start(small(), &[counts.await]).await;
    let response = rig.ask("PUT / HTTP/1.1\r\nHost: app\r\nContent-Length: 11\r\n\r\nhello world").await;
    assert_eq!((response.status, asked.load(Ordering::Relaxed)), (413, 0));
}

#[tokio::test]
async fn a_body_that_grows_too_large_while_it_flows_is_cut_off() {
    // It answers at once, and reads on.
    let eager = worker(|stream| async move {
        let mut reader = Client { stream, buffer: Vec::new() };
        reader.more().await;
        reader.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n").await;
        while reader.more().await {}
    });
    let rig = Rig::start(small(), &[measures().await]).await;
    let begin = "POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n01234567\r\n";
    let mut client = rig.connect().await;
    client.send(begin).await;
    client.send("8\r\n01234567\r\n0\r\n\r\n").await;
    let response = client.response().await.unwrap();
    assert_eq!((response.status, response.header("x-switchman-error")), (413, Some("body-too-large")));
    assert!(client.is_closed().await);

    // Where the answer has begun, the end of the connection is all that can be said.
    rig.set_workers(&[eager.await]).await;
    let mut client = rig.connect().await;
    client.send(begin).await;
    assert_eq!(client.head().await.unwrap().0, 200);
    assert_eq!(client.chunk().await.unwrap(), b"hi");
    client.send("8\r\n01234567\r\n0\r\n\r\n").await;
    assert!(client.is_closed().await && client.buffer.is_empty());
}

#[tokio::test]
async fn a_connection_carries_so_many_requests() {
    let settings = Settings { requests_per_connection: 2, ..Settings::default() };
    let rig = Rig::start(settings, &[hello().await]).await;
    let mut client = rig.connect().await;
    client.send(format!("{GET}{GET}{GET}")).await;
    let answers = [client.response().await.unwrap(), client.response().await.unwrap()];
    assert_eq!(answers.each_ref().map(|a| a.header("connection")), [None, Some("close")]);
    assert!(client.is_closed().await && client.buffer.is_empty(), "the third was not taken");
}

#[tokio::test]
async fn a_connection_of_a_certain_age_ends_with_its_next_answer() {
    let settings = Settings { connection_age: Duration::from_millis(500), ..Settings::default() };
    let rig = Rig::start(settings, &[hello().await]).await;
    let mut client = rig.connect().await;
    client.send(GET).await;
    assert_eq!(client.response().await.unwrap().header("connection"), None);
    loop {
        client.send(GET).await;
        let response = client.response().await.expect("it is only closed after it was said");
        if response.header("connection") == Some("close") {
            break;
        }
    }
    assert!(client.is_closed().await && client.buffer.is_empty());
}

#[tokio::test]
async fn a_client_has_so_many_connections_unless_it_is_exempt() {
    // One on each of the two threads; the kernel decides which thread a connection goes to.
    let few = Settings { connections_per_client: 2, ..Settings::default() };
    let rig = Rig::start(few.clone(), &[hello().await]).await;
    let mut clients = Vec::new();
    for _ in 0..16 {
        clients.push(rig.connect().await);
    }
    for client in &mut clients {
        client.send(GET).await;
        assert_eq!(client.response().await.unwrap().text(), "hello", "this machine is exempt");
    }

    let rig = Rig::start(Settings { exempt: Vec::new(), ..few }, &[hello().await]).await;
    let (mut served, mut closed) = (Vec::new(), 0);
    for _ in 0..64 {
        let mut client = rig.connect().await;
        client.send(GET).await;
        match client.response().await {
            Some(response) => {
                assert_eq!(response.text(), "hello");
                served.push(client);
            }
            None => closed += 1,
        }
    }
    assert_eq!((served.len(), closed), (2, 62));
    drop(served);
    eventually("there is room again", || async {
        let mut client = rig.connect().await;
        client.send(GET).await;
        client.response().await
    })
    .await;
}

#[tokio::test]
async fn limits_are_what_the_configuration_says() {
    let top = "limits: {body: 10B, requests_per_connection: 1}\n";
    let service = "    max_in_flight: 1\n    queue: {size: 0}\n";
    let switchman = Switchman::start(Setup { top, service, ..Setup::default() }).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "it is current", |v| v["dark"] == false).await;
    let mut client = Client::connect(switchman.address).await;
    client.send("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 11\r\n\r\n").await;
    let response = client.response().await.unwrap();
    assert_eq!((response.status, response.header("x-switchman-error")), (413, Some("body-too-large")));
    let mut client = Client::connect(switchman.address).await;
    client.send(GET).await;
    let response = client.response().await.unwrap();
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
}
