//! A gRPC service under switchman as a person runs it: `protocol: h2c`, rules that look at its metadata, streams
//! that outlive everything but their own version.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::support::patience;
use crate::support::switchman::{Setup, Switchman};

/// Of each kind.
const MANY: usize = 20;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/grpc")
}

fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/grpc/bin/python")
}

/// One of the programs of `fixtures/grpc`, for the switchman at work.
fn program(name: &str, switchman: &Switchman) -> Command {
    let mut command = Command::new(python());
    command.arg(fixtures().join(name)).arg(switchman.address.to_string()).kill_on_drop(true);
    command
}

/// Starts with these lines at the top and of the service, with these rules and with `versions`.
async fn start((top, service): (&str, &str), rules: &str, versions: &[&str]) -> Switchman {
    let service = format!(
        "    protocol: h2c\n    run: \"exec {} server.py $PORT\"\n    ready: {{tcp: true, interval: 50ms}}\n{service}",
        python().display()
    );
    let switchman =
        Switchman::start(Setup { top, service: &service, rules: Some(rules), ..Setup::default() }).await;
    for version in versions {
        deploy(&switchman, version).await;
    }
    switchman
}

async fn deploy(switchman: &Switchman, version: &str) {
    switchman.rsync(&fixtures(), version).await;
    switchman.wait_state(version, "ready").await;
}

/// The version that answers a call with the metadata `x-pin: PIN`.
async fn version_of(switchman: &Switchman, pin: &str) -> String {
    let output = program("client.py", switchman).arg(pin).output().await;
    let output = output.expect("grpcio is missing: scripts/install-deps test");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[tokio::test]
async fn versions_of_a_grpc_service_are_routed_by_metadata() {
    let rules = "routes:\n  - name: pin\n    when: {header.x-pin: {regex: \"^[0-9a-f]{7}$\"}}\n    \
                 to: \"{header.x-pin}\"\n    unavailable: error\n";
    let mut switchman = start(("", ""), rules, &["4f2a91c", "aaaaaa1"]).await;
    switchman.done(&["promote", "4f2a91c"]).await;
    for (pin, expected) in [
        ("none", "4f2a91c"),
        ("aaaaaa1", "aaaaaa1"),
        ("4f2a91c", "4f2a91c"),
        ("bbbbbb2", "UNAVAILABLE no-version"),
    ] {
        assert_eq!(version_of(&switchman, pin).await, expected, "x-pin: {pin}");
    }
    switchman.terminate().await;
}

/// Open streams of all three kinds on one channel, and thereby on one connection.
struct Held {
    _process: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Held {
    async fn start(switchman: &Switchman) -> Self {
        let mut process = program("streams.py", switchman)
            .arg(MANY.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("grpcio is missing: scripts/install-deps test");
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut held = Self { _process: process, input, lines: BufReader::new(output).lines() };
        assert_eq!(held.line().await.as_deref(), Some("open"));
        held
    }

    async fn line(&mut self) -> Option<String> {
        let line = tokio::time::timeout(patience(), self.lines.next_line()).await;
        line.expect("waited for the streams in vain").unwrap()
    }

    /// Every stream carries something now.
    async fn all_go_on(&mut self, why: &str) {
        self.input.write_all(b"\n").await.unwrap();
        assert_eq!(self.line().await.as_deref(), Some("alive"), "after {why}");
    }

    /// Waits until all have ended: `KIND CODE SECONDS DETAILS` for each, and the version of a new call.
    async fn all_end(mut self) -> Vec<String> {
        drop(self.input);
        let mut said = Vec::new();
        while let Ok(Ok(Some(line))) = tokio::time::timeout(patience(), self.lines.next_line()).await {
            said.push(line);
        }
        said
    }
}

#[tokio::test]
async fn calls_stay_on_their_worker_and_end_unavailable_when_their_own_version_stops() {
    let service = "    drain: {streams: 3s}\n    stop: {drain: 1s}\n";
    let switchman = start(("", service), "routes: []\n", &["4f2a91c", "b001bee"]).await;
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;
    let mut held = Held::start(&switchman).await;
    switchman.done(&["promote", "b001bee"]).await;
    held.all_go_on("a promote").await;
    switchman.write_rules("routes: [{name: pin, when: {header.x-pin: \"old\"}, to: 4f2a91c}]\n");
    switchman.wait_version("4f2a91c", "has a route", |v| v["routes"] == serde_json::json!(["pin"])).await;
    held.all_go_on("a rule edit").await;
    switchman.write_rules("routes: []\n");
    switchman.wait_version("4f2a91c", "is dark", |v| v["dark"] == true).await;
    deploy(&switchman, "c0ffee1").await;
    switchman.done(&["stop", "c0ffee1"]).await;
    held.all_go_on("a deploy and the stop of another version").await;

    let (_, said) = tokio::join!(switchman.done(&["stop", "4f2a91c"]), held.all_end());
    let (last, ends) = said.split_last().expect("they say how they ended");
    assert_eq!(last, "new call: b001bee", "{said:?}");
    assert_eq!(ends.len(), 3 * MANY, "{said:?}");
    let mut seconds = Vec::new();
    for end in ends {
        let words: Vec<&str> = end.splitn(4, ' ').collect();
        assert_eq!(words[1], "UNAVAILABLE", "{end}");
        if words[0] == "client" {
            // Its answer had not begun: a request, which lives until its worker is told to end.
            assert!(words[3].contains("closed the connection before it answered"), "{end}");
        } else {
            assert!(words[3].contains("call again"), "{end}");
            seconds.push(words[2].parse::<f64>().unwrap());
        }
    }
    assert_eq!(seconds.len(), 2 * MANY, "{said:?}");
    let (first, last) = (seconds[0], seconds[seconds.len() - 1]);
    // The command begins some time after the clock of the streams does.
    assert!(first >= 0.3 && last <= 4.0, "{seconds:?}");
    assert!(last - first > 0.6, "they are spread: {seconds:?}");
    switchman.wait_state("4f2a91c", "stopped").await;
}

#[tokio::test]
async fn when_switchman_itself_ends_calls_end_unavailable_and_the_channel_comes_back() {
    let mut switchman = start(("drain: 2s\n", ""), "routes: []\n", &["4f2a91c"]).await;
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;
    let held = Held::start(&switchman).await;
    let (_, said) = tokio::join!(switchman.restart(), held.all_end());
    let (last, ends) = said.split_last().expect("they say how they ended");
    assert_eq!(last, "new call: 4f2a91c", "{said:?}");
    assert_eq!(ends.len(), 3 * MANY, "{said:?}");
    let codes = |kind: &str| ends.iter().filter(|end| end.starts_with(kind)).count();
    assert_eq!(codes("chat UNAVAILABLE ") + codes("server UNAVAILABLE "), 2 * MANY, "{said:?}");
    // They had their own ends before the deadline, at which calls without an answer are cut.
    let told = ends.iter().filter(|end| end.contains("call again")).count();
    assert_eq!((told, codes("client UNAVAILABLE ")), (2 * MANY, MANY), "{said:?}");
}
