//! WebSockets as real programs speak them: echo suites print one line a case, and print the same through switchman
//! as without it. The programs are in `fixtures/websocket`, and their libraries in `target/websocket`
//! (`scripts/install-deps test` puts them there).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use switchman::proxy::Settings;
use switchman::registry::Address;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

use super::Rig;
use crate::support::switchman::free_address;
use crate::support::{eventually, patience};

/// An echo server that runs until it is dropped, and switchman before it.
struct World {
    direct: SocketAddr,
    rig: Rig,
    _server: Child,
}

/// Python with `websockets`, or Node.js with `ws`.
fn program(file: &str) -> Command {
    let libraries = libraries();
    let program = if file.ends_with(".py") { libraries.join("venv/bin/python") } else { "node".into() };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/websocket").join(file);
    let mut command = Command::new(program);
    // No files of Python's own beside the fixtures.
    command.arg(file).env("NODE_FOLDER", libraries).env("PYTHONDONTWRITEBYTECODE", "1").kill_on_drop(true);
    command
}

fn libraries() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/websocket");
    assert!(folder.join("requirements.txt").is_file(), "run: scripts/install-deps test");
    folder
}

impl World {
    async fn start(server: &str) -> Self {
        let direct = free_address();
        let server = program(server).env("PORT", direct.port().to_string()).spawn().unwrap();
        eventually("the echo server listens", || async {
            tokio::net::TcpStream::connect(direct).await.ok().map(drop)
        })
        .await;
        let rig = Rig::start(Settings::default(), &[Address::Tcp(direct)]).await;
        Self { direct, rig, _server: server }
    }

    /// What `suite` prints about the server itself, and through switchman. One after the other: some cases ask
    /// the server how many connections it has.
    async fn both(&self, suite: &str) {
        let direct = run(suite, self.direct).await;
        let through = run(suite, self.rig.address).await;
        // Nothing is said here of what is right, but a suite that did nothing would be equal, too.
        for case in
            ["deflate echo 1048576: ", "plain echo 1048576: ", "100 at once: 1000", "open after resets: 1"]
        {
            assert!(direct.contains(case), "{suite} says nothing of `{case}`:\n{direct}");
        }
        for (direct, through) in direct.lines().zip(through.lines()) {
            assert_eq!(through, direct, "{suite}: through switchman, and without it");
        }
        assert_eq!(direct.lines().count(), through.lines().count(), "{suite}");
    }
}

async fn run(suite: &str, address: SocketAddr) -> String {
    let mut command = program(suite);
    let run = command.arg(format!("ws://{address}/")).stdin(Stdio::null()).output();
    let output = tokio::time::timeout(patience() * 4, run).await.expect("the suite ends").unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{suite} on {address} ended with {}:\n{said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn a_python_server_is_the_same_through_switchman() {
    let world = World::start("echo_server.py").await;
    world.both("suite.py").await;
    world.both("suite.js").await;
}

#[tokio::test]
async fn a_node_server_is_the_same_through_switchman() {
    let world = World::start("echo_server.js").await;
    world.both("suite.py").await;
    world.both("suite.js").await;
}

/// Types these lines into `websocat`; what it prints, and how it ended.
async fn websocat(address: SocketAddr, lines: &[String]) -> (Vec<String>, Option<i32>) {
    let mut child = Command::new(libraries().join("venv/bin/websocat"))
        .args(["--buffer-size", "300000", &format!("ws://{address}/")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut printed = Vec::new();
    for line in lines {
        input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let mut back = String::new();
        let read = output.read_line(&mut back);
        tokio::time::timeout(patience(), read).await.expect("an echo").unwrap();
        printed.push(back.trim_end().to_owned());
    }
    drop(input);
    let status = tokio::time::timeout(patience(), child.wait()).await.expect("it ends").unwrap();
    (printed, status.code())
}

#[tokio::test]
async fn websocat_talks_the_same_through_switchman() {
    let lines: Vec<String> = ["one", "zwei", "ping", "ééé"].map(str::to_owned).into();
    let lines = [lines, vec!["x".repeat(1000), "y".repeat(60_000)]].concat();
    for server in ["echo_server.py", "echo_server.js"] {
        let world = World::start(server).await;
        let direct = websocat(world.direct, &lines).await;
        assert_eq!(direct.0[0], "one");
        assert_eq!(direct.0[5].len(), 60_000);
        assert_eq!(websocat(world.rig.address, &lines).await, direct, "{server}");
    }
}
