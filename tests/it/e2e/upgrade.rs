//! `switchman upgrade` under load: no connection is refused, no request is cut, no worker notices; and new binaries
//! that are no good change nothing.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::super::support::eventually;
use super::super::support::http::get;
use super::super::support::switchman::{Setup, Switchman, free_address, runs, worker_program};

/// A client that forgives nothing: it never asks twice. Of its connections some are kept for as long as they are
/// open, some carry one request.
struct Strict {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tasks: JoinSet<Result<(), String>>,
}

impl Strict {
    fn start(switchman: &Switchman) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut tasks = JoinSet::new();
        for kept in [true, true, true, false, false] {
            let (address, stop, answered) = (switchman.address, stop.clone(), answered.clone());
            tasks.spawn(async move {
                while !stop.load(Relaxed) {
                    let connected = TcpStream::connect(address).await;
                    let mut stream = connected.map_err(|e| format!("refused: {e}"))?;
                    while !stop.load(Relaxed) {
                        let answer = ask(&mut stream).await?;
                        answered.fetch_add(1, Relaxed);
                        if !kept || answer.to_ascii_lowercase().contains("connection: close") {
                            break;
                        }
                    }
                }
                Ok(())
            });
        }
        Self { stop, answered, tasks }
    }

    async fn more(&mut self, requests: u64) {
        let wanted = self.answered.load(Relaxed) + requests;
        if let Some(ended) = self.tasks.try_join_next() {
            panic!("{:?}", ended.unwrap());
        }
        eventually("the load goes on", || async { (self.answered.load(Relaxed) >= wanted).then_some(()) })
            .await;
    }

    /// Every failure.
    async fn stop(mut self) -> Vec<String> {
        self.stop.store(true, Relaxed);
        let mut failures = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            failures.extend(ended.unwrap().err());
        }
        failures
    }
}

/// One request; answers with the head of a 200.
async fn ask(stream: &mut TcpStream) -> Result<String, String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n").await.map_err(|e| format!("not sent: {e}"))?;
    let mut answer = Vec::new();
    loop {
        let read = stream.read_buf(&mut answer).await.map_err(|e| format!("cut: {e}"))?;
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase();
            let length = length.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            let length: usize = length.and_then(|length| length.parse().ok()).ok_or("no length")?;
            if body.len() >= length {
                return head.starts_with("HTTP/1.1 200").then(|| head.to_owned()).ok_or(text.into_owned());
            }
        }
        if read == 0 {
            return Err(format!("cut after {} bytes", answer.len()));
        }
    }
}

async fn serving(setup: Setup<'_>) -> Switchman {
    let switchman = Switchman::start(setup).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["dark"] == false).await;
    switchman
}

/// Each worker's process and address.
async fn workers(switchman: &Switchman) -> Vec<(Value, Value)> {
    let version = switchman.version("4f2a91c").await.unwrap();
    let workers = version["workers"].as_array().unwrap().iter();
    workers.map(|w| (w["pid"].clone(), w["address"].clone())).collect()
}

/// The process that has the state folder.
fn owner(switchman: &Switchman) -> Pid {
    let lock = std::fs::read_to_string(switchman.folder.path().join("state/lock")).unwrap();
    Pid::from_raw(lock.lines().next().unwrap().parse().unwrap()).unwrap()
}

fn edit(switchman: &Switchman, from: &str, to: &str) {
    let file = switchman.folder.path().join("switchman.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{from} is not in:\n{text}");
    std::fs::write(file, text.replacen(from, to, 1)).unwrap();
}

