//! Readiness that a worker says itself, or a command beside it.

use std::os::unix::net::UnixDatagram;

use super::*;

fn checked(check: ReadyCheck) -> RunSpec {
    let mut spec = spec();
    spec.ready.check = check;
    spec.ready.timeout = Duration::from_millis(500);
    spec
}

/// Says where its socket is, what it is doing, and, once `go` is there, that it is ready.
const SAYS_SO: &str = r#"
import http.server, os, socket, time
path = os.environ["NOTIFY_SOCKET"]
def say(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(text.encode(), path)
say("STATUS=warming up")
open("socket.new", "w").write(path + "\n")
os.rename("socket.new", "socket")
while not os.path.exists("go"): time.sleep(0.01)
server = http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), http.server.SimpleHTTPRequestHandler)
say("READY=1\nSTATUS=serving")
# More than a socket that nobody reads has room for.
for n in range(2000): say(f"STATUS={n}")
open("said", "w").write("all\n")
server.serve_forever()
"#;

async fn deploy(world: &World, version: &str) {
    world.write(version, "exec python3 says_so.py");
    std::fs::write(world.folder(version).join("says_so.py"), SAYS_SO).unwrap();
    world.settle(version).await;
}

#[tokio::test]
async fn a_worker_is_ready_when_it_says_so_and_its_status_is_shown_until_then() {
    let mut two = checked(ReadyCheck::Notify);
    two.workers = 2;
    let world = World::new(two);
    deploy(&world, "4f2a91c").await;
    let starting = world.until("4f2a91c", "its status is shown", |v| v.reason.is_some()).await;
    assert_eq!((starting.state, starting.reason.as_deref()), (VersionState::Starting, Some("warming up")));
    std::fs::write(world.folder("4f2a91c").join("go"), "").unwrap();
    let ready = world.until_state("4f2a91c", VersionState::Ready).await;
    assert_eq!((ready.ready.len(), &ready.reason), (2, &None));
    assert_eq!(written(&world.folder("4f2a91c").join("said")).await, "all", "it never finds its socket full");
    let socket = written(&world.folder("4f2a91c").join("socket")).await;
    assert!(Path::new(&socket).exists());
    world.end().await;
    assert!(!Path::new(&socket).exists());
}

#[tokio::test]
async fn a_stranger_who_says_so_is_not_believed() {
    let mut late = checked(ReadyCheck::Notify);
    late.ready.deadline = Duration::from_secs(2);
    let world = World::new(late);
    deploy(&world, "4f2a91c").await;
    let socket = written(&world.folder("4f2a91c").join("socket")).await;
    // Root and the worker's own user can reach it; that is not enough.
    UnixDatagram::unbound().unwrap().send_to(b"READY=1", &socket).unwrap();
    let failed = world.until_state("4f2a91c", VersionState::Failed).await;
    let reason = failed.reason.as_deref().unwrap();
    let said = format!("READY=1 came from process {}", std::process::id());
    assert!(reason.contains(&said) && reason.ends_with("its last status: warming up"), "{reason}");
    world.end().await;
}

#[tokio::test]
async fn a_worker_that_says_nothing_is_told_what_was_waited_for() {
    let mut late = checked(ReadyCheck::Notify);
    late.ready.deadline = Duration::from_millis(300);
    let world = World::new(late);
    world.deploy("4f2a91c", SERVE).await;
    let failed = world.until_state("4f2a91c", VersionState::Failed).await;
    let reason = failed.reason.as_deref().unwrap();
    assert!(reason.contains("within 300ms: it has not sent READY=1 to its NOTIFY_SOCKET"), "{reason}");
    world.end().await;
}

#[tokio::test]
async fn a_command_says_whether_a_worker_is_ready() {
    let text = "test -e ok || { echo 'no index yet' >&2; exit 3; }; echo \"$PORT $1 $NODE_ENV\" > checked";
    let mut spec = checked(ReadyCheck::Command(RunCommand::Shell(text.to_owned())));
    spec.env.insert("NODE_ENV".to_owned(), "production".to_owned());
    spec.ready.deadline = Duration::from_secs(3);
    let world = World::new(spec);
    world.deploy("bad0bad", SERVE).await;
    world.write("4f2a91c", SERVE);
    std::fs::write(world.folder("4f2a91c").join("ok"), "").unwrap();
    world.settle("4f2a91c").await;
    let ready = world.until_state("4f2a91c", VersionState::Ready).await;
    let Address::Tcp(address) = &ready.ready[0].address else { panic!() };
    let port = address.port();
    assert_eq!(
        written(&world.folder("4f2a91c").join("checked")).await,
        format!("{port} {port} production"),
        "it has the worker's environment"
    );
    let failed = world.until_state("bad0bad", VersionState::Failed).await;
    let reason = failed.reason.as_deref().unwrap();
    assert!(reason.contains("exited with status 3: no index yet"), "{reason}");
    world.end().await;
}

#[tokio::test]
async fn a_command_that_hangs_is_ended_with_all_it_has_started() {
    let text = "sleep 1000 & echo $! > child.new; mv child.new child; wait";
    let mut late = checked(ReadyCheck::Command(RunCommand::Shell(text.to_owned())));
    late.ready.deadline = Duration::from_secs(3);
    let world = World::new(late);
    world.deploy("bad0bad", SERVE).await;
    let child: u32 = written(&world.folder("bad0bad").join("child")).await.parse().unwrap();
    let failed = world.until_state("bad0bad", VersionState::Failed).await;
    let reason = failed.reason.as_deref().unwrap();
    assert!(reason.contains("did not end within 500ms, and was ended"), "{reason}");
    eventually("what it has started is gone", async || (!exists(child)).then_some(())).await;
    world.end().await;
}
