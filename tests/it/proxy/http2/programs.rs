//! HTTP/2 clients that others wrote: h2load and nghttp of nghttp2, and curl, in clear text and over TLS.

use std::net::SocketAddr;
use std::process::{Output, Stdio};

use switchman::proxy::{Door, Inside, Settings};
use switchman::registry::Address;
use tokio::process::Command;

use super::requests::{echo, recorder};
use crate::proxy::Rig;
use crate::proxy::rig::{answers, echoes_heads, hello};
use crate::proxy::tls::{pair, tls};
use crate::support::patience;

async fn output(program: &str, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    let running = command.args(args).stdin(Stdio::null()).kill_on_drop(true).output();
    let ended = tokio::time::timeout(patience(), running).await;
    ended.unwrap_or_else(|_| panic!("{program} {args:?} does not end")).unwrap_or_else(|error| {
        panic!("{program}: {error}: scripts/install-deps test");
    })
}

/// What a program says that ends well.
async fn run(program: &str, args: &[&str]) -> String {
    let output = output(program, args).await;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{program} {args:?} ended with {}: {said}", output.status);
    said
}

async fn rig(worker: Address) -> (Rig, String) {
    let rig = Rig::start(Settings::default(), &[worker]).await;
    let url = format!("http://{}/", rig.address);
    (rig, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2load_is_answered_every_time_in_clear_text_and_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (tls, following) = tls(&[pair(folder.path(), "a", &["localhost"])]);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let doors = vec![Door::from(any), Door { inside: Inside::Tls(tls), ..Door::from(any) }];
    let rig = Rig::start_behind(Settings::default(), &[hello().await], &[], doors).await;
    for (scheme, address, protocol) in [
        ("http", rig.addresses[0], "Application protocol: h2c"),
        ("https", rig.addresses[1], "Application protocol: h2"),
    ] {
        let url = format!("{scheme}://localhost:{}/", address.port());
        let said = run("h2load", &["-n2000", "-c10", "-m20", &url]).await;
        for part in [protocol, "2000 succeeded, 0 failed, 0 errored, 0 timeout", "status codes: 2000 2xx"] {
            assert!(said.contains(part), "{url}: {part} is missing in {said}");
        }
    }
    drop(following);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nghttp_gets_trailers() {
    let worker = answers(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n",
    );
    let (_rig, url) = rig(worker.await).await;
    let said = run("nghttp", &["-v", &url]).await;
    let (head, rest) = said.split_once(":status: 200").expect(&said);
    let (body, trailers) = rest.split_once("hello").expect(&said);
    assert!(head.contains("SETTINGS_MAX_CONCURRENT_STREAMS(0x03):250"), "{said}");
    assert!(body.contains("trailer: x-sum") && trailers.contains("x-sum: 7"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nghttp_sends_bodies_in_every_shape() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body");
    std::fs::write(&file, "switch ".repeat(30_000)).unwrap();
    let file = file.to_str().unwrap();
    let (_rig, url) = rig(echo().await).await;
    for how in [&[][..], &["--no-content-length"], &["--padding=200"], &["--continuation"], &["-w20", "-W20"]]
    {
        let said = run("nghttp", &[how, &["-d", file, &url]].concat()).await;
        assert!(said == "switch ".repeat(30_000), "{how:?}: {} bytes", said.len());
    }
    // Many at a time on one connection, with the tree of priorities that older clients send.
    let said = run("nghttp", &["-d", file, "-m20", "-n", "-s", &url]).await;
    assert_eq!(said.lines().filter(|line| line.contains(" 200 ")).count(), 20, "{said}");

    // HTTP/1 has trailers only where it says no length.
    let (address, seen) = recorder(b"\r\n0\r\nx-sum: 7\r\n\r\n").await;
    let (_rig, url) = rig(address).await;
    assert_eq!(run("nghttp", &["-d", file, "--no-content-length", "--trailer=x-sum: 7", &url]).await, "ok");
    assert!(seen.lock().unwrap().contains("switch switch"));
}

/// RFC 9113 section 3.1 has removed the upgrade of RFC 7540: a server may ignore it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_to_h2c_is_ignored_and_hidden_from_the_worker() {
    let (_rig, url) = rig(echoes_heads().await).await;
    let version = ["-sS", "--fail", "-w", "over %{http_version}"];
    for (how, expected) in [("--http2", "over 1.1"), ("--http2-prior-knowledge", "over 2")] {
        let said = run("curl", &[&version[..], &[how, &url]].concat()).await;
        let (head, over) = said.split_at(said.len() - expected.len());
        assert_eq!(over, expected, "{how}: {said}");
        let head = head.to_ascii_lowercase();
        assert!(!head.contains("upgrade") && !head.contains("http2-settings"), "{how}: {said}");
    }
    // One that insists is told that it was not done, and hangs up.
    let refused = output("nghttp", &["-u", "-v", &url]).await;
    let said = String::from_utf8_lossy(&[refused.stdout, refused.stderr].concat()).into_owned();
    assert!(said.contains("HTTP/1.1 200 OK") && said.contains("HTTP Upgrade failed"), "{said}");
}
