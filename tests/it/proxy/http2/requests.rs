//! Ordinary requests over HTTP/2: heads, bodies, trailers, many at a time.

use std::future::poll_fn;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Method};
use switchman::config::Protocol;
use switchman::proxy::Settings;
use switchman::registry::Address;
use tokio::process::Command;

use super::frames::{DATA, END_HEADERS, END_STREAM, GET, HEADERS, Raw, block, frame};
use super::{answer, get, post, read, request, write};
use crate::proxy::rig::{Client, answers, application, find, hello, worker};
use crate::proxy::{Rig, VERSION};
use crate::support::eventually;

const MIB: usize = 1024 * 1024;

/// An application that sends a body back as it arrives.
pub(super) async fn echo() -> Address {
    application(Router::new().fallback(|request: Request| async move { Response::new(request.into_body()) }))
        .await
}

/// A worker that keeps what it got and answers with `ok` once that ends in `end`.
pub(super) async fn recorder(end: &'static [u8]) -> (Address, Arc<Mutex<String>>) {
    let seen: Arc<Mutex<String>> = Arc::default();
    let kept = seen.clone();
    let address = worker(move |stream| {
        let kept = kept.clone();
        async move {
            let mut reader = Client { stream, buffer: Vec::new() };
            while !reader.buffer.ends_with(end) && reader.more().await {}
            *kept.lock().unwrap() = String::from_utf8(reader.buffer.clone()).unwrap();
            reader.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    });
    (address.await, seen)
}

#[tokio::test]
async fn a_get_is_answered_as_in_http1() {
    let rig = Rig::start(Settings::default(), &[hello().await]).await;
    let mut client = rig.connect_http2().await;
    for _ in 0..3 {
        let answer = client.ask(get("/a?b=c")).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]));
        assert_eq!(answer.header("x-switchman-version"), Some(VERSION));
        assert_eq!(answer.header("content-length"), Some("5"));
        assert_eq!(answer.header("connection"), None);
    }
    eventually("each is counted", || async { (rig.counters.requests() == 3).then_some(()) }).await;
}

#[tokio::test]
async fn a_worker_sees_http1_with_everything_that_belongs_to_it() {
    let (address, seen) = recorder(b"\r\n\r\n").await;
    let rig = Rig::start(Settings::default(), &[address]).await;
    let mut client = rig.connect_http2().await;
    let request = get("/a%20b?c=d")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-switchman-version", "fake")
        .header("te", "trailers")
        .header("cookie", "c=3");
    assert_eq!(client.ask(request).await.unwrap().status, 200);
    // Another id and start each time.
    let stamps = regex::Regex::new("X-Request-(Id: [0-9a-f]{32}|Start: t=[0-9]+)\r\n").unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(stamps.find_iter(&seen).count(), 2, "{seen}");
    assert_eq!(
        stamps.replace_all(&seen, ""),
        "GET /a%20b?c=d HTTP/1.1\r\nHost: app\r\ncookie: a=1; b=2; c=3\r\nX-Forwarded-For: 127.0.0.1\r\n\
         X-Forwarded-Proto: http\r\nX-Forwarded-Host: app\r\nConnection: TE\r\nTE: trailers\r\n\r\n"
    );
}

#[tokio::test]
async fn cookie_crumbs_reach_a_rule() {
    let rig = Rig::start(Settings::default(), &[hello().await]).await;
    rig.set_rules("routes: [{when: {cookie.b: '2'}, to: 4f2a91c}]").await;
    let mut client = rig.connect_http2().await;
    let crumbs = |b: &str| get("/").header("cookie", "a=1").header("cookie", format!("b={b}"));
    assert_eq!(client.ask(crumbs("2")).await.unwrap().status, 200);
    let answer = client.ask(crumbs("3")).await.unwrap();
    assert_eq!((answer.status, answer.header("x-switchman-error")), (503, Some("no-current")));
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(json["type"], "urn:switchman:problem:no-current");
}

