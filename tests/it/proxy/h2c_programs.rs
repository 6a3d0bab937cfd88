//! HTTP/2 to workers that others wrote: nghttp2's server and Node.js, driven by curl and h2load.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use switchman::config::Protocol;
use switchman::proxy::Settings;
use switchman::registry::Address;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use super::Rig;
use crate::support::eventually;

const NODE: &str = r#"
const server = require('node:http2').createServer();
server.on('stream', (stream, headers) => {
  stream.on('error', () => {});
  stream.respond({':status': 200, 'x-path': headers[':path'], 'x-authority': headers[':authority']},
                 {waitForTrailers: true});
  stream.on('wantTrailers', () => stream.sendTrailers({'x-end': 'yes'}));
  stream.pipe(stream);
});
server.listen(Number(process.argv[1]), '127.0.0.1');
"#;

/// Starts a program that listens on `address`, and waits until it does.
async fn start(program: &str, args: &[&str], address: SocketAddr) -> Child {
    let path = std::env::var("PATH").unwrap_or_default();
    let child = Command::new(program)
        .args(args)
        // Debian keeps servers in a folder that is not in every PATH.
        .env("PATH", format!("{path}:/usr/sbin"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}: scripts/install-deps test"));
    eventually("it listens", || async { TcpStream::connect(address).await.ok() }).await;
    child
}

async fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn nghttpd(folder: &Path) -> (Child, SocketAddr) {
    let address = free().await;
    let (port, folder) = (address.port().to_string(), folder.to_str().unwrap());
    let args = ["--no-tls", "--address=127.0.0.1", "-d", folder, &port];
    (start("nghttpd", &args, address).await, address)
}

async fn rig(address: SocketAddr) -> Rig {
    let rig = Rig::start(Settings::default(), &[]).await;
    rig.set_workers_speaking(Protocol::H2c, &[Address::Tcp(address)]).await;
    rig
}

async fn run(program: &str, args: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(args).kill_on_drop(true).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?} ended with {}: {said}", output.status);
    output.stdout
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_and_h2load_reach_nghttpd() {
    let folder = tempfile::tempdir().unwrap();
    let big: Vec<u8> = (0..5 << 20).map(|i: u32| (i % 251) as u8).collect();
    std::fs::write(folder.path().join("big"), &big).unwrap();
    std::fs::write(folder.path().join("small"), "small").unwrap();
    let (_worker, address) = nghttpd(folder.path()).await;
    let rig = rig(address).await;
    let url = |path: &str| format!("http://{}{path}", rig.address);
    for version in ["--http1.0", "--http1.1", "--http2-prior-knowledge"] {
        let got = run("curl", &["-sS", "--fail", version, &url("/big")]).await;
        assert!(got == big, "{version}: {} bytes", got.len());
        let head = run("curl", &["-sS", "--head", version, &url("/small")]).await;
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.contains("content-length: 5\r\n") && head.contains("x-switchman-version"), "{head}");
    }
    for protocol in [&["--h1"][..], &[]] {
        let url = url("/small");
        let said = run("h2load", &[protocol, &["-n2000", "-c8", "-m20", &url]].concat()).await;
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{protocol:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_uploads_to_node_and_gets_its_trailers() {
    let address = free().await;
    let _worker = start("node", &["-e", NODE, &address.port().to_string()], address).await;
    let rig = rig(address).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("body");
    let body: Vec<u8> = (0..3 << 20).map(|i: u32| (i % 251) as u8).collect();
    std::fs::write(&path, &body).unwrap();
    let (url, path) = (format!("http://{}/a?b=c", rig.address), path.display().to_string());
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for framing in [&[][..], &["-H", "Transfer-Encoding: chunked"]] {
            // HTTP/2 has no such header, and does not need it.
            let framing = if version == "--http1.1" { framing } else { &[] };
            let file = format!("@{path}");
            let head = folder.path().join("head");
            let dump = ["-D", head.to_str().unwrap()];
            let common = ["-sS", "--fail", version, "-H", "Expect:", "--data-binary", &file, &url];
            let got = run("curl", &[&common[..], &dump, framing].concat()).await;
            assert!(got == body, "{version} {framing:?}: {} bytes", got.len());
            let head = std::fs::read_to_string(&head).unwrap();
            for line in ["x-path: /a?b=c", &format!("x-authority: {}", rig.address), "x-end: yes"] {
                assert!(head.contains(line), "{version} {framing:?}: {line} is missing in {head}");
            }
        }
    }
}
