//! What systemd sees and does: a small systemd in Python starts the program, keeps the sockets that it stores, and
//! starts it again when it has died. The unit files are checked by the real `systemd-analyze`.

use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::super::support::http::get;
use super::super::support::switchman::{PROGRAM, Setup, Switchman};
use super::super::support::{eventually, patience};

/// Starts `argv[2:]` with the sockets given by address in `$LISTEN`, and again whenever it dies, with what it has stored.
/// Writes what it is told to `argv[1]`, and "dead" when it has died; then it waits for the file `$GO`.
const SYSTEMD: &str = r#"
import os, signal, socket, sys, time
log = open(sys.argv[1], "a", buffering=1)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind("notify")
stored = []
for address in os.environ.pop("LISTEN", "").split():
    host, port = address.rsplit(":", 1)
    listener = socket.create_server((host, int(port)))
    stored.append(("public", listener.detach()))
main = 0
def start():
    pid = os.fork()
    if pid:
        return pid
    copies = [os.dup(fd) for _, fd in stored]
    high = [os.dup2(fd, 100 + i, inheritable=False) for i, fd in enumerate(copies)]
    for i, fd in enumerate(high):
        os.dup2(fd, 3 + i, inheritable=True)
    os.environ.update(NOTIFY_SOCKET=os.path.abspath("notify"), WATCHDOG_USEC="600000")
    if stored:
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(stored)),
                          LISTEN_FDNAMES=":".join(name for name, _ in stored))
    os.execvp(sys.argv[2], sys.argv[2:])
main = start()
notify.settimeout(0.05)
def alive(pid):
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:
        try:
            return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            return False
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
while True:
    try:
        text, fds, _, _ = socket.recv_fds(notify, 4096, 253)
    except TimeoutError:
        text, fds = b"", []
    if text:
        said = dict(line.split("=", 1) for line in text.decode().splitlines())
        if "FDSTORE" in said:
            same = lambda a, b: os.fstat(a).st_ino == os.fstat(b).st_ino
            stored += [(said["FDNAME"], fd) for fd in fds if not any(same(fd, old) for _, old in stored)]
        if "FDSTOREREMOVE" in said:
            for _, fd in [s for s in stored if s[0] == said["FDNAME"]]:
                os.close(fd)
            stored = [s for s in stored if s[0] != said["FDNAME"]]
        main = int(said.get("MAINPID", main))
        log.write(" ".join(text.decode().split()) + f" fds={len(fds)}\n")
    if not alive(main):
        log.write("dead\n")
        while not os.path.exists("go"):
            time.sleep(0.02)
        os.remove("go")
        main = start()
"#;

/// A systemd whose service is the program on the folder of `switchman`, which is stopped before.
struct Systemd {
    process: Child,
    switchman: Switchman,
}

impl Systemd {
    async fn start(setup: Setup<'_>, listen: bool) -> Self {
        let mut switchman = Switchman::start(setup).await;
        switchman.terminate().await;
        let folder = switchman.folder.path();
        std::fs::write(folder.join("systemd.py"), SYSTEMD).unwrap();
        let log = std::fs::OpenOptions::new().append(true).open(folder.join("switchman.log")).unwrap();
        let process = Command::new("python3")
            .args(["systemd.py", "said", PROGRAM, "serve", "--config", "switchman.yaml"])
            .env("LISTEN", if listen { switchman.address.to_string() } else { String::new() })
            .current_dir(folder)
            .stdin(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let systemd = Self { process, switchman };
        systemd.hears("READY=1", 1).await;
        systemd
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.switchman.folder.path().join("said")).unwrap_or_default()
    }

    /// Waits until so many lines have these words in them; answers with the last.
    async fn hears(&self, words: &str, times: usize) -> String {
        eventually(&format!("{words} is said {times} times"), || async {
            let said = self.said();
            let lines: Vec<&str> = said.lines().filter(|line| line.contains(words)).collect();
            (lines.len() >= times).then(|| lines.last().unwrap().to_string())
        })
        .await
    }

