//! Versions over time, with the real program: asleep and woken by requests, kept and deleted, prepared once.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::super::support::etcd::Etcd;
use super::super::support::eventually;
use super::super::support::http::{Answer, get, get_with};
use super::super::support::switchman::{Setup, Switchman, end_processes_in, processes_in, runs};

/// Requests name the version that they want.
const PINS: &str =
    "routes:\n  - {name: pin, when: {header.x-version: {exists: true}}, to: \"{header.x-version}\"}\n";
/// The same; no other version will do.
const STRICT: &str = "routes:\n  - {name: pin, when: {header.x-version: {exists: true}}, to: \"{header.x-version}\", unavailable: error}\n";

async fn ask(switchman: &Switchman, version: &str) -> Answer {
    get_with(&switchman.url("/"), &[("x-version", version)]).await.unwrap()
}

/// The workers' processes.
fn workers(switchman: &Switchman) -> Vec<String> {
    processes_in(&switchman.root())
}

#[tokio::test]
async fn many_requests_at_once_wake_a_version_once_and_all_are_answered() {
    let switchman =
        Switchman::start(Setup { service: "    idle: 1s\n", rules: Some(PINS), ..Setup::default() }).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.deploy_ready("b001bee").await;
    for version in ["4f2a91c", "b001bee"] {
        switchman.wait_state(version, "asleep").await;
    }
    assert_eq!(workers(&switchman), [""; 0]);
    let shown = switchman.done(&["versions"]).await;
    assert!(shown.contains("asleep"), "{shown}");
    let explained = switchman.done(&["rules", "explain", "-H", "x-version: b001bee", "/"]).await;
    assert!(explained.contains("the request wakes it"), "{explained}");

    let answers = join_all((0..50).map(|_| ask(&switchman, "b001bee"))).await;
    assert!(answers.iter().all(|a| (a.status, a.version()) == (200, "b001bee")), "{answers:?}");
    assert_eq!(switchman.log().matches("waking").count(), 1);
    assert_eq!(workers(&switchman).len(), 1, "the other one sleeps on: {:?}", workers(&switchman));
    // It is current: it sleeps too, and wakes.
    assert_eq!(get(&switchman.url("/")).await.unwrap().version(), "4f2a91c");
}

