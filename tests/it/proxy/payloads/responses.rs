//! Workers that answer falsely: too much, too early, twice, unasked, in two lengths. Whoever asked may get an error;
//! nobody else gets any of it.

use std::sync::Arc;

use switchman::proxy::Settings;
use switchman::registry::Address;
use tokio::sync::Notify;

use super::reader;
use crate::proxy::Rig;
use crate::proxy::rig::{Client, find, worker};

/// What every false answer has in it: no other client may ever see it.
const POISON: &str = "poison";

/// What a client gets that asks for a false answer.
enum Gets {
    /// An answer of ours: the worker's was none.
    Error,
    /// The status and body that the worker's bytes mean.
    Answer(u16, &'static str),
    /// The head, and a body that breaks off.
    Broken,
}

/// The answer to `GET /false`, what its client gets, and bytes that follow once that has been read.
const FALSE: &[(&str, &str, Gets, &str)] = &[
    ("a status below 100", "HTTP/1.1 099 Low\r\nContent-Length: 2\r\n\r\nok", Gets::Error, ""),
    (
        "two lengths",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\nokpoison!",
        Gets::Error,
        "",
    ),
    (
        "one length twice",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        Gets::Error,
        "",
    ),
    ("a list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", Gets::Error, ""),
    ("a signed length", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", Gets::Error, ""),
    (
        "length and chunks",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Gets::Error,
        "",
    ),
    (
        "chunks and length",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        Gets::Error,
        "",
    ),
    (
        "chunked twice",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        Gets::Error,
        "",
    ),
    ("chunks in 1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Gets::Error, ""),
    ("line feeds", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", Gets::Error, ""),
    ("a line feed in the head", "HTTP/1.1 200 OK\r\nX: a\nContent-Length: 2\r\n\r\nok", Gets::Error, ""),
    ("a carriage return in the head", "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: poison\r\n\r\n", Gets::Error, ""),
    ("a NUL in the head", "HTTP/1.1 200 OK\r\nX: \0poison\r\nContent-Length: 2\r\n\r\nok", Gets::Error, ""),
    ("a folded header", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok", Gets::Error, ""),
    ("a blank before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", Gets::Error, ""),
    ("no HTTP", "poison\r\n\r\n", Gets::Error, ""),
    ("HTTP/2", "HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok", Gets::Error, ""),
    ("an empty line first", "\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Gets::Error, ""),
    (
        "a switch nobody asked for",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\npoison",
        Gets::Error,
        "",
    ),
    (
        "chunks that are none",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\npoison",
        Gets::Error,
        "",
    ),
    (
        "a chunk that is too long",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokpoison\r\n0\r\n\r\n",
        Gets::Error,
        "",
    ),
    (
        "a second answer at once",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        Gets::Answer(200, "ok"),
        "",
    ),
    (
        "more than its length",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokpoison",
        Gets::Answer(200, "ok"),
        "",
    ),
    (
        "more than its chunks",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\npoison",
        Gets::Answer(200, "ok"),
        "",
    ),
    ("a body behind 204", "HTTP/1.1 204 No Content\r\n\r\npoison", Gets::Answer(204, ""), ""),
    (
        "a length behind 204",
        "HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\npoison",
        Gets::Answer(204, ""),
        "",
    ),
    ("a body behind 304", "HTTP/1.1 304 Not Modified\r\n\r\npoison", Gets::Answer(304, ""), ""),
    (
        "a second answer later",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        Gets::Answer(200, "ok"),
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    ),
    ("a byte later", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Gets::Answer(200, "ok"), "p"),
    (
        "an interim answer later",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        Gets::Answer(200, "ok"),
        "HTTP/1.1 103 Early Hints\r\nLink: poison\r\n\r\n",
    ),
    ("a line end later", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Gets::Answer(200, "ok"), "\r\n"),
    (
        "interim answers first",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        Gets::Answer(200, "ok"),
        "",
    ),
    (
        "a length behind an interim answer",
        "HTTP/1.1 103 Early Hints\r\nContent-Length: 6\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        Gets::Answer(200, "ok"),
        "",
    ),
    ("no length", "HTTP/1.1 200 OK\r\n\r\nok", Gets::Broken, ""),
];

/// A worker that answers `GET /false` with `bytes`, sends `later` when it is told to and says when it has, and
/// answers every other request honestly with its target.
async fn liar(bytes: &'static str, later: &'static str, now: Arc<Notify>, sent: Arc<Notify>) -> Address {
    worker(move |stream| {
        let (now, sent) = (now.clone(), sent.clone());
        async move {
            let mut reader = Client { stream, buffer: Vec::new() };
            while reader.more().await {
                while let Ok(Some((request, length))) = reader::first(&reader.buffer) {
                    reader.buffer.drain(..length);
                    let said = request.target;
                    if said == "/false" {
                        reader.send(bytes).await;
                        if !later.is_empty() {
                            now.notified().await;
                            reader.send(later).await;
                            sent.notify_one();
                        }
                    } else {
                        let length = said.len();
                        reader
                            .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{said}"))
                            .await;
                    }
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_false_answer_reaches_nobody_but_who_asked() {
    for (what, bytes, gets, later) in FALSE {
        let (now, sent): (Arc<Notify>, Arc<Notify>) = Default::default();
        let rig =
            Rig::start(Settings::default(), &[liar(bytes, later, now.clone(), sent.clone()).await]).await;
        let mut client = rig.connect().await;
        client.send("GET /false HTTP/1.1\r\nHost: a\r\n\r\n").await;
        match gets {
            Gets::Error => {
                let (status, head) = client.head().await.unwrap();
                // A body that is wrong from its first byte may show when the head has left: then it breaks off.
                if status == 502 {
                    assert!(head.contains("x-switchman-error: "), "{what}: {head}");
                } else {
                    assert!(client.is_closed().await, "{what}");
                    assert!(
                        !String::from_utf8_lossy(&client.buffer).contains("0\r\n\r\n"),
                        "{what}: a good end"
                    );
                }
                client = rig.connect().await;
            }
            Gets::Answer(status, body) => {
                let (got, head) = loop {
                    match client.head().await.unwrap() {
                        (100..=199, _) => {}
                        found => break found,
                    }
                };
                assert_eq!(got, *status, "{what}: {head}");
                while client.buffer.len() < body.len() && client.more().await {}
                if head.contains("transfer-encoding: chunked") {
                    client = rig.connect().await;
                } else {
                    let got: Vec<u8> = client.buffer.drain(..body.len()).collect();
                    assert_eq!(got, body.as_bytes(), "{what}");
                }
            }
            Gets::Broken => {
                client.head().await.unwrap();
                client = rig.connect().await;
            }
        }
        if !later.is_empty() {
            now.notify_one();
            sent.notified().await;
        }
        // On the connection of who asked, and on others until each thread has had one.
        for number in 0..8 {
            let target = format!("/honest-{number}");
            let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            let answer = if number == 0 {
                client.send(&request).await;
                client.response().await.unwrap_or_else(|| panic!("{what}: the connection has ended"))
            } else {
                rig.ask(&request).await
            };
            assert_eq!((answer.status, answer.text()), (200, target.as_str()), "{what}");
            assert!(!answer.head.contains(POISON), "{what}: {}", answer.head);
        }
    }
}

/// The next request's head; its body is taken for another head.
async fn request_head(reader: &mut Client) -> Option<String> {
    loop {
        if let Some(at) = find(&reader.buffer, b"\r\n\r\n") {
            return Some(String::from_utf8(reader.buffer.drain(..at + 4).collect()).unwrap());
        }
        if !reader.more().await {
            return None;
        }
    }
}

#[tokio::test]
async fn an_answer_before_the_body_has_arrived_ends_the_connection_to_the_worker() {
    // It answers as soon as it has the head, and takes the body for what it is.
    let address = worker(|stream| async move {
        let mut reader = Client { stream, buffer: Vec::new() };
        while let Some(head) = request_head(&mut reader).await {
            let target = head.split(' ').nth(1).unwrap();
            let length = target.len();
            reader.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{target}")).await;
        }
    })
    .await;
    let rig = Rig::start(Settings::default(), &[address]).await;
    for number in 0..8 {
        let mut client = rig.connect().await;
        client.send(format!("POST /early-{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\n\r\n")).await;
        let answer = client.response().await.unwrap();
        assert_eq!(answer.text(), format!("/early-{number}"));
        // The rest of its body is a request, to a worker that does not read bodies.
        client.send("GET /smuggled HTTP/1.1\r\nHost: a\r\nX: 34567890123456789012\r\n\r\n").await;
        let honest = rig.ask(format!("GET /honest-{number} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(honest.text(), format!("/honest-{number}"));
    }
}

#[tokio::test]
async fn a_flood_of_interim_answers_ends() {
    let address = worker(|stream| async move {
        let mut reader = Client { stream, buffer: Vec::new() };
        request_head(&mut reader).await;
        let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1_000);
        use tokio::io::AsyncWriteExt;
        // Until switchman has had enough.
        while reader.stream.write_all(interim.as_bytes()).await.is_ok() {}
    })
    .await;
    let rig = Rig::start(Settings::default(), &[address]).await;
    // An HTTP/1.0 client sees none of them, so that nothing but switchman itself can put an end to it.
    let answer = rig.ask("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert_eq!((answer.status, answer.header("x-switchman-error")), (502, Some("bad-response")));
}

#[tokio::test]
async fn a_worker_cannot_smuggle_an_answer() {
    for bytes in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
    ] {
        let rig = Rig::start(Settings::default(), &[crate::proxy::rig::answers(bytes).await]).await;
        let response = rig.ask(crate::proxy::GET).await;
        let cause = response.header("x-switchman-error");
        assert_eq!(
            (response.status, cause),
            (502, Some("bad-response")),
            "{}",
            String::from_utf8_lossy(bytes)
        );
    }
}