#[tokio::test]
async fn bodies_with_and_without_length_come_back_whole() {
    let rig = Rig::start(Settings::default(), &[echo().await]).await;
    let mut client = rig.connect_http2().await;
    for length in [0, 1, 16 * 1024, 100_000, 10 * MIB] {
        let body: Bytes = (0..length).map(|i| (i % 251) as u8).collect::<Vec<u8>>().into();
        for says_length in [true, false] {
            let mut head = post("/");
            if says_length {
                head = head.header("content-length", length);
            }
            let (response, mut to) = client.begin(head, length == 0).await;
            let send = async {
                if length > 0 {
                    write(&mut to, body.clone(), true).await.unwrap();
                }
            };
            let ((), answer) = tokio::join!(send, answer(response));
            let answer = answer.unwrap();
            assert!(answer.status == 200 && answer.body == body, "{length} bytes, {}", answer.body.len());
        }
    }
}

#[tokio::test]
async fn a_body_that_comes_with_its_head_is_a_body() {
    let rig = Rig::start(Settings::default(), &[echo().await]).await;
    let mut raw = Raw::connect(rig.address).await;
    let mut fields = GET;
    fields[0].1 = "POST";
    let mut request = frame(HEADERS, END_HEADERS, 1, &block(&fields));
    request.extend(frame(DATA, END_STREAM, 1, b"small"));
    raw.client.send(&request).await;
    let mut body = Vec::new();
    while let Some(frame) = raw.next().await {
        if frame.kind == DATA {
            body.extend(frame.payload);
            if frame.flags & END_STREAM != 0 {
                break;
            }
        }
    }
    assert_eq!(body, b"small");
}

#[tokio::test]
async fn a_hundred_requests_run_at_a_time_on_one_connection() {
    let barrier = Arc::new(tokio::sync::Barrier::new(100));
    let app = Router::new().fallback(move |request: Request| {
        let barrier = barrier.clone();
        async move {
            // Nobody is answered before all are there.
            barrier.wait().await;
            request.uri().path().to_owned()
        }
    });
    let rig = Rig::start(Settings::default(), &[]).await;
    let upstreams = rig.set_workers(&[application(app).await]).await;
    let mut client = rig.connect_http2().await;
    let mut responses = Vec::new();
    for n in 0..100 {
        responses.push((n, client.begin(get(&format!("/{n}")), true).await.0));
    }
    for (n, response) in responses {
        assert_eq!(answer(response).await.unwrap().body, format!("/{n}"));
    }
    eventually("nothing is in flight", || async { (upstreams[0].in_flight.now() == 0).then_some(()) }).await;
}

#[tokio::test]
async fn a_workers_trailers_reach_the_client() {
    let worker = answers(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7 \r\nx-b: \r\n\r\n",
    );
    let rig = Rig::start(Settings::default(), &[worker.await]).await;
    let answer = rig.connect_http2().await.ask(get("/")).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]));
    assert_eq!((answer.header("transfer-encoding"), answer.header("trailer")), (None, Some("x-sum")));
    let trailers = answer.trailers.unwrap();
    assert_eq!(
        (&trailers["x-sum"], &trailers["x-b"], trailers.len()),
        (&"7".parse().unwrap(), &"".parse().unwrap(), 2)
    );
}

/// A worker that speaks HTTP/2 and says the length of its body and trailers; `announces`: the trailers, too.
async fn with_length_and_trailers(announces: bool) -> Address {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut answering))) = connection.accept().await {
                let mut head = http::Response::builder().header("content-length", 5);
                if announces {
                    head = head.header("trailer", "x-sum");
                }
                let mut stream = answering.send_response(head.body(()).unwrap(), false).unwrap();
                stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
                let sum = ("x-sum".parse().unwrap(), "7".parse().unwrap());
                stream.send_trailers(HeaderMap::from_iter([sum])).unwrap();
            }
        }
    });
    address
}

