//! TLS on real sockets, with rustls, curl and openssl as clients.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use switchman::certificates::{self, Spec};
use switchman::proxy::{Door, Inside, Settings, Tls};
use switchman::registry::Address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_util::task::AbortOnDropHandle;

use super::forwarded::got;
use super::rig::{Response, application, echoes_heads, hello};
use super::{GET, Rig, VERSION};
use crate::support::eventually;

/// Writes a new certificate for `hosts`, which signs itself, and its key, each by a rename.
pub(crate) fn pair(folder: &Path, name: &str, hosts: &[&str]) -> Spec {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(hosts).unwrap();
    let write = |ending: &str, text: String| {
        let path = folder.join(format!("{name}.{ending}"));
        std::fs::write(path.with_extension("new"), text).unwrap();
        std::fs::rename(path.with_extension("new"), &path).unwrap();
        path
    };
    let certificate = write("pem", made.cert.pem());
    Spec { hosts: Vec::new(), certificate, key: write("key", made.signing_key.serialize_pem()) }
}

/// TLS with these certificates, and the task that follows their files.
pub(crate) fn tls(specs: &[Spec]) -> (Tls, AbortOnDropHandle<()>) {
    let (store, following) = certificates::follow(specs).unwrap();
    (Tls::new(store).unwrap(), AbortOnDropHandle::new(tokio::spawn(following)))
}

struct Secured {
    rig: Rig,
    _following: AbortOnDropHandle<()>,
}

/// A rig behind TLS.
async fn secured(settings: Settings, workers: &[Address], specs: &[Spec]) -> Secured {
    let (tls, following) = tls(specs);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let doors = vec![Door { inside: Inside::Tls(tls), ..Door::from(any) }];
    Secured { rig: Rig::start_behind(settings, workers, &[], doors).await, _following: following }
}

fn certificate(spec: &Spec) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(&spec.certificate).unwrap()
}

/// A connection to `host` that trusts only `root`.
async fn connect(
    address: SocketAddr,
    host: &str,
    root: &CertificateDer<'static>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(certificates::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// One request and the body of its answer, which has a length.
async fn ask(stream: &mut TlsStream<TcpStream>, request: &str) -> Response {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    loop {
        if let Some(at) = super::rig::find(&bytes, b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..at + 4].to_vec()).unwrap();
            let status = head[9..12].parse().unwrap();
            let mut response = Response { status, head, body: bytes[at + 4..].to_vec() };
            let length: usize = response.header("content-length").unwrap().parse().unwrap();
            if response.body.len() >= length {
                response.body.truncate(length);
                return response;
            }
        }
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "{}", bytes.escape_ascii());
    }
}

/// What a program says when it is given `input`.
async fn say(program: &str, args: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{program}: {e}: apt-get install {program}"));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    let output = tokio::time::timeout(crate::support::patience(), child.wait_with_output()).await;
    let output = output.unwrap_or_else(|_| panic!("{program} {args:?} does not end")).unwrap();
    drop(stdin);
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// One request by `openssl s_client`; what it says of the connection, and the answer.
async fn s_client(address: SocketAddr, args: &[&str]) -> String {
    let address = address.to_string();
    let args = [&["s_client", "-connect", &address, "-ign_eof"], args].concat();
    say("openssl", &args, "GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n").await
}

#[tokio::test]
async fn the_host_that_a_client_names_chooses_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let specs = [
        pair(folder.path(), "first", &["first.example"]),
        pair(folder.path(), "wild", &["*.b.example"]),
        pair(folder.path(), "exact", &["a.b.example"]),
    ];
    let it = secured(Settings::default(), &[hello().await], &specs).await;
    for (host, index) in [("first.example", 0), ("x.b.example", 1), ("a.b.example", 2)] {
        let mut stream = connect(it.rig.address, host, &certificate(&specs[index])).await.unwrap();
        assert_eq!(stream.get_ref().1.peer_certificates().unwrap(), [certificate(&specs[index])], "{host}");
        let response = ask(&mut stream, GET).await;
        assert_eq!((response.status, response.text()), (200, "hello"));
        assert_eq!(response.header("x-switchman-version"), Some(VERSION));
    }
    let pem = std::fs::read_to_string(&specs[0].certificate).unwrap();
    let body = pem.lines().nth(1).unwrap();
    for name in [["-noservername"].as_slice(), &["-servername", "unknown.example"]] {
        let said = s_client(it.rig.address, name).await;
        assert!(said.contains(body) && said.contains("hello"), "{name:?}: {said}");
    }
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken_and_resumed_and_1_1_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let it = secured(Settings::default(), &[hello().await], &[pair(folder.path(), "a", &["app"])]).await;
    let session = folder.path().join("session");
    let session = session.to_str().unwrap();
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = s_client(it.rig.address, &[version, "-sess_out", session]).await;
        assert!(said.contains(&format!("New, {name}")) && said.contains("hello"), "{said}");
        let said = s_client(it.rig.address, &[version, "-sess_in", session]).await;
        assert!(said.contains(&format!("Reused, {name}")) && said.contains("hello"), "{said}");
    }
    let said = s_client(it.rig.address, &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]).await;
    assert!(said.contains("SSL alert number") && said.contains("New, (NONE)"), "{said}");
    let said = s_client(it.rig.address, &["-alpn", "http/1.1"]).await;
    assert!(said.contains("ALPN protocol: http/1.1"), "{said}");
}

