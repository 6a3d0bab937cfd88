//! Workers that speak HTTP/2 in clear text: real connections of the `h2` crate's server, and clients of HTTP/1.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use switchman::config::Protocol;
use switchman::proxy::Settings;
use switchman::registry::{Address, Upstream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Notify, Semaphore};

use super::rig::Client;
use super::{GET, Rig};
use crate::support::eventually;

const MIB: usize = 1024 * 1024;

type Incoming = Request<RecvStream>;
type Answering = SendResponse<Bytes>;

/// Serves one connection: each request by `serve`, on a task of its own.
async fn connection<I, F, T>(io: I, builder: Builder, serve: Arc<F>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Incoming, Answering) -> T + Send + Sync + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let Ok(mut connection) = builder.handshake::<_, Bytes>(io).await else { return };
    while let Some(Ok((request, answering))) = connection.accept().await {
        tokio::spawn(serve(request, answering));
    }
}

/// A worker on a port; also counts its connections.
async fn worker_with<F, T>(builder: Builder, serve: F) -> (Address, Arc<AtomicUsize>)
where
    F: Fn(Incoming, Answering) -> T + Send + Sync + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    let (serve, connections) = (Arc::new(serve), Arc::new(AtomicUsize::new(0)));
    let open = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (builder, serve, open) = (builder.clone(), serve.clone(), open.clone());
            open.fetch_add(1, Relaxed);
            tokio::spawn(async move {
                connection(stream, builder, serve).await;
                open.fetch_sub(1, Relaxed);
            });
        }
    });
    (address, connections)
}

async fn worker<F, T>(serve: F) -> Address
where
    F: Fn(Incoming, Answering) -> T + Send + Sync + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    worker_with(Builder::new(), serve).await.0
}

/// A rig whose workers speak HTTP/2.
async fn rig(workers: &[Address]) -> (Rig, Vec<Arc<Upstream>>) {
    rig_with(Settings::default(), workers).await
}

async fn rig_with(settings: Settings, workers: &[Address]) -> (Rig, Vec<Arc<Upstream>>) {
    let rig = Rig::start(settings, &[]).await;
    let upstreams = rig.set_workers_speaking(Protocol::H2c, workers).await;
    (rig, upstreams)
}

async fn nothing_in_flight(upstreams: &[Arc<Upstream>]) {
    eventually("nothing is in flight", || async {
        upstreams.iter().all(|upstream| upstream.in_flight.now() == 0).then_some(())
    })
    .await;
}

/// Writes all of `bytes` as the receiver takes it.
async fn write(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let Some(room) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return Ok(()) };
        let room = room?.min(bytes.len());
        stream.send_data(bytes.split_to(room), false)?;
    }
    Ok(())
}

/// Sends head, body and trailers of the request back; `x-` headers in the head.
async fn echo(request: Incoming, mut answering: Answering) {
    let (head, mut body) = request.into_parts();
    let mut response = Response::new(());
    *response.headers_mut() = head.headers.clone();
    response.headers_mut().insert("x-method", head.method.as_str().parse().unwrap());
    response.headers_mut().insert("x-uri", head.uri.to_string().parse().unwrap());
    let Ok(mut stream) = answering.send_response(response, false) else { return };
    while let Some(Ok(data)) = body.data().await {
        let length = data.len();
        if write(&mut stream, data).await.is_err() {
            return;
        }
        let _ = body.flow_control().release_capacity(length);
    }
    let _ = match body.trailers().await {
        Ok(Some(trailers)) => stream.send_trailers(trailers),
        _ => stream.send_data(Bytes::new(), true),
    };
}

/// Answers with a text.
async fn say(mut answering: Answering, text: &'static str) {
    if let Ok(mut stream) = answering.send_response(Response::new(()), false) {
        let _ = stream.send_data(Bytes::from_static(text.as_bytes()), true);
    }
}

#[tokio::test]
async fn a_head_arrives_as_http2_wants_it() {
    let (rig, upstreams) = rig(&[worker(echo).await]).await;
    let text = "POST /a%20b?c=1 HTTP/1.1\r\nHost: app:80\r\nX-Two: 1\r\nX-Two: 2\r\nTE: trailers\r\n\
                Connection: keep-alive, x-mine\r\nX-Mine: 1\r\nContent-Length: 5\r\n\r\nhello";
    let response = rig.ask(text).await;
    assert_eq!((response.status, response.text()), (200, "hello"));
    for (name, value) in [
        ("x-method", Some("POST")),
        ("x-uri", Some("http://app:80/a%20b?c=1")),
        ("te", Some("trailers")),
        ("x-mine", None),
        ("connection", None),
        ("host", None),
        ("transfer-encoding", None),
        ("content-length", Some("5")),
        ("x-forwarded-host", Some("app:80")),
        ("x-switchman-version", Some("4f2a91c")),
    ] {
        let value = value.filter(|_| name != "te");
        assert_eq!(response.header(name), value, "{name}: {}", response.head);
    }
    let both: Vec<&str> = response.head.lines().filter(|line| line.starts_with("x-two")).collect();
    assert_eq!(both, ["x-two: 1", "x-two: 2"]);
    nothing_in_flight(&upstreams).await;
}