#[tokio::test]
async fn trailers_behind_a_body_with_a_length_pass_where_they_are_announced() {
    let rig = Rig::start(Settings::default(), &[]).await;
    for (announces, length, sum) in [(true, None, Some("7")), (false, Some("5"), None)] {
        let worker = with_length_and_trailers(announces).await;
        rig.set_workers_speaking(Protocol::H2c, &[worker]).await;
        let answer = rig.connect_http2().await.ask(get("/")).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]));
        // Of the two, the inner form can say one: who announces trailers gets them through.
        assert_eq!(answer.header("content-length"), length);
        let trailers = answer.trailers.unwrap_or_default();
        assert_eq!(trailers.get("x-sum").map(|v| v.to_str().unwrap()), sum, "announced: {announces}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_in_our_own_words() {
    let settings = Settings { head_bytes: 8 * 1024, uri_bytes: 4 * 1024, headers: 50, ..Settings::default() };
    let rig = Rig::start(settings, &[hello().await]).await;
    let mut client = rig.connect_http2().await;
    let too_large = (431, Some("head-too-large"));
    // Under the limit; over it in bytes; over it in bytes of one header; over it in headers.
    for (count, length, expected) in
        [(40, 180, (200, None)), (40, 300, too_large), (1, 9 * 1024, too_large), (51, 1, too_large)]
    {
        let mut head = get("/");
        for index in 0..count {
            head = head.header(format!("x-{index}"), "v".repeat(length));
        }
        let answer = client.ask(head).await.unwrap();
        assert_eq!(
            (answer.status, answer.header("x-switchman-error")),
            expected,
            "{count} of {length} bytes"
        );
    }
    // Far over it nothing is unpacked any more: the answer is bare, and the connection goes on.
    let answer = client.ask(get("/").header("x-a", "v".repeat(20 * 1024))).await.unwrap();
    assert_eq!((answer.status, answer.header("x-switchman-error")), (431, None));
    let answer = client.ask(get(&format!("/{}", "a".repeat(5 * 1024)))).await.unwrap();
    assert_eq!((answer.status, answer.header("x-switchman-error")), (414, Some("uri-too-long")));
    assert_eq!(client.ask(get("/")).await.unwrap().body, "hello");
}

#[tokio::test]
async fn a_clients_trailers_reach_the_worker() {
    let (address, seen) = recorder(b"\r\n0\r\nx-sum: 7\r\n\r\n").await;
    let rig = Rig::start(Settings::default(), &[address]).await;
    let mut client = rig.connect_http2().await;
    let (response, mut to) = client.begin(post("/"), false).await;
    write(&mut to, Bytes::from_static(b"hello"), false).await.unwrap();
    to.send_trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())])).unwrap();
    assert_eq!(answer(response).await.unwrap().body, "ok");
    let seen = seen.lock().unwrap().clone();
    assert!(seen.contains("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n"), "{seen}");
}

