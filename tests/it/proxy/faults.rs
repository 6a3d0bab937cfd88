//! Workers that are busy, gone or slow, and clients that are too slow or leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use switchman::proxy::Settings;
use switchman::registry::Address;
use tokio::net::{TcpListener, TcpStream, UnixListener};

use super::rig::{Client, answers, application, find, hello, worker};
use super::{GET, Rig};
use crate::support::eventually;

const POST: &str = "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\nhi";

/// An address that refuses connections: its port was free a moment ago.
async fn nobody() -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Address::Tcp(listener.local_addr().unwrap())
}

/// An application that says its name.
async fn named(name: &'static str) -> Address {
    application(axum::Router::new().fallback(move || async move { name })).await
}

#[tokio::test]
async fn a_worker_that_refuses_is_left_out() {
    let rig = Rig::start(Settings::default(), &[nobody().await, hello().await, nobody().await]).await;
    let mut client = rig.connect().await;
    for request in [GET, POST].into_iter().cycle().take(20) {
        client.send(request).await;
        assert_eq!(client.response().await.unwrap().text(), "hello");
    }
}

#[tokio::test]
async fn with_no_worker_left_the_answer_says_why() {
    let rig = Rig::start(Settings::default(), &[nobody().await, nobody().await]).await;
    let mut client = rig.connect().await;
    for _ in 0..2 {
        client.send(GET).await;
        let response = client.response().await.unwrap();
        assert_eq!((response.status, response.header("x-switchman-error")), (502, Some("connect-failed")));
        assert!(response.text().contains("refused"), "{}", response.text());
    }
    eventually("both are counted as errors", || async {
        (rig.counters.traffic(jiff::Timestamp::now()).errors == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_worker_with_the_least_in_flight_is_picked() {
    let (release, held) = tokio::sync::watch::channel(false);
    let slow = worker(move |stream| {
        let mut held = held.clone();
        async move {
            let mut reader = Client { stream, buffer: Vec::new() };
            while reader.more().await {
                while find(&reader.buffer, b"\r\n\r\n").is_some() {
                    reader.buffer.clear();
                    let _ = held.wait_for(|open| *open).await;
                    reader.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow").await;
                }
            }
        }
    });
    let rig = Rig::start(Settings::default(), &[]).await;
    let upstreams = rig.set_workers(&[slow.await, named("fast").await]).await;
    // One of the first two goes to the slow worker and stays there; from then on it is the busier one.
    let mut waiting = rig.connect().await;
    let mut other = rig.connect().await;
    loop {
        waiting.send(GET).await;
        let taken = || async { (upstreams[0].in_flight.now() == 1).then_some(()) };
        tokio::select! {
            answer = waiting.response() => assert_eq!(answer.unwrap().text(), "fast"),
            () = eventually("the slow worker has it", taken) => break,
        }
    }
    for _ in 0..20 {
        other.send(GET).await;
        assert_eq!(other.response().await.unwrap().text(), "fast");
    }
    release.send_replace(true);
    assert_eq!(waiting.response().await.unwrap().text(), "slow");
    eventually("nothing is in flight", || async {
        upstreams.iter().all(|u| u.in_flight.now() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_idle_connection_that_died_is_not_noticed_by_anybody() {
    // Each connection answers one request, and is closed when the next arrives.
    let fickle = worker(|stream| async move {
        let mut reader = Client { stream, buffer: Vec::new() };
        while find(&reader.buffer, b"\r\n\r\n").is_none() && reader.more().await {}
        reader.buffer.clear();
        reader.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        reader.more().await;
    });
    let rig = Rig::start(Settings::default(), &[fickle.await]).await;
    let mut client = rig.connect().await;
    for _ in 0..10 {
        client.send(GET).await;
        assert_eq!(client.response().await.unwrap().text(), "ok");
    }
    // What cannot be done twice is not sent twice: the worker may have done it.
    client.send(POST).await;
    let response = client.response().await.unwrap();
    assert_eq!((response.status, response.header("x-switchman-error")), (502, Some("upstream-closed")));
}

#[tokio::test]
async fn a_request_that_killed_its_worker_is_tried_on_one_other() {
    let asked = Arc::new(AtomicUsize::new(0));
    let mut workers = Vec::new();
    for _ in 0..4 {
        let asked = asked.clone();
        workers.push(
            worker(move |stream| {
                let asked = asked.clone();
                async move {
                    let mut reader = Client { stream, buffer: Vec::new() };
                    reader.more().await;
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
            .await,
        );
    }
    let rig = Rig::start(Settings::default(), &workers).await;
    for (request, times) in [(GET, 2), (POST, 1)] {
        assert_eq!(rig.ask(request).await.status, 502);
        assert_eq!(asked.swap(0, Ordering::Relaxed), times, "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_under_load_loses_no_get() {
    let stable = named("stable").await;
    let rig = Rig::start(Settings::default(), std::slice::from_ref(&stable)).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (address, asked) = (rig.address, asked.clone());
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                let mut seen = std::collections::BTreeMap::new();
                while asked.fetch_add(1, Ordering::Relaxed) < 6000 {
                    client.send(GET).await;
                    let response = client.response().await.expect("an answer");
                    *seen.entry(response.status).or_insert(0) += 1;
                }
                seen
            })
        })
        .collect();
    // A worker on a runtime of its own dies with all its connections when that is dropped, as a process does.
    for round in 0..5 {
        let doomed =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = doomed.spawn(named("doomed")).await.unwrap();
        let upstreams = rig.set_workers(&[stable.clone(), address]).await;
        let target = (round + 1) * 1000;
        eventually("load has passed", || async { (asked.load(Ordering::Relaxed) > target).then_some(()) })
            .await;
        doomed.shutdown_background();
        let next = target + 300;
        eventually("load has passed", || async { (asked.load(Ordering::Relaxed) > next).then_some(()) })
            .await;
        drop(upstreams);
    }
    for client in clients {
        let seen = client.await.unwrap();
        assert!(seen.keys().eq(&[200]), "{seen:?}");
    }
}

#[tokio::test]
async fn a_unix_socket_is_as_good_as_a_port() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("worker.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let app = axum::Router::new().fallback(|| async { "unix" });
    tokio::spawn(async move { axum::serve(listener, app).await });
    let rig = Rig::start(Settings::default(), &[Address::Unix(path)]).await;
    let mut client = rig.connect().await;
    for _ in 0..3 {
        client.send(GET).await;
        assert_eq!(client.response().await.unwrap().text(), "unix");
    }
}

#[tokio::test]
async fn what_takes_too_long_ends() {
    let short = Duration::from_millis(300);
    let settings = Settings {
        head_timeout: short,
        idle_timeout: short,
        first_byte_timeout: short,
        body_timeout: short,
        wait_timeout: short,
        ..Settings::default()
    };
    let silent = worker(|stream| async move {
        let mut reader = Client { stream, buffer: Vec::new() };
        while reader.more().await {}
    });
    let rig = Rig::start(settings.clone(), &[silent.await]).await;
    let response = rig.ask(GET).await;
    assert_eq!((response.status, response.header("x-switchman-error")), (504, Some("upstream-timeout")));

    let response = rig.ask("GET / HTTP/1.1\r\nHos").await;
    assert_eq!((response.status, response.header("x-switchman-error")), (408, Some("request-timeout")));

    let mut idle = rig.connect().await;
    assert!(idle.is_closed().await && idle.buffer.is_empty(), "a new connection without a request");

    let stuck = worker(|stream| async move {
        let mut reader = Client { stream, buffer: Vec::new() };
        reader.more().await;
        reader.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello").await;
        while reader.more().await {}
    });
    let go_on = Arc::new(tokio::sync::Notify::new());
    let told = go_on.clone();
    let events = worker(move |stream| {
        let told = told.clone();
        async move {
            let mut reader = Client { stream, buffer: Vec::new() };
            reader.more().await;
            reader
                .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\ndata: 1\n\n")
                .await;
            told.notified().await;
            reader.send("data: 2\n\n").await;
        }
    });
    rig.set_workers(&[events.await]).await;
    let mut listener = rig.connect().await;
    listener.send(GET).await;
    assert_eq!(listener.head().await.unwrap().0, 200);
    assert_eq!(listener.chunk().await.unwrap(), b"data: 1\n\n");

    rig.set_workers(&[stuck.await]).await;
    assert_eq!(rig.ask(GET).await.text(), "hello", "a body that stands still is cut");
    assert_eq!(rig.ask(GET).await.text(), "hello", "and another one, a second time as long");
    go_on.notify_one();
    assert_eq!(listener.chunk().await.unwrap(), b"data: 2\n\n", "a stream of events may be silent");

    rig.set_workers(&[hello().await]).await;
    let mut idle = rig.connect().await;
    idle.send(GET).await;
    assert_eq!(idle.response().await.unwrap().status, 200);
    assert!(idle.is_closed().await && idle.buffer.is_empty(), "an idle connection");
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_worker() {
    let gone = Arc::new(tokio::sync::Notify::new());
    let told = gone.clone();
    let silent = worker(move |stream| {
        let told = told.clone();
        async move {
            let mut reader = Client { stream, buffer: Vec::new() };
            while reader.more().await {}
            told.notify_one();
        }
    });
    let rig = Rig::start(Settings::default(), &[]).await;
    let upstreams = rig.set_workers(&[silent.await]).await;
    let mut client = rig.connect().await;
    client.send(GET).await;
    eventually("it is in flight", || async { (upstreams[0].in_flight.now() == 1).then_some(()) }).await;
    drop(client);
    gone.notified().await;
    eventually("nothing is in flight", || async { (upstreams[0].in_flight.now() == 0).then_some(()) }).await;
}

#[tokio::test]
async fn a_client_that_has_only_ended_its_request_gets_its_answer() {
    let rig = Rig::start(Settings::default(), &[hello().await]).await;
    let mut client = rig.connect().await;
    client.send(format!("{GET}{GET}")).await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await.unwrap();
    assert_eq!(client.response().await.unwrap().text(), "hello");
    assert_eq!(client.response().await.unwrap().text(), "hello");
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn connections_to_a_worker_that_leaves_are_closed() {
    let ended = Arc::new(AtomicUsize::new(0));
    let counted = ended.clone();
    let keeps = worker(move |stream| {
        let counted = counted.clone();
        async move {
            let mut reader = Client { stream, buffer: Vec::new() };
            while reader.more().await {
                reader.buffer.clear();
                reader.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let rig = Rig::start(Settings::default(), &[keeps.await]).await;
    assert_eq!(rig.ask(GET).await.text(), "ok");
    assert_eq!(ended.load(Ordering::Relaxed), 0, "it is kept idle");
    rig.set_workers(&[hello().await]).await;
    eventually("it is closed", || async { (ended.load(Ordering::Relaxed) == 1).then_some(()) }).await;
}

#[tokio::test]
async fn more_connections_than_allowed_wait_their_turn() {
    let rig = Rig::start(Settings { max_connections: 2, ..Settings::default() }, &[hello().await]).await;
    let mut clients: Vec<Client> = Vec::new();
    // Each of the two threads has one; the kernel decides which thread a connection goes to.
    for _ in 0..8 {
        clients.push(rig.connect().await);
    }
    for client in &mut clients {
        client.send(GET).await;
    }
    while let Some(mut client) = clients.pop() {
        // It is answered as soon as those before it are gone; those that hold the places are asked first.
        if tokio::time::timeout(Duration::from_millis(300), client.response()).await.is_err() {
            clients.insert(0, client);
        }
    }
}

#[tokio::test]
async fn a_tcp_client_that_says_nothing_of_http_is_told_so() {
    let rig = Rig::start(Settings::default(), &[answers(b"").await]).await;
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let mut client = Client { stream, buffer: Vec::new() };
    client.send([0xff, 0xfe, 0, 1]).await;
    assert_eq!(client.response().await.unwrap().status, 400);
}