#[tokio::test]
async fn bodies_of_every_framing_and_trailers_pass_both_ways() {
    let (rig, upstreams) = rig(&[worker(echo).await]).await;
    for length in [0, 1, 1000, 32 * 1024 + 1, 70_000, 3 * MIB] {
        let body: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        // A connection each: this worker may begin to answer before it has the whole request.
        let mut client = rig.connect().await;
        let head = format!("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: {length}\r\n\r\n");
        client.send([head.as_bytes(), &body].concat()).await;
        let response = client.response().await.unwrap();
        assert!(response.status == 200 && response.body == body, "{length} bytes with a length");

        let mut text = b"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for part in body.chunks(10_000) {
            text.extend([format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat());
        }
        text.extend_from_slice(b"0\r\nX-Sum: 17\r\n\r\n");
        let mut client = rig.connect().await;
        client.send(text).await;
        let head = client.head().await;
        let Some((200, head)) = head else { panic!("{length} bytes in chunks: {head:?}") };
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        let end: &[u8] = b"0\r\nx-sum: 17\r\n\r\n";
        while !client.buffer.ends_with(end) {
            assert!(client.more().await, "{length}");
        }
        let mut received = Vec::new();
        while client.buffer != end {
            received.extend(client.chunk().await.unwrap());
        }
        client.buffer.clear();
        assert!(received == body, "{length} bytes in chunks");
    }
    nothing_in_flight(&upstreams).await;
}

#[tokio::test]
async fn answers_of_every_kind_keep_their_meaning() {
    let serve = |request: Incoming, mut answering: Answering| async move {
        let empty = |status: u16, length: Option<&str>| {
            let response = Response::builder().status(status);
            length
                .map_or(Response::builder().status(status), |n| response.header("content-length", n))
                .body(())
                .unwrap()
        };
        match request.uri().path() {
            "/head" => drop(answering.send_response(empty(200, Some("99")), true)),
            "/204" => drop(answering.send_response(empty(204, None), true)),
            "/304" => drop(answering.send_response(empty(304, Some("99")), true)),
            "/empty" => drop(answering.send_response(empty(200, None), true)),
            "/late" => {
                let mut stream = answering.send_response(empty(200, None), false).unwrap();
                stream.send_data(Bytes::new(), false).unwrap();
                stream.send_data(Bytes::from_static(b"x"), false).unwrap();
                stream.send_data(Bytes::new(), true).unwrap();
            }
            _ => say(answering, "after").await,
        }
    };
    let (rig, _) = rig(&[worker(serve).await]).await;
    let mut client = rig.connect().await;
    for (line, expected) in [
        ("HEAD /head", (200, Some("99"), "")),
        ("GET /204", (204, None, "")),
        ("GET /304", (304, Some("99"), "")),
        ("GET /empty", (200, Some("0"), "")),
        ("GET /late", (200, None, "x")),
    ] {
        client.send(format!("{line} HTTP/1.1\r\nHost: app\r\n\r\n")).await;
        let (status, body) = if line.starts_with("HEAD") || expected.0 != 200 {
            let (status, head) = client.head().await.unwrap();
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: "));
            assert_eq!(length, expected.1, "{line}: {head}");
            (status, String::new())
        } else {
            let response = client.response().await.unwrap();
            assert_eq!(response.header("content-length"), expected.1, "{line}");
            (response.status, response.text().to_owned())
        };
        assert_eq!((status, body.as_str()), (expected.0, expected.2), "{line}");
        client.send(GET).await;
        assert_eq!(client.response().await.unwrap().text(), "after", "the connection goes on behind {line}");
    }
}

