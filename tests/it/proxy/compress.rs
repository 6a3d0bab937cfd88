//! Responses compressed on their way, read with decoders that are not ours.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::Response;
use axum::routing::get;
use compression_codecs::core::util::{PartialBuffer, WriteBuffer};
use compression_codecs::{BrotliDecoder, DecodeV2, GzipDecoder, ZstdDecoder};
use switchman::config::{Coding, Compress, Delivery};
use switchman::registry::Address;

use super::Rig;
use super::rig::{answers, application};

fn decoder(coding: &str) -> Box<dyn DecodeV2 + Send> {
    match coding {
        "gzip" => Box::new(GzipDecoder::new()),
        "br" => Box::new(BrotliDecoder::new()),
        _ => Box::new(ZstdDecoder::new()),
    }
}

/// Everything that can be read from `bytes`.
fn decode(decoder: &mut dyn DecodeV2, bytes: &[u8]) -> Vec<u8> {
    let (mut input, mut text) = (PartialBuffer::new(bytes), Vec::new());
    loop {
        let mut room = vec![0; 64 * 1024];
        let mut out = WriteBuffer::new_initialized(&mut room);
        let ended = decoder.decode(&mut input, &mut out).unwrap();
        let n = out.written_len();
        text.extend_from_slice(&room[..n]);
        if ended || (input.unwritten().is_empty() && n < room.len()) {
            return text;
        }
    }
}

async fn rig(worker: Address) -> Rig {
    Rig::deliver(Delivery { compress: Some(Compress::default()), ..Delivery::default() }, worker).await
}

/// A page that is too large for one buffer.
fn page() -> String {
    (0..20_000).map(|n| format!("<p>paragraph {n}</p>\n")).collect()
}

/// An application that sends the page with a length at `/`, and without one at `/chunks`.
async fn pages() -> Address {
    let head = || Response::builder().header("content-type", "text/html").header("etag", "\"1\"");
    let whole = move || async move { head().body(Body::from(page())).unwrap() };
    let chunks = move || async move {
        let parts: Vec<_> = page().as_bytes().chunks(7_000).map(Bytes::copy_from_slice).collect();
        let parts = futures_util::stream::iter(parts.into_iter().map(Ok::<_, std::io::Error>));
        head().body(Body::from_stream(parts)).unwrap()
    };
    application(Router::new().route("/", get(whole)).route("/chunks", get(chunks))).await
}

#[tokio::test]
async fn a_page_arrives_in_each_coding_and_the_connection_stays() {
    let rig = rig(pages().await).await;
    let mut client = rig.connect().await;
    for path in ["/", "/chunks"] {
        for coding in ["gzip", "br", "zstd"] {
            client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n")).await;
            let response = client.response().await.unwrap();
            assert_eq!(response.header("content-encoding"), Some(coding));
            assert_eq!(response.header("transfer-encoding"), Some("chunked"));
            assert_eq!(response.header("content-length"), None);
            assert_eq!(response.header("etag"), Some("W/\"1\""));
            assert_eq!(response.header("vary"), Some("accept-encoding"));
            assert!(response.body.len() * 4 < page().len(), "{coding}: {} bytes", response.body.len());
            assert!(decode(&mut *decoder(coding), &response.body) == page().as_bytes(), "{path} {coding}");
        }
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let response = client.response().await.unwrap();
        assert!(response.body == page().as_bytes(), "{path} as it is");
        assert_eq!((response.header("content-encoding"), response.header("etag")), (None, Some("\"1\"")));
        assert_eq!(response.header("vary"), Some("accept-encoding"));
    }
}

#[tokio::test]
async fn clients_of_http_1_0_and_head_are_served_too() {
    let rig = rig(pages().await).await;
    let mut client = rig.connect().await;
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n").await;
    let (status, head) = client.head().await.unwrap();
    let head = head.to_ascii_lowercase();
    assert!(status == 200 && head.contains("content-encoding: gzip\r\n"), "{head}");
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");

    for path in ["/", "/chunks"] {
        let request = format!(
            "GET {path} HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nAccept-Encoding: gzip\r\n\r\n"
        );
        let response = rig.ask(request).await;
        assert_eq!(
            (response.header("transfer-encoding"), response.header("connection")),
            (None, Some("close"))
        );
        assert!(decode(&mut *decoder("gzip"), &response.body) == page().as_bytes(), "{path}");
    }
}