#[tokio::test]
async fn a_trailer_that_only_a_header_may_be_is_refused() {
    let rig = Rig::start(Settings::default(), &[echo().await]).await;
    let mut client = rig.connect_http2().await;
    let (response, mut to) = client.begin(post("/"), false).await;
    to.send_trailers(HeaderMap::from_iter([("host".parse().unwrap(), "other".parse().unwrap())])).unwrap();
    let answer = answer(response).await.unwrap();
    assert_eq!((answer.status, answer.header("x-switchman-error")), (400, Some("bad-request")));
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    for (method, bytes, status, length) in [
        (Method::HEAD, &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"[..], 200, Some("5")),
        (Method::HEAD, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, None),
        (Method::GET, b"HTTP/1.1 204 No Content\r\n\r\n", 204, None),
        (Method::GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, Some("9")),
    ] {
        let rig = Rig::start(Settings::default(), &[answers(bytes).await]).await;
        let mut client = rig.connect_http2().await;
        let (response, _) = client.begin(request(method.clone(), "/"), true).await;
        let (head, mut body) = response.await.unwrap().into_parts();
        assert!(body.is_end_stream(), "{method} {status}: the end comes with the head");
        assert_eq!(head.status, status);
        assert_eq!(head.headers.get("content-length").map(|v| v.to_str().unwrap()), length);
        assert_eq!(read(&mut body).await.unwrap().0.len(), 0);
    }
    // An answer of ours, too.
    let rig = Rig::start(Settings::default(), &[]).await;
    let answer = rig.connect_http2().await.ask(request(Method::HEAD, "/")).await.unwrap();
    assert_eq!(
        (answer.status, answer.header("x-switchman-error"), answer.body.len()),
        (503, Some("not-ready"), 0)
    );
}

#[tokio::test]
async fn interim_answers_are_passed_on() {
    let worker = worker(|stream| async move {
        let mut reader = Client { stream, buffer: Vec::new() };
        while find(&reader.buffer, b"\r\n\r\n").is_none() && reader.more().await {}
        assert!(find(&reader.buffer, b"expect: 100-continue\r\n").is_some());
        reader.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n").await;
        while !reader.buffer.ends_with(b"hello") && reader.more().await {}
        reader.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    });
    let rig = Rig::start(Settings::default(), &[worker.await]).await;
    let mut client = rig.connect_http2().await;
    let head = post("/").header("expect", "100-continue").header("content-length", 5);
    let (mut response, mut to) = client.begin(head, false).await;
    let mut interim = Vec::new();
    while interim.len() < 2 {
        let next = poll_fn(|cx| response.poll_informational(cx)).await.expect("an interim answer").unwrap();
        interim.push((next.status().as_u16(), next.headers().get("link").cloned()));
    }
    assert_eq!(interim, [(100, None), (103, Some("</a.css>".parse().unwrap()))]);
    write(&mut to, Bytes::from_static(b"hello"), true).await.unwrap();
    assert_eq!(answer(response).await.unwrap().body, "ok");
}

#[tokio::test]
async fn a_slow_worker_slows_its_client_and_nobody_else() {
    let stuck = worker(|stream| async move {
        // It takes the connection and reads nothing.
        let () = std::future::pending().await;
        drop(stream);
    });
    let rig = Rig::start(Settings::default(), &[stuck.await]).await;
    let mut client = rig.connect_http2().await;
    let (_waiting, mut to) = client.begin(post("/"), false).await;
    let mut sent = 0;
    // Sockets and the window take what they take; then nothing more is allowed.
    let limit = 64 * MIB;
    loop {
        to.reserve_capacity(64 * 1024);
        let room = poll_fn(|cx| to.poll_capacity(cx));
        match tokio::time::timeout(std::time::Duration::from_secs(2), room).await {
            Ok(room) => {
                let room = room.unwrap().unwrap();
                to.send_data(vec![0; room].into(), false).unwrap();
                sent += room;
                assert!(sent < limit, "the window was given back before a worker took the bytes");
            }
            Err(_) => break,
        }
    }
    assert!(sent >= 256 * 1024, "{sent}");
    // The connection has room for others.
    rig.set_workers(&[hello().await]).await;
    assert_eq!(client.ask(get("/")).await.unwrap().body, "hello");
}

#[tokio::test]
async fn curl_speaks_http2_with_us() {
    let rig = Rig::start(Settings::default(), &[echo().await]).await;
    let url = format!("http://{}/", rig.address);
    for (data, expected) in [(&[][..], " 2 200"), (&["-d", "hello"], "hello 2 200")] {
        let output = Command::new("curl")
            .args(["-sS", "--http2-prior-knowledge", "-w", " %{http_version} %{http_code}", &url])
            .args(data)
            .stdin(Stdio::null())
            .output()
            .await
            .expect("curl is missing: apt-get install curl");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }
}