#[tokio::test]
async fn requests_share_a_connection_up_to_what_the_worker_allows() {
    let gate = Arc::new(Semaphore::new(0));
    let (inside, held) = (Arc::new(AtomicUsize::new(0)), gate.clone());
    let arrived = inside.clone();
    let serve = move |_, answering| {
        let (arrived, held) = (arrived.clone(), held.clone());
        async move {
            arrived.fetch_add(1, Relaxed);
            let _ = held.acquire().await.unwrap();
            say(answering, "done").await;
        }
    };
    let mut builder = Builder::new();
    builder.max_concurrent_streams(10);
    let (address, connections) = worker_with(builder, serve).await;
    let (rig, upstreams) = rig(&[address]).await;
    let mut clients = Vec::new();
    for n in 1..=60 {
        let mut client = rig.connect().await;
        client.send(GET).await;
        clients.push(client);
        eventually("it is at the worker", || async { (inside.load(Relaxed) == n).then_some(()) }).await;
    }
    assert_eq!(upstreams[0].in_flight.now(), 60);
    let open = connections.load(Relaxed);
    assert!((6..=8).contains(&open), "{open} connections of two threads for 60 streams, 10 each");
    gate.add_permits(1000);
    for client in &mut clients {
        assert_eq!(client.response().await.unwrap().text(), "done");
    }
    nothing_in_flight(&upstreams).await;
    for client in &mut clients {
        client.send(GET).await;
        assert_eq!(client.response().await.unwrap().text(), "done");
    }
    assert_eq!(connections.load(Relaxed), open, "they are used again");
    rig.set_workers_speaking(Protocol::H2c, &[worker(echo).await]).await;
    eventually("connections to a worker that left end", || async {
        (connections.load(Relaxed) == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_outlives_its_workers_place_in_the_registry() {
    let (go_on, told) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (notified, telling) = (go_on.clone(), told.clone());
    let serve = move |_, mut answering: Answering| {
        let (notified, telling) = (notified.clone(), telling.clone());
        async move {
            let mut stream = answering.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from_static(b"one"), false).unwrap();
            telling.notify_one();
            notified.notified().await;
            stream.send_data(Bytes::from_static(b"two"), true).unwrap();
        }
    };
    let (address, connections) = worker_with(Builder::new(), serve).await;
    let (rig, _) = rig(&[address]).await;
    let mut client = rig.connect().await;
    client.send(GET).await;
    assert_eq!(client.head().await.unwrap().0, 200);
    assert_eq!(client.chunk().await.unwrap(), b"one");
    told.notified().await;
    rig.set_workers_speaking(Protocol::H2c, &[worker(echo).await]).await;
    assert_eq!(connections.load(Relaxed), 1);
    go_on.notify_one();
    assert_eq!(client.chunk().await.unwrap(), b"two");
    assert_eq!(client.chunk().await, None);
    eventually("its connection ends with it", || async { (connections.load(Relaxed) == 0).then_some(()) })
        .await;
}

#[tokio::test]
async fn what_a_worker_has_not_processed_is_sent_again_whatever_it_is() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let refuses = worker(move |_, mut answering: Answering| {
        counted.fetch_add(1, Relaxed);
        async move { answering.send_reset(Reason::REFUSED_STREAM) }
    });
    let (rig, upstreams) = rig(&[refuses.await, worker(|_, answering| say(answering, "ok")).await]).await;
    let mut client = rig.connect().await;
    for _ in 0..10 {
        client.send("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\nhi").await;
        assert_eq!(client.response().await.unwrap().text(), "ok");
    }
    assert!(asked.load(Relaxed) > 0, "it was asked");
    nothing_in_flight(&upstreams).await;

    // Said of a request that may have been processed, it is a failure; a GET is tried once more.
    let killed = Arc::new(AtomicUsize::new(0));
    let counted = killed.clone();
    let kills = worker(move |_, mut answering: Answering| {
        counted.fetch_add(1, Relaxed);
        async move { answering.send_reset(Reason::INTERNAL_ERROR) }
    });
    rig.set_workers_speaking(Protocol::H2c, &[kills.await]).await;
    let response = rig.ask("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\nhi").await;
    assert_eq!((response.status, response.header("x-switchman-error")), (502, Some("upstream-closed")));
    assert_eq!(killed.load(Relaxed), 1);
}

#[tokio::test]
async fn a_worker_that_says_goaway_gets_no_new_streams_and_ends_its_own() {
    // Each connection takes one request, says GOAWAY, and answers a moment after the next came elsewhere.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    let both = Arc::new(tokio::sync::Barrier::new(2));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let both = both.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, answering))) = connection.accept().await {
                    connection.graceful_shutdown();
                    let both = both.clone();
                    tokio::spawn(async move {
                        both.wait().await;
                        say(answering, "ok").await;
                    });
                }
            });
        }
    });
    let (rig, upstreams) = rig(&[address]).await;
    for _ in 0..5 {
        let (mut one, mut two) = (rig.connect().await, rig.connect().await);
        let post = "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\nhi";
        one.send(post).await;
        two.send(post).await;
        assert_eq!(one.response().await.unwrap().text(), "ok");
        assert_eq!(two.response().await.unwrap().text(), "ok");
    }
    nothing_in_flight(&upstreams).await;
}

