//! kill -9 of switchman: its workers live on, and the next switchman goes on with them.

use std::time::Duration;

use serde_json::Value;

use super::super::support::eventually;
use super::super::support::http::get;
use super::super::support::switchman::{Setup, Switchman, processes_in, worker_program};

/// Number, address, restarts and state of each worker of a version.
async fn workers(switchman: &Switchman, version: &str) -> Vec<(Value, Value, Value, Value)> {
    let version = switchman.version(version).await.unwrap();
    let workers = version["workers"].as_array().unwrap().iter();
    workers
        .map(|w| (w["pid"].clone(), w["address"].clone(), w["restarts"].clone(), w["state"].clone()))
        .collect()
}

fn kill(pid: &Value) {
    let pid = rustix::process::Pid::from_raw(pid.as_i64().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Children of a process that have ended and that it has not reaped.
fn zombies_of(parent: u32) -> Vec<i32> {
    let all = procfs::process::all_processes().unwrap().flatten().filter_map(|process| process.stat().ok());
    all.filter(|stat| stat.ppid == parent as i32 && stat.state == 'Z').map(|stat| stat.pid).collect()
}

#[tokio::test]
async fn after_kill_9_the_next_switchman_goes_on_with_the_same_workers() {
    let mut switchman = Switchman::start(Setup { service: "    workers: 2\n", ..Setup::default() }).await;
    let build = switchman.build("4f2a91c");
    // Prints all the time, to its output and to a file; slow when it is started for the second time.
    let run = format!(
        "test -e slow && sleep 1\nrm -f slow\n\
         (n=0; while echo tick-$SWITCHMAN_WORKER-$((n += 1)); do echo tick-$SWITCHMAN_WORKER-$n > last; sleep 0.02; done) &\n\
         exec {}\n",
        worker_program().display()
    );
    std::fs::write(build.join("run.sh"), run).unwrap();
    std::fs::write(build.join("switchman.yaml"), "run: [sh, run.sh]\n").unwrap();
    switchman.rsync(&build, "4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;
    switchman.deploy_ready("b001bee").await;
    switchman.done(&["tag", "beta", "b001bee"]).await;
    switchman.done(&["scale", "b001bee", "--workers", "3"]).await;
    switchman.deploy_ready("c0ffee1").await;
    switchman.done(&["stop", "c0ffee1"]).await;
    let token = std::fs::read(switchman.folder.path().join("state/admin.token")).unwrap();
    let before = (workers(&switchman, "4f2a91c").await, workers(&switchman, "b001bee").await);
    assert_eq!((before.0.len(), before.1.len()), (2, 3));

    switchman.kill().await;
    let printed = switchman.root().join("4f2a91c/last");
    let tick = std::fs::read_to_string(&printed).unwrap();
    let meanwhile = eventually("the worker goes on printing", || async {
        std::fs::read_to_string(&printed).ok().filter(|now| *now != tick && now.ends_with('\n'))
    })
    .await;
    switchman.start_again().await;
    // Ready as soon as it listens: no request has to find a version without workers.
    let answer = get(&switchman.url("/")).await.unwrap();
    assert_eq!((answer.status, answer.version()), (200, "4f2a91c"));
    assert_eq!((workers(&switchman, "4f2a91c").await, workers(&switchman, "b001bee").await), before);
    let current = switchman.version("4f2a91c").await.unwrap();
    assert_eq!((&current["state"], &current["reason"]), (&"ready".into(), &Value::Null));
    assert_eq!(std::fs::read(switchman.folder.path().join("state/admin.token")).unwrap(), token);
    assert_eq!(switchman.version("b001bee").await.unwrap()["aliases"], serde_json::json!(["beta"]));
    switchman.wait_state("c0ffee1", "stopped").await;
    eventually("what was printed meanwhile is in the log", || async {
        switchman.done(&["logs", "4f2a91c"]).await.contains(meanwhile.trim()).then_some(())
    })
    .await;

    // The end of an adopted worker is seen, though nobody here is its parent.
    std::fs::write(switchman.root().join("4f2a91c/slow"), "").unwrap();
    kill(&before.0[0].0);
    switchman
        .wait_version("4f2a91c", "says how the worker ended", |v| {
            v["reason"].as_str().is_some_and(|r| r.contains("its exit status went to whoever had adopted it"))
        })
        .await;
    switchman
        .wait_version("4f2a91c", "has started it again", |v| {
            let worker = &v["workers"][0];
            worker["restarts"] == 1 && worker["state"] == "ready"
        })
        .await;
    switchman.done(&["restart", "b001bee"]).await;
    let restarted = workers(&switchman, "b001bee").await;
    assert!(restarted.iter().all(|new| before.1.iter().all(|old| old.0 != new.0)), "{restarted:?}");
    switchman.done(&["stop", "b001bee"]).await;
    assert_eq!(get(&switchman.url("/")).await.unwrap().version(), "4f2a91c");
    switchman.terminate().await;
    assert_eq!(processes_in(&switchman.root()), Vec::<String>::new(), "no process is left");
}

#[tokio::test]
async fn a_hundred_times_kill_9_change_no_worker_and_leave_nothing_behind() {
    let mut switchman = Switchman::start(Setup { service: "    workers: 2\n", ..Setup::default() }).await;
    for version in ["4f2a91c", "b001bee"] {
        switchman.deploy_ready(version).await;
    }
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;
    let before = processes_in(&switchman.root());
    assert_eq!(before.len(), 4);
    for round in 0..100 {
        switchman.kill_and_start().await;
        let answer = get(&switchman.url("/")).await.unwrap();
        assert_eq!((answer.status, answer.version()), (200, "4f2a91c"), "round {round}");
    }
    assert_eq!(processes_in(&switchman.root()), before);
    for version in ["4f2a91c", "b001bee"] {
        let workers = switchman.wait_state(version, "ready").await["workers"].clone();
        for worker in workers.as_array().unwrap() {
            assert_eq!(
                (&worker["state"], &worker["restarts"]),
                (&"ready".into(), &0.into()),
                "{version}: {worker}"
            );
        }
    }
    assert_eq!(zombies_of(switchman.pid()), Vec::<i32>::new());
    // Killed before it has looked at anything, and in the middle of a start.
    for pause in [0, 1, 2, 5, 10, 20, 50] {
        switchman.kill().await;
        switchman.start_without_waiting();
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    switchman.kill_and_start().await;
    assert_eq!(processes_in(&switchman.root()), before);
    switchman.terminate().await;
    assert_eq!(processes_in(&switchman.root()), Vec::<String>::new());
    let left: Vec<_> = walk(&switchman.folder.path().join("state/run"));
    assert!(left.is_empty(), "{left:?}");
}

/// Every file below a folder.
fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn switchman_as_pid_1_of_a_container_reaps_what_workers_leave_behind() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root may make a PID namespace (unshare --pid)");
        return;
    }
    // A process that ends takes the namespace with it.
    let within = &["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    let switchman = Switchman::start(Setup { within, ..Setup::default() }).await;
    let build = switchman.build("4f2a91c");
    // Orphans that end soon, and one that lives: all of them become children of PID 1.
    let run = format!(
        "for n in 1 2 3 4 5 6 7 8 9 10; do (setsid sleep 0.$n &); done\n(setsid sleep 1000 &)\nexec {}\n",
        worker_program().display()
    );
    std::fs::write(build.join("run.sh"), run).unwrap();
    std::fs::write(build.join("switchman.yaml"), "run: [sh, run.sh]\n").unwrap();
    switchman.rsync(&build, "4f2a91c").await;
    let ready = switchman.wait_state("4f2a91c", "ready").await;
    assert!(ready["workers"][0]["pid"].as_i64().unwrap() < 100, "it counts as in its own namespace: {ready}");
    let init = eventually("unshare has its child", || async {
        let children = format!("/proc/{0}/task/{0}/children", switchman.pid());
        std::fs::read_to_string(children).ok()?.trim().parse::<u32>().ok()
    })
    .await;
    eventually("the short ones have ended, and nobody is left as a zombie", || async {
        (processes_in(&switchman.root()).len() == 2 && zombies_of(init).is_empty()).then_some(())
    })
    .await;
    switchman.done(&["stop", "4f2a91c", "--force"]).await;
    assert_eq!(processes_in(&switchman.root()), Vec::<String>::new());
    assert_eq!(zombies_of(init), Vec::<i32>::new());
}