    fn main(&self) -> Pid {
        let lock = std::fs::read_to_string(self.switchman.folder.path().join("state/lock")).unwrap();
        Pid::from_raw(lock.lines().next().unwrap().parse().unwrap()).unwrap()
    }
}

#[tokio::test]
async fn it_says_where_it_stands_and_who_is_the_main_process() {
    let systemd = Systemd::start(Setup { top: "drain: 1s\n", ..Setup::default() }, false).await;
    let switchman = &systemd.switchman;
    switchman.deploy_ready("4f2a91c").await;
    systemd.hears("WATCHDOG=1", 2).await;
    let first = systemd.main();
    kill_process(first, Signal::HUP).unwrap();
    assert!(systemd.hears("RELOADING=1", 1).await.contains("MONOTONIC_USEC="));
    systemd.hears("READY=1", 2).await;

    switchman.done(&["upgrade"]).await;
    let said = systemd.hears("MAINPID=", 1).await;
    systemd.hears("READY=1", 3).await;
    let second = systemd.main();
    assert!(second != first && said.contains(&format!("MAINPID={}", second.as_raw_nonzero())), "{said}");
    let beats = systemd.said().matches("WATCHDOG=1").count();
    systemd.hears("WATCHDOG=1", beats + 2).await;

    kill_process(second, Signal::TERM).unwrap();
    systemd.hears("STOPPING=1", 1).await;
    systemd.hears("dead", 1).await;
    assert_eq!(
        systemd.said().matches("dead").count(),
        1,
        "the end of the first process was not the service's"
    );
}

#[tokio::test]
async fn a_crash_refuses_nobody_and_the_workers_go_on() {
    for listen in [false, true] {
        let service = "    workers: 2\n";
        let systemd =
            Systemd::start(Setup { top: "threads: 2\n", service, ..Setup::default() }, listen).await;
        let switchman = &systemd.switchman;
        switchman.deploy_ready("4f2a91c").await;
        let before = switchman.wait_version("4f2a91c", "is current", |v| v["dark"] == false).await;
        for time in 1..=2 {
            kill_process(systemd.main(), Signal::KILL).unwrap();
            systemd.hears("dead", time).await;
            // Nobody is there, and nobody is refused: not at the public side, not at the admin API.
            let mut waiting = Vec::new();
            for _ in 0..8 {
                let mut stream = TcpStream::connect(switchman.address).await.expect("not refused");
                stream.write_all(b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n").await.unwrap();
                waiting.push(stream);
            }
            std::fs::write(switchman.folder.path().join("go"), "").unwrap();
            for mut stream in waiting {
                let mut answer = String::new();
                let answered = stream.read_to_string(&mut answer);
                tokio::time::timeout(patience(), answered).await.expect("an answer").unwrap();
                assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("4f2a91c"), "{answer}");
            }
            let after = switchman.wait_state("4f2a91c", "ready").await;
            for worker in [0, 1] {
                assert_eq!(after["workers"][worker]["pid"], before["workers"][worker]["pid"]);
            }
            assert_eq!(get(&switchman.url("/")).await.unwrap().status, 200);
        }
        drop(systemd.process);
    }
}

#[test]
fn the_unit_files_are_clean() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
    let folder = tempfile::tempdir().unwrap();
    let units = ["switchman.service", "switchman.socket"].map(|name| {
        let text = std::fs::read_to_string(packaging.join(name)).unwrap();
        let unit = folder.path().join(name);
        // It is not installed here, and whether it can be executed is looked at too.
        std::fs::write(&unit, text.replace("/usr/bin/switchman", PROGRAM)).unwrap();
        unit
    });
    let output = std::process::Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(units)
        .output()
        .expect("systemd-analyze is missing: apt-get install systemd");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
}
