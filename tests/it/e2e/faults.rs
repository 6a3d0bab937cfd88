//! Builds and workers that break, and an end that leaves nothing behind.

use super::super::support::eventually;
use super::super::support::http::{Load, get};
use super::super::support::switchman::{Setup, Switchman, processes_in};

#[tokio::test]
async fn a_broken_build_changes_nothing() {
    let switchman = Switchman::start(Setup::default()).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["dark"] == false).await;
    let load = Load::start(&switchman.url("/"), 4);
    load.more(50).await;

    let build = switchman.build("bad0001");
    std::fs::write(build.join("switchman.yaml"), "run: echo cannot find module express >&2; exit 7\n")
        .unwrap();
    switchman.rsync(&build, "bad0001").await;
    let failed = switchman.wait_state("bad0001", "failed").await;
    let reason = failed["reason"].as_str().unwrap();
    assert!(reason.contains('7') && reason.contains("cannot find module express"), "{reason}");

    load.more(50).await;
    let tally = load.stop().await;
    assert!(tally.failures.is_empty() && tally.of("4f2a91c") == tally.requests(), "{tally}");
    let refused = switchman.command(&["promote", "bad0001"]).await;
    assert_eq!(refused.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("failed"));
    assert_eq!(get(&switchman.url("/")).await.unwrap().version(), "4f2a91c");
}

#[tokio::test]
async fn a_worker_killed_under_load_loses_no_request() {
    let switchman = Switchman::start(Setup { service: "    workers: 3\n", ..Setup::default() }).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["dark"] == false).await;
    let load = Load::start(&switchman.url("/"), 8);
    load.more(200).await;
    for round in 1..=5u64 {
        let version = switchman
            .wait_version("4f2a91c", "has three ready workers", |v| {
                v["workers"].as_array().unwrap().iter().filter(|w| w["state"] == "ready").count() == 3
            })
            .await;
        let worker = &version["workers"][(round % 3) as usize];
        let pid = rustix::process::Pid::from_raw(worker["pid"].as_i64().unwrap() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        switchman
            .wait_version("4f2a91c", "has restarted the worker", |v| {
                let now = &v["workers"][(round % 3) as usize];
                now["restarts"].as_u64() > worker["restarts"].as_u64() && now["state"] == "ready"
            })
            .await;
        load.more(100).await;
    }
    let tally = load.stop().await;
    assert!(tally.failures.is_empty(), "{tally}");
}

#[tokio::test]
async fn term_ends_everything_and_running_requests_first() {
    let mut switchman = Switchman::start(Setup { service: "    workers: 2\n", ..Setup::default() }).await;
    for version in ["4f2a91c", "b001bee", "c0ffee1"] {
        switchman.deploy_ready(version).await;
    }
    switchman.wait_version("4f2a91c", "is current", |v| v["dark"] == false).await;
    assert_eq!(processes_in(&switchman.root()).len(), 6);
    let slow = tokio::spawn({
        let url = switchman.url("/slow/700");
        async move { get(&url).await }
    });
    switchman.wait_version("4f2a91c", "answers the slow request", |v| v["traffic"]["in_flight"] == 1).await;
    switchman.terminate().await;
    let answer = slow.await.unwrap().expect("the running request was answered");
    assert_eq!(answer.status, 200);
    assert_eq!(processes_in(&switchman.root()), Vec::<String>::new(), "no process is left");
}

#[tokio::test]
async fn usr1_restarts_everything_that_runs() {
    use rustix::process::Signal;
    let switchman = Switchman::start(Setup::default()).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;
    let before = switchman.version("4f2a91c").await.unwrap()["workers"][0]["pid"].clone();
    let load = Load::start(&switchman.url("/"), 2);
    load.more(20).await;
    let pid = rustix::process::Pid::from_raw(switchman.pid() as i32).unwrap();
    rustix::process::kill_process(pid, Signal::USR1).unwrap();
    switchman
        .wait_version("4f2a91c", "has a new worker", |v| {
            v["workers"][0]["pid"] != before && v["workers"][0]["state"] == "ready"
        })
        .await;
    let tally = load.stop().await;
    assert!(tally.failures.is_empty(), "{tally}");
}

#[tokio::test]
async fn a_version_that_prints_rubbish_runs_and_its_lines_can_be_read() {
    let switchman = Switchman::start(Setup::default()).await;
    let build = switchman.build("4f2a91c");
    let run = format!(
        "run: head -c 300000 /dev/urandom; head -c 3000000 /dev/zero; echo the last line; exec {}\n",
        super::super::support::switchman::worker_program().display()
    );
    std::fs::write(build.join("switchman.yaml"), run).unwrap();
    switchman.rsync(&build, "4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;
    assert_eq!(get(&switchman.url("/")).await.unwrap().status, 200);
    eventually("its last line is kept", || async {
        // As it was printed, byte by byte.
        let printed = switchman.command(&["logs", "4f2a91c"]).await.stdout;
        String::from_utf8_lossy(&printed).contains("the last line").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_switchman_that_is_killed_after_an_upgrade_starts_again_while_the_old_one_drains() {
    let setup = Setup { held: true, service: "    workers: 2\n", ..Setup::default() };
    let mut switchman = Switchman::start(setup).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;
    let before = processes_in(&switchman.root());
    let slow = tokio::spawn({
        let url = switchman.url("/slow/4000");
        async move { get(&url).await }
    });
    switchman.wait_version("4f2a91c", "answers the slow request", |v| v["traffic"]["in_flight"] == 1).await;
    let load = Load::start(&switchman.url("/"), 4);
    load.more(50).await;
    switchman.upgrade().await;
    load.more(50).await;
    let tally = load.stop().await;
    assert!(tally.failures.is_empty(), "{tally}");

    // The old process still has the slow request, and nothing else that anybody needs.
    switchman.kill().await;
    let waits = tokio::spawn({
        let url = switchman.url("/");
        async move { get(&url).await }
    });
    switchman.start_again().await;
    let waited = waits.await.unwrap().expect("a connection waits for the next switchman");
    assert_eq!((waited.status, waited.version()), (200, "4f2a91c"), "{}", waited.text());
    assert_eq!(slow.await.unwrap().expect("the old process ends what it has").status, 200);
    switchman.wait_state("4f2a91c", "ready").await;
    assert_eq!(processes_in(&switchman.root()), before, "the same workers");
    switchman.terminate().await;
}

#[tokio::test]
async fn a_second_upgrade_waits_neither_for_the_first_process_nor_for_workers_that_it_still_needs() {
    let setup = Setup { service: "    workers: 3\n", ..Setup::default() };
    let mut switchman = Switchman::start(setup).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;
    let slow = tokio::spawn({
        let url = switchman.url("/slow/10000");
        async move { get(&url).await }
    });
    switchman.wait_version("4f2a91c", "answers the slow request", |v| v["traffic"]["in_flight"] == 1).await;
    // Two workers are too many from now on, and may have requests of the first process.
    let file = switchman.folder.path().join("switchman.yaml");
    let fewer = std::fs::read_to_string(&file).unwrap().replace("workers: 3", "workers: 1");
    std::fs::write(&file, fewer).unwrap();
    switchman.upgrade().await;
    assert_eq!(processes_in(&switchman.root()).len(), 3);
    switchman.upgrade().await;
    assert!(!slow.is_finished(), "the first process still has its request");

    assert_eq!(slow.await.unwrap().expect("the first process ends what it has").status, 200);
    eventually("one worker is left", async || (processes_in(&switchman.root()).len() == 1).then_some(()))
        .await;
    switchman.terminate().await;
}
