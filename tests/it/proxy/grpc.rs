//! gRPC with its own client and server (`grpcio`): what a client sees through switchman is what it sees directly.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use switchman::config::Protocol;
use switchman::proxy::Settings;
use switchman::registry::Address;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::Rig;
use crate::support::{eventually, patience};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One of the programs of `fixtures/grpc`, in the Python that has `grpcio`.
fn program(name: &str) -> Command {
    let python = repository().join("target/grpc/bin/python");
    assert!(python.exists(), "{} is missing: scripts/install-deps test", python.display());
    let mut command = Command::new(python);
    command.arg(repository().join("fixtures/grpc").join(name)).kill_on_drop(true).stdin(Stdio::null());
    // Names of this machine are not asked for a proxy.
    command.env("no_proxy", "127.0.0.1").env("GRPC_VERBOSITY", "NONE");
    command
}

/// The server, ready.
struct Server {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Server {
    async fn start(address: &str) -> (Self, String) {
        let mut process = program("server.py").arg(address).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(patience(), lines.next_line()).await.expect("it is ready");
        let port = line.unwrap().expect("it runs").strip_prefix("ready ").unwrap().to_owned();
        (Self { process, lines }, port)
    }

    /// Ends it; what it said since it was ready.
    async fn end(mut self) -> Vec<String> {
        self.process.kill().await.unwrap();
        let mut said = Vec::new();
        while let Some(line) = self.lines.next_line().await.unwrap() {
            said.push(line);
        }
        said.sort();
        said
    }
}

/// What the client prints about its calls to `address`, a line a case.
async fn client(address: &str) -> String {
    let output = program("client.py").arg(address).stderr(Stdio::inherit()).output().await.unwrap();
    assert!(output.status.success(), "the client ended with {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

async fn through(address: Address) -> (String, Rig) {
    let rig = Rig::start(Settings::default(), &[]).await;
    let upstreams = rig.set_workers_speaking(Protocol::H2c, &[address]).await;
    let printed = client(&rig.address.to_string()).await;
    eventually("nothing is in flight", || async { (upstreams[0].in_flight.now() == 0).then_some(()) }).await;
    (printed, rig)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_call_is_as_without_a_proxy() {
    let (server, port) = Server::start("0").await;
    let address = format!("127.0.0.1:{port}");
    let directly = client(&address).await;
    let expected_log = server.end().await;
    assert!(directly.lines().count() >= 19 && !directly.contains("failed: "), "{directly}");
    assert!(expected_log.len() == 3, "it sees cancelled calls: {expected_log:?}");

    let (server, port) = Server::start("0").await;
    let (printed, _rig) = through(Address::Tcp(format!("127.0.0.1:{port}").parse().unwrap())).await;
    for (ours, expected) in printed.lines().zip(directly.lines()) {
        assert_eq!(ours, expected);
    }
    assert_eq!(printed, directly);
    assert_eq!(server.end().await, expected_log, "cancellation and deadlines reach the server");

    let folder = tempfile::tempdir().unwrap();
    let socket: PathBuf = folder.path().join("worker.sock");
    let (server, _) = Server::start(socket.to_str().unwrap()).await;
    let (printed, _rig) = through(Address::Unix(socket)).await;
    assert_eq!(printed, directly, "over a unix socket");
    assert_eq!(server.end().await, expected_log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_of_ours_is_one_that_grpc_clients_understand() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let rig = Rig::start(Settings::default(), &[]).await;
    rig.set_workers_speaking(Protocol::H2c, &[Address::Tcp(nobody)]).await;
    let printed = client(&rig.address.to_string()).await;
    let unary = printed.lines().next().unwrap();
    assert!(unary.starts_with("unary: \"failed: UNAVAILABLE 'cannot connect to worker 0"), "{unary}");
    assert!(unary.contains("hint: "), "{unary}");
}
