//! Workers that hang, answer badly, and recover: who is taken out, who is replaced, who is left alone.

use rustix::process::{Pid, Signal, kill_process};
use switchman::config::{Live, LiveCheck};
use switchman::version::WorkerState;

use super::*;

/// Asked often, and given up after three checks.
fn live(workers: u32) -> RunSpec {
    let mut spec = RunSpec { workers, ..spec() };
    spec.life.live = Live {
        interval: Duration::from_millis(50),
        timeout: Duration::from_millis(300),
        failures: 3,
        ..Live::default()
    };
    spec
}

/// Answers as the file `health-N` says, where N is the worker's number (or as the file says that it is given); without
/// the file all is well.
const BY_FILE: &str = r#"
cat > by_file.py <<'END'
import http.server, os, sys
file = sys.argv[1]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(open(file).read()) if os.path.exists(file) else 200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
END
exec python3 by_file.py "health-$SWITCHMAN_WORKER""#;

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

impl World {
    /// What the health path of a worker answers from now on.
    fn health(&self, version: &str, worker: u32, status: &str) {
        let file = self.folder(version).join(format!("health-{worker}"));
        std::fs::write(file.with_extension("new"), status).unwrap();
        std::fs::rename(file.with_extension("new"), file).unwrap();
    }
}

#[tokio::test]
async fn a_worker_that_hangs_is_taken_out_and_replaced() {
    let mut world = World::new(live(2));
    world.deploy("4f2a91c", SERVE).await;
    let before = world.until_state("4f2a91c", VersionState::Ready).await;
    let [hangs, well] = pids(&before)[..] else { panic!() };
    signal(hangs, Signal::STOP);
    let out = world.until("4f2a91c", "it is out", |v| v.ready.len() == 1).await;
    assert_eq!((out.state, out.workers[0].state), (VersionState::Ready, WorkerState::Hung));
    let reason = out.reason.as_ref().unwrap();
    assert!(
        reason.starts_with("worker 0 does not answer (3 liveness checks in a row): GET /healthz"),
        "{reason}"
    );
    let after = loop {
        let now = world.version("4f2a91c").unwrap();
        assert!(!now.ready.is_empty());
        if now.ready.len() == 2 {
            break now;
        }
        world.registry.changed().await.unwrap();
    };
    assert_eq!((pids(&after)[1], after.workers[0].restarts, &after.reason), (well, 1, &None));
    eventually("the hung one has ended, by KILL", async || (!exists(hangs)).then_some(())).await;
    world.end().await;
}

#[tokio::test]
async fn the_only_worker_that_hangs_is_replaced_and_the_version_says_so() {
    let world = World::new(live(1));
    world.deploy("4f2a91c", SERVE).await;
    let before = world.until_state("4f2a91c", VersionState::Ready).await;
    world.promote("4f2a91c").await;
    signal(pids(&before)[0], Signal::STOP);
    let out = world.until("4f2a91c", "it is out", |v| v.ready.is_empty()).await;
    assert!(out.reason.as_ref().unwrap().contains("does not answer"), "{:?}", out.reason);
    let after = world.until("4f2a91c", "another one serves", |v| v.ready.len() == 1).await;
    assert_ne!(pids(&after), pids(&before));
    assert!(get(&after.ready[0].address, "/").await.contains("200 OK"));
    world.end().await;
}

#[tokio::test]
async fn a_worker_that_answers_again_in_time_goes_on() {
    let world = World::new(live(1));
    // The second process is never ready: the first one has all the time there is.
    world.deploy("4f2a91c", &format!("mkdir first 2>/dev/null || exec sleep 1000\n{SERVE}")).await;
    let before = world.until_state("4f2a91c", VersionState::Ready).await;
    signal(pids(&before)[0], Signal::STOP);
    world.until("4f2a91c", "it is out", |v| v.ready.is_empty()).await;
    signal(pids(&before)[0], Signal::CONT);
    let after = world.until("4f2a91c", "it is back", |v| v.ready.len() == 1 && v.reason.is_none()).await;
    assert!(Arc::ptr_eq(&after.ready[0], &before.ready[0]), "with its connections and counters");
    assert_eq!((pids(&after), after.workers[0].restarts), (pids(&before), 0));
    world.end().await;
}