#[tokio::test]
async fn an_answer_that_is_reset_in_the_middle_never_ends_cleanly() {
    let serve = |request: Incoming, mut answering: Answering| async move {
        let response = match request.uri().path() {
            "/length" => Response::builder().header("content-length", 100).body(()).unwrap(),
            _ => Response::new(()),
        };
        let mut stream = answering.send_response(response, false).unwrap();
        write(&mut stream, Bytes::from_static(b"half")).await.unwrap();
        stream.send_reset(Reason::INTERNAL_ERROR);
    };
    let (rig, upstreams) = rig(&[worker(serve).await]).await;
    for path in ["/", "/length"] {
        let mut client = rig.connect().await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: app\r\n\r\n")).await;
        // Where the reset overtakes the head, the whole request has failed.
        if let Some((status, head)) = client.head().await.filter(|(status, _)| *status == 200) {
            assert!(client.is_closed().await, "{status} {head}");
            assert!(!client.buffer.ends_with(b"0\r\n\r\n"), "{:?}", client.buffer);
        }
    }
    nothing_in_flight(&upstreams).await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_stream_and_no_other() {
    let (begun, cancelled) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (telling, told) = (begun.clone(), cancelled.clone());
    let serve = move |request: Incoming, mut answering: Answering| {
        let (telling, told) = (telling.clone(), told.clone());
        async move {
            if request.uri().path() != "/wait" {
                return say(answering, "ok").await;
            }
            let mut stream = answering.send_response(Response::new(()), false).unwrap();
            telling.notify_one();
            let reason = poll_fn(|cx| stream.poll_reset(cx)).await.unwrap();
            assert_eq!(reason, Reason::CANCEL);
            told.notify_one();
        }
    };
    let (address, connections) = worker_with(Builder::new(), serve).await;
    let settings = Settings { body_timeout: Duration::from_millis(300), ..Settings::default() };
    let (rig, upstreams) = rig_with(settings, &[address]).await;
    let mut client = rig.connect().await;
    client.send("GET /wait HTTP/1.1\r\nHost: app\r\n\r\n").await;
    begun.notified().await;
    drop(client);
    cancelled.notified().await;
    nothing_in_flight(&upstreams).await;
    assert_eq!(rig.ask(GET).await.text(), "ok");
    assert!(connections.load(Relaxed) <= 2, "one of each thread");
}

#[tokio::test]
async fn a_slow_client_holds_up_only_itself() {
    let (sent, total) = (Arc::new(AtomicUsize::new(0)), 64 * MIB);
    let counted = sent.clone();
    let serve = move |request: Incoming, mut answering: Answering| {
        let counted = counted.clone();
        async move {
            if request.uri().path() != "/big" {
                return say(answering, "ok").await;
            }
            let mut stream = answering.send_response(Response::new(()), false).unwrap();
            for _ in 0..total / MIB {
                if write(&mut stream, Bytes::from(vec![7; MIB])).await.is_err() {
                    return;
                }
                counted.fetch_add(MIB, Relaxed);
            }
            let _ = stream.send_data(Bytes::new(), true);
        }
    };
    let (rig, upstreams) = rig(&[worker(serve).await]).await;
    let mut slow: Vec<Client> = Vec::new();
    for _ in 0..4 {
        let mut client = rig.connect().await;
        client.send("GET /big HTTP/1.1\r\nHost: app\r\n\r\n").await;
        assert_eq!(client.head().await.unwrap().0, 200);
        slow.push(client);
    }
    for _ in 0..20 {
        assert_eq!(rig.ask(GET).await.text(), "ok", "others are served meanwhile");
    }
    // What the sockets between us hold is the kernel's; what we hold is a window and a buffer a stream.
    assert!(sent.load(Relaxed) < 4 * total / 2, "{} bytes were taken ahead", sent.load(Relaxed));
    for mut client in slow {
        let mut received = 0;
        while let Some(chunk) = client.chunk().await {
            received += chunk.len();
        }
        assert_eq!(received, total);
    }
    nothing_in_flight(&upstreams).await;
}

#[tokio::test]
async fn the_end_of_an_upload_that_fills_the_window_does_not_wait_for_room() {
    let collect = |request: Incoming, answering: Answering| async move {
        let (mut body, mut all) = (request.into_body(), Vec::new());
        // Not one byte of the window is given back.
        while let Some(Ok(data)) = body.data().await {
            all.extend_from_slice(&data);
        }
        assert_eq!(all.len(), 65_535);
        say(answering, "all").await;
    };
    let (rig, _) = rig(&[worker(collect).await]).await;
    let mut client = rig.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n").await;
    client.send(vec![b'x'; 65_535]).await;
    client.send("\r\n0\r\n\r\n").await;
    assert_eq!(client.response().await.unwrap().text(), "all");
}

#[tokio::test]
async fn a_unix_socket_carries_http2_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("worker.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(connection(stream, Builder::new(), Arc::new(echo)));
        }
    });
    let (rig, _) = rig(&[Address::Unix(path)]).await;
    assert_eq!(rig.ask(GET).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_under_load_loses_no_get() {
    let stable = worker(|_, answering| say(answering, "stable")).await;
    let (rig, _) = rig(std::slice::from_ref(&stable)).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (address, asked) = (rig.address, asked.clone());
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                let mut seen = BTreeSet::new();
                while asked.fetch_add(1, Relaxed) < 4000 {
                    client.send(GET).await;
                    seen.insert(client.response().await.expect("an answer").status);
                }
                seen
            })
        })
        .collect();
    for round in 0..3 {
        let doomed =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let serve = |_, answering| say(answering, "doomed");
        let address = doomed.spawn(worker(serve)).await.unwrap();
        let upstreams = rig.set_workers_speaking(Protocol::H2c, &[stable.clone(), address]).await;
        let passed = |n: usize| {
            let asked = &asked;
            async move {
                eventually("load has passed", || async { (asked.load(Relaxed) > n).then_some(()) }).await;
            }
        };
        passed((round + 1) * 1000).await;
        doomed.shutdown_background();
        passed((round + 1) * 1000 + 300).await;
        drop(upstreams);
    }
    for client in clients {
        let seen = client.await.unwrap();
        assert!(seen.iter().eq(&[200]), "{seen:?}");
    }
}

