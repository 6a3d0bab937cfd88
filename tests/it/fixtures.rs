//! The sample applications under `fixtures/`: each runs, says who it is and what it was given, follows the file
//! `health`, and on TERM ends what it is answering and exits with 0.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::support::{eventually, patience};

/// The compiled sample worker (`fixtures/worker`); cargo builds examples before it runs tests.
fn worker() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_switchman")).with_file_name("examples").join("worker");
    assert!(path.exists(), "{} is missing; type `cargo build --example worker`", path.display());
    path
}

/// A file of this repository.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A running sample application.
struct Application {
    address: String,
    process: Child,
    folder: TempDir,
}

impl Application {
    /// Copies `files` of a fixture into a version folder and runs `command` in it.
    async fn start(files: &[PathBuf], command: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::copy(file, folder.path().join(file.file_name().unwrap())).unwrap();
        }
        let port = portpicker::pick_unused_port().unwrap();
        let process = Command::new(command[0])
            .args(&command[1..])
            .current_dir(folder.path())
            .envs([("PORT", port.to_string().as_str()), ("HOST", "127.0.0.1"), ("SWITCHMAN_WORKER", "3")])
            .envs([("SWITCHMAN_VERSION", "4f2a91c"), ("COMMIT", "4f2a91c")])
            .env_remove("SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|e| panic!("{} does not start: {e}", command[0]));
        let application = Self { address: format!("127.0.0.1:{port}"), process, folder };
        eventually("the application takes connections", || async {
            TcpStream::connect(&application.address).await.ok()
        })
        .await;
        application
    }

    /// The sample worker, with flags.
    async fn worker(flags: &[&str]) -> Self {
        Self::start(&[worker()], &[&["./worker"], flags].concat()).await
    }

    /// Status and body of a GET.
    async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        answer(stream).await
    }

    fn terminate(&self) {
        let pid = Pid::from_raw(self.process.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// Waits for its end; its exit status.
    async fn ended(&mut self) -> Option<i32> {
        tokio::time::timeout(patience(), self.process.wait()).await.expect("it ends").unwrap().code()
    }
}

/// Reads an answer to the connection's end.
async fn answer(mut stream: TcpStream) -> (u16, String) {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// What all three have in common.
async fn is_a_good_application(mut application: Application) {
    let pid = application.process.id().unwrap();
    assert_eq!(application.get("/").await, (200, format!("version=4f2a91c worker=3 pid={pid}\n")));
    assert_eq!(application.get("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(application.get("/nowhere").await.0, 404);

    let (status, body) = application.get("/env").await;
    let told: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 200);
    assert_eq!(told["env"]["COMMIT"], "4f2a91c");
    assert_eq!(told["env"]["PORT"], application.address.split(':').nth(1).unwrap());
    assert_eq!(told["cwd"], application.folder.path().canonicalize().unwrap().to_str().unwrap());

    std::fs::write(application.folder.path().join("health"), "503\n").unwrap();
    assert_eq!(application.get("/healthz").await.0, 503);

    application.terminate();
    assert_eq!(application.ended().await, Some(0));
    assert!(TcpStream::connect(&application.address).await.is_err(), "nothing listens any more");
}

#[tokio::test]
async fn the_node_application_is_good() {
    let files = [file("fixtures/node-app/server.js"), file("fixtures/node-app/switchman.yaml")];
    is_a_good_application(Application::start(&files, &["node", "server.js"]).await).await;
}

#[tokio::test]
async fn the_python_application_is_good() {
    let files = [file("fixtures/python-app/server.py"), file("fixtures/python-app/Procfile")];
    is_a_good_application(Application::start(&files, &["python3", "server.py"]).await).await;
}

#[tokio::test]
async fn the_worker_is_good() {
    is_a_good_application(Application::worker(&[]).await).await;
}

#[tokio::test]
async fn the_worker_ends_a_running_request_after_term() {
    let mut application = Application::worker(&[]).await;
    let mut running = TcpStream::connect(&application.address).await.unwrap();
    // The first answer shows that the connection was accepted, so that the second request is running at TERM.
    running.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 1024];
    assert!(running.read(&mut first).await.unwrap() > 0);
    running.write_all(b"GET /slow/300 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    application.get("/").await; // a later request is answered, so the worker has read the earlier one

    application.terminate();
    let (status, body) = answer(running).await;
    assert_eq!((status, body.starts_with("version=4f2a91c")), (200, true), "{body}");
    assert_eq!(application.ended().await, Some(0));
}

#[tokio::test]
async fn the_worker_streams_what_it_is_asked_for() {
    let application = Application::worker(&[]).await;
    for size in [0, 1, 65_536, 1_000_000] {
        let (status, body) = application.get(&format!("/bytes/{size}")).await;
        assert_eq!((status, body.len()), (200, size));
    }
    let mut stream = TcpStream::connect(&application.address).await.unwrap();
    stream.write_all(b"GET /sse HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut seen = String::new();
    while !seen.contains("id: 2\n") {
        let mut part = [0; 1024];
        let size = stream.read(&mut part).await.unwrap();
        assert!(size > 0, "the stream ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&part[..size]));
    }
}

#[tokio::test]
async fn the_worker_is_bad_where_it_is_told_to_be() {
    let mut stubborn = Application::worker(&["--ignore-term", "--rubbish"]).await;
    stubborn.terminate();
    assert_eq!(stubborn.get("/healthz").await.0, 200, "it goes on after TERM");
    assert!(tokio::time::timeout(Duration::from_millis(50), stubborn.process.wait()).await.is_err());

    let mut crashing = Application::worker(&[]).await;
    let mut stream = TcpStream::connect(&crashing.address).await.unwrap();
    stream.write_all(b"GET /crash HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!(crashing.ended().await, Some(1));

    let output = Command::new(worker()).arg("--exit-at-once").env("PORT", "1").output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let output = Command::new(worker()).arg("--sleep").env("PORT", "1").output().await.unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("`--sleep` is no flag"));
}