/// A program that is no switchman.
fn script(switchman: &Switchman, text: &str) -> PathBuf {
    let path = switchman.folder.path().join("new-switchman");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn three_upgrades_under_load_are_seen_by_nobody() {
    let mut switchman =
        serving(Setup { top: "drain: 10s\nthreads: 2\n", service: "    workers: 2\n", ..Setup::default() })
            .await;
    let before = workers(&switchman).await;
    let mut processes = vec![owner(&switchman)];
    let mut load = Strict::start(&switchman);
    load.more(100).await;
    let (mut socket, _) = {
        let stream = TcpStream::connect(switchman.address).await.unwrap();
        tokio_tungstenite::client_async(format!("ws://{}/ws", switchman.address), stream).await.unwrap()
    };
    // A connection that is idle through all of it, until it is used again.
    let mut idle = TcpStream::connect(switchman.address).await.unwrap();
    ask(&mut idle).await.unwrap();
    for threads in [1, 3, 2] {
        let slow = tokio::spawn({
            let url = switchman.url("/slow/1000");
            async move { get(&url).await }
        });
        switchman
            .wait_version("4f2a91c", "answers the slow request", |v| {
                v["traffic"]["in_flight"].as_u64() >= Some(1)
            })
            .await;
        let file = switchman.folder.path().join("switchman.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        let was = text.lines().find(|line| line.starts_with("threads:")).unwrap();
        edit(&switchman, was, &format!("threads: {threads}"));
        let answer = switchman.done(&["upgrade", "--json"]).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(
            (answer["versions"].as_u64(), &answer["binary"]),
            (Some(1), &super::super::support::switchman::PROGRAM.into())
        );
        let pid = answer["pid"].as_i64().unwrap();
        eventually("it has the state folder", || async {
            (i64::from(owner(&switchman).as_raw_nonzero().get()) == pid).then_some(())
        })
        .await;
        if processes.len() == 1 {
            // The first process has it; it is told to end a tenth of the drain later at the earliest.
            socket.send(Message::text("hello")).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
        }
        assert_eq!(workers(&switchman).await, before, "the same processes at the same addresses");
        assert_eq!(slow.await.unwrap().unwrap().status, 200, "what ran has ended well");
        processes.push(owner(&switchman));
        load.more(200).await;
        if processes.len() == 2 {
            let head = ask(&mut idle).await.expect("an idle connection is closed with an answer, not before");
            assert!(head.to_ascii_lowercase().contains("connection: close"), "{head}");
        }
    }
    let begun = Instant::now();
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(_))) => break,
            Some(Ok(_)) => {}
            other => panic!("no Close frame but {other:?}"),
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "streams end with the drain");
    assert!(switchman.ended().await.success(), "the first process has ended well");
    let failures = load.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!(workers(&switchman).await, before);

    // The last one is as good as the first: it sees the end of a worker, reloads and ends in order.
    let worker = Pid::from_raw(before[0].0.as_i64().unwrap() as i32).unwrap();
    kill_process(worker, Signal::KILL).unwrap();
    switchman
        .wait_version("4f2a91c", "has a new worker", |v| {
            v["workers"][0]["pid"] != before[0].0 && v["workers"][0]["state"] == "ready"
        })
        .await;
    edit(&switchman, "settle: 200ms", "settle: 100ms");
    switchman.done(&["reload"]).await;
    let last = owner(&switchman);
    kill_process(last, Signal::TERM).unwrap();
    let pid = last.as_raw_nonzero().get().cast_unsigned();
    eventually("it has ended", || async { (!runs(pid)).then_some(()) }).await;
    let left = super::super::support::switchman::processes_in(&switchman.root());
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn usr2_upgrades_to_what_the_configuration_says_now() {
    let switchman = serving(Setup { top: "drain: 1s\n", ..Setup::default() }).await;
    let before = workers(&switchman).await;
    let first = owner(&switchman);
    let (more, admin) = (free_address(), free_address());
    edit(&switchman, "listen: [", &format!("listen: [\"{more}\", "));
    edit(
        &switchman,
        &format!("admin: {{listen: \"{}\"}}", switchman.admin),
        &format!("admin: {{listen: \"{admin}\"}}"),
    );
    kill_process(first, Signal::USR2).unwrap();
    eventually("a new process has the state folder", || async { (owner(&switchman) != first).then_some(()) })
        .await;
    let versions = eventually("it answers at its new address", || async {
        get(&format!("http://{admin}/versions")).await.ok()
    })
    .await;
    assert_eq!(versions.json()["versions"][0]["workers"][0]["pid"], before[0].0);
    for url in [format!("http://{more}/"), switchman.url("/")] {
        assert_eq!(get(&url).await.unwrap().version(), "4f2a91c");
    }
    eventually("what is no longer named is closed", || async {
        std::net::TcpStream::connect(switchman.admin).is_err().then_some(())
    })
    .await;
    // Its log is where the first one's was.
    assert!(
        switchman.log().contains(&format!("listening for requests address={more}")),
        "{}",
        switchman.log()
    );
}