#[tokio::test]
async fn what_a_worker_compressed_or_must_stay_is_left_alone() {
    for (head, body) in [
        ("Content-Type: text/html\r\nContent-Encoding: br", "not really br"),
        ("Content-Type: image/png", "png"),
        ("Content-Type: text/event-stream", "data: 1\n\n"),
        ("Content-Type: text/html\r\nContent-Range: bytes 0-1/9", "ab"),
        ("Content-Type: text/html", "short, and its length is known"),
    ] {
        let length = body.len();
        let text = format!("HTTP/1.1 200 OK\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}");
        let rig = rig(answers(text.leak().as_bytes()).await).await;
        let response = rig.ask("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n").await;
        assert_eq!(response.text(), body, "{head}");
        assert_eq!(response.header("content-length"), Some(length.to_string().as_str()), "{head}");
        assert_eq!(response.header("vary"), None, "{head}");
    }
}

#[tokio::test]
async fn each_piece_of_a_streamed_page_can_be_read_before_the_next_is_sent() {
    for coding in ["gzip", "br", "zstd"] {
        let (next, mut pieces) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(1);
        let pieces = futures_util::stream::poll_fn(move |cx| pieces.poll_recv(cx));
        let pieces = std::sync::Arc::new(std::sync::Mutex::new(Some(pieces)));
        let stream = move || {
            let pieces = pieces.lock().unwrap().take().unwrap();
            async move {
                Response::builder()
                    .header("content-type", "text/html")
                    .body(Body::from_stream(pieces))
                    .unwrap()
            }
        };
        let rig = rig(application(Router::new().fallback(stream)).await).await;
        let mut client = rig.connect().await;
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n")).await;
        assert_eq!(client.head().await.unwrap().0, 200, "the head arrives before any piece");
        let mut decoder = decoder(coding);
        for piece in ["<html>", "<p>one</p>", "<p>two</p>"] {
            next.send(Ok(piece.to_owned())).await.unwrap();
            let mut read = Vec::new();
            while read.len() < piece.len() {
                read.extend(decode(&mut *decoder, &client.chunk().await.expect("a chunk")));
            }
            assert_eq!(String::from_utf8(read).unwrap(), piece, "{coding}");
        }
        drop(next);
        while let Some(chunk) = client.chunk().await {
            assert_eq!(decode(&mut *decoder, &chunk), b"", "{coding}");
        }
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_does_not_end_like_a_whole_one() {
    let broken =
        answers(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5000\r\n\r\n<html>").await;
    let rig = rig(broken).await;
    let mut client = rig.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n").await;
    assert!(client.is_closed().await && !client.buffer.ends_with(b"\r\n0\r\n\r\n"));
}

/// Programs that people use read it, each with its own decoder.
#[tokio::test(flavor = "multi_thread")]
async fn curl_and_python_read_it() {
    let only = |coding| Compress { codings: vec![coding], ..Compress::default() };
    let delivery = Delivery { compress: Some(only(Coding::Gzip)), ..Delivery::default() };
    let rig = Rig::deliver(delivery, pages().await).await;
    let url = format!("http://{}/chunks", rig.address);
    let script = "import gzip, sys, urllib.request as u\n\
                  r = u.urlopen(u.Request(sys.argv[1], headers={'Accept-Encoding': 'gzip'}))\n\
                  assert r.headers['Content-Encoding'] == 'gzip', r.headers\n\
                  sys.stdout.buffer.write(gzip.decompress(r.read()))";
    for command in [&["curl", "-sS", "--compressed", &url][..], &["python3", "-c", script, &url]] {
        let output = tokio::process::Command::new(command[0]).args(&command[1..]).output().await.unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.stdout == page().as_bytes(), "{}: {} bytes, {error}", command[0], output.stdout.len());
    }
}
