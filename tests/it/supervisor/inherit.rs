//! `upstream: inherit`: servers that are handed their socket, and what becomes of it when they end.

use switchman::config::UpstreamAt;

use super::*;
use crate::support::http::Load;
use crate::support::switchman::{Setup, Switchman, worker_program};

/// Serves the socket that it inherits: its environment, and its pid.
const PYTHON: &str = r#"
import http.server, os, socket
listener = socket.socket(fileno=3)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = "".join(f"{k}={v}\n" for k, v in os.environ.items()) + f"PID={os.getpid()}\n"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(listener.getsockname(), Handler, bind_and_activate=False)
server.socket = listener
server.serve_forever()
"#;
const NODE: &str = "
const server = require('node:http').createServer((_, response) => {
  const lines = Object.entries(process.env).map(([name, value]) => `${name}=${value}`);
  response.end(lines.join('\\n') + `\\nPID=${process.pid}\\n`);
});
server.listen({fd: 3});
";
const GUNICORN: &str = r#"
import os
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"PID={os.getppid()}\n".encode()]
"#;

fn inherits() -> RunSpec {
    RunSpec { upstream: UpstreamAt::Inherit, ..spec() }
}

async fn deploy(world: &World, version: &str, run: &str) {
    world.write(version, run);
    let folder = world.folder(version);
    for (name, text) in [("inherits.py", PYTHON), ("server.js", NODE), ("wsgi.py", GUNICORN)] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    world.settle(version).await;
}

fn tcp(upstream: &registry::Upstream) -> std::net::SocketAddr {
    let Address::Tcp(address) = upstream.address else { panic!("{} is no port", upstream.address) };
    address
}

/// The pid that a worker says it has.
async fn says_pid(address: &Address) -> u32 {
    let answer = get(address, "/").await;
    let pid = answer.lines().find_map(|line| line.strip_prefix("PID=")).unwrap_or_else(|| panic!("{answer}"));
    pid.parse().unwrap()
}

#[tokio::test]
async fn a_socket_is_handed_over_as_systemd_does_it() {
    let world = World::new(inherits());
    deploy(&world, "4f2a91c", "exec python3 inherits.py").await;
    let version = world.until_state("4f2a91c", VersionState::Ready).await;
    let (address, pid) = (tcp(&version.ready[0]), pids(&version)[0]);
    assert!(address.ip().is_loopback());
    let environment = get(&version.ready[0].address, "/").await;
    for line in [
        format!("PORT={}", address.port()),
        "HOST=127.0.0.1".to_owned(),
        "LISTEN_FDS=1".to_owned(),
        "LISTEN_FDNAMES=http".to_owned(),
        format!("LISTEN_PID={pid}"),
        format!("PID={pid}"),
    ] {
        assert!(environment.lines().any(|l| l == line), "{line} in {environment}");
    }
    assert!(!environment.lines().any(|l| l.starts_with("SOCKET=")), "{environment}");
    world.end().await;
    // What another test has just forked holds it, too, until it becomes a worker.
    eventually("it is closed with the version", async || TcpStream::connect(address).await.err()).await;
}

#[tokio::test]
async fn servers_that_take_sockets_take_this_one_and_keep_it_over_a_crash() {
    let world = World::new(inherits());
    let servers = [
        ("aaaaaaa", "exec python3 inherits.py"),
        ("bbbbbbb", "exec node server.js"),
        // It binds nothing itself only if LISTEN_PID is its own number.
        ("ccccccc", "exec gunicorn --chdir . wsgi:app"),
    ];
    for (version, run) in servers {
        deploy(&world, version, run).await;
    }
    for (version, _) in servers {
        let before = world.until_state(version, VersionState::Ready).await;
        let (address, pid) = (before.ready[0].address.clone(), pids(&before)[0]);
        assert_eq!(says_pid(&address).await, pid, "{version}");
        kill(pid);
        world.until(version, "its end was seen", |v| pids(v) != [pid]).await;
        // Nobody is there yet: this waits for the next process.
        let next = says_pid(&address).await;
        let after = world
            .until(version, "it is ready again", |v| {
                v.state == VersionState::Ready && v.workers[0].restarts == 1
            })
            .await;
        assert_eq!((&after.ready[0].address, pids(&after)), (&address, vec![next]), "{version}");
    }
    world.end().await;
}

#[tokio::test]
async fn an_adopted_worker_has_its_socket_still_and_leaves_it_to_the_next_process() {
    let world = World::new(inherits());
    deploy(&world, "4f2a91c", "exec python3 inherits.py").await;
    let before = world.until_state("4f2a91c", VersionState::Ready).await;
    let (address, pid) = (before.ready[0].address.clone(), pids(&before)[0]);
    let world = world.succeeded().await;
    let adopted = world.until_state("4f2a91c", VersionState::Ready).await;
    assert_eq!((pids(&adopted), &adopted.ready[0].address), (vec![pid], &address));
    kill(pid);
    world.until("4f2a91c", "its end was seen", |v| pids(v) != [pid]).await;
    assert_ne!(says_pid(&address).await, pid);
    let after = world.until_state("4f2a91c", VersionState::Ready).await;
    assert_eq!((after.workers[0].restarts, &after.ready[0].address), (1, &address));
    world.end().await;
}