#[tokio::test]
async fn curl_gets_large_bodies_and_the_worker_hears_of_https() {
    const LENGTH: usize = 5 * 1024 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let spec = pair(folder.path(), "a", &["app.example"]);
    let app = axum::Router::new()
        .route("/large", axum::routing::get(|| async { vec![7_u8; LENGTH] }))
        .route(
            "/upload",
            axum::routing::post(|body: axum::body::Bytes| async move { body.len().to_string() }),
        )
        .layer(axum::extract::DefaultBodyLimit::disable());
    let it = secured(Settings::default(), &[application(app).await], std::slice::from_ref(&spec)).await;
    let port = it.rig.address.port();
    let resolve = format!("app.example:{port}:127.0.0.1");
    let ca = spec.certificate.to_str().unwrap();
    let curl = ["--silent", "--show-error", "--cacert", ca, "--resolve", &resolve];
    let url = |path: &str| format!("https://app.example:{port}{path}");
    let (large, upload) = (url("/large"), url("/upload"));
    for version in ["--http1.1", "--http1.0"] {
        let size = ["--output", "/dev/null", "--write-out", "%{size_download} %{http_code}", version, &large];
        assert_eq!(say("curl", &[&curl[..], &size].concat(), "").await, format!("{LENGTH} 200"));
    }
    let file = folder.path().join("large");
    std::fs::write(&file, vec![1_u8; LENGTH]).unwrap();
    let data = format!("@{}", file.display());
    let said = say("curl", &[&curl[..], &["--data-binary", &data, &upload]].concat(), "").await;
    assert_eq!(said, LENGTH.to_string());

    it.rig.set_workers(&[echoes_heads().await]).await;
    let mut stream = connect(it.rig.address, "app.example", &certificate(&spec)).await.unwrap();
    let response = ask(&mut stream, GET).await;
    assert_eq!(got(&response, "x-forwarded-proto"), ["https"]);
}

#[tokio::test]
async fn http2_is_offered_and_spoken() {
    let folder = tempfile::tempdir().unwrap();
    let spec = pair(folder.path(), "a", &["app.example"]);
    let it = secured(Settings::default(), &[echoes_heads().await], std::slice::from_ref(&spec)).await;
    let port = it.rig.address.port();
    let (resolve, url) = (format!("app.example:{port}:127.0.0.1"), format!("https://app.example:{port}/"));
    let ca = spec.certificate.to_str().unwrap();
    let args = ["--silent", "--show-error", "--cacert", ca, "--resolve", &resolve];
    let said = say("curl", &[&args[..], &["--write-out", "over %{http_version}", &url]].concat(), "").await;
    assert!(said.ends_with("over 2"), "{said}");
    assert!(said.contains("X-Forwarded-Proto: https\r\n") && said.contains("X-Request-Id: "), "{said}");
    // HTTP/2 is wanted most, whatever the client wants most; who offers nothing speaks HTTP/1.1.
    for (offered, chosen) in [
        (&["-alpn", "h2,http/1.1"][..], "ALPN protocol: h2"),
        (&["-alpn", "http/1.1,h2"], "ALPN protocol: h2"),
        (&["-alpn", "http/1.1"], "ALPN protocol: http/1.1"),
        (&["-alpn", "spdy/3,http/1.1"], "ALPN protocol: http/1.1"),
        (&["-alpn", "spdy/3"], "alert no application protocol"),
        (&[], "No ALPN negotiated"),
    ] {
        let said = s_client(it.rig.address, offered).await;
        assert!(said.contains(chosen), "{offered:?}: {said}");
    }
}

