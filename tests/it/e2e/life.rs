//! Workers that hang and workers that are replaced, under load: what clients notice of it.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::super::support::eventually;
use super::super::support::http::{Load, get, get_with, request};
use super::super::support::switchman::{Setup, Switchman};

fn pids(version: &Value) -> Vec<u64> {
    version["workers"].as_array().unwrap().iter().filter_map(|w| w["pid"].as_u64()).collect()
}

/// Waits until a version has as many ready workers as before, and none of those.
async fn renewed(switchman: &Switchman, version: &str, old: &[u64]) {
    let is_new = |v: &Value| {
        let new = pids(v);
        let ready = v["workers"].as_array().unwrap().iter().all(|w| w["state"] == "ready");
        ready && new.len() == old.len() && new.iter().all(|pid| !old.contains(pid))
    };
    switchman.wait_version(version, "has other workers", is_new).await;
}

#[tokio::test]
async fn a_worker_that_hangs_under_load_fails_no_request() {
    let service =
        "    workers: 2\n    live: {interval: 100ms, timeout: 500ms, failures: 2}\n    stop: {grace: 1s}\n";
    let switchman = Switchman::start(Setup { service, ..Setup::default() }).await;
    let before = pids(&switchman.deploy_ready("4f2a91c").await);
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;
    let load = Load::start(&switchman.url("/"), 8);
    load.more(200).await;
    kill_process(Pid::from_raw(before[0] as i32).unwrap(), Signal::STOP).unwrap();
    let hung = switchman.wait_version("4f2a91c", "says so", |v| !v["reason"].is_null()).await;
    assert!(hung["reason"].as_str().unwrap().contains("does not answer"), "{hung}");
    assert_eq!(hung["state"], "ready", "the other one serves");
    let replaced = |v: &Value| v["reason"].is_null() && pids(v).len() == 2 && pids(v)[0] != before[0];
    let after = switchman.wait_version("4f2a91c", "is whole again", replaced).await;
    assert_eq!((pids(&after)[1], &after["workers"][0]["restarts"]), (before[1], &Value::from(1)));
    load.more(200).await;
    // Those that the hung worker had taken are asked of another one when it has been ended.
    let tally = load.stop().await;
    assert!(tally.failures.is_empty(), "{tally}");
}

#[tokio::test]
async fn a_machine_that_stood_still_restarts_nobody() {
    let service = "    workers: 3\n    live: {interval: 100ms, timeout: 500ms, failures: 2}\n";
    let switchman = Switchman::start(Setup { service, ..Setup::default() }).await;
    let before = pids(&switchman.deploy_ready("4f2a91c").await);
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;
    let load = Load::start(&switchman.url("/"), 4);
    load.more(100).await;
    let all: Vec<u64> = before.iter().copied().chain([u64::from(switchman.pid())]).collect();
    let tell = |signal| {
        all.iter().for_each(|pid| kill_process(Pid::from_raw(*pid as i32).unwrap(), signal).unwrap())
    };
    tell(Signal::STOP);
    // Four times as long as it takes to give a worker up: what is tried here is time that passes.
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    tell(Signal::CONT);
    load.more(500).await;
    let after = switchman.version("4f2a91c").await.unwrap();
    assert_eq!((pids(&after), &after["reason"]), (before, &Value::Null));
    assert!(after["workers"].as_array().unwrap().iter().all(|w| w["restarts"] == 0), "{after}");
    let tally = load.stop().await;
    assert!(tally.failures.is_empty(), "{tally}");
    assert!(!switchman.log().contains("liveness"), "no check has failed: {}", switchman.log());
}

#[tokio::test]
async fn everything_is_restarted_under_load_by_command_and_by_the_api_and_nothing_is_lost() {
    let switchman = Switchman::start(Setup { service: "    workers: 2\n", ..Setup::default() }).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;
    switchman.deploy_ready("b001bee").await;
    let versions = ["4f2a91c", "b001bee"];
    let load = Load::start(&switchman.url("/"), 8);
    load.more(200).await;

    let old = [
        pids(&switchman.version(versions[0]).await.unwrap()),
        pids(&switchman.version(versions[1]).await.unwrap()),
    ];
    let said: Value = serde_json::from_str(&switchman.done(&["restart", "--all", "--json"]).await).unwrap();
    let named: Vec<&str> =
        said["restarting"].as_array().unwrap().iter().map(|r| r["version"].as_str().unwrap()).collect();
    assert_eq!(named, versions, "what carries traffic first");
    for (version, old) in versions.iter().zip(&old) {
        let now = switchman.version(version).await.unwrap();
        assert!(pids(&now).iter().all(|pid| !old.contains(pid)), "the command ends when it is done: {now}");
    }

    let token = std::fs::read_to_string(switchman.folder.path().join("state/admin.token")).unwrap();
    let headers = [("authorization", &*format!("Bearer {}", token.trim()))];
    for path in ["/restart", "/services/app/restart"] {
        let old = pids(&switchman.version(versions[1]).await.unwrap());
        let url = format!("http://{}{path}", switchman.admin);
        let answer = request("POST", &url, &headers, "").await.unwrap();
        assert_eq!(answer.status, 202, "{}", answer.text());
        assert_eq!(
            answer.json()["restarting"][0],
            serde_json::json!({"service": "app", "version": "4f2a91c"})
        );
        // The last one in line.
        renewed(&switchman, versions[1], &old).await;
    }
    let refused = switchman.command(&["restart", "--all", "--service", "nobody"]).await;
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    load.more(100).await;
    let tally = load.stop().await;
    assert!(tally.failures.is_empty(), "{tally}");
}

#[tokio::test]
async fn the_signal_usr1_restarts_everything_that_runs() {
    let switchman = Switchman::start(Setup { service: "    workers: 2\n", ..Setup::default() }).await;
    let old = pids(&switchman.deploy_ready("4f2a91c").await);
    kill_process(Pid::from_raw(switchman.pid() as i32).unwrap(), Signal::USR1).unwrap();
    renewed(&switchman, "4f2a91c", &old).await;
}

#[tokio::test]
async fn a_single_worker_that_stops_first_leaves_a_gap_that_is_answered_honestly_or_waited_for() {
    let rules = "default: current\nroutes:\n  - {name: patient, when: {header.x-wait: yes}, to: current, unavailable: wait}\n";
    // The first check comes too early; in the half second until the next one there is no worker.
    let service = "    restart: stop-first\n    ready: {http: /healthz, interval: 500ms}\n";
    let switchman = Switchman::start(Setup { service, rules: Some(rules), ..Setup::default() }).await;
    let old = pids(&switchman.deploy_ready("4f2a91c").await);
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;
    switchman.done(&["restart", "4f2a91c", "--no-wait"]).await;

    let url = switchman.url("/");
    let refused = eventually("a request finds no worker", async || {
        get(&url).await.ok().filter(|answer| answer.status == 503)
    })
    .await;
    assert_eq!(refused.headers["x-switchman-error"], "not-ready", "{}", refused.text());
    let waited = get_with(&url, &[("x-wait", "yes")]).await.unwrap();
    assert_eq!(waited.status, 200, "{}", waited.text());
    renewed(&switchman, "4f2a91c", &old).await;
    assert_eq!(get(&url).await.unwrap().status, 200);
}