#[tokio::test]
async fn interim_answers_and_trailers_only_answers_pass() {
    let serve = |request: Incoming, mut answering: Answering| async move {
        if request.uri().path() == "/grpc" {
            let response = Response::builder().header("grpc-status", "5").body(()).unwrap();
            drop(answering.send_response(response, true));
            return;
        }
        let hints = Response::builder().status(103).header("link", "</a>").body(()).unwrap();
        answering.send_informational(hints).unwrap();
        let mut body = request.into_body();
        while let Some(Ok(_)) = body.data().await {}
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        let mut stream = answering.send_response(Response::new(()), false).unwrap();
        stream.send_trailers(trailers).unwrap();
    };
    let (rig, _) = rig(&[worker(serve).await]).await;
    let mut client = rig.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\n").await;
    let (status, head) = client.head().await.unwrap();
    assert!(status == 103 && head.contains("link: </a>\r\n"), "{head}");
    client.send("hi").await;
    assert_eq!(client.head().await.unwrap().0, 200);
    while super::rig::find(&client.buffer, b"\r\n\r\n").is_none() {
        assert!(client.more().await);
    }
    assert_eq!(client.buffer, b"0\r\nx-sum: 1\r\n\r\n");
    client.buffer.clear();
    client.send("GET /grpc HTTP/1.1\r\nHost: app\r\n\r\n").await;
    let response = client.response().await.unwrap();
    assert_eq!((response.header("grpc-status"), response.text()), (Some("5"), ""));
}

#[tokio::test]
async fn a_grpc_request_is_waited_for_until_its_deadline_and_told_in_its_own_words() {
    let stuck = worker(|_, answering: Answering| async move {
        std::future::pending::<()>().await;
        drop(answering);
    });
    let short = Duration::from_millis(100);
    let settings = Settings { first_byte_timeout: short, body_timeout: short, ..Settings::default() };
    let (rig, upstreams) = rig_with(settings, &[stuck.await]).await;
    let begun = std::time::Instant::now();
    let response = rig
        .ask("POST /s/m HTTP/1.1\r\nHost: app\r\nContent-Type: application/grpc\r\ngrpc-timeout: 1S\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(
        (response.status, response.header("grpc-status"), response.header("x-switchman-error")),
        (200, Some("4"), Some("upstream-timeout"))
    );
    nothing_in_flight(&upstreams).await;
}