#[tokio::test]
async fn a_new_binary_that_is_no_good_changes_nothing() {
    let switchman = serving(Setup { service: "    workers: 2\n", ..Setup::default() }).await;
    let (before, first) = (workers(&switchman).await, owner(&switchman));
    let mut load = Strict::start(&switchman);
    load.more(50).await;
    let upgrade = |more: Vec<String>| {
        let switchman = &switchman;
        async move {
            let mut words = vec!["upgrade"];
            words.extend(more.iter().map(String::as_str));
            let output = switchman.command(&words).await;
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            String::from_utf8(output.stderr).unwrap()
        }
    };
    let binary = |path: &PathBuf| vec!["--binary".to_owned(), path.display().to_string()];

    let fails = script(&switchman, "echo 'cannot find libssl.so.9' >&2; exit 7");
    let said = upgrade(binary(&fails)).await;
    for words in ["nothing has changed", "exit status: 7", "cannot find libssl.so.9"] {
        assert!(said.contains(words), "{words} is not in {said}");
    }
    let hangs = script(&switchman, "exec sleep 1000");
    let words = [binary(&hangs), vec!["--timeout".to_owned(), "1s".to_owned()]].concat();
    let said = upgrade(words).await;
    assert!(said.contains("was not ready within 1s"), "{said}");
    let said = upgrade(binary(&PathBuf::from("/nowhere/switchman"))).await;
    assert!(said.contains("/nowhere/switchman cannot be started"), "{said}");
    // It takes what is offered, and dies when the workers are its own.
    let text = format!("exec python3 {}", quitter(&switchman).display());
    let said = upgrade(binary(&script(&switchman, &text))).await;
    assert!(said.contains("exit status: 3") && said.contains("I have seen Yours"), "{said}");

    edit(&switchman, "settle: 200ms", "settle: 200");
    let said = upgrade(Vec::new()).await;
    assert!(said.contains("`200` has no unit"), "{said}");
    edit(&switchman, "settle: 200", "settle: 200ms");
    edit(&switchman, "state: state", "state: elsewhere");
    let socket = switchman.folder.path().join("state/admin.sock").display().to_string();
    let said = upgrade(vec!["--admin".to_owned(), socket]).await;
    assert!(said.contains("cannot move from"), "{said}");
    edit(&switchman, "state: elsewhere", "state: state");

    load.more(100).await;
    assert_eq!((workers(&switchman).await, owner(&switchman)), (before.clone(), first));
    // The workers that came back are watched as before, changes are made, and a good binary takes over.
    let worker = Pid::from_raw(before[1].0.as_i64().unwrap() as i32).unwrap();
    kill_process(worker, Signal::TERM).unwrap();
    switchman
        .wait_version("4f2a91c", "has a new worker", |v| {
            v["workers"][1]["pid"] != before[1].0 && v["workers"][1]["state"] == "ready"
        })
        .await;
    switchman.deploy_ready("b001bee").await;
    switchman.done(&["promote", "b001bee"]).await;
    switchman.done(&["upgrade"]).await;
    assert!(owner(&switchman) != first);
    assert_eq!(get(&switchman.url("/")).await.unwrap().version(), "b001bee");
    let failures = load.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
}

/// A program that speaks the protocol until the workers are its own, and ends.
fn quitter(switchman: &Switchman) -> PathBuf {
    let path = switchman.folder.path().join("quitter.py");
    let text = r#"
import json, socket, sys
old = socket.socket(fileno=0)
old.setblocking(True)
def hear():
    return json.loads(socket.recv_fds(old, 65536, 64)[0])["say"]
while hear() != "offered":
    pass
old.send(b'{"say": "built"}')
print("I have seen", hear().capitalize(), file=sys.stderr)
sys.exit(3)
"#;
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn a_new_worker_program_is_not_needed_for_a_new_switchman() {
    // Requests that the old process still carries keep a worker from being ended by the new one.
    let run = format!("    run: [{:?}]\n    stop: {{drain: 20s}}\n", worker_program());
    let switchman = serving(Setup { top: "drain: 20s\n", service: &run, ..Setup::default() }).await;
    let slow = tokio::spawn({
        let url = switchman.url("/slow/3000");
        async move { get(&url).await }
    });
    switchman.wait_version("4f2a91c", "answers the slow request", |v| v["traffic"]["in_flight"] == 1).await;
    switchman.done(&["upgrade"]).await;
    switchman.done(&["restart", "4f2a91c", "--timeout", "30s"]).await;
    assert_eq!(slow.await.unwrap().expect("it was not cut").status, 200);
}