#[tokio::test]
async fn a_version_that_cannot_be_woken_fails_its_requests_at_once_and_says_why() {
    let switchman =
        Switchman::start(Setup { service: "    idle: 1s\n", rules: Some(STRICT), ..Setup::default() }).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.deploy_ready("b001bee").await;
    switchman.wait_state("b001bee", "asleep").await;
    std::fs::write(switchman.root().join("b001bee/switchman.yaml"), "run: echo no database >&2; exit 7\n")
        .unwrap();
    let begun = Instant::now();
    let refused = ask(&switchman, "b001bee").await;
    assert!(begun.elapsed() < Duration::from_secs(10), "not after the whole 30 s: {:?}", begun.elapsed());
    assert_eq!(
        (refused.status, refused.header("x-switchman-error")),
        (503, Some("wake-failed")),
        "{}",
        refused.text()
    );
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("b001bee") && detail.contains("exited with status 7"), "{detail}");
    assert!(
        !refused.text().contains("no database"),
        "what it prints is not for everybody: {}",
        refused.text()
    );
    switchman.wait_state("b001bee", "failed").await;

    // A route without `unavailable` is answered by current, which is woken for it.
    switchman.write_rules(PINS);
    eventually("current answers instead", || async {
        let answer = ask(&switchman, "b001bee").await;
        ((answer.status, answer.version()) == (200, "4f2a91c")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_request_waits_for_a_waking_version_no_longer_than_it_is_told() {
    let service = "    idle: 1s\n    wake: 1s\n    ready: {http: /healthz, interval: 50ms}\n";
    let switchman = Switchman::start(Setup { service, rules: Some(STRICT), ..Setup::default() }).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.deploy_ready("b001bee").await;
    switchman.wait_state("b001bee", "asleep").await;
    std::fs::write(switchman.root().join("b001bee/switchman.yaml"), "run: exec sleep 1000\n").unwrap();
    let refused = ask(&switchman, "b001bee").await;
    assert_eq!(
        (refused.status, refused.header("x-switchman-error")),
        (503, Some("wake-timeout")),
        "{}",
        refused.text()
    );
}

#[tokio::test]
async fn workers_follow_the_load_up_and_sleep_when_it_is_over() {
    let service = "    idle: 2s\n    workers: {min: 0, max: 4, target_in_flight: 2}\n";
    let switchman = Switchman::start(Setup { service, ..Setup::default() }).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;
    switchman.wait_state("4f2a91c", "asleep").await;
    // Eight at a time, each a second long: they wake it, and call for four workers.
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let url = switchman.url("/slow/1000");
    let client = |_| {
        let (url, stopped) = (url.clone(), stopped.clone());
        async move {
            let mut failures = Vec::new();
            while !*stopped.borrow() {
                match get(&url).await {
                    Ok(answer) if answer.status == 200 => {}
                    other => failures.push(format!("{other:?}")),
                }
            }
            failures
        }
    };
    let four = async {
        let ready = |v: &serde_json::Value| {
            v["workers"].as_array().unwrap().iter().filter(|w| w["state"] == "ready").count()
        };
        switchman.wait_version("4f2a91c", "has four workers", |v| ready(v) == 4).await;
        stop.send_replace(true);
    };
    let (failures, ()) = tokio::join!(join_all((0..8).map(client)), four);
    assert!(failures.concat().is_empty(), "{failures:?}");
    switchman.wait_state("4f2a91c", "asleep").await;
    assert_eq!(workers(&switchman), [""; 0]);
}

#[tokio::test]
async fn a_promote_and_a_rollback_wait_for_the_version_that_they_wake() {
    let switchman = Switchman::start(Setup { service: "    idle: 1s\n", ..Setup::default() }).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;
    switchman.deploy_ready("b001bee").await;
    for (command, version) in [(vec!["promote", "b001bee"], "b001bee"), (vec!["rollback"], "4f2a91c")] {
        switchman.wait_state(version, "asleep").await;
        switchman.done(&command).await;
        let promoted = switchman.version(version).await.unwrap();
        assert_eq!(promoted["state"], "ready", "{promoted}");
        assert_eq!(get(&switchman.url("/")).await.unwrap().version(), version);
    }
}

#[tokio::test]
async fn fifty_sleeping_versions_have_no_process_and_sleep_on_after_a_crash_of_switchman() {
    let mut switchman =
        Switchman::start(Setup { service: "    idle: 1s\n", rules: Some(PINS), ..Setup::default() }).await;
    let versions: Vec<String> = (0..50).map(|n| format!("{n:02}abcde")).collect();
    for version in &versions {
        // Renamed into place, as `mv` does: complete at once.
        std::fs::rename(switchman.build(version), switchman.root().join(version)).unwrap();
    }
    for version in &versions {
        switchman.wait_state(version, "asleep").await;
    }
    assert_eq!(workers(&switchman), [""; 0]);
    switchman.kill_and_start().await;
    for version in &versions {
        switchman.wait_state(version, "asleep").await;
    }
    assert_eq!(workers(&switchman), [""; 0], "nothing was started to find that out");
    let answer = ask(&switchman, &versions[17]).await;
    assert_eq!((answer.status, answer.version()), (200, versions[17].as_str()));
}

#[tokio::test]
async fn folders_beyond_the_newest_are_deleted_and_nothing_else_is() {
    let service = "    keep: 2\n    prune: disk\n";
    let switchman = Switchman::start(Setup { service, ..Setup::default() }).await;
    let is_there = |version: &str| switchman.root().join(version).exists();
    switchman.deploy_ready("a000001").await;
    switchman.wait_version("a000001", "is current", |v| v["aliases"][0] == "current").await;
    switchman.deploy_ready("a000002").await;
    switchman.done(&["tag", "beta", "a000002"]).await;
    switchman.deploy_ready("a000003").await;
    std::fs::create_dir(switchman.root().join("notes")).unwrap();
    switchman.deploy_ready("a000004").await;
    switchman.deploy_ready("a000005").await;
    eventually("the folder of the third is deleted", || async { (!is_there("a000003")).then_some(()) }).await;
    eventually("it is listed no more", || async {
        switchman.version("a000003").await.is_none().then_some(())
    })
    .await;
    for kept in ["a000001", "a000002", "a000004", "a000005"] {
        assert_eq!(switchman.version(kept).await.unwrap()["state"], "ready", "{kept}");
    }
    assert!(is_there("notes"));
    let hidden = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.unwrap().file_name().to_string_lossy().starts_with('.')
    };
    eventually("nothing is left aside", || async {
        (!switchman.root().read_dir().unwrap().any(hidden)).then_some(())
    })
    .await;
    // What comes again is a new arrival.
    switchman.deploy_ready("a000003").await;
    eventually("the fourth has had its time", || async { (!is_there("a000004")).then_some(()) }).await;
}

/// A switchman whose versions run `migrate` in their folder first, agreed upon in etcd.
async fn node(etcd: &Etcd, migrate: &Path) -> Switchman {
    let top = format!("etcd: {{endpoints: [\"{}\"]}}\n", etcd.url());
    let service = format!("    hooks: {{before_start: \"sh {}\"}}\n", migrate.display());
    Switchman::start(Setup { top: &top, service: &service, ..Setup::default() }).await
}

/// A migration in a folder of its own, and the file that it writes to.
fn migration(text: &str) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (script, lines) = (folder.path().join("migrate.sh"), folder.path().join("lines"));
    std::fs::write(&script, format!("cd {}\n{text}", folder.path().display())).unwrap();
    (folder, script, lines)
}

fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_migration_runs_once_on_all_nodes() {
    let etcd = Etcd::start().await;
    let (_folder, script, file) = migration("sleep 1; echo $COMMIT >> lines; test $COMMIT != bad0bad");
    let (a, b) = tokio::join!(node(&etcd, &script), node(&etcd, &script));
    tokio::join!(a.deploy_ready("4f2a91c"), b.deploy_ready("4f2a91c"));
    assert_eq!(lines(&file), ["4f2a91c"]);
    // It is known what becomes of it for a node that comes later, too.
    let stored = etcd.get("/switchman/app/hooks/4f2a91c/before_start").await.unwrap();
    assert!(stored.contains("\"state\":\"done\"") && stored.contains("\"node\":\"host-a\""), "{stored}");
    let c = node(&etcd, &script).await;
    c.deploy_ready("4f2a91c").await;
    assert_eq!(lines(&file), ["4f2a91c"]);

    // One that fails fails everywhere, after one try; a person's start is another.
    tokio::join!(a.deploy("bad0bad"), b.deploy("bad0bad"));
    let (on_a, on_b) = tokio::join!(a.wait_state("bad0bad", "failed"), b.wait_state("bad0bad", "failed"));
    let reasons = [on_a, on_b].map(|v| v["reason"].as_str().unwrap().to_owned());
    assert!(reasons.iter().all(|r| r.contains("before_start exited with status 1")), "{reasons:?}");
    assert_eq!(lines(&file), ["4f2a91c", "bad0bad"]);
    a.command(&["start", "bad0bad"]).await;
    assert_eq!(lines(&file), ["4f2a91c", "bad0bad", "bad0bad"]);
}

#[tokio::test]
async fn a_migration_is_taken_over_from_a_node_that_dies() {
    let etcd = Etcd::start().await;
    let (folder, script, file) =
        migration("echo $$ >> lines; if mkdir first 2>/dev/null; then exec sleep 1000; fi");
    let mut a = node(&etcd, &script).await;
    a.deploy("4f2a91c").await;
    eventually("the first node runs it", || async { (lines(&file).len() == 1).then_some(()) }).await;
    let b = node(&etcd, &script).await;
    b.deploy("4f2a91c").await;
    b.wait_version("4f2a91c", "waits", |v| {
        v["reason"].as_str().is_some_and(|r| r.contains("waits for host-a"))
    })
    .await;
    a.kill().await;
    b.wait_state("4f2a91c", "ready").await;
    assert_eq!(lines(&file).len(), 2);
    // What the dead node was doing goes on without it, until its next switchman ends it.
    end_processes_in(folder.path());
}

#[tokio::test]
async fn a_migration_that_a_killed_switchman_has_begun_is_ended_and_begun_again() {
    let (_folder, script, file) =
        migration("echo $$ >> lines; if mkdir first 2>/dev/null; then exec sleep 1000; fi");
    let service = format!("    hooks: {{before_start: \"sh {}\"}}\n", script.display());
    let mut switchman = Switchman::start(Setup { service: &service, ..Setup::default() }).await;
    switchman.deploy("4f2a91c").await;
    let begun = eventually("it runs", || async { lines(&file).first().cloned() }).await;
    switchman.kill_and_start().await;
    switchman.wait_state("4f2a91c", "ready").await;
    assert_eq!(lines(&file).len(), 2);
    let begun = begun.parse().unwrap();
    eventually("the first one is ended", || async { (!runs(begun)).then_some(()) }).await;
}

#[tokio::test]
async fn a_migration_waits_for_an_etcd_that_is_away_and_holds_up_nobody_else() {
    let mut etcd = Etcd::start().await;
    let (_folder, script, file) = migration("echo $COMMIT >> lines");
    let switchman = node(&etcd, &script).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;
    etcd.kill().await;
    switchman.deploy("b001bee").await;
    let waits = switchman
        .wait_version("b001bee", "waits", |v| {
            v["reason"].as_str().is_some_and(|r| r.contains("waits for etcd"))
        })
        .await;
    assert_eq!(waits["state"], "starting");
    assert_eq!(get(&switchman.url("/")).await.unwrap().version(), "4f2a91c");
    // What was prepared before starts without etcd.
    switchman.done(&["restart", "4f2a91c"]).await;
    etcd.restart().await;
    switchman.wait_state("b001bee", "ready").await;
    assert_eq!(lines(&file), ["4f2a91c", "b001bee"]);
}