#[tokio::test]
async fn a_list_is_executed_with_the_socket_too() {
    let program = worker_program().display().to_string();
    let mut list = inherits();
    list.run = Some(RunCommand::Exec(vec![program]));
    let world = World::new(list);
    world.deploy("4f2a91c", "").await;
    let version = world.until_state("4f2a91c", VersionState::Ready).await;
    let answer = get(&version.ready[0].address, "/").await;
    assert!(answer.ends_with(&format!("version=4f2a91c worker=0 pid={}\n", pids(&version)[0])), "{answer}");
    world.end().await;
}

#[tokio::test]
async fn while_two_processes_of_a_worker_run_each_has_a_socket_of_its_own() {
    let world = World::new(inherits());
    deploy(&world, "4f2a91c", "exec python3 inherits.py").await;
    let before = world.until_state("4f2a91c", VersionState::Ready).await;
    let (old, old_pid) = (before.ready[0].address.clone(), pids(&before)[0]);
    world.ask("4f2a91c", Action::Restart).await.unwrap();
    let after = world
        .until("4f2a91c", "the new one has taken over", |v| v.ready.len() == 1 && pids(v) != [old_pid])
        .await;
    let new = after.ready[0].address.clone();
    assert_ne!(new, old);
    assert_eq!(says_pid(&new).await, pids(&after)[0]);
    let Address::Tcp(old) = old else { panic!() };
    eventually("nobody waits on the old one", async || TcpStream::connect(old).await.err()).await;
    world.end().await;
}

#[tokio::test]
async fn a_worker_that_does_not_accept_is_not_ready_though_its_socket_is_open() {
    let mut late = inherits();
    late.ready.check = ReadyCheck::Tcp;
    late.ready.timeout = Duration::from_millis(200);
    late.ready.deadline = Duration::from_secs(1);
    let world = World::new(late.clone());
    deploy(&world, "bad0bad", "exec sleep 1000").await;
    let failed = world.until_state("bad0bad", VersionState::Failed).await;
    let reason = failed.reason.as_deref().unwrap();
    assert!(
        reason.contains("no connection was accepted on 127.0.0.1:") && reason.contains("`exec`"),
        "{reason}"
    );
    world.end().await;

    late.ready.deadline = Duration::from_secs(30);
    let world = World::new(late);
    deploy(&world, "4f2a91c", "exec python3 inherits.py").await;
    world.until_state("4f2a91c", VersionState::Ready).await;
    let port = portpicker::pick_unused_port().unwrap();
    deploy(&world, "bad0bad", &format!("exec python3 server.py {port}")).await;
    let noted = world.until("bad0bad", "it is said where it listens", |v| v.reason.is_some()).await;
    let reason = noted.reason.as_deref().unwrap();
    assert!(reason.contains(&format!("the worker listens on 127.0.0.1:{port}, not on")), "{reason}");
    assert!(reason.contains("LISTEN_FDS"), "{reason}");
    world.end().await;
}

/// The only worker is killed again and again under load: whoever asks meanwhile waits, and nobody is refused.
#[tokio::test]
async fn a_worker_that_is_killed_and_started_again_refuses_nobody() {
    let switchman = Switchman::start(Setup { service: "    upstream: inherit\n", ..Setup::default() }).await;
    switchman.deploy("4f2a91c").await;
    // The first version becomes current a moment after it is ready.
    let is_current = |version: &serde_json::Value| {
        version["aliases"].as_array().is_some_and(|aliases| aliases.iter().any(|alias| alias == "current"))
    };
    let version = switchman.wait_version("4f2a91c", "it is current", is_current).await;
    let pid_of = |version: &serde_json::Value| version["workers"][0]["pid"].as_u64().unwrap();
    let mut pid = pid_of(&version);
    let address = version["workers"][0]["address"].clone();
    let load = Load::start(&switchman.url("/"), 4);
    for _ in 0..3 {
        load.more(200).await;
        kill(u32::try_from(pid).unwrap());
        let version = switchman
            .wait_version("4f2a91c", "it runs again", |v| {
                v["state"] == "ready" && v["workers"][0]["pid"].as_u64().is_some_and(|new| new != pid)
            })
            .await;
        assert_eq!(version["workers"][0]["address"], address);
        pid = pid_of(&version);
    }
    load.more(200).await;
    let tally = load.stop().await;
    assert!(
        tally.failures.is_empty(),
        "{} of {}: {:?}",
        tally.failures.len(),
        tally.requests(),
        tally.failures
    );
}