#[tokio::test]
async fn the_last_worker_that_answers_badly_serves_until_another_is_ready() {
    let mut world = World::new(live(1));
    world.deploy("4f2a91c", BY_FILE).await;
    let before = world.until_state("4f2a91c", VersionState::Ready).await;
    world.promote("4f2a91c").await;
    // What is started from now on waits for leave, and finds nothing wrong.
    let gated = "while [ ! -e go ]; do sleep 0.02; done; exec python3 by_file.py none";
    std::fs::write(world.folder("4f2a91c").join("run.sh"), gated).unwrap();

    world.health("4f2a91c", 0, "503");
    let said = world.until("4f2a91c", "it is noticed", |v| v.reason.is_some()).await;
    let reason = said.reason.as_ref().unwrap();
    assert_eq!(reason, "worker 0 answers badly (3 liveness checks in a row): GET /healthz answered 503");
    world.health("4f2a91c", 0, "200");
    let well = world.until("4f2a91c", "it is well again", |v| v.reason.is_none()).await;
    assert_eq!(
        (pids(&well), well.workers[0].restarts),
        (pids(&before), 0),
        "nobody was restarted for nothing"
    );

    world.health("4f2a91c", 0, "503");
    world.until("4f2a91c", "it is noticed again", |v| v.reason.is_some()).await;
    std::fs::write(world.folder("4f2a91c").join("go"), "").unwrap();
    loop {
        let now = world.version("4f2a91c").unwrap();
        assert_eq!((now.state, now.ready.is_empty()), (VersionState::Ready, false), "never without a worker");
        if pids(&now) != pids(&before) && now.reason.is_none() {
            break;
        }
        world.registry.changed().await.unwrap();
    }
    world.end().await;
}

#[tokio::test]
async fn when_all_answer_badly_half_of_them_stay_and_nobody_is_restarted() {
    let world = World::new(live(4));
    world.deploy("4f2a91c", BY_FILE).await;
    let before = world.until_state("4f2a91c", VersionState::Ready).await;
    (0..4).for_each(|worker| world.health("4f2a91c", worker, "503"));
    let out = world.until("4f2a91c", "half of them are out", |v| v.ready.len() == 2).await;
    assert_eq!(out.state, VersionState::Ready);
    (0..4).for_each(|worker| world.health("4f2a91c", worker, "200"));
    let after = world.until("4f2a91c", "all are back", |v| v.ready.len() == 4 && v.reason.is_none()).await;
    assert_eq!(pids(&after), pids(&before));
    world.end().await;
}

#[tokio::test]
async fn a_command_and_a_connection_can_be_the_check() {
    for check in
        [LiveCheck::Tcp, LiveCheck::Command(RunCommand::Shell("test -z \"$PIDFILE\" -a ! -e ill".into()))]
    {
        let by_command = check != LiveCheck::Tcp;
        let mut spec = live(1);
        spec.life.live.check = check;
        spec.ready.check = ReadyCheck::Tcp;
        let world = World::new(spec);
        world.deploy("4f2a91c", SERVE).await;
        let before = world.until_state("4f2a91c", VersionState::Ready).await;
        if by_command {
            std::fs::write(world.folder("4f2a91c").join("ill"), "").unwrap();
        } else {
            // A stopped worker's kernel still accepts; a worker that closed its port does not.
            signal(pids(&before)[0], Signal::KILL);
        }
        let after = world
            .until("4f2a91c", "it is replaced", |v| v.ready.len() == 1 && pids(v) != pids(&before))
            .await;
        assert_eq!(after.workers[0].restarts, 1);
        world.end().await;
    }
}

#[tokio::test]
async fn nobody_is_asked_who_is_not_to_be() {
    let mut spec = live(1);
    spec.life.live.check = LiveCheck::Off;
    let world = World::new(spec);
    world.deploy("4f2a91c", SERVE).await;
    let before = world.until_state("4f2a91c", VersionState::Ready).await;
    signal(pids(&before)[0], Signal::STOP);
    // Another version that hangs shows that its time would have come.
    let asked = World::new(live(1));
    asked.deploy("b001bee", SERVE).await;
    let hangs = asked.until_state("b001bee", VersionState::Ready).await;
    signal(pids(&hangs)[0], Signal::STOP);
    asked.until("b001bee", "it is out", |v| v.ready.is_empty()).await;
    assert_eq!(world.version("4f2a91c").unwrap().ready.len(), 1);
    world.end().await;
    asked.end().await;
}