#[tokio::test]
async fn a_handshake_that_stands_still_does_not_hold_up_draining() {
    let folder = tempfile::tempdir().unwrap();
    let it = secured(Settings::default(), &[hello().await], &[pair(folder.path(), "a", &["app"])]).await;
    let mut waiting = it.rig.connect().await;
    waiting.send(b"\x16\x03\x01\x02").await;
    // This one comes behind it on one of the threads, or beside it.
    assert_eq!(it.rig.ask(GET).await.status, 400);
    let drained =
        tokio::time::timeout(crate::support::patience(), it.rig.proxy.drain(Duration::from_secs(3600)));
    assert_eq!(drained.await.expect("it ends").cut, 0);
    assert!(waiting.is_closed().await);
}

#[tokio::test]
async fn a_client_that_reads_late_gets_every_byte_and_is_told_the_end() {
    const LENGTH: usize = 3 * 1024 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let spec = pair(folder.path(), "a", &["app"]);
    let app = axum::Router::new().fallback(|| async {
        axum::body::Body::from_stream(futures_util::stream::iter(
            (0..48).map(|_| Ok::<_, std::io::Error>(vec![7; LENGTH / 48])),
        ))
    });
    let it = secured(Settings::default(), &[application(app).await], std::slice::from_ref(&spec)).await;
    let mut stream = connect(it.rig.address, "app", &certificate(&spec)).await.unwrap();
    // HTTP/1.0: the end of the connection ends the body, and only close_notify tells it from a cut.
    stream.write_all(b"GET / HTTP/1.0\r\nHost: app\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    while bytes.len() < 1000 {
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0);
    }
    stream.read_to_end(&mut bytes).await.expect("the end is told");
    let head = super::rig::find(&bytes, b"\r\n\r\n").unwrap() + 4;
    assert_eq!(bytes.len() - head, LENGTH);
}

#[tokio::test]
async fn a_new_certificate_is_taken_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let old = [pair(folder.path(), "a", &["a.example"]), pair(folder.path(), "b", &["b.example"])];
    let [old_a, old_b] = [certificate(&old[0]), certificate(&old[1])];
    let it = secured(Settings::default(), &[hello().await], &old).await;
    let mut stream = connect(it.rig.address, "a.example", &old_a).await.unwrap();
    assert_eq!(ask(&mut stream, GET).await.text(), "hello");

    let new_a = certificate(&pair(folder.path(), "a", &["a.example"]));
    assert_ne!(new_a, old_a);
    eventually("the new certificate is in force", || async {
        connect(it.rig.address, "a.example", &new_a).await.ok()
    })
    .await;
    assert_eq!(ask(&mut stream, GET).await.text(), "hello", "the old connection goes on");

    // The key of another certificate, and in the same folder a good pair: once that is in force, both were read.
    std::fs::copy(&old[1].key, &old[0].key).unwrap();
    let new_b = certificate(&pair(folder.path(), "b", &["b.example"]));
    assert_ne!(new_b, old_b);
    eventually("the other one is in force", || async {
        connect(it.rig.address, "b.example", &new_b).await.ok()
    })
    .await;
    let mut stream = connect(it.rig.address, "a.example", &new_a).await.expect("the last good one serves on");
    assert_eq!(ask(&mut stream, GET).await.text(), "hello");
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let it = secured(Settings::default(), &[hello().await], &[pair(folder.path(), "a", &["app"])]).await;
    let response = it.rig.ask(GET).await;
    assert_eq!((response.status, response.header("x-switchman-error")), (400, Some("bad-request")));
    assert!(response.text().contains("this port speaks TLS"), "{}", response.text());
    let mut client = it.rig.connect().await;
    client.send([0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5]).await;
    assert!(client.is_closed().await, "what is neither is closed");
}

#[tokio::test]
async fn a_slow_handshake_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { head_timeout: Duration::from_millis(300), ..Settings::default() };
    let it = secured(settings, &[hello().await], &[pair(folder.path(), "a", &["app"])]).await;
    for bytes in [b"".as_slice(), b"\x16\x03\x01\x02"] {
        let mut client = it.rig.connect().await;
        client.send(bytes).await;
        assert!(client.is_closed().await);
    }
}
