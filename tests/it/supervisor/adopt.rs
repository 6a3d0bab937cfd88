//! Workers outlive their supervisor, and the next one goes on with them.

use std::path::PathBuf;

use serde_json::Value;
use switchman::config::UpstreamAt;

use super::*;
use crate::support::switchman::runs;

/// Where what is known of the processes of a version lies.
fn run_folder(world: &World, version: &str) -> PathBuf {
    world.state.path().join("run").join(APP).join(version)
}

fn file_names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn addresses(version: &registry::Version) -> Vec<Address> {
    version.workers.iter().filter_map(|w| w.address.clone()).collect()
}

fn restarts(version: &registry::Version) -> Vec<u32> {
    version.workers.iter().map(|w| w.restarts).collect()
}

/// A record that was changed in some fields.
fn forge(file: &Path, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let mut record: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    change(record.as_object_mut().unwrap());
    std::fs::write(file, record.to_string()).unwrap();
}

#[tokio::test]
async fn workers_go_on_under_the_next_supervisor_as_they_are() {
    for upstream in [UpstreamAt::Port, UpstreamAt::Unix] {
        let world = World::new(RunSpec { workers: 2, upstream, ..spec() });
        let serve = match upstream {
            UpstreamAt::Port => SERVE,
            UpstreamAt::Unix | UpstreamAt::Inherit => {
                "exec python3 -c '
import http.server, os, socketserver
class Handler(http.server.SimpleHTTPRequestHandler):
    def address_string(self): return \"\"
socketserver.ThreadingUnixStreamServer(os.environ[\"SOCKET\"], Handler).serve_forever()'"
            }
        };
        let serve = format!("mkdir -p healthz; touch healthz/index.html; {serve}");
        world.deploy("4f2a91c", &serve).await;
        let first = world.until_state("4f2a91c", VersionState::Ready).await;
        // One with a history.
        kill(pids(&first)[1]);
        let before =
            world.until("4f2a91c", "worker 1 is back", |v| v.ready.len() == 2 && restarts(v) == [0, 1]).await;

        // Nobody has said that its folder is there: it was complete when it was started.
        let world = world.succeeded().await;
        let after = world.until_state("4f2a91c", VersionState::Ready).await;
        world.handle.returned().await;
        assert_eq!((pids(&after), addresses(&after)), (pids(&before), addresses(&before)));
        assert_eq!(restarts(&after), [0, 1]);
        assert_eq!(after.ready[0].in_flight.now(), 0);
        assert!(get(&after.ready[0].address, "/healthz/").await.contains("200 OK"));
        world.tell(ChangeKind::Arriving { version: "4f2a91c".into(), path: world.folder("4f2a91c") }).await;
        world.settle("4f2a91c").await;

        // Its end is seen, and it is replaced by one with a number of its own.
        kill(pids(&after)[0]);
        let again =
            world.until("4f2a91c", "worker 0 is back", |v| v.ready.len() == 2 && restarts(v) == [1, 1]).await;
        assert_eq!((pids(&again)[1], again.workers[0].restarts), (pids(&before)[1], 1));
        assert_ne!(pids(&again)[0], pids(&before)[0]);

        // It can be restarted, and what was adopted ends in good order.
        world.ask("4f2a91c", Action::Restart).await.unwrap();
        let restarted = world
            .until("4f2a91c", "both are new", |v| {
                v.ready.len() == 2 && pids(v).iter().all(|pid| !pids(&again).contains(pid))
            })
            .await;
        eventually("the old ones are gone", async || {
            pids(&again).iter().all(|pid| !runs(*pid)).then_some(())
        })
        .await;
        world.end().await;
        assert!(pids(&restarted).iter().all(|pid| !exists(*pid)));
        assert_eq!(file_names(&run_folder(&world, "4f2a91c")), Vec::<String>::new());
    }
}

#[tokio::test]
async fn stop_drain_and_shutdown_end_adopted_workers_with_all_they_started() {
    // A child in a session of its own, a daemon that keeps its environment, one that clears it but prints where we read.
    let clinging = "trap '' TERM
        setsid sh -c 'echo $$ > child.new; mv child.new child; exec sleep 1000' &
        (setsid sh -c 'echo $$ > daemon.new; mv daemon.new daemon; exec sleep 1000' > /dev/null 2>&1 &)
        (env -i setsid sh -c 'echo $$ > bare.new; mv bare.new bare; exec sleep 1000' &)
        python3 server.py";
    for how in ["stop", "drain", "shutdown", "crash"] {
        let world = World::new(spec());
        world.deploy("4f2a91c", clinging).await;
        let ready = world.until_state("4f2a91c", VersionState::Ready).await;
        let mut all = pids(&ready);
        for file in ["child", "daemon", "bare"] {
            all.push(written(&world.folder("4f2a91c").join(file)).await.parse().unwrap());
        }
        let world = world.succeeded().await;
        world.until_state("4f2a91c", VersionState::Ready).await;
        assert!(all.iter().all(|pid| runs(*pid)), "{how}: {all:?}");
        match how {
            "stop" => world.ask("4f2a91c", Action::Stop { force: false }).await.unwrap(),
            "drain" => world.ask("4f2a91c", Action::Drain { force: false }).await.unwrap(),
            "crash" => kill(all[0]),
            _ => world.handle.shutdown().await,
        }
        match how {
            "crash" => {
                let again =
                    world.until("4f2a91c", "it is back", |v| v.ready.len() == 1 && restarts(v) == [1]).await;
                assert_ne!(pids(&again)[0], all[0]);
            }
            "shutdown" => {}
            _ => _ = world.until_state("4f2a91c", VersionState::Stopped).await,
        }
        eventually("nothing of the tree is left", async || all.iter().all(|pid| !runs(*pid)).then_some(()))
            .await;
        world.end().await;
    }
}

#[tokio::test]
async fn what_is_printed_meanwhile_is_read_by_the_next_supervisor() {
    let world = World::new(spec());
    let chatty = "exec python3 -c '
import os, subprocess, threading, time
def chat():
    n = 0
    while True:
        n += 1
        print(\"line\", n, flush=True)
        os.system(\"echo error > /dev/stderr\") if n % 50 == 0 else None
        time.sleep(0.005)
threading.Thread(target=chat, daemon=True).start()
exec(open(\"server.py\").read())'";
    world.deploy("4f2a91c", chatty).await;
    world.until_state("4f2a91c", VersionState::Ready).await;
    let numbers = |world: &World| -> Vec<u32> {
        let lines = world.lines("4f2a91c");
        lines.iter().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect()
    };
    eventually("it prints", async || (numbers(&world).len() > 50).then_some(())).await;
    world.handle.leave().await;
    let read = numbers(&world);
    let pid = pids(&world.version("4f2a91c").unwrap())[0];
    // Nobody reads for a while.
    let begun = std::time::Instant::now();
    eventually("time passes", async || (begun.elapsed() > Duration::from_millis(300)).then_some(())).await;
    assert!(runs(pid));
    let world = World::over(world.root, world.state, world.spec);
    let last = *read.last().unwrap();
    eventually("it goes on", async || numbers(&world).last().filter(|n| **n > last + 100).copied()).await;
    let all: Vec<u32> = read.into_iter().chain(numbers(&world)).collect();
    let gap = all.windows(2).find(|pair| pair[1] != pair[0] + 1);
    assert_eq!(
        gap,
        None,
        "lost or read twice, around {last}; memory begins with {:?}",
        numbers(&world).first()
    );
    assert!(world.lines("4f2a91c").iter().any(|line| line == "error"), "/dev/stderr can be opened");
    world.end().await;
}

#[tokio::test]
async fn records_that_do_not_fit_are_not_believed_and_nobody_is_signalled() {
    let world = World::new(spec());
    let mut strangers = Vec::new();
    for (version, field) in
        [("aaaaaa1", "boot"), ("aaaaaa2", "started"), ("aaaaaa3", "pid"), ("aaaaaa4", "number")]
    {
        world.deploy(version, SERVE).await;
        let ready = world.until_state(version, VersionState::Ready).await;
        // A stranger that would not survive a signal, under no name of ours.
        let stranger = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        strangers.push((version, field, pids(&ready)[0], stranger));
    }
    world.handle.leave().await;
    for (version, field, pid, stranger) in &strangers {
        let started = |pid: u32| procfs::process::Process::new(pid as i32).unwrap().stat().unwrap().starttime;
        forge(&run_folder(&world, version).join("0-1.json"), |record| match *field {
            // Its own worker, of an earlier start of the machine: the number may be anybody's.
            "boot" => _ = record.insert("boot".into(), "00000000-0000-0000-0000-000000000000".into()),
            "started" => _ = record.insert("started".into(), (started(*pid) - 1).into()),
            // A stranger's number with the worker's start.
            "pid" => _ = record.insert("pid".into(), stranger.id().into()),
            // Even one whose start was guessed.
            _ => {
                record.insert("pid".into(), stranger.id().into());
                record.insert("started".into(), started(stranger.id()).into());
            }
        });
    }
    let world = World::over(world.root, world.state, world.spec);
    for (version, ..) in &strangers {
        world.settle(version).await;
    }
    for (version, field, pid, stranger) in &mut strangers {
        // The worker itself carries our mark: it is ended, and the version started anew.
        let again = world.until_state(version, VersionState::Ready).await;
        assert_ne!(pids(&again)[0], *pid, "{field}");
        assert!(!runs(*pid), "{field}");
        assert!(stranger.try_wait().unwrap().is_none(), "{field}: the stranger was signalled");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
    world.end().await;
}

#[tokio::test]
async fn a_process_without_a_record_is_ended_before_anything_is_started() {
    let world = World::new(spec());
    world.deploy("4f2a91c", "echo $$ >> started; exec python3 server.py").await;
    let before = world.until_state("4f2a91c", VersionState::Ready).await;
    world.handle.leave().await;
    // As if switchman had been killed between the start and the record.
    std::fs::remove_file(run_folder(&world, "4f2a91c").join("0-1.json")).unwrap();
    let world = World::over(world.root, world.state, world.spec);
    world.settle("4f2a91c").await;
    let after = world.until_state("4f2a91c", VersionState::Ready).await;
    assert!(!runs(pids(&before)[0]) && pids(&after) != pids(&before));
    let names = file_names(&run_folder(&world, "4f2a91c"));
    assert!(
        names.contains(&"0-2.json".to_owned()) && !names.iter().any(|name| name.starts_with("0-1.")),
        "{names:?}"
    );
    world.end().await;
}

#[tokio::test]
async fn what_is_not_to_run_any_more_is_ended_and_what_is_missing_started() {
    let world = World::new(RunSpec { workers: 2, ..spec() });
    for version in ["aaaaaa1", "aaaaaa2", "aaaaaa3"] {
        world.deploy(version, SERVE).await;
        world.until_state(version, VersionState::Ready).await;
    }
    world.ask("aaaaaa2", Action::Scale { workers: 3 }).await.unwrap();
    let of = |version: &str| world.version(version).unwrap();
    let scaled = world.until("aaaaaa2", "it has three", |v| v.ready.len() == 3).await;
    let (stopped, gone, missing) = (pids(&of("aaaaaa1")), pids(&of("aaaaaa3")), pids(&scaled)[1]);
    world.handle.leave().await;
    // Meanwhile a person has stopped one, deleted the folder of one, and one worker has ended.
    std::fs::write(world.state.path().join(APP).join("stopped.json"), "[\"aaaaaa1\"]").unwrap();
    std::fs::remove_dir_all(world.folder("aaaaaa3")).unwrap();
    kill(missing);
    let world = World::over(world.root, world.state, world.spec);
    let after = world.until("aaaaaa2", "it has three again", |v| v.ready.len() == 3).await;
    assert_eq!((pids(&after)[0], pids(&after)[2]), (pids(&scaled)[0], pids(&scaled)[2]));
    assert_ne!(pids(&after)[1], missing);
    eventually("the stopped and the deleted one have ended", async || {
        stopped.iter().chain(&gone).all(|pid| !runs(*pid)).then_some(())
    })
    .await;
    world.until_forgotten("aaaaaa3").await;
    world.settle("aaaaaa1").await;
    world.until_state("aaaaaa1", VersionState::Stopped).await;
    world.end().await;
}

#[tokio::test]
async fn workers_with_another_command_are_replaced_one_after_the_other() {
    let world = World::new(RunSpec { workers: 2, ..spec() });
    world.deploy("4f2a91c", SERVE).await;
    let before = world.until_state("4f2a91c", VersionState::Ready).await;
    world.handle.leave().await;
    let mut changed = world.spec.clone();
    changed.env.insert("NEW".to_owned(), "yes".to_owned());
    let mut world = World::over(world.root, world.state, changed);
    world.handle.returned().await;
    loop {
        let now = world.version("4f2a91c").unwrap();
        assert!(now.ready.len() >= 2, "{now:#?}");
        if now.ready.len() == 2 && pids(&now).iter().all(|pid| !pids(&before).contains(pid)) {
            assert!(get(&now.ready[0].address, "/env").await.contains("NEW=yes"));
            break;
        }
        world.registry.changed().await.unwrap();
    }
    world.end().await;
}

#[tokio::test]
async fn a_worker_that_was_starting_goes_on_with_that_and_one_that_hangs_is_replaced() {
    let world = World::new(spec());
    world.deploy("aaaaaa1", "while ! test -e go; do sleep 0.02; done; exec python3 server.py").await;
    let starting = world.until("aaaaaa1", "it runs", |v| !pids(v).is_empty()).await;
    world.deploy("aaaaaa2", SERVE).await;
    let ready = world.until_state("aaaaaa2", VersionState::Ready).await;
    world.handle.leave().await;
    let stop = rustix::process::Pid::from_raw(pids(&ready)[0] as i32).unwrap();
    rustix::process::kill_process(stop, rustix::process::Signal::STOP).unwrap();
    // How it is checked is not what it was started with.
    let hasty = "ready: {timeout: 200ms, deadline: 5s}\n";
    std::fs::write(world.folder("aaaaaa2").join("switchman.yaml"), hasty).unwrap();
    let world = World::over(world.root, world.state, world.spec);
    std::fs::write(world.folder("aaaaaa1").join("go"), "").unwrap();
    let went_on = world.until_state("aaaaaa1", VersionState::Ready).await;
    assert_eq!(pids(&went_on), pids(&starting));
    let replaced = world.until("aaaaaa2", "it is replaced", |v| v.ready.len() == 1).await;
    assert_ne!(pids(&replaced), pids(&ready));
    world.end().await;
}

#[tokio::test]
async fn a_worker_that_was_starting_is_still_heard_when_it_says_that_it_is_ready() {
    let world = World::new(RunSpec {
        ready: Ready { check: ReadyCheck::Notify, deadline: Duration::from_secs(20), ..spec().ready },
        ..spec()
    });
    let run = "exec python3 -c '
import os, socket, threading, time
def say():
    while not os.path.exists(\"go\"): time.sleep(0.02)
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b\"READY=1\", os.environ[\"NOTIFY_SOCKET\"])
threading.Thread(target=say, daemon=True).start()
exec(open(\"server.py\").read())'";
    world.deploy("4f2a91c", run).await;
    let starting = world.until("4f2a91c", "it runs", |v| !pids(v).is_empty()).await;
    let world = world.succeeded().await;
    eventually("it listens, and is not ready for that", async || {
        let version = world.version("4f2a91c")?;
        let Address::Tcp(address) = version.workers[0].address.clone()? else { return None };
        TcpStream::connect(address).await.ok().filter(|_| version.ready.is_empty())
    })
    .await;
    std::fs::write(world.folder("4f2a91c").join("go"), "").unwrap();
    let ready = world.until_state("4f2a91c", VersionState::Ready).await;
    assert_eq!(pids(&ready), pids(&starting));
    // Ready once, it need not say so again.
    let world = world.succeeded().await;
    world.handle.returned().await;
    let ready = world.until_state("4f2a91c", VersionState::Ready).await;
    assert_eq!(pids(&ready), pids(&starting));
    world.end().await;
}

#[tokio::test]
async fn the_folder_of_a_version_that_carries_traffic_may_have_gone_meanwhile() {
    let world = World::new(spec());
    world.deploy("4f2a91c", SERVE).await;
    let before = world.until_state("4f2a91c", VersionState::Ready).await;
    world.handle.leave().await;
    std::fs::remove_dir_all(world.folder("4f2a91c")).unwrap();
    let world = World::over_with(world.root, world.state, world.spec, &[("current", "4f2a91c")]);
    let after = world.until_state("4f2a91c", VersionState::Ready).await;
    assert_eq!(pids(&after), pids(&before));
    assert!(after.reason.as_deref().unwrap().contains("is gone; it goes on serving"), "{:?}", after.reason);
    // Nothing leads to it any more.
    world.rules.send_replace(published(&[]));
    world.until_forgotten("4f2a91c").await;
    assert!(!runs(pids(&before)[0]));
    world.end().await;
}
